"""The confusion matrix of one run: which classes were taken for which. Knows the run's confusion.csv only."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cifarsweep.report.statistics import wilson
from cifarsweep.report.style import OKABE_ITO, page
from cifarsweep.terminal.formatting import shortened

MOST_NUMBERS = 20
"""Classes up to which each cell has its number."""
MOST_NAMES = 40
MOST_BARS = 30


@dataclass(frozen=True)
class Confusion:
    names: list[str]
    counts: NDArray[np.int64]
    """Test images, a row a true class, a column a predicted one."""

    @property
    def accuracies(self) -> NDArray[np.float64]:
        """Part of each class that was recognised; NaN where the test set has none of it."""
        return np.array([row[at] for at, row in enumerate(self.shares)], dtype=np.float64)

    @property
    def shares(self) -> NDArray[np.float64]:
        """The parts of each row."""
        totals = self.counts.sum(axis=1, keepdims=True)
        nothing = np.full(self.counts.shape, np.nan)
        return np.asarray(np.divide(self.counts, totals, out=nothing, where=totals > 0), dtype=np.float64)

    def pairs(self, most: int) -> list[tuple[str, str, int, float]]:
        """The most frequent errors: true class, what it was taken for, images, part of the true class's images."""
        errors = self.counts * (1 - np.eye(len(self.names), dtype=int))
        order = np.argsort(-errors, axis=None, kind="stable")[:most]
        found = [divmod(int(at), len(self.names)) for at in order if errors.flat[at] > 0]
        return [
            (self.names[true], self.names[taken], int(errors[true, taken]), float(self.shares[true, taken]))
            for true, taken in found
        ]


def read(run_dir: Path) -> Confusion | None:
    """What confusion.csv holds, or None where the run has none. ValueError where it is something else."""
    path = run_dir / "confusion.csv"
    if not path.exists():
        return None
    try:
        with path.open(encoding="utf-8", newline="") as file:
            header, *rows = list(csv.reader(file))
        counts = np.array([[int(cell) for cell in row[1:]] for row in rows], dtype=np.int64)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{path}: not a confusion matrix ({error})") from error
    names = header[1:]
    if counts.shape != (len(names), len(names)) or not names or (counts < 0).any():
        raise ValueError(f"{path}: not a confusion matrix, expected as many rows as columns of counts")
    return Confusion(names, counts)


def matrix(confusion: Confusion, whose: str) -> Figure:
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
