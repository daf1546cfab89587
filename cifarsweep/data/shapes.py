"""The embedded data set: ten kinds of shape, drawn from a seed.

An image is a painted ground with strokes on it, one shape (filled or outlined, turned, scaled, shifted and stretched
a little), strokes in front, and noise. Colours, textures and places say nothing of the class, and hardly any part of
a shape tells it: corners, arcs and straight edges belong to several shapes, ends and edges to the strokes as well. A
network has to see how the parts of a whole shape lie to each other, so depth pays.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from cifarsweep.data.cache import Writer, cached
from cifarsweep.data.dataset import DataSet, check_sizes, split
from cifarsweep.results import folders

Floats = NDArray[np.floating]
"""float32, which numpy's stubs lose sight of: (N, 32, 32) pixels, (N, 1, 1) one an image, (N, 3, 1, 1) colours."""

VERSION = 1
"""Of the drawing. Any change of pixels raises it, as cache files and data fingerprints hold it."""

SIDE = 32
X = np.arange(SIDE, dtype=np.float32)[None, None, :] - (SIDE - 1) / 2
Y = -np.arange(SIDE, dtype=np.float32)[None, :, None] + (SIDE - 1) / 2
"""Pixel centres, from the middle of the image, in pixels, to the right and upwards."""

BLOCK = 100
"""Images drawn at once: larger blocks leave the processor's cache, smaller ones pay for more calls."""

# What an image holds at difficulty 0 and at difficulty 1, the difficulty being uniform over images. Lengths in pixels.
RADIUS = (13.0, 6.0)
STROKE_RADIUS = (-1.0, 1.5)
VARIETY = (0.1, 0.6)
NOISE = (0.01, 0.10)

STROKE_HALF_LENGTH = 8.0
STRETCH = 0.2
HALF_LINE = (0.6, 1.0)


def load_shapes(
    cache: str,
    val_size: float,
    num_train: int = 50_000,
    num_test: int = 10_000,
    seed: int = 0,
    subset: int | None = None,
    augment: Mapping[str, Any] | None = None,
    split_seed: int = 0,
    name: str = "shapes",
) -> DataSet:
    """Any number of 32×32 drawings of ten kinds of shape, from a seed."""
    for argument, num in (("num_train", num_train), ("num_test", num_test)):
        if num < len(CLASSES):
            raise ValueError(f"{argument}={num}: expected {len(CLASSES)} or more, an image a class")
    check_sizes(num_train, val_size, subset)

    def decode(writer: Writer) -> None:
        writer.class_names = list(CLASS_NAMES)
        for stream, (split_name, num) in enumerate({"train": num_train, "test": num_test}.items()):
            images, labels = writer.split(split_name, num, SIDE)
            images[:], labels[:] = draw(num, seed, stream)

    key = (VERSION, num_train, num_test, seed)
    decoded = cached(folders.expanded(cache, "cache"), "shapes", key, decode)
    return split(name, decoded, val_size, subset, augment, split_seed)


