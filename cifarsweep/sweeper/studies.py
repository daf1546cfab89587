"""The studies of a sweep, a search for each value of study_per and its final runs, and where the next ticket is.

Knows which study comes next, not how a trial is run.
"""

from __future__ import annotations

import contextlib
import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from cifarsweep.results.locks import Lock
from cifarsweep.sweeper import settings, storage
from cifarsweep.sweeper.pruning import dominates
from cifarsweep.sweeper.queue import SPENT, Tickets
from cifarsweep.sweeper.settings import FINAL_ON, Settings
from cifarsweep.sweeper.space import Space
from cifarsweep.terminal.domains import as_typed

WAIT_SECONDS = 0.5
FINALIST, SEED, VALUES = "finalist", "seed", "values"
"""Of a final run's ticket: the number of the trial whose configuration it has, the seed, and its values by key."""


@dataclass(frozen=True)
class Plan:
    """What every worker of a study needs to know; plain enough to be sent to any process."""

    name: str
    """Of the study in its storage."""
    address: str
    folder: Path
    space: Space
    settings: Settings
    fixed_of_a_run: tuple[str, ...] = ()
    """The fixed overrides that a single run needs, too: without the name of the sweep and of the search."""
    deadline: float | None = None
    """Seconds since the epoch after which no further trial starts."""
    per: Mapping[str, Any] = field(default_factory=dict)
    """The values of study_per that this study is for."""
    seeds: tuple[int, ...] = ()
    """Of the final runs: none of them is a seed of the search."""
    is_final: bool = False
    """Whether its trials are final runs, not a search; the values of these are their test accuracy."""

    @property
    def title(self) -> str:
        """Before what is said of its trials; empty where there is one study only."""
        named = " ".join(f"{key}={as_typed(value)}" for key, value in self.per.items())
        return " ".join(part for part in (named, "final" if self.is_final else "") if part) + " " * bool(named)

    def divided(self) -> Iterator[Plan]:
        """A plan for each value of study_per; this one where there is none."""
        if not self.settings.study_per:
            yield self
            return
        for values, space in self.space.divided(self.settings.study_per):
            fixed = (*self.fixed_of_a_run, *space.fixed[len(self.space.fixed) :])
            name = ", ".join([self.name, *(f"{key}={as_typed(value)}" for key, value in values.items())])
            yield replace(self, name=name, space=space, per=values, fixed_of_a_run=fixed)

    def final(self) -> Plan:
        """The ledger of its final runs. No sampler and no pruner has a part in it, and no trial of it in the search."""
        nothing = {"_target_": "optuna.samplers.RandomSampler"}, {"_target_": "optuna.pruners.NopPruner"}
        chosen = replace(self.settings, sampler=nothing[0], pruner=nothing[1],
                         objectives=("test_accuracy",), directions=("maximize",))  # fmt: skip
        name = f"{self.name}, final on {self.settings.final_on}"
        return replace(self, name=name, settings=chosen, is_final=True)


def open_study(
    plan: Plan,
    store: BaseStorage | None = None,
    lock: Lock | None = None,
    wanted: Callable[[list[FrozenTrial]], list[FrozenTrial]] = lambda trials: trials,
) -> tuple[optuna.Study, Tickets]:
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # what matters of its warnings ends as Lost
    warnings.filterwarnings("ignore", category=ExperimentalWarning)
    study = optuna.load_study(study_name=plan.name, storage=store or storage.open_storage(plan.address))
    study.stop = lambda: None  # type: ignore[method-assign]  # an exhausted space ends by its number of tickets
    study.sampler = settings.make_sampler(plan.settings, plan.space, 0)
    study.pruner = settings.make_pruner(plan.settings)
    tickets = Tickets(
        study,
        plan.folder / ".study",
        lock or Lock(plan.folder / ".study" / "claim.lock"),
        max_retries=plan.settings.max_retries,
        max_failures=plan.settings.max_failures,
        grace_period=plan.settings.grace_period,
        budget=None if plan.is_final else plan.settings.budget,
        wanted=wanted,
    )
    return study, tickets


