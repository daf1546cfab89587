"""Writes the figures of a report as PNG and SVG files. Knows which figures there are, not how each is drawn."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from cifarsweep.report import depth_study_figures, depth_study_findings, effects, findings, pictures, search_figures
from cifarsweep.report.confusion import Confusion
from cifarsweep.report.cost import accuracy_against
from cifarsweep.report.curves import MOST_MODELS, accuracy_by_epoch, best_models, learning_curves
from cifarsweep.report.depth import depth_vs_accuracy
from cifarsweep.report.depth_study import DepthStudy
from cifarsweep.report.effects import Effects
from cifarsweep.report.findings import Best
from cifarsweep.report.network import diagram
from cifarsweep.report.search_results import Study
from cifarsweep.report.style import drawing, file_names, palette
from cifarsweep.report.tables import Tables, in_order
from cifarsweep.report.two_processes import in_two_processes
from cifarsweep.results import files
from cifarsweep.results.mosaic import Mosaic
from cifarsweep.results.records import Layer

MOST_POINTS = 2000
"""Of an artist. One with more is a picture inside the SVG, which would grow by 50 bytes a point."""
OPTIONAL = re.compile("parameters_vs_|seconds_vs_|settings|lr_by_|confused|classes|augmentation|network_")
"""Nobody needs to be told that a sweep has no data for these figures."""


class Drawing(NamedTuple):
    name: str
    """Of the PNG file."""
    draw: Callable[[], Figure | None]
    """None where too few runs are complete."""
    sentence: str
    """What the figure says."""

    @property
    def stem(self) -> str:
        return Path(self.name).stem


@dataclass(frozen=True)
class Material:
    """What was read and found, of which figures and pages are made."""

    tables: Tables
    study: Study | None
    depth: DepthStudy | None
    effects: Effects
    bests: list[Best]
    confusion: Confusion | None
    """Of the best run of `bests`."""
    data: str
    """The data set that the images are of."""
    classes: Mosaic | None
    augmentation: Mosaic | None
    confused: Mosaic | None
    networks: dict[str, list[Layer]]
    """The layers of each model that has a figure of its own, by its label."""


def write(material: Material, folder: Path) -> tuple[list[Drawing], list[str]]:
    """The figures that were written as PNG and SVG files, and a sentence for each that is missing."""
    tables = material.tables
    figures = list(_figures(material))
    drawn = set(in_two_processes(partial(_draw, folder), figures))
    written = [figure for figure in figures if figure.name in drawn]
    missing = [name for name, *_ in figures if name not in drawn and not OPTIONAL.match(name)]
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
        for name, draw, _ in figures:
            figure = draw()
            if figure:
                save(figure, folder / name)
                written.append(name)
    return written


def _figures(material: Material) -> Iterator[Drawing]:
    tables, of_settings, confusion = material.tables, material.effects, material.confusion
    draw: Callable[[], Figure | None]
    colours = palette(in_order(tables.summary))
    if not (material.depth and material.depth.answers):
        draw = partial(depth_vs_accuracy, tables, colours)
        yield Drawing("depth_vs_accuracy.png", draw, findings.depth_sentence(tables))
        for what, cost in (("parameters", "params"), ("seconds", "train_seconds_mean")):
            draw = partial(accuracy_against, cost, tables, colours)
            yield Drawing(f"{what}_vs_accuracy.png", draw, findings.cost_sentence(tables, cost))
    yield Drawing("learning_curves.png", partial(learning_curves, tables, colours), findings.curve_sentence(tables))
    for label, name in of_models(tables).items():
        draw = partial(accuracy_by_epoch, tables, label, colours[label])
        yield Drawing(name, draw, findings.curve_sentence(tables, label))
    draw = partial(effects.settings, of_settings, colours)
    yield Drawing("settings.png", draw, findings.settings_sentence(of_settings))
    interaction = effects.interaction(of_settings)
    if interaction:
        draw = partial(effects.rate_by_batch_size, of_settings, interaction)
        yield Drawing("lr_by_batch_size.png", draw, findings.interaction_sentence(interaction))
    if confusion:
        whose = findings.whose(material.bests[0])
        draw = partial(pictures.confusion_matrix, confusion, whose)
        yield Drawing("confusion.png", draw, findings.confusion_sentence(confusion))
        draw = partial(pictures.class_accuracy, confusion, whose)
        yield Drawing("class_accuracy.png", draw, findings.class_sentence(confusion))
    if material.confused:
        sentence = findings.confused_sentence(confusion) if confusion else ""
        yield Drawing("confused.png", partial(pictures.confused, material.confused), sentence)
    if material.classes:
        draw = partial(pictures.classes, material.classes, material.data)
        yield Drawing("classes.png", draw, findings.classes_sentence(material.classes, material.data))
    if material.augmentation:
        draw = partial(pictures.augmentation, material.augmentation)
        yield Drawing("augmentation.png", draw, findings.augmentation_sentence(material.augmentation))
    for label, name in of_models(tables, "network").items():
        layers = material.networks[label]
        yield Drawing(name, partial(diagram, label, layers), findings.network_sentence(label, layers))
    if material.study:
        yield from of_search(material.study)
    if material.depth:
        sentences = depth_study_findings.sentences(material.depth)
        for stem in depth_study_figures.FIGURES:
            draw = partial(depth_study_figures.draw, stem, material.depth)
            yield Drawing(f"{stem}.png", draw, sentences.get(stem, ""))


def of_search(study: Study) -> Iterator[Drawing]:
    history, importance = findings.history_sentence(study), findings.importance_sentence(study)
    yield Drawing("optimization_history.png", partial(search_figures.optimization_history, study), history)
    yield Drawing("parameter_importance.png", partial(search_figures.parameter_importance, study), importance)
    yield Drawing("slices.png", partial(search_figures.slices, study), findings.slices_sentence(study))
    if len(study.objectives) > 1:
        yield Drawing("pareto.png", partial(search_figures.pareto, study), findings.pareto_sentence(study))


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
