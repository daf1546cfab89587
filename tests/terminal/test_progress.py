"""Live lines: what they say, and that a terminal is left as it was found."""

from __future__ import annotations

import io
import os
import pty
import re
import select
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import start_python
from rich.console import Console

from cifarsweep.results import sweeps
from cifarsweep.terminal import progress
from cifarsweep.terminal.progress import Display, Stage, Whole

HIDE_CURSOR, SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time in seconds, to be set by a test."""
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    return clock


@pytest.fixture
def display() -> Iterator[Display]:
    console = Console(file=io.StringIO(), force_terminal=True, width=100, markup=False, highlight=False)
    shown = Display(console)
    yield shown
    shown.close()


def lines(display: Display, width: int = 100) -> list[str]:
    """The live lines, as they stand on a terminal of that width."""
    display._console.width = width
    plain = Console(file=io.StringIO(), width=width, color_system=None)
    plain.print(display._lines())
    return [line.rstrip() for line in plain.file.getvalue().splitlines()]  # type: ignore[attr-defined]


def advance(
    display: Display, source: int, done: int, *, title: str = "model=layers2", accuracy: str = "val 81.2%"
) -> None:
    display.handle(source, ("advance", Stage(title, 3, 16, accuracy, done, 100)))


def test_a_line_says_configuration_epoch_accuracy_and_time_left(display: Display, now: list[float]) -> None:
    advance(display, 0, 20)
    now[0] = 30
    advance(display, 0, 40)  # 20 of 100 batches in 30 s
    (line,) = lines(display)
    assert line.startswith("model=layers2  epoch 3/16  val 81.2%  ")
    assert line.endswith("90 s left")


def test_each_worker_has_a_line_and_the_sweep_has_the_last(display: Display, now: list[float]) -> None:
    display.whole(Whole("depth: 1/4 done, 1 failed", 1, 1, 4))
    advance(display, 0, 0, title="model=layers2")
    advance(display, 1, 0, title="model=layers3")
    now[0] = 60
    advance(display, 0, 50, title="model=layers2")
    advance(display, 1, 50, title="model=layers3")
    first, second, whole = lines(display)
    assert first.startswith("model=layers2")
    assert second.startswith("model=layers3")
    # 60 s for one run and two halves; two runs' work is left.
    assert whole == "depth: 1/4 done, 1 failed, about 60 s left"


def test_runs_that_were_trained_before_do_not_shorten_the_time_left(display: Display, now: list[float]) -> None:
    display.whole(Whole("depth: 0/4 done", 0, 0, 4))
    now[0] = 100
    display.whole(Whole("depth: 3/4 done", 3, 1, 4))
    assert lines(display) == ["depth: 3/4 done, about 100 s left"]


def test_a_search_that_has_to_stop_has_no_more_time_left_than_until_then(display: Display, now: list[float]) -> None:
    display.whole(Whole("search: 0 done", 0, 0, 4))
    now[0] = 100
    display.whole(Whole("search: 1 done", 1, 1, 4, most_seconds=20))
    assert lines(display) == ["search: 1 done, about 20 s left"]


def test_a_run_that_goes_on_is_timed_from_where_it_goes_on(display: Display, now: list[float]) -> None:
    advance(display, 0, 90)
    now[0] = 10
    advance(display, 0, 95)
    assert lines(display)[0].endswith("  10 s left")


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_long_configuration_pushes_no_figure_off_the_line(display: Display, now: list[float], width: int) -> None:
    title = "model=layers4 optimizer=adamw optimizer.lr=0.0031622776601683794 batch_size=128 seed=4"
    advance(display, 0, 0, title=title)
    now[0] = 10
    advance(display, 0, 10, title=title)
    (line,) = lines(display, width)
    assert len(line) < width
    assert "epoch 3/16  val 81.2%" in line
    assert line.endswith("90 s left")
    assert line.startswith("model=")


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_echo_of_ctrl_c_fits_behind_every_line(display: Display, now: list[float], width: int) -> None:
    """Where it does not, the terminal begins another line, and the first of the live lines is not taken away."""
    display.whole(Whole("a-long-name " * 20, 0, 0, 4))
    for source in range(2):
        advance(display, source, 0, title="model=layers4 optimizer=adamw optimizer.lr=0.0031622776601683794 " * 2)
        now[0] += 10
        advance(display, source, 10, title="model=layers4 optimizer=adamw optimizer.lr=0.0031622776601683794 " * 2)
    assert max(len(line + "^C") for line in lines(display, width)) < width


def test_the_bar_goes_before_the_configuration_is_cut(display: Display, now: list[float]) -> None:
    advance(display, 0, 50, title="model=layers2 seed=0 batch_size=501")
    assert "━" in lines(display, 100)[0]
    assert "━" not in lines(display, 70)[0]
    assert "batch_size=501" in lines(display, 70)[0]


def test_names_are_no_markup_and_move_no_cursor(display: Display, now: list[float]) -> None:
    advance(display, 0, 0, title="[red]x\x1b[2J")
    assert lines(display)[0].startswith("[red]x\N{REPLACEMENT CHARACTER}[2J")


def test_the_last_run_that_ends_gives_the_terminal_back(display: Display, now: list[float]) -> None:
    advance(display, 0, 0)
    advance(display, 1, 0)
    display.end(0)
    assert display._live is not None
    display.end(1)
    assert display._live is None
    written = display._console.file.getvalue()  # type: ignore[attr-defined]
    assert written.rindex(SHOW_CURSOR) > written.rindex(HIDE_CURSOR)


def test_in_a_pipe_there_are_plain_lines_only(capsys: pytest.CaptureFixture[str]) -> None:
    piped = Display(Console(file=io.StringIO()))
    piped.whole(Whole("depth: 0/4 done", 0, 0, 4))
    piped.handle(0, ("advance", Stage("a", 1, 2, "", 0, 10)))
    piped.handle(0, ("line", "epoch 1/2"))
    assert capsys.readouterr().out == "epoch 1/2\n"
    assert piped._console.file.getvalue() == ""  # type: ignore[attr-defined]


def test_lines_of_single_runs_are_left_out_where_something_else_says_them(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[str] = []
    monkeypatch.setattr(progress, "_details", True)
    monkeypatch.setattr(progress, "_hear", None)
    for details in (True, False):
        progress.send_to(lambda event: heard.append(event[1]), details)
        progress.detail(f"epoch {details}")
        progress.result(f"end {details}")
        with progress.quiet():
            progress.detail("never")
            progress.result("never")
    assert heard == ["epoch True", "end True", "end False"]


# a real terminal


def read_until(terminal: int, words: list[bytes], seconds: float = 60) -> bytes:
    """What the terminal shows until it has shown all the words, or its process has ended."""
    seen, deadline = b"", time.monotonic() + seconds
    while not all(word in seen for word in words) and time.monotonic() < deadline:
        if select.select([terminal], [], [], 0.2)[0]:
            try:
                seen += os.read(terminal, 65536)
            except OSError:  # the other side is closed
                break
    return seen


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo terminal")
def test_a_sweep_on_a_terminal_has_live_lines_and_ctrl_c_leaves_the_cursor(small: list[str], tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    words = ["-m", *small, "trainer.epochs=100000", "seed=0,1,2", "hydra.launcher.n_workers=1", "name=long"]
    terminal = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
    process = start_python("-m", "cifarsweep", *words, cwd=tmp_path, **terminal, TERM="xterm", COLUMNS="100")
    os.close(theirs)
    seen = read_until(ours, [b"/100000  val ", b"long: 0/3 done"])  # of whatever epoch is the first to be shown
    os.killpg(process.pid, signal.SIGINT)
    seen += read_until(ours, [b"interrupted"])
    process.wait(timeout=30)
    os.close(ours)
    shown = seen.decode(errors="replace")
    assert re.search(r"seed=0  epoch \d+/100000  val ", shown)
    assert "long: 0/3 done" in shown
    assert "images/s" not in shown  # no line an epoch, as the live line says it
    assert shown.rindex(SHOW_CURSOR) > shown.rindex(HIDE_CURSOR)
    assert process.returncode == 130
    sweep = tmp_path / "outputs" / "sweeps" / "long"
    assert (sweeps.state(sweep), sweeps.total(sweep)) == ("interrupted", 3)
