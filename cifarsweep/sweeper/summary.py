"""What a study found: study.json, which the report reads, and the lines at its end."""

from __future__ import annotations

import math
import shlex
import warnings
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from cifarsweep.results import files
from cifarsweep.sweeper.pruning import STEPS
from cifarsweep.sweeper.queue import DETAILS, FINISHED, REASON, WARM
from cifarsweep.sweeper.space import Parameter, Space
from cifarsweep.sweeper.studies import FINALIST, SEED, Desk, Desks, Plan, best_trials, finalists, ranked
from cifarsweep.terminal import progress
from cifarsweep.terminal.domains import as_typed
from cifarsweep.terminal.formatting import duration, plain_lines

FORMAT = 1
STATES = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}
NUM_SHOWN = 5
LEAST_FOR_IMPORTANCE = 10
"""Complete trials; with fewer, shares would be noise."""


def conclude(whole: Plan, desks: Desks, seconds: float) -> float | list[list[float]] | None:
    """Writes and prints what was found; the best value, or the Pareto set's. ValueError where failures stopped one."""
    write(whole, desks)
    several = len(desks.searches) > 1
    desk, trials = desks.searches[0], desks.searches[0].trials
    for line in (_lines(desk.plan, trials, seconds) if not several else []) + _lines_of_studies(whole, desks, seconds):
        progress.line(line)
    for stopped_desk in desks.all:
        _raise_if_stopped(stopped_desk)
    _raise_if_finals_failed(desks)
    if several:
        values = [trial.value for one in desks.searches for trial in best_trials(one.plan, one.trials)]
        return max((value for value in values if value is not None), default=None)
    best = best_trials(desk.plan, trials)
    if len(whole.settings.directions) > 1:
        return [list(trial.values) for trial in best]
    return best[0].value if best else None


def _raise_if_finals_failed(desks: Desks) -> None:
    failed = [trial for desk in desks.finals for trial in desk.latest if trial.state == TrialState.FAIL]
    if failed:
        raise ValueError(
            f"final runs that failed: {len(failed)}, which the same command tries again; the first: "
            f"{failed[0].user_attrs.get(REASON)}"
        )


def _raise_if_stopped(desk: Desk) -> None:
    stopped = desk.tickets.stopped
    if stopped is None:
        return
    if details := stopped.user_attrs.get(DETAILS):
        progress.display.line(f"trial {stopped.number} failed:\n{details.rstrip()}", error=True)
    raise ValueError(
        f"study {desk.plan.name} stopped, as more than {desk.plan.settings.max_failures} trials failed in a row "
        f"(hydra.sweeper.max_failures); trial {stopped.number}: {stopped.user_attrs.get(REASON)}"
    )


def write(whole: Plan, desks: Desks) -> None:
    """study.json of one search, studies.json of several or of one with final runs, in the sweep's folder."""
    if len(desks.searches) == 1:
        _write_study(desks.searches[0].plan, desks.searches[0].trials)
    if not (whole.settings.study_per or whole.settings.finalists):
        return
    chosen = whole.settings
    files.write_json(
        whole.folder / "studies.json",
        {
            "format": FORMAT,
            "name": whole.name,
            "study_per": list(chosen.study_per),
            "objectives": list(chosen.objectives),
            "directions": list(chosen.directions),
            "budget": str(chosen.budget or f"{chosen.n_trials} trials"),
            "max_epochs": chosen.max_epochs,
            "finalists": chosen.finalists,
            "repeats": chosen.repeats,
            "seeds": list(whole.seeds),
            "final_on": chosen.final_on,
            "studies": [_study(desk) for desk in desks.searches],
        },
    )


