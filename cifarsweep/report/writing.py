"""Runs to the files of a report: gathers what there is to show and writes it. Knows nothing of the command line."""

import contextlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote

from cifarsweep.report import (
    answer,
    confusion,
    depth_study,
    depth_study_findings,
    figures,
    page,
    search_results,
    tables,
)
from cifarsweep.report.depth_study import DepthStudy
from cifarsweep.report.effects import Effects
from cifarsweep.report.figures import Material
from cifarsweep.report.findings import best_configurations, search_sentence
from cifarsweep.report.pictures import places
from cifarsweep.report.search_results import Study
from cifarsweep.report.tables import Tables
from cifarsweep.results import files, folders, mosaic, records
from cifarsweep.results.records import RunResult
from cifarsweep.terminal.formatting import count

Found = TypeVar("Found")


@dataclass(frozen=True)
class Report:
    folder: Path
    tables: Tables
    figures: list[Path]
    notes: list[str]
    """The answer, and what the reader should know is not in the report, one sentence each."""


def write(paths: tuple[Path, ...], run_dirs: Sequence[Path], parquet: bool) -> Report:
    """The report of these runs, which are those of `paths`, in the first path's report folder."""
    notes: list[str] = []
    read, study, depth = _read_all(paths, run_dirs, notes)
    folder = paths[0] / "report"
    with contextlib.suppress(FileExistsError):
        files.make_folder(folder)
    folders.check(folder, "the folder of the report")
    before, linked = _read(notes, _runs_before, folder) or [], _read(notes, _linked_figures, folder) or set()
    if lost := [id for id in before if id not in read.directories]:
        notes.append(
            f"The report before this one had {count(len(before), 'run')}; not found now: {', '.join(lost[:5])}"
            + (f" and {len(lost) - 5} more." if len(lost) > 5 else ".")
        )
    tables.write(read, folder, parquet)
    if study:
        search_results.write(study, folder)
    if depth:
        depth_study.write(depth, folder)
    material = _gather(read, study, depth, notes)
    notes += filter(None, [search_sentence(read, study, material.bests)])
    drawings, missing = figures.write(material, folder)
    answers = answer.of(read, study, depth, paths)
    with files.atomic(folder / "index.html") as file:
        file.write(page.render(material, answers, drawings, paths, folder))
    # An older figure or table beside newer ones would show what they no longer say.
    earlier = linked - _linked_figures(folder)
    earlier |= set() if parquet else {f"{name}.parquet" for name in tables.NAMES}
    earlier |= set() if study else {"trials.csv"}
    earlier |= set() if depth else {*depth_study.FILES}
    for name in earlier:
        files.remove(folder / name)
    searches = depth_study_findings.answer(depth) if depth and not depth.answers else []
    notes = [*answers.lines, *searches, *notes, *missing]
    return Report(folder, read, [folder / drawing.name for drawing in drawings], notes)


def page_now(path: Path, run_dirs: Sequence[Path]) -> str:
    """The page of these runs as they are now. It has no figures but those that its own script draws: these take no time
    here."""
    notes: list[str] = []
    read, study, depth = _read_all((path,), run_dirs, notes)
    answers = answer.of(read, study, depth, (path,))
    return page.render(_gather(read, study, depth, notes), answers, [], (path,), path / "report")


def _read_all(
    paths: tuple[Path, ...], run_dirs: Sequence[Path], notes: list[str]
) -> tuple[Tables, Study | None, DepthStudy | None]:
    """The runs and searches of these paths. ValueError where there are runs, and none can be read."""
    study = _read(notes, search_results.read, paths[0]) if len(paths) == 1 else None
    depth = _read(notes, depth_study.read, paths[0]) if len(paths) == 1 else None
    read = tables.read(run_dirs, [error for path in paths for error in tables.jobs_without_run(path)])
    if read.runs.empty and read.unreadable:
        reason = f"none of its {len(run_dirs)} can be read ({read.unreadable[0]})"
        raise ValueError(f"{paths[0]}: expected runs, but {reason}")
    return read, study, depth


def _runs_before(folder: Path) -> list[str]:
    """The runs in the folder's last report."""
    path = folder / "runs.csv"
    rows = list(files.read_rows(path)) if path.exists() else []
    return [row[0] for row in rows[1:] if row] if rows and rows[0][:1] == ["run_id"] else []


def _linked_figures(folder: Path) -> set[str]:
    """The figures that the folder's page has links to: those that its report has written, and no file of the user's."""
    path = folder / "index.html"
    links = re.findall(r'<a href="([^"/]+)">', files.read_text(path)) if path.exists() else []
    return {name for name in map(unquote, links) if Path(name).name == name and name.endswith((".png", ".svg"))}


def _gather(read: Tables, study: Study | None, depth: DepthStudy | None, notes: list[str]) -> Material:
    """Everything to show; adds a note for each file that is damaged."""
    bests = best_configurations(read)
    data, matrix = "", None
    classes = augmentation = confused = None
    if not read.runs.empty:
        run = bests[0].runs.iloc[0] if bests else read.runs.iloc[0]
        data, run_dir = run["data"], read.directories[run["run_id"]]
        matrix = _read(notes, confusion.read, run_dir, "confusion.csv") if bests else None
        paths = places(run_dir, run["data_fingerprint"])
        classes, augmentation = (_read(notes, mosaic.read, path) if path else None for path in paths)
        confused = _read(notes, lambda folder: mosaic.read(folder / "confused.png"), run_dir, "confused.png")
    first = read.runs.drop_duplicates("label").set_index("label")["run_id"]
    networks = {
        label: _read(notes, records.read_layers, read.directories[first[label]], "layers.csv") or []
        for label in figures.of_models(read)
    }
    of_settings = Effects(read, set(study.params) - set(study.log) if study else ())
    return Material(read, study, depth, of_settings, bests, matrix, data, classes, augmentation, confused, networks)


def _read(notes: list[str], read: Callable[[Path], Found], path: Path, of_run: str | None = None) -> Found | None:
    """What `read` makes of the path; None and a note where a file cannot be read, or that file of a run is damaged."""
    try:
        if of_run:
            RunResult.read_or_unfinished(path).check(path, of_run)
        return read(path)
    except (OSError, ValueError) as error:
        notes.append(f"Left out, cannot be read: {' '.join(str(error).split())}")
        return None
