"""Where runs, sweeps and pictures are on disk. Knows nothing of what their files hold."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from cifarsweep.results import files, identity, records, sweeps


@contextmanager
def owned(runs_dir: Path, name: str, id: str, wait: Callable[[], None] = lambda: None) -> Iterator[Path]:
    """The directory of run `id`, while no other process owns it; `wait` is called before another's is waited for.

    The directory need not exist yet. A run that stands under another slug keeps that name.
    """
    locks = runs_dir / ".locks"
    locks.mkdir(parents=True, exist_ok=True)
    lock = FileLock(locks / f"{id}.lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        wait()
        lock.acquire()
    try:
        yield next(iter(sorted(runs_dir.glob(f"*-{id}"))), runs_dir / f"{name}-{id}")
    finally:
        lock.release()


def mark_failed(run_dir: Path, reason: str) -> None:
    """A result for a run whose process died, unless it has ended or another process trains it by now."""
    lock = FileLock(run_dir.parent / ".locks" / f"{run_dir.name.rpartition('-')[2]}.lock")
    try:
        with lock.acquire(blocking=False):
            if not (run_dir / "result.json").exists():
                about = records.read_config(run_dir)["run"]
                result = {
                    **dict.fromkeys(records.COLUMNS),
                    **about,
                    "status": "failed",
                    "error": reason,
                    "format": identity.FORMAT,
                }
                files.write_json(run_dir / "result.json", result)
    except (Timeout, OSError, ValueError):  # it cannot be read or written: the sweep's record has the reason
        return


def pictures(outputs: Path, data: str, fingerprint: str) -> Path:
    """The folder with images of a data set, which all runs on it share."""
    return outputs / "data" / re.sub(r"[^A-Za-z0-9_-]+", "_", f"{data[:60]}-{fingerprint[:12]}")


def augmentation_picture(crop: int = 0, flip: bool = False, cutout: int = 0) -> str:
    """The name of the file there that shows what this augmentation does."""
    return f"augmentation-crop{crop:d}-flip{flip:d}-cutout{cutout:d}.png"


def find(path: Path) -> list[Path]:
    """The run directories that `path` stands for: a run, a sweep, a folder of either, or a whole outputs folder."""
    path = Path(os.path.abspath(path))  # a sweep finds its runs from its parents, which Path("depth") does not have
    if (path / "config.yaml").exists():
        return [path]
    swept = [path] if (path / "sweep.json").exists() else [file.parent for file in path.glob("*/sweep.json")]
    if swept:
        names = {job["run"] for sweep in swept for job in sweeps.read_sweep(sweep)["jobs"].values() if job.get("run")}
        found = (swept[0].parent.parent / "runs" / Path(name).name for name in names)
        return sorted(run for run in found if run.exists())
    folder = path / "runs" if (path / "runs").is_dir() else path
    if not folder.is_dir():
        raise ValueError(f"{path}: no such folder, expected a run, a sweep or an outputs folder")
    return sorted(run for run in folder.iterdir() if (run / "config.yaml").exists())


def find_sweeps(path: Path) -> list[Path]:
    """The sweeps that `path` stands for: one, a folder of them, or those of a whole outputs folder. Or ValueError."""
    path = Path(os.path.abspath(path))
    folders = [path, *path.glob("*"), *path.glob("sweeps/*")]
    found = sorted(folder for folder in folders if (folder / "sweep.json").exists())
    if not found:
        raise ValueError(f"{path}: no sweeps here, expected a sweep or an outputs folder")
    return found
