"""One lock for all: between threads, processes and hosts, with Optuna's own, without flock."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import REPOSITORY
from optuna.storages.journal import JournalFileOpenLock, JournalFileSymlinkLock

from cifarsweep.results import files, locks
from cifarsweep.results.locks import Lock

ELSEWHERE = "from cifarsweep.results import locks; locks._PLACE = 'elsewhere'\n"
"""What makes a process look as if it were on another host."""
HOLD = """
import sys, time; from pathlib import Path; from cifarsweep.results.locks import Lock, Lost
lock = Lock(Path(sys.argv[1]), lease=float(sys.argv[2]))
lock.acquire()
print("holds", flush=True)
input()
try:
    lock.check()
    print("writes", flush=True)
except Lost as error:
    print(error, flush=True)
lock.release()
"""


@pytest.fixture
def hold(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a process that holds the lock `x`, and writes or finds it lost when it gets a line."""
    started = []

    def start(code: str = "", lease: float = 30) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", code + HOLD, str(tmp_path / "x"), str(lease)]
        process = subprocess.Popen(command, stdin=-1, stdout=-1, text=True, cwd=REPOSITORY)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "holds\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def waited(lock: Lock) -> float:
    began = time.monotonic()
    with lock:
        return time.monotonic() - began


# who holds it


def count(path: str, times: int) -> None:
    lock = Lock(Path(path, "x"))
    for _ in range(times):
        with lock:
            number = int(Path(path, "number").read_text())
            Path(path, "number").write_text(str(number + 1))


def test_processes_exclude_each_other(tmp_path: Path) -> None:
    (tmp_path / "number").write_text("0")
    spawn = multiprocessing.get_context("spawn")
    started = [spawn.Process(target=count, args=(str(tmp_path), 100)) for _ in range(4)]
    for process in started:
        process.start()
    for process in started:
        process.join()
    assert (tmp_path / "number").read_text() == "400"
    assert [path.name for path in tmp_path.iterdir()] == ["number"]


def test_threads_exclude_each_other_and_a_thread_may_hold_it_twice(tmp_path: Path) -> None:
    lock = Lock(tmp_path / "x")
    with lock, lock:
        thread = threading.Thread(target=lambda: answers.append(lock.acquire(timeout=0.1)))
        answers: list[bool] = []
        thread.start()
        thread.join()
        assert answers == [False]
        assert locks.is_held(tmp_path / "x")
    assert not locks.is_held(tmp_path / "x")


def test_what_a_killed_process_held_is_free_at_once(tmp_path: Path, hold: Callable[..., subprocess.Popen[str]]) -> None:
    holder = hold()
    assert locks.is_held(tmp_path / "x")
    holder.kill()  # and is not waited for: a zombie holds nothing
    assert waited(Lock(tmp_path / "x")) < 2
    assert not any(".x." in path.name for path in tmp_path.iterdir())


def test_a_process_that_only_stalls_on_this_host_keeps_it(
    tmp_path: Path, hold: Callable[..., subprocess.Popen[str]]
) -> None:
    os.kill(hold(lease=0.2).pid, signal.SIGSTOP)
    time.sleep(1)
    assert not Lock(tmp_path / "x").acquire(timeout=0.2)


def test_a_process_that_is_busy_on_another_host_keeps_it(
    tmp_path: Path, hold: Callable[..., subprocess.Popen[str]]
) -> None:
    holder = hold(ELSEWHERE, lease=2)
    assert not Lock(tmp_path / "x").acquire(timeout=5)
    assert holder.communicate("\n") == ("writes\n", None)
    assert Lock(tmp_path / "x").acquire(timeout=0)