def draw(num_images: int, seed: int, stream: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images (N, 32, 32, 3) and labels (N,), with classes balanced to within one image, in random order.

    Streams (0 for training, 1 for test) are independent draws from one seed. The same arguments give the same
    bytes; a smaller draw is not the beginning of a larger one.
    """
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(stream,)))
    labels = rng.permutation(np.arange(num_images, dtype=np.int64) % len(CLASSES))
    images = np.empty((num_images, SIDE, SIDE, 3), np.uint8)
    for start in range(0, num_images, BLOCK):
        block = slice(start, start + BLOCK)
        images[block] = _draw_block(rng, labels[block])
    return images, labels


def _draw_block(rng: Generator, labels: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Colour planes (N, 3, 32, 32) until the end, as numpy is slow where the last axis is short."""
    num = len(labels)
    difficulty = _uniform(rng, num, 0, 1)
    ground, shape = _colours(rng, num)
    canvas = _paint(rng, ground, difficulty)
    for colour in (_colour(rng, num), shape, shape):
        _cover(canvas, _stroke(rng, difficulty), colour)
    _cover(canvas, _shape(rng, labels, difficulty), _paint(rng, shape, difficulty))
    for colour in (_colour(rng, num), ground):
        _cover(canvas, _stroke(rng, difficulty), colour)
    canvas += rng.standard_normal(canvas.shape, np.float32) * _between(NOISE, difficulty)[:, None]
    canvas *= 255
    canvas += 0.5
    return canvas.clip(0, 255, out=canvas).astype(np.uint8).transpose(0, 2, 3, 1)


def _between(ends: tuple[float, float], difficulty: Floats) -> Floats:
    return ends[0] + (ends[1] - ends[0]) * difficulty


def _uniform(rng: Generator, num: int, low: float, high: float) -> Floats:
    """One number an image (N, 1, 1)."""
    return rng.random((num, 1, 1), np.float32) * (high - low) + low


# paint


def _colour(rng: Generator, num: int) -> Floats:
    return rng.random((num, 3, 1, 1), np.float32)


def _colours(rng: Generator, num: int) -> tuple[Floats, Floats]:
    """A colour an image for the ground; and for the shape, of four random colours the farthest from the ground's."""
    ground = _colour(rng, num)
    four = rng.random((4, num, 3, 1, 1), np.float32)
    farthest = np.square(four - ground).sum(axis=2, keepdims=True).argmax(axis=0, keepdims=True)
    return ground, np.take_along_axis(four, farthest, axis=0)[0]


def _paint(rng: Generator, colour: Floats, difficulty: Floats) -> Floats:
    """Planes (N, 3, 32, 32) that go to a somewhat different colour and back in waves: from a gradient to stripes."""
    num = len(colour)
    angle, phase = _uniform(rng, num, 0, 2 * math.pi), _uniform(rng, num, 0, 2 * math.pi)
    frequency = _uniform(rng, num, 0.03, 0.35)
    wave = np.sin(X * (frequency * np.cos(angle)) + (Y * (frequency * np.sin(angle)) + phase))
    change = (_colour(rng, num) - colour) * (_between(VARIETY, difficulty)[:, None] / 2)
    return (colour + change) + change * wave[:, None]


def _cover(canvas: Floats, distance: Floats, paint: Floats) -> None:
    """Paints where `distance` in pixels is negative; the edge is one pixel of mixture."""
    alpha = (0.5 - distance).clip(0, 1)[:, None]
    canvas += alpha * (paint - canvas)


# distances in pixels, negative inside


def _turned(rng: Generator, centre_x: Floats, centre_y: Floats) -> tuple[Floats, Floats]:
    """Coordinates (N, 32, 32) of each pixel from the centres, along axes turned at random."""
    angle = _uniform(rng, len(centre_x), 0, 2 * math.pi)
    cos, sin = np.cos(angle), np.sin(angle)
    x, y = X - centre_x, Y - centre_y
    return x * cos + y * sin, y * cos - x * sin


def _stroke(rng: Generator, difficulty: Floats) -> Floats:
    """A straight stroke with round ends, anywhere; the shortest are dots, the thinnest are not there."""
    num = len(difficulty)
    along, across = _turned(rng, _uniform(rng, num, -SIDE / 2, SIDE / 2), _uniform(rng, num, -SIDE / 2, SIDE / 2))
    half_length = _uniform(rng, num, 0, STROKE_HALF_LENGTH)
    radius = _between(STROKE_RADIUS, difficulty) + _uniform(rng, num, -1, 1)
    return _length(along - along.clip(-half_length, half_length), across) - radius


def _shape(rng: Generator, labels: NDArray[np.int64], difficulty: Floats) -> Floats:
    """The labels' shapes, half of them as outlines. Only tips may lie outside the image."""
    num = len(labels)
    radius = _between(RADIUS, difficulty) + _uniform(rng, num, -1, 1)
    room = SIDE / 2 - 0.9 * radius
    x, y = _turned(rng, room * _uniform(rng, num, -1, 1), room * _uniform(rng, num, -1, 1))
    stretch = np.exp(_uniform(rng, num, -STRETCH, STRETCH))
    x *= stretch / radius
    y /= stretch * radius
    distance = np.empty_like(x)
    for label, unit_shape in enumerate(CLASSES.values()):
        of_class = labels == label
        distance[of_class] = unit_shape(x[of_class], y[of_class])
    distance *= radius
    half_line = _uniform(rng, num, *HALF_LINE)
    outline = np.abs(distance + half_line) - half_line
    return np.where(_uniform(rng, num, -1, 1) < 0, outline, distance)


# the shapes: signed distances, near enough at the edge, of shapes of radius about 1 that are their own mirror images


def _length(x: Floats, y: Floats) -> Floats:
    """np.hypot guards against overflow, at several times the cost."""
    return np.sqrt(x * x + y * y)


def _drop(x: Floats, y: Floats) -> Floats:
    """A disc and, above the points where they touch it, the two tangents from a tip."""
    x, y = np.abs(x), y + 0.35
    radius, tip = 0.65, 1.45
    sin, cos = radius / tip, math.sqrt(1 - (radius / tip) ** 2)
    return np.where(y * cos > x * sin, x * cos + y * sin, _length(x, y)) - radius


def _heart(x: Floats, y: Floats) -> Floats:
    """Inigo Quilez, "2D distance functions"."""
    scale = 1.6
    x, y = np.abs(x) / scale, y / scale + 0.55
    lobe = _length(x - 0.25, y - 0.75) - math.sqrt(1 / 8)
    foot = np.maximum(x + y, 0) / 2
    below = np.minimum(_length(x, y - 1), _length(x - foot, y - foot)) * np.sign(x - y)
    return np.where(x + y > 1, lobe, below) * scale


def _two_highest(x: Floats, y: Floats, num_sides: int) -> tuple[Floats, Floats]:
    """The highest and second highest of the coordinates along `num_sides` directions around the centre."""
    highest = second = np.full_like(x, -math.inf)
    for side in range(num_sides):
        angle = 2 * math.pi * side / num_sides
        height = x * math.cos(angle) + y * math.sin(angle)
        second = np.maximum(second, np.minimum(highest, height))
        highest = np.maximum(highest, height)
    return highest, second


def _polygon(x: Floats, y: Floats, num_sides: int) -> Floats:
    highest, _ = _two_highest(x, y, num_sides)
    return highest - math.cos(math.pi / num_sides)


def _star(x: Floats, y: Floats) -> Floats:
    """The pentagram: all points beyond at most one of the five lines that it is drawn with."""
    _, second = _two_highest(x, y, 5)
    return second - math.cos(2 * math.pi / 5)


def _cross(x: Floats, y: Floats) -> Floats:
    x, y = np.abs(x), np.abs(y)
    return np.maximum(np.maximum(x, y) - 0.95, np.minimum(x, y) - 0.32)


CLASSES: dict[str, Callable[[Floats, Floats], Floats]] = {
    "circle": lambda x, y: _length(x, y) - 0.9,
    "semicircle": lambda x, y: np.maximum(_length(x, y + 0.45) - 1, -(y + 0.45)),
    "crescent": lambda x, y: np.maximum(_length(x, y) - 1, 0.8 - _length(x, y - 0.55)),
    "drop": _drop,
    "heart": _heart,
    "triangle": lambda x, y: _polygon(x, y, 3),
    "square": lambda x, y: _polygon(x, y, 4),
    "pentagon": lambda x, y: _polygon(x, y, 5),
    "star": _star,
    "cross": _cross,
}
CLASS_NAMES: tuple[str, ...] = tuple(CLASSES)
