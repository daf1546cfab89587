"""Pruning that pauses: a trial goes on where it stopped once it is among the best of those that came as far.

Optuna can end a trial early, but not go on with one it has ended. A paused trial waits in Optuna's storage with the
step that it has reached; the queue gives it out again when its pruner promotes it.
"""

import copy
from abc import abstractmethod
from bisect import bisect_right
from collections.abc import Container, Sequence
from itertools import count, takewhile

import optuna
from optuna.pruners import BasePruner
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

PAUSED, PROMOTED = "paused", "promoted"
"""The step after which a trial pauses, and the last one after which it went on."""
NO_END = 2**31
"""Beyond all steps."""


def is_paused(trial: FrozenTrial) -> bool:
    return trial.state == TrialState.WAITING and trial.user_attrs.get(PAUSED) is not None


class PausingPruner(BasePruner):
    """A pruner whose trials pause where `prune` says so.

    With a plain Optuna study, which knows no paused trials, they are pruned.
    """

    max_resource: int | str
    rungs: list[int]
    """The steps after which a trial may pause."""
    keep_checkpoints: int | None
    """So many paused trials keep what they would go on from; None: all do."""

    @abstractmethod
    def promotable(self, trials: Sequence[FrozenTrial], direction: StudyDirection) -> list[FrozenTrial]:
        """Those of the paused trials that go on now, the most promising first."""

    @abstractmethod
    def may_pause(self, trial: FrozenTrial) -> bool:
        """Whether a trial that runs may still pause."""

    @abstractmethod
    def by_promise(self, trials: Sequence[FrozenTrial], direction: StudyDirection) -> list[FrozenTrial]:
        """The paused trials, the most promising first."""


class PromotionPruner(PausingPruner):
    """Asynchronous successive halving by promotion (Li et al., A System for Massively Parallel Hyperparameter Tuning).

    The rungs are the steps r, r·f, r·f², …, below the last step. After each a trial pauses unless it is among the best
    1/f of the trials that have reached it. Those that enter the best 1/f later, as others come, are promoted.
    """

    def __init__(
        self,
        *,
        min_resource: int = 1,
        reduction_factor: int = 3,
        max_resource: int | str = "auto",
        keep_checkpoints: int | None = 20,
    ) -> None:
        self._factor, self.max_resource, self.keep_checkpoints = reduction_factor, max_resource, keep_checkpoints
        self._end = max_resource if isinstance(max_resource, int) else NO_END
        self.rungs = list(
            takewhile(lambda rung: rung < self._end, (min_resource * reduction_factor**i for i in count()))
        )

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        step = trial.last_step
        rung = None if step is None else self._rung(step)
        if rung is None or _reached(trial, rung) != step or trial.user_attrs.get(PROMOTED, -1) >= step:
            return False
        best = self._best(study.get_trials(deepcopy=False), rung, study.direction)
        return trial.number not in {other.number for other in best}

    def promotable(self, trials: Sequence[FrozenTrial], direction: StudyDirection) -> list[FrozenTrial]:
        return [
            trial
            for rung, paused in self._paused_by_rung(trials).items()
            for trial in self._best(trials, rung, direction)
            if trial.number in paused
        ]

    def may_pause(self, trial: FrozenTrial) -> bool:
        return max(trial.last_step or 0, int(trial.user_attrs.get(PROMOTED, 0))) < max(self.rungs, default=0)

    def by_promise(self, trials: Sequence[FrozenTrial], direction: StudyDirection) -> list[FrozenTrial]:
        by_rung = self._paused_by_rung(trials)
        return [trial for rung, paused in by_rung.items() for trial in _ranked([*paused.values()], rung, direction)]

    def _paused_by_rung(self, trials: Sequence[FrozenTrial]) -> dict[int, dict[int, FrozenTrial]]:
        """The paused trials by number, for each rung that has any, the highest first."""
        by_rung: dict[int, dict[int, FrozenTrial]] = {}
        for trial in filter(is_paused, trials):
            by_rung.setdefault(self._rung(trial.user_attrs[PAUSED]) or 0, {})[trial.number] = trial
        return dict(sorted(by_rung.items(), reverse=True))

    def _best(self, trials: Sequence[FrozenTrial], rung: int, direction: StudyDirection) -> list[FrozenTrial]:
        reached = _ranked(trials, rung, direction)
        return reached[: len(reached) // self._factor]

    def _rung(self, step: int) -> int | None:
        """The highest rung that a trial has reached by this step; None below the first and at the last step."""
        passed = bisect_right(self.rungs, step) if step < self._end else 0
        return self.rungs[passed - 1] if passed else None


def _reached(trial: FrozenTrial, rung: int) -> int | None:
    """The first step of the trial at or after the rung."""
    if rung in trial.intermediate_values:
        return rung
    return min((step for step in trial.intermediate_values if step > rung), default=None)


def _ranked(trials: Sequence[FrozenTrial], rung: int, direction: StudyDirection) -> list[FrozenTrial]:
    """The trials that have reached the rung, by what they had there, the best first."""
    sign = -1 if direction == StudyDirection.MAXIMIZE else 1
    reached = [
        (sign * trial.intermediate_values[step], trial.number, trial)
        for trial in trials
        if (step := _reached(trial, rung)) is not None
    ]
    reached.sort(key=lambda found: found[:2])
    return [trial for *_, trial in reached]


class SampledStudy(optuna.Study):
    """A study as its sampler sees it: a paused trial is a pruned one. Of trials that wait no sampler learns anything.

    `_get_trials` is what Optuna's samplers read (4.0 to 5.0); there is no public way between a sampler and its study.
    """

    def trial(self, trial_id: int) -> optuna.Trial:
        """The trial, for its sampler to suggest its parameters, which learns from the trials as they are now."""
        self._thread_local.cached_all_trials = None  # as Study.ask does: samplers read what is cached here
        return optuna.Trial(self, trial_id)

    def _get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None, use_cache: bool = False
    ) -> list[FrozenTrial]:
        trials = [_as_pruned(trial) for trial in super()._get_trials(deepcopy=False, use_cache=use_cache)]
        wanted = [trial for trial in trials if states is None or trial.state in states]
        return copy.deepcopy(wanted) if deepcopy else wanted


def _as_pruned(trial: FrozenTrial) -> FrozenTrial:
    if not is_paused(trial):
        return trial
    pruned = copy.copy(trial)
    pruned.state = TrialState.PRUNED
    return pruned
