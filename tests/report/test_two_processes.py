"""The second process of a report: the same answers with it, without it, and where it fails."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from cifarsweep.report import two_processes

HERE = os.getpid()
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks on Linux only")


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    monkeypatch.setattr(threading, "active_count", lambda: 1)  # pytest-xdist has a thread


def where(items: Sequence[int]) -> list[tuple[int, bool]]:
    return [(item, os.getpid() == HERE) for item in items]


def test_each_half_has_a_process() -> None:
    answers = two_processes.in_two_processes(where, range(5))
    assert sorted(answers) == [
        (0, True),
        (1, False),
        (2, True),
        (3, False),
        (4, True),
    ]
    assert two_processes.in_two_processes(where, []) == []


@pytest.mark.parametrize(("cores", "threads"), [({0}, 1), ({0, 1}, 2)])
def test_one_core_or_a_thread_means_one_process(cores: set[int], threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: cores)
    monkeypatch.setattr(threading, "active_count", lambda: threads)
    assert two_processes.in_two_processes(where, range(3)) == [(0, True), (1, True), (2, True)]


def killed(items: Sequence[int]) -> list[int]:
    if os.getpid() != HERE:
        os.kill(os.getpid(), signal.SIGKILL)
    return list(items)


def failing(items: Sequence[int]) -> list[int]:
    if os.getpid() != HERE:
        raise MemoryError
    return list(items)


@pytest.mark.parametrize("work", [killed, failing])
def test_the_half_of_a_lost_process_is_done_here(work: Callable[[Sequence[int]], list[int]]) -> None:
    assert sorted(two_processes.in_two_processes(work, range(5))) == [0, 1, 2, 3, 4]


def test_a_mistake_comes_from_this_process_and_ends_the_other(tmp_path: Path) -> None:
    def work(items: Sequence[int]) -> list[int]:
        if os.getpid() != HERE:
            (tmp_path / "other").write_text(str(os.getpid()))
            signal.pause()
        while not (tmp_path / "other").exists() or not (tmp_path / "other").read_text():
            pass
        raise OSError("full")

    with pytest.raises(OSError, match="full"):
        two_processes.in_two_processes(work, range(5))
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "other").read_text()), 0)
