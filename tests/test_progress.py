"""What a person sees while runs train: live lines on a terminal, plain ones in a pipe."""

from __future__ import annotations

import io
import math
import time

import pytest
from rich.console import Console

from cifarsweep import progress
from cifarsweep.progress import Display, Stage, Whole, _whole_line


def screen(width: int = 80, terminal: bool = True) -> tuple[Display, Console]:
    console = Console(file=io.StringIO(), width=width, force_terminal=terminal, highlight=False)
    display = Display(console)
    display._open = lambda: None  # type: ignore[method-assign]  # drawn by `lines` alone
    return display, console


def lines(display: Display, console: Console) -> list[str]:
    file = io.StringIO()
    Console(file=file, width=console.width, color_system=None).print(display._lines())
    return [line.rstrip() for line in file.getvalue().splitlines() if line.strip()]


def stage(done: int, title: str = "seed=1", accuracy: str = "val 81.2%") -> Stage:
    return Stage(title, 1 + done // 100, 8, accuracy, done, 800)


def test_a_worker_has_a_line_with_configuration_epoch_accuracy_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    display, console = screen()
    clock = iter([0.0, 10.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    display.handle(0, ("advance", stage(100)))
    display.handle(0, ("advance", stage(200)))  # 100 batches in 10 s, 600 are left
    (line,) = lines(display, console)
    assert line.split()[:5] == ["seed=1", "epoch", "3/8", "val", "81.2%"]
    assert line.endswith("60 s left")


@pytest.mark.parametrize("width", [40, 80, 120])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    display, console = screen(width)
    display.handle(0, ("advance", stage(100, title="optimizer=momentum optimizer.lr=0.1 " * 5)))
    display.whole(Whole("some-sweep: 3/9 done, 1 failed, " + "best " * 30, 3, 3, 9))
    found = lines(display, console)
    assert len(found) == 2
    assert all(len(line) <= width for line in found)


def test_the_sweep_has_the_last_line_until_it_is_closed() -> None:
    display, console = screen()
    display.whole(Whole("some-sweep: 3/9 done", 3, 3, 9))
    display.handle(0, ("advance", stage(1)))
    assert lines(display, console)[-1].startswith("some-sweep: 3/9 done")
    display.end(0)
    assert lines(display, console) == [lines(display, console)[-1]]
    display.close()
    assert lines(display, console) == []


@pytest.mark.parametrize(
    ("whole", "seconds", "text"),
    [
        (Whole("x", 0, 0, 9), 10, "x"),
        (Whole("x", 3, 3, 9), 30, "x, about 60 s left"),
        (Whole("x", 6, 3, 9), 30, "x, about 30 s left"),  # three of the six cost nothing
        (Whole("x", 3, 3, 9, most_seconds=20), 30, "x, about 20 s left"),
        (Whole("x", 9, 9, 9), 90, "x"),
    ],
)
def test_the_time_left_counts_the_work_that_was_done(whole: Whole, seconds: float, text: str) -> None:
    assert whole.most_seconds in (math.inf, 20)
    assert _whole_line(whole, time.monotonic() - seconds, []) == text


def test_a_pipe_gets_plain_lines_and_nothing_live(capsys: pytest.CaptureFixture[str]) -> None:
    display, console = screen(terminal=False)
    display.handle(0, ("advance", stage(1)))
    display.whole(Whole("x", 0, 0, 9))
    display.handle(0, ("line", "epoch 1/8"))
    assert capsys.readouterr().out == "epoch 1/8\n"
    assert lines(display, console) == []


def test_without_details_only_results_are_told() -> None:
    heard: list[progress.Event] = []
    before = progress._hear
    try:
        progress.send_to(heard.append, details=False)
        progress.detail("epoch 1/8")
        progress.result("test accuracy")
        with progress.quiet():
            progress.result("quiet")
    finally:
        progress.send_to(before)
    assert heard == [("line", "test accuracy")]
