"""Figures of classes: the confusion matrix, accuracy by class, images of the data set and of what was confused.

Knows the files that runs leave, no data set.
"""

import contextlib
import math
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cifarsweep.report.confusion import Confusion
from cifarsweep.report.statistics import wilson
from cifarsweep.report.style import OKABE_ITO, page
from cifarsweep.results import folders, records
from cifarsweep.results.mosaic import Mosaic
from cifarsweep.terminal.formatting import shortened

GAP = 0.07
"""Between two images, as a part of an image's side."""
MOST_ROWS = 100
"""Of images."""
WIDTH = 6.4
MOST_NUMBERS = 20
"""With up to this many classes, each cell of the matrix has its number."""
MOST_NAMES = 40
MOST_BARS = 30


def places(run_dir: Path, fingerprint: Any) -> tuple[Path | None, Path | None]:
    """Where the images of a run's data set are: its classes, and their augmentation.

    The data set goes by the name that the run has for it; None where the run's configuration names none.
    """
    classes = augmentation = None
    with contextlib.suppress(OSError, KeyError, TypeError, ValueError):  # of a run that is older, or damaged
        config = records.read_config(run_dir)
        classes = folders.pictures(run_dir.parent.parent, config["run"]["data"], fingerprint) / "classes.png"
        augmentation = classes.parent / folders.augmentation_picture(**(config["data"]["augment"] or {}))
    return classes, augmentation


def confusion_matrix(confusion: Confusion, whose: str) -> Figure:
    """Parts of each true class in percent; errors in colour, what was right in grey."""
    names, size = [shortened(name, 16) for name in confusion.names], len(confusion.names)
    letters = max(map(len, names)) if size <= MOST_NAMES else 0
    side = min(5.4, max(2.4, 0.46 * size))
    caption = f"{shortened(whose, 60)}. Percent of the test images of each true class; its errors are coloured."
    percent = 100 * confusion.shares
    errors = np.where(np.eye(size, dtype=bool), np.nan, percent)
    most = max(float(np.nanmax(errors, initial=0.0)), 1e-9)
    if size > MOST_NUMBERS:
        caption += f" Darkest: {most:.0f} %."
    height = side * (0.85 if size <= MOST_NUMBERS else 1.0)
    figure, grid = page(
        "Confusion matrix", caption, (side + 1.0 + 0.085 * letters, height), (1, 1), 0.45 + 0.08 * letters
    )
    figure.subplots_adjust(left=(0.55 + 0.085 * letters) / figure.get_figwidth())
    axes = grid[0, 0]
    axes.grid(False)
    axes.imshow(np.where(np.eye(size, dtype=bool), 1.0, np.nan), cmap="Greys", vmin=0, vmax=6, aspect="auto")
    axes.imshow(errors, cmap="Oranges", vmin=0, vmax=most, aspect="auto")
    if size <= MOST_NUMBERS:
        for (row, column), value in np.ndenumerate(percent):
            if np.isfinite(value) and (value >= 0.5 or row == column):
                light = row != column and value > 0.6 * most
                look = {"color": "white" if light else "black", "fontsize": 10 if size <= 12 else 7.5}
                axes.text(column, row, f"{value + 1e-9:.0f}", ha="center", va="center", **look)
    if size <= MOST_NAMES:
        points = 10.5 if size <= 12 else 8 if size <= MOST_NUMBERS else 6
        axes.set_xticks(range(size), names, rotation=90, fontsize=points)
        axes.set_yticks(range(size), names, fontsize=points)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set(xlabel="predicted class", ylabel="true class")
    return figure


