"""What a person sees while runs train: a bar a run on a terminal, one line an epoch elsewhere. Knows nothing of runs.

A run says what happens by `line`, `track` and `end`; the process decides who hears it: this process's display, or
the parent of a worker process, which shows all its workers on one screen.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

Event = tuple[str, Any]


class Display:
    """Shows the events of several sources, each of which trains one run at a time."""

    def __init__(self) -> None:
        self._console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
        self._bars: Progress | None = None
        self._tasks: dict[int, TaskID] = {}

    def handle(self, source: int, event: Event) -> None:
        kind, value = event
        if kind == "line":
            self.line(value)
        elif kind == "advance" and self._console.is_terminal:
            self._advance(source, *value)
        elif kind == "end":
            self.end(source)

    def line(self, text: str, error: bool = False) -> None:
        """A line that stays. Errors go to stderr, past the bars where both are a terminal."""
        if error and not (self._bars and sys.stderr.isatty()):
            print(text, file=sys.stderr, flush=True)
        elif self._bars:
            self._bars.console.print(text)
        else:
            print(text, flush=True)

    def end(self, source: int) -> None:
        task = self._tasks.pop(source, None)
        if self._bars and task is not None:
            self._bars.remove_task(task)
        if not self._tasks:
            self.close()

    def close(self) -> None:
        """Gives the terminal back."""
        if self._bars:
            self._bars.stop()
        self._bars = None
        self._tasks.clear()

    def _advance(self, source: int, title: str, done: int, total: int) -> None:
        if self._bars is None:
            columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeRemainingColumn())
            self._bars = Progress(*columns, console=self._console, transient=True)
            self._bars.start()
        if source not in self._tasks:
            self._tasks[source] = self._bars.add_task(title, total=total)
        self._bars.update(self._tasks[source], description=title, completed=done, total=total)


_display = Display()
_hear: Callable[[Event], None] = lambda event: _display.handle(os.getpid(), event)  # noqa: E731


def send_to(hear: Callable[[Event], None]) -> None:
    """From now on the events of this process go to `hear`."""
    global _hear
    _hear = hear


def line(text: str) -> None:
    _hear(("line", text))


def end() -> None:
    """The run is over; its bar goes."""
    _hear(("end", None))


def track(batches: Iterable[Any], title: str, done: int, total: int) -> Iterator[Any]:
    """The batches, counted on the bar from `done` on, at most five times a second."""
    shown = 0.0
    for batch in batches:
        if (now := time.monotonic()) - shown > 0.2:
            _hear(("advance", (title, done, total)))
            shown = now
        yield batch
        done += 1
