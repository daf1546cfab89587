"""A database server as a study's storage: timeouts, calls that wait while it is away, and steps as transactions.

Knows Optuna's tables, not what a study holds.
"""

import contextlib
import copy
import functools
import itertools
import random
import re
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, TypeVar

import optuna
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial

SILENT_SECONDS = 10
"""After so long without an answer a connection counts as dead, and so does a worker in the middle of a step."""
LONGEST_PAUSE = 2.0
"""Seconds between two attempts to reach a server that is away."""

T = TypeVar("T")


class _Patience(threading.local):
    seconds = 0.0


patience = _Patience()
"""How long this thread waits for a server that is away."""


def open_server(address: str) -> "Server":
    """A connection that the server closed meanwhile is opened anew instead of failing. ValueError for a wrong port."""
    from sqlalchemy.engine import make_url

    url = make_url(address)
    arguments = _timeouts(url.get_driver_name())
    options: dict[str, Any] = {
        "connect_args": {key: value for key, value in arguments.items() if key not in url.query},
        "isolation_level": "READ COMMITTED",  # a step sees what the step before it has written
        "pool_pre_ping": True,
    }
    return _patiently(functools.partial(Server, address, engine_kwargs=options))


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
    """Calls again while the server is away, for as long as `patience` says."""
    until, pause = time.monotonic() + patience.seconds, 0.1
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


class Server(RDBStorage):
    """Optuna's storage, whose calls wait for a server that is away, but those within a step (see Transactions).

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
    method = getattr(Server, name)

    @functools.wraps(method)
    def call(self: Server, *args: Any, **kwargs: Any) -> Any:
        once = functools.partial(method, self, *args, **kwargs)
        return once() if self.in_step else _patiently(once)

    return call


# Whoever loses the answer does not know whether the call was carried out. To read, and to set an attribute or a step's
# value once more, changes nothing; a parameter that is there already is left as it is. To create a study or a trial
# and to change a trial's state would: these calls are made within a step, or before the search begins.
for _name in dir(RDBStorage):
    if re.match(r"get_|set_|_get_trials$|_set_trial_param$", _name) and _name != "set_trial_state_values":
        setattr(Server, _name, _waits(_name))


class Transactions:
    """A step is a transaction that locks the study's row: it is taken as a whole or not at all.

    The server ends it where its worker is cut off, and the worker finds out before anything is written.
    """

    def __init__(self, study: optuna.Study, storage: Server) -> None:
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