def class_accuracy(confusion: Confusion, whose: str) -> Figure:
    """A bar a class, the best on top, with the interval that the number of test images leaves."""
    known = [at for at in np.argsort(-confusion.accuracies, kind="stable") if np.isfinite(confusion.accuracies[at])]
    shown = known if len(known) <= MOST_BARS else known[: MOST_BARS // 2] + known[-MOST_BARS // 2 :]
    names = [shortened(confusion.names[at], 20) for at in shown]
    caption = f"{shortened(whose, 60)}. Bars: 95 % intervals by the number of test images (Wilson)."
    if len(shown) < len(known):
        caption += f" The {MOST_BARS // 2} best and the {MOST_BARS - MOST_BARS // 2} worst of {len(known)} classes."
    figure, grid = page("Accuracy by class", caption, (6.4, 0.5 + 0.27 * max(len(shown), 1)), (1, 1), 0.5)
    figure.subplots_adjust(left=(0.35 + 0.09 * max(map(len, names), default=0)) / 6.4)
    axes = grid[0, 0]
    axes.grid(visible=True, axis="x")
    axes.grid(visible=False, axis="y")
    for y, at in enumerate(reversed(shown)):
        right, total = int(confusion.counts[at, at]), int(confusion.counts[at].sum())
        low, high = wilson(right, total)
        axes.plot([100 * low, 100 * high], [y, y], "|-", color=OKABE_ITO[0], lw=2, ms=7, mew=1.5)
        axes.plot(100 * right / total, y, "o", color=OKABE_ITO[0], ms=7, mec="white", mew=0.8)
    axes.set_yticks(range(len(shown)), names[::-1], fontsize=10.5)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(-0.7, len(shown) - 0.3)
    axes.set_xlabel("test accuracy (%)")
    return figure


def classes(rows: Mosaic, data: str) -> Figure:
    num_classes = len(rows.names)
    title = f"The {num_classes} classes of {shortened(data)}"
    return _strips(title, "Training images, drawn at random.", rows, 2 if num_classes > 6 else 1)


def augmentation(rows: Mosaic) -> Figure:
    """The original is the first image of each row."""
    caption = "Left: a training image. Beside it: what training makes of it, another time each."
    return _strips("What training sees", caption, rows, 1 if len(rows.names) <= 4 else 2, apart=True)


def confused(rows: Mosaic) -> Figure:
    caption = "Test images, the first of each pair; the most frequent errors of the best run on top."
    return _strips("What was confused", caption, rows, 1)


def _strips(title: str, caption: str, rows: Mosaic, num_columns: int, apart: bool = False) -> Figure:
    """Each row's name over its images, in columns; `apart` sets the first image of a row off."""
    names, images = rows.names[:MOST_ROWS], rows.images[:MOST_ROWS]
    if len(names) < len(rows.names):
        caption += f" The first {MOST_ROWS} of {len(rows.names):,} rows."
    num_rows = math.ceil(len(names) / num_columns)
    width = (WIDTH - 0.3 * (num_columns + 1)) / num_columns
    strips = [_strip(row, apart) for row in images]
    height = width * strips[0].shape[0] / strips[0].shape[1]
    row_height = height + 0.33
    figure, grid = page(title, caption, (WIDTH, num_rows * row_height + 0.1), (1, 1), 0.0, left=0.3)
    figure.subplots_adjust(left=0, right=1)
    axes = grid[0, 0]
    axes.set_axis_off()
    for at, (name, strip) in enumerate(zip(names, strips, strict=True)):
        column, row = divmod(at, num_rows)
        left, top = 0.3 + column * (width + 0.3), row * row_height
        axes.text(left, top + 0.12, shortened(name, 26 if num_columns > 1 else 60), va="center", fontsize=10.5)
        extent = (left, left + width, top + 0.24 + height, top + 0.24)
        axes.imshow(strip, extent=extent, interpolation="none", aspect="auto")
    axes.set(xlim=(0, WIDTH), ylim=(num_rows * row_height + 0.1, 0))  # last, as imshow sets its own
    return figure


def _strip(row: NDArray[np.uint8], apart: bool) -> NDArray[np.uint8]:
    """(columns, H, W, 3) side by side with white between."""
    _, height, width, _ = row.shape
    gap = max(1, round(GAP * width))
    parts = [row[0]]
    for at, image in enumerate(row[1:]):
        parts += [np.full((height, gap * (4 if apart and at == 0 else 1), 3), 255, np.uint8), image]
    return np.concatenate(parts, axis=1)
