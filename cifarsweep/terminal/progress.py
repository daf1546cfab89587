"""What a person sees while runs train: live lines on a terminal, plain ones elsewhere. Knows nothing of runs.

A run says what happens by `line`, `result`, `detail`, `track` and `end`; the process decides who hears it: this
process's display, or the parent of a worker process, which shows all its workers on one screen.
"""

import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from cifarsweep.terminal import formatting
from cifarsweep.terminal.formatting import duration, shortened
from cifarsweep.terminal.streams import write_line

Event = tuple[str, Any]
Source = int | str
BAR_WIDTH = 12
KEPT_FREE = 3
"""Columns behind a line: in the last two a terminal would begin another line for the `^C` that it echoes."""
LEAST_TITLE = 8
"""Columns; on a terminal so narrow that less is left, the line's end is cut instead."""


@dataclass(frozen=True)
class Stage:
    """Where a run stands. `done` of `total` batches are trained."""

    title: str
    epoch: int
    num_epochs: int
    accuracy: str
    """Of the last epoch, as it is shown: val 81.2 %; empty before there is one."""
    done: int
    total: int


@dataclass(frozen=True)
class Whole:
    """Where a sweep stands: `done` of `total` runs have ended, or that much of a budget is spent.

    `worked` is the part of `done` that was worked for since the start.
    """

    text: str
    done: float
    worked: float
    total: float
    most_seconds: float = math.inf
    """The time left is not more than this, as a search may have to stop."""


@dataclass
class _Watched:
    """A run on the screen. Its clock starts at its first batch in this process: a resumed run has batches before."""

    stage: Stage
    since: float
    first: int
    now: float

    @property
    def gained(self) -> int:
        """Batches since the clock started."""
        return self.stage.done - self.first


class Display:
    """Shows the events of several sources, each of which trains one run at a time. Any thread may call it."""

    def __init__(self, console: Console | None = None) -> None:
        self._lock = threading.RLock()
        self._console = console or Console(
            # rich takes FORCE_COLOR, which notebooks and CI set, for a terminal, and fills a file with live lines.
            force_terminal=sys.stdout is not None and sys.stdout.isatty(),
            force_jupyter=False,
            highlight=False,
            markup=False,
            emoji=False,
            soft_wrap=True,
        )
        self._live: Live | None = None
        self._watched: dict[Source, _Watched] = {}
        self._whole: tuple[Whole, float] | None = None

    @property
    def is_live(self) -> bool:
        """Whether there are live lines, so that a line an epoch would tell nothing new."""
        return self._console.is_terminal

    def handle(self, source: Source, event: Event) -> None:
        kind, value = event
        if kind == "line":
            self.line(value)
        elif kind == "advance" and self._console.is_terminal:
            with self._lock:
                now = time.monotonic()
                run = self._watched.setdefault(source, _Watched(value, now, value.done, now))
                run.stage, run.now = value, now
                self._open()
        elif kind == "end":
            self.end(source)

    def line(self, text: str, error: bool = False) -> None:
        """A line that stays. Errors go to stderr, past the live lines where both are a terminal."""
        if error and not (self._live and sys.stderr and sys.stderr.isatty()):
            write_line(text, sys.stderr)
        elif self._live:
            self._live.console.print(formatting.line(text))
        else:
            write_line(text, sys.stdout)

    def whole(self, now: Whole) -> None:
        """The last of the live lines, until `close`."""
        if self._console.is_terminal:
            with self._lock:
                self._whole = now, self._whole[1] if self._whole else time.monotonic()
                self._open()

    def end(self, source: Source) -> None:
        with self._lock:
            self._watched.pop(source, None)
            if not self._watched and not self._whole:
                self.close()

    def close(self) -> None:
        """Gives the terminal back."""
        with self._lock:
            live, self._live, self._whole = self._live, None, None
            self._watched.clear()
            if live:
                live.stop()

    def abandon(self) -> None:
        """Shows the cursor again, for a process that ends at once: no lock is waited for."""
        if self._console.is_terminal:
            sys.stdout.write("\x1b[?25h\n")
            sys.stdout.flush()

    def _open(self) -> None:
        if self._live is None:
            self._live = Live(get_renderable=self._lines, console=self._console, transient=True)
            self._live.start()

    def _lines(self) -> Group:
        """Called by rich's own thread, which holds rich's lock: taking ours here could wait for it forever."""
        watched, whole, width = list(self._watched.values()), self._whole, self._console.width
        parts: list[Table | Text] = [live_table(watched, width)] if watched else []
        if whole:
            parts.append(Text(shortened(_whole_line(*whole, watched), width - KEPT_FREE), no_wrap=True, end=""))
        return Group(*parts)


