"""Locks between processes, on any host and any file system. Knows nothing of what they guard.

A lock is held while its file is there. Optuna's locks of a journal say the same, so that Optuna's own tools and ours
exclude each other. The file tells who holds it. On one host it is free once that process is gone, and never before. On
another host it is free once the holder has given no sign of life for a lease, as a host that froze.
"""

import contextlib
import errno
import os
import re
import secrets
import socket
import stat
import tempfile
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar

from cifarsweep.results import files

LEASE = 30.0
"""Seconds. As long as Optuna's tools wait for a holder that is silent. It is renewed by a thread, five times as often,
so that a process may be busy as long as it likes."""
_CONTENT = re.compile(r"(?P<pid>\d{1,9}) (?P<started>\S+) (?P<lease>\d+\.\d+) (?P<token>\w+) (?P<place>\S+)\n")

T = TypeVar("T")


class Lost(OSError):
    """Another process has taken the lock over."""


class Lock:
    """Held by one thread of one process at a time, as often as it likes.

    What makes it is a new file, which is atomic on NFS as well. flock is not everywhere (NFS, some containers), not
    always shared by hosts, and cannot be taken from a holder that froze.
    """

    def __init__(self, path: Path, lease: float = LEASE) -> None:
        """Makes the folder. files.Corrupt where it is a link."""
        self._path, self.lease, self._depth = path, lease, 0
        self._thread = threading.RLock()
        self._content = b""
        """Of the file: who holds it."""
        files.make_folder(path.parent)

    def acquire(self, timeout: float | None = None) -> bool:
        """Whether it is held. Waits for ever, or for `timeout` seconds."""
        if not self._thread.acquire(timeout=-1 if timeout is None else timeout):
            return False
        try:
            if self._depth or self._taken(timeout):
                self._depth += 1
                return True
        except BaseException:
            self._thread.release()
            raise
        self._thread.release()
        return False

    def release(self) -> None:
        try:
            self._depth -= 1
            if self._depth == 0:
                _held.discard(self)
                if self._is_held():
                    os.unlink(self._path)
        finally:
            self._thread.release()

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *exception: Any) -> None:
        self.release()

    def __call__(self, step: Callable[[], T]) -> T:
        """What the step returns that is taken while it is held; taken again where it raises Lost."""
        while True:
            try:
                with self:
                    return step()
            except Lost:
                if self._depth:  # what was done before in an outer block may not hold any more
                    raise

    def check(self) -> None:
        """Lost where this process no longer holds it. Otherwise it does for a whole lease from now on."""
        self.renew()
        if not self._is_held():
            silent = f"this process gave no sign of life for {self.lease:g} s, and another one has taken its work over"
            raise Lost(f"{self._path}: {silent}")

    def renew(self) -> None:
        with contextlib.suppress(OSError):  # a moment without the file system is what the lease is for
            if self._is_held():
                os.utime(self._path)

    def _is_held(self) -> bool:
        try:
            descriptor = os.open(self._path, os.O_RDONLY | files.AT_ONCE)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ELOOP):  # free, or in the place of ours a link of Optuna's
                return False
            raise
        try:
            return os.read(descriptor, 1000) == self._content
        finally:
            os.close(descriptor)

    def _taken(self, timeout: float | None) -> bool:
        began, look = time.monotonic(), 0.0
        while not self._made():
            waited = time.monotonic() - began
            if waited >= look:  # who holds it takes ten times as long to find out
                found = _read(self._path)
                if found is not None and found.is_over(self._path.parent):
                    self._break(found)
                    continue
                look = waited + max(0.05, waited / 10)
            if timeout is not None and waited >= timeout:
                return False
            time.sleep(min(max(0.0005, waited / 10), 1))
        _held.add(self)
        _start_renewing(self.lease)
        return True

    def _made(self) -> bool:
        if not self._content.startswith(b"%d " % os.getpid()):  # or that of a process that was forked
            line = f"{os.getpid()} {_started(os.getpid()) or '?'} {self.lease:.3f} {secrets.token_hex(8)} {_PLACE}\n"
            self._content = line.encode()
            weakref.finalize(self, _remove, self._path, self._content)
        try:
            _write(self._path, self._content)
        except FileExistsError:
            return False
        return True

    def _break(self, found: "_Found") -> None:
        """Removes the file of a holder that is gone, unless it has changed. Nobody else does so meanwhile."""
        with Lock(self._path.with_name(f"{self._path.name}.break")):
            if _read(self._path) == found:
                os.unlink(self._path)


