"""Result files to tables and figures. Reads what runs left on disk; knows nothing of training, Hydra or PyTorch."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from cifarsweep.results import folders, records
from cifarsweep.terminal.arguments import Parser

if TYPE_CHECKING:  # pandas and matplotlib cost 0.9 s, which `--help` and a wrong PATH need not pay
    from cifarsweep.report.confusion import Confusion
    from cifarsweep.report.depth_study import DepthStudy
    from cifarsweep.report.findings import Best
    from cifarsweep.report.pictures import Pictures
    from cifarsweep.report.search import Study
    from cifarsweep.report.tables import Tables

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


def write(*paths: Path, parquet: bool = False) -> Report:
    """Writes the tables, figures and page of all runs that `paths` stand for into the first's report folder.

    One sweep that a search made also has trials.csv and the figures of the search, even where no trial had a run.
    A run whose files cannot be read is left out and named in the tables' `unreadable`. ValueError where a path
    holds no runs or none can be read, OSError where the folder cannot be written.
    """
    study, study_notes = _study_of(paths)
    depth, depth_notes = _depth_study_of(paths)
    found = [run_dir for path in paths for run_dir in _runs_of(path)]
    from cifarsweep.report import depth_study, effects, figures, findings, page, search, tables

    read = tables.read(found, [error for path in paths for error in tables.jobs_without_run(path)])
    if read.runs.empty and read.unreadable:
        raise ValueError(f"{paths[0]}: expected runs, but none of its {len(found)} can be read ({read.unreadable[0]})")
    folder = paths[0] / "report"
    folder.mkdir(exist_ok=True)
    tables.write(read, folder, ["csv", "parquet"] if parquet else ["csv"])
    if study:
        search.write(study, folder)
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


def show(report: Report) -> None:
    """Prints the configurations, best first, what became of the other runs, and where the report is."""
    from cifarsweep.report import printed

    printed.show(report.tables, report.notes)
    print(f"Report: {report.folder / 'index.html'}")


def main(arguments: list[str] | None = None) -> int:
    parser = Parser(
        prog="python -m cifarsweep.report", description="Writes the tables and figures of runs that were trained."
    )
    parser.add_argument(
        "path", nargs="*", type=Path, default=[Path("outputs")], help="a run, a sweep or an outputs folder (default)"
    )
    parser.add_argument(
        "--format", default="csv", help="csv, or parquet: runs, summary and epochs in both; needs pyarrow"
    )
    args = parser.parse_args(arguments)
    try:
        _check_format(args.format)
        report = write(*args.path, parquet=args.format == "parquet")
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        reason = f"{error.filename or 'report'}: {error.strerror or error}"
        print(f"{reason}: expected a folder that the report can be written to", file=sys.stderr)
        return 1
    show(report)
    return 0


def _check_format(format: str) -> None:
    if format not in ("csv", "parquet"):
        raise ValueError(f"--format {format}: expected csv or parquet")
    if format == "parquet" and find_spec("pyarrow") is None:
        raise ValueError("--format parquet: needs pyarrow: pip install pyarrow")


def _study_of(paths: tuple[Path, ...]) -> tuple[Study | None, list[str]]:
    """The search that made the one sweep that is reported on, or a note why it is left out."""
    if len(paths) > 1:
        return None, []
    from cifarsweep.report import search

    try:
        return search.read(paths[0]), []
    except (OSError, ValueError) as error:
        return None, [f"Left out, cannot be read: {' '.join(str(error).split())}"]


def _depth_study_of(paths: tuple[Path, ...]) -> tuple[DepthStudy | None, list[str]]:
    """The several searches that made the one sweep that is reported on, and a note of what is left out."""
    if len(paths) > 1:
        return None, []
    from cifarsweep.report import depth_study

    try:
        found = depth_study.read(paths[0])
    except (OSError, ValueError) as error:
        return None, [f"Left out, cannot be read: {' '.join(str(error).split())}"]
    if found is None:
        return None, []
    from cifarsweep.report import depth_study_findings

    return found, depth_study_findings.answer(found)


def _confusion_of(bests: list[Best], read: Tables) -> tuple[tuple[Confusion, str] | None, list[str]]:
    """The confusion matrix of the best run and which run that is, or a note why it is left out."""
    if not bests:
        return None, []
    from cifarsweep.report import confusion, findings

    try:
        matrix = confusion.read(read.directories[bests[0].runs["run_id"].iloc[0]])
    except (OSError, ValueError) as error:
        return None, [f"Left out, cannot be read: {' '.join(str(error).split())}"]
    return (matrix, findings.whose(bests[0])) if matrix else None, []


def _pictures_of(bests: list[Best], read: Tables) -> tuple[Pictures | None, list[str]]:
    """Of the best run, or of any where none is complete."""
    from cifarsweep.report import pictures

    if read.runs.empty:
        return None, []
    run = bests[0].runs.iloc[0] if bests else read.runs.iloc[0]
    return pictures.read(run, read.directories[run["run_id"]])


def _networks_of(read: Tables, labels: list[str]) -> tuple[dict[str, list[records.Layer]], list[str]]:
    """The layers of each of these models, from its first run; a note for each file that is damaged."""
    found, notes = {}, []
    first = read.runs.drop_duplicates("label").set_index("label")["run_id"]
    for label in labels:
        try:
            found[label] = records.read_layers(read.directories[first[label]])
        except (OSError, ValueError) as error:
            notes.append(f"Left out, cannot be read: {' '.join(str(error).split())}")
    return found, notes


def _runs_of(path: Path) -> list[Path]:
    """Of a sweep there may be none: it has just begun, or no job came so far."""
    found = folders.find(path)
    if not found and not (path / "sweep.json").exists() and not (path / "study.json").exists():
        raise ValueError(f"{path}: no runs here: expected a run, a sweep or an outputs folder")
    return found


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
