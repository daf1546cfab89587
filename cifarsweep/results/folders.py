"""Where runs, sweeps and pictures are on disk. Knows nothing of what their files hold."""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cifarsweep.results import files, sweeps
from cifarsweep.results.locks import Lock
from cifarsweep.results.sweeps import SweepRecord


def expanded(path: str, key: str) -> Path:
    """The path that the user gave as `key`, with the home directory in place of ~. ValueError where nobody knows it."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        home = f"the home directory that {Path(path).parts[0]} stands for is unknown"
        raise ValueError(f"{key}={path}: {home}, expected a path without ~") from error


def check(path: Path, expected: str) -> None:
    """ValueError where the path is no folder."""
    if not path.is_dir():
        raise ValueError(f"{path}: {'not a folder' if path.exists() else 'no such folder'}, expected {expected}")


def check_writable(folder: Path, key: str) -> None:
    """ValueError where this folder, which the user gave as `key`, cannot be made or written to. Makes nothing."""
    try:
        there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
        reason = f"{there} is no folder" if not there.is_dir() else f"{there} cannot be written to"
        fits = there.is_dir() and os.access(there, os.W_OK | os.X_OK)
    except OSError as error:  # a name too long, or a folder that may not be looked into
        fits, reason = False, str(error.strerror)
    if not fits:
        raise ValueError(f"{key}={folder}: {reason}, expected a folder that can be written to")


def named(path: Path) -> Path:
    """The folder that the user means, who may name it by a link."""
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def meant(path: Path, expected: str = "a run, a sweep or an outputs folder") -> Path:
    """The folder that the user means: by its path, or as it is listed, a run by its id or name and a sweep by its name.

    What is listed is in `outputs`, or in the folder before the name. The beginning of an id is enough where it is that
    of one run. ValueError where there is no such folder, or the id is that of several.
    """
    if not os.path.lexists(path):
        outputs, word = path.parent if path.parent.name else Path("outputs"), path.name
        begins = [run for run in (outputs / "runs").glob("*-*") if run.name.rpartition("-")[2].startswith(word)]
        places = [place for place in (outputs / "runs" / word, outputs / "sweeps" / word) if place.is_dir()] or begins
        if len(places) > 1:
            several = ", ".join(sorted(place.name.rpartition("-")[2] for place in places)[:5])
            raise ValueError(f"{path}: {len(places)} runs begin with it, such as {several}; expected more of the id")
        path = places[0] if places else path
    check(path, expected)
    return named(path)


@contextmanager
def owned(runs_dir: Path, name: str, id: str, wait: Callable[[], None] = lambda: None) -> Iterator[tuple[Path, Lock]]:
    """The directory of run `id` and the lock on it, once no other process owns it. Calls `wait` first if one does.

    The directory need not exist yet. A run that stands under another slug keeps that name.
    """
    lock = run_lock(runs_dir, id)
    if not lock.acquire(timeout=0):
        wait()
        lock.acquire()
    try:
        run_dir = next(iter(sorted(runs_dir.glob(f"*-{id}"))), runs_dir / f"{name}-{id}")
        files.check_folder(run_dir)
        yield run_dir, lock
    finally:
        lock.release()


def run_lock(runs_dir: Path, id: str) -> Lock:
    """A process holds it while it trains a run, and waits for it where another process trains that run."""
    return Lock(runs_dir / ".locks" / f"{id}.lock")


def pictures(outputs: Path, data: str, fingerprint: str) -> Path:
    """The folder with images of a data set, which all runs on it share."""
    return outputs / "data" / re.sub(r"[^A-Za-z0-9_-]+", "_", f"{data[:60]}-{fingerprint[:12]}")


def augmentation_picture(crop: int = 0, flip: bool | str = False, cutout: int = 0) -> str:
    """The name of the file there that shows what this augmentation does."""
    return f"augmentation-crop{crop:d}-flip{flip if isinstance(flip, str) else int(flip)}-cutout{cutout:d}.png"


def find(path: Path) -> list[Path]:
    """The run directories that `path` stands for: a run, a sweep, a folder of either, or a whole outputs folder."""
    path = Path(os.path.abspath(meant(path)))
    if _is_run(path):
        return [path]
    swept = [path] if (path / "sweep.json").exists() else [file.parent for file in path.glob("*/sweep.json")]
    if swept:
        run_dirs = {run_dir for sweep in swept for run_dir in runs_of(sweep).values()}
        return sorted(run_dir for run_dir in run_dirs if run_dir.exists())
    folder = path / "runs" if (path / "runs").is_dir() else path
    return sorted(filter(_is_run, folder.iterdir()))


def _is_run(folder: Path) -> bool:
    return any((folder / name).exists() for name in ("config.yaml", "result.json"))  # one of them may be lost


def runs_of(sweep_dir: Path) -> dict[str, Path]:
    """Where the runs of a sweep's jobs are, by their names. One that is not found has the place where it should be."""
    jobs = SweepRecord.read(sweep_dir).jobs.values()
    return {name: run_of(sweep_dir, name, job.path) for job in jobs if (name := Path(job.run or "").name)}


def run_of(sweep_dir: Path, name: str, recorded: str | None = None) -> Path:
    """Where this run of a sweep is: where the sweep's record says, or in `runs` beside `sweeps`.

    The record may come from a stranger, so it is followed only to a folder of this name that stands in a folder `runs`.
    Outputs that were moved as a whole are found from where the sweep is now, and from where its links lead.
    """
    places = []
    for folder in (os.path.abspath(sweep_dir), os.path.realpath(sweep_dir)):
        place = Path(os.path.normpath(Path(folder, recorded or "")))
        places += [place] if place.parts[-2:] == ("runs", name) else []
        places.append(Path(folder).parent.parent / "runs" / name)
    return next((place for place in places if place.is_dir()), places[0])


def missing_runs(sweep_dir: Path) -> list[Path]:
    """Where the runs should be that a sweep has trained and that are not found. None while it works."""
    if not (sweep_dir / "sweep.json").exists() or sweeps.is_running(sweep_dir):
        return []
    failed = {Path(job.run or "").name for job in SweepRecord.read(sweep_dir).jobs.values() if job.error}
    return [place for name, place in runs_of(sweep_dir).items() if name not in failed and not place.is_dir()]


def find_sweeps(path: Path) -> list[Path]:
    """The sweeps that `path` stands for: a sweep, a folder of sweeps, or an outputs folder. ValueError for none."""
    path = Path(os.path.abspath(meant(path, "a sweep or an outputs folder")))
    folders = [path, *path.glob("*"), *path.glob("sweeps/*")]
    sweep_dirs = sorted(folder for folder in folders if (folder / "sweep.json").exists())
    if not sweep_dirs:
        raise ValueError(f"{path}: no sweeps here, expected a sweep or an outputs folder")
    return sweep_dirs
