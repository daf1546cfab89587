"""A worker of a sweep: claims a trial, composes its configuration, runs the user's task on it, tells the study."""

import contextlib
import json
import math
import numbers
import os
import shutil
import statistics
import time
import traceback
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import optuna
from hydra.core.utils import JobReturn, JobStatus
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, read_write
from optuna.trial import FrozenTrial, TrialState

from cifarsweep import trial as current_trial
from cifarsweep.results import files, locks, sweeps
from cifarsweep.results.study_records import SeedRunRecord
from cifarsweep.sweeper import constraints, jobs, local, pruning, storage, summary
from cifarsweep.sweeper.application import Application
from cifarsweep.sweeper.exclusions import EXCLUDED
from cifarsweep.sweeper.heartbeat import Heartbeat
from cifarsweep.sweeper.promotion import PAUSED, PROMOTED
from cifarsweep.sweeper.queue import (
    DEATHS,
    DETAILS,
    FIRST_START,
    LAST,
    PAUSE_TIME,
    REASON,
    RUNS,
    SPENT,
    STATELESS,
    WARM,
    WASTED,
    WORKER,
    Outcome,
)
from cifarsweep.sweeper.studies import FINALIST, SEED, VALUES, OpenStudy, Studies, StudyPlan
from cifarsweep.terminal import conditions, errors, progress

DIRECTORY = "has_directory"
"""That the trial has a folder of its own."""
RESERVED = {DEATHS, DETAILS, LAST, REASON, SPENT, WARM, WORKER, FINALIST, SEED, VALUES, pruning.STEPS, "enqueued"}
RESERVED |= {DIRECTORY, EXCLUDED, RUNS, PAUSED, PAUSE_TIME, FIRST_START, PROMOTED, WASTED}
"""Names of facts by which the engine itself knows a trial."""
RETRY_SECONDS = 5.0
"""A trial asks a storage that is lost at most so often, as each time may take seconds."""


