"""The queue of one study's trials: who works on which, so that exactly n_trials finish, none twice and none lost.

A worker claims a WAITING trial of the Optuna study (RUNNING), and ends it (COMPLETE, PRUNED or FAIL), or has it pause.
The trial of a worker that died waits again, with the parameters it had. A study's steps are taken one at a time, by
whatever its storage has for it, and may be taken twice: see storage.py. Optuna has no public form of storage calls by
trial id; they are made only here.
"""

import functools
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

import optuna
from optuna.trial import FrozenTrial, TrialState

from cifarsweep.results.locks import is_held
from cifarsweep.sweeper.exclusions import EXCLUDED
from cifarsweep.sweeper.promotion import PAUSED, PROMOTED, PausingPruner, SampledStudy, is_paused
from cifarsweep.sweeper.settings import Budget, Settings
from cifarsweep.sweeper.storage import Storage

WARM, WORKER, DEATHS, REASON, DETAILS = "warm_start", "worker", "deaths", "reason", "details"
STOPPED, RESUMED, TOTAL = "stopped", "resumed", "n_trials"
SPENT, LAST = "spent", "last"
"""Of a trial: what it has spent of the study's budget, and that the step it has reported was its last."""
PAUSE_TIME, FIRST_START = "pause_time", "first_start"
"""When a trial paused last, and when it started first if it has started again, in seconds since the epoch."""
WASTED = "wasted"
"""What a trial had spent when it had to start again."""
DROPPED = "dropped"
"""Of the study: the numbers of paused trials that have nothing to go on from. Facts of trials that wait do not change,
so that they need not be read again and again."""
STATELESS = "says_that_trials_keep_nothing"
"""Of the study: that a person was told that its paused trials keep nothing to go on from."""
RUNS = "seed_runs"
"""Of a trial: by seed, what its ended runs have come to, with hydra.sweeper.seeds."""
NO_END = 10**9


@dataclass(frozen=True)
class Outcome:
    """How a trial ended. `reason` says why it failed, `details` is a failure's traceback."""

    state: TrialState
    values: Sequence[float] | None = None
    reason: str | None = None
    details: str | None = None
    violations: Mapping[str, float] = field(default_factory=dict)
    """By how much it breaks each constraint; 0 or less where it does not."""


P = ParamSpec("P")
T = TypeVar("T")


