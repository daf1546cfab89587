"""Folders of images: names, links, splits and reasons, answered before anything is trained."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cifarsweep import data


def write(folder: Path, *names: str, seed: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    for name in names:
        Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(folder / name, "PNG")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two classes, ten images each, no test folder."""
    for seed, name in enumerate(["ant", "bee"]):
        write(tmp_path / "images" / "train" / name, *(f"{i}.png" for i in range(10)), seed=seed)
    return tmp_path / "images"


def load(root: Path, cache: Path, **changed: object) -> data.DataSet:
    arguments = {"root": str(root), "cache": str(cache), "val_size": 0, "size": 8, **changed}
    return data.load_image_folder(**arguments)  # type: ignore[arg-type]


# fingerprints, which are part of a run's id


def test_hidden_and_system_entries_and_links_back_change_no_fingerprint(root: Path, data_cache: Path) -> None:
    before = load(root, data_cache).fingerprint
    assert before == "51dc314bca724ce8"
    ant = root / "train" / "ant"
    write(ant / ".ipynb_checkpoints", "0-checkpoint.png", seed=7)
    write(root / "train" / "__MACOSX" / "ant", "._0.png", seed=8)
    write(root / "train" / "@eaDir", "thumb.png", seed=8)
    write(ant, ".DS_Store", "Thumbs.db", "0.png~", "~1.png", seed=9)
    (ant / "again").symlink_to(".")
    (ant / "upwards").symlink_to("..")
    (ant / "zero.png").symlink_to("0.png")
    os.mkfifo(ant / "fifo.png")
    assert load(root, data_cache).fingerprint == before


def test_a_link_to_a_folder_of_images_counts(root: Path, tmp_path: Path, data_cache: Path) -> None:
    write(tmp_path / "elsewhere" / "deep", "x.png", "y.png", seed=3)
    (root / "train" / "ant" / "more").symlink_to(tmp_path / "elsewhere")
    (root / "train" / "cat").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(
        ValueError, match=r"train/cat/deep/x.png is the same file as .*ant/more/deep/x.png, expected each"
    ):
        load(root, data_cache)
    (root / "train" / "cat").unlink()
    dataset = load(root, data_cache)
    assert len(dataset.train_labels) + len(dataset.test_labels) == 22


def test_a_16_bit_image_trains_as_its_8_bit_twin(root: Path, data_cache: Path) -> None:
    grey = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)
    Image.fromarray(grey).save(root / "train" / "ant" / "0.png")
    before = load(root, data_cache).fingerprint
    Image.fromarray(grey.astype(np.uint16) * 257).save(root / "train" / "ant" / "0.png")
    assert load(root, data_cache).fingerprint == before


# images of both splits


def test_test_images_that_are_training_images_too_are_named_whenever_the_data_is_read(
    root: Path, data_cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for seed, name in enumerate(["ant", "bee"]):
        write(root / "test" / name, "new.png", seed=10 + seed)
    (root / "test" / "ant" / "copy.bmp").write_bytes((root / "train" / "ant" / "3.png").read_bytes())
    (root / "test" / "bee" / "again.png").symlink_to(root / "train" / "bee" / "0.png")
    with caplog.at_level(logging.WARNING):
        load(root, data_cache)
    (record,) = caplog.records
    assert record.message == (
        f"{root}: 2 of 4 test images are training images too, which makes the test accuracy look better than it is: "
        "test/ant/copy.bmp = train/ant/3.png, test/bee/again.png = train/bee/0.png"
    )
    from cifarsweep.data import cache

    cache._warn_once.cache_clear()  # as in a process of its own
    caplog.clear()
    for _ in range(2):
        load(root, data_cache)
    assert [again.message for again in caplog.records] == [record.message]


def test_a_warning_does_not_speak_to_the_terminal(
    root: Path, data_cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for seed, name in enumerate(["ant", "bee"]):
        write(root / "test" / name, "new.png", seed=20 + seed)
    (root / "test" / "ant" / "\x1b[2J.png").symlink_to(root / "train" / "ant" / "3.png")
    load(root, data_cache)
    assert "test/ant/\\x1b[2J.png = train/ant/3.png" in caplog.text


# splits


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"test_size": 0.01},
            r"^test_size=0.01: expected 1 to 19 images, or a part of them below 1; of 20 images .* 0$",
        ),
        ({"test_size": 20}, r"^test_size=20: expected 1 to 19 images"),
        ({"test_size": 0}, r"^test_size=0: expected 1 to 19 images"),
        ({"test_size": 1.5}, r"^test_size=1.5: expected 1 to 19 images"),
        ({"test_size": float("nan")}, r"^test_size=nan: expected 1 to 19 images"),
        ({"test_size": 19}, r"^test_size=19: no training image of class (ant|bee) is left; expected fewer images$"),
        ({"val_size": 15}, r"^val_size=15: no training image of class (ant|bee) is left; expected fewer images$"),
        ({"val_size": 1.5}, r"^val_size=1.5: expected 0 to 15 images"),
        ({"val_size": float("inf")}, r"^val_size=inf: expected 0 to 15 images"),
        ({"subset": 1}, r"^subset=1: no training image of class (ant|bee) is left; expected more images$"),
        ({"size": 1_000_000}, r"^size=1000000: expected 8 to 1024$"),
    ],
)
def test_a_split_without_images_is_refused(
    root: Path, data_cache: Path, changed: dict[str, float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        load(root, data_cache, **changed)


def test_two_images_cannot_be_split(tmp_path: Path, data_cache: Path) -> None:
    write(tmp_path / "train" / "ant", "0.png")
    write(tmp_path / "train" / "bee", "0.png", seed=1)
    with pytest.raises(ValueError, match=r"^test_size=0.2: expected 1 to 1 images, .*; of 2 images this is 0$"):
        load(tmp_path, data_cache)


def test_more_images_than_the_disk_has_room_for_are_refused_before_they_are_made(tmp_path: Path) -> None:
    with pytest.raises(
        OSError, match=r"No space left on device: 999,999,999,999 images need 3,072,000,000.0 MB, [\d,.]+ MB are free"
    ):
        data.load_shapes(str(tmp_path), val_size=0, num_train=999_999_999_999)
    assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) == 0


@pytest.mark.parametrize("key", ["num_train", "num_test"])
def test_shapes_need_an_image_of_each_class(tmp_path: Path, key: str) -> None:
    with pytest.raises(ValueError, match=f"^{key}=9: expected 10 or more"):
        data.load_shapes(str(tmp_path), val_size=0, **{key: 9})  # type: ignore[arg-type]


# names of classes


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([b"caf\xe9"], r"class folder 'caf\\udce9', expected a name in UTF-8 without control characters"),
        ([b"a\x1b[2Jb"], r"class folder 'a\\x1b\[2Jb', expected a name in UTF-8 without control characters"),
        ([b"a\nb"], r"class folder 'a\\nb', expected"),
        (
            ["caf\u00e9".encode(), "cafe\u0301".encode()],
            r"class folders 'cafe\\u0301' and 'caf\\xe9' differ in their Unicode form only, expected one of them",
        ),
    ],
)
def test_class_names_that_cannot_be_shown_or_told_apart_are_named(
    root: Path, data_cache: Path, names: list[bytes], message: str
) -> None:
    for name in names:
        write(root / "train" / os.fsdecode(name), "0.png")
    with pytest.raises(ValueError, match=message):
        load(root, data_cache)


