"""A search under a virtual clock: workers train recorded or modelled curves. Knows no search method, no file.

A worker trains an epoch in the seconds that its curve says; its bookkeeping takes none. The last epoch completes a
trial, whatever a pruner says of it.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cifarsweep.sweeper.space import Space


@dataclass(frozen=True)
class Curve:
    values: Sequence[float]
    """Validation accuracy after each epoch."""
    seconds: float
    """Of an epoch."""


@dataclass(frozen=True)
class Search:
    """What a method is to search, and for how long."""

    space: Space
    seed: int
    num_epochs: int
    """Of a whole trial."""
    num_workers: int
    n_trials: int | None
    """None: as many trials as the epochs pay for."""
    most_epochs: int | None = None

    def may_begin(self, number: int) -> bool:
        return self.n_trials is None or number < self.n_trials


@dataclass(frozen=True)
class Begun:
    """A trial that a worker trains now. Trials are numbered as they begin; one that goes on has its number."""

    number: int
    settings: Mapping[str, Any]
    """By key of the search space."""
    starts_again: bool = False
    """Whether a trial that paused has nothing to go on from."""


class Method(Protocol):
    """A search method, as workers meet it."""

    def begin(self, worker: int) -> Begun | None:
        """A trial to train, a new one or one to go on with; None: nothing to do now."""

    def report(self, number: int, epoch: int, value: float) -> bool:
        """Whether the trial stops or pauses."""

    def end(self, number: int, value: float | None) -> None:
        """`value` is that after the last epoch; None where the trial was stopped."""

    def close(self) -> None:
        """Gives up what the method holds."""


@dataclass
class Played:
    """What one search did."""

    epochs: int = 0
    seconds: float = 0.0
    num_trials: int = 0
    complete: list[tuple[int, float, float]] = field(default_factory=list)
    """Of each trial that trained all its epochs: epochs of the search at its end, its seconds, the value."""

    @property
    def best(self) -> float:
        return max((value for *_, value in self.complete), default=np.nan)

    def best_at(self, points: ArrayLike, *, seconds: bool) -> NDArray[np.float64]:
        """The best value after so many epochs, or seconds; nan where no trial was complete."""
        times = [trial[seconds] for trial in self.complete]
        best = [np.nan, *np.maximum.accumulate([value for *_, value in self.complete])]
        return np.asarray(best)[np.searchsorted(times, points, side="right")]

    def epochs_to(self, value: float) -> float:
        """Epochs until a trial was as good; inf where none was."""
        return min((spent for spent, _, reached in self.complete if reached >= value), default=np.inf)


def play(
    method: Method,
    curve_of: Callable[[int, Mapping[str, Any]], Curve],
    num_workers: int,
    most_epochs: int | None = None,
) -> Played:
    """Plays the search until it has nothing more to train, or has trained so many epochs.

    `curve_of` gives the curve of a trial by its number and settings.
    """
    played, curves, trained = Played(), dict[int, Curve](), dict[int, int]()
    running: dict[int, int] = {}
    idle: list[int] = []
    events = [(0.0, worker) for worker in range(num_workers)]
    while events and played.epochs != most_epochs:
        now, worker = heapq.heappop(events)
        if (number := running.get(worker)) is not None:
            trained[number] += 1
            epoch, values = trained[number], curves[number].values
            played.epochs, played.seconds = played.epochs + 1, now
            stops, is_last = method.report(number, epoch, values[epoch - 1]), epoch == len(values)
            if is_last:
                played.complete.append((played.epochs, now, values[-1]))
            if is_last or stops:
                method.end(number, values[-1] if is_last else None)
                del running[worker]
            for other in idle:  # a report may have made room for another trial, or promoted one
                heapq.heappush(events, (now, other))
            idle.clear()
        if worker not in running:
            begun = method.begin(worker)
            if begun is None:
                idle.append(worker)
                continue
            number = running[worker] = begun.number
            if number not in curves:
                curves[number] = curve_of(number, begun.settings)
            if begun.starts_again or number not in trained:
                trained[number] = 0
        heapq.heappush(events, (now + curves[running[worker]].seconds, worker))
    played.num_trials = len(curves)
    return played
