"""Result files to tables and figures. Reads what runs left on disk; knows nothing of training, Hydra or PyTorch."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cifarsweep import runs

if TYPE_CHECKING:  # pandas and matplotlib cost 0.9 s, which `--help` and a wrong PATH need not pay
    from cifarsweep.report.search import Study
    from cifarsweep.report.tables import Tables

# fmt: off
FIGURES_AND_TRIALS = (
    "depth_vs_accuracy.png", "learning_curves.png", "accuracy_*.png", "optimization_history.png",
    "parameter_importance.png", "slices.png", "pareto.png", "trials.csv",
)
# fmt: on
"""Patterns of all files that a report may hold and another report of the same folder may not."""


@dataclass(frozen=True)
class Report:
    folder: Path
    tables: Tables
    figures: list[Path]
    notes: list[str]
    """What the reader of the report should know is not in it, one sentence each."""


def write(*paths: Path) -> Report:
    """Writes runs.csv, summary.csv and the figures of all runs that `paths` stand for into the first's report folder.

    One sweep that a search made also has trials.csv and the figures of the search, even where no trial had a run.
    A run whose files cannot be read is left out and named in the tables' `unreadable`. ValueError where a path
    holds no runs or none can be read, OSError where the folder cannot be written.
    """
    study, study_notes = _study_of(paths)
    found = [run_dir for path in paths for run_dir in _runs_of(path, or_none=study is not None)]
    from cifarsweep.report import figures, search, tables

    read = tables.read(found, [error for path in paths for error in tables.jobs_without_run(path)])
    if read.runs.empty and (found or study is None):
        raise ValueError(f"{paths[0]}: expected runs, but none of its {len(found)} can be read ({read.unreadable[0]})")
    folder = paths[0] / "report"
    folder.mkdir(exist_ok=True)
    tables.write(read, folder)
    if study:
        search.write(study, folder)
    drawn, notes = figures.write(read, study, folder)
    _remove_earlier(folder, [*drawn, folder / "trials.csv"] if study else drawn)
    return Report(folder, read, drawn, [*study_notes, *notes])


def show(report: Report) -> None:
    """Prints the configurations, best first, what became of the other runs, and where the report is."""
    from cifarsweep.report import printed

    printed.show(report.tables, report.notes)
    print(f"Report: {report.folder}")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m cifarsweep.report", description="Writes the tables and figures of runs that were trained."
    )
    parser.add_argument(
        "path", nargs="*", type=Path, default=[Path("outputs")], help="a run, a sweep or an outputs folder (default)"
    )
    try:
        report = write(*parser.parse_args(arguments).path)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        reason = f"{error.filename or 'report'}: {error.strerror or error}"
        print(f"{reason}: expected a folder that the report can be written to", file=sys.stderr)
        return 1
    show(report)
    return 0


def _study_of(paths: tuple[Path, ...]) -> tuple[Study | None, list[str]]:
    """The search that made the one sweep that is reported on, or a note why it is left out."""
    if len(paths) > 1:
        return None, []
    from cifarsweep.report import search

    try:
        return search.read(paths[0]), []
    except (OSError, ValueError) as error:
        return None, [f"Left out, cannot be read: {' '.join(str(error).split())}"]


def _runs_of(path: Path, or_none: bool) -> list[Path]:
    found = runs.find(path)
    if not found and not or_none:
        raise ValueError(f"{path}: no runs here: expected a run, a sweep or an outputs folder")
    return found


def _remove_earlier(folder: Path, written: list[Path]) -> None:
    """An older figure beside newer tables would show what the tables no longer say."""
    for pattern in FIGURES_AND_TRIALS:
        for earlier in set(folder.glob(pattern)) - set(written):
            earlier.unlink()