def _study(desk: Desk) -> dict[str, Any]:
    chosen = [trial.number for trial in finalists(desk.plan, desk.trials)] if desk.tickets.is_over else []
    final = desk.finals.latest if desk.finals else []
    return {
        "values": dict(desk.plan.per),
        "params": desk.plan.space.keys,
        "is_over": desk.tickets.is_over,
        "epochs": sum(_num_epochs(trial) for trial in desk.ours),
        "trials": [_row(desk.plan, trial) for trial in desk.trials],
        "finalists": chosen,
        "final_runs": [
            {
                "finalist": trial.user_attrs[FINALIST],
                "seed": trial.user_attrs[SEED],
                "state": STATES[trial.state],
                "run": trial.user_attrs.get("run"),
                "reason": trial.user_attrs.get(REASON),
            }
            for trial in final
        ],
    }


def _num_epochs(trial: FrozenTrial) -> int:
    """That its run has told of."""
    return max([*trial.intermediate_values, *map(int, trial.user_attrs.get(STEPS, {}))], default=0)


def _write_study(plan: Plan, trials: Sequence[FrozenTrial]) -> None:
    best = best_trials(plan, trials)
    files.write_json(
        plan.folder / "study.json",
        {
            "format": FORMAT,
            "name": plan.name,
            "objectives": list(plan.settings.objectives),
            "directions": list(plan.settings.directions),
            "n_trials": None if plan.settings.budget else plan.settings.n_trials,
            "params": plan.space.keys,
            "log": sorted({p.key for p in plan.space.parameters if getattr(p.distribution, "log", False)}),
            "importances": importances(plan.space, trials, plan.settings.directions[0]),
            "best": [trial.number for trial in best],
            "best_command": command(plan, best[0]) if best else None,
            "trials": [_row(plan, trial) for trial in trials],
        },
    )


def _row(plan: Plan, trial: FrozenTrial) -> dict[str, Any]:
    steps = trial.intermediate_values or {int(k): v[0] for k, v in trial.user_attrs.get(STEPS, {}).items()}
    return {
        "number": trial.number,
        "state": STATES[trial.state],
        "values": trial.values if trial.state in (TrialState.COMPLETE, TrialState.PRUNED) else None,
        "params": plan.space.values(trial.params),
        "epochs": {str(step): steps[step] for step in sorted(steps)},
        "run": trial.user_attrs.get("run"),
        "reason": trial.user_attrs.get(REASON),
        "started": _utc(trial.datetime_start),
        "finished": _utc(trial.datetime_complete),
        "warm_start": WARM in trial.user_attrs,
    }


def _utc(time: datetime | None) -> str | None:
    return None if time is None else time.astimezone(UTC).isoformat(timespec="seconds")


def command(plan: Plan, trial: FrozenTrial) -> str:
    """The command line that trains what the trial trained, or finds it trained."""
    settings = plan.space.overrides(plan.space.values(trial.params))[len(plan.space.fixed) :]
    return shlex.join(["python", "-m", "cifarsweep", *plan.fixed_of_a_run, *settings])


# importances


def importances(space: Space, trials: Sequence[FrozenTrial], direction: str) -> dict[str, float]:
    """The share of each key in what sets the better trials apart (PED-ANOVA), largest first; empty with too few.

    The branches of a conditional key count as one, which Optuna would leave out, as no branch is in every trial. What
    counts of a number is then its place in its own branch's range: that the ranges differ is the condition's doing.
    """
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    if len(complete) < LEAST_FOR_IMPORTANCE:
        return {}
    rows = [space.values(trial.params) for trial in complete]
    study = optuna.create_study(direction=StudyDirection[direction.upper()])
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
    places = [_place(value, branch.distribution) for value, branch in zip(values, branches, strict=True)]
    return FloatDistribution(0, 1), places


def _place(value: float, within: BaseDistribution) -> float:
    """0 at the low end of its range, 1 at the high one."""
    assert isinstance(within, IntDistribution | FloatDistribution)
    low, high = float(within.low), float(within.high)
    if within.log:
        value, low, high = math.log(value), math.log(low), math.log(high)
    return min(max((value - low) / (high - low), 0.0), 1.0) if high > low else 0.5


# the end


