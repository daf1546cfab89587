"""The record of a sweep: its commands and its jobs, in sweep.json and jobs.jsonl."""

import contextlib
import json
import os
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self

from cifarsweep.results import files, identity, provenance
from cifarsweep.results.locks import Lock, is_held
from cifarsweep.results.study_records import StudiesRecord, StudyRecord, StudyWithFinalRuns
from cifarsweep.results.typed import FileRecord, Record, sealed, unsealed

_JOURNAL = "jobs.jsonl"
"""Beside sweep.json while a command runs, and after one that was interrupted: what its jobs have told."""
_OF_THE_SWEEP = ("search=", "experiment=", "study=", "name=", "hydra")
"""How overrides begin that make a job a part of its sweep."""


@dataclass(frozen=True, kw_only=True)
class JobRecord(Record):
    """What is known of a job: a line of jobs.jsonl, or all such lines on it in sweep.json."""

    job: int
    overrides: list[str]
    run: str | None = None
    """The name of its run's directory."""
    path: str | None = None
    """Where that is, from the sweep's folder. Before this was recorded, it was ../../runs."""
    error: str | None = None
    """Why it failed."""

    @property
    def key(self) -> str:
        """What makes it the same job when its command comes again."""
        return " ".join(self.overrides) or str(self.job)


@dataclass(frozen=True, kw_only=True)
class Command(Record):
    """A command that began or continued the sweep."""

    may_lack_values = True
    time: str
    command_line: list[str]
    plan: Mapping[str, Any]
    """The configuration that its jobs have in common."""
    provenance: dict[str, Any]
    num_jobs: int | None = None


@dataclass(frozen=True, kw_only=True)
class SweepRecord(FileRecord):
    file = "sweep.json"
    holds = "the record of a sweep"
    made_again_by = "the command of the sweep makes it again, without training what is trained"
    instead = "update cifarsweep, or begin another sweep with another name="
    format: int | None = None
    commands: list[Command]
    """At least one."""
    jobs: dict[str, JobRecord]
    submitted: dict[str, str] | None = None
    """Jobs of a cluster whose end no command has seen: by id, their overrides."""

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        sweep = super().of(values)
        if not sweep.commands:
            raise ValueError("commands=[]: expected one or more")
        return sweep

    @classmethod
    def read(cls, sweep_dir: Path) -> Self:
        """What sweep.json holds, with what the jobs of a command that still runs have told since.

        files.Corrupt where either file is damaged.
        """
        told, damaged = _read_journal(sweep_dir)  # first, as what is moved to sweep.json meanwhile may be read twice
        if damaged:
            raise damaged
        return cls.of_file(sweep_dir / cls.file).with_told(told)

    def with_told(self, told: Iterable[JobRecord]) -> Self:
        """With what these lines add. A job that begins is told of anew; it changes nothing to add the same twice."""
        jobs = dict(self.jobs)
        for job in told:
            known = jobs.get(job.key)
            if known and job.run is None:
                job = replace(job, run=known.run, path=known.path, further=known.further | job.further)
            jobs[job.key] = job
        return replace(self, jobs=jobs)


def own_sweep(sweep_dir: Path) -> Lock | None:
    """The lock on a sweep, which this process holds until it releases it. None where another process holds it."""
    lock = Lock(sweep_dir / ".owner.lock")
    return lock if lock.acquire(timeout=0) else None


def open_sweep(
    sweep_dir: Path, command_line: list[str], plan: Mapping[str, Any], num_jobs: int | None = None
) -> list[str]:
    """Writes sweep.json, or adds this command to the one that is there. A line for each damaged file set aside."""
    with Lock(sweep_dir / ".lock"):
        sweep, set_aside = _read_or_begin(sweep_dir)
        now, made_by = provenance.now(), provenance.provenance()
        sweep.commands.append(
            Command(time=now, command_line=command_line, plan=plan, provenance=made_by, num_jobs=num_jobs)
        )
        _write(sweep_dir, sweep)
    return set_aside


def _read_or_begin(sweep_dir: Path) -> tuple[SweepRecord, list[str]]:
    """The record, or one without commands; what is damaged is set aside, and known jobs are those of what is not."""
    told, damaged_journal = _read_journal(sweep_dir)
    damaged = [damaged_journal] if damaged_journal else []
    path = sweep_dir / SweepRecord.file
    sweep = SweepRecord(format=identity.FORMAT, commands=[], jobs={})
    try:
        if path.exists():
            sweep = SweepRecord.of_file(path)
    except files.Corrupt as error:
        damaged.append(error)
        sweep = sweep.with_told(_jobs_of_searches(sweep_dir))
    lines = [f"{error.path}: {error.reason}; kept as {files.set_aside(error.path).name}" for error in damaged]
    return sweep.with_told(told), [f"{line}, the record is made again" for line in lines]


def _jobs_of_searches(sweep_dir: Path) -> list[JobRecord]:
    """The runs of trials that have ended, which the command of a search does not name again."""
    runs: list[tuple[int, str | None]] = []
    for record in _searches(sweep_dir):
        for search in record.searches:
            runs += [(trial.number, name) for trial in search.trials for name in trial.run_names]
            if isinstance(search, StudyWithFinalRuns):
                runs += [(run.finalist, run.run) for run in search.final_runs]
    return [JobRecord(job=number, overrides=[f"run={run}"], run=run) for number, run in dict.fromkeys(runs) if run]


