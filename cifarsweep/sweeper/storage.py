"""Where the trials of a study are kept, safe for many processes: a journal file, SQLite or a database server."""

import contextlib
import copy
import functools
import itertools
import json
import os
import random
import re
import stat
import threading
import time
import traceback
import zlib
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any, Protocol, TypeVar

import optuna
from filelock import FileLock
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from cifarsweep.results import files, folders
from cifarsweep.results.locks import Lock
from cifarsweep.terminal.command_line import without_credentials

DRIVERS = {
    "sqlite": "this Python was built without it",
    "postgresql": "pip install 'cifarsweep[postgres]', then postgresql+psycopg://…",
    "mysql": "pip install pymysql, then mysql+pymysql://…",
}
JOURNAL_SUFFIXES = (".journal", ".log")
"""Of a file that is not there yet. Optuna's own examples end in .log."""
BUSY_SECONDS = 60
"""How long SQLite waits for another process's transaction."""
READ_THE_JOURNAL = ("read_logs", "apply_logs", "_apply_create_study", "_apply_create_trial")
"""Functions of Optuna."""
SILENT_SECONDS = 10
"""After so long without an answer a connection counts as dead, and so does a worker in the middle of a step."""
LONGEST_PAUSE = 2.0
"""Seconds between two attempts to reach a server that is away."""

T = TypeVar("T")


class Lost(ValueError):
    """The storage cannot be reached or read; the message names it."""


def address_of(given: str | None, folder: Path) -> str:
    """The address of a sweep's storage, the same for all its processes: a path (a journal file) or an SQLAlchemy URL.

    Lost where `given` names no storage that there is or could be made.
    """
    if given is None:
        return str(folder / "study.journal")
    if "://" not in given:
        path = folders.expanded(given, "hydra.sweeper.storage").absolute()
        if "\0" in given or not (path.suffix in JOURNAL_SUFFIXES or _is_journal(path)):
            raise Lost(
                f"hydra.sweeper.storage={given}: expected a journal file such as study.journal, or an address such as "
                "sqlite:///study.db or postgresql+psycopg://…"
            )
        return str(path)
    dialect = _dialect(given)
    if dialect not in DRIVERS:
        raise Lost(f"{_key(given)}: expected a journal file's path or an address of {', '.join(DRIVERS)}")
    if dialect != "sqlite":
        return given
    file, _, options = given.partition("sqlite:///")[2].partition("?")
    if not file or file == ":memory:":
        raise Lost(f"{_key(given)}: expected a file, such as sqlite:///study.db, which all workers can open")
    path = folders.expanded(file, "hydra.sweeper.storage").absolute()
    if path.exists() and not _begins(path, b"SQLite format 3\0"):
        raise Lost(f"{_key(given)}: the file there is no SQLite database; move it away, or name another")
    return f"sqlite:///{path}" + (f"?{options}" if options else "")


