"""Where the trials of a study are kept, safe for many processes: a journal file, SQLite or a database server."""

import contextlib
import re
import traceback
from collections.abc import Iterator
from pathlib import Path

import optuna

from cifarsweep.results import folders
from cifarsweep.results.locks import Lock
from cifarsweep.sweeper import database, journal
from cifarsweep.terminal.command_line import without_credentials

DRIVERS = {
    "sqlite": "this Python was built without it",
    "postgresql": "pip install 'cifarsweep[postgres]', then postgresql+psycopg://…",
    "mysql": "pip install pymysql, then mysql+pymysql://…",
}
JOURNAL_SUFFIXES = (".journal", ".log")
"""Of a file that is not there yet. Optuna's own examples end in .log."""
READ_THE_JOURNAL = ("read_logs", "apply_logs", "_apply_create_study", "_apply_create_trial")
"""Functions of Optuna."""

Storage = journal.Journal | database.Database
"""Has, beside what Optuna's storages have, `take` for the steps of a queue."""


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
        is_journal = _begins(path, b'{"op_code":') and path.stat().st_size > 0
        if "\0" in given or not (path.suffix in JOURNAL_SUFFIXES or is_journal):
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


def open_storage(address: str) -> Storage:
    """The storage at an address. Lost names what is wrong with it."""
    with reaching(address):
        return _database(address) if "://" in address else journal.Journal(Path(address))


def load_study(folder: Path, name: str | None = None, given: str | None = None) -> optuna.Study:
    """The study of the search in this folder; the one called `name`, where it has several. ValueError lists them.

    `given` is what hydra.sweeper.storage was.
    """
    address = address_of(given, folder)
    if "://" not in address and not Path(address).exists():
        raise ValueError(f"{folder}: expected a search with its {Path(address).name}, or the storage that it was given")
    store = open_storage(address)
    with reaching(address):
        known = [study.study_name for study in store.get_all_studies()]
        if is_server(address):  # it has those of other sweeps, too
            known = [known_name for known_name in known if f"{known_name}, ".startswith(f"{folder.name}, ")]
        meant = [known_name for known_name in known if name in (None, known_name)]
        if len(meant) != 1:
            raise ValueError(f"name={name}: expected one of {'; '.join(known)}")
        return optuna.load_study(study_name=meant[0], storage=store)


def is_server(address: str) -> bool:
    return "://" in address and _dialect(address) != "sqlite"


def _dialect(address: str) -> str:
    return re.split(r"[+:]", address)[0]


@contextlib.contextmanager
def reaching(address: str, patience: float | None = None) -> Iterator[None]:
    """Turns whatever a storage raises when it is gone or broken into Lost: one line without the password.

    Inside, this thread waits for a server that is away for `patience` seconds before that; None: as long as outside.
    """
    outside = database.patience.set(database.patience.get() if patience is None else patience)
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
        database.patience.reset(outside)


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
    module = type(error).__module__
    from_database = module.startswith(("sqlalchemy", "psycopg"))
    is_files = isinstance(error, OSError) and not module.startswith("hydra")  # whose missing option is one, too
    if not (from_database or is_files or isinstance(error, optuna.exceptions.StorageInternalError)):
        return None
    while error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    reason = " ".join(str(getattr(error, "orig", error)).split())[:300] or type(error).__name__
    is_damaged = "malformed" in reason or "not a database" in reason
    return f"{reason}; move the file away, and the same command begins anew" if is_damaged else reason


def _database(address: str) -> database.Database:
    try:
        if is_server(address):
            return database.open_database(address)
        file = Path(address.partition("sqlite:///")[2].partition("?")[0])
        file.parent.mkdir(parents=True, exist_ok=True)
        with Lock(Path(f"{file}.lock")):  # two processes that create the tables at once trip over each other
            return database.open_database(address)
    except ValueError as error:  # a port that is no number; other mistakes have an error of SQLAlchemy's own
        expected = f"{_dialect(address)}+DRIVER://USER:PASSWORD@HOST:PORT/DATABASE"
        raise Lost(f"{_key(address)}: expected {expected}") from error
