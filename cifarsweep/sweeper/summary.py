"""What a study found: study.json, which the report reads, and the lines at its end."""

import math
import os
import random
import shlex
import statistics
import warnings
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import optuna
from omegaconf import OmegaConf
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import FrozenTrial, TrialState

from cifarsweep.results import files
from cifarsweep.results.study_records import (
    EARLY,
    FORMAT,
    STATES,
    Direction,
    FinalRunRecord,
    SeedRunRecord,
    State,
    StudiesRecord,
    StudyRecord,
    StudyWithFinalRuns,
    TrialRecord,
)
from cifarsweep.sweeper.application import Application
from cifarsweep.sweeper.constraints import is_infeasible
from cifarsweep.sweeper.promotion import is_paused
from cifarsweep.sweeper.pruning import STEPS
from cifarsweep.sweeper.queue import DETAILS, FIRST_START, REASON, RUNS, WARM
from cifarsweep.sweeper.space import Parameter, Space
from cifarsweep.sweeper.studies import FINALIST, SEED, OpenStudy, Studies, StudyPlan, best_trials, ranked
from cifarsweep.terminal import progress
from cifarsweep.terminal.command_line import without_credentials
from cifarsweep.terminal.domains import as_typed
from cifarsweep.terminal.formatting import count, duration, plain_lines

_STATES: dict[TrialState, State] = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}

NUM_SHOWN = 5
Importances = Mapping[str, tuple[float, float, float]]
"""By key the share, and the low and the high end of its interval."""
LEAST_FOR_IMPORTANCE = 10
"""Importances need at least this many trials that have reported. With fewer, shares would be noise."""
TARGET_QUANTILE = 0.3
"""This part of the trials counts as better. Optuna's 10 % are one or two, which say more of chance than of keys."""
NUM_SHUFFLED, NUM_HALVES = 120, 60
CHANCE = 0.05
"""How often, at most, a key is named although none matters."""
MOST_COUNTED = 300
"""Of more trials, so many are drawn at random: ten times as many take ten times as long, and 300 tell what matters."""
WIDEST = 0.7
"""An interval that leaves more open than this tells nothing."""


def state(trial: FrozenTrial) -> State:
    if is_infeasible(trial):
        return "infeasible"
    return "paused" if is_paused(trial) else _STATES[trial.state]


def broken(trial: FrozenTrial) -> str | None:
    """The constraints that the trial breaks."""
    return ", ".join(text for text, violation in trial.constraints.items() if violation > 0) or None


def conclude(
    whole: StudyPlan, studies: Studies, seconds: float, application: Application
) -> float | list[list[float]] | None:
    """Writes and prints what was found; the best value, or the Pareto set's. ValueError on failures."""
    shares = told_importances(studies)
    write(whole, studies, application, shares)
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
    lines = _lines(search.plan, search.trials, seconds, application, shares) if is_single else []
    for study in studies.searches:
        if num_excluded := study.num_excluded:
            lines.append(f"{study.plan.title}hydra.sweeper.exclude left out {count(num_excluded, 'proposal')}")
    for line in [*lines, *_lines_of_studies(whole, studies, seconds, application.unit)]:
        progress.line(line)
    place = without_credentials(whole.address) if "://" in whole.address else os.path.relpath(whole.address)
    progress.line(f"in a browser: optuna-dashboard {shlex.quote(place)}")
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
        if {trial.state for trial in study.settled} == {TrialState.FAIL}:
            failed = [trial for trial in study.queue.ours() if trial.state == TrialState.FAIL]
            reason = failed[0].user_attrs.get(REASON)
            raise ValueError(f"study {study.plan.name}: all {len(failed)} trials failed; the first: {reason}")
    failed = [trial for study in studies.finals for trial in study.latest if trial.state == TrialState.FAIL]
    if failed:
        raise ValueError(
            f"final runs that failed: {len(failed)}, which the same command tries again; the first: "
            f"{failed[0].user_attrs.get(REASON)}"
        )


