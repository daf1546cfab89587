"""The record of a sweep: its commands and its jobs, in sweep.json and jobs.jsonl."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from cifarsweep.results import files, identity, provenance

_JOURNAL = "jobs.jsonl"
"""Beside sweep.json while a command runs: what its jobs have told."""


def read_sweep(sweep_dir: Path) -> dict[str, Any]:
    """What sweep.json holds, with what the jobs of a command that still runs have told since: `commands`, one or more,
    and `jobs`, a mapping. ValueError where it is something else."""
    told = _read_journal(sweep_dir)  # first, as what is moved from there to sweep.json meanwhile may be read twice
    path = sweep_dir / "sweep.json"
    sweep = files.read_json(path)
    if isinstance(sweep, dict) and isinstance(sweep.get("jobs"), dict):
        _add(sweep["jobs"], told)
    found = sweep if isinstance(sweep, dict) else {}
    jobs, commands = found.get("jobs"), found.get("commands")
    is_sweep = (
        isinstance(jobs, dict)
        and all(isinstance(job, dict) and isinstance(job.get("run"), str | None) for job in jobs.values())
        and isinstance(commands, list)
        and all(isinstance(command, dict) for command in commands)
    )
    if not is_sweep or not commands:
        raise files.Corrupt(path, "expected the record of a sweep")
    return found


def own_sweep(sweep_dir: Path) -> FileLock | None:
    """The lock on a sweep, held by this process until it is released; None where another process holds it."""
    sweep_dir.mkdir(parents=True, exist_ok=True)
    lock = FileLock(sweep_dir / ".owner.lock")
    try:
        lock.acquire(timeout=0.5)  # who asks whether the sweep runs holds it for a moment
    except Timeout:
        return None
    return lock


def open_sweep(sweep_dir: Path, command_line: list[str], plan: Mapping[str, Any]) -> None:
    """Writes sweep.json, or adds this command to the one that is there."""
    sweep_dir.mkdir(parents=True, exist_ok=True)
    with _sweep(sweep_dir) as sweep:
        command = {
            "time": provenance.now(),
            "command_line": command_line,
            "plan": plan,
            "provenance": provenance.provenance(),
        }
        sweep["commands"].append(command)


def register_job(sweep_dir: Path, job: int, overrides: list[str], **found: str) -> None:
    """Adds to what is known of a job: `run`, the name of its directory; `error`, the reason why it failed.

    A line of jobs.jsonl, as to write all jobs again for each would take a sweep of thousands longer than to train them.
    """
    line = json.dumps({"job": job, "overrides": overrides, **found}, ensure_ascii=False) + "\n"
    sweep_dir.mkdir(parents=True, exist_ok=True)
    path = sweep_dir / _JOURNAL
    with FileLock(sweep_dir / ".lock"):
        try:
            with path.open("ab+") as file:
                file.seek(0)
                file.truncate(file.read().rfind(b"\n") + 1)  # less the line that a full disk has cut short
                file.write(line.encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from error


def job_of_sweep(sweep_dir: Path, job: int, overrides: list[str]) -> dict[str, Any]:
    """All that is known of a job; nothing where it never began."""
    known: dict[str, Any] = read_sweep(sweep_dir)["jobs"].get(_key(job, overrides), {})
    return known


def close_sweep(sweep_dir: Path) -> None:
    """At the end of a command, moves all that its jobs have told to sweep.json."""
    with _sweep(sweep_dir):
        pass


def _read_journal(sweep_dir: Path) -> list[dict[str, Any]]:
    """What jobs have told since sweep.json was written, in that order."""
    path = sweep_dir / _JOURNAL
    try:
        lines = path.read_bytes().split(b"\n")[:-1]  # what follows the last end of a line was cut short
    except FileNotFoundError:
        return []
    try:
        told = [json.loads(line) for line in lines]
    except (ValueError, RecursionError) as error:
        raise files.Corrupt(path, f"not lines of JSON ({error})") from error
    for job in told:
        overrides = job.get("overrides") if isinstance(job, dict) and "job" in job else None
        if not isinstance(overrides, list) or not all(isinstance(word, str) for word in overrides):
            raise files.Corrupt(path, "expected the record of jobs")
    return told


def _add(jobs: dict[str, Any], told: Iterable[dict[str, Any]]) -> None:
    """A job that begins is told of anew; it changes nothing to add the same twice."""
    for job in told:
        key = _key(job["job"], job["overrides"])
        known = {} if "run" in job else jobs.get(key, {})
        jobs[key] = {**known, **job}


def _key(job: int, overrides: list[str]) -> str:
    return " ".join(overrides) or str(job)


def expect_jobs(sweep_dir: Path, num_jobs: int) -> None:
    """Adds to what sweep.json knows of the last command: how many jobs it has."""
    with _sweep(sweep_dir) as sweep:
        sweep["commands"][-1]["num_jobs"] = num_jobs


def is_running(sweep_dir: Path) -> bool:
    """Whether a process works on this sweep; a reader who may not write there need not be able to."""
    lock = FileLock(sweep_dir / ".owner.lock")
    if not Path(lock.lock_file).exists():
        return False
    try:
        with lock.acquire(blocking=False):
            return False
    except Timeout:
        return True
    except OSError:  # not writable
        return _is_locked(Path(lock.lock_file))


def _is_locked(path: Path) -> bool:
    """What FileLock's own call says of a file that is only read; nothing is known without that call, on Windows."""
    try:
        import fcntl
    except ImportError:
        return False
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@contextmanager
def _sweep(sweep_dir: Path) -> Iterator[dict[str, Any]]:
    path = sweep_dir / "sweep.json"
    with FileLock(sweep_dir / ".lock"):
        sweep = read_sweep(sweep_dir) if path.exists() else {"format": identity.FORMAT, "commands": [], "jobs": {}}
        yield sweep
        files.write_json(path, sweep)
        (sweep_dir / _JOURNAL).unlink(missing_ok=True)
