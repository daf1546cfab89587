"""Tables to PNG files. Knows which figures there are and their names, not how each is drawn."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from cifarsweep import runs
from cifarsweep.report import search_figures
from cifarsweep.report.curves import accuracy_by_epoch, learning_curves
from cifarsweep.report.depth import depth_vs_accuracy
from cifarsweep.report.search import Study
from cifarsweep.report.style import RC_PARAMS, file_names, in_order, palette
from cifarsweep.report.tables import Tables


def write(tables: Tables, study: Study | None, folder: Path) -> tuple[list[Path], list[str]]:
    """The figures that were written, and a sentence for each that there is no data for."""
    written, notes = [], []
    with matplotlib.rc_context(RC_PARAMS), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # a name in a script that the font lacks is drawn as boxes
        for name, draw in _figures(tables, study):
            figure = draw()
            if figure is None:
                notes.append(f"No {name}: too few complete runs for it.")
                continue
            with runs.atomic(folder / name, "wb") as file:
                figure.savefig(file, format="png")
            written.append(folder / name)
    return written, notes


def _figures(tables: Tables, study: Study | None) -> Iterator[tuple[str, Callable[[], Figure | None]]]:
    colours = palette(in_order(tables.summary))
    yield "depth_vs_accuracy.png", partial(depth_vs_accuracy, tables, colours)
    yield "learning_curves.png", partial(learning_curves, tables, colours)
    for label, name in file_names(colours).items():
        yield name, partial(accuracy_by_epoch, tables, label, colours[label])
    if study:
        yield from search_figures.of_study(study)