def write(whole: StudyPlan, studies: Studies, application: Application, shares: Importances | None = None) -> None:
    """Writes study.json of one search, and studies.json of several or of one with final runs.

    `shares` are importances. They take seconds, and so are for the end.
    """
    if len(studies.searches) == 1:
        plan, trials = studies.searches[0].plan, studies.searches[0].trials
        best = best_trials(plan, trials)
        shares = shares or {}
        StudyRecord(
            format=FORMAT,
            name=plan.name,
            single_run=list(plan.fixed_of_a_run),
            objectives=list(plan.settings.objectives),
            directions=list(plan.settings.directions),
            n_trials=None if plan.settings.budget else plan.settings.n_trials,
            params=plan.space.keys,
            log=sorted({p.key for p in plan.space.parameters if getattr(p.distribution, "log", False)}),
            importances={key: share for key, (share, _, _) in shares.items()},
            importance_intervals={key: [low, high] for key, (_, low, high) in shares.items()},
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
        single_run=list(whole.fixed_of_a_run),
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
                epochs=sum(map(num_steps, study.queue.ours())),
                trials=[_record(study.plan, trial) for trial in study.trials],
                finalists=[trial.number for trial in study.finalists],
                final_runs=[
                    FinalRunRecord(
                        finalist=trial.user_attrs[FINALIST],
                        seed=trial.user_attrs[SEED],
                        state=state(trial),
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
    """The last step that its task has reported, or the number of its runs; 0 before there is one."""
    return max([*trial.intermediate_values, *map(int, trial.user_attrs.get(STEPS, {}))], default=0)


def num_steps(trial: FrozenTrial) -> int:
    """How many steps its task has reported, in all its runs."""
    runs = trial.user_attrs.get(RUNS)
    return sum(run["steps"] for run in runs.values()) if runs else last_step(trial)


def _record(plan: StudyPlan, trial: FrozenTrial) -> TrialRecord:
    steps = trial.intermediate_values or {int(k): v[0] for k, v in trial.user_attrs.get(STEPS, {}).items()}
    runs = trial.user_attrs.get(RUNS)
    first = trial.user_attrs.get(FIRST_START)
    started, finished = (
        None if time is None else time.astimezone(UTC).isoformat(timespec="seconds")
        for time in (datetime.fromtimestamp(first) if first else trial.datetime_start, trial.datetime_complete)
    )
    return TrialRecord(
        number=trial.number,
        state=state(trial),
        values=trial.values if trial.state in (TrialState.COMPLETE, TrialState.PRUNED) else None,
        params=plan.space.values(trial.params),
        epochs={str(step): steps[step] for step in sorted(steps)},
        run=trial.user_attrs.get("run"),
        reason=trial.user_attrs.get(REASON) or broken(trial),
        started=started,
        finished=finished,
        warm_start=WARM in trial.user_attrs,
        runs={seed: SeedRunRecord.of(run) for seed, run in runs.items()} if runs else None,
    )


def _command(plan: StudyPlan, trial: FrozenTrial, application: Application) -> str:
    """The command line that trains what the trial trained, or finds it trained; the first of several runs."""
    settings = plan.space.overrides(plan.space.values(trial.params))[len(plan.space.fixed) :]
    first = [f"{application.seed_key}={seed}" for seed in plan.settings.seeds[:1]]
    return shlex.join(application.command([*plan.fixed_of_a_run, *settings, *first]))


# importances


def told_importances(studies: Studies) -> Importances:
    """Of the only search; nothing where there are several."""
    search = studies.searches[0]
    if len(studies.searches) > 1:
        return {}
    return importances(search.plan.space, search.trials, search.plan.settings.directions[0])


def importances(space: Space, trials: Sequence[FrozenTrial], direction: Direction) -> Importances:
    """The share of each key in what sets the better trials apart (PED-ANOVA), and the ends of its 90 % interval.

    Largest first. Only keys that set them apart by more than chance: more than where the trials' order is shuffled. A
    share is of what exceeds that; its interval comes from halves of the trials, drawn at random (subsampling: Politis
    and Romano, 1994). Trials that were stopped early count, too: the method needs an order only, and who came further
    is better. Without them, only settings that the pruner liked would be compared.

    The branches of a conditional key count as one parameter. Optuna would leave them out, as no branch is in every
    trial. A number then counts by its place in its own branch's range, as the ranges differ by the condition only.
    """
    draw, places = random.Random(0), _places(trials, direction)
    if len(places) < LEAST_FOR_IMPORTANCE:
        return {}
    if len(places) > MOST_COUNTED:
        places = draw.sample(places, MOST_COUNTED)
    rows, order = [space.values(trial.params) for trial, _ in places], [float(place) for _, place in places]
    distributions: dict[str, BaseDistribution] = {}
    columns: dict[str, list[Any]] = {}
    for key in space.dimensions:
        branches = [p for row in rows for p in space.active(row) if p.key == key]
        if len(branches) == len(rows):
            chosen = [branch.chosen(row) for branch, row in zip(branches, rows, strict=True)]
            distributions[key], columns[key] = _merged(chosen, branches)
    study = optuna.create_study(direction="maximize")
    for i in range(len(rows)):
        params = {key: column[i] for key, column in columns.items()}
        study.add_trial(optuna.trial.create_trial(params=params, distributions=distributions, value=order[i]))
    found = _variances(study, order)
    shuffled = [_variances(study, draw.sample(order, len(order))) for _ in range(NUM_SHUFFLED if found else 0)]
    by_chance = {key: sorted(other.get(key, 0.0) for other in shuffled) for key in found}

    def shares(variances: Mapping[str, float]) -> dict[str, float]:
        above = {key: max(0.0, variances.get(key, 0.0) - statistics.fmean(by_chance[key])) for key in found}
        return {key: part / (sum(above.values()) or 1.0) for key, part in above.items()}

    rank = math.ceil((1 - CHANCE / max(len(found), 1)) * NUM_SHUFFLED) - 1
    matter = [key for key in found if found[key] > by_chance[key][rank]]
    halves = []
    for _ in range(NUM_HALVES if matter else 0):
        drawn_half = {*draw.sample(range(len(order)), len(order) // 2)}
        halves.append(
            shares(_variances(study, [place if i in drawn_half else math.nan for i, place in enumerate(order)]))
        )
    ends = round(0.05 * (NUM_HALVES - 1)), round(0.95 * (NUM_HALVES - 1))
    told, of_all = {}, shares(found)
    for key in sorted(matter, key=lambda key: -of_all[key]):
        drawn, share = sorted(half[key] for half in halves), of_all[key]
        low, high = min(share, drawn[ends[0]]), max(share, drawn[ends[1]])
        if low > 0 and high - low <= WIDEST:
            told[key] = share, low, high
    return told


def _places(trials: Sequence[FrozenTrial], direction: Direction) -> list[tuple[FrozenTrial, int]]:
    """The place of each trial that counts, 0 for the worst: by how far it came, then by what it had there."""
    reached: list[tuple[FrozenTrial, tuple[float, float]]] = []
    for trial in trials:
        is_complete = trial.state == TrialState.COMPLETE
        if is_complete or (state(trial) in EARLY and trial.intermediate_values):
            step = last_step(trial)
            value = trial.values[0] if is_complete else trial.intermediate_values[step]
            reached.append((trial, (math.inf if is_complete else step, value if direction == "maximize" else -value)))
    different = sorted({place for _, place in reached})
    return [(trial, bisect_left(different, place)) for trial, place in reached]


def _variances(study: optuna.Study, places: Sequence[float]) -> dict[str, float]:
    """By key, how much the better trials differ from the others; empty where all are alike. NaN leaves a trial out."""
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=TARGET_QUANTILE)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return optuna.importance.get_param_importances(
                study, evaluator=evaluator, target=lambda trial: places[trial.number], normalize=False
            )
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


def _lines(
    plan: StudyPlan, trials: Sequence[FrozenTrial], seconds: float, application: Application, shares: Importances
) -> list[str]:
    mine = [trial for trial in trials if WARM not in trial.user_attrs]
    counts = Counter(map(state, mine))
    states = ", ".join(f"{counts[name]} {name}" for name in STATES if counts[name])
    finished = sum(trial.state.is_finished() for trial in mine)
    lines = [f"study {plan.name}: {count(finished, 'trial')} finished ({states}), {duration(seconds)}"]
    best = best_trials(plan, trials)
    if not best:
        goes_on = "; a larger budget goes on with those that pause" if counts["paused"] and plan.settings.budget else ""
        feasible = " and breaks no constraint" if counts["infeasible"] else ""
        return [*lines, f"no trial is complete yet{feasible}{goes_on}"]
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
    if shares:
        told = (f"{key} {share:.0%} ({low:.0%} to {high:.0%})" for key, (share, low, high) in shares.items())
        lines.append("importance: " + ", ".join(told))
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
    counts = [str(sum(trial.state.is_finished() for trial in trials)), str(sum(map(num_steps, trials)))]
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
