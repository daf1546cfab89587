"""A worker of a sweep: takes a ticket, composes its configuration, runs the user's task on it, tells the study."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import optuna
from hydra.core.utils import JobReturn, JobStatus
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig
from optuna.trial import TrialState

from cifarsweep import trial as current_trial
from cifarsweep.sweeper import composition, jobs, local, pruning, storage
from cifarsweep.sweeper.heartbeat import Presence
from cifarsweep.sweeper.queue import Outcome
from cifarsweep.sweeper.studies import Desk, Desks, Plan
from cifarsweep.terminal import errors, progress


@dataclass(frozen=True)
class Worker:
    """Hydra's task function of a launched job: works until no ticket is left. Returns what stopped it early, or None.

    It never raises for what the storage does, so that one line, not one a worker, tells a person.
    """

    whole: Plan
    """The sweep as such: what is fixed, and where it is. Its space is that of all its studies."""
    plans: tuple[Plan, ...]
    task: TaskFunction
    context: HydraContext
    master: DictConfig
    composer: composition.Composer
    """With what was composed to check the start, which the workers need not compose again."""
    sweeper: int = field(default_factory=os.getpid)
    """The process that launches the workers."""

    def __call__(self, cfg: DictConfig) -> str | None:
        if os.getpid() != self.sweeper:
            local.end_with_launcher()
        try:
            with (
                storage.reaching(self.whole.address),
                Presence(self.whole.folder / ".study" / "workers", self.whole.settings.grace_period) as me,
                _exit_on_signals(),
                progress.quiet(),
            ):
                self._work(me.id)
        except storage.Lost as error:
            return str(error)
        return None

    def _work(self, me: str) -> None:
        desks = Desks(self.plans)
        desks.recover(counted=True)  # of the worker that this one may replace
        while (claimed := desks.claim(me)) is not None:
            progress.began()
            desk, trial = claimed
            try:
                outcome = self._run(desk, trial)
            except BaseException:
                with contextlib.suppress(storage.Lost), storage.reaching(self.whole.address):
                    desk.tickets.give_back(trial, me)
                raise
            if not desk.tickets.finish(trial, me, outcome):
                progress.line(
                    f"{desk.plan.title}trial {trial.number}: another worker has it, as this one seemed dead; "
                    "result dropped"
                )

    def _run(self, desk: Desk, trial: optuna.Trial) -> Outcome:
        handle = _Handle(trial, desk)
        job = self.composer.of(desk.plan.space)(desk.values(trial), trial.number, desk.instead(trial))
        with current_trial.working_on(handle):
            result = jobs.run(job.task, job.hydra, self.task, self.context)
        outcome = _outcome(result, len(desk.plan.settings.objectives))
        # A run that was trained before is complete, however little of it the budget or the pruner left.
        return Outcome(TrialState.PRUNED) if handle.is_cut and outcome.state == TrialState.COMPLETE else outcome


class _Handle:
    """The trial as the task sees it. A storage that is lost meanwhile does not end the task: the run is worth more."""

    def __init__(self, trial: optuna.Trial, desk: Desk) -> None:
        self._trial, self._plan, self._tickets = trial, desk.plan, desk.tickets
        self.objectives = desk.plan.settings.objectives
        self.is_cut = False
        """Whether the study's budget, or with a budget its pruner, ended the trial: nothing more counts of it."""
        now = trial.study.get_trials(deepcopy=False)[trial.number]
        self._last = max(now.intermediate_values, default=0)
        self._lost = False

    def report(self, step: int, measured: float | Mapping[str, Any]) -> bool:
        if self.is_cut or self._plan.is_final:
            return self.is_cut
        return bool(self._kept(lambda: self._report(step, measured)))

    def record(self, **facts: Any) -> None:
        for key, value in facts.items():
            self._kept(partial(self._trial.set_user_attr, key, value))

    def _kept(self, call: Callable[[], Any]) -> Any:
        try:
            with storage.reaching(self._plan.address):
                return call()
        except storage.Lost as error:
            if not self._lost:
                progress.line(f"{error}; trial {self._trial.number} goes on without pruning")
            self._lost = True
            return None

    def _report(self, step: int, measured: float | Mapping[str, Any]) -> bool:
        pruned = self._pruned(step, measured)
        is_last = step >= self._plan.settings.max_epochs
        goes_on = self._tickets.spend(self._trial, self._spent(step, measured), pruned or is_last)
        self.is_cut = not is_last and not goes_on
        return pruned or self.is_cut

    def _spent(self, step: int, measured: float | Mapping[str, Any]) -> float:
        budget = self._plan.settings.budget
        if budget is None or budget.kind == "epochs":
            return step
        return float(measured.get("train_seconds", 0.0)) if isinstance(measured, Mapping) else 0.0

    def _pruned(self, step: int, measured: float | Mapping[str, Any]) -> bool:
        names = self._plan.settings.objectives
        figures = measured if isinstance(measured, Mapping) else {names[0]: measured}
        if len(names) > 1:
            return pruning.report(self._trial, step, figures, self._plan.settings)
        value = figures.get(names[0])
        if value is None or not math.isfinite(value):
            return False
        if step > self._last:  # a trial that was interrupted has reported its first steps before
            self._trial.report(value, step)
            self._last = step
        return self._trial.should_prune()


def _outcome(result: JobReturn, num_values: int) -> Outcome:
    returned = result._return_value
    if result.status != JobStatus.FAILED:
        values = list(returned) if isinstance(returned, list | tuple) else [returned]
        numbers = [value for value in values if isinstance(value, int | float) and math.isfinite(value)]
        if len(numbers) == len(values) == num_values:
            return Outcome(TrialState.COMPLETE, [float(number) for number in numbers])
        return Outcome(TrialState.FAIL, reason=f"the task returned {returned}, expected {num_values} finite number(s)")
    if isinstance(returned, current_trial.Pruned | optuna.TrialPruned):
        return Outcome(TrialState.PRUNED)
    details = "".join(traceback.format_exception(returned))
    return Outcome(TrialState.FAIL, reason=errors.one_line(returned), details=details)


@contextlib.contextmanager
def _exit_on_signals() -> Iterator[None]:
    """By an exception, so that the ticket is given back, where a cluster is about to take the machine away.

    That is SIGTERM, and SIGUSR2 under submitit, whose handler asks for a new turn and then raises an Exception, which
    the task would take for its own. Only a main thread can do it, which a worker under most launchers has.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def terminate(number: int, frame: Any) -> None:
        raise SystemExit(128 + number)

    def requeue(number: int, frame: Any) -> None:
        try:
            submitits(number, frame)
        finally:
            raise SystemExit(128 + number)

    handlers: dict[signal.Signals, Callable[[int, Any], None]] = {signal.SIGTERM: terminate}
    submitits: Any = signal.getsignal(signal.SIGUSR2) if "SUBMITIT_EXECUTOR" in os.environ else None
    if callable(submitits):
        handlers[signal.SIGUSR2] = requeue
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
