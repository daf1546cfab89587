"""Runs to the files of a report: gathers what there is to show and writes it. Knows nothing of the command line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cifarsweep.report import (
    confusion,
    depth_study,
    depth_study_findings,
    effects,
    figures,
    findings,
    page,
    pictures,
    search_results,
    tables,
)
from cifarsweep.report.confusion import Confusion
from cifarsweep.report.depth_study import DepthStudy
from cifarsweep.report.findings import Best
from cifarsweep.report.pictures import Pictures
from cifarsweep.report.search_results import Study
from cifarsweep.report.tables import Tables
from cifarsweep.results import records
from cifarsweep.results.records import Layer

# fmt: off
FIGURES = (
    "depth_vs_accuracy", "parameters_vs_accuracy", "seconds_vs_accuracy", "learning_curves", "accuracy_*", "settings",
    "lr_by_batch_size", "confusion", "class_accuracy", "confused", "classes", "augmentation", "network_*",
    "optimization_history", "parameter_importance", "slices", "pareto", "depth_study", "depth_study_*",
)
# fmt: on
"""Stems of all figures that a report may hold and another report of the same folder may not."""


@dataclass(frozen=True)
class Report:
    folder: Path
    tables: Tables
    figures: list[Path]
    notes: list[str]
    """What the reader of the report should know is not in it, one sentence each."""


def write(paths: tuple[Path, ...], run_dirs: Sequence[Path], parquet: bool) -> Report:
    """The report of these runs, which are those of `paths`, in the first path's report folder."""
    study, study_notes = _study_of(paths)
    depth, depth_notes = _depth_study_of(paths)
    read = tables.read(run_dirs, [error for path in paths for error in tables.jobs_without_run(path)])
    if read.runs.empty and read.unreadable:
        raise ValueError(
            f"{paths[0]}: expected runs, but none of its {len(run_dirs)} can be read ({read.unreadable[0]})"
        )
    folder = paths[0] / "report"
    folder.mkdir(exist_ok=True)
    tables.write(read, folder, ["csv", "parquet"] if parquet else ["csv"])
    if study:
        search_results.write(study, folder)
    if depth:
        depth_study.write(depth, folder)
    bests = findings.best(read)
    confusion, confusion_notes = _confusion_of(bests, read)
    pictures, picture_notes = _pictures_of(bests, read)
    networks, network_notes = _networks_of(read, list(figures.of_models(read)))
    material = figures.Material(read, study, effects.Effects(read), confusion, pictures, networks, depth)
    drawn, notes = figures.write(material, folder)
    page.write(material, drawn, paths, folder)
    _remove_earlier(
        folder, [path.with_suffix(suffix) for path in drawn for suffix in (".png", ".svg")], study, depth, parquet
    )
    left_out = [*study_notes, *depth_notes, *confusion_notes, *picture_notes, *network_notes]
    return Report(folder, read, drawn, [*left_out, *notes])


def _study_of(paths: tuple[Path, ...]) -> tuple[Study | None, list[str]]:
    """The search that made the one sweep that is reported on, or a note why it is left out."""
    if len(paths) > 1:
        return None, []
    try:
        return search_results.read(paths[0]), []
    except (OSError, ValueError) as error:
        return None, [_left_out(error)]


def _depth_study_of(paths: tuple[Path, ...]) -> tuple[DepthStudy | None, list[str]]:
    """The several searches that made the one sweep that is reported on, and a note of what is left out."""
    if len(paths) > 1:
        return None, []
    try:
        study = depth_study.read(paths[0])
    except (OSError, ValueError) as error:
        return None, [_left_out(error)]
    return study, depth_study_findings.answer(study) if study else []


def _confusion_of(bests: list[Best], read: Tables) -> tuple[tuple[Confusion, str] | None, list[str]]:
    """The confusion matrix of the best run and which run that is, or a note why it is left out."""
    if not bests:
        return None, []
    try:
        matrix = confusion.read(read.directories[bests[0].runs["run_id"].iloc[0]])
    except (OSError, ValueError) as error:
        return None, [_left_out(error)]
    return (matrix, findings.whose(bests[0])) if matrix else None, []


def _pictures_of(bests: list[Best], read: Tables) -> tuple[Pictures | None, list[str]]:
    """Of the best run, or of any where none is complete."""
    if read.runs.empty:
        return None, []
    run = bests[0].runs.iloc[0] if bests else read.runs.iloc[0]
    return pictures.read(run, read.directories[run["run_id"]])


def _networks_of(read: Tables, labels: list[str]) -> tuple[dict[str, list[Layer]], list[str]]:
    """The layers of each of these models, from its first run; a note for each file that is damaged."""
    layers, notes = {}, []
    first = read.runs.drop_duplicates("label").set_index("label")["run_id"]
    for label in labels:
        try:
            layers[label] = records.read_layers(read.directories[first[label]])
        except (OSError, ValueError) as error:
            notes.append(_left_out(error))
    return layers, notes


def _left_out(error: Exception) -> str:
    return f"Left out, cannot be read: {' '.join(str(error).split())}"


def _remove_earlier(
    folder: Path, written: list[Path], study: Study | None, depth: DepthStudy | None, parquet: bool
) -> None:
    """An older figure or table beside newer ones would show what they no longer say."""
    earlier = {path for stem in FIGURES for suffix in (".png", ".svg") for path in folder.glob(stem + suffix)}
    for path in earlier - set(written):
        path.unlink()
    if not parquet:
        for path in folder.glob("*.parquet"):
            path.unlink()
    if not study:
        (folder / "trials.csv").unlink(missing_ok=True)
    if not depth:
        for path in folder.glob("depth_study*.csv"):
            path.unlink()
