"""What searches leave behind: study.json of one, studies.json of several. Knows nothing of how they search."""

import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

from cifarsweep.results import identity
from cifarsweep.results.typed import FileRecord, Record, Unexpected

FORMAT = identity.FORMAT
State = Literal["complete", "pruned", "paused", "failed", "running", "waiting"]
STATES = get_args(State)
EARLY = ("pruned", "paused")
"""Of trials that have stopped before their last step. A paused one may go on."""
Direction = Literal["maximize", "minimize"]
DIRECTIONS = get_args(Direction)


@dataclass(frozen=True, kw_only=True)
class TrialRecord(Record):
    number: int
    state: State
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
    warm_start: bool | None
    """Whether its result was known before the search began."""

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        trial = super().of(values)
        if not all(step.isdecimal() and len(step) < 19 for step in trial.epochs):
            raise Unexpected(trial.epochs, "steps").inside(".epochs")
        return trial


@dataclass(frozen=True, kw_only=True)
class FinalRunRecord(Record):
    finalist: int
    """The number of the trial whose configuration it trains."""
    seed: int
    state: State
    run: str | None
    reason: str | None


@dataclass(frozen=True, kw_only=True)
class _File(FileRecord):
    """A file in the folder of a search."""

    made_again_by = "the command of the search writes it again"
    instead = "another name= begins a new search"
    format: int
    name: str | None


@dataclass(frozen=True, kw_only=True)
class StudyRecord(_File):
    """study.json, which is there where one search made the sweep."""

    file = "study.json"
    holds = "the record of a search"
    objectives: list[str]
    directions: list[Direction]
    n_trials: int | None
    params: list[str]
    log: list[str]
    """Those of `params` that are searched on a logarithmic scale."""
    importances: dict[str, Any]
    importance_intervals: dict[str, Any] | None = None
    """Of 90 %: the low and the high end by key. Earlier versions wrote none."""
    best: list[int]
    """Numbers of the best trial, or of the Pareto set where there are several objectives."""
    best_command: str | None
    trials: list[TrialRecord]

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        study = super().of(values)
        num_objectives = len(study.objectives)
        if not num_objectives or len(study.directions) != num_objectives:
            raise ValueError(f"directions={study.directions}: expected one for each of {study.objectives}")
        _check_values(study.trials, num_objectives)
        return study


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


@dataclass(frozen=True, kw_only=True)
class StudiesRecord(_File):
    """studies.json."""

    file = "studies.json"
    holds = "the record of several searches"
    study_per: list[str]
    objectives: list[str]
    directions: list[Direction]
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
        for study in record.studies:
            _check_values(study.trials, len(record.objectives))
        return record


def _check_values(trials: list[TrialRecord], num_objectives: int) -> None:
    for trial in trials:
        if trial.state == "complete" and len(trial.values or ()) != num_objectives:
            raise ValueError(f"values={reprlib.repr(trial.values)} of trial {trial.number}: expected {num_objectives}")
