"""hydra.sweeper.constraints: what a trial's figures must be, as the numbers by which Optuna's samplers learn of it."""

import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.trial import FrozenTrial

from cifarsweep.terminal import conditions
from cifarsweep.terminal.conditions import is_number


@dataclass(frozen=True)
class Constraint:
    figure: str
    sign: str
    limit: float

    def __str__(self) -> str:
        return f"{self.figure}{self.sign}{self.limit:g}"

    def violation(self, value: float) -> float:
        """By how much the value is beyond the limit: 0 or less where it is accepted."""
        beyond = value - self.limit if self.sign.startswith("<") else self.limit - value
        if math.isnan(beyond):
            return sys.float_info.max
        return beyond or (0.0 if self.sign.endswith("=") else sys.float_info.min)


def parse(given: str | Sequence[str], check_figure: Callable[[str], None]) -> tuple[Constraint, ...]:
    """ValueError says what is not accepted; `check_figure` raises it for a name."""
    found = []
    try:
        for text in [given] if isinstance(given, str) else given:
            for comparison in conditions.parse(text, check_figure).comparisons:
                limit = conditions.number(comparison.values[0])
                if comparison.sign in ("=", "!=") or isinstance(limit, str) or not math.isfinite(limit):
                    raise ValueError(f"{comparison}: expected one of < <= > >= and a number")
                found.append(Constraint(comparison.key, comparison.sign, float(limit)))
    except ValueError as error:
        raise ValueError(f"hydra.sweeper.constraints: {error}") from error
    return tuple(found)


def violations(constraints: Iterable[Constraint], figures: Mapping[str, Any]) -> dict[str, float]:
    """Of the constraints whose figure is known, by their text."""
    known = ((constraint, figures.get(constraint.figure)) for constraint in constraints)
    return {str(constraint): constraint.violation(float(value)) for constraint, value in known if is_number(value)}


def is_infeasible(trial: FrozenTrial) -> bool:
    """Whether the trial has ended, and broke a constraint."""
    return trial.state.is_finished() and any(value > 0 for value in trial.constraints.values())
