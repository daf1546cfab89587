"""The studies of a sweep: a search for each value of study_per, and the final runs of each.

Knows which study the next trial comes from, not how a trial is run.
"""

import contextlib
import math
import re
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from cifarsweep.results.study_records import Direction
from cifarsweep.sweeper import heartbeat, settings, storage
from cifarsweep.sweeper.constraints import is_infeasible
from cifarsweep.sweeper.exclusions import EXCLUDED
from cifarsweep.sweeper.promotion import SampledStudy, is_paused
from cifarsweep.sweeper.pruning import dominates
from cifarsweep.sweeper.queue import SPENT, Queue
from cifarsweep.sweeper.settings import Settings
from cifarsweep.sweeper.space import MOST_STEPS, Space
from cifarsweep.terminal.domains import as_typed

WAIT_SECONDS = 0.5
EXCLUDED_BEFORE_CHANCE, MOST_EXCLUDED = 10, 1000
"""A sampler that has come to what is excluded proposes it again and again. After so many in a row chance proposes."""
FINALIST, SEED, VALUES = "finalist", "seed", "values"
"""Of a final run: the number of the trial whose configuration it has, its seed, and its values by key."""


@dataclass(frozen=True)
class FinalRuns:
    """How final runs differ from the trial whose configuration they have."""

    seed_key: str
    seeds: tuple[int, ...]
    """None of them is a seed of the search."""
    values: Mapping[str, Any]
    """What changes beside the seed, by key."""
    objective: str
    direction: Direction


@dataclass(frozen=True)
class StudyPlan:
    """What every worker of a study needs to know, plain enough to be sent to any process."""

    name: str
    """Of the study in its storage."""
    address: str
    folder: Path
    space: Space
    settings: Settings
    finals: FinalRuns | None = None
    """None: the search is all there is."""
    fixed_of_a_run: tuple[str, ...] = ()
    """The fixed overrides that a single run needs too. The names of the sweep and of the search are not among them."""
    deadline: float | None = None
    """Seconds since the epoch after which no further trial starts."""
    per: Mapping[str, Any] = field(default_factory=dict)
    """The values of study_per that this study is for."""
    is_final: bool = False
    """Whether its trials are final runs, not a search."""

    @property
    def title(self) -> str:
        """What stands before a line on one of its trials. It is empty where there is one study only."""
        return "".join(f"{part} " for part in self._parts)

    @property
    def subfolder(self) -> str:
        """Where its trials have their folders below the sweep's: numbers of trials are unique in one study only."""
        return "/".join(re.sub(r"[^\w.,=+-]", "_", part) for part in self._parts)

    @property
    def _parts(self) -> list[str]:
        return [*(f"{key}={as_typed(value)}" for key, value in self.per.items()), *(["final"] if self.is_final else [])]

    def name_of(self, values: Mapping[str, Any]) -> str:
        """The name of the study for these values of study_per."""
        return ", ".join([self.name, *(f"{key}={as_typed(value)}" for key, value in values.items())])

    def divided(self) -> Iterator[Self]:
        """A plan for each combination of values of study_per: one where it is empty."""
        for values, space in self.space.divided(self.settings.study_per):
            fixed = (*self.fixed_of_a_run, *space.fixed[len(self.space.fixed) :])
            yield replace(self, name=self.name_of(values), space=space, per=values, fixed_of_a_run=fixed)

    def final(self) -> Self:
        """The study of its final runs. It has neither sampler nor pruner, and no trial of the search."""
        assert self.finals is not None
        without = replace(
            self.settings,
            sampler={"_target_": "optuna.samplers.RandomSampler"},
            pruner={"_target_": "optuna.pruners.NopPruner"},
            objectives=(self.finals.objective,),
            directions=(self.finals.direction,),
            budget=None,
            constraints=(),
            seeds=(),
        )
        return replace(self, name=name_of_finals(self.name, without.final_on), settings=without, is_final=True)


def name_of_finals(search: str, final_on: str) -> str:
    """The name of the study of a search's final runs."""
    return f"{search}, final on {final_on}"


