"""A worker of a study: takes a ticket, composes its configuration, runs the user's task on it, tells the study."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import optuna
from hydra.core.utils import JobReturn, JobStatus
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig
from optuna.exceptions import ExperimentalWarning
from optuna.trial import TrialState

from cifarsweep import errors, local, progress
from cifarsweep import trial as current_trial
from cifarsweep.search_space import Space
from cifarsweep.study import compose, pruning, settings, storage
from cifarsweep.study.presence import Presence
from cifarsweep.study.settings import Settings
from cifarsweep.study.tickets import Outcome, Tickets

OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory", "not enough memory")


@dataclass(frozen=True)
class Plan:
    """What every worker of a study needs to know; plain enough to be sent to any process."""

    name: str
    address: str
    folder: Path
    space: Space
    settings: Settings
    fixed_of_a_run: tuple[str, ...] = ()
    """The fixed overrides that a single run needs, too: without the name of the sweep and of the search."""
    deadline: float | None = None
    """Seconds since the epoch after which no further trial starts."""


def open_study(plan: Plan) -> tuple[optuna.Study, Tickets]:
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # what matters of its warnings ends as Lost
    warnings.filterwarnings("ignore", category=ExperimentalWarning)
    study = optuna.load_study(study_name=plan.name, storage=storage.open_storage(plan.address))
    study.stop = lambda: None  # type: ignore[method-assign]  # an exhausted space ends by its number of tickets
    study.sampler = settings.make_sampler(plan.settings, plan.space, 0)
    study.pruner = settings.make_pruner(plan.settings)
    tickets = Tickets(
        study,
        plan.folder / ".study",
        max_retries=plan.settings.max_retries,
        max_failures=plan.settings.max_failures,
        grace_period=plan.settings.grace_period,
    )
    return study, tickets


@dataclass(frozen=True)
class Worker:
    """Hydra's task function of a launched job: works until no ticket is left. Returns what stopped it early, or None.

    It never raises for what the storage does, so that one line, not one a worker, tells a person.
    """

    plan: Plan
    task: TaskFunction
    context: HydraContext
    master: DictConfig
    composer: compose.Composer
    """With what was composed to check the start, which the workers need not compose again."""
    sweeper: int = field(default_factory=os.getpid)
    """The process that launches the workers."""

    def __call__(self, cfg: DictConfig) -> str | None:
        if os.getpid() != self.sweeper:
            local.end_with_launcher()
        try:
            with (
                storage.reaching(self.plan.address),
                Presence(self.plan.folder / ".study" / "workers", self.plan.settings.grace_period) as me,
                _exit_on_signals(),
                progress.quiet(),
            ):
                self._work(me.id)
        except storage.Lost as error:
            return str(error)
        return None

    def _work(self, me: str) -> None:
        study, tickets = open_study(self.plan)
        tickets.recover(counted=True)  # of the worker that this one may replace
        while (ticket := self._claim(study, tickets, me)) is not None:
            progress.began()
            trial, values = ticket
            try:
                outcome = self._run(trial, self.composer(values, trial.number))
            except BaseException:
                with contextlib.suppress(storage.Lost), storage.reaching(self.plan.address):
                    tickets.give_back(trial, me)
                raise
            if not tickets.finish(trial, me, outcome):
                progress.line(f"trial {trial.number}: another worker has it, as this one seemed dead; result dropped")

    def _claim(self, study: optuna.Study, tickets: Tickets, me: str) -> tuple[optuna.Trial, dict[str, Any]] | None:
        if self.plan.deadline is not None and time.time() >= self.plan.deadline:
            return None
        # A sampler that visits each point once must see the points that others take while it chooses.
        with tickets.lock if self.plan.settings.enumerates else contextlib.nullcontext():
            trial = tickets.claim(me)
            if trial is None:
                tickets.recover(counted=True)
                trial = tickets.claim(me)
            if trial is None:
                return None
            study.sampler = settings.make_sampler(self.plan.settings, self.plan.space, trial.number)
            try:
                return trial, self.plan.space.suggest(trial)
            except BaseException:
                tickets.give_back(trial, me)
                raise

    def _run(self, trial: optuna.Trial, job: compose.Composed) -> Outcome:
        handle = _Handle(trial, self.plan)
        with current_trial.working_on(handle):
            result = compose.run(job, self.task, self.context)
        return _outcome(result, len(self.plan.settings.objectives))


class _Handle:
    """The trial as the task sees it. A storage that is lost meanwhile does not end the task: the run is worth more."""

    def __init__(self, trial: optuna.Trial, plan: Plan) -> None:
        self._trial, self._plan = trial, plan
        now = trial.study.get_trials(deepcopy=False)[trial.number]
        self._last = max(now.intermediate_values, default=0)
        self._lost = False

    def report(self, step: int, measured: float | Mapping[str, Any]) -> bool:
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
    reason = errors.one_line(returned)
    if isinstance(returned, MemoryError) or any(words in reason.lower() for words in OUT_OF_MEMORY):
        reason = f"out of memory: {reason}"
    return Outcome(TrialState.FAIL, reason=reason, details=details)


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
