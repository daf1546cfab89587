"""What a person sees while runs train: a bar a run on a terminal, one line an epoch elsewhere. Knows nothing of runs.

A run says what happens by `line`, `detail`, `track` and `end`; the process decides who hears it: this process's
display, or the parent of a worker process, which shows all its workers on one screen.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

Event = tuple[str, Any]
Source = int | str


class Display:
    """Shows the events of several sources, each of which trains one run at a time. Any thread may call it."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
        self._bars: Progress | None = None
        self._tasks: dict[Source, TaskID] = {}

    def handle(self, source: Source, event: Event) -> None:
        kind, value = event
        if kind == "line":
            self.line(value)
        elif kind == "advance" and self._console.is_terminal:
            with self._lock:
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

    def end(self, source: Source) -> None:
        with self._lock:
            task = self._tasks.pop(source, None)
            if self._bars and task is not None:
                self._bars.remove_task(task)
            if not self._tasks:
                self.close()

    def close(self) -> None:
        """Gives the terminal back."""
        with self._lock:
            if self._bars:
                self._bars.stop()
            self._bars = None
            self._tasks.clear()

    def abandon(self) -> None:
        """Shows the cursor again, for a process that ends at once: no lock is waited for."""
        if self._console.is_terminal:
            sys.stdout.write("\x1b[?25h\n")
            sys.stdout.flush()

    def _advance(self, source: Source, title: str, done: int, total: int) -> None:
        if self._bars is None:
            columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeRemainingColumn())
            self._bars = Progress(*columns, console=self._console, transient=True)
            self._bars.start()
        if source not in self._tasks:
            self._tasks[source] = self._bars.add_task(title, total=total)
        self._bars.update(self._tasks[source], description=title, completed=done, total=total)


display = Display()
"""This process's terminal."""

_hear: Callable[[Event], None] = lambda event: display.handle(os.getpid(), event)  # noqa: E731
_quiet = False


def send_to(hear: Callable[[Event], None]) -> None:
    """From now on the events of this process go to `hear`."""
    global _hear
    _hear = hear


def line(text: str) -> None:
    _hear(("line", text))


def detail(text: str) -> None:
    """A line of one run, as an epoch's; not shown inside `quiet`."""
    if not _quiet:
        _hear(("line", text))


@contextmanager
def quiet() -> Iterator[None]:
    """Without details: for whoever sums up many runs."""
    global _quiet
    before, _quiet = _quiet, True
    try:
        yield
    finally:
        _quiet = before


def began() -> None:
    """The job has begun a new part of its work: that its process may die from now on is not the fault of its start."""
    _hear(("began", None))


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
