"""What a study found: study.json, which the report reads, and the lines at its end."""

import math
import shlex
import warnings
from collections import Counter
from collections.abc import Sequence
from datetime import UTC
from typing import Any

import optuna
from omegaconf import OmegaConf
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import FrozenTrial, TrialState

from cifarsweep.results import files
from cifarsweep.results.study_records import (
    FORMAT,
    Direction,
    FinalRunRecord,
    State,
    StudiesRecord,
    StudyRecord,
    StudyWithFinalRuns,
    TrialRecord,
)
from cifarsweep.sweeper.application import Application
from cifarsweep.sweeper.pruning import STEPS
from cifarsweep.sweeper.queue import DETAILS, REASON, WARM
from cifarsweep.sweeper.space import Parameter, Space
from cifarsweep.sweeper.studies import FINALIST, SEED, OpenStudy, Studies, StudyPlan, best_trials, ranked
from cifarsweep.terminal import progress
from cifarsweep.terminal.domains import as_typed
from cifarsweep.terminal.formatting import duration, plain_lines

STATES: dict[TrialState, State] = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}
NUM_SHOWN = 5
LEAST_FOR_IMPORTANCE = 10
"""Importances need at least this many complete trials. With fewer, shares would be noise."""


def conclude(
    whole: StudyPlan, studies: Studies, seconds: float, application: Application
) -> float | list[list[float]] | None:
    """Writes and prints what was found; the best value, or the Pareto set's. ValueError on failures."""
    write(whole, studies, application)
    search, is_single = studies.searches[0], len(studies.searches) == 1
    best, space = best_trials(search.plan, search.trials), search.plan.space
    is_pareto = len(whole.settings.directions) > 1
    if is_single and best:  # as hydra-optuna-sweeper writes it, for scripts that read it
        results: dict[str, Any] = {"name": "optuna"}
        if is_pareto:
            results["solutions"] = [{"params": space.values(t.params), "values": list(t.values)} for t in best]
        else:
            results |= {"best_params": space.values(best[0].params), "best_value": best[0].value}
        with files.atomic(whole.folder / "optimization_results.yaml") as file:
            file.write(OmegaConf.to_yaml(OmegaConf.create(results)))
    lines = _lines(search.plan, search.trials, seconds, application) if is_single else []
    for line in [*lines, *_lines_of_studies(whole, studies, seconds, application.unit)]:
        progress.line(line)
    _raise_for_failures(studies)
    if not is_single:
        values = [trial.value for study in studies.searches for trial in best_trials(study.plan, study.trials)]
        return max((value for value in values if value is not None), default=None)
    if is_pareto:
        return [list(trial.values) for trial in best]
    return best[0].value if best else None


def _raise_for_failures(studies: Studies) -> None:
    for study in studies.all:
        if (stopped := study.queue.stopped) is None:
            continue
        if details := stopped.user_attrs.get(DETAILS):
            for line in (f"trial {stopped.number} failed:", *details.splitlines()):
                progress.display.line(line, error=True)
        raise ValueError(
            f"study {study.plan.name} stopped, as more than {study.plan.settings.max_failures} trials failed in a row "
            f"(hydra.sweeper.max_failures); trial {stopped.number}: {stopped.user_attrs.get(REASON)}"
        )
    for study in studies.searches:
        if {trial.state for trial in study.trials if trial.state.is_finished()} == {TrialState.FAIL}:
            reason = study.finished[0].user_attrs.get(REASON)
            raise ValueError(f"study {study.plan.name}: all {len(study.finished)} trials failed; the first: {reason}")
    failed = [trial for study in studies.finals for trial in study.latest if trial.state == TrialState.FAIL]
    if failed:
        raise ValueError(
            f"final runs that failed: {len(failed)}, which the same command tries again; the first: "
            f"{failed[0].user_attrs.get(REASON)}"
        )


