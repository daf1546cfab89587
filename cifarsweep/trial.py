"""What a task tells the search that asked for it. Knows nothing of Optuna, so that a task needs no import of it.

Outside a search every call does nothing: the same task serves a single run, a grid and a search.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol


class Pruned(Exception):
    """Raised by a task that stopped because `report` said so."""


class Trial(Protocol):
    objectives: tuple[str, ...]
    """Names of the figures that are asked for."""

    def report(self, step: int, measured: float | Mapping[str, Any]) -> bool: ...

    def record(self, **facts: Any) -> None: ...


_current: Trial | None = None


def report(step: int, measured: float | Mapping[str, Any]) -> bool:
    """What was measured at a step, as an epoch: the objective, or figures by name; True where the task should stop."""
    return _current is not None and _current.report(step, measured)


def record(**facts: Any) -> None:
    """Facts for the table of trials, as the name of the run that trains this one."""
    if _current is not None:
        _current.record(**facts)


def current() -> Trial | None:
    return _current


@contextmanager
def working_on(trial: Trial) -> Iterator[None]:
    """Until the end of the block, this process works on that trial."""
    global _current
    before, _current = _current, trial
    try:
        yield
    finally:
        _current = before
