"""Data sets: decoding, cache, splits that do not overlap, augmentation against a slow reference."""

from __future__ import annotations

import pickle
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import REAL_CIFAR10, REPOSITORY
from PIL import Image

from cifarsweep import data
from cifarsweep.data import augment, cache
from cifarsweep.data.dataset import stratified


def small_shapes(data_cache: Path, **changed: object) -> data.DataSet:
    arguments = {"num_train": 300, "num_test": 100, "val_size": 50, "cache": str(data_cache), **changed}
    return data.load_shapes(**arguments)  # type: ignore[arg-type]


def write_images(folder: Path, num: int, size: tuple[int, int] = (40, 30), seed: int = 0) -> None:
    folder.mkdir(parents=True)
    random = np.random.default_rng(seed)
    for i in range(num):
        Image.fromarray(random.integers(0, 256, (*size, 3), dtype=np.uint8)).save(folder / f"{i}.png")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An image folder of two classes: ten training and four test images each."""
    for i, name in enumerate(["ant", "bee"]):
        write_images(tmp_path / "images" / "train" / name, 10, seed=i)
        write_images(tmp_path / "images" / "test" / name, 4, seed=10 + i)
    return tmp_path / "images"


# splits


@pytest.mark.parametrize("val_size", [1, 50, 123, 0.2])
def test_training_and_validation_share_no_image_and_leave_none_out(data_cache: Path, val_size: float) -> None:
    dataset = small_shapes(data_cache, val_size=val_size)
    both = torch.cat([dataset.train_indices, dataset.val_indices])
    assert both.sort().values.tolist() == list(range(300))
    assert len(dataset.val_indices) == (60 if val_size == 0.2 else val_size)


def test_each_class_has_its_share_of_a_split() -> None:
    labels = torch.tensor([0] * 50 + [1] * 30 + [2] * 20)
    drawn = stratified(labels, 10, seed=0)
    assert torch.bincount(labels[drawn]).tolist() == [5, 3, 2]
    drawn = stratified(labels, 11, seed=0)
    assert torch.bincount(labels[drawn]).sum() == 11
    assert not torch.equal(stratified(labels, 10, seed=0), stratified(labels, 10, seed=1))


def test_a_subset_is_taken_from_the_training_images_only(data_cache: Path) -> None:
    whole, part = small_shapes(data_cache), small_shapes(data_cache, subset=40)
    assert torch.equal(whole.val_indices, part.val_indices)
    assert len(part.train_indices) == 40
    assert set(part.train_indices.tolist()) <= set(whole.train_indices.tolist())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"val_size": 300}, "val_size=300: expected 0 to 299"),
        ({"subset": 251}, "subset=251: expected 1 to 250"),
    ],
)
def test_sizes_over_the_data_are_refused(data_cache: Path, changed: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small_shapes(data_cache, **changed)


@pytest.mark.parametrize("changed", [{"val_size": 60}, {"subset": 61}, {"val_size": 10, "subset": 51}])
def test_sizes_over_the_data_leave_nothing_in_the_cache(folder: Path, tmp_path: Path, changed: dict[str, int]) -> None:
    empty = tmp_path / "cache"
    for load in (partial(data.load_shapes, num_train=60), partial(data.load_image_folder, str(folder))):
        with pytest.raises(ValueError, match=r"expected [01] to "):
            load(cache=str(empty), **{"val_size": 0, **changed})
    assert not empty.exists()


def test_an_unknown_augmentation_is_refused(data_cache: Path) -> None:
    with pytest.raises(TypeError, match="rotate"):
        small_shapes(data_cache, augment={"rotate": 3})


# batches


def test_an_epoch_shows_each_image_once_and_a_seed_fixes_it(data_cache: Path) -> None:
    dataset = small_shapes(data_cache)
    train = dataset.batchers(torch.device("cpu")).train

    def epoch(seed: int) -> list[torch.Tensor]:
        return [images for images, _ in train.training(50, data.Augmentation(), seed)]

    seen = torch.cat(epoch(1)).flatten(1)
    assert len(seen) == 250
    assert len(seen.unique(dim=0)) == len(dataset.train_images[dataset.train_indices].flatten(1).unique(dim=0))
    assert torch.equal(torch.cat(epoch(1)), torch.cat(epoch(1)))
    assert not torch.equal(torch.cat(epoch(1)), torch.cat(epoch(2)))


def test_batches_are_normalised_by_the_training_images_and_labels_fit(data_cache: Path) -> None:
    dataset = small_shapes(data_cache, val_size=0)
    train = dataset.batchers(torch.device("cpu")).train
    images, labels = next(train.evaluation(300))
    assert images.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(images.mean((0, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(images.std((0, 2, 3)), torch.ones(3), atol=1e-3, rtol=0)
    slow = (dataset.train_images / 255 - torch.tensor(dataset.mean).view(3, 1, 1)) / torch.tensor(dataset.std).view(
        3, 1, 1
    )
    torch.testing.assert_close(images, slow, atol=1e-5, rtol=1e-5)
    assert torch.equal(labels, dataset.train_labels)


def test_cutout_blanks_a_square_of_the_mean_colour(data_cache: Path) -> None:
    train = small_shapes(data_cache).batchers(torch.device("cpu")).train
    plain, _ = next(train.training(250, data.Augmentation(), 0))
    cut, _ = next(train.training(250, data.Augmentation(cutout=8), 0))
    changed = (plain != cut).any(dim=1)
    assert (cut.permute(0, 2, 3, 1)[changed] == 0).all()
    rows, columns = changed.any(dim=2).sum(1), changed.any(dim=1).sum(1)
    assert rows.max() <= 8
    assert columns.max() <= 8
    assert changed.sum() > 250 * 16  # the smallest square, in a corner, still has 4×4 pixels


# augmentation against a slow reference


def test_the_random_crop_is_a_window_of_the_mirrored_image() -> None:
    images = torch.randint(0, 256, (40, 3, 8, 8), dtype=torch.uint8)
    crop = augment.random_crop(images, 2, torch.Generator().manual_seed(3))
    offsets = set()
    for image, result in zip(images, crop, strict=True):
        padded = np.pad(image.numpy(), ((0, 0), (2, 2), (2, 2)), mode="reflect")
        windows = [
            (y, x)
            for y in range(5)
            for x in range(5)
            if np.array_equal(padded[:, y : y + 8, x : x + 8], result.numpy())
        ]
        assert len(windows) == 1
        offsets.add(windows[0])
    assert len(offsets) > 10
    assert crop.dtype == torch.uint8


def test_half_of_the_images_are_mirrored_and_the_others_kept() -> None:
    images = torch.randint(0, 256, (400, 3, 4, 4), dtype=torch.uint8)
    flip = augment.Augmentation(flip=True)
    flipped = flip.crop_and_flip(images, torch.zeros(400), torch.Generator().manual_seed(0))
    same = (flipped == images).flatten(1).all(1)
    mirrored = (flipped == images.flip(3)).flatten(1).all(1)
    assert bool((same ^ mirrored).all())
    assert 160 < int(mirrored.sum()) < 240


def test_an_alternating_flip_shows_each_image_once_as_it_is_and_once_mirrored_in_two_epochs(data_cache: Path) -> None:
    dataset = small_shapes(data_cache, val_size=0, augment={"flip": "alternating"})
    train, plain = dataset.batchers(torch.device("cpu")).train, augment.Augmentation()
    for seed in range(3):
        versions = []
        for epoch in (1, 2, 3):
            ((images, _),) = train.training(300, dataset.augmentation, seed, epoch)
            versions.append(images)
        ((originals, _),) = train.training(300, plain, seed)
        first = (versions[0] == originals).flatten(1).all(1)
        assert int(first.sum()) == 150
        assert torch.equal(torch.where(first[:, None, None, None], versions[0], versions[1]), originals)
        assert torch.equal(torch.where(first[:, None, None, None], versions[1], versions[0]), originals.flip(3))
        assert torch.equal(versions[0], versions[2])


def test_each_shift_is_as_likely_as_any_other() -> None:
    image = torch.arange(64, dtype=torch.uint8).view(1, 1, 8, 8).expand(5000, 1, 8, 8)
    crop = augment.random_crop(image, 1, torch.Generator().manual_seed(0))
    counts = torch.unique(crop.flatten(1), dim=0, return_counts=True)[1]
    assert len(counts) == 9
    assert counts.min() > 5000 / 9 * 0.8


# the cache


def test_a_second_load_decodes_nothing_and_maps_the_same_bytes(data_cache: Path) -> None:
    first = small_shapes(data_cache)
    stamp = {file: file.stat().st_mtime_ns for file in data_cache.rglob("*.npy")}
    second = small_shapes(data_cache)
    assert torch.equal(first.train_images, second.train_images)
    assert first.fingerprint == second.fingerprint
    assert {file: file.stat().st_mtime_ns for file in data_cache.rglob("*.npy")} == stamp


def test_a_stray_write_never_reaches_the_cache_file(data_cache: Path) -> None:
    first = small_shapes(data_cache)
    before = first.train_images[0].clone()
    first.train_images[0] = 0
    assert torch.equal(small_shapes(data_cache).train_images[0], before)


def test_a_decoder_that_fails_leaves_no_entry(tmp_path: Path) -> None:
    def fails(writer: cache.Writer) -> None:
        writer.split("train", 5, 8)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        cache.cached(tmp_path, "kind", (), fails)
    assert [path.name for path in (tmp_path / "decoded").iterdir() if not path.name.endswith(".lock")] == []


@pytest.mark.slow
def test_processes_that_ask_at_once_decode_once(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from cifarsweep.data import cache\n"
        "def decode(w):\n"
        "    open(sys.argv[1] + '/decodings', 'a').write('x'); time.sleep(0.5); w.class_names = ['a', 'b']\n"
        "    for s in ('train', 'test'):\n"
        "        images, labels = w.split(s, 4, 8); images[:] = 7; labels[:] = 1\n"
        "print(cache.cached(Path(sys.argv[1]), 'kind', (1,), decode).train_images.sum().item())\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY) for _ in range(3)]
    assert [process.communicate()[0].strip() for process in started] == [str(7 * 4 * 8 * 8 * 3)] * 3
    assert (tmp_path / "decodings").read_text() == "x"


# image folders


def load_folder(root: Path, data_cache: Path, **changed: object) -> data.DataSet:
    arguments = {"root": str(root), "cache": str(data_cache), "val_size": 0, "size": 8, **changed}
    return data.load_image_folder(**arguments)  # type: ignore[arg-type]


def test_an_image_folder_has_its_classes_and_middle_squares(folder: Path, data_cache: Path) -> None:
    dataset = load_folder(folder, data_cache, size=30)
    assert dataset.class_names == ["ant", "bee"]
    assert torch.bincount(dataset.train_labels).tolist() == [10, 10]
    assert dataset.test_images.shape == (8, 3, 30, 30)
    with Image.open(folder / "train" / "ant" / "0.png") as image:
        middle = np.asarray(image)[5:35]  # 40×30: the middle square needs no scaling at size 30
    assert np.array_equal(dataset.train_images[0].permute(1, 2, 0).numpy(), middle)


def test_without_a_test_folder_a_part_is_split_off(folder: Path, data_cache: Path) -> None:
    shutil.rmtree(folder / "test")
    dataset = load_folder(folder, data_cache, test_size=0.2)
    assert torch.bincount(dataset.test_labels).tolist() == [2, 2]
    train = {bytes(image.contiguous().numpy()) for image in dataset.train_images}
    test = {bytes(image.contiguous().numpy()) for image in dataset.test_images}
    assert len(train) == 16
    assert len(test) == 4
    assert not train & test


def test_a_changed_image_is_decoded_again(folder: Path, data_cache: Path) -> None:
    before = load_folder(folder, data_cache).fingerprint
    Image.new("RGB", (40, 30), (255, 0, 0)).save(folder / "train" / "bee" / "3.png")
    assert load_folder(folder, data_cache).fingerprint != before


def test_gray_and_transparent_images_become_three_channels(folder: Path, data_cache: Path) -> None:
    Image.new("L", (20, 20), 100).save(folder / "train" / "ant" / "00.png")
    Image.new("RGBA", (20, 20), (1, 2, 3, 4)).save(folder / "train" / "ant" / "01.png")
    assert load_folder(folder, data_cache).train_images.shape == (22, 3, 8, 8)


def break_folder(folder: Path, how: str) -> None:
    ant = folder / "train" / "ant"
    if how == "truncated":
        whole = (ant / "0.png").read_bytes()
        (ant / "0.png").write_bytes(whole[: len(whole) // 2])
    elif how == "text":
        (ant / "0.png").write_text("not an image")
    elif how == "empty class":
        for file in ant.iterdir():
            file.unlink()
    elif how == "one class":
        shutil.rmtree(folder / "train" / "bee")
        shutil.rmtree(folder / "test" / "bee")
    elif how == "other classes":
        (folder / "test" / "bee").rename(folder / "test" / "wasp")
    elif how == "no train":
        shutil.rmtree(folder / "train")


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("truncated", r"1 image file\(s\) cannot be read: .*ant/0\.png"),
        ("text", r"1 image file\(s\) cannot be read: .*ant/0\.png"),
        ("empty class", "no image in .*ant"),
        ("one class", "1 class folder"),
        ("other classes", "the same class folders in train and test"),
        ("no train", "train/<class>"),
    ],
)
def test_a_broken_folder_is_named(folder: Path, data_cache: Path, how: str, message: str) -> None:
    break_folder(folder, how)
    with pytest.raises(ValueError, match=message):
        load_folder(folder, data_cache)


# torchvision's sets, in their own formats


def test_cifar100_and_fashion_mnist_are_read_from_their_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision import datasets

    random = np.random.default_rng(0)
    raw = tmp_path / "cifar-100-python"
    raw.mkdir()
    for name, num in (("train", 6), ("test", 2)):
        pixels = random.integers(0, 256, (num, 3072), dtype=np.uint8)
        (raw / name).write_bytes(pickle.dumps({"data": pixels, "fine_labels": list(range(num))}))
    (raw / "meta").write_bytes(pickle.dumps({"fine_label_names": [f"class {i}" for i in range(100)]}))
    monkeypatch.setattr(datasets.CIFAR100, "_check_integrity", lambda self: True)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    dataset = data.load_torchvision("cifar100", str(tmp_path), str(tmp_path / "cache"), val_size=0)
    assert dataset.train_images.shape == (6, 3, 32, 32)
    assert len(dataset.class_names) == 100

    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for name, num in (("train", 6), ("t10k", 2)):
        pixels = random.integers(0, 256, (num, 28, 28), dtype=np.uint8)
        header = b"\0\0\x08\x03" + b"".join(n.to_bytes(4, "big") for n in pixels.shape)
        (raw / f"{name}-images-idx3-ubyte").write_bytes(header + pixels.tobytes())
        (raw / f"{name}-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01" + num.to_bytes(4, "big") + bytes(range(num)))
    dataset = data.load_torchvision("fashion_mnist", str(tmp_path), str(tmp_path / "cache"), val_size=0)
    assert dataset.image_size == 28
    assert torch.equal(dataset.test_images[1, 0], torch.from_numpy(pixels[1]))
    assert torch.equal(dataset.test_images[:, 0], dataset.test_images[:, 2])


def test_files_that_are_not_the_official_ones_are_refused(tmp_path: Path) -> None:
    raw = tmp_path / "cifar-10-batches-py"
    raw.mkdir()
    for name in ["batches.meta", "test_batch", *(f"data_batch_{i}" for i in range(1, 6))]:
        (raw / name).write_bytes(b"torn")
    with pytest.raises(ValueError, match=r"cifar-10-batches-py are damaged or incomplete"):
        data.load_torchvision("cifar10", str(tmp_path), str(tmp_path / "cache"), val_size=0)


@pytest.mark.skipif(not REAL_CIFAR10.exists(), reason=f"no CIFAR-10 in {REAL_CIFAR10} (CIFARSWEEP_TEST_CIFAR10)")
def test_the_real_cifar10_has_its_published_statistics_and_costs_little_to_open_again(data_cache: Path) -> None:
    arguments = f"'cifar10', {str(REAL_CIFAR10)!r}, {str(data_cache)!r}, 5000"
    dataset = data.load_torchvision("cifar10", str(REAL_CIFAR10), str(data_cache), 5000)
    assert dataset.mean == pytest.approx([0.49140, 0.48216, 0.44653], abs=1e-5)
    assert dataset.std == pytest.approx([0.24703, 0.24349, 0.26159], abs=1e-5)
    assert torch.bincount(dataset.train_labels[dataset.val_indices]).tolist() == [500] * 10
    code = (
        "import time\nfrom cifarsweep.data import load_torchvision\n"
        # Private_Clean pages are the page cache's: any process that maps the file shares them.
        "def private():\n"
        "    lines = open('/proc/self/smaps_rollup').read().splitlines()\n"
        "    return sum(int(l.split()[1]) for l in lines if l.startswith('Private_Dirty')) / 1024\n"
        # The process's own time: what else runs on the machine is no cost of this.
        f"before, start = private(), time.process_time()\ndataset = load_torchvision({arguments})\n"
        "seconds = time.process_time() - start\n"
        "total = int(dataset.train_images[dataset.train_indices[:45000:9]].sum()), dataset.train_images.sum()\n"
        "print(seconds, private() - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    seconds, mebibytes = map(float, done.stdout.split())
    assert seconds < 1
    assert mebibytes < 100
