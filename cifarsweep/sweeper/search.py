"""The Optuna sweeper: launches workers that share studies. Knows Hydra's jobs and trials, not what a task does.

`sweep` checks everything that can be checked, makes or resumes the studies, launches workers until no trial is left,
and says what they have found. worker.py does the work: it claims trials from studies.py, which says which study is
next, and that from queue.py, which says whose a trial is.
"""

import contextlib
import copy
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import optuna
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException
from optuna.distributions import distribution_to_json, json_to_distribution
from optuna.trial import TrialState

from cifarsweep.results import files, sweeps
from cifarsweep.results.study_records import StudiesRecord, StudyRecord
from cifarsweep.sweeper import (
    cluster,
    estimate,
    exclusions,
    hydra_compat,
    journal,
    local,
    settings,
    storage,
    summary,
    warm_start,
)
from cifarsweep.sweeper.application import Application
from cifarsweep.sweeper.jobs import Composer
from cifarsweep.sweeper.monitor import Monitor
from cifarsweep.sweeper.overrides import as_written, taken_names
from cifarsweep.sweeper.promotion import PAUSED
from cifarsweep.sweeper.pruning import STEPS
from cifarsweep.sweeper.queue import DEATHS, SPENT
from cifarsweep.sweeper.settings import Settings
from cifarsweep.sweeper.space import Space, parse
from cifarsweep.sweeper.studies import FINALIST, SEED, VALUES, FinalRuns, Studies, StudyPlan, name_of_finals
from cifarsweep.sweeper.worker import Worker
from cifarsweep.terminal import domains, errors, progress

POLL_SECONDS = 0.5
NOTE = "dashboard:note"
WAIT_FOR_WORKERS_SECONDS = 10.0
"""For jobs of Slurm to end once no trial is left. Those that still wait for a node would hold the command up."""
MOST_CHOICES_CHECKED = 20
"""How many are composed and checked before the start, at 70 ms each. A mistake in a later choice fails its trial."""
MOST_COUNTED = 100_000
"""Of a space with more combinations nobody counts those that are excluded."""


@dataclass(frozen=True)
class _Setting:
    """What a search is set up from: what Hydra hands to a sweeper, and the application that the task belongs to."""

    context: HydraContext
    config: DictConfig
    application: Application
    compose: Composer
    base: DictConfig
    """The configuration with the values that are not searched."""