class _Found(NamedTuple):
    """What was found in a lock's place."""

    content: bytes
    modified: float

    def is_over(self, folder: Path) -> bool:
        """Whether its holder is gone. What holds no more than a name is of Optuna's tools."""
        ours = _CONTENT.fullmatch(self.content.decode(errors="replace"))
        if ours and ours["place"] == _PLACE and (now := _started(int(ours["pid"]))) is not None:
            return now != ours["started"]
        try:  # by the clock of the file server, which dates the lock as well
            with tempfile.TemporaryFile(dir=folder) as probe:
                clock = os.fstat(probe.fileno()).st_mtime
        except OSError:  # may only be read
            clock = time.time()
        return clock - self.modified > (float(ours["lease"]) if ours else LEASE)


def _read(path: Path) -> _Found | None:
    """files.Corrupt where there can be no lock. A link is Optuna's, and not followed."""
    try:
        status = path.lstat()
        if stat.S_ISLNK(status.st_mode):
            return _Found(b"", status.st_mtime)
        with open(path, "rb", buffering=0, opener=files.opener) as file:
            return _Found(file.read(1000), os.fstat(file.fileno()).st_mtime)
    except FileNotFoundError:
        return None


def _write(path: Path, content: bytes) -> None:
    """A new file. FileExistsError where anything is in its place, also a link."""
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    try:
        while content:
            content = content[os.write(descriptor, content) :]
    except OSError:  # a full disk: half of it would hold the lock for a lease
        os.unlink(path)
        raise
    finally:
        os.close(descriptor)


def _remove(path: Path, content: bytes) -> None:
    """At the end of a lock, or of a process that holds it; not of one that was forked."""
    if content.startswith(b"%d " % os.getpid()):
        with contextlib.suppress(OSError, files.Corrupt):
            if (found := _read(path)) is not None and found.content == content:
                path.unlink()


def is_held(path: Path) -> bool:
    """Whether a process holds the lock on this path. Needs no permission to write there."""
    return (found := _read(path)) is not None and not found.is_over(path.parent)


# who holds a lock


def host() -> str:
    """The name of this one as part of a file's name; empty where it has none."""
    with contextlib.suppress(OSError, UnicodeError):
        return re.sub(r"[^A-Za-z0-9_.-]", "_", socket.gethostname())
    return ""


def _place() -> str:
    """Where a process id means a process: on this host since its start, in this container."""
    parts = [host()]
    with contextlib.suppress(OSError):  # not Linux
        parts += [Path("/proc/sys/kernel/random/boot_id").read_text().strip(), os.readlink("/proc/self/ns/pid")]
    return "/".join(parts)


_PLACE = _place()


def _started(pid: int) -> str | None:
    """When the process with this id was started; "" where it is gone, None where nobody knows."""
    if os.name != "posix":
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except OSError:  # another user's
        pass
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:  # no Linux, or another user's and hidden
        return None
    return "" if state in "ZX" else fields[18]


# signs of life

_held: set[Lock] = set()
"""By this process."""
_woken = threading.Event()
_renewing: threading.Thread | None = None


def _renew() -> None:
    while True:
        _woken.wait(min((lock.lease for lock in tuple(_held)), default=LEASE) / 5)
        _woken.clear()
        for lock in tuple(_held):
            lock.renew()


def _start_renewing(lease: float) -> None:
    global _renewing
    if _renewing is None:
        _renewing = threading.Thread(target=_renew, daemon=True)
        _renewing.start()
    if lease < LEASE:
        _woken.set()


def _forget() -> None:
    """In a forked process, which holds nothing and has no threads."""
    global _renewing
    _renewing = None
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
