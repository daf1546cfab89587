"""The record of a sweep: its commands and its jobs, in sweep.json and jobs.jsonl."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from filelock import FileLock, Timeout

from cifarsweep.results import files, identity, provenance
from cifarsweep.results.files import Record
from cifarsweep.results.locks import file_lock, is_held

_JOURNAL = "jobs.jsonl"
"""Beside sweep.json while a command runs: what its jobs have told."""


@dataclass(frozen=True, kw_only=True)
class JobRecord(Record):
    """What is known of a job: a line of jobs.jsonl, or all such lines on it in sweep.json."""

    job: int
    overrides: list[str]
    run: str | None = None
    """The name of its run's directory."""
    error: str | None = None
    """Why it failed."""

    @property
    def key(self) -> str:
        """What makes it the same job when its command comes again."""
        return " ".join(self.overrides or ()) or str(self.job)


@dataclass(frozen=True, kw_only=True)
class Command(Record):
    """A command that began or continued the sweep."""

    time: str
    command_line: list[str]
    plan: Mapping[str, Any]
    """The configuration that its jobs have in common."""
    provenance: dict[str, Any]
    num_jobs: int | None = None


@dataclass(frozen=True, kw_only=True)
class SweepRecord(Record):
    format: int | None = None
    commands: list[Command]
    """At least one."""
    jobs: dict[str, JobRecord]

    @classmethod
    def read(cls, sweep_dir: Path) -> Self:
        """What sweep.json holds, with what the jobs of a command that still runs have told since.

        files.Corrupt where either file is something else.
        """
        told = _read_journal(sweep_dir)  # first, as what is moved from there to sweep.json meanwhile may be read twice
        path = sweep_dir / "sweep.json"
        values = files.read_json(path)
        try:
            commands = [Command.of(command) for command in values["commands"]]
            jobs = {key: JobRecord.of(job) for key, job in values["jobs"].items()}
        except (KeyError, TypeError, AttributeError) as error:
            raise files.Corrupt(path, "expected the record of a sweep") from error
        if not commands or not all(isinstance(job.run, str | None) for job in (*jobs.values(), *told)):
            raise files.Corrupt(path, "expected the record of a sweep")
        for job in told:  # a job that begins is told of anew; it changes nothing to add the same twice
            known = jobs.get(job.key)
            if known and job.run is None:
                job = replace(job, run=known.run, further=known.further | job.further)
            jobs[job.key] = job
        return replace(cls.of(values), commands=commands, jobs=jobs)

    def write(self, sweep_dir: Path) -> None:
        files.write_json(sweep_dir / "sweep.json", self)


def own_sweep(sweep_dir: Path) -> FileLock | None:
    """The lock on a sweep, which this process holds until it releases it. None where another process holds it."""
    lock = file_lock(sweep_dir / ".owner.lock")
    try:
        lock.acquire(timeout=0.5)  # whoever asks if the sweep runs holds it for a moment
    except Timeout:
        return None
    return lock


def open_sweep(sweep_dir: Path, command_line: list[str], plan: Mapping[str, Any]) -> None:
    """Writes sweep.json, or adds this command to the one that is there."""
    with _changed(sweep_dir, begin=True) as sweep:
        made_by = provenance.provenance()
        sweep.commands.append(Command(time=provenance.now(), command_line=command_line, plan=plan, provenance=made_by))


def expect_jobs(sweep_dir: Path, num_jobs: int) -> None:
    """Records how many jobs the last command has."""
    with _changed(sweep_dir) as sweep:
        sweep.commands[-1] = replace(sweep.commands[-1], num_jobs=num_jobs)


def close_sweep(sweep_dir: Path) -> None:
    """At the end of a command, moves to sweep.json all that its jobs have told."""
    with _changed(sweep_dir):
        pass


@contextmanager
def _changed(sweep_dir: Path, begin: bool = False) -> Iterator[SweepRecord]:
    """The record. The end of the block writes it, with the lists as they are by then.

    FileNotFoundError where the record was removed meanwhile, unless this command begins one.
    """
    with file_lock(sweep_dir / ".lock"):
        is_new = begin and not (sweep_dir / "sweep.json").exists()
        sweep = SweepRecord(format=identity.FORMAT, commands=[], jobs={}) if is_new else SweepRecord.read(sweep_dir)
        yield sweep
        sweep.write(sweep_dir)
        files.remove(sweep_dir / _JOURNAL)


def register_job(
    sweep_dir: Path, job: int, overrides: list[str], run: str | None = None, error: str | None = None
) -> JobRecord:
    """Adds to what is known of a job, and returns what it has added.

    Appends a line to jobs.jsonl. To write all jobs again for each would take longer than to train them in a sweep of
    thousands.
    """
    told = JobRecord(job=job, overrides=overrides, run=run, error=error)
    line = json.dumps(told.as_dict(), ensure_ascii=False) + "\n"
    path = sweep_dir / _JOURNAL
    with file_lock(sweep_dir / ".lock"):
        try:
            with open(path, "ab+", opener=files.opener) as file:
                file.seek(0)
                file.truncate(file.read().rfind(b"\n") + 1)  # less the line that a full disk has cut short
                file.write(line.encode("utf-8", "backslashreplace"))  # half a surrogate pair, as of a file's name
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from error
    return told


def _read_journal(sweep_dir: Path) -> list[JobRecord]:
    """What jobs have told since sweep.json was written, in that order."""
    path = sweep_dir / _JOURNAL
    try:
        lines = files.read_bytes(path).split(b"\n")[:-1]  # what follows the last end of a line was cut short
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
    return [JobRecord.of(job) for job in told]


def is_running(sweep_dir: Path) -> bool:
    """Whether a process works on this sweep. Needs no permission to write there."""
    path = sweep_dir / ".owner.lock"
    return path.exists() and is_held(path)