def test_a_host_that_froze_loses_it_after_a_lease_and_finds_out_before_it_writes(
    tmp_path: Path, hold: Callable[..., subprocess.Popen[str]]
) -> None:
    holder = hold(ELSEWHERE, lease=2)
    os.kill(holder.pid, signal.SIGSTOP)
    assert locks.is_held(tmp_path / "x")
    lock = Lock(tmp_path / "x")
    assert lock.acquire(timeout=10)
    os.kill(holder.pid, signal.SIGCONT)
    out, _ = holder.communicate("\n")
    assert out.endswith("x: this process gave no sign of life for 2 s, and another one has taken its work over\n")
    lock.check()  # what the other one does at its end leaves it alone
    lock.release()


def test_of_many_that_take_it_over_at_once_one_has_it(tmp_path: Path) -> None:
    (tmp_path / "number").write_text("0")
    started = []
    for round in range(1, 4):
        (tmp_path / "x").write_text("left by a process that is gone")
        os.utime(tmp_path / "x", (1, 1))
        started = [
            multiprocessing.get_context("spawn").Process(target=count, args=(str(tmp_path), 5)) for _ in range(4)
        ]
        for process in started:
            process.start()
        for process in started:
            process.join()
        assert (tmp_path / "number").read_text() == str(round * 20)


def test_a_step_is_taken_again_where_it_finds_out_that_the_lock_was_lost(tmp_path: Path) -> None:
    lock, taken = Lock(tmp_path / "x"), []

    def step() -> int:
        taken.append(1)
        if len(taken) == 1:
            (tmp_path / "x").write_text("another's")
            os.utime(tmp_path / "x", (1, 1))
        lock.check()
        return len(taken)

    assert lock(step) == 2


# Optuna's own locks


@pytest.mark.parametrize("kind", [JournalFileSymlinkLock, JournalFileOpenLock])
def test_optunas_locks_and_ours_exclude_each_other_without_delay(tmp_path: Path, kind: type) -> None:
    (tmp_path / "study.journal").touch()
    theirs, ours = kind(str(tmp_path / "study.journal")), Lock(tmp_path / "study.journal.lock")
    theirs.acquire()
    assert not ours.acquire(timeout=0.1)
    theirs.release()
    with ours:
        thread = threading.Thread(target=theirs.acquire)
        thread.start()
        thread.join(0.3)
        assert thread.is_alive()
    thread.join(3)  # it asks at least once a second
    assert not thread.is_alive()
    theirs.release()


@pytest.mark.parametrize("kind", [JournalFileSymlinkLock, JournalFileOpenLock])
def test_what_a_tool_of_optuna_left_is_free_after_the_time_that_optuna_waits(tmp_path: Path, kind: type) -> None:
    kind(str(tmp_path / "study.journal")).acquire()
    lock = tmp_path / "study.journal.lock"
    assert locks.is_held(lock)
    left = time.time() - locks.LEASE - 1
    os.utime(lock, (left, left), follow_symlinks=False)
    assert waited(Lock(lock)) < 2


# what a stranger's folder may hold


def test_a_full_disk_leaves_no_lock_behind(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    lock = Lock(tmp_path / "lock")
    for room in (0, 10):  # Python ignores SIGXFSZ, so that a write beyond the limit is cut short or an error
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
        try:
            with pytest.raises(OSError, match="File too large"):
                lock.acquire(timeout=0)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert lock.acquire(timeout=0)
    lock.release()


def test_a_link_in_its_place_is_taken_away_and_never_followed(tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("secret")
    (tmp_path / "x").symlink_to(tmp_path / "outside")
    assert not Lock(tmp_path / "x").acquire(timeout=0)
    os.utime(tmp_path / "x", (1, 1), follow_symlinks=False)
    with Lock(tmp_path / "x"):
        assert not (tmp_path / "x").is_symlink()
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("outside", "secret")]
    (tmp_path / "folder").symlink_to(tmp_path)
    with pytest.raises(files.Corrupt, match="folder: a symbolic link"):
        Lock(tmp_path / "folder" / "x")


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_what_can_be_no_lock_is_named(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "x")
    with pytest.raises(files.Corrupt, match="x: "):
        Lock(tmp_path / "x").acquire()
    with pytest.raises(files.Corrupt, match="x: "):
        locks.is_held(tmp_path / "x")
