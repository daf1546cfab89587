"""What searches leave behind: study.json of one, studies.json of several. Knows nothing of how they search."""

import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

from cifarsweep.results import identity
from cifarsweep.results.typed import FileRecord, Record, Unexpected

FORMAT = identity.FORMAT
State = Literal["complete", "infeasible", "pruned", "paused", "failed", "running", "waiting"]
STATES = get_args(State)
EARLY = ("pruned", "paused")
"""Of trials that have stopped before their last step. A paused one may go on."""
Direction = Literal["maximize", "minimize"]
DIRECTIONS = get_args(Direction)


@dataclass(frozen=True, kw_only=True)
class SeedRunRecord(Record):
    """What one of several runs of a trial has come to."""

    run: str | None
    values: list[Any] | None
    """One for each objective; None where it did not end by itself."""
    figures: dict[str, Any]
    """Those that the search constrains."""
    steps: int
    spent: float
    """Of the study's budget."""


@dataclass(frozen=True, kw_only=True)
class TrialRecord(Record):
    number: int
    state: State
    values: list[Any] | None
    """One for each objective; None where the trial has none."""
    params: dict[str, Any]
    """Those that this trial had: a search space may depend on its choices."""
    epochs: dict[str, Any]
    """What it reported after each step; the means over its first runs where it has several."""
    run: str | None
    reason: str | None
    """Why it failed."""
    started: str | None
    finished: str | None
    warm_start: bool | None
    """Whether its result was known before the search began."""
    runs: dict[str, SeedRunRecord] | None = None
    """By seed, where it is the mean over several."""

    @property
    def run_names(self) -> list[str]:
        names = [self.run] if self.runs is None else [run.run for run in self.runs.values()]
        return [name for name in names if name]

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
    objectives: list[str]
    directions: list[Direction]
    single_run: list[str] | None = None
    """What trains one of its runs alone, beside the run's own values. Earlier versions wrote none."""

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        record = super().of(values)
        num_objectives = len(record.objectives)
        if not num_objectives or len(record.directions) != num_objectives:
            raise ValueError(f"directions={record.directions}: expected one for each of {record.objectives}")
        for trial in (trial for search in record.searches for trial in search.trials):
            if trial.state == "complete" and len(trial.values or ()) != num_objectives:
                shown = reprlib.repr(trial.values)
                raise ValueError(f"values={shown} of trial {trial.number}: expected {num_objectives}")
        return record

    @property
    def searches(self) -> "Sequence[StudyRecord | StudyWithFinalRuns]":
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class StudyRecord(_File):
    """study.json, which is there where one search made the sweep."""

    file = "study.json"
    holds = "the record of a search"
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

    @property
    def searches(self) -> "Sequence[StudyRecord]":
        return [self]


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
    budget: str
    max_epochs: int | None
    finalists: int
    repeats: int
    seeds: list[int]
    final_on: str
    studies: list[StudyWithFinalRuns]

    @property
    def searches(self) -> Sequence[StudyWithFinalRuns]:
        return self.studies
