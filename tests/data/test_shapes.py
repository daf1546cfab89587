"""The embedded data set: what a draw promises, and that the ten shapes are ten shapes."""

from __future__ import annotations

import itertools
import tracemalloc

import numpy as np
import pytest
from numpy.typing import NDArray

from cifarsweep.data import shapes

Floats = NDArray[np.floating]

# a fine grid that every unit shape fits on
X, Y = np.meshgrid(*[np.linspace(-1.2, 1.2, 97, dtype=np.float32)] * 2)


def covered(name: str, angle: float = 0.0) -> NDArray[np.bool_]:
    """The grid's points inside a shape that is turned by `angle`."""
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return shapes.CLASSES[name](X * cos + Y * sin, Y * cos - X * sin) < 0


@pytest.mark.parametrize("num_images", [0, 1, 7, shapes.BLOCK, 2500])
def test_any_size_can_be_drawn(num_images: int) -> None:
    images, labels = shapes.draw(num_images, seed=0)
    assert images.shape == (num_images, 32, 32, 3)
    assert images.dtype == np.uint8
    assert labels.shape == (num_images,)
    assert labels.dtype == np.int64


@pytest.mark.parametrize("num_images", [7, 1000, 1003])
def test_classes_are_balanced_to_within_one_image(num_images: int) -> None:
    _, labels = shapes.draw(num_images, seed=0)
    counts = np.bincount(labels, minlength=len(shapes.CLASS_NAMES))
    assert len(counts) == 10
    assert counts.max() - counts.min() <= 1


def test_labels_come_in_random_order() -> None:
    _, labels = shapes.draw(1000, seed=0)
    followers = np.bincount(labels[:-1] * 10 + labels[1:], minlength=100)
    assert followers.max() < 30  # 10 on average


def test_the_same_seed_draws_the_same_bytes() -> None:
    images, labels = shapes.draw(250, seed=3)
    again, labels_again = shapes.draw(250, seed=3)
    assert (images == again).all()
    assert (labels == labels_again).all()


@pytest.mark.parametrize("other", [(1, 0), (0, 1), (2**32, 0), (2**64, 0)], ids=str)
def test_seeds_and_streams_share_no_image(other: tuple[int, int]) -> None:
    images, labels = shapes.draw(200, 0, 0)
    other_images, other_labels = shapes.draw(200, *other)
    assert not (labels == other_labels).all()
    distances = np.abs(images[:, None, ::4, ::4] - other_images[None, :, ::4, ::4].astype(float)).mean(axis=(2, 3, 4))
    assert distances.min() > 1


def test_a_change_of_pixels_raises_the_version() -> None:
    """Two grey levels of tolerance, as processors round sines differently. Where this fails, raise VERSION."""
    images, labels = shapes.draw(8, seed=3)
    assert shapes.VERSION == 1
    assert labels.tolist() == [0, 1, 5, 6, 4, 3, 2, 7]
    assert images[:, 16, 16, 0] == pytest.approx([79, 11, 33, 161, 20, 170, 196, 103], abs=2)
    assert images[:, 5, 20, 2] == pytest.approx([168, 217, 152, 53, 73, 153, 104, 216], abs=2)


def test_images_use_the_range_of_colours() -> None:
    images, _ = shapes.draw(2500, seed=0)
    assert images.mean() == pytest.approx(127.2, abs=1)
    assert images.std() == pytest.approx(65.7, abs=1)
    assert images.std(axis=(1, 2, 3)).mean() == pytest.approx(57.3, abs=1)


def test_colours_do_not_give_the_class_away() -> None:
    images, labels = shapes.draw(5000, seed=0)
    colours = images.mean(axis=(1, 2))
    of_classes = np.stack([colours[labels == label].mean(axis=0) for label in range(10)])
    standard_error = colours.std(axis=0) / np.sqrt(500)
    assert (np.abs(of_classes - colours.mean(axis=0)) < 4 * standard_error).all()


def test_a_draw_takes_little_more_memory_than_its_images() -> None:
    tracemalloc.start()
    try:
        images, _ = shapes.draw(2500, seed=0)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak - images.nbytes < 16e6


@pytest.mark.parametrize(("distance", "expected"), [(-3.0, 1.0), (-0.5, 1.0), (0.0, 0.5), (0.25, 0.25), (0.5, 0.0)])
def test_an_edge_is_one_pixel_of_mixture(distance: float, expected: float) -> None:
    canvas = np.zeros((1, 3, 1, 1), np.float32)
    shapes._cover(canvas, np.full((1, 1, 1), distance, np.float32), np.ones((1, 3, 1, 1), np.float32))
    assert canvas.ravel() == pytest.approx([expected] * 3)


@pytest.mark.parametrize("name", shapes.CLASS_NAMES)
def test_a_shape_is_its_own_mirror_image(name: str) -> None:
    """Or else the usual flip would make a figure that is never drawn."""
    inside = covered(name)
    assert (inside == inside[::-1]).all() or (inside == inside[:, ::-1]).all()


@pytest.mark.parametrize("name", shapes.CLASS_NAMES)
def test_a_shape_is_of_about_unit_size(name: str) -> None:
    """A shape that was smaller or larger than the others could be told by its size."""
    reach = np.hypot(X, Y)[covered(name)].max()
    assert 0.85 < reach < 1.1


def test_no_shape_covers_what_another_covers_however_turned() -> None:
    turned = {name: [covered(name, angle) for angle in np.linspace(0, 2 * np.pi, 41)] for name in shapes.CLASS_NAMES}
    for name, other in itertools.combinations(shapes.CLASS_NAMES, 2):
        first = turned[name][0]
        overlaps = [(first & second).sum() / (first | second).sum() for second in turned[other]]
        assert max(overlaps) < 0.9, (name, other)  # 0.88 for circle and pentagon, the closest


def test_distances_are_in_pixels_near_the_edge() -> None:
    """So that every shape has the same anti-aliased edge and the same width of outline: no class is told by either."""
    step = X[0, 1] - X[0, 0]
    for name, shape in shapes.CLASSES.items():
        distance: Floats = shape(X, Y)
        slope = np.hypot(*np.gradient(distance, step))
        assert np.median(slope[np.abs(distance) < 0.1]) == pytest.approx(1, abs=0.02), name
