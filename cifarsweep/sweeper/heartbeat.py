"""Whether a worker is alive, told by files that every process of a study can see. Knows nothing of trials."""

import contextlib
import os
import re
import secrets
import socket
import threading
import time
from pathlib import Path
from typing import Self

from cifarsweep.results import files
from cifarsweep.results.locks import file_lock, is_held


class Heartbeat:
    """This worker is alive from entering the block to leaving it.

    It holds a lock that the operating system frees when the process dies, and a thread touches the file. On the same
    host the lock decides, at once and even where the worker only stalls. Across hosts the file's age decides.
    """

    def __init__(self, folder: Path, grace_period: float) -> None:
        self.id = f"{_host()}--{os.getpid()}-{secrets.token_hex(4)}"
        self._path = folder / self.id
        self._interval = grace_period / 5
        self._over = threading.Event()

    def __enter__(self) -> Self:
        files.make_folder(self._path.parent, below=self._path.parents[2])
        self._lock = file_lock(self._path)
        self._lock.acquire()
        threading.Thread(target=self._touch, daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._over.set()
        self._lock.release()
        self._path.unlink(missing_ok=True)

    def _touch(self) -> None:
        while not self._over.wait(self._interval):
            with contextlib.suppress(OSError):  # a moment without the file system is what the grace period is for
                os.utime(self._path)


def _host() -> str:
    """Its name as part of a file's name; empty where it has none."""
    with contextlib.suppress(OSError, UnicodeError):
        return re.sub(r"[^A-Za-z0-9_.-]", "_", socket.gethostname())
    return ""


def is_check_due(folder: Path, grace_period: float) -> bool:
    """Whether to look for dead workers now: True for one caller in a fifth of the grace period, or a few at once.

    If each worker checked all others before each trial, it would cost the file system the square of their number.
    """
    checked = folder / ".checked"
    with contextlib.suppress(FileNotFoundError):
        if abs(time.time() - checked.stat().st_mtime) < grace_period / 5:
            return False
    checked.touch()
    return True


def is_alive(folder: Path, worker: str, grace_period: float) -> bool:
    path = folder / worker
    if not path.exists():
        return False
    if worker.rpartition("--")[0] != _host():
        probe = folder / f".now-{os.getpid()}-{time.monotonic_ns()}"
        probe.touch()
        try:  # by the clock of the file server, which also dates the touched files
            return probe.stat().st_mtime - path.stat().st_mtime < grace_period
        finally:
            probe.unlink(missing_ok=True)
    if is_held(path):
        return True
    path.unlink(missing_ok=True)
    return False