def _begins(path: Path, start: bytes) -> bool:
    """Whether it is a file that begins like this, or an empty one."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(start)) in (start, b"")


def _is_journal(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0 and _begins(path, b'{"op_code":')


def open_storage(address: str) -> BaseStorage:
    """The storage at an address. Lost names what is wrong with it."""
    with reaching(address):
        if "://" not in address:
            return _journal(Path(address))
        return _server(address) if is_server(address) else _sqlite(address)


def is_server(address: str) -> bool:
    return "://" in address and _dialect(address) != "sqlite"


def _dialect(address: str) -> str:
    return re.split(r"[+:]", address)[0]


class _Patience(threading.local):
    seconds = 0.0


_patience = _Patience()


@contextlib.contextmanager
def reaching(address: str, patience: float | None = None) -> Iterator[None]:
    """Turns whatever a storage raises when it is gone or broken into Lost: one line without the password.

    Inside, this thread waits for a server that is away for `patience` seconds before that; None: as long as outside.
    """
    before = _patience.seconds
    _patience.seconds = before if patience is None else patience
    try:
        yield
    except Lost:
        raise
    except Exception as error:
        reason = _reason(address, error)
        if reason is None:
            raise
        where = error.filename if isinstance(error, OSError) and error.filename else _key(address)
        raise Lost(f"{where}: {reason}") from error
    finally:
        _patience.seconds = before


def _key(address: str) -> str:
    return f"hydra.sweeper.storage={without_credentials(address)}" if "://" in address else address


def _reason(address: str, error: BaseException) -> str | None:
    """In the driver's words, without the advice and SQL around them. None where it is no storage's error."""
    if isinstance(error, ImportError):
        return f"the driver of this database is not installed: {DRIVERS[_dialect(address)]}"
    if isinstance(error, ValueError | LookupError | TypeError | AssertionError):
        # Raised while a journal's lines were read, not by a record of ours that Optuna refuses.
        frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
        optunas = [f for f in frames if f.f_globals.get("__name__", "").startswith("optuna.storages.journal")]
        if optunas and optunas[-1].f_code.co_name in READ_THE_JOURNAL:
            return "not a journal of Optuna, or damaged in the middle"
    # By name, as an import of SQLAlchemy takes 0.4 s, which a journal need not wait for.
    from_database = type(error).__module__.startswith(("sqlalchemy", "psycopg"))
    if not (from_database or isinstance(error, OSError | optuna.exceptions.StorageInternalError)):
        return None
    while error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    reason = " ".join(str(getattr(error, "orig", error)).split())[:300] or type(error).__name__
    is_damaged = "malformed" in reason or "not a database" in reason
    return f"{reason}; move the file away, and the same command begins anew" if is_damaged else reason


# the journal


_CHECKSUM = b',"line_crc32":'


class _Backend(JournalFileBackend):
    """A journal whose lines each carry a checksum of their own text and the line before.

    Lines without one, of an earlier version or of Optuna's dashboard, are covered by the next line that has it.
    """

    def __init__(self, path: Path, lock: Lock) -> None:
        super().__init__(str(path), lock_obj=lock)  # type: ignore[arg-type]  # it has acquire and release
        self._path = path
        self._places = [(0, 0)]
        """Of each line read: where it begins, and the checksum of the line before."""
        self.num_sound = 0
        """How many lines at the beginning may be relied on."""
        self._is_checked = False

    def place(self, number: int) -> int:
        """Where a line begins that was read, or the one after it."""
        return self._places[number][0]

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        del self._places[log_number_from + 1 :]
        offset, before = self._places[log_number_from]
        with open(self._path, "rb", opener=files.opener) as file:
            file.seek(offset)
            for line in file:
                if not line.endswith(b"\n"):  # another process is about to write the rest
                    return
                text, mark, checksum = line.rpartition(_CHECKSUM)
                if mark and checksum != b"%d}\n" % zlib.crc32(text, before):
                    raise ValueError("a checksum that does not fit")
                log = json.loads(line)
                offset, before = offset + len(line), zlib.crc32(line)
                self._places.append((offset, before))
                yield log
                if mark or not self._is_checked:  # it was applied, too
                    self._is_checked, self.num_sound = bool(mark), len(self._places) - 1

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Waits for the disk only where a trial has ended: all that was written before goes to the disk with it.

        A process that dies loses nothing that it has written. A machine that loses its power may lose steps of the
        trials that run, which are given out again.
        """
        with self._lock, open(self._path, "ab+", buffering=0, opener=files.opener) as file:  # type: ignore[attr-defined]
            before, left = zlib.crc32(_last_line(file)), b""
            whole = file.seek(0, os.SEEK_END)
            for log in logs:
                text = json.dumps(log, separators=(",", ":"))[:-1].encode()
                line = b"%s%s%d}\n" % (text, _CHECKSUM, zlib.crc32(text, before))
                left, before = left + line, zlib.crc32(line)
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
    file.truncate(size - len(tail) + len(whole))
    return whole[begin:]


def _lock_of(journal: Path) -> Lock:
    """The operating system's lock is free once its holder dies; Optuna's own lock files would block for 30 s."""
    return Lock(Path(f"{journal}.lock"))