def sweep(
    arguments: list[str], *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
) -> float | list[list[float]] | None:
    """Runs the search, or goes on with it; the best value, or the Pareto set's values.

    ValueError says in one line what is wrong, before any trial starts, or why a study stopped.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    loader, application = hydra_context.config_loader, Application.of(task_function)
    params = OmegaConf.select(config, "hydra.sweeper.params")
    if not isinstance(params, DictConfig):
        raise ValueError(f"hydra.sweeper.params={domains.as_typed(params)}: expected a space for each key, or {{}}")
    space = parse(OmegaConf.to_container(params), arguments, loader, taken_names(loader, config))  # type: ignore[arg-type]
    folder = Path(config.hydra.sweep.dir).absolute()
    if not space.parameters:
        raise ValueError("nothing to search: give a key a space, as in lr=interval(0.01,1)")
    compose = Composer(loader, config, folder)
    base = compose(space.fixed)
    checked = settings.read(base.hydra.sweeper, application, base)
    if checked.exclude:
        space = not_excluded(space, checked.exclude)
    if checked.seeds and application.seed_key in space.keys:
        seeds = domains.as_typed([*checked.seeds])
        raise ValueError(f"hydra.sweeper.seeds={seeds}: expected [], as {application.seed_key} is searched")
    checked = replace(checked, enqueue=tuple(_enqueued(config, checked, space)))
    application.check_search(base, checked, space)
    setting = _Setting(hydra_context, config, application, compose, base)
    whole = StudyPlan(
        name=folder.name,
        address=storage.address_of(checked.storage, folder),
        folder=folder,
        space=space,
        settings=checked,
        fixed_of_a_run=_fixed_of_a_run(setting, space),
        deadline=None if checked.timeout is None else time.time() + checked.timeout,
        finals=_final_runs(setting, space, checked),
    )
    Plugins.instance().instantiate_launcher(hydra_context, task_function, config)  # it checks its own keys
    _check_before_start(setting, whole)
    try:
        plans = tuple(whole.divided())
    except ValueError as error:
        raise ValueError(f"hydra.sweeper.study_per: {error}") from error
    if not all(plan.space.parameters for plan in plans):
        keys = ", ".join(checked.study_per)
        raise ValueError(f"hydra.sweeper.study_per=[{keys}]: expected further keys that are searched, here none")
    cluster.check_detach(checked.detach, config.hydra)
    num_workers = _num_workers(checked, config.hydra.launcher)
    if checked.study_per or checked.finalists or checked.dry_run:  # a person wants to see the cost first
        estimate.show(plans, compose, application, num_workers, len(local.cores()))
    if checked.dry_run:
        return None
    application.start_sweep(config)
    return _run(setting, whole, plans, Worker(whole, plans, task_function, hydra_context, compose), num_workers)


def _run(
    setting: _Setting, whole: StudyPlan, plans: Sequence[StudyPlan], worker: Worker, num_workers: int
) -> float | list[list[float]] | None:
    """Runs the studies as their owner, or joins those that another command runs."""
    folder, application, lock = whole.folder, setting.application, sweeps.own_sweep(whole.folder)
    if lock is None and not whole.settings.join:
        joins = "hydra.sweeper.join=true adds workers to it"
        raise ValueError(f"{application.name_key}={whole.name}: another process runs this study; {joins}")
    with contextlib.ExitStack() as stack:
        if lock is not None:
            stack.callback(lock.release)
        stack.enter_context(storage.reaching(whole.address))
        if lock is not None and "://" not in whole.address and (damage := journal.mend(Path(whole.address), folder)):
            progress.line(damage)
        _create(setting, whole, plans)
        studies = Studies(plans)
        if lock is not None:
            _keep_records(whole)
            _fill(setting, studies)
        comes_back = lock is not None and cluster.is_slurm(setting.config.hydra.launcher)
        jobs = cluster.Jobs.of_earlier_commands(folder) if comes_back else cluster.Jobs(folder, {})
        start = partial(_start_missing, setting, studies, worker, num_workers, jobs)
        if whole.settings.detach and not jobs.live and start() is not None:
            progress.line(jobs.left)
            return None
        began = time.monotonic()
        with storage.reaching(whole.address, whole.settings.storage_timeout):
            with Monitor(whole, studies, application):
                _work(studies, jobs, start)
            return summary.conclude(whole, studies, time.monotonic() - began, application)


def _final_runs(setting: _Setting, space: Space, checked: Settings) -> FinalRuns | None:
    """Their seeds follow the highest one that the search can use."""
    if not checked.finalists:
        return None
    application = setting.application
    searched = [seed for p in space.parameters if (key := application.seed_key) in p.keys for seed in p.values_for(key)]
    first = 1 + max(
        int(seed) for seed in searched or checked.seeds or [OmegaConf.select(setting.base, application.seed_key)]
    )
    return FinalRuns(
        seed_key=application.seed_key,
        seeds=tuple(range(first, first + checked.repeats)),
        values=application.final_on[checked.final_on],
        objective=application.final_objective or checked.objectives[0],
        direction="maximize" if application.final_objective else checked.directions[0],
    )


def _fixed_of_a_run(setting: _Setting, space: Space) -> tuple[str, ...]:
    """The fixed overrides of a single run. What those of the application's sweep_keys change is given by value."""
    application, loader = setting.application, setting.context.config_loader
    kept = [text for text in space.fixed if text.partition("=")[0].lstrip("+~") not in application.sweep_keys]
    if len(kept) == len(space.fixed):
        return space.fixed
    choices = setting.base.hydra.runtime.choices
    alone = hydra_compat.load_single_run(loader, setting.config, kept)
    for group, option in choices.items():
        of_a_run = not group.startswith("hydra/") and group not in application.sweep_keys
        if of_a_run and alone.hydra.runtime.choices.get(group) != option:
            kept.insert(0, f"{group}={option}")
    wanted = dict(domains.flat(application.determines(setting.base)))
    alone = hydra_compat.load_single_run(loader, setting.config, kept)
    now = dict(domains.flat(application.determines(alone)))
    changed = [
        f"{'' if key in now else '+'}{key}={as_written(wanted[key])}" for key in wanted if now.get(key) != wanted[key]
    ]
    return (*kept, *changed, *(f"~{key}" for key in sorted(now.keys() - wanted)))


# before the start


def not_excluded(space: Space, given: str | Sequence[str]) -> Space:
    """The space without what hydra.sweeper.exclude leaves out. Says how much that is, where it can be counted."""
    space = space.excluding(given)
    combinations = None if space.combinations is None else [*islice(space.combinations, MOST_COUNTED + 1)]
    if combinations is not None and len(combinations) <= MOST_COUNTED:
        progress.line(exclusions.told(sum(map(space.excludes, combinations)), len(combinations), "combination"))
    elif any(not condition.comparisons for condition in space.excluded):
        raise ValueError("hydra.sweeper.exclude: leaves out every trial, expected some to be left")
    return space


