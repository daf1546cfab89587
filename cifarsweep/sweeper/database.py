"""A database as a study's storage: timeouts, calls that wait while its server is away, and steps as transactions.

Knows Optuna's tables, not what a study holds. Optuna 5 reads and writes each fact of a trial in a transaction of its
own, of three statements and more: 58 statements and 18 commits a trial. Here a step reads once what has changed, works
in memory, and writes at its end, a statement a table. What is written, other programs read with Optuna.
"""

import contextlib
import copy
import functools
import importlib
import itertools
import json
import logging
import math
import random
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Concatenate, ParamSpec, TypeVar

import optuna
from optuna.distributions import BaseDistribution, distribution_to_json, json_to_distribution
from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import FrozenTrial, TrialState

SILENT_SECONDS = 10
"""After so long without an answer a connection counts as dead, and so does a worker in the middle of a step."""
IDLE_SECONDS = 2.0
"""After which a connection is closed. A server accepts a hundred by default; who trains for minutes needs none."""
BUSY_SECONDS = 60
"""How long SQLite waits for another process's transaction."""
LONGEST_PAUSE = 2.0
"""Seconds between two attempts to reach a server that is away."""
PARAMS, VALUES, STEPS = "trial_params", "trial_values", "trial_intermediate_values"
USER, SYSTEM = "trial_user_attributes", "trial_system_attributes"
STUDY_USER, STUDY_SYSTEM = OF_STUDIES = "study_user_attributes", "study_system_attributes"
FACTS = {
    PARAMS: ("param_id", "param_name", "distribution_json", "param_value"),
    VALUES: ("objective", "", "value_type", "value"),
    STEPS: ("step", "", "intermediate_value_type", "intermediate_value"),
    **{table: (f"{table[:-1]}_id", "key", "value_json", "") for table in (USER, SYSTEM, *OF_STUDIES)},
}
"""The columns of each of Optuna's tables of facts: a whole number, two texts and a number; empty where there is none.

The first text, else the whole number, is the fact's name, which a trial or study has once.
"""
LARGEST_ID = 2**31 - 1
EPOCH = datetime(1970, 1, 1)
SPECIAL = {"NAN": math.nan, "INF_POS": math.inf, "INF_NEG": -math.inf}
"""Optuna's types of figures that a column of a database cannot hold. All others are FINITE."""

P = ParamSpec("P")
T = TypeVar("T")

patience = ContextVar("patience", default=0.0)
"""How many seconds this thread waits for a server that is away."""


def open_database(address: str) -> "Database":
    """A connection that the server closed meanwhile is opened anew instead of failing. ValueError for a wrong port."""
    from sqlalchemy.engine import make_url

    logging.getLogger("psycopg").setLevel(logging.ERROR)  # what matters of its warnings is raised
    url = make_url(address)
    arguments, is_sqlite = _timeouts(url.get_driver_name()), url.get_backend_name() == "sqlite"
    options: dict[str, Any] = {
        "connect_args": {key: value for key, value in arguments.items() if key not in url.query},
        # A step sees what the step before it has written. SQLite's transactions are begun by Database.
        "isolation_level": "AUTOCOMMIT" if is_sqlite else "READ COMMITTED",
        "pool_pre_ping": False,  # costs as much as a statement; a step whose connection is gone is taken again
    }
    return _patiently(functools.partial(Database, address, options))


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
    return {"timeout": BUSY_SECONDS} if driver == "pysqlite" else {}


def _patiently(call: Callable[[], T]) -> T:
    """Calls again while the server is away: at once, as it may have closed an idle connection, then by `patience`."""
    until, pause = time.monotonic() + patience.get(), 0.0
    while True:
        try:
            return call()
        except Exception as error:
            if not _is_away(error) or (pause and time.monotonic() >= until):
                raise
        time.sleep(pause * random.uniform(0.5, 1))  # not all workers at once
        pause = min(2 * pause, LONGEST_PAUSE) or 0.1


def _is_away(error: BaseException | None) -> bool:
    """Whether a server is away, or has ended a connection or a statement; nothing else may be tried again.

    By the names that all drivers have for it: SQLAlchemy passes some of a driver's errors on as they are.
    """
    while error is not None:
        if type(getattr(error, "orig", error)).__module__ == "sqlite3":  # a file that is lost does not come back
            return False
        names = {kind.__name__ for kind in type(error).__mro__}
        if names & {"OperationalError", "InterfaceError"} or getattr(error, "connection_invalidated", False):
            return True
        error = error.__cause__
    return False