@dataclass(frozen=True)
class Worker:
    """Hydra's task function of a launched job: works until no trial is left. Returns what stopped it early, or None.

    It does not raise where the storage is lost or the disk is full, so that a person is told in one line, not in one a
    worker.
    """

    whole: StudyPlan
    """The sweep as such: what is fixed, and where it is. Its space is that of all its studies together."""
    plans: tuple[StudyPlan, ...]
    task: TaskFunction
    context: HydraContext
    composer: jobs.Composer
    """It keeps what was composed to check the start, so that the workers need not compose it again."""
    sweeper: int = field(default_factory=os.getpid)
    """The process that launches the workers."""

    def __call__(self, cfg: DictConfig) -> str | None:
        if os.getpid() != self.sweeper:
            local.end_with_launcher()
        try:
            with (
                storage.reaching(self.whole.address, self.whole.settings.storage_timeout),
                Heartbeat(self.whole.folder / ".study" / "workers", self.whole.settings.grace_period) as me,
                progress.quiet(),
            ):
                self._work(me.id)
                if os.environ.get("SUBMITIT_EXECUTOR") == "slurm":  # perhaps no command waits for it, and writes this
                    with locks.Lock(self.whole.folder / ".study" / "summary.lock"):
                        if not sweeps.is_running(self.whole.folder):
                            studies = Studies(self.plans)
                            shares = summary.told_importances(studies) if not studies.num_startable else {}
                            summary.write(self.whole, studies, Application.of(self.task), shares)
        except storage.Lost as error:
            return str(error)
        return None

    def _work(self, me: str) -> None:
        studies = Studies(self.plans)
        studies.recover(counted=True)  # of the worker that this one may replace
        while (claimed := studies.claim(me)) is not None:
            progress.began()
            study, trial = claimed
            name = f"{study.plan.title}trial {trial.number}"
            try:
                handle = self._handle(trial, study)
                has_seeds = study.plan.settings.seeds
                outcome = self._run_seeds(study, trial) if has_seeds else self._run(study, trial, handle)
            except BaseException as error:
                with contextlib.suppress(storage.Lost), storage.reaching(self.whole.address, patience=0):
                    study.queue.give_back(me)
                if not isinstance(error, locks.Lost):
                    raise
                progress.line(f"{name}: {error}; result dropped")
                continue
            is_mine = (
                self._pause(study, trial, me, handle)
                if handle.paused_at is not None and outcome.state == TrialState.PRUNED
                else study.queue.finish(trial, me, outcome)
            )
            if not is_mine:
                progress.line(f"{name}: another worker has it, as this one seemed dead; result dropped")

    def _pause(self, study: OpenStudy, trial: optuna.Trial, me: str, handle: "_Handle") -> bool:
        assert handle.paused_at is not None
        application = Application.of(self.task)

        def drop(other: FrozenTrial) -> None:
            try:
                if DIRECTORY in other.user_attrs:  # else the folder, if there is one, is somebody's
                    shutil.rmtree(directory_of(study.plan, other.number))
                application.drop_state(study.plan.folder, other.user_attrs)
            except (OSError, ValueError) as error:
                progress.line(f"trial {other.number}: its checkpoint stays: {errors.one_line(error)}")

        keeps_state = handle.has_directory or application.keeps_state
        if not keeps_state and study.queue.is_first(STATELESS):
            progress.line(
                f"trial {trial.number} pauses and keeps nothing in trial.directory(): once promoted, such trials start "
                "again from nothing"
            )
        return study.queue.pause(trial, me, handle.paused_at, drop, keeps_state=keeps_state)

    def _handle(self, trial: optuna.Trial, study: OpenStudy, seed: int | None = None) -> "_Handle":
        application = Application.of(self.task)
        return _Handle(trial, study, application.seconds_figure, {} if seed is None else {application.seed_key: seed})

    def _run_seeds(self, study: OpenStudy, trial: optuna.Trial) -> Outcome:
        """The mean over a run with each of the seeds. An interrupted trial goes on with the run that it had come to."""
        seeds, constrained = study.plan.settings.seeds, study.plan.settings.constraints
        ended, state, means = list[SeedRunRecord](), TrialState.COMPLETE, list[float]()
        for seed in seeds:
            handle = self._handle(trial, study, seed)
            run = handle.runs.get(str(seed))
            if run is None or run.values is None:
                if ended and not handle.may_begin():
                    state = TrialState.PRUNED
                    break
                outcome = self._run(study, trial, handle)
                run = handle.keep(str(seed), outcome)
                if outcome.state != TrialState.COMPLETE:
                    return outcome
            ended.append(run)
            means = [statistics.fmean(of_one) for of_one in zip(*(run.values or () for run in ended), strict=True)]
            if handle.is_worse(len(ended), means) and len(ended) < len(seeds):
                state = TrialState.PRUNED
                break
        figures = {c.figure: statistics.fmean(run.figures[c.figure] for run in ended) for c in constrained}
        violations = constraints.violations(constrained, figures)
        return Outcome(state, means if state == TrialState.COMPLETE else None, violations=violations)

    def _run(self, study: OpenStudy, trial: optuna.Trial, handle: "_Handle") -> Outcome:
        config = self.composer(study.overrides(trial, handle.instead), trial.number)
        subdir = OmegaConf.to_container(config.hydra.sweep)["subdir"]  # type: ignore[call-overload,index]
        if subdir != ".":  # jobs have folders of their own, whose name may depend on what only a job has
            with read_write(config.hydra):
                parts = (study.plan.subfolder, subdir, handle.subfolder)
                config.hydra.sweep.subdir = "/".join(part for part in parts if part)
        with current_trial.working_on(handle):
            outcome = _outcome(jobs.run(config, self.task, self.context, is_trial=True), handle.objectives)
            outcome = handle.judged(outcome)
        handle.tell_rest()
        # A run that was trained before is complete, however little of it the budget or the pruner left.
        is_cut = handle.is_cut and outcome.state == TrialState.COMPLETE
        return replace(outcome, state=TrialState.PRUNED, values=None) if is_cut else outcome