class OpenStudy:
    """A study with its storage open: a search, or the final runs of one."""

    def __init__(self, plan: StudyPlan, store: BaseStorage, search: "OpenStudy | None" = None) -> None:
        self.plan, self._search = plan, search
        optuna.logging.set_verbosity(optuna.logging.ERROR)  # what matters of its warnings ends as Lost
        warnings.filterwarnings("ignore", category=ExperimentalWarning)
        self.study = optuna.load_study(study_name=plan.name, storage=store)
        self.study.stop = lambda: None  # type: ignore[method-assign]  # the queue ends a space that is exhausted
        self._sampled = SampledStudy(plan.name, store)
        self.study.pruner = self._sampled.pruner = settings.make_pruner(plan.settings)
        self._make_sampler(0)
        self.queue = Queue(
            self.study,
            plan.folder / ".study",
            plan.settings,
            wanted=None if search is None else self._wanted,
        )
        has_finals = plan.finals and not plan.is_final
        self.finals: OpenStudy | None = OpenStudy(plan.final(), store, self) if has_finals else None
        self._are_finals_open = False

    @property
    def finalists(self) -> list[FrozenTrial]:
        """The best configurations of this search, by what the search saw, each once; none before it is over."""
        if not self.queue.is_over:
            return []
        best: list[FrozenTrial] = []
        for trial in ranked(self.plan, self.trials):
            is_new = all(trial.params != other.params for other in best)
            if is_new and len(best) < self.plan.settings.finalists and math.isfinite(trial.values[0]):
                best.append(trial)
        return best

    def _wanted(self, trials: list[FrozenTrial]) -> list[FrozenTrial]:
        """The final runs that this command asks for. An earlier one may have asked for others."""
        assert self._search is not None
        numbers = {trial.number for trial in self._search.finalists}
        seeds = self.plan.finals.seeds if self.plan.finals else ()
        return [trial for trial in trials if trial.user_attrs[FINALIST] in numbers and trial.user_attrs[SEED] in seeds]

    @property
    def trials(self) -> list[FrozenTrial]:
        """Those that the study has room for, and runs of a warm start. Excluded proposals are none."""
        return [trial for trial in self.study.get_trials(deepcopy=False) if EXCLUDED not in trial.user_attrs]

    @property
    def num_excluded(self) -> int:
        return sum(EXCLUDED in trial.user_attrs for trial in self.study.get_trials(deepcopy=False))

    @property
    def settled(self) -> list[FrozenTrial]:
        """The trials that are finished, and those that pause."""
        return [trial for trial in self.queue.ours() if trial.state.is_finished() or is_paused(trial)]

    @property
    def progress(self) -> tuple[float, float]:
        """How much is done of how much, in the unit of the budget; final runs count in the same unit."""
        settings, settled = self.plan.settings, self.settled
        if self.plan.is_final:
            budget = self._search.plan.settings.budget if self._search else None
            weight = settings.max_steps or 1 if budget and budget.step else 1
            return weight * min(len(settled), self.num_wanted), weight * self.num_wanted
        if settings.budget is None:
            return min(len(settled), settings.n_trials), settings.n_trials
        return sum(trial.user_attrs.get(SPENT, 0) for trial in settled), settings.budget.amount

    @property
    def num_wanted(self) -> int:
        """How many final runs there are to be."""
        return self.plan.settings.finalists * self.plan.settings.repeats

    @property
    def latest(self) -> list[FrozenTrial]:
        """The last trial of each final run: one that failed may have been tried again."""
        runs = {(trial.user_attrs[FINALIST], trial.user_attrs[SEED]): trial for trial in self.queue.ours()}
        return list(runs.values())

    def claim(self, worker: str) -> optuna.Trial | None:
        if self.plan.is_final:
            return self.queue.claim(worker)

        def claim() -> optuna.Trial | None:
            most = MOST_STEPS if self.plan.settings.enumerates else MOST_EXCLUDED
            for num_excluded in range(most):
                if (claimed := self.queue.claim(worker)) is None:
                    return None
                self._make_sampler(claimed.number, at_random=num_excluded >= EXCLUDED_BEFORE_CHANCE)
                trial = self.queue.suggest(claimed, self.plan.space.suggest, self._sampled)
                if not self.plan.space.excludes(self.values(trial)):
                    return trial
                self.queue.leave_out(trial)
            raise ValueError(f"hydra.sweeper.exclude: left out {most:,} proposals in a row, expected fewer")

        try:
            return self.queue.take(claim) if self.plan.settings.samples_in_turn else claim()
        except BaseException:
            with contextlib.suppress(storage.Lost), storage.reaching(self.plan.address, patience=0):
                self.queue.give_back(worker)
            raise

    def _make_sampler(self, trial: int, *, at_random: bool = False) -> None:
        made_of = self.plan.settings
        if at_random and not made_of.enumerates:
            random = {"_target_": "optuna.samplers.RandomSampler", "seed": made_of.sampler.get("seed")}
            made_of = replace(made_of, sampler=random)
        self.study.sampler = self._sampled.sampler = settings.make_sampler(made_of, self.plan.space, trial)

    def values(self, trial: optuna.Trial | FrozenTrial) -> dict[str, Any]:
        """By key."""
        if self.plan.is_final:
            return dict(trial.user_attrs[VALUES])
        return self.plan.space.values(trial.params)

    def overrides(self, trial: optuna.Trial, instead: Mapping[str, Any] | None = None) -> list[str]:
        """Of a final run the seed and the values that change take the place of the configuration's.

        So do those of `instead` for one of several runs of a trial.
        """
        finals = self.plan.finals if self.plan.is_final else None
        instead = {finals.seed_key: trial.user_attrs[SEED], **finals.values} if finals else instead
        return self.plan.space.overrides(self.values(trial), instead)

    def open_finals(self) -> None:
        """Puts the final runs into their queue, once the search is over."""
        if self.finals is None or self._are_finals_open or not self.queue.is_over:
            return
        assert self.plan.finals is not None
        finalists = self.finalists
        self.finals.queue.add(
            {FINALIST: trial.number, SEED: seed, VALUES: self.plan.space.values(trial.params)}
            for seed in self.plan.finals.seeds
            for trial in finalists
        )
        self._are_finals_open = True


