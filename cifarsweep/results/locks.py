"""Locks between processes. Knows nothing of what they guard."""

import os
from pathlib import Path
from typing import Any, Self

from filelock import FileLock, Timeout

from cifarsweep.results import files

fcntl: Any
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


def file_lock(path: Path, poll_interval: float = 0.05) -> FileLock:
    """A lock on the file, whose folder is made. files.Corrupt where a link or something else is in its place.

    filelock before 3.20 empties whatever file a link leads to.
    """
    files.make_folder(path.parent)
    files.check_file(path)
    return FileLock(path, poll_interval=poll_interval)


class Lock:
    """Held by one process at a time, as often as it likes; free again when its holder dies.

    filelock asks again and again until a lock is free: with eight workers and trials of a few milliseconds that took
    four fifths of the time (measured). Here the system wakes the next one.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._depth, self._descriptor = path, 0, -1
        self._polled = file_lock(path, poll_interval=0.002)

    def acquire(self) -> None:
        if self._depth == 0:
            if fcntl is None:
                self._polled.acquire()
            else:
                self._descriptor = files.opener(str(self._path), os.O_RDWR | os.O_CREAT)
                fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        self._depth += 1

    def release(self) -> None:
        self._depth -= 1
        if self._depth == 0:
            if fcntl is None:
                self._polled.release()
            else:
                os.close(self._descriptor)

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *exception: Any) -> None:
        self.release()


def is_held(path: Path) -> bool:
    """Whether a process holds the lock on this file, which need not be writable."""
    try:
        with file_lock(path).acquire(blocking=False):
            return False
    except Timeout:
        return True
    except OSError:  # not writable: asks as FileLock does, but on a file opened for reading
        if fcntl is None:  # Windows
            return False
        with files.opened(path) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False