class _Handle:
    """The trial as the task sees it. Where the storage is lost, the task goes on, and what it told is stored later."""

    def __init__(
        self, trial: optuna.Trial, study: OpenStudy, seconds_figure: str | None, instead: Mapping[str, Any]
    ) -> None:
        """`instead` are values by key that set this run apart from the trial's others, where it has several."""
        self.instead, self.subfolder = instead, "".join(f"{key}={value}" for key, value in instead.items())
        self.runs = {seed: SeedRunRecord.of(run) for seed, run in trial.user_attrs.get(RUNS, {}).items()}
        """What the trial's runs have come to, by seed."""
        self._spent, self._spent_before = 0.0, sum(run.spent for run in self.runs.values() if run.values is not None)
        """Of the budget, by this run and by those before it."""
        self._run: str | None = None
        """The name that the task has recorded of this run."""
        self._trial, self._plan, self._queue = trial, study.plan, study.queue
        self.objectives = study.plan.settings.objectives
        self.is_cut = False
        """Whether the study's budget, or with a budget its pruner, has ended the trial. Nothing more of it counts."""
        self.paused_at: int | None = None
        """The step after which the trial was told to pause."""
        self._constraints = study.plan.settings.constraints
        self._figures: dict[str, Any] = dict(trial.user_attrs)
        """The last ones by name, and facts. Those of an earlier process may not be told again."""
        self._may_pause = study.plan.settings.pauses
        self.has_directory = DIRECTORY in trial.user_attrs
        self._last_step = -1
        self._untold: deque[Callable[[], Any]] = deque()
        self._next_try = 0.0
        self._seconds_figure = seconds_figure
        spent = trial.user_attrs.get(SPENT, 0.0) - trial.user_attrs.get(WASTED, 0.0)  # when it was claimed
        self._started = time.monotonic() - max(0.0, spent - self._spent_before)

    def report(self, step: int, measured: float | Mapping[str, Any]) -> bool:
        figures = self._checked(step, measured)
        self._figures |= figures
        if self.is_cut or self._plan.is_final:
            return self.is_cut
        return bool(self._tell(lambda: self._report(int(step), figures)))

    @property
    def pauses(self) -> bool:
        return self.paused_at is not None

    def record(self, **facts: Any) -> None:
        """Raises Pruned where a fact breaks a constraint: facts do not change, as figures of a step do."""
        for key, value in facts.items():
            if key in RESERVED:
                raise ValueError(f"trial.record({key}=…): the search keeps facts of its own under this name")
            try:
                json.dumps(value)
            except (TypeError, ValueError, RecursionError) as error:
                raise ValueError(f"trial.record({key}=…): expected what JSON can hold, here {_kind(value)}") from error
        for key, value in facts.items():
            self._tell(partial(self._trial.set_user_attr, key, value))
        self._figures |= facts
        self._run = facts.get("run", self._run)
        if any(violation > 0 for violation in constraints.violations(self._constraints, facts).values()):
            raise current_trial.Pruned

    def judged(self, outcome: Outcome) -> Outcome:
        """With the constraints that the trial breaks. A complete one fails where their figures are not known."""
        if outcome.state == TrialState.FAIL:
            return outcome
        if outcome.state == TrialState.COMPLETE:
            self._figures |= zip(self.objectives, outcome.values or (), strict=True)
        violations = constraints.violations(self._constraints, self._figures)
        for constraint in self._constraints if outcome.state == TrialState.COMPLETE else ():
            if str(constraint) not in violations:
                told = "expected it as a number in trial.report or trial.record"
                reason = f"hydra.sweeper.constraints={constraint}: the trial has no {constraint.figure}, {told}"
                return Outcome(TrialState.FAIL, reason=reason)
        return replace(outcome, violations=violations)

    def directory(self) -> Path:
        folder = directory_of(self._plan, self._trial.number)
        if not self.has_directory:
            files.make_folder(folder.parent, below=self._plan.folder)
            if os.path.lexists(folder):  # its journal was deleted, or damaged: this trial has other values
                aside = files.set_aside(folder)
                progress.line(f"{folder}: of a trial that the storage does not have; kept as {aside.name}")
            self._tell(partial(self._trial.set_user_attr, DIRECTORY, True))
            self.has_directory = True
        return files.make_folder(folder / self.subfolder, below=self._plan.folder)

    def may_begin(self) -> bool:
        """Whether the budget has a step for the trial's next run."""
        if self._plan.settings.budget is None:
            return True
        self._untold.append(lambda: self._queue.spend(self._trial, self._spent_before, False))
        return bool(self.tell_rest())

    def keep(self, seed: str, outcome: Outcome) -> SeedRunRecord:
        """Stores what this run of several has come to."""
        of_constraints = {c.figure: self._figures.get(c.figure) for c in self._constraints}
        run = SeedRunRecord(
            run=self._run,
            values=None if outcome.values is None else [*outcome.values],
            figures={name: float(value) for name, value in of_constraints.items() if conditions.is_number(value)},
            steps=max(self._last_step, 0),
            spent=self._spent,
        )
        runs = {key: kept.as_dict() for key, kept in {**self.runs, seed: run}.items()}
        self._untold.append(partial(self._trial.set_user_attr, RUNS, runs))
        self.tell_rest()
        return run

    def is_worse(self, num_runs: int, means: Sequence[float]) -> bool:
        """Stores the means over so many runs; whether the pruner ends the trial. It compares one objective."""
        if len(means) > 1:
            return False
        self._untold.append(lambda: self._queue.report(self._trial, num_runs, means[0]))
        return bool(self.tell_rest())

    def _checked(self, step: Any, measured: Any) -> dict[str, Any]:
        """The figures by name; ValueError where the task reports what cannot be a figure of a step."""
        call = f"trial.report({step!r}, …)"
        if not isinstance(step, numbers.Integral) or step is True or step is False or not 0 <= int(step) < 2**31:
            raise ValueError(f"{call}: expected a whole number from 0 to {2**31 - 1} as the step")
        if step <= self._last_step:
            raise ValueError(f"{call}: expected a step after {self._last_step}, which was reported before")
        self._last_step = int(step)
        names = self.objectives
        if not isinstance(measured, Mapping):
            if len(names) > 1:
                raise ValueError(f"{call}: expected a mapping with some of {', '.join(names)}, here {_kind(measured)}")
            measured = {names[0]: measured}
        if not self._plan.is_final and not any(name in measured for name in names):  # a final run is judged at its end
            raise ValueError(f"{call}: expected {' or '.join(names)} among the figures, here {', '.join(measured)}")
        figures = dict(measured)
        for name in names:
            if measured.get(name) is not None:
                figures[name] = _number(measured[name])
                if figures[name] is None:
                    raise ValueError(f"{call}: expected a number as {name}, here {_kind(measured[name])}")
        return figures

    def _tell(self, call: Callable[[], Any]) -> Any:
        """What the storage answers; None where it is lost. Only a budget is waited for, whose next step it grants."""
        self._untold.append(call)
        waits = self._plan.settings.budget is not None
        if waits or time.monotonic() >= self._next_try:
            try:
                return self.tell_rest(patience=None if waits else 0)
            except storage.Lost:
                self._next_try = time.monotonic() + RETRY_SECONDS
        return None

    def tell_rest(self, patience: float | None = None) -> Any:
        """Stores what was told meanwhile; what the storage answers to the last of it."""
        answer = None
        while self._untold:
            call = self._untold.popleft()
            try:
                with storage.reaching(self._plan.address, patience):
                    answer = self._queue.take(call, alone=False)
            except storage.Lost:
                self._untold.appendleft(call)
                raise
        return answer

    def _report(self, step: int, figures: Mapping[str, Any]) -> bool:
        settings = self._plan.settings
        value = figures.get(settings.objectives[0])
        if self.instead:  # the pruner compares whole runs
            pruned = False
        elif len(settings.objectives) > 1:
            pruned = pruning.report(self._trial, step, figures, settings.objectives, settings.directions)
        elif value is None or not math.isfinite(value):
            pruned = False
        else:
            pruned = self._queue.report(self._trial, step, value)
            if pruned and self._may_pause:
                self.paused_at = step
        if settings.budget is None:
            return pruned
        if settings.budget.step:
            spent: float = step
        elif self._seconds_figure is not None:
            spent = float(figures.get(self._seconds_figure, 0.0))
        else:
            spent = time.monotonic() - self._started
        self._spent = spent
        is_last = settings.max_steps is not None and step >= settings.max_steps
        goes_on = self._queue.spend(self._trial, self._spent_before + spent, pruned or is_last)
        self.is_cut = not is_last and not goes_on
        if self.is_cut and self._may_pause:  # a larger budget goes on with it
            self.paused_at = step
        return pruned or self.is_cut