def live_table(watched: list[_Watched], width: int) -> Table:
    """A line a run: configuration, epoch, accuracy, a bar where the terminal is wide enough for it, time left."""
    cells = []
    for run in watched:
        stage, time_left = run.stage, ""
        if run.gained > 0:
            seconds = (run.now - run.since) / run.gained * (stage.total - stage.done)
            time_left = f"{duration(seconds)} left"
        cells.append((stage.title, f"epoch {stage.epoch}/{stage.num_epochs}", stage.accuracy, time_left))
    room = width - sum(max(len(row[i]) for row in cells) for i in range(1, 4)) - 2 * 3 - KEPT_FREE
    has_bar = room - BAR_WIDTH - 2 >= max(len(row[0]) for row in cells)
    table = Table.grid(padding=(0, 2, 0, 0))
    for _ in range(4 + has_bar):
        table.add_column(no_wrap=True)
    table.columns[1].justify = "right"
    for run, (title, epoch, accuracy, time_left) in zip(watched, cells, strict=True):
        bar = [ProgressBar(max(run.stage.total, 1), run.stage.done, BAR_WIDTH)] if has_bar else []
        table.add_row(Text(shortened(title, max(room, LEAST_TITLE))), epoch, accuracy, *bar, time_left)
    return table


def _whole_line(whole: Whole, since: float, watched: list[_Watched]) -> str:
    parts = sum(run.gained / max(run.stage.total, 1) for run in watched)
    worked, left = whole.worked + parts, whole.total - whole.done - parts
    if worked < 0.02 or left <= 0:  # too early to say
        return whole.text
    seconds = min((time.monotonic() - since) / worked * left, whole.most_seconds)
    return f"{whole.text}, about {duration(seconds)} left"


display = Display()
"""This process's terminal."""

_hear: Callable[[Event], None] = lambda event: display.handle(os.getpid(), event)  # noqa: E731
_details = True
_quiet = False


def send_to(hear: Callable[[Event], None], details: bool = True) -> None:
    """From now on the events of this process go to `hear`; without `details`, no line an epoch."""
    global _hear, _details
    _hear, _details = hear, details


def line(text: str) -> None:
    _hear(("line", text))


def result(text: str) -> None:
    """The line that a run ends with; not shown inside `quiet`."""
    if not _quiet:
        _hear(("line", text))


def detail(text: str) -> None:
    """A line on the way, such as an epoch's; shown neither inside `quiet` nor where live lines say it."""
    if _details:
        result(text)


@contextmanager
def quiet() -> Iterator[None]:
    """Inside, lines of single runs are left out, for a caller that sums up many."""
    global _quiet
    before, _quiet = _quiet, True
    try:
        yield
    finally:
        _quiet = before


def began() -> None:
    """Says that the job has begun a new part of its work: a death from now on is not the fault of its start."""
    _hear(("began", None))


def end() -> None:
    """The run is over; its live line goes."""
    _hear(("end", None))


def track(batches: Iterable[Any], stage: Stage) -> Iterator[Any]:
    """The batches, counted on the live line from the stage's `done` on, at most five times a second."""
    shown, done = 0.0, stage.done
    for batch in batches:
        if (now := time.monotonic()) - shown > 0.2:
            _hear(("advance", replace(stage, done=done)))
            shown = now
        yield batch
        done += 1
