"""Images that a person should see: which are chosen, and the file in which they are kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from cifarsweep.data import DataSet, load_shapes, samples
from cifarsweep.report.confusion import Confusion
from cifarsweep.results import mosaic
from cifarsweep.results.mosaic import Mosaic


@pytest.fixture
def dataset(data_cache: Path) -> DataSet:
    augment = {"crop": 2, "flip": True, "cutout": 8}
    return load_shapes(str(data_cache), val_size=100, num_train=600, num_test=200, augment=augment)


def test_each_class_shows_ten_of_its_own_training_images(dataset: DataSet) -> None:
    drawn = samples.of_classes(dataset)
    assert drawn.names == dataset.class_names
    assert drawn.images.shape == (10, 10, 32, 32, 3)
    everything = dataset.train_images.permute(0, 2, 3, 1).numpy()
    for label, row in enumerate(drawn.images):
        of_class = {everything[at].tobytes() for at in (dataset.train_labels == label).nonzero()[:, 0].tolist()}
        assert {image.tobytes() for image in row} <= of_class
        assert len({image.tobytes() for image in row}) == 10


def test_a_class_with_fewer_images_ends_in_white(data_cache: Path) -> None:
    few = load_shapes(str(data_cache), val_size=0, num_train=60, num_test=20)
    drawn = samples.of_classes(few)
    assert drawn.images.shape[:2] == (10, 10)
    assert (drawn.images[0, 6:] == 255).all()


def test_an_original_stands_beside_what_training_makes_of_it(dataset: DataSet) -> None:
    drawn = samples.augmented(dataset)
    original, variants = drawn.images[0, 0], drawn.images[0, 1:]
    assert (original == dataset.train_images[dataset.train_labels == 0][0].permute(1, 2, 0).numpy()).all()
    assert len({variant.tobytes() for variant in variants}) == 9  # 50 shifts and flips, a thousand places of the square
    mean = np.array([round(255 * value) for value in dataset.mean])
    blanked = (np.abs(variants.astype(int) - mean) <= 1).all(-1).sum((1, 2))
    assert (blanked >= 16).all()  # a square of 8×8 pixels, of which a quarter at least is inside


@pytest.mark.parametrize("flip", [True, "alternating"])
def test_without_augmentation_but_the_flip_variants_are_the_original_and_its_mirror(
    data_cache: Path, flip: bool | str
) -> None:
    flips = load_shapes(str(data_cache), val_size=0, num_train=600, num_test=200, augment={"flip": flip})
    for original, *variants in samples.augmented(flips).images:
        for variant in variants:
            assert (variant == original).all() or (variant == original[:, ::-1]).all()
        assert len({variant.tobytes() for variant in variants}) == 2


def test_confused_images_are_those_of_the_reports_pairs(dataset: DataSet) -> None:
    generator = torch.Generator().manual_seed(1)
    labels = dataset.test_labels
    predicted = torch.where(torch.rand(200, generator=generator) < 0.5, labels, torch.randint(10, (200,)))
    drawn = samples.confused(dataset, predicted)
    assert drawn is not None
    counts = torch.bincount(labels * 10 + predicted, minlength=100).view(10, 10).numpy()
    pairs = Confusion(dataset.class_names, counts).pairs(samples.NUM_PAIRS)
    assert [name.rpartition(":")[0] for name in drawn.names] == [f"{a}, taken for {b}" for a, b, _, _ in pairs]
    assert [int(name.split(": ")[1].split(" of ")[0]) for name in drawn.names] == [number for _, _, number, _ in pairs]
    true, taken, number, _ = pairs[0]
    at = (labels == dataset.class_names.index(true)) & (predicted == dataset.class_names.index(taken))
    shown = dataset.test_images[at].permute(0, 2, 3, 1).numpy()[:10]
    assert (drawn.images[0, : len(shown)] == shown).all()
    assert (drawn.images[0, number:] == 255).all()


def test_nothing_is_shown_where_nothing_was_confused(dataset: DataSet) -> None:
    assert samples.confused(dataset, dataset.test_labels) is None


# the file


def test_what_was_written_is_read(dataset: DataSet, tmp_path: Path) -> None:
    drawn = samples.of_classes(dataset)
    drawn.write(tmp_path / "classes.png")
    again = mosaic.read(tmp_path / "classes.png")
    assert again is not None
    assert again.names == drawn.names
    assert (again.images == drawn.images).all()


def test_large_images_are_kept_small(tmp_path: Path) -> None:
    large = Mosaic(["a", "ü<b>"], np.full((2, 3, 224, 224, 3), 200, np.uint8))
    large.write(tmp_path / "m.png")
    again = mosaic.read(tmp_path / "m.png")
    assert again is not None
    assert again.names == ["a", "ü<b>"]
    assert again.images.shape == (2, 3, 64, 64, 3)
    assert (again.images == 200).all()


def test_another_file_is_no_mosaic(tmp_path: Path) -> None:
    from PIL import Image

    assert mosaic.read(tmp_path / "m.png") is None
    Image.new("RGB", (8, 8)).save(tmp_path / "plain.png")
    (tmp_path / "text.png").write_text("no image", encoding="utf-8")
    for name in ("plain.png", "text.png"):
        with pytest.raises(ValueError, match=f"{name}: not rows of images"):
            mosaic.read(tmp_path / name)