def directory_of(plan: StudyPlan, number: int) -> Path:
    """Where a trial keeps its files."""
    return plan.folder / "trials" / plan.subfolder / str(number)


def _number(value: Any) -> float | None:
    """None where it is no number, or too large for one."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return None
    try:
        return float(value)
    except OverflowError:
        return None


def _kind(value: Any) -> str:
    """What the value is, for a person: str 'abc'."""
    if value is None:
        return "None"
    try:
        text = " ".join(repr(value).split())
    except Exception:  # a class of the task's own; of Python's, whole numbers of more than 4300 digits
        return type(value).__name__
    return f"{type(value).__name__} {text[:60]}{'…' * (len(text) > 60)}"


def _outcome(result: JobReturn, objectives: tuple[str, ...]) -> Outcome:
    """How the trial ended. Raises the error that is the machine's fault: the trial is not to blame, and waits again."""
    returned = result._return_value
    if result.status != JobStatus.FAILED:
        values = list(returned) if isinstance(returned, list | tuple) else [returned]
        finite = [number for number in map(_number, values) if number is not None and math.isfinite(number)]
        if len(finite) == len(values) == len(objectives):
            return Outcome(TrialState.COMPLETE, finite)
        expected = "a finite number" if len(objectives) == 1 else f"a list of {len(objectives)} finite numbers"
        reason = f"the task returned {_kind(returned)}, expected {expected} for {', '.join(objectives)}"
        return Outcome(TrialState.FAIL, reason=reason)
    if isinstance(returned, current_trial.Pruned | optuna.TrialPruned):
        return Outcome(TrialState.PRUNED)
    if fault := returned if isinstance(returned, locks.Lost) else errors.machines_fault(returned):
        raise fault
    details = "".join(traceback.format_exception(returned))
    return Outcome(TrialState.FAIL, reason=errors.one_line(returned), details=details)
