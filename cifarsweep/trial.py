"""What a task tells the search that asked for it, and where it may keep files. Knows nothing of Optuna.

Outside a search every call does nothing, so that one task serves a single run, a grid and a search.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Protocol


class Pruned(Exception):
    """A task raises it where it stops because `report` said so."""


class Trial(Protocol):
    objectives: tuple[str, ...]
    """The names of what is searched for; a task returns one number for each."""

    def report(self, step: int, measured: float | Mapping[str, Any]) -> bool: ...

    def record(self, **facts: Any) -> None: ...

    def directory(self) -> Path: ...

    @property
    def pauses(self) -> bool: ...


_current: ContextVar[Trial | None] = ContextVar("cifarsweep_trial", default=None)


def report(step: int, measured: float | Mapping[str, Any]) -> bool:
    """Tells what was measured after a step, such as an epoch; True where the task should stop (`raise Pruned`).

    `measured` is the objective, or figures by name, which several objectives need. Steps are whole numbers that grow
    from call to call; a task that goes on after an interruption may report its earlier steps again. ValueError where
    either is something else.
    """
    trial = _current.get()
    return trial is not None and trial.report(step, measured)


def record(**facts: Any) -> None:
    """Keeps facts, such as the name of a run, with the trial in the study's storage.

    Raises Pruned where one of them breaks a constraint of the search: told early, it saves the rest of the work.
    """
    trial = _current.get()
    if trial is not None:
        trial.record(**facts)


def directory() -> Path | None:
    """A folder of this trial alone, which outlives the process: for checkpoints. None outside a search."""
    trial = _current.get()
    return None if trial is None else trial.directory()


def pauses() -> bool:
    """Whether the trial, where `report` has said that it should stop, may go on later from what it keeps."""
    trial = _current.get()
    return trial is not None and trial.pauses


def current() -> Trial | None:
    return _current.get()


@contextmanager
def working_on(trial: Trial) -> Iterator[None]:
    """Until the end of the block, this thread works on that trial."""
    token = _current.set(trial)
    try:
        yield
    finally:
        _current.reset(token)