class Studies:
    """All studies of a sweep, in one storage."""

    def __init__(self, plans: Sequence[StudyPlan]) -> None:
        store = storage.open_storage(plans[0].address)
        self.searches = [OpenStudy(plan, store) for plan in plans]
        self.finals = [search.finals for search in self.searches if search.finals is not None]
        self.address, self._deadline = plans[0].address, plans[0].deadline
        self._workers, self._grace_period = self.searches[0].queue.workers, plans[0].settings.grace_period

    @property
    def all(self) -> list[OpenStudy]:
        return [*self.searches, *self.finals]

    @property
    def num_startable(self) -> int:
        """How many trials a worker could claim now."""
        if self._deadline is not None and time.time() >= self._deadline:
            return 0
        for search in self.searches:
            search.open_finals()
        return sum(study.queue.num_waiting for study in self.all if study.queue.stopped is None)

    def recover(self, *, counted: bool) -> int:
        return sum(study.queue.recover(counted=counted) for study in self.all)

    def claim(self, worker: str) -> tuple[OpenStudy, optuna.Trial] | None:
        """The next trial and its study, or None. Waits where a trial that runs elsewhere may lead to further ones.

        The study with the least work is next, so that all have made the same progress whenever the sweep is
        interrupted. Two workers meet in one study only where there are not enough of them: a search of one worker is
        reproducible.
        """
        while self._deadline is None or time.time() < self._deadline:
            if heartbeat.is_check_due(self._workers, self._grace_period):
                self.recover(counted=True)
            claimed = self._claim(worker)
            if claimed is None:
                self.recover(counted=True)
                claimed = self._claim(worker)
            if claimed is not None or not any(
                search.queue.may_lead_further or (search.finals is not None and search.queue.load[0])
                for search in self.searches
            ):
                return claimed
            time.sleep(WAIT_SECONDS)
        return None

    def _claim(self, worker: str) -> tuple[OpenStudy, optuna.Trial] | None:
        for studies in (self.searches, self.finals):
            for study in sorted(studies, key=lambda study: study.queue.load) if len(studies) > 1 else studies:
                if (trial := study.claim(worker)) is not None:
                    return study, trial
            for search in self.searches:
                search.open_finals()
        return None


def best_trials(plan: StudyPlan, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The best trial, or with several objectives those that no other beats in all of them, best first."""
    complete, directions = ranked(plan, trials), plan.settings.directions
    if len(directions) == 1:
        return complete[:1]
    return [t for t in complete if not any(dominates(other.values, t.values, directions) for other in complete)]


def ranked(plan: StudyPlan, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The complete trials that break no constraint, best first."""

    def gain(trial: FrozenTrial) -> list[float]:
        return [v if d == "maximize" else -v for v, d in zip(trial.values, plan.settings.directions, strict=True)]

    complete = (trial for trial in trials if trial.state == TrialState.COMPLETE and not is_infeasible(trial))
    return sorted(complete, key=gain, reverse=True)