class Desk:
    """One study, open: a search, with its final runs where there are to be some."""

    def __init__(self, plan: Plan, store: BaseStorage, lock: Lock, search: Desk | None = None) -> None:
        self.plan, self._search = plan, search
        self.study, self.tickets = open_study(plan, store, lock, self._wanted)
        self.finals: Desk | None = None
        if plan.settings.finalists and not plan.is_final:
            self.finals = Desk(plan.final(), store, lock, self)
        self._are_finals_open = False

    @property
    def chosen(self) -> list[FrozenTrial]:
        """The finalists of this search, which must be over."""
        return finalists(self.plan, self.trials)

    def _wanted(self, trials: list[FrozenTrial]) -> list[FrozenTrial]:
        """Of final runs those that there are to be: an earlier command may have asked for others."""
        if self._search is None:
            return trials
        if not self._search.tickets.is_over:
            return []
        numbers = {one.number for one in self._search.chosen}
        return [
            trial
            for trial in trials
            if trial.user_attrs[FINALIST] in numbers and trial.user_attrs[SEED] in self.plan.seeds
        ]

    @property
    def trials(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False)

    @property
    def progress(self) -> tuple[float, float]:
        """How much is done of how much: of the budget; in final runs' case in the same unit."""
        chosen, finished = self.plan.settings, [trial for trial in self.ours if trial.state.is_finished()]
        if self.plan.is_final:
            weight = chosen.max_epochs if chosen.budget and chosen.budget.kind == "epochs" else 1
            return weight * min(len(finished), self.wanted), weight * self.wanted
        if chosen.budget is None:
            return min(len(finished), chosen.n_trials), chosen.n_trials
        return sum(trial.user_attrs.get(SPENT, 0) for trial in finished), chosen.budget.amount

    @property
    def wanted(self) -> int:
        """How many final runs there are to be."""
        return self.plan.settings.finalists * self.plan.settings.repeats

    @property
    def ours(self) -> list[FrozenTrial]:
        """Without the runs that a warm start brought in, and final runs that are wanted no more."""
        return self.tickets.ours()

    @property
    def latest(self) -> list[FrozenTrial]:
        """Of final runs the last ticket of each: one that failed may have been tried again."""
        return list({(trial.user_attrs[FINALIST], trial.user_attrs[SEED]): trial for trial in self.ours}.values())

    def claim(self, worker: str) -> optuna.Trial | None:
        if self.plan.is_final:
            return self.tickets.claim(worker)
        # A sampler that visits each point once must see the points that others take while it chooses.
        with self.tickets.lock if self.plan.settings.enumerates else contextlib.nullcontext():
            trial = self.tickets.claim(worker)
            if trial is None:
                return None
            self.study.sampler = settings.make_sampler(self.plan.settings, self.plan.space, trial.number)
            try:
                self.plan.space.suggest(trial)
            except BaseException:
                self.tickets.give_back(trial, worker)
                raise
            return trial

    def values(self, trial: optuna.Trial | FrozenTrial) -> dict[str, Any]:
        """By key."""
        if self.plan.is_final:
            return dict(trial.user_attrs[VALUES])
        return self.plan.space.values(trial.params)

    def instead(self, trial: optuna.Trial) -> dict[str, Any]:
        """Values of keys that take the place of the configuration's."""
        if not self.plan.is_final:
            return {}
        return {"seed": trial.user_attrs[SEED], **FINAL_ON[self.plan.settings.final_on]}

    def open_finals(self) -> None:
        """Makes the tickets of the final runs, once the search is over."""
        if self.finals is None or self._are_finals_open or not self.tickets.is_over:
            return
        chosen = self.chosen
        self.finals.tickets.add(
            {FINALIST: trial.number, SEED: seed, VALUES: self.plan.space.values(trial.params)}
            for seed in self.plan.seeds
            for trial in chosen
        )
        self._are_finals_open = True


class Desks:
    """All studies of a sweep, in one storage under one lock."""

    def __init__(self, plans: Sequence[Plan]) -> None:
        store = storage.open_storage(plans[0].address)
        lock = Lock(plans[0].folder / ".study" / "claim.lock")
        self.searches = [Desk(plan, store, lock) for plan in plans]
        self.finals = [desk.finals for desk in self.searches if desk.finals is not None]
        self._deadline = plans[0].deadline

    @property
    def all(self) -> list[Desk]:
        return [*self.searches, *self.finals]

    @property
    def num_startable(self) -> int:
        """Tickets that a worker could take now."""
        if self._deadline is not None and time.time() >= self._deadline:
            return 0
        self._open_finals()
        return sum(desk.tickets.num_waiting for desk in self.all if desk.tickets.stopped is None)

    def recover(self, *, counted: bool) -> int:
        return sum(desk.tickets.recover(counted=counted) for desk in self.all)

    def claim(self, worker: str) -> tuple[Desk, optuna.Trial] | None:
        """The next trial and its study; waits where one that runs elsewhere may lead to further ones; or None.

        The study with the least work is next, so that all have the same progress whenever the sweep is interrupted,
        and two workers meet in one study only where there are not more: a search of one worker is reproducible.
        """
        while self._deadline is None or time.time() < self._deadline:
            if (claimed := self._claim(worker)) is not None:
                return claimed
            self.recover(counted=True)
            if (claimed := self._claim(worker)) is not None:
                return claimed
            if not any(desk.tickets.load[0] for desk in self.searches if desk.finals is not None):
                return None
            time.sleep(WAIT_SECONDS)
        return None

    def _claim(self, worker: str) -> tuple[Desk, optuna.Trial] | None:
        for desks in (self.searches, self.finals):
            for desk in sorted(desks, key=lambda desk: desk.tickets.load) if len(desks) > 1 else desks:
                if (trial := desk.claim(worker)) is not None:
                    return desk, trial
            self._open_finals()
        return None

    def _open_finals(self) -> None:
        for desk in self.searches:
            desk.open_finals()


def best_trials(plan: Plan, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The best complete trial, or with several objectives those that no other beats in all; best first."""
    found, directions = ranked(plan, trials), plan.settings.directions
    if len(directions) == 1:
        return found[:1]
    return [t for t in found if not any(dominates(other.values, t.values, directions) for other in found)]


def ranked(plan: Plan, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The complete trials, best first."""

    def gain(trial: FrozenTrial) -> list[float]:
        return [v if d == "maximize" else -v for v, d in zip(trial.values, plan.settings.directions, strict=True)]

    return sorted((trial for trial in trials if trial.state == TrialState.COMPLETE), key=gain, reverse=True)


def finalists(plan: Plan, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The best configurations of a search, by what it saw: validation figures only. Each once."""
    chosen: list[FrozenTrial] = []
    for trial in ranked(plan, trials):
        different = all(trial.params != other.params for other in chosen)
        if different and len(chosen) < plan.settings.finalists and math.isfinite(trial.values[0]):
            chosen.append(trial)
    return chosen