def test_class_folders_of_one_split_only_are_named(root: Path, data_cache: Path) -> None:
    for name in ("bee", "wasp", "猫"):
        write(root / "test" / name, "0.png")
    with pytest.raises(ValueError, match=r"in train and test; train alone has ant, test alone has wasp, 猫$"):
        load(root, data_cache)


def test_class_folders_that_differ_in_their_unicode_form_are_shown_by_it(root: Path, data_cache: Path) -> None:
    write(root / "train" / "caf\u00e9", "0.png")
    for name in ("ant", "bee", "cafe\u0301"):
        write(root / "test" / name, "0.png")
    with pytest.raises(
        ValueError, match=r"train alone has 'caf\\xe9', test alone has 'cafe\\u0301', of which some diff"
    ):
        load(root, data_cache)


# images that cannot be read


def test_an_image_is_refused_with_its_reason(root: Path, data_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ant = root / "train" / "ant"
    (ant / "0.png").write_bytes((ant / "0.png").read_bytes()[:100])
    (ant / "1.png").write_text("not an image")
    Image.new("F", (8, 8)).save(ant / "2.tif")
    Image.new("L", (300, 300)).save(ant / "3.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)
    with pytest.raises(ValueError, match=r"4 image file\(s\) cannot be read: ") as error:
        load(root, data_cache)
    line = str(error.value)
    assert f"{ant / '0.png'} (" in line
    assert "runcated" in line or "broken" in line
    assert f"{ant / '1.png'} (in no format that Pillow reads), " in line
    assert f"{ant / '2.tif'} (mode F, floats, which have no full range; expected 8 or 16 bits a channel" in line
    assert (
        f"{ant / '3.png'} (Image size (90000 pixels) exceeds limit of 20000 pixels, could be decompression bom" in line
    )


def test_a_broken_link_to_an_image_is_named(root: Path, data_cache: Path) -> None:
    (root / "train" / "bee" / "gone.png").symlink_to("nowhere")
    with pytest.raises(FileNotFoundError) as error:
        load(root, data_cache)
    assert str(error.value.filename).endswith("train/bee/gone.png")


def test_a_class_that_is_a_link_to_nothing_is_named(root: Path, data_cache: Path) -> None:
    (root / "train" / "cat").symlink_to("unmounted")
    with pytest.raises(ValueError, match=r"train/cat is a link to nothing, expected the folder of a class$"):
        load(root, data_cache)


def test_a_test_folder_that_is_none_is_not_passed_over(root: Path, data_cache: Path) -> None:
    (root / "test").symlink_to("unmounted")
    with pytest.raises(FileNotFoundError) as error:
        load(root, data_cache)
    assert str(error.value.filename).endswith("images/test")


def test_a_transparent_image_is_shown_on_white(root: Path, data_cache: Path) -> None:
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(root / "train" / "ant" / "0.png")
    first = load(root, data_cache, test_size=1).train_images
    assert bool((first == 255).all(dim=(1, 2, 3)).any())
    assert first.dtype == torch.uint8