def write(whole: StudyPlan, studies: Studies, application: Application) -> None:
    """Writes study.json of one search, and studies.json of several or of one with final runs."""
    if len(studies.searches) == 1:
        plan, trials = studies.searches[0].plan, studies.searches[0].trials
        best = best_trials(plan, trials)
        StudyRecord(
            format=FORMAT,
            name=plan.name,
            objectives=list(plan.settings.objectives),
            directions=list(plan.settings.directions),
            n_trials=None if plan.settings.budget else plan.settings.n_trials,
            params=plan.space.keys,
            log=sorted({p.key for p in plan.space.parameters if getattr(p.distribution, "log", False)}),
            importances=importances(plan.space, trials, plan.settings.directions[0]),
            best=[trial.number for trial in best],
            best_command=_command(plan, best[0], application) if best else None,
            trials=[_record(plan, trial) for trial in trials],
        ).write(plan.folder)
    settings = whole.settings
    if not (settings.study_per or settings.finalists):
        return
    StudiesRecord(
        format=FORMAT,
        name=whole.name,
        study_per=list(settings.study_per),
        objectives=list(settings.objectives),
        directions=list(settings.directions),
        budget=str(settings.budget or f"{settings.n_trials} trials"),
        max_epochs=settings.max_steps,
        finalists=settings.finalists,
        repeats=settings.repeats,
        seeds=list(whole.finals.seeds if whole.finals else ()),
        final_on=settings.final_on,
        studies=[
            StudyWithFinalRuns(
                values=dict(study.plan.per),
                params=study.plan.space.keys,
                is_over=study.queue.is_over,
                epochs=sum(last_step(trial) for trial in study.queue.ours()),
                trials=[_record(study.plan, trial) for trial in study.trials],
                finalists=[trial.number for trial in study.finalists],
                final_runs=[
                    FinalRunRecord(
                        finalist=trial.user_attrs[FINALIST],
                        seed=trial.user_attrs[SEED],
                        state=STATES[trial.state],
                        run=trial.user_attrs.get("run"),
                        reason=trial.user_attrs.get(REASON),
                    )
                    for trial in (study.finals.latest if study.finals else [])
                ],
            )
            for study in studies.searches
        ],
    ).write(whole.folder)


def last_step(trial: FrozenTrial) -> int:
    """The last step that its task has reported; 0 before there is one."""
    return max([*trial.intermediate_values, *map(int, trial.user_attrs.get(STEPS, {}))], default=0)


def _record(plan: StudyPlan, trial: FrozenTrial) -> TrialRecord:
    steps = trial.intermediate_values or {int(k): v[0] for k, v in trial.user_attrs.get(STEPS, {}).items()}
    started, finished = (
        None if time is None else time.astimezone(UTC).isoformat(timespec="seconds")
        for time in (trial.datetime_start, trial.datetime_complete)
    )
    return TrialRecord(
        number=trial.number,
        state=STATES[trial.state],
        values=trial.values if trial.state in (TrialState.COMPLETE, TrialState.PRUNED) else None,
        params=plan.space.values(trial.params),
        epochs={str(step): steps[step] for step in sorted(steps)},
        run=trial.user_attrs.get("run"),
        reason=trial.user_attrs.get(REASON),
        started=started,
        finished=finished,
        warm_start=WARM in trial.user_attrs,
    )


def _command(plan: StudyPlan, trial: FrozenTrial, application: Application) -> str:
    """The command line that trains what the trial trained, or finds it trained."""
    settings = plan.space.overrides(plan.space.values(trial.params))[len(plan.space.fixed) :]
    return shlex.join(application.command([*plan.fixed_of_a_run, *settings]))


# importances


def importances(space: Space, trials: Sequence[FrozenTrial], direction: Direction) -> dict[str, float]:
    """The share of each key in what sets the better trials apart (PED-ANOVA), largest first; empty with too few trials.

    The branches of a conditional key count as one parameter. Optuna would leave them out, as no branch is in every
    trial. A number then counts by its place in its own branch's range, as the ranges differ by the condition only.
    """
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    if len(complete) < LEAST_FOR_IMPORTANCE:
        return {}
    rows = [space.values(trial.params) for trial in complete]
    study = optuna.create_study(direction=direction)
    distributions: dict[str, BaseDistribution] = {}
    columns: dict[str, list[Any]] = {}
    for key in space.keys:
        if all(key in row for row in rows):
            branches = [next(p for p in space.active(row) if p.key == key) for row in rows]
            distributions[key], columns[key] = _merged([row[key] for row in rows], branches)
    for i, trial in enumerate(complete):
        params = {key: column[i] for key, column in columns.items()}
        study.add_trial(optuna.trial.create_trial(params=params, distributions=distributions, values=trial.values[:1]))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return optuna.importance.get_param_importances(study)
    except (ValueError, RuntimeError, ZeroDivisionError):  # all alike
        return {}


def _merged(values: list[Any], branches: list[Parameter]) -> tuple[BaseDistribution, list[Any]]:
    """One distribution for a key's values, and the values in it."""
    different = {branch.name: branch for branch in branches}.values()
    if len(different) == 1:
        return branches[0].distribution, values
    if any(isinstance(branch.distribution, CategoricalDistribution) for branch in different):
        options = dict.fromkeys(v for branch in different for v in branch.options or branch.extremes)
        return CategoricalDistribution(list(dict.fromkeys([*options, *values]))), values
    places = []  # 0 at the low end of a branch's range, 1 at the high one
    for value, within in zip(values, [branch.distribution for branch in branches], strict=True):
        assert not isinstance(within, CategoricalDistribution)
        scale = math.log if within.log else float
        number, low, high = scale(value), scale(within.low), scale(within.high)
        places.append(min(max((number - low) / (high - low), 0.0), 1.0) if high > low else 0.5)
    return FloatDistribution(0, 1), places