def _journal(path: Path) -> JournalStorage:
    lock = _lock_of(path)
    with lock, contextlib.suppress(FileNotFoundError), open(path, "r+b", opener=files.opener) as file:
        _last_line(file)
    return JournalStorage(_Backend(path, lock))


def mend(address: str, folder: Path) -> str | None:
    """Sets a damaged journal aside and keeps its sound beginning; a line that says so, or None where it is sound.

    Not while another process may have it open. What was never a journal is set aside in the sweep's own `folder` only:
    elsewhere it may be somebody's.
    """
    path = Path(address)
    if "://" in address or not os.path.lexists(path):
        return None
    with _lock_of(path) as lock:
        sound, num_lines = b"", 0
        if stat.S_ISREG(path.lstat().st_mode):
            backend = _Backend(path, lock)
            try:
                JournalStorage(backend)
                return None
            except OSError:
                raise
            except Exception:  # whatever Optuna makes of lines that are not its own
                num_lines = backend.num_sound
                sound = files.read_bytes(path)[: backend.place(num_lines)]
        if not sound and path.parent != folder:
            return None
        aside = files.set_aside(path)
        with files.atomic(path, "wb") as file:
            file.write(sound)
    kept = f"goes on after its {num_lines} sound lines" if num_lines else "begins anew"
    return f"{path}: damaged, and set aside as {aside.name}; the study {kept}"


# databases


