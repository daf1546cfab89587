"""hydra.sweeper.exclude: conditions on the keys of jobs that must not be. Knows neither grids nor searches."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from omegaconf import ListConfig

from cifarsweep.terminal import conditions
from cifarsweep.terminal.conditions import Condition
from cifarsweep.terminal.domains import Domain

EXCLUDED = "excluded"
"""Of a proposal that hydra.sweeper.exclude leaves out: it counts as no trial, and another one takes its place."""
ACCEPTED = Domain(
    lambda value: (
        isinstance(value, str)
        or (isinstance(value, list | ListConfig) and all(isinstance(text, str) for text in value))
    ),
    "a list of conditions, such as ['model=layers5 & batch_size=256']",
)


def name_of(key: str) -> str:
    """The key as a condition has it: not as an override adds it."""
    return key.lstrip("+")


def parse(given: str | Sequence[str], values: Mapping[str, Collection[Any]]) -> list[Condition]:
    """ValueError says what is not accepted. `values` are some of each key that a job has, of every type."""

    def check(key: str) -> None:
        if key not in values:
            raise ValueError(f"{key}: no override of a job, expected some of {', '.join(values)}")

    numbers = {key for key, listed in values.items() if all(map(conditions.is_number, listed))}
    try:
        return [conditions.parse(text, check, numbers) for text in ([given] if isinstance(given, str) else given)]
    except ValueError as error:
        raise ValueError(f"hydra.sweeper.exclude: {error}") from error


def narrowed(excluded: Iterable[Condition], known: Mapping[str, Any]) -> list[Condition]:
    """What is left of the conditions where some values are known. One without any comparison excludes every job."""
    left = []
    for condition in excluded:
        open_ones = [comparison for comparison in condition.comparisons if comparison.key not in known]
        if all(comparison.holds(known.get) for comparison in condition.comparisons if comparison not in open_ones):
            left.append(Condition(tuple(open_ones)))
    return left


def told(num_left_out: int, num_all: int, noun: str) -> str:
    """The line for a person. ValueError where nothing is left."""
    if num_left_out == num_all:
        raise ValueError(f"hydra.sweeper.exclude: leaves out all {num_all:,} {noun}s, expected some to be left")
    return f"hydra.sweeper.exclude leaves out {num_left_out:,} of {num_all:,} {noun}s"