def _lines(plan: Plan, trials: Sequence[FrozenTrial], seconds: float) -> list[str]:
    mine = [trial for trial in trials if WARM not in trial.user_attrs]
    counts = Counter(trial.state for trial in mine)
    states = ", ".join(f"{counts[state]} {name}" for state, name in STATES.items() if counts[state])
    finished, took = sum(counts[s] for s in FINISHED), duration(seconds)
    lines = [f"study {plan.name}: {finished} trials finished ({states}), {took}"]
    best = best_trials(plan, trials)
    if not best:
        return [*lines, "no trial is complete yet"]
    several = len(plan.settings.directions) > 1
    if several:
        lines.append(f"{len(best)} trials that no other beats in every objective:")
    shown = best if several else ranked(plan, trials)[:NUM_SHOWN]
    lines += _table(plan, shown[: 4 * NUM_SHOWN])
    shares = importances(plan.space, trials, plan.settings.directions[0])
    if shares:
        lines.append("importance: " + ", ".join(f"{key} {share:.0%}" for key, share in shares.items()))
    return [*lines, "the best trial's run: " + command(plan, best[0])]


def _lines_of_studies(whole: Plan, desks: Desks, seconds: float) -> list[str]:
    """A row a study: what its search found and what its final runs gave; nothing where there is only the search."""
    per, several = list(whole.settings.study_per), len(desks.searches) > 1
    if not per and not desks.finals:
        return []
    keys = [key for key in whole.space.keys if key not in per]
    header = [*per, "trials", "epochs", *whole.settings.objectives, "test_accuracy of final runs", *keys]
    rows = [[*(as_typed(desk.plan.per[key]) for key in per), *_cells(desk, keys)] for desk in desks.searches]
    lines = [f"  {line}" for line in plain_lines(header, rows, left=[*per, *keys])]
    if not several:
        return lines
    trials = sum(trial.state in FINISHED for desk in desks.searches for trial in desk.ours)
    finals = sum(trial.state == TrialState.COMPLETE for desk in desks.finals for trial in desk.latest)
    took = duration(seconds)
    return [
        f"{whole.name}: {len(rows)} studies, {trials} trials finished, {finals} final runs complete, {took}",
        *lines,
    ]


def _cells(desk: Desk, keys: Sequence[str]) -> list[str]:
    trials = desk.ours
    counts = [str(sum(trial.state in FINISHED for trial in trials)), str(sum(map(_num_epochs, trials)))]
    best = best_trials(desk.plan, trials)[:1]
    if not best:
        return [*counts, *("" for _ in desk.plan.settings.objectives), "", *("" for _ in keys)]
    values = desk.plan.space.values(best[0].params)
    best_number = best[0].number
    final = [one for one in (desk.finals.latest if desk.finals else []) if one.user_attrs[FINALIST] == best_number]
    found = [trial.value for trial in final if trial.state == TrialState.COMPLETE]
    known = [value for value in found if value is not None]
    mean = f"{sum(known) / len(known):.4f} of {len(known)}" if known else ""
    return [
        *counts,
        *(f"{value:.4f}" for value in best[0].values),
        mean,
        *(_short(values.get(key, "")) for key in keys),
    ]


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else as_typed(value)


def _table(plan: Plan, trials: Sequence[FrozenTrial]) -> list[str]:
    keys = [key for key in plan.space.keys if any(key in plan.space.values(trial.params) for trial in trials)]
    header = ["trial", *plan.settings.objectives, *keys]
    rows = []
    for trial in trials:
        values = plan.space.values(trial.params)
        cells = [_short(values.get(key, "")) for key in keys]
        rows.append([str(trial.number), *(f"{value:.6g}" for value in trial.values), *cells])
    return [f"  {line}" for line in plain_lines(header, rows, left=header)]


def figures(plan: Plan, values: Sequence[float] | None) -> str:
    """val_accuracy 0.8123, or what there is of it."""
    if values is None:
        return ""
    return ", ".join(f"{name} {value:.5g}" for name, value in zip(plan.settings.objectives, values, strict=False))