def _one_step(method: Callable[Concatenate["Queue", P], T]) -> Callable[Concatenate["Queue", P], T]:
    @functools.wraps(method)
    def taken(self: "Queue", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.take(functools.partial(method, self, *args, **kwargs))

    return taken


class Queue:
    def __init__(
        self,
        study: optuna.Study,
        folder: Path,
        settings: Settings,
        wanted: Callable[[list[FrozenTrial]], list[FrozenTrial]] | None = None,
    ) -> None:
        """`wanted` picks those of the trials that were added that count. The others are as if they were not there.

        Without it, as in a search, a claim makes a trial where fewer than n_trials have begun: trials that wait would
        be read again and again, by samplers and pruners too.
        """
        self._budget, self._wanted = settings.budget, wanted
        self.workers = folder / "workers"
        self._study, self._storage, self._study_id = study, cast(Storage, study._storage), study._study_id
        self._settings = settings

    def take(self, step: Callable[[], T], *, alone: bool = True) -> T:
        """Takes a step, again on a database server where its answer was lost. Of those `alone` one at a time."""
        return self._storage.take(step, self._study_id if alone else None)

    # the sweeper's side

    @_one_step
    def add(self, facts: Iterable[dict[str, Any]], *, retry: bool = False) -> None:
        """Adds a waiting trial with these user attributes for each of `facts` that no trial has yet.

        With `retry`, a trial that failed does not count.
        """
        have = [trial.user_attrs for trial in self.ours() if not (retry and trial.state == TrialState.FAIL)]
        for attrs in facts:
            if not any(attrs.items() <= there.items() for there in have):
                have.append(attrs)
                self._study.add_trial(optuna.trial.create_trial(state=TrialState.WAITING, user_attrs=attrs))

    def top_up(self, n_trials: int) -> None:
        """Lets `n_trials` begin in all. Where more wait, the rest waits unused."""
        self._study.set_user_attr(TOTAL, n_trials)

    @_one_step
    def recover(self, *, counted: bool) -> int:
        """Lets the trials of dead workers wait again; how many trials still run elsewhere.

        `counted`: each such death counts against its trial, which fails after more than max_retries of them.
        """
        alive = 0
        for trial in self.ours(TrialState.RUNNING):
            worker = trial.user_attrs.get(WORKER, "")
            if worker and is_held(self.workers / worker):
                alive += 1
                continue
            deaths = trial.user_attrs.get(DEATHS, 0) + counted
            if counted:
                self._storage.set_trial_user_attr(trial._trial_id, DEATHS, deaths)
            if deaths <= self._settings.max_retries:
                self._storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)
                continue
            times = "" if deaths == 1 else f" {deaths} times"
            reason = f"its process died{times}, perhaps out of memory or killed"
            self._storage.set_trial_user_attr(trial._trial_id, REASON, reason)
            self._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
            self._stop_after_failures()
        return alive

    def resume(self) -> None:
        """Forgets that failures stopped the study. Those until now count no more."""
        self._study.set_user_attr(STOPPED, None)
        self._study.set_user_attr(RESUMED, time.time())

    @property
    def stopped(self) -> FrozenTrial | None:
        """The last of the failed trials after which no further one may start, or None."""
        number = self._storage.get_study_user_attrs(self._study_id).get(STOPPED)
        return None if number is None else self._study.get_trials(deepcopy=False)[number]

    @property
    def num_waiting(self) -> int:
        """At least so many trials can still be claimed. Nobody knows how many trials a budget will pay for."""
        return self._num_waiting(self.ours())

    def ours(self, *states: TrialState) -> list[FrozenTrial]:
        """The study's trials that count. Runs of a warm start, which nobody had to train, and excluded ones do not."""
        trials = self._storage.get_all_trials(self._study_id, deepcopy=False, states=states or None)
        ours = [trial for trial in trials if WARM not in trial.user_attrs and EXCLUDED not in trial.user_attrs]
        return ours if self._wanted is None else self._wanted(ours)

    @property
    def load(self) -> tuple[int, int]:
        """How many trials run, and how many have been started."""
        ours = self.ours()
        return sum(trial.state == TrialState.RUNNING for trial in ours), sum(map(_has_begun, ours))

    @property
    def is_over(self) -> bool:
        """Whether every trial that was to be is finished."""
        ours = self.ours()
        running = any(trial.state == TrialState.RUNNING for trial in ours)
        return self.stopped is None and not running and self._num_waiting(ours) <= 0

    def _num_waiting(self, ours: list[FrozenTrial]) -> int:
        num_new = self._num_new(ours)
        if self._budget is not None:
            return max(len([*self._startable(ours, num_new)]), num_new)
        return max(num_new, 0) + len(self._promotable(ours, num_new))

    def _num_new(self, ours: list[FrozenTrial]) -> int:
        """How many trials may still begin, at most."""
        if self._budget is not None:
            left = _left(ours, self._budget)
            return int(left) if self._budget.step else NO_END * (left > 0)
        begun = sum(map(_has_begun, ours))
        if self._wanted is not None:
            return len(ours) - begun
        return int(self._storage.get_study_user_attrs(self._study_id).get(TOTAL, 0)) - begun

    def _startable(self, ours: list[FrozenTrial], num_new: int) -> Iterator[FrozenTrial]:
        """The trials of the storage that can start now, in order: the user's own, others, and promoted ones."""
        waiting = [trial for trial in ours if trial.state == TrialState.WAITING and not is_paused(trial)]
        if num_new <= 0:
            # A trial that was interrupted after the budget's last step has still to end, which costs nothing.
            waiting = [trial for trial in waiting if self._budget is not None and trial.user_attrs.get(SPENT)]
        yield from sorted(waiting, key=lambda trial: "fixed_params" not in trial.system_attrs)
        yield from self._promotable(ours, num_new)

    def _promotable(self, ours: list[FrozenTrial], num_new: int) -> list[FrozenTrial]:
        pruner, states = self._study.pruner, Counter(trial.state for trial in ours)
        if self._budget is not None and num_new <= 0:
            return []
        if not isinstance(pruner, PausingPruner):  # an earlier command had another one
            return [trial for trial in ours if is_paused(trial)]
        promotable = pruner.promotable(ours, self._study.direction)
        are_few = states[TrialState.COMPLETE] < max(1, self._settings.finalists) and not states[TrialState.RUNNING]
        if not promotable and num_new <= 0 and are_few:
            return pruner.by_promise(ours, self._study.direction)[:1]
        return promotable

    @property
    def may_lead_further(self) -> bool:
        """Whether a trial that runs may have another one promoted."""
        pruner = self._study.pruner
        return isinstance(pruner, PausingPruner) and any(map(pruner.may_pause, self.ours(TrialState.RUNNING)))

    # a worker's side

    @_one_step
    def claim(self, worker: str) -> optuna.Trial | None:
        """A trial that is this worker's now, or None where none is left to start."""
        ours = self.ours()
        for trial in ours:
            if trial.state == TrialState.RUNNING and trial.user_attrs.get(WORKER) == worker:
                return optuna.Trial(self._study, trial._trial_id)  # this step was taken before
        if self.stopped is not None:
            return None
        num_new = self._num_new(ours)
        for trial in self._startable(ours, num_new):
            if self._storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING):
                facts = trial.user_attrs
                changed: dict[str, Any] = {WORKER: worker}
                if trial.datetime_start and FIRST_START not in facts:  # it waited before and starts once more
                    changed[FIRST_START] = trial.datetime_start.timestamp()
                if facts.get(LAST):
                    changed[LAST] = False
                if is_paused(trial):
                    changed |= {PROMOTED: facts[PAUSED], PAUSED: None}
                if trial.number in (dropped := self._dropped):
                    changed[WASTED] = facts.get(SPENT, 0)
                    self._study.set_user_attr(DROPPED, [number for number in dropped if number != trial.number])
                for key, value in changed.items():
                    self._storage.set_trial_user_attr(trial._trial_id, key, value)
                return optuna.Trial(self._study, trial._trial_id)
        if num_new <= 0:
            return None
        # Not enqueue_trial: its mark of fixed parameters, even of none, switches GridSampler off.
        new = optuna.trial.create_trial(state=TrialState.RUNNING, user_attrs={WORKER: worker})
        return optuna.Trial(self._study, self._storage.create_new_trial(self._study_id, new))

    def suggest(self, trial: optuna.Trial, suggest: Callable[[optuna.Trial], Any], study: SampledStudy) -> optuna.Trial:
        """The trial with its parameters, by the sampler of `study`. Workers may sample at the same time."""

        def step() -> optuna.Trial:
            again = study.trial(trial._trial_id)  # a trial believes to have what was taken back
            suggest(again)
            return again

        return self.take(step, alone=False)

    @_one_step
    def leave_out(self, trial: optuna.Trial) -> None:
        """Has this worker's trial, whose parameters are excluded, not count. What a user gave of them waits again."""
        now = self._storage.get_trial(trial._trial_id)
        if now.state != TrialState.RUNNING:  # this step was taken before
            return
        given, waiting = now.system_attrs.get("fixed_params"), self.ours(TrialState.WAITING)
        if given and not any(other.system_attrs.get("fixed_params") == given for other in waiting):
            self._study.enqueue_trial(given, user_attrs={"enqueued": True})
        self._storage.set_trial_user_attr(trial._trial_id, EXCLUDED, True)
        self._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)

    def report(self, trial: optuna.Trial, step: int, value: float) -> bool:
        """Stores the objective after a step, unless it was stored before; whether the pruner ends the trial.

        It is asked about the last step only: one before it is repeated by a task that begins again.
        """
        last = max(self._storage.get_trial(trial._trial_id).intermediate_values, default=-1)
        if step > last:
            self._storage.set_trial_intermediate_value(trial._trial_id, step, value)
        now = self._storage.get_trial(trial._trial_id)
        return step >= last and self._study.pruner.prune(self._study, now)

    @_one_step
    def spend(self, trial: optuna.Trial, spent: float, ends: bool) -> bool:
        """Records what the trial has spent of the budget so far; whether the budget has one more step for it.

        A step that is granted counts as spent, so that workers side by side never spend more than there is. `ends`:
        the trial needs no further step.
        """
        assert self._budget is not None
        now = self._storage.get_trial(trial._trial_id)
        spent += now.user_attrs.get(WASTED, 0)
        if spent < now.user_attrs.get(SPENT, 0):  # told of before an interruption
            return True
        self._storage.set_trial_user_attr(trial._trial_id, SPENT, spent)
        left = _left([other for other in self.ours() if other.number != trial.number], self._budget) - spent
        goes_on = not ends and (left >= self._budget.step if self._budget.step else left > 0)
        if now.user_attrs.get(LAST, False) == goes_on:  # differs from what it should be, perhaps by this step itself
            self._storage.set_trial_user_attr(trial._trial_id, LAST, not goes_on)
        return goes_on

    @_one_step
    def give_back(self, worker: str) -> None:
        """Lets this worker's trial wait again, which was interrupted through no fault of its own."""
        for trial in self.ours(TrialState.RUNNING):
            if trial.user_attrs.get(WORKER) == worker:
                self._storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)

    @_one_step
    def pause(
        self,
        trial: optuna.Trial,
        worker: str,
        step: int,
        drop: Callable[[FrozenTrial], None],
        *,
        keeps_state: bool = True,
    ) -> bool:
        """Has the trial wait until it is promoted; False where it was taken from this worker, which seemed dead.

        Where more trials pause than may keep what they would go on from, `drop` removes it, unless another trial of the
        same parameters needs it. With `keeps_state` false the trial has nothing to go on from.
        """
        now = self._storage.get_trial(trial._trial_id)
        if now.user_attrs.get(WORKER) != worker or not (now.state == TrialState.RUNNING or is_paused(now)):
            return False
        self._storage.set_trial_user_attr(now._trial_id, PAUSED, step)
        self._storage.set_trial_user_attr(now._trial_id, PAUSE_TIME, time.time())
        if now.state == TrialState.RUNNING:  # else this step was taken before
            self._storage.set_trial_state_values(now._trial_id, TrialState.WAITING)
        before, pruner, ours = self._dropped, self._study.pruner, self.ours()
        dropped = before if keeps_state or trial.number in before else [*before, trial.number]
        surplus: list[FrozenTrial] = []
        if isinstance(pruner, PausingPruner) and pruner.keep_checkpoints is not None:
            paused = pruner.by_promise(ours, self._study.direction)
            leave = set(dropped)
            surplus = [other for other in paused if other.number not in leave][pruner.keep_checkpoints :]
            leave |= {other.number for other in surplus}
            needed = [other.params for other in ours if not other.state.is_finished() and other.number not in leave]
            surplus = [other for other in surplus if other.params not in needed]
        if (now_dropped := [*dropped, *(other.number for other in surplus)]) != before:
            self._study.set_user_attr(DROPPED, now_dropped)
        for other in surplus:
            drop(other)
        return True

    @_one_step
    def is_first(self, fact: str) -> bool:
        """Whether nobody has asked this of the study before."""
        if self._storage.get_study_user_attrs(self._study_id).get(fact):
            return False
        self._study.set_user_attr(fact, True)
        return True

    @_one_step
    def finish(self, trial: optuna.Trial, worker: str, outcome: Outcome) -> bool:
        """Ends the trial; False, and nothing changes, where it was taken from this worker, which seemed dead."""
        now = self._storage.get_trial(trial._trial_id)
        if now.user_attrs.get(WORKER) != worker or now.state not in (TrialState.RUNNING, outcome.state):
            return False
        if now.state == outcome.state:  # this step was taken before
            return True
        if outcome.reason is not None:
            trial.set_user_attr(REASON, outcome.reason)
            trial.set_user_attr(DETAILS, outcome.details)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for constraint, violation in outcome.violations.items():
                trial.set_constraint(constraint, violation)
            self._study.tell(trial, outcome.values, outcome.state)
        if outcome.state == TrialState.FAIL:
            self._stop_after_failures()
        return True

    # within a step

    @property
    def _dropped(self) -> list[int]:
        return list(self._storage.get_study_user_attrs(self._study_id).get(DROPPED, ()))

    def _stop_after_failures(self) -> None:
        resumed = self._storage.get_study_user_attrs(self._study_id).get(RESUMED, 0)
        ended: list[tuple[float, int, bool]] = []
        for trial in self.ours():
            if trial.datetime_complete:
                ended.append((trial.datetime_complete.timestamp(), trial.number, trial.state == TrialState.FAIL))
            if paused := trial.user_attrs.get(PAUSE_TIME):
                ended.append((paused, trial.number, False))
        last = sorted(event for event in ended if event[0] >= resumed)[-self._settings.max_failures - 1 :]
        if len(last) > self._settings.max_failures and all(has_failed for _, _, has_failed in last):
            self._study.set_user_attr(STOPPED, last[-1][1])


def _left(trials: Sequence[FrozenTrial], budget: Budget) -> float:
    """What these trials leave of the budget."""
    granted = sum(trial.state == TrialState.RUNNING and not trial.user_attrs.get(LAST) for trial in trials)
    spent = sum(float(trial.user_attrs.get(SPENT, 0)) for trial in trials)
    return budget.amount - (spent + budget.step * granted)


def _has_begun(trial: FrozenTrial) -> bool:
    return trial.state != TrialState.WAITING or is_paused(trial)
