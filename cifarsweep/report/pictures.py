"""Images of the data set and of what was confused, as figures. Knows the mosaics that runs leave, no data set."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cifarsweep.report.style import page
from cifarsweep.results import folders, records
from cifarsweep.results.mosaic import Mosaic
from cifarsweep.terminal.formatting import shortened

GAP = 0.07
"""Between two images, as a part of an image's side."""
MOST_ROWS = 100
WIDTH = 6.4


@dataclass(frozen=True)
class Pictures:
    data: str
    classes: Mosaic | None
    augmentation: Mosaic | None
    """The first image of each row is the original."""
    confused: Mosaic | None


def places(run_dir: Path, fingerprint: Any) -> tuple[Path | None, Path | None, Path]:
    """Where the classes and the augmentation of a run's data set are, by the run's own name for it, and its errors.

    None where the run's configuration does not say so.
    """
    classes = augmentation = None
    with contextlib.suppress(OSError, KeyError, TypeError, ValueError):  # of a run that is older, or damaged
        config = records.read_config(run_dir)
        classes = folders.pictures(run_dir.parent.parent, config["run"]["data"], fingerprint) / "classes.png"
        augmentation = classes.parent / folders.augmentation_picture(**(config["data"]["augment"] or {}))
    return classes, augmentation, run_dir / "confused.png"


def classes(pictures: Pictures) -> Figure | None:
    if not pictures.classes:
        return None
    num_classes = len(pictures.classes.names)
    title = f"The {num_classes} classes of {shortened(pictures.data)}"
    return _strips(title, "Training images, drawn at random.", pictures.classes, 2 if num_classes > 6 else 1)


def augmentation(pictures: Pictures) -> Figure | None:
    rows = pictures.augmentation
    if not rows:
        return None
    caption = "Left: a training image. Beside it: what training makes of it, another time each."
    return _strips("What training sees", caption, rows, 1 if len(rows.names) <= 4 else 2, apart=True)


def confused(pictures: Pictures) -> Figure | None:
    caption = "Test images, the first of each pair; the most frequent errors of the best run on top."
    return _strips("What was confused", caption, pictures.confused, 1) if pictures.confused else None


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
