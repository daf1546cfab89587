"""The virtual clock of tests/bench/event_loop.py."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from conftest import REPOSITORY

sys.path.append(str(REPOSITORY / "tests" / "bench"))
from event_loop import Begun, Curve, Method, play

CURVES = [Curve([0.1, 0.2, 0.3], 10.0), Curve([0.4, 0.5, 0.6], 4.0), Curve([0.2, 0.3, 0.4], 5.0)]


class PausesOnce(Method):
    """Three trials; the third pauses after its first epoch and goes on once the first has ended."""

    def __init__(self, starts_again: bool) -> None:
        self._starts_again = starts_again
        self._next, self.first_ended, self._paused, self.calls = 0, False, False, list[tuple[str, int]]()

    def begin(self, worker: int) -> Begun | None:
        if self._next < len(CURVES):
            self._next += 1
            return Begun(self._next - 1, {})
        if self._paused and self.first_ended:
            self._paused = False
            return Begun(2, {}, self._starts_again)
        return None

    def report(self, number: int, epoch: int, value: float) -> bool:
        return number == 2 and epoch == 1 and not self.first_ended

    def end(self, number: int, value: float | None) -> None:
        self.first_ended |= number == 0
        self._paused |= value is None


@pytest.mark.parametrize(("starts_again", "epochs", "seconds"), [(False, 9, 40.0), (True, 10, 45.0)])
def test_a_paused_trial_goes_on_where_a_worker_has_waited_for_another(
    starts_again: bool, epochs: int, seconds: float
) -> None:
    played = play(PausesOnce(starts_again), lambda number, _: CURVES[number], num_workers=2)
    # Worker 0 trains trial 0 until 30 s; worker 1 trial 1 until 12 s, and the first epoch of trial 2 until 17 s.
    assert played.complete == [(4, 12.0, 0.6), (7, 30.0, 0.3), (epochs, seconds, 0.4)]
    assert (played.epochs, played.seconds, played.num_trials) == (epochs, seconds, 3)
    assert np.array_equal(played.best_at([3, 4, epochs], seconds=False), [np.nan, 0.6, 0.6], equal_nan=True)
    assert played.epochs_to(0.35) == 4


def test_a_search_ends_with_its_epochs() -> None:
    played = play(PausesOnce(False), lambda number, _: CURVES[number], num_workers=2, most_epochs=5)
    assert (played.epochs, played.complete) == (5, [(4, 12.0, 0.6)])
