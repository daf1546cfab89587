"""Where runs, sweeps and pictures are on disk. Knows nothing of what their files hold."""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

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


@contextmanager
def owned(runs_dir: Path, name: str, id: str, wait: Callable[[], None] = lambda: None) -> Iterator[Path]:
    """The directory of run `id`, once no other process owns it. Calls `wait` first if one does.

    The directory need not exist yet. A run that stands under another slug keeps that name.
    """
    lock = run_lock(runs_dir, id)
    Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        wait()
        lock.acquire()
    try:
        yield next(iter(sorted(runs_dir.glob(f"*-{id}"))), runs_dir / f"{name}-{id}")
    finally:
        lock.release()


def run_lock(runs_dir: Path, id: str) -> FileLock:
    """A process holds it while it trains a run, and waits for it where another process trains that run."""
    return FileLock(runs_dir / ".locks" / f"{id}.lock")


def pictures(outputs: Path, data: str, fingerprint: str) -> Path:
    """The folder with images of a data set, which all runs on it share."""
    return outputs / "data" / re.sub(r"[^A-Za-z0-9_-]+", "_", f"{data[:60]}-{fingerprint[:12]}")


def augmentation_picture(crop: int = 0, flip: bool = False, cutout: int = 0) -> str:
    """The name of the file there that shows what this augmentation does."""
    return f"augmentation-crop{crop:d}-flip{flip:d}-cutout{cutout:d}.png"


def find(path: Path) -> list[Path]:
    """The run directories that `path` stands for: a run, a sweep, a folder of either, or a whole outputs folder."""
    check(path, "a run, a sweep or an outputs folder")
    path = Path(os.path.abspath(path))  # a sweep finds its runs from its parents, which Path("depth") does not have
    if (path / "config.yaml").exists():
        return [path]
    swept = [path] if (path / "sweep.json").exists() else [file.parent for file in path.glob("*/sweep.json")]
    if swept:
        names = {job.run for sweep in swept for job in SweepRecord.read(sweep).jobs.values() if job.run}
        run_dirs = (swept[0].parent.parent / "runs" / Path(name).name for name in names)
        return sorted(run_dir for run_dir in run_dirs if run_dir.exists())
    folder = path / "runs" if (path / "runs").is_dir() else path
    return sorted(run for run in folder.iterdir() if (run / "config.yaml").exists())


def find_sweeps(path: Path) -> list[Path]:
    """The sweeps that `path` stands for: a sweep, a folder of sweeps, or an outputs folder. ValueError for none."""
    check(path, "a sweep or an outputs folder")
    path = Path(os.path.abspath(path))
    folders = [path, *path.glob("*"), *path.glob("sweeps/*")]
    sweep_dirs = sorted(folder for folder in folders if (folder / "sweep.json").exists())
    if not sweep_dirs:
        raise ValueError(f"{path}: no sweeps here, expected a sweep or an outputs folder")
    return sweep_dirs
