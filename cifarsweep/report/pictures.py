"""Images of the data set and of what was confused, as figures. Knows the mosaics that runs leave, no data set."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cifarsweep.report.style import page
from cifarsweep.results import folders, mosaic, records
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


def read(run: pd.Series[Any], run_dir: Path) -> tuple[Pictures, list[str]]:
    """What stands in a run's directory and in the folder of its data set; a line for each file that is damaged."""
    notes: list[str] = []

    def found(path: Path) -> Mosaic | None:
        try:
            return mosaic.read(path)
        except (OSError, ValueError) as error:
            notes.append(f"Left out, cannot be read: {' '.join(str(error).split())}")
            return None

    classes, augmentation = (found(path) if path else None for path in _of_data_set(run_dir, run["data_fingerprint"]))
    return Pictures(run["data"], classes, augmentation, found(run_dir / "confused.png")), notes


def _of_data_set(run_dir: Path, fingerprint: Any) -> tuple[Path | None, Path | None]:
    """Where its classes are, and its augmentation; by the name that the run itself has for its data."""
    classes = augmentation = None
    with contextlib.suppress(OSError, KeyError, TypeError, ValueError):  # of a run that is older, or damaged
        config = records.read_config(run_dir)
        classes = folders.pictures(run_dir.parent.parent, config["run"]["data"], fingerprint) / "classes.png"
        augmentation = classes.parent / folders.augmentation_picture(**(config["data"]["augment"] or {}))
    return classes, augmentation


def classes(pictures: Pictures) -> Figure | None:
    found = pictures.classes
    if not found:
        return None
    title = f"The {len(found.names)} classes of {shortened(pictures.data)}"
    return _strips(title, "Training images, drawn at random.", found, 2 if len(found.names) > 6 else 1)


def augmentation(pictures: Pictures) -> Figure | None:
    found = pictures.augmentation
    if not found:
        return None
    caption = "Left: a training image. Beside it: what training makes of it, another time each."
    return _strips("What training sees", caption, found, 1 if len(found.names) <= 4 else 2, apart=True)


def confused(pictures: Pictures) -> Figure | None:
    found = pictures.confused
    caption = "Test images, the first of each pair; the most frequent errors of the best run on top."
    return _strips("What was confused", caption, found, 1) if found else None


def _strips(title: str, caption: str, found: Mosaic, num_columns: int, apart: bool = False) -> Figure:
    """Each row's name over its images, in columns; `apart` sets the first image of a row off."""
    names, images = found.names[:MOST_ROWS], found.images[:MOST_ROWS]
    if len(names) < len(found.names):
        caption += f" The first {MOST_ROWS} of {len(found.names):,} rows."
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
        _show(axes, strip, (left, left + width, top + 0.24 + height, top + 0.24))
    axes.set(xlim=(0, WIDTH), ylim=(num_rows * row_height + 0.1, 0))  # last, as imshow sets its own
    return figure


def _show(axes: Axes, strip: NDArray[np.uint8], extent: Sequence[float]) -> None:
    left, right, bottom, top = extent
    axes.imshow(strip, extent=(left, right, bottom, top), interpolation="none", aspect="auto")


def _strip(row: NDArray[np.uint8], apart: bool) -> NDArray[np.uint8]:
    """(columns, H, W, 3) side by side with white between."""
    num, height, width, _ = row.shape
    gap = max(1, round(GAP * width))
    parts = []
    for at, image in enumerate(row):
        parts.append(image)
        if at < num - 1:
            parts.append(np.full((height, gap * (4 if apart and at == 0 else 1), 3), 255, np.uint8))
    return np.concatenate(parts, axis=1)