def _enqueued(config: DictConfig, checked: Settings, space: Space) -> Iterator[dict[str, Any]]:
    """The trials to begin with. A file's are for its own space, which the command line may have changed since."""
    words = OmegaConf.to_container(config.hydra.overrides)["hydra"]  # type: ignore[call-overload,index]
    are_asked_for = any(word.startswith("hydra.sweeper.enqueue") for word in words)
    if checked.enumerates and not are_asked_for:
        return
    for trial in checked.enqueue:
        try:
            space.place(trial)
        except ValueError as error:
            if are_asked_for:
                raise ValueError(f"hydra.sweeper.enqueue: {error}; hydra.sweeper.enqueue=[] leaves it out") from error
            progress.line(f"hydra.sweeper.enqueue leaves out a trial: {error}")
        else:
            yield trial


def _check_before_start(setting: _Setting, plan: StudyPlan) -> None:
    """ValueError where the sampler, the pruner, an option or a value of the space cannot be used."""
    settings.try_out(plan.settings, plan.space)
    if plan.settings.enumerates and (plan.settings.enqueue or plan.settings.warm_start):
        raise ValueError(
            "hydra.sweeper.enqueue and hydra.sweeper.warm_start: not with a sampler that visits each point"
        )
    # A few trials, which hold each choice, and with it the lowest and the highest numbers.
    most = min(MOST_CHOICES_CHECKED, max(len(parameter.extremes) for parameter in plan.space.parameters))

    def values_of(i: int) -> dict[str, Any]:
        return plan.space.filled(lambda p: p.extremes[(i if p.texts or p.rows else i // most) % len(p.extremes)])

    for values in (values for values in map(values_of, range(2 * most)) if not plan.space.excludes(values)):
        try:
            config = setting.compose(plan.space.overrides(values))
        except (HydraException, OmegaConfBaseException) as error:
            known_keys = partial(OmegaConf.select, setting.base)
            raise ValueError(errors.one_line(error, known_keys)) from error
        setting.application.check(config, is_trial=True)


# the study


def _create(setting: _Setting, whole: StudyPlan, plans: Sequence[StudyPlan]) -> None:
    """Makes the studies, or compares them with those of these names. ValueError names what differs."""
    store = storage.open_storage(whole.address)
    make = partial(optuna.create_study, storage=store, load_if_exists=True)
    determines = domains.flat(setting.application.determines(setting.base))
    # What is searched is none of it: neither values of its keys nor what options of its groups bring.
    searched = tuple(key.rpartition("@")[2].lstrip("+~").replace("/", ".") + "." for key in whole.space.keys)
    fixed = {key: value for key, value in determines if not f"{key}.".startswith(searched)}
    for plan in plans:
        now = {
            "objectives": list(plan.settings.objectives),
            "directions": list(plan.settings.directions),
            "fixed": fixed,
            "budget": plan.settings.budget.kind if plan.settings.budget else "trials",
            "seeds": list(plan.settings.seeds),
        }
        study = make(study_name=plan.name, directions=plan.settings.directions)
        before = study.user_attrs
        new = f"another {setting.application.name_key}= begins a new one"
        if plan.settings.storage is not None:
            now["folder"], owner = str(plan.folder), before.get("folder")  # which may have been moved
            # Two sweeps in one study would not see each other's workers.
            if isinstance(owner, str) and Path(owner).is_dir() and Path(owner).resolve() != plan.folder.resolve():
                raise ValueError(f"the study {plan.name} in this storage belongs to the sweep in {owner}; {new}")
        directions = [direction.name.lower() for direction in study.directions]
        try:
            if "space" in before:
                _compare(plan, study, before, now, new)
            elif study.trials or directions != now["directions"]:
                raise KeyError("space")
        except (LookupError, TypeError, AttributeError) as error:
            raise ValueError(f"the study {plan.name} in this storage was made by another program; {new}") from error
        now["space"] = {p.name: distribution_to_json(p.distribution) for p in plan.space.parameters}
        for key, value in now.items():
            if before.get(key) != value:
                study.set_user_attr(key, value)
        _keep_note(study, plan.folder, setting.application.note(setting.base))
        if plan.finals:
            make(study_name=plan.final().name, directions=plan.final().settings.directions)


def _keep_note(study: optuna.Study, folder: Path, of_application: str) -> None:
    """A note on the study, under the names that optuna-dashboard has for it (0.21). One that is there stays.

    Trials have none: every step of a worker reads what the study knows, and their notes would be kept there.
    """
    if f"{NOTE}_ver" in study._storage.get_study_system_attrs(study._study_id):
        return
    note = (
        f"The search in `{folder.absolute()}`. {of_application}A trial that is paused is shown as waiting; its user "
        f"attribute `{PAUSED}` is the step that it has reached."
    )
    for key, value in ((f"{NOTE}_str:0", note), (f"{NOTE}_ver", 1)):
        study._storage.set_study_system_attr(study._study_id, key, value)


def _keep_records(whole: StudyPlan) -> None:
    """Sets study.json and studies.json aside, with a line, where the storage lacks results that one of them has.

    Somebody may have deleted the journal.
    """
    store = storage.open_storage(whole.address)
    ids = {study.study_name: study._study_id for study in store.get_all_studies()}
    for kind in (StudyRecord, StudiesRecord):
        try:
            recorded = _ended(whole, kind.read(whole.folder))
        except (ValueError, OSError):  # it will be written anew
            continue
        stored: set[tuple[Any, ...]] = set()
        for name in {name for name, *_ in recorded} & ids.keys():
            for trial in store.get_all_trials(ids[name], deepcopy=False):
                if trial.state.is_finished():
                    stored.add((name, trial.number, repr(trial.values)))
                    stored.add((name, trial.user_attrs.get(FINALIST), trial.user_attrs.get(SEED)))
        if lost := len(recorded - stored):
            aside = files.set_aside(whole.folder / kind.file)
            progress.line(f"{whole.address}: lacks {lost} trials of {kind.file}, which is kept as {aside.name}")


def _ended(whole: StudyPlan, record: StudyRecord | StudiesRecord | None) -> set[tuple[Any, ...]]:
    """The trials of a record that have ended: study, number and values, or of a final run study, finalist and seed."""
    ended: set[tuple[Any, ...]] = set()
    for search in record.searches if record else ():
        name = search.name if isinstance(search, StudyRecord) else whole.name_of(search.values)
        ended |= {
            (name, t.number, repr(t.values)) for t in search.trials if t.state in ("complete", "infeasible", "pruned")
        }
    if isinstance(record, StudiesRecord):
        for study in record.studies:
            finals = name_of_finals(whole.name_of(study.values), record.final_on)
            ended |= {(finals, run.finalist, run.seed) for run in study.final_runs if run.state == "complete"}
    return ended


def _compare(plan: StudyPlan, study: optuna.Study, before: Mapping[str, Any], now: Mapping[str, Any], new: str) -> None:
    """ValueError names what differs. What was spent in one unit does not count in another, and is not given back."""
    cannot_go_on = f"the study {plan.name} cannot go on with it; {new}"
    for key, attribute in (("objectives", "objectives"), ("direction", "directions")):
        if before[attribute] != now[attribute]:
            change = f"was {', '.join(before[attribute])}, is {', '.join(now[attribute])}"
            raise ValueError(f"hydra.sweeper.{key}: {change}; {cannot_go_on}")
    try:
        plan.space.check_same({name: json_to_distribution(text) for name, text in before["space"].items()})
    except ValueError as error:
        raise ValueError(f"{error}; {cannot_go_on}") from error
    for key in sorted({*before["fixed"], *now["fixed"]}):
        value_before, value = before["fixed"].get(key), now["fixed"].get(key)
        if value_before != value:
            raise ValueError(f"{key}: was {value_before}, is {value}; {cannot_go_on}")
    if (seeds := before.get("seeds", [])) != now["seeds"]:
        change = f"was {domains.as_typed(seeds)}, is {domains.as_typed(now['seeds'])}"
        raise ValueError(f"hydra.sweeper.seeds: {change}; {cannot_go_on}")
    unit = before.get("budget", now["budget"])
    if unit != now["budget"]:
        raise ValueError(f"hydra.sweeper.budget: was counted in {unit}, is in {now['budget']}; {new}")
    budget = plan.settings.budget
    spent = sum(trial.user_attrs.get(SPENT, 0) for trial in study.get_trials(deepcopy=False))
    if budget and spent > budget.amount:
        raise ValueError(f"hydra.sweeper.budget={budget}: expected {spent:g} or more, which {plan.name} has spent")


def _fill(setting: _Setting, studies: Studies) -> None:
    """Fills the queues before the workers start: with the trials of dead workers, the user's own, and the rest."""
    for study in studies.all:
        study.queue.resume()
        study.queue.recover(counted=False)
    for final in studies.finals:
        failed = [trial.user_attrs for trial in final.latest if trial.state == TrialState.FAIL]
        final.queue.add(({key: facts[key] for key in (FINALIST, SEED, VALUES)} for facts in failed), retry=True)
    for search in studies.searches:
        plan = search.plan
        if plan.settings.warm_start:
            warm_start.add_runs(plan, search.study, setting.compose, setting.application)
        for given in plan.settings.enqueue:
            if all(given.get(key, value) == value for key, value in plan.per.items()):
                placed = plan.space.place({key: value for key, value in given.items() if key not in plan.per})
                search.study.enqueue_trial(placed, user_attrs={"enqueued": True}, skip_if_exists=True)
        if plan.settings.budget is None:
            n_trials = plan.settings.n_trials
            if plan.settings.enumerates:
                n_trials = plan.space.size(n_trials) or n_trials
            search.queue.top_up(n_trials)


# the workers


def _num_workers(checked: Settings, launcher: DictConfig) -> int:
    """As many as were asked for, or may run at once. A worker too many finds no trial and ends."""
    if checked.n_workers is not None:
        return checked.n_workers
    if str(launcher._target_).endswith(".BasicLauncher"):
        return 1
    if cluster.is_slurm(launcher):
        expected = "expected a number with hydra/launcher=submitit_slurm, whose workers are jobs of a cluster"
        raise ValueError(f"hydra.sweeper.n_workers=null: {expected}")
    return launcher.get("n_workers") or len(local.cores())


def _work(studies: Studies, jobs: cluster.Jobs, start: Callable[[], Sequence[JobReturn] | None]) -> None:
    """Has `start` start the workers that are missing, until no trial can be claimed and none runs.

    One that ended by an error has no successor before something else has happened. Where none is left, and nothing has
    happened since the last was started, its error ends the search.
    """
    if jobs.live:
        progress.line(f"comes back to {jobs}")
    started_at, failed_at = _num_events(studies), -1
    ended: Sequence[JobReturn] = ()
    try:
        while True:
            error = None
            for result in (*ended, *jobs.ended().values()):
                if result.status == JobStatus.FAILED:
                    error = result._return_value
                elif result._return_value is not None:  # it has lost the storage: no other will fare better
                    raise storage.Lost(result._return_value)
            running, events = studies.recover(counted=True), _num_events(studies)
            if error is not None:
                failed_at = events
                if not jobs.live and not running and events == started_at:
                    raise errors.plain(error) from error
            if not running and studies.num_startable <= 0:
                break
            ended = ()
            if (events != failed_at or not (jobs.live or running)) and (returned := start()) is not None:
                started_at, ended = events, returned
            if jobs.live or running:
                time.sleep(POLL_SECONDS)
    except BaseException:
        if jobs.live:
            progress.display.line(jobs.left, error=True)
        raise
    finally:
        with contextlib.suppress(storage.Lost), storage.reaching(studies.address, patience=0):
            studies.recover(counted=False)
    jobs.conclude(WAIT_FOR_WORKERS_SECONDS)


def _start_missing(
    setting: _Setting, studies: Studies, worker: Worker, num_workers: int, jobs: cluster.Jobs
) -> Sequence[JobReturn] | None:
    """Starts as many workers as can claim a trial, and adds those of Slurm to `jobs`.

    The results of those for which the launcher has waited; None where there was no worker to start.
    """
    missing = min(num_workers - len(jobs.live), studies.num_startable)
    if missing <= 0:
        return None
    config, fixed = copy.deepcopy(setting.config), worker.whole.space.fixed
    if worker.whole.settings.n_workers is not None and config.hydra.launcher.get("n_workers", 0) is None:
        # The launcher `local` would run no more of them at once than it has cores.
        with read_write(config.hydra), open_dict(config):
            config.hydra.launcher.n_workers = missing
    context = hydra_compat.context_of_workers(setting.context, setting.compose(fixed))
    task = cluster.InJob(worker, worker.whole.folder)
    launcher = hydra_compat.instantiate_launcher(context, task, config, quiet=True)
    overrides = [list(fixed)] * missing
    if cluster.is_slurm(config.hydra.launcher):
        jobs.submit(launcher, dict(enumerate(overrides)))
        return []
    try:
        return launcher.launch(overrides, initial_job_idx=0)
    except Exception as error:  # whatever a launcher raises where its jobs died
        failed = JobReturn(status=JobStatus.FAILED)
        failed.return_value = error
        return [failed]


def _num_events(studies: Studies) -> int:
    """How much has happened: trials that have ended, their steps, and workers that died."""
    events: int = 0
    for trial in (trial for study in studies.all for trial in study.trials):
        events += len(trial.intermediate_values) + len(trial.user_attrs.get(STEPS, ()))
        events += trial.state.is_finished() + trial.user_attrs.get(DEATHS, 0)
    return events