def command_of(run_dir: Path, sweep_dirs: Iterable[Path] = ()) -> list[str] | None:
    """What trains a run alone, by the job that has it, of these sweeps or one beside the run.

    None where none has, or it takes values from an experiment, which is for a sweep, and no search says which they are.
    """
    for sweep_dir in [*sweep_dirs, *sorted((run_dir.parent.parent / "sweeps").glob("*"))]:
        try:
            jobs = SweepRecord.read(sweep_dir).jobs.values()
        except (OSError, ValueError):
            continue
        for job in jobs:
            if job.run != run_dir.name:
                continue
            fixed = next((search.single_run for search in _searches(sweep_dir) if search.single_run is not None), None)
            if fixed is None and any(word.startswith("experiment=") for word in job.overrides):
                continue
            own = [word for word in job.overrides if not word.startswith(_OF_THE_SWEEP) and word not in (fixed or ())]
            return ["python", "-m", "cifarsweep", *(fixed or ()), *own]
    return None


def _searches(sweep_dir: Path) -> Iterator[StudyRecord | StudiesRecord]:
    """What searches have left in the folder and can be read."""
    for kind in (StudyRecord, StudiesRecord):
        with contextlib.suppress(OSError, ValueError):
            if record := kind.read(sweep_dir):
                yield record


def submitted(sweep_dir: Path) -> dict[str, str]:
    """The jobs of a cluster whose end no command has seen: by id, their overrides."""
    with contextlib.suppress(FileNotFoundError):  # an application that keeps no record
        return dict(SweepRecord.read(sweep_dir).submitted or {})
    return {}


def close_sweep(sweep_dir: Path) -> None:
    """At the end of a command, moves to sweep.json all that its jobs have told.

    FileNotFoundError where the record was removed meanwhile.
    """
    with Lock(sweep_dir / ".lock"):
        _write(sweep_dir, SweepRecord.read(sweep_dir))
        files.remove(sweep_dir / _JOURNAL)


def note_jobs(sweep_dir: Path, submitted: Mapping[str, str] | None = None, ended: Container[str] = ()) -> None:
    """Records which jobs of a cluster have begun, by id, and which have ended. FileNotFoundError without a record."""
    with Lock(sweep_dir / ".lock"):
        sweep = SweepRecord.read(sweep_dir)
        known = {**(sweep.submitted or {}), **(submitted or {})}
        left = {job: overrides for job, overrides in known.items() if job not in ended}
        _write(sweep_dir, replace(sweep, submitted=left or None))


def _write(sweep_dir: Path, sweep: SweepRecord) -> None:
    sweep.write(sweep_dir)
    with files.atomic(sweep_dir / _JOURNAL):  # empty; it stays to the end of the command
        pass


def register_job(
    sweep_dir: Path, job: int, overrides: list[str], run: str | Path | None = None, error: str | None = None
) -> JobRecord:
    """Adds to what is known of a job, and returns what it has added. `run` is its run's directory, or only the name.

    Appends a line to jobs.jsonl. To write all jobs again for each would take longer than to train them in a sweep of
    thousands.
    """
    name = None if run is None else Path(run).name
    place = _relative(run, sweep_dir) if isinstance(run, Path) else None
    told = JobRecord.of({"job": job, "overrides": overrides, "run": name, "path": place, "error": error})
    line = json.dumps(sealed(told.as_dict(), _JOURNAL), ensure_ascii=False) + "\n"
    path = sweep_dir / _JOURNAL
    with Lock(sweep_dir / ".lock"):
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


def _relative(path: Path, start: Path) -> str:
    try:
        return Path(os.path.relpath(path, start)).as_posix()
    except ValueError:  # on another drive of Windows
        return str(path.absolute())


def _read_journal(sweep_dir: Path) -> tuple[list[JobRecord], files.Corrupt | None]:
    """What jobs have told since sweep.json was written, in that order; and the first damaged line. It is left out."""
    path = sweep_dir / _JOURNAL
    try:
        lines = files.read_bytes(path).split(b"\n")[:-1]  # what follows the last end of a line was cut short
    except FileNotFoundError:
        return [], None
    told, damaged = [], None
    for number, line in enumerate(lines, 1):
        try:
            job = JobRecord.of(unsealed(json.loads(line), _JOURNAL))
            job.further.pop("digests", None)
            told.append(job)
        except (ValueError, RecursionError) as error:
            damaged = damaged or files.Corrupt(path, f"line {number}: {error}", partial(SweepRecord.advice, sweep_dir))
    return told, damaged


State = Literal["running", "submitted", "interrupted", "ended"]


def state(sweep_dir: Path) -> State:
    """What became of the last command: `submitted` where it left jobs to a cluster, whose end no command has seen."""
    if is_running(sweep_dir):
        return "running"
    if submitted(sweep_dir):
        return "submitted"
    return "interrupted" if (sweep_dir / _JOURNAL).exists() else "ended"


def total(sweep_dir: Path) -> int | None:
    """How many jobs or trials the sweep will have; None where nobody knows, such as with a budget or final runs."""
    if (sweep_dir / StudiesRecord.file).exists():
        return None
    with contextlib.suppress(OSError, ValueError):
        if study := StudyRecord.read(sweep_dir):
            return study.n_trials
    return SweepRecord.read(sweep_dir).commands[-1].num_jobs


def is_running(sweep_dir: Path) -> bool:
    """Whether a process works on this sweep. Needs no permission to write there."""
    return is_held(sweep_dir / ".owner.lock")
