"""Optuna's journal file, whose lines have checksums. Knows nothing of databases or of what a study holds."""

import json
import os
import stat
import zlib
from collections.abc import Callable, Generator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, TypeVar

from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from cifarsweep.results import files
from cifarsweep.results.locks import Lock

CHECKSUM = b',"line_crc32":'

T = TypeVar("T")


class Backend(JournalFileBackend):
    """A journal whose lines each carry a checksum of their own text and the line before.

    Lines without one, of an earlier version or of Optuna's dashboard, are covered by the next line that has it.
    """

    def __init__(self, path: Path, lock: Lock) -> None:
        super().__init__(str(path), lock_obj=lock)  # type: ignore[arg-type]  # it has acquire and release
        self._path = path
        self._places = [(0, 0)]
        """Of each line read: where it begins, and the checksum of the line before."""
        self.sound = (0, 0)
        """How many lines at the beginning may be relied on, and how many bytes."""
        self._is_checked = False

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        del self._places[log_number_from + 1 :]
        offset, before = self._places[log_number_from]
        with open(self._path, "rb", opener=files.opener) as file:
            file.seek(offset)
            for line in file:
                if not line.endswith(b"\n"):  # another process is about to write the rest
                    return
                text, mark, checksum = line.rpartition(CHECKSUM)
                if mark and checksum != b"%d}\n" % zlib.crc32(text, before):
                    raise ValueError("a checksum that does not fit")
                log = json.loads(line)
                offset, before = offset + len(line), zlib.crc32(line)
                self._places.append((offset, before))
                yield log
                if mark or not self._is_checked:  # it was applied, too
                    self._is_checked, self.sound = bool(mark), (len(self._places) - 1, offset)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Waits for the disk only where a trial has ended: all that was written before goes to the disk with it.

        A process that dies loses nothing that it has written. A machine that loses its power may lose steps of the
        trials that run, which are given out again.
        """
        self._lock(lambda: self._append(logs))  # type: ignore[operator]  # it is ours

    def _append(self, logs: list[dict[str, Any]]) -> None:
        with open(self._path, "ab+", buffering=0, opener=files.opener) as file:
            before, left = zlib.crc32(_last_line(file)), b""
            whole = file.seek(0, os.SEEK_END)
            for log in logs:
                text = json.dumps(log, separators=(",", ":"))[:-1].encode()
                line = b"%s%s%d}\n" % (text, CHECKSUM, zlib.crc32(text, before))
                left, before = left + line, zlib.crc32(line)
            self._lock.check()  # type: ignore[attr-defined]
            try:
                while left:
                    left = left[file.write(left) :]
            except OSError:
                file.truncate(whole)  # the half line of a full disk would spoil the next one
                raise
            if any(TrialState(log.get("state", TrialState.RUNNING)).is_finished() for log in logs):
                os.fsync(file.fileno())


def _last_line(file: IO[bytes]) -> bytes:
    """The last whole line. Cuts what follows it: the half line of a process killed while it wrote would spoil the next.

    Nobody has counted on it.
    """
    size = file.seek(0, os.SEEK_END)
    for length in (1024, 2**16, size):  # few lines are longer than a failure's traceback
        file.seek(max(0, size - length))
        tail = file.read(length)
        whole = tail[: tail.rfind(b"\n") + 1]
        begin = whole[:-1].rfind(b"\n") + 1
        if begin or length >= size:
            break
    if len(whole) < len(tail):  # else a host that froze here would cut what others have written meanwhile
        file.truncate(size - len(tail) + len(whole))
    return whole[begin:]


class Journal(JournalStorage):
    def __init__(self, path: Path) -> None:
        lock = Lock(Path(f"{path}.lock"))  # as Optuna's own tools name it
        self._claims = Lock(Path(f"{path}.claim.lock"))
        with lock, suppress(FileNotFoundError), open(path, "r+b", opener=files.opener) as file:
            _last_line(file)
        super().__init__(Backend(path, lock))

    def take(self, step: Callable[[], T], study_id: int | None = None) -> T:
        """Takes a step of a study's queue. One that is given `study_id` is taken while no other such one is."""
        if study_id is None:
            return step()
        self.get_n_trials(study_id)  # reads the news, so that others need not wait until this worker has
        return self._claims(step)


def mend(path: Path, folder: Path) -> str | None:
    """Sets a damaged journal aside and keeps its sound beginning; a line that says so, or None where it is sound.

    Not while another process may have it open. What was never a journal is set aside in the sweep's own `folder` only:
    elsewhere it may be somebody's.
    """
    if not os.path.lexists(path):
        return None
    with Lock(Path(f"{path}.lock")) as lock:
        sound, num_lines = b"", 0
        if stat.S_ISREG(path.lstat().st_mode):
            backend = Backend(path, lock)
            try:
                JournalStorage(backend)
                return None
            except OSError:
                raise
            except Exception:  # whatever Optuna makes of lines that are not its own
                num_lines, num_bytes = backend.sound
                sound = files.read_bytes(path)[:num_bytes]
        if not sound and path.parent != folder:
            return None
        aside = files.set_aside(path)
        with files.atomic(path, "wb") as file:
            file.write(sound)
    kept = f"goes on after its {num_lines} sound lines" if num_lines else "begins anew"
    return f"{path}: damaged, and set aside as {aside.name}; the study {kept}"