def _sqlite(address: str) -> BaseStorage:
    """Every transaction takes the write lock at its start: otherwise two workers may claim one trial."""
    from sqlalchemy import event

    file = address.partition("sqlite:///")[2].partition("?")[0]
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{file}.lock"):  # two processes that create the tables at once trip over each other
        storage = optuna.storages.RDBStorage(address, engine_kwargs={"connect_args": {"timeout": BUSY_SECONDS}})
    event.listen(storage.engine, "connect", lambda connection, _: setattr(connection, "isolation_level", None))
    event.listen(storage.engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    storage.engine.dispose()  # the connections opened so far know nothing of this
    return storage


# database servers


def _server(address: str) -> BaseStorage:
    """A connection that the server closed meanwhile is opened anew instead of failing."""
    from sqlalchemy.engine import make_url

    try:
        url = make_url(address)
    except ValueError as error:  # a port that is no number; other mistakes have an error of SQLAlchemy's own
        expected = f"{_dialect(address)}+DRIVER://USER:PASSWORD@HOST:PORT/DATABASE"
        raise Lost(f"{_key(address)}: expected {expected}") from error
    arguments = _timeouts(url.get_driver_name())
    options: dict[str, Any] = {
        "connect_args": {key: value for key, value in arguments.items() if key not in url.query},
        "isolation_level": "READ COMMITTED",  # a step sees what the step before it has written
        "pool_pre_ping": True,
    }
    return _patiently(functools.partial(_Server, address, engine_kwargs=options))


def _timeouts(driver: str) -> dict[str, Any]:
    """Arguments of a driver's connections, so that neither side waits for ever for a host whose network is cut.

    The server takes back what a worker does in the middle of a step, and lets the next one go on, where it does not
    hear from that worker for SILENT_SECONDS, be it cut off or frozen.
    """
    if driver in ("psycopg", "psycopg2"):
        alive = {"idle": SILENT_SECONDS // 2, "interval": SILENT_SECONDS // 5 or 1, "count": 3}
        milliseconds = 1000 * SILENT_SECONDS
        server = {
            "statement_timeout": 3 * milliseconds,
            "lock_timeout": 3 * milliseconds,
            "idle_in_transaction_session_timeout": milliseconds,
            "tcp_user_timeout": milliseconds,
        }
        server |= {f"tcp_keepalives_{name}": value for name, value in alive.items()}
        return {
            "connect_timeout": SILENT_SECONDS,
            "tcp_user_timeout": milliseconds,
            **{f"keepalives_{name}": value for name, value in alive.items()},
            "options": " ".join(f"-c {name}={value}" for name, value in server.items()),
        }
    if driver == "pymysql":
        waits = {f"{what}_timeout": 3 * SILENT_SECONDS for what in ("read", "write")}
        # MySQL knows no limit for transactions alone; a connection that it ends between them is opened anew.
        return {"connect_timeout": SILENT_SECONDS, **waits, "init_command": f"SET wait_timeout={SILENT_SECONDS}"}
    return {}


def _patiently(call: Callable[[], T]) -> T:
    """Calls again while the server is away, for as long as `reaching` says."""
    until, pause = time.monotonic() + _patience.seconds, 0.1
    while True:
        try:
            return call()
        except Exception as error:
            if not _is_away(error) or time.monotonic() >= until:
                raise
        time.sleep(pause * random.uniform(0.5, 1))  # not all workers at once
        pause = min(2 * pause, LONGEST_PAUSE)


def _is_away(error: BaseException | None) -> bool:
    """Whether the server is away, or has ended a connection or a statement; nothing else may be tried again."""
    from sqlalchemy import exc

    while error is not None:
        if isinstance(error, exc.OperationalError | exc.InterfaceError) or getattr(
            error, "connection_invalidated", False
        ):
            return True
        error = error.__cause__
    return False


class _Server(RDBStorage):
    """Optuna's storage, whose calls wait for a server that is away, but those within a step (see _Transactions).

    Optuna 5 reads each kind of facts of a trial by a statement of its own: 70 of 106 statements a trial (measured).
    """

    in_step = False

    def get_trial(self, trial_id: int) -> FrozenTrial:
        from optuna.storages._rdb import models

        found = self._read(models.TrialModel.trial_id == trial_id)
        if not found:
            raise KeyError(models.NOT_FOUND_MSG)
        return found[0]

    def _get_trials(
        self, study_id: int, states: Any, included_trial_ids: set[int], trial_id_greater_than: int
    ) -> list[FrozenTrial]:
        from optuna.storages._rdb.models import TrialModel

        conditions = [TrialModel.study_id == study_id]
        if states is not None:
            conditions.append(TrialModel.state.in_(states))
        known = sorted(number for number in included_trial_ids if number <= trial_id_greater_than)
        return self._read(*conditions, (TrialModel.trial_id > trial_id_greater_than) | TrialModel.trial_id.in_(known))

    def _create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> FrozenTrial:
        if template_trial is None or not self.in_step:
            return super()._create_new_trial(study_id, template_trial)
        # Optuna tries five times, although the step's transaction is over after the first error, which is then hidden.
        with self._session() as session:
            trial: Any = self._get_prepared_new_trial(study_id, template_trial, session)
            created = copy.copy(template_trial)
            created.number, created._trial_id = trial.number, trial.trial_id
            return created

    def _session(self) -> contextlib.AbstractContextManager[Any]:
        from optuna.storages._rdb.storage import _create_scoped_session

        return _create_scoped_session(self.scoped_session)

    def _read(self, *conditions: Any) -> list[FrozenTrial]:
        """The trials for which all conditions hold, in two statements."""
        from optuna.storages._rdb import models
        from sqlalchemy import Float, String, cast, literal, null, select, union_all

        def part(relation: str, fields: tuple[str, str, str, str]) -> Any:
            model = getattr(models.TrialModel, relation).property.mapper.class_
            number, key, text, value = (getattr(model, field) if field else null() for field in fields)
            columns = number, cast(key, String), cast(text, String), cast(value, Float(53))
            ids = select(models.TrialModel.trial_id).where(*conditions)
            return select(literal(relation), model.trial_id, *columns).where(model.trial_id.in_(ids))

        with self._session() as session:
            # First the trials: one that ends between the two statements must not look finished without its values.
            trials = session.query(models.TrialModel).filter(*conditions).order_by(models.TrialModel.trial_id).all()
            rows = {trial.trial_id: _row(trial) for trial in trials}
            for relation, trial_id, *facts in session.execute(union_all(*itertools.starmap(part, _FACTS.items()))):
                if trial_id in rows:
                    getattr(rows[trial_id], relation).append(_fact(relation, facts))
            return [self._build_frozen_trial_from_trial_model(row) for row in rows.values()]


_FACTS = {
    "params": ("param_id", "param_name", "distribution_json", "param_value"),
    "values": ("objective", "", "value_type", "value"),
    "user_attributes": ("trial_user_attribute_id", "key", "value_json", ""),
    "system_attributes": ("trial_system_attribute_id", "key", "value_json", ""),
    "intermediate_values": ("step", "", "intermediate_value_type", "intermediate_value"),
}
"""The columns of each kind of facts of a trial: a whole number, two texts and a number; empty where there is none."""


def _row(trial: Any) -> Any:
    names = ("trial_id", "number", "state", "datetime_start", "datetime_complete")
    return SimpleNamespace(**{name: getattr(trial, name) for name in names}, **{relation: [] for relation in _FACTS})


def _fact(relation: str, values: list[Any]) -> Any:
    from optuna.storages._rdb import models

    fact = SimpleNamespace(**dict(zip(_FACTS[relation], values, strict=True)))
    if relation == "values":
        fact.value_type = models.TrialValueModel.TrialValueType[fact.value_type]
    if relation == "intermediate_values":
        kinds = models.TrialIntermediateValueModel.TrialIntermediateValueType
        fact.intermediate_value_type = kinds[fact.intermediate_value_type]
    return fact


def _waits(name: str) -> Callable[..., Any]:
    method = getattr(_Server, name)

    @functools.wraps(method)
    def call(self: _Server, *args: Any, **kwargs: Any) -> Any:
        once = functools.partial(method, self, *args, **kwargs)
        return once() if self.in_step else _patiently(once)

    return call


# Whoever loses the answer does not know whether the call was carried out. To read, and to set an attribute or a step's
# value once more, changes nothing; a parameter that is there already is left as it is. To create a study or a trial
# and to change a trial's state would: these calls are made within a step, or before the search begins.
for _name in dir(RDBStorage):
    if re.match(r"get_|set_|_get_trials$|_set_trial_param$", _name) and _name != "set_trial_state_values":
        setattr(_Server, _name, _waits(_name))


# steps of a queue


class Steps(Protocol):
    """Takes one step of a study's queue after another, whichever workers take them.

    A step on a database server is taken again where its answer was lost.
    """

    def __call__(self, step: Callable[[], T]) -> T: ...


def steps_of(study: optuna.Study, lock: Path) -> Steps:
    """By `lock`, unless a database server keeps the study: a file system may have no lock that all hosts share."""
    backend = getattr(study._storage, "_backend", None)
    return _Transactions(study, backend) if isinstance(backend, _Server) else Locked(lock)


class Locked:
    def __init__(self, path: Path) -> None:
        self._lock = Lock(path)

    def __call__(self, step: Callable[[], T]) -> T:
        with self._lock:
            return step()


class _Transactions:
    """A step is a transaction that locks the study's row: it is taken as a whole or not at all.

    The server ends it where its worker is cut off, and the worker finds out before anything is written.
    """

    def __init__(self, study: optuna.Study, storage: _Server) -> None:
        self._study_id, self._cache, self._storage = study._study_id, study._storage, storage

    def __call__(self, step: Callable[[], T]) -> T:
        return step() if self._storage.in_step else _patiently(functools.partial(self._once, step))

    def _once(self, step: Callable[[], T]) -> T:
        from optuna.storages._rdb.models import StudyModel
        from sqlalchemy import orm

        sessions = self._storage.scoped_session
        try:
            with self._storage.engine.begin() as connection:
                # Optuna's calls in this thread take part in the transaction, and roll it back where they fail.
                sessions.registry.set(orm.Session(connection, join_transaction_mode="rollback_only"))
                StudyModel.find_or_raise_by_id(self._study_id, sessions(), for_update=True)
                self._storage.in_step = True
                return step()
        except BaseException:
            self._forget()
            raise
        finally:
            self._storage.in_step = False
            sessions.remove()

    def _forget(self) -> None:
        """What Optuna has read of trials may have been taken back."""
        cache: Any = self._cache
        with cache._lock:
            cache._studies = {study_id: type(info)() for study_id, info in cache._studies.items()}
            cache._trial_id_to_study_id_and_number.clear()