@dataclass
class _Study:
    """What is known of a study. Its trials, by id and in order, are replaced where they change."""

    id: int
    trials: dict[int, FrozenTrial] = field(default_factory=dict)
    unfinished: set[int] = field(default_factory=set)
    waiting: set[int] = field(default_factory=set)
    newest: datetime = EPOCH
    """A trial that has started since all were read last did so at this time or later, in UTC."""
    attrs: dict[str, dict[str, Any]] = field(default_factory=dict)
    fresh: set[int | None] = field(default_factory=set)
    """The trials that were read in this step; None: all of them."""

    def put(self, trial: FrozenTrial) -> None:
        self.trials[trial._trial_id] = trial
        (self.unfinished.discard if trial.state.is_finished() else self.unfinished.add)(trial._trial_id)
        (self.waiting.add if trial.state == TrialState.WAITING else self.waiting.discard)(trial._trial_id)


def _a_step(method: Callable[Concatenate["Database", P], T]) -> Callable[Concatenate["Database", P], T]:
    @functools.wraps(method)
    def taken(self: "Database", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.take(functools.partial(method, self, *args, **kwargs))

    return taken


def _of_optuna(name: str) -> Any:
    def call(self: "Database", *args: Any, **kwargs: Any) -> Any:
        return _patiently(functools.partial(getattr(self._optuna, name), *args, **kwargs))

    return call


class Database(BaseStorage):
    """Optuna's tables. A call is a step of its own, or a part of the step that is being taken: see `take`."""

    def __init__(self, address: str, options: dict[str, Any]) -> None:
        from sqlalchemy import event

        self._optuna = RDBStorage(address, engine_kwargs=options)  # makes and checks the tables
        self._optuna.engine.dispose()  # of both connections that this takes
        if self._optuna.engine.dialect.name == "sqlite":
            event.listen(self._optuna.engine, "begin", _begin_immediately)
        self._sql = _Statements(self._optuna.engine.dialect.name)
        self._mutex, self._thread = threading.Lock(), 0
        """One step is taken at a time, by this thread."""
        self._transaction = contextlib.ExitStack()
        self._connection: Any = None
        self._last_used, self._is_watched = 0.0, False
        self._studies: dict[int, _Study] = {}
        self._held: set[int] = set()
        self._unwritten: dict[str, dict[Any, dict[str, Any]]] = defaultdict(dict)

    def take(self, step: Callable[[], T], study_id: int | None = None) -> T:
        """Takes a step as a whole or not at all, and again where the server was away.

        With `study_id` it is a transaction that holds that study's row, so that such steps are taken one at a time. The
        server ends it where its worker is cut off, and the worker finds out before anything is written. Without, only
        what it writes at its end is one: a sampler may think longer than the server lets a transaction wait.
        """
        if self._thread == threading.get_ident():
            self._hold(study_id)
            return step()
        return _patiently(functools.partial(self._once, step, study_id))

    def _once(self, step: Callable[[], T], study_id: int | None) -> T:
        with self._mutex:
            try:
                self._thread = threading.get_ident()
                with self._transaction:
                    self._hold(study_id)
                    answer = step()
                    self._write()
                return answer
            except BaseException:
                self._studies.clear()  # some of it was perhaps never written
                raise
            finally:
                self._thread, self._connection = 0, None
                self._unwritten.clear()
                self._held.clear()
                for study in self._studies.values():
                    study.fresh.clear()
                self._last_used = time.monotonic()
                if not self._is_watched:
                    self._is_watched = True
                    threading.Thread(target=self._close_once_idle, daemon=True).start()

    def _close_once_idle(self) -> None:
        while True:
            with self._mutex:
                left = self._last_used + IDLE_SECONDS - time.monotonic()
                if left <= 0:
                    self._is_watched = False
                    self._optuna.engine.dispose()
                    return
            time.sleep(left)

    def _begun(self) -> Any:
        """The connection of this step's transaction."""
        if self._connection is None:
            self._connection = self._transaction.enter_context(self._optuna.engine.begin())
        return self._connection

    def _rows(self, statement: Any, given: dict[str, Any]) -> list[Any]:
        if self._connection is not None:
            return list(self._connection.execute(statement, given).all())
        with self._optuna.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            return list(connection.execute(statement, given).all())

    def _hold(self, study_id: int | None) -> None:
        if study_id is None or study_id in self._held:
            return
        self._begun().execute(self._sql.hold, {"study": study_id})
        self._held.add(study_id)
        if study_id in self._studies:  # what was read before may have changed while this step waited
            self._studies[study_id].fresh.clear()

    # studies

    create_new_study = _of_optuna("create_new_study")
    delete_study = _of_optuna("delete_study")
    get_study_id_from_name = _of_optuna("get_study_id_from_name")
    get_study_name_from_id = _of_optuna("get_study_name_from_id")
    get_study_directions = _of_optuna("get_study_directions")
    get_all_studies = _of_optuna("get_all_studies")

    @_a_step
    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        return self._read(study_id).attrs[STUDY_USER]

    @_a_step
    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        return self._read(study_id).attrs[STUDY_SYSTEM]

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        self._set_attr(STUDY_USER, study_id, key, value)

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        self._set_attr(STUDY_SYSTEM, study_id, key, value)

    @_a_step
    def _set_attr(self, table: str, study_id: int, key: str, value: Any) -> None:
        attrs = self._read(study_id).attrs
        attrs[table] = {**attrs[table], key: value}
        self._fact(table, study_id, key, json.dumps(value))

    # trials

    @_a_step
    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        self._hold(study_id)
        study, template = self._read(study_id), template_trial or optuna.trial.create_trial(state=TrialState.RUNNING)
        trial = _changed(template, number=len(study.trials))
        row = {"study_id": study_id, "number": trial.number, **_row(trial)}
        trial._trial_id = int(self._begun().execute(self._sql.create, row).inserted_primary_key[0])
        study.put(trial)
        for fact in _facts(trial):
            self._fact(fact[0], trial._trial_id, *fact[1:])
        return trial._trial_id

    @_a_step
    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        stored = PARAMS, distribution_to_json(distribution), param_value_internal
        self._set(trial_id, "distributions", param_name, distribution, *stored)
        self._set(trial_id, "params", param_name, distribution.to_external_repr(param_value_internal), *stored)

    @_a_step
    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        study = self._read(self._study_of(trial_id).id, None if state == TrialState.RUNNING else trial_id)
        before = study.trials[trial_id]
        self.check_trial_is_updatable(trial_id, before.state)
        if state == TrialState.RUNNING and before.state != TrialState.WAITING:
            return False
        trial = _changed(before, state=state, values=before.values if values is None else list(values))
        if state == TrialState.RUNNING:
            # No start is before one that is known, whatever the clocks of two machines say: `_read` counts on it.
            trial.datetime_start = _local(max(datetime.now(UTC).replace(tzinfo=None), study.newest))
        if state.is_finished():
            trial.datetime_complete = datetime.now()
        row = {"trial": trial_id, "before": before.state, **_row(trial)}
        if not self._begun().execute(self._sql.move, row).rowcount:  # another worker was quicker
            return False
        for objective, value in enumerate(values or ()):
            self._fact(VALUES, trial_id, objective, *_stored(value))
        study.put(trial)
        return True

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        self._set(trial_id, "intermediate_values", step, intermediate_value, STEPS, *_stored(intermediate_value))

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._set(trial_id, "user_attrs", key, value, USER, json.dumps(value))

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._set(trial_id, "system_attrs", key, value, SYSTEM, json.dumps(value))

    @_a_step
    def _set(self, trial_id: int, kind: str, name: str | int, value: Any, table: str, *stored: Any) -> None:
        study = self._study_of(trial_id)
        self.check_trial_is_updatable(trial_id, study.trials[trial_id].state)
        study.put(_changed(study.trials[trial_id], **{kind: {**getattr(study.trials[trial_id], kind), name: value}}))
        self._fact(table, trial_id, name, *stored)

    @_a_step
    def get_trial(self, trial_id: int) -> FrozenTrial:
        return self._read(self._study_of(trial_id).id, trial_id).trials[trial_id]

    @_a_step
    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        trials = [t for t in self._read(study_id).trials.values() if states is None or t.state in states]
        return copy.deepcopy(trials) if deepcopy else trials

    # within a step

    def _study_of(self, trial_id: int) -> _Study:
        for study in self._studies.values():
            if trial_id in study.trials:
                return study
        rows = self._rows(self._sql.study_of, {"trial": trial_id})
        if not rows:
            raise KeyError(f"no trial {trial_id}")
        return self._read(rows[0].study_id)

    def _fact(self, table: str, owner: int, name: str | int, text: str, value: float | None = None) -> None:
        self._unwritten[table][owner, name] = dict(zip(_columns(table), (owner, name, text, value), strict=False))

    def _write(self) -> None:
        for table, rows in self._unwritten.items():
            self._begun().execute(self._sql.upserts[table], list(rows.values()))
        self._unwritten.clear()

    def _read(self, study_id: int, only: int | None = None) -> _Study:
        """Reads, once in a step, the study's attributes, its new trials, and those that were not finished before.

        With `only`, where others wait for this step, no more than this trial: a thousand workers have a thousand
        trials that are not finished.
        """
        only = only if self._held else None
        study = self._studies.setdefault(study_id, _Study(study_id))
        if study.fresh & {only, None}:
            return study
        self._write()
        last = max(study.trials, default=0) if only is None else LARGEST_ID
        given = {"study": study_id, "last": last, "newest": study.newest}
        # First the trials: one that ends between the statements must not look finished without its values.
        trials: dict[int, Any] = {}
        # A trial that was waiting is read where it does not wait any more, or has started meanwhile and waits again.
        wanted = study.unfinished if only is None else {only}
        waiting = wanted & study.waiting
        batches = itertools.zip_longest(_batches(wanted - waiting), _batches(waiting), fillvalue=[0])
        for i, (ids, waiting_ids) in enumerate(batches):
            rows = self._rows(self._sql.trials, {**given, "ids": ids, "waiting": waiting_ids})
            trials |= {row.trial_id: row for row in rows}
            if i == 0 and only is None:  # a trial may start between two statements
                study.newest = max([study.newest, *(row.datetime_start or EPOCH for row in rows)])
        changed = sorted(trials)
        facts: dict[tuple[str, int], list[Any]] = defaultdict(list)
        for ids in _batches(changed):
            rows = self._rows(self._sql.facts, {**given, "ids": ids})
            for table, owner, *fact in sorted(rows, key=lambda row: row[2]):
                facts[table, owner].append(fact)
        study.attrs = {table: _attrs(facts[table, study_id]) for table in OF_STUDIES}
        for trial_id in changed:
            study.put(_trial(trials[trial_id], facts))
        study.fresh.add(only)
        return study


def _begin_immediately(connection: Any) -> None:
    """Takes the write lock of SQLite at the start of a transaction: otherwise two workers may claim one trial."""
    if "isolation_level" not in connection.get_execution_options():  # else it only reads, see `_rows`
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def _batches(ids: Iterable[int]) -> Iterator[list[int]]:
    """At least one. Padded with zeros, as each length makes a statement of its own that the server has to plan."""
    unpadded = [*ids] or [0]
    for begin in range(0, len(unpadded), 1024):
        batch = unpadded[begin : begin + 1024]
        yield batch + [0] * ((1 << (len(batch) - 1).bit_length()) - len(batch))


def _changed(trial: FrozenTrial, **fields: Any) -> FrozenTrial:
    changed = copy.copy(trial)
    for name, value in fields.items():
        setattr(changed, name, value)
    return changed


# rows


def _row(trial: FrozenTrial) -> dict[str, Any]:
    """Optuna keeps times in UTC, and has local ones in memory, both without a zone."""
    start, complete = (
        time and time.astimezone(UTC).replace(tzinfo=None) for time in (trial.datetime_start, trial.datetime_complete)
    )
    return {"state": trial.state, "datetime_start": start, "datetime_complete": complete}


def _facts(trial: FrozenTrial) -> Iterator[tuple[Any, ...]]:
    for name, distribution in trial.distributions.items():
        yield PARAMS, name, distribution_to_json(distribution), distribution.to_internal_repr(trial.params[name])
    for table, attrs in ((USER, trial.user_attrs), (SYSTEM, trial.system_attrs)):
        yield from ((table, key, json.dumps(value)) for key, value in attrs.items())
    yield from ((STEPS, step, *_stored(value)) for step, value in trial.intermediate_values.items())
    yield from ((VALUES, objective, *_stored(value)) for objective, value in enumerate(trial.values or ()))


def _trial(row: Any, facts: dict[tuple[str, int], list[Any]]) -> FrozenTrial:
    trial_id, number, state, *times = row
    start, complete = map(_local, times)
    params = [(name, _distribution(text), value) for _, name, text, value in facts[PARAMS, trial_id]]
    return FrozenTrial(
        number=number,
        trial_id=trial_id,
        state=state,
        value=None,
        values=[SPECIAL.get(kind, value) for _, _, kind, value in facts[VALUES, trial_id]] or None,
        datetime_start=start,
        datetime_complete=complete,
        params={name: distribution.to_external_repr(value) for name, distribution, value in params},
        distributions={name: distribution for name, distribution, _ in params},
        user_attrs=_attrs(facts[USER, trial_id]),
        system_attrs=_attrs(facts[SYSTEM, trial_id]),
        intermediate_values={step: SPECIAL.get(kind, value) for step, _, kind, value in facts[STEPS, trial_id]},
    )


def _local(time: datetime | None) -> datetime | None:
    return time and time.replace(tzinfo=UTC).astimezone().replace(tzinfo=None)


def _attrs(facts: list[Any]) -> dict[str, Any]:
    return {key: json.loads(text) for _, key, text, _ in facts}


_distribution = functools.lru_cache(json_to_distribution)


def _stored(value: float) -> tuple[str, float | None]:
    for kind, special in SPECIAL.items():
        if value == special or (math.isnan(value) and math.isnan(special)):
            return kind, None
    return "FINITE", value


class _Statements:
    """Written once, as SQLAlchemy takes longer to build a statement than to send it."""

    def __init__(self, dialect: str) -> None:
        from optuna.storages._rdb.models import BaseModel  # no public name has Optuna's tables
        from sqlalchemy import ARRAY, Integer, and_, any_, bindparam, insert, or_, select, update

        tables = BaseModel.metadata.tables
        studies, trials = tables["studies"].c, tables["trials"].c
        self.hold = select(studies.study_id).where(studies.study_id == bindparam("study")).with_for_update()
        self.study_of = select(trials.study_id).where(trials.trial_id == bindparam("trial"))
        self.create = insert(tables["trials"])
        is_as_before = trials.state == bindparam("before", type_=trials.state.type)
        self.move = update(tables["trials"]).where(trials.trial_id == bindparam("trial"), is_as_before)
        is_postgresql = dialect == "postgresql"

        def is_one_of(column: Any, ids: str = "ids") -> Any:
            if is_postgresql:  # a list of 256 takes it twice as long
                return column == any_(bindparam(ids, type_=ARRAY(Integer)))
            return column.in_(bindparam(ids, expanding=True))

        columns = trials.trial_id, trials.number, trials.state, trials.datetime_start, trials.datetime_complete
        # Without + 0 the server reads all trials of the study by its index before it picks these.
        is_new = and_(trials.trial_id > bindparam("last"), trials.study_id + 0 == bindparam("study"))
        # While a trial waits nobody changes it. One that ran meanwhile has not started before those that were known.
        has_run = or_(trials.state != TrialState.WAITING, trials.datetime_start >= bindparam("newest"))
        was_waiting = and_(is_one_of(trials.trial_id, "waiting"), has_run)
        self.trials = select(*columns).where(or_(is_new, is_one_of(trials.trial_id), was_waiting))
        self.facts = _reading(tables, is_one_of)
        module = importlib.import_module(f"sqlalchemy.dialects.{'mysql' if dialect == 'mariadb' else dialect}")
        self.upserts = {table: _upsert(module.insert(tables[table]), _columns(table)) for table in FACTS}


def _columns(table: str) -> list[str]:
    """Those that name a fact, the owner and its name, then its text and, where there is one, its number."""
    number, name, text, value = FACTS[table]
    return ["study_id" if table in OF_STUDIES else "trial_id", name or number, text, *([value] if value else [])]


def _reading(tables: Any, is_one_of: Callable[[Any], Any]) -> Any:
    """All facts of these trials and of the study in one statement."""
    from sqlalchemy import Enum, String, bindparam, cast, literal, null, select, union_all

    parts = []
    for name, fields in FACTS.items():
        table = tables[name].c
        owner = table[_columns(name)[0]]
        number, key, text, value = (table[field] if field else null() for field in fields)
        text = cast(text, String) if isinstance(text.type, Enum) else text
        is_wanted = owner == bindparam("study") if name in OF_STUDIES else is_one_of(owner)
        parts.append(select(literal(name), owner, number, key, text, value).where(is_wanted))
    return union_all(*parts)


def _upsert(insert: Any, columns: list[str]) -> Any:
    keys, values = columns[:2], columns[2:]
    if hasattr(insert, "on_duplicate_key_update"):
        return insert.on_duplicate_key_update({name: insert.inserted[name] for name in values})
    return insert.on_conflict_do_update(index_elements=keys, set_={name: insert.excluded[name] for name in values})
