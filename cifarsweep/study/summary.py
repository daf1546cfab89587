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

from cifarsweep import progress, runs
from cifarsweep.search_space import Parameter, Space
from cifarsweep.study.pruning import STEPS, dominates
from cifarsweep.study.tickets import DETAILS, FINISHED, REASON, WARM
from cifarsweep.study.worker import Plan
from cifarsweep.text import duration, plain_lines

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


def conclude(
    plan: Plan, study: optuna.Study, stopped: FrozenTrial | None, seconds: float
) -> float | list[list[float]] | None:
    """Writes and prints what was found; the best value, or the Pareto set's. ValueError where failures stopped it."""
    trials = write(plan, study)
    for line in _lines(plan, trials, seconds):
        progress.line(line)
    if stopped is not None:
        if details := stopped.user_attrs.get(DETAILS):
            progress.display.line(f"trial {stopped.number} failed:\n{details.rstrip()}", error=True)
        raise ValueError(
            f"study {plan.name} stopped, as more than {plan.settings.max_failures} trials failed in a row "
            f"(hydra.sweeper.max_failures); trial {stopped.number}: {stopped.user_attrs.get(REASON)}"
        )
    best = best_trials(plan, trials)
    if len(plan.settings.directions) > 1:
        return [list(trial.values) for trial in best]
    return best[0].value if best else None


def best_trials(plan: Plan, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The best complete trial, or with several objectives those that no other beats in all; best first."""
    ranked, directions = _ranked(plan, trials), plan.settings.directions
    if len(directions) == 1:
        return ranked[:1]
    return [t for t in ranked if not any(dominates(other.values, t.values, directions) for other in ranked)]


def _ranked(plan: Plan, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The complete trials, best first."""

    def gain(trial: FrozenTrial) -> list[float]:
        return [v if d == "maximize" else -v for v, d in zip(trial.values, plan.settings.directions, strict=True)]

    return sorted((trial for trial in trials if trial.state == TrialState.COMPLETE), key=gain, reverse=True)


def write(plan: Plan, study: optuna.Study) -> list[FrozenTrial]:
    """study.json in the sweep's folder, the whole study in plain values; its trials."""
    trials = study.get_trials(deepcopy=False)
    best = best_trials(plan, trials)
    runs.write_json(
        plan.folder / "study.json",
        {
            "format": FORMAT,
            "name": plan.name,
            "objectives": list(plan.settings.objectives),
            "directions": list(plan.settings.directions),
            "n_trials": plan.settings.n_trials,
            "params": plan.space.keys,
            "log": sorted({p.key for p in plan.space.parameters if getattr(p.distribution, "log", False)}),
            "importances": importances(plan.space, trials, plan.settings.directions[0]),
            "best": [trial.number for trial in best],
            "best_command": command(plan, best[0]) if best else None,
            "trials": [_row(plan, trial) for trial in trials],
        },
    )
    return trials


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
    shown = best if several else _ranked(plan, trials)[:NUM_SHOWN]
    lines += _table(plan, shown[: 4 * NUM_SHOWN])
    shares = importances(plan.space, trials, plan.settings.directions[0])
    if shares:
        lines.append("importance: " + ", ".join(f"{key} {share:.0%}" for key, share in shares.items()))
    return [*lines, "the best trial's run: " + command(plan, best[0])]


def _table(plan: Plan, trials: Sequence[FrozenTrial]) -> list[str]:
    keys = [key for key in plan.space.keys if any(key in plan.space.values(trial.params) for trial in trials)]
    header = ["trial", *plan.settings.objectives, *keys]
    rows = []
    for trial in trials:
        values = plan.space.values(trial.params)
        cells = [
            f"{values[key]:.4g}" if isinstance(values.get(key), float) else str(values.get(key, "")) for key in keys
        ]
        rows.append([str(trial.number), *(f"{value:.6g}" for value in trial.values), *cells])
    return [f"  {line}" for line in plain_lines(header, rows, left=header)]


def figures(plan: Plan, values: Sequence[float] | None) -> str:
    """val_accuracy 0.8123, or what there is of it."""
    if values is None:
        return ""
    return ", ".join(f"{name} {value:.5g}" for name, value in zip(plan.settings.objectives, values, strict=False))
