"""Writes the figures of a report as PNG and SVG files. Knows which figures there are, not how each is drawn."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from cifarsweep.report import depth_study_figures, effects, network, pictures, search_figures
from cifarsweep.report.confusion import Confusion
from cifarsweep.report.cost import accuracy_against
from cifarsweep.report.curves import MOST_MODELS, accuracy_by_epoch, best_models, learning_curves
from cifarsweep.report.depth import depth_vs_accuracy
from cifarsweep.report.depth_study import DepthStudy
from cifarsweep.report.effects import Effects
from cifarsweep.report.pictures import Pictures
from cifarsweep.report.search_results import Study
from cifarsweep.report.style import drawing, file_names, palette
from cifarsweep.report.tables import Tables, in_order
from cifarsweep.report.two_processes import in_two_processes
from cifarsweep.results import files
from cifarsweep.results.records import Layer

MOST_POINTS = 2000
"""Of an artist. One with more is a picture inside the SVG, which would grow by 50 bytes a point."""
OPTIONAL = re.compile("parameters_vs_|seconds_vs_|settings|lr_by_|confused|classes|augmentation|network_")
"""Nobody needs to be told that a sweep has no data for these figures."""


Drawing = tuple[str, Callable[[], Figure | None]]
"""The name of a PNG file, and what draws it; None where too few runs are complete."""


@dataclass(frozen=True)
class Material:
    """What was read and found, of which figures and pages are made."""

    tables: Tables
    study: Study | None
    effects: Effects
    of_best: tuple[Confusion, str] | None
    """The confusion matrix of the best run, and which run that is."""
    pictures: Pictures | None
    networks: dict[str, list[Layer]]
    """The layers of each model that has a figure of its own, by its label."""
    depth: DepthStudy | None


def write(material: Material, folder: Path) -> tuple[list[Path], list[str]]:
    """The PNG files that were written, an SVG beside each, and a sentence for each figure that is missing."""
    tables = material.tables
    figures = list(_figures(material))
    drawn = set(in_two_processes(partial(_draw, folder), figures))
    written = [folder / name for name, _ in figures if name in drawn]
    missing = [name for name, _ in figures if name not in drawn and not OPTIONAL.match(name)]
    notes = [f"No {name}: too few complete runs for it." for name in missing]
    num_models, num_drawn = len(in_order(tables.summary)), len(of_models(tables))
    if num_drawn < num_models:
        notes.append(f"accuracy_<model>.png: only for the {num_drawn} best of {num_models} models.")
    return written, notes


def of_models(tables: Tables, what: str = "accuracy") -> dict[str, str]:
    """The models that have a figure of their own, with its name: all, or the best of many by validation accuracy."""
    labels = in_order(tables.summary)
    return file_names(best_models(tables.summary, labels)[:MOST_MODELS], what)


def _draw(folder: Path, figures: Sequence[Drawing]) -> list[str]:
    """Writes the figures that have enough data, and returns their names."""
    written = []
    with drawing():
        for name, draw in figures:
            figure = draw()
            if figure:
                save(figure, folder / name)
                written.append(name)
    return written


def _figures(material: Material) -> Iterator[Drawing]:
    tables = material.tables
    colours = palette(in_order(tables.summary))
    yield "depth_vs_accuracy.png", partial(depth_vs_accuracy, tables, colours)
    yield "parameters_vs_accuracy.png", partial(accuracy_against, "params", tables, colours)
    yield "seconds_vs_accuracy.png", partial(accuracy_against, "train_seconds_mean", tables, colours)
    yield "learning_curves.png", partial(learning_curves, tables, colours)
    for label, name in of_models(tables).items():
        yield name, partial(accuracy_by_epoch, tables, label, colours[label])
    yield "settings.png", partial(effects.settings, material.effects, colours)
    yield "lr_by_batch_size.png", partial(effects.rate_by_batch_size, material.effects)
    if material.of_best:
        yield "confusion.png", partial(pictures.confusion_matrix, *material.of_best)
        yield "class_accuracy.png", partial(pictures.class_accuracy, *material.of_best)
    if material.pictures:
        yield "confused.png", partial(pictures.confused, material.pictures)
        yield "classes.png", partial(pictures.classes, material.pictures)
        yield "augmentation.png", partial(pictures.augmentation, material.pictures)
    for label, name in of_models(tables, "network").items():
        yield name, partial(network.diagram, label, material.networks[label])
    if material.study:
        yield from search_figures.of_study(material.study)
    if material.depth:
        yield from depth_study_figures.of_study(material.depth)


def save(figure: Figure, path: Path) -> None:
    """Writes the PNG file, and the SVG file beside it."""
    for axes in figure.axes:
        for line in axes.lines:
            line.set_rasterized(len(np.asarray(line.get_xydata())) > MOST_POINTS)
        for collection in axes.collections:
            num_vertices = sum(len(np.asarray(path.vertices)) for path in collection.get_paths())
            collection.set_rasterized(max(len(np.asarray(collection.get_offsets())), num_vertices) > MOST_POINTS)
    with files.atomic(path, "wb") as file:
        figure.savefig(file, format="png", pil_kwargs={"compress_level": 3})  # twice as fast as 6, a tenth larger
    with files.atomic(path.with_suffix(".svg"), "wb") as file:
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))  # so that the same figure is the same file
        figure.savefig(file, format="svg", metadata=nothing)