# the end


def _lines(plan: StudyPlan, trials: Sequence[FrozenTrial], seconds: float, application: Application) -> list[str]:
    mine = [trial for trial in trials if WARM not in trial.user_attrs]
    counts = Counter(trial.state for trial in mine)
    states = ", ".join(f"{counts[state]} {name}" for state, name in STATES.items() if counts[state])
    finished = sum(trial.state.is_finished() for trial in mine)
    lines = [f"study {plan.name}: {finished} trials finished ({states}), {duration(seconds)}"]
    best = best_trials(plan, trials)
    if not best:
        return [*lines, "no trial is complete yet"]
    several = len(plan.settings.directions) > 1
    if several:
        lines.append(f"{len(best)} trials that no other beats in every objective:")
    shown = best[: 4 * NUM_SHOWN] if several else ranked(plan, trials)[:NUM_SHOWN]
    settings = [plan.space.values(trial.params) for trial in shown]
    keys = [key for key in plan.space.keys if any(key in values for values in settings)]
    header = ["trial", *plan.settings.objectives, *keys]
    rows = [
        [str(trial.number), *(f"{v:.6g}" for v in trial.values), *(short(values.get(key, "")) for key in keys)]
        for trial, values in zip(shown, settings, strict=True)
    ]
    lines += [f"  {line}" for line in plain_lines(header, rows, left=header)]
    shares = importances(plan.space, trials, plan.settings.directions[0])
    if shares:
        lines.append("importance: " + ", ".join(f"{key} {share:.0%}" for key, share in shares.items()))
    return [*lines, "the best trial's run: " + _command(plan, best[0], application)]


def _lines_of_studies(whole: StudyPlan, studies: Studies, seconds: float, unit: str) -> list[str]:
    """A row for each study: what its search and its final runs gave. Nothing where there is only the search."""
    per = list(whole.settings.study_per)
    if not per and not studies.finals:
        return []
    keys = [key for key in whole.space.keys if key not in per]
    final = f"{whole.finals.objective} of final runs" if whole.finals else ""
    header = [*per, "trials", f"{unit}s", *whole.settings.objectives, final, *keys]
    rows = [[*(as_typed(study.plan.per[key]) for key in per), *_cells(study, keys)] for study in studies.searches]
    lines = [f"  {line}" for line in plain_lines(header, rows, left=[*per, *keys])]
    if len(rows) == 1:
        return lines
    trials = sum(trial.state.is_finished() for study in studies.searches for trial in study.queue.ours())
    finals = sum(trial.state == TrialState.COMPLETE for study in studies.finals for trial in study.latest)
    title = f"{whole.name}: {len(rows)} studies, {trials} trials finished, {finals} final runs complete"
    return [f"{title}, {duration(seconds)}", *lines]


def _cells(study: OpenStudy, keys: Sequence[str]) -> list[str]:
    trials = study.queue.ours()
    counts = [str(sum(trial.state.is_finished() for trial in trials)), str(sum(map(last_step, trials)))]
    best = best_trials(study.plan, trials)
    if not best:
        return [*counts, *("" for _ in study.plan.settings.objectives), "", *("" for _ in keys)]
    finals = study.finals.latest if study.finals else []
    of_the_best = [trial for trial in finals if trial.user_attrs[FINALIST] == best[0].number]
    known = [trial.values[0] for trial in of_the_best if trial.state == TrialState.COMPLETE]
    values = study.plan.space.values(best[0].params)
    return [
        *counts,
        *(f"{value:.4f}" for value in best[0].values),
        f"{sum(known) / len(known):.4f} of {len(known)}" if known else "",
        *(short(values.get(key, "")) for key in keys),
    ]


def short(value: Any) -> str:
    """Four digits of a number: the exact values are in trials.csv."""
    return f"{value:.4g}" if isinstance(value, float) else as_typed(value)


def figures(plan: StudyPlan, values: Sequence[float] | None) -> str:
    """Such as val_accuracy 0.8123. It is empty without values."""
    if values is None:
        return ""
    return ", ".join(f"{name} {value:.5g}" for name, value in zip(plan.settings.objectives, values, strict=False))
