"""What searches leave behind: study.json of one, studies.json of several. Knows nothing of how they search."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import UnionType
from typing import Any, ClassVar, Literal, Self, get_args

from cifarsweep.results import files
from cifarsweep.results.files import Record

FORMAT = 1
STATES = ("complete", "pruned", "failed", "running", "waiting")
Direction = Literal["maximize", "minimize"]
DIRECTIONS = get_args(Direction)


@dataclass(frozen=True, kw_only=True)
class TrialRecord(Record):
    number: int
    state: str
    values: list[Any] | None
    """One for each objective; None where the trial has none."""
    params: dict[str, Any]
    """Those that this trial had: a search space may depend on its choices."""
    epochs: dict[str, Any]
    """What it reported after each step."""
    run: str | None
    reason: str | None
    """Why it failed."""
    started: str | None
    finished: str | None
    warm_start: bool
    """Whether its result was known before the search began."""

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        trial = super().of(values)
        _check(trial, int, "a whole number", "number")
        if trial.state not in STATES:
            raise ValueError(f"state={trial.state!r}: expected one of {', '.join(STATES)}")
        _check(trial, list | None, "a list or null", "values")
        _check(trial, dict, "an object", "params", "epochs")
        _check(trial, str | None, "text or null", "run", "reason", "started", "finished")
        if not all(step.isdecimal() for step in trial.epochs):
            raise ValueError(f"epochs={trial.epochs!r} of trial {trial.number}: expected steps")
        return trial


@dataclass(frozen=True, kw_only=True)
class FinalRunRecord(Record):
    finalist: int
    """The number of the trial whose configuration it trains."""
    seed: int
    state: str
    run: str | None
    reason: str | None

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        run = super().of(values)
        _check(run, int, "a whole number", "finalist", "seed")
        _check(run, str, "text", "state")
        _check(run, str | None, "text or null", "run", "reason")
        return run


@dataclass(frozen=True, kw_only=True)
class _File(Record):
    """A file in a sweep's folder."""

    file: ClassVar[str]
    holds: ClassVar[str]
    format: int
    name: str

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        record = super().of(values)
        if record.format != FORMAT:
            raise ValueError(f"format={record.format!r}: expected {FORMAT}")
        return record

    @classmethod
    def read(cls, sweep_dir: Path) -> Self | None:
        """None where there is no such file. files.Corrupt where it is something else."""
        path = sweep_dir / cls.file
        if not path.exists():
            return None
        values = files.read_json(path)
        try:
            return cls.of(values)
        except (TypeError, AttributeError, ValueError) as error:
            raise files.Corrupt(path, f"expected the record of {cls.holds} ({error})") from error

    def write(self, sweep_dir: Path) -> None:
        files.write_json(sweep_dir / self.file, self)


@dataclass(frozen=True, kw_only=True)
class StudyRecord(_File):
    """study.json, which is there where one search made the sweep."""

    file = "study.json"
    holds = "a search"
    objectives: list[str]
    directions: list[str]
    n_trials: int | None
    params: list[str]
    log: list[str]
    """Those of `params` that are searched on a logarithmic scale."""
    importances: dict[str, Any]
    best: list[int]
    """Numbers of the best trial, or of the Pareto set where there are several objectives."""
    best_command: str | None
    trials: list[TrialRecord]

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        study = super().of(values)
        _check_texts(study, "objectives", "directions", "params", "log")
        num_objectives = len(study.objectives)
        if not num_objectives or len(study.directions) != num_objectives or not {*study.directions} <= {*DIRECTIONS}:
            expected = f"{' or '.join(DIRECTIONS)} for each of {study.objectives}"
            raise ValueError(f"directions={study.directions}: expected {expected}")
        _check(study, dict, "an object", "importances")
        _check(study, list, "a list", "best", "trials")
        return replace(study, trials=_trials(study.trials, study.objectives))


@dataclass(frozen=True, kw_only=True)
class StudyWithFinalRuns(Record):
    """One of the studies in studies.json: a search, and the final runs of its best configurations."""

    values: dict[str, Any]
    """What sets it apart from the other studies."""
    params: list[str]
    is_over: bool
    epochs: int
    """How many all its trials trained."""
    trials: list[TrialRecord]
    finalists: list[int]
    """Numbers of trials, best first; empty until the search is over."""
    final_runs: list[FinalRunRecord]

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        study = super().of(values)
        _check(study, dict, "an object", "values")
        _check_texts(study, "params")
        _check(study, list, "a list", "trials", "finalists", "final_runs")
        return replace(study, final_runs=[FinalRunRecord.of(run) for run in values["final_runs"]])


@dataclass(frozen=True, kw_only=True)
class StudiesRecord(_File):
    """studies.json."""

    file = "studies.json"
    holds = "several searches"
    study_per: list[str]
    objectives: list[str]
    directions: list[str]
    budget: str
    max_epochs: int | None
    finalists: int
    repeats: int
    seeds: list[int]
    final_on: str
    studies: list[StudyWithFinalRuns]

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        record = super().of(values)
        _check_texts(record, "objectives")
        _check(record, list, "a list", "seeds", "studies")
        studies = [StudyWithFinalRuns.of(study) for study in values["studies"]]
        return replace(record, studies=[replace(s, trials=_trials(s.trials, record.objectives)) for s in studies])


def _trials(rows: list[Any], objectives: list[str]) -> list[TrialRecord]:
    trials = [TrialRecord.of(row) for row in rows]
    for trial in trials:
        if trial.state == "complete" and len(trial.values or ()) != len(objectives):
            raise ValueError(f"values={trial.values!r} of trial {trial.number}: expected {len(objectives)}")
    return trials


def _check(record: Record, kind: type | UnionType, expected: str, *keys: str) -> None:
    for key in keys:
        value = getattr(record, key)
        if not isinstance(value, kind):
            whose = f" of trial {record.number}" if isinstance(record, TrialRecord) else ""
            raise ValueError(f"{key}={value!r}{whose}: expected {expected}")


def _check_texts(record: Record, *keys: str) -> None:
    for key in keys:
        texts = getattr(record, key)
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise ValueError(f"{key}={texts!r}: expected a list of texts")
