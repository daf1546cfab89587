"""Pruning with several objectives, which Optuna refuses. Knows trials and figures, not what trains.

The rule: a trial stops after a step at which at least DOMINATED_BY other trials were no worse in every objective and
better in one. So a small network is compared with networks of its size or smaller, however far behind the largest it
is, and trials that may still enter the Pareto set are left alone.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import optuna

DOMINATED_BY = 4
"""So many trials must be better before one is stopped. With fewer, the noise of an early epoch would decide."""

STEPS = "steps"
"""The user attribute that holds {step: [figure of each objective]}."""


def report(
    trial: optuna.Trial, step: int, figures: Mapping[str, Any], objectives: Sequence[str], directions: Sequence[str]
) -> bool:
    """Stores the objectives as they stand after a step; whether the trial should stop.

    An objective that is not among `figures`, as it is not known before the end, is left out of the comparison. Any
    pruner of the study means this rule, as Optuna's have none for several objectives. A NopPruner means no pruning.
    """
    mine = [figures.get(name) for name in objectives]
    if any(value is not None and not math.isfinite(value) for value in mine):
        return False
    trial.set_user_attr(STEPS, {**trial.user_attrs.get(STEPS, {}), str(step): mine})
    if isinstance(trial.study.pruner, optuna.pruners.NopPruner):
        return False
    others = [
        other.user_attrs[STEPS][str(step)]
        for other in trial.study.get_trials(deepcopy=False)
        if other.number != trial.number and str(step) in other.user_attrs.get(STEPS, {})
    ]
    return sum(dominates(other, mine, directions) for other in others) >= DOMINATED_BY


def dominates(a: Sequence[float | None], b: Sequence[float | None], directions: Sequence[str]) -> bool:
    """Whether `a` is no worse than `b` in any objective that both have, and better in one."""
    gains = [
        (x - y) * (1 if direction == "maximize" else -1)
        for x, y, direction in zip(a, b, directions, strict=True)
        if x is not None and y is not None
    ]
    return bool(gains) and min(gains) >= 0 and max(gains) > 0
