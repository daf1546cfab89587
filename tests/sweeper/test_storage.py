"""Where a study is kept: exact numbers of trials under several workers, and one line where a storage is lost.

PostgreSQL and MariaDB are real servers on loopback, which the tests start and stop; without their programs those tests
are skipped.
"""

from __future__ import annotations

import json
import math
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta, tzinfo
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mariadb
import optuna
import postgresql
import pytest
import sqlalchemy
from conftest import REPOSITORY, run_python
from hydra.errors import MissingConfigException
from optuna.trial import FrozenTrial, TrialState
from postgresql import PASSWORD, Server

from cifarsweep.sweeper import database as databases
from cifarsweep.sweeper import storage
from cifarsweep.sweeper.promotion import PAUSED, PROMOTED, PromotionPruner, SampledStudy
from cifarsweep.sweeper.queue import Outcome, Queue
from cifarsweep.sweeper.settings import Budget
from cifarsweep.sweeper.studies import OpenStudy
from cifarsweep.terminal.command_line import without_credentials

TOY = str(REPOSITORY / "tests" / "toy.py")
WORDS = ["-m", "search=quick", "hydra/sweeper/pruner=asha", "data=shapes", "trainer.epochs=2", "name=x"]

PATIENCE_SECONDS = 150
"""For what takes 5 s on an idle machine."""


@pytest.fixture(scope="module", params=["PostgreSQL", "MariaDB", "SQLite"])
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a database, one after the other."""
    if request.param == "SQLite":
        yield f"sqlite:///{tmp_path_factory.mktemp('database')}/study.db"
        return
    if request.param == "PostgreSQL":
        yield request.getfixturevalue("server").address
        return
    try:
        with mariadb.running() as address:
            yield address
    except postgresql.Missing as missing:
        pytest.skip(str(missing))


# database servers


def test_three_workers_share_a_study_on_a_server(database: str, tmp_path: Path) -> None:
    done = _search(tmp_path, "name=three", "hydra.sweeper.n_workers=3", trials=12, address=database)

    assert done.returncode == 0, done.stderr
    assert _started(tmp_path) == list(range(12))
    assert sorted(_finished("three", database)) == list(range(12))


def test_a_study_goes_on_after_its_server_was_gone(server: Server, tmp_path: Path) -> None:
    words = ["hydra.sweeper.n_workers=3", "hydra.sweeper.storage_timeout=1"]
    running = _begin(tmp_path, *words, trials=20, address=server.address, TOY_SECONDS="0.2")
    _wait_for_ends(tmp_path, 5)
    server.stop()
    out, err = running.communicate(timeout=PATIENCE_SECONDS)
    server.start()

    assert running.returncode == 1
    assert [line for line in err.splitlines() if "hydra.sweeper.storage=" in line] == err.splitlines()
    assert len(err.splitlines()) == 1
    assert "me:***@127.0.0.1" in err
    assert PASSWORD not in out + err
    before = _finished("x", server.address)
    assert 5 <= len(before) < 20

    again = _search(tmp_path, "hydra.sweeper.n_workers=3", trials=20, address=server.address)

    assert again.returncode == 0, again.stderr
    after = _finished("x", server.address)
    assert sorted(after) == list(range(20))
    assert {number: after[number] for number in before} == before


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "sampler"), [("fast", "tpe"), ("immediate", "random")])
def test_workers_wait_for_a_server_that_is_away_for_eight_seconds(
    server: Server, tmp_path: Path, mode: str, sampler: str
) -> None:
    words = [
        f"name={mode}",
        "hydra.sweeper.n_workers=2",
        "hydra/sweeper/pruner=none",
        f"hydra/sweeper/sampler={sampler}",
    ]
    running = _begin(tmp_path, *words, trials=60, address=server.address, TOY_SECONDS="0.05")
    _wait_for_ends(tmp_path, 10)
    server.stop(mode)
    time.sleep(8)
    server.start()
    out, err = running.communicate(timeout=PATIENCE_SECONDS)

    assert (running.returncode, err) == (0, "")
    assert _started(tmp_path) == list(range(60))
    trials = optuna.load_study(study_name=mode, storage=server.address).trials
    assert [(trial.state, len(trial.intermediate_values)) for trial in trials] == [(TrialState.COMPLETE, 2)] * 60
    lines = out.splitlines()
    assert sum("; waiting for at most 300 s (hydra.sweeper.storage_timeout)" in line for line in lines) == 1
    assert sum("the storage is back" in line for line in lines) == 1


def test_a_server_that_was_started_anew_between_two_epochs_is_not_noticed(server: Server) -> None:
    study = optuna.create_study(study_name="anew", storage=storage.open_storage(server.address))
    trial = study.ask()
    server.stop()
    server.start()
    trial.report(0.5, 1)
    study.tell(trial, 0.5)
    assert study.best_value == 0.5


def test_a_trial_is_made_when_it_is_claimed(database: str, tmp_path: Path) -> None:
    queue = _queue(database, tmp_path, "lazily")
    queue.top_up(1000)
    assert (queue.num_waiting, queue.ours()) == (1000, [])
    claimed = queue.claim("one")
    assert claimed is not None
    assert [trial.number for trial in queue.ours()] == [0]
    assert queue.num_waiting == 999


def test_trials_that_an_earlier_version_made_to_wait_are_claimed_in_order(database: str, tmp_path: Path) -> None:
    queue = _queue(database, tmp_path, "premade")
    for _ in range(3):
        queue._study.add_trial(optuna.trial.create_trial(state=TrialState.WAITING))
    queue._study.enqueue_trial({"lr": 0.1})
    queue.top_up(5)
    claimed = [queue.claim(f"worker {i}") for i in range(6)]
    assert [trial and trial.number for trial in claimed] == [3, 0, 1, 2, 4, None]


def test_a_step_whose_answer_was_lost_is_taken_again_without_a_trace(database: str, tmp_path: Path) -> None:
    queue = _queue(database, tmp_path, "again", Budget("steps", 3))
    trial, again = queue.claim("one"), queue.claim("one")
    assert trial is not None
    assert again is not None
    assert again.number == trial.number
    assert [queue.spend(trial, 1, ends=False) for _ in range(2)] == [True, True]
    assert [queue.spend(trial, 3, ends=False) for _ in range(2)] == [False, False]
    assert [queue.finish(trial, "one", Outcome(TrialState.COMPLETE, [1.0])) for _ in range(2)] == [True, True]
    assert not queue.finish(trial, "two", Outcome(TrialState.COMPLETE, [1.0]))
    assert len(queue.ours()) == 1


def test_a_step_that_fails_in_its_middle_leaves_nothing(database: str, tmp_path: Path) -> None:
    queue = _queue(database, tmp_path, "nothing")
    queue.top_up(2)

    def step() -> None:
        assert queue.claim("one") is not None
        assert len(queue.ours()) == 1
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        queue.take(step)
    assert queue.ours() == []
    assert queue.num_waiting == 2


def test_a_worker_that_freezes_while_it_claims_does_not_stop_the_others(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(databases, "SILENT_SECONDS", 2)
    frozen, other = (_queue(server.address, tmp_path, "frozen") for _ in range(2))
    frozen.top_up(2)
    numbers: list[int] = []
    is_claiming, is_over = threading.Event(), threading.Event()

    def claim() -> None:
        def step() -> optuna.Trial | None:
            claimed = frozen.claim("one")
            if not is_claiming.is_set():
                is_claiming.set()
                is_over.wait(PATIENCE_SECONDS)
            return claimed

        with storage.reaching(server.address, 60):
            numbers.extend(trial.number for trial in [frozen.take(step)] if trial)

    thread = threading.Thread(target=claim)
    thread.start()
    assert is_claiming.wait(PATIENCE_SECONDS)
    began = time.monotonic()
    claimed = other.claim("two")
    assert time.monotonic() - began < 20
    is_over.set()
    thread.join()

    assert claimed is not None
    assert [claimed.number, *numbers] == [0, 1], "what the first did was taken back, and it did it again"


def test_a_sampler_may_think_for_longer_than_the_server_waits_for_a_worker_in_a_step(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(databases, "SILENT_SECONDS", 2)
    queue = _queue(server.address, tmp_path, "thinks")
    queue.top_up(1)
    claimed = queue.claim("one")
    assert claimed is not None
    began: list[float] = []

    def suggest(trial: optuna.Trial) -> None:
        began.append(time.monotonic())
        trial.suggest_float("lr", 0, 1)
        assert len(trial.study.trials) == 1
        time.sleep(3)

    trial = queue.suggest(claimed, suggest, _sampled(queue))

    assert len(began) == 1
    assert queue.ours()[0].params == trial.params


@pytest.mark.parametrize("writer", ["ours", "Optuna's"])
def test_trials_are_read_and_written_as_optuna_does(database: str, writer: str) -> None:
    store = storage.open_storage(database)
    name, directions = f"read {writer}", ["minimize", "maximize"]
    study = optuna.create_study(study_name=name, storage=store, directions=directions)
    optunas = optuna.load_study(study_name=name, storage=database)
    lr, kind = (
        optuna.distributions.FloatDistribution(0.1, 1, log=True),
        optuna.distributions.CategoricalDistribution("ab"),
    )
    for state in TrialState:
        ended = state.is_finished() and state != TrialState.FAIL
        (study if writer == "ours" else optunas).add_trial(
            optuna.trial.create_trial(
                state=state,
                params={"lr": 0.5, "kind": "b"},
                distributions={"lr": lr, "kind": kind},
                values=[math.inf, -0.25] if ended else None,
                user_attrs={"worker": "Jörg's", "steps": {"1": [0.5, None]}},
                system_attrs={"fixed_params": {"lr": 0.5}},
                intermediate_values={1: 0.5, 2: math.inf, 3: -math.inf},
            )
        )
    study.add_trial(optuna.trial.create_trial(state=TrialState.WAITING))
    study.set_user_attr("n_trials", 6)
    trial = study.ask()
    momentum = trial.suggest_float("momentum", 0, 1)
    trial.set_user_attr("worker", "one")
    study.tell(trial, state=TrialState.FAIL)
    theirs = optunas.trials
    assert [trial.number for trial in theirs] == list(range(6))
    assert theirs[trial.number].params == {"lr": 0.5, "kind": "b", "momentum": momentum}
    assert optunas.user_attrs == {"n_trials": 6}
    again = storage.open_storage(database)  # MariaDB keeps no fractions of a second, which the first has in memory
    assert again.get_all_trials(study._study_id) == theirs
    assert [again.get_trial(trial._trial_id) for trial in theirs] == theirs
    with pytest.raises(KeyError):
        again.get_trial(10**6)


def test_a_worker_that_trains_keeps_no_connection(database: str, tmp_path: Path) -> None:
    """A server accepts a hundred by default, and a cluster may have more workers."""
    before = _num_connections(database)
    queues = [_queue(database, tmp_path, "idle") for _ in range(3)]
    queues[0].top_up(6)
    for number, queue in enumerate(queues):
        assert queue.claim(f"worker {number}")

    deadline = time.monotonic() + PATIENCE_SECONDS
    while _num_connections(database) > before and time.monotonic() < deadline:
        time.sleep(0.2)

    assert _num_connections(database) <= before
    assert [queue.claim("again") is not None for queue in queues] == [True] * 3


def test_what_closes_an_idle_connection_costs_a_thread_once_not_each_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = _queue(f"sqlite:///{tmp_path}/steps.db", tmp_path, "steps")
    started, start = [], threading.Thread.start

    def counted(thread: threading.Thread) -> None:
        started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", counted)
    for n_trials in range(50):
        queue.top_up(n_trials)
    assert len(started) <= 1


def _num_connections(database: str) -> int:
    engine = sqlalchemy.create_engine(database, poolclass=sqlalchemy.pool.NullPool)
    by_dialect = {
        "postgresql": "SELECT count(*) FROM pg_stat_activity",
        "mysql": "SELECT count(*) FROM information_schema.processlist",
        "sqlite": "SELECT 0",  # a file accepts any number
    }
    with engine.connect() as connection:
        return int(connection.exec_driver_sql(by_dialect[engine.dialect.name]).scalar_one())


def test_bookkeeping_is_as_little_among_many_trials_as_among_few(database: str, tmp_path: Path) -> None:
    queue = _queue(database, tmp_path, "little")
    queue.top_up(1000)
    first = _statements(queue)
    for _ in range(50):
        queue._study.add_trial(optuna.trial.create_trial(value=0.5, params={}))
    assert _statements(queue) == first
    assert first["COMMIT"] == 6
    assert first.total() - first["COMMIT"] - first["BEGIN"] <= 26  # SQLite begins with a statement


def _statements(queue: Queue) -> Counter[str]:
    """What a trial of three steps asks of the server, by the first word of a statement."""
    engine, sampled = queue._storage._optuna.engine, _sampled(queue)
    seen: Counter[str] = Counter()
    listeners = [
        ("before_cursor_execute", lambda _, cursor, statement, *others: seen.update([statement.split()[0]])),
        ("commit", lambda _: seen.update(["COMMIT"])),
    ]
    for name, listener in listeners:
        sqlalchemy.event.listen(engine, name, listener)
    claimed = queue.claim("one")
    assert claimed is not None
    trial = queue.suggest(claimed, lambda trial: [trial.suggest_float(name, 0, 1) for name in "abcde"], sampled)
    for step in range(1, 4):
        queue.take(partial(queue.report, trial, step, 0.5), alone=False)
    assert queue.finish(trial, "one", Outcome(TrialState.COMPLETE, [0.5]))
    for name, listener in listeners:
        sqlalchemy.event.remove(engine, name, listener)
    return seen


def test_a_trial_that_paused_again_is_read_again(database: str, tmp_path: Path) -> None:
    one, other = (_queue(database, tmp_path, "paused") for _ in range(2))
    for queue in (one, other):
        queue._study.pruner = PromotionPruner(reduction_factor=3)
    one.top_up(1)
    for rung in (1, 3, 9):
        claimed = one.claim("one")
        assert claimed is not None
        for step in range(1 + rung // 3, rung + 1):
            stops = one.report(claimed, step, step / 10)
        assert stops
        assert one.pause(claimed, "one", rung, lambda trial: None)
        (trial,) = other.ours()
        assert trial.user_attrs[PAUSED] == max(trial.intermediate_values) == rung
    assert one.num_waiting == other.num_waiting == 1


@pytest.mark.parametrize("seed", range(4))
def test_what_is_known_of_a_study_is_what_its_tables_hold(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Whatever three workers do in whatever order, whose clocks are minutes apart, whoever looks when."""
    dice = random.Random(seed)
    queues = [_queue(database, tmp_path, f"known {seed}") for _ in range(3)]
    clocks = [timedelta(minutes=dice.uniform(-5, 5)) for _ in queues]
    truth = optuna.storages.RDBStorage(database)
    for queue in queues:
        queue._study.pruner = PromotionPruner(reduction_factor=2)
    queues[0].top_up(12)
    for _ in range(60):
        worker = dice.randrange(3)
        queue, name = queues[worker], str(worker)
        _set_clock(monkeypatch, clocks[worker])
        trial = queue.claim(name)
        for _ in range(dice.randrange(3) if trial else 0):
            step = 1 + max(queue._storage.get_trial(trial._trial_id).intermediate_values, default=0)
            if queue.take(partial(queue.report, trial, step, dice.random()), alone=False):
                assert queue.pause(trial, name, step, lambda other: None)
                break
            if step == 4:
                assert queue.finish(trial, name, Outcome(TrialState.COMPLETE, [0.5]))
                break
        else:
            if dice.random() < 0.3:
                queue.give_back(name)
        if dice.random() < 0.7:
            looks = dice.choice(queues)
            known = {trial._trial_id: _known(trial) for trial in looks._study.get_trials(deepcopy=False)}
            there = truth.get_all_trials(queue._study_id)
            assert known == {trial._trial_id: _known(trial) for trial in there}
    assert any(trial.user_attrs.get(PROMOTED) for trial in truth.get_all_trials(queue._study_id))


def _set_clock(monkeypatch: pytest.MonkeyPatch, wrong_by: timedelta) -> None:
    class Clock(datetime):
        @classmethod
        def now(cls, zone: tzinfo | None = None) -> datetime:
            return datetime.now(zone) + wrong_by

    monkeypatch.setattr(databases, "datetime", Clock)


def _known(trial: FrozenTrial) -> list[Any]:
    return [trial.state, trial.datetime_start, trial.intermediate_values, trial.user_attrs, trial.values]


def test_a_trial_that_is_read_alone_hides_no_other(database: str, tmp_path: Path) -> None:
    one, other, reader = (_queue(database, tmp_path, "alone") for _ in range(3))
    one.top_up(2)
    for step in (1, 2):
        trials = [one.claim("one"), other.claim("other")]  # with a pruner for which every paused trial goes on
        for queue, name, trial in zip((one, other), ("one", "other"), trials, strict=True):
            assert trial is not None
            queue.report(trial, step, 0.5)
            if step == 1 or name == "one":
                assert queue.pause(trial, name, step, lambda trial: None)
        if step == 1:
            assert [trial.user_attrs[PAUSED] for trial in reader.ours()] == [1, 1]
    assert trials[1] is not None
    alone = reader.take(partial(reader._storage.get_trial, trials[1]._trial_id))
    assert alone.state == TrialState.RUNNING
    assert [trial.user_attrs[PAUSED] for trial in reader.ours()] == [2, None]


def test_paused_trials_are_read_once(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = (_queue(database, tmp_path, "once") for _ in range(2))
    for queue in (one, other):
        queue._study.pruner = PromotionPruner(reduction_factor=1000)
    one.top_up(30)

    def pause_one(queue: Queue) -> None:
        claimed = queue.claim("one")
        assert claimed is not None
        assert queue.take(partial(queue.report, claimed, 1, 0.5), alone=False)
        assert queue.pause(claimed, "one", 1, lambda trial: None)

    for _ in range(25):
        pause_one(one)
    time.sleep(1)  # MariaDB keeps whole seconds
    pause_one(one)
    known = {trial._trial_id for trial in other.ours()}
    read: list[int] = []
    trial_of = databases._trial
    monkeypatch.setattr(databases, "_trial", lambda row, facts: read.append(row[0]) or trial_of(row, facts))
    pause_one(other)
    assert len(known.intersection(read)) <= 1  # the last one has started at the time that is asked for


def test_what_a_lost_transaction_took_back_is_written_again(database: str, tmp_path: Path) -> None:
    queue = _queue(database, tmp_path, "lost")
    queue.top_up(1)
    claimed = queue.claim("one")
    assert claimed is not None
    drivers = type("OperationalError", (Exception,), {})()  # which SQLAlchemy passes on as it is
    losses = [drivers, sqlalchemy.exc.OperationalError("", {}, Exception())]

    def suggest(trial: optuna.Trial) -> None:
        trial.suggest_float("lr", 0, 1)
        if len(losses) == 2:
            raise losses.pop()

    def report() -> None:
        queue.report(trial, 1, 0.5)
        if losses:
            raise losses.pop()

    trial = queue.suggest(claimed, suggest, _sampled(queue))
    queue.take(report, alone=False)

    stored = optuna.load_study(study_name="lost", storage=database).trials[0]
    assert stored.params == trial.params
    assert list(stored.params) == ["lr"]
    assert stored.intermediate_values == {1: 0.5}


@pytest.mark.parametrize("in_turn", [True, False])
@pytest.mark.parametrize("error", [sqlalchemy.exc.OperationalError("", {}, Exception()), ValueError("no value")])
def test_a_trial_that_could_not_be_sampled_is_free_again(
    database: str, tmp_path: Path, error: Exception, in_turn: bool
) -> None:
    errors = [error]

    def suggest(trial: optuna.Trial) -> None:
        trial.suggest_float("lr", 0, 1)
        if errors:
            raise errors.pop()

    name = f"{type(error).__name__} {in_turn}"
    plan: Any = SimpleNamespace(
        name=name,
        address=database,
        folder=tmp_path,
        space=SimpleNamespace(suggest=suggest, values=dict, excludes=lambda values: False),
        is_final=False,
        finals=None,
    )
    plan.settings = SimpleNamespace(sampler={"_target_": "optuna.samplers.RandomSampler"}, budget=None)
    plan.settings.pruner, plan.settings.samples_in_turn = {"_target_": "optuna.pruners.NopPruner"}, in_turn
    plan.settings.enumerates = False
    store = storage.open_storage(database)
    optuna.create_study(study_name=name, storage=store)
    study = OpenStudy(plan, store)
    study.queue.top_up(1)
    if isinstance(error, ValueError):
        with pytest.raises(ValueError, match="no value"):
            study.claim("one")
        assert study.queue.num_waiting == 1

    trial = study.claim("two")

    assert trial is not None
    stored = optuna.load_study(study_name=name, storage=database).trials
    assert [(trial.state, trial.params) for trial in stored] == [(TrialState.RUNNING, trial.params)]
    assert "lr" in trial.params


def _queue(address: str, folder: Path, name: str, budget: Budget | None = None) -> Queue:
    store = storage.open_storage(address)
    study = optuna.create_study(study_name=name, storage=store, load_if_exists=True)
    limits: Any = SimpleNamespace(max_retries=1, max_failures=5, grace_period=120, budget=budget, finalists=0)
    return Queue(study, folder, limits)


def _sampled(queue: Queue) -> SampledStudy:
    return SampledStudy(queue._study.study_name, queue._storage)


def _finished(name: str, address: str) -> dict[int, tuple[object, ...]]:
    """By number, what the finished trials of a study found, as another program would read it."""
    study = optuna.load_study(study_name=name, storage=address)
    return {t.number: (t.state, t.values, t.params, t.datetime_complete) for t in study.trials if t.state.is_finished()}


# SQLite


@pytest.mark.slow
def test_four_workers_share_a_study_in_sqlite(tmp_path: Path) -> None:
    address = f"sqlite:///{tmp_path}/study.db"

    done = _search(tmp_path, "hydra.sweeper.n_workers=4", trials=16, address=address)

    assert done.returncode == 0, done.stderr
    assert _started(tmp_path) == list(range(16))
    assert sorted(_finished("x", address)) == list(range(16))


# the journal


def test_half_a_line_at_the_end_of_a_journal_is_cut_and_the_study_goes_on(tmp_path: Path) -> None:
    _search(tmp_path, "hydra/launcher=basic", trials=3)
    journal = tmp_path / "outputs/sweeps/x/study.journal"
    whole = journal.read_text()
    journal.write_text(whole + '{"op_code": 5, "wor')

    done = _search(tmp_path, "hydra/launcher=basic", trials=5)

    assert done.returncode == 0, done.stderr
    assert _started(tmp_path) == list(range(5))
    lines = journal.read_text().splitlines()
    assert "\n".join(lines).startswith(whole)
    assert all(json.loads(line) for line in lines)


def test_a_whole_last_line_of_a_journal_is_kept(tmp_path: Path) -> None:
    journal = tmp_path / "study.journal"
    optuna.create_study(study_name="x", storage=storage.open_storage(str(journal)))
    whole = journal.read_bytes()

    storage.open_storage(str(journal))

    assert journal.read_bytes() == whole


def test_a_long_torn_line_of_a_journal_is_cut_as_a_whole(tmp_path: Path) -> None:
    journal = tmp_path / "study.journal"
    optuna.create_study(study_name="x", storage=storage.open_storage(str(journal)))
    whole = journal.read_bytes()
    journal.write_bytes(whole + b"x" * 200_000)

    storage.open_storage(str(journal))

    assert journal.read_bytes() == whole


def test_the_disk_is_waited_for_where_a_trial_has_ended_and_only_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    study = optuna.create_study(storage=storage.open_storage(str(tmp_path / "study.journal")))
    trial = study.ask()
    trial.suggest_float("lr", 0, 1)
    trial.report(0.5, 1)
    assert not synced
    study.tell(trial, 0.5)
    assert len(synced) == 1


@pytest.mark.parametrize("damage", ['{"op_code": 5, "wor', '"hello"', '{"op_code": 77}', "{}", '{"op_code": 0}'])
def test_a_journal_damaged_in_the_middle_is_set_aside_and_the_study_goes_on(tmp_path: Path, damage: str) -> None:
    _search(tmp_path, "hydra/launcher=basic", trials=2)
    journal = tmp_path / "outputs/sweeps/x/study.journal"
    before = _values(tmp_path)
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join([*lines[:4], f"{damage}\n", *lines[5:]]))

    done = _search(tmp_path, "hydra/launcher=basic", trials=3)

    assert done.returncode == 0
    said = f"{journal}: damaged, and set aside as study.journal.corrupt; the study goes on after its 4 sound lines"
    assert said in done.stdout.splitlines()
    assert _values(tmp_path)[:2] == before
    assert len(_values(tmp_path)) == 3


def test_what_a_deleted_journal_had_is_named_and_drawn_again(tmp_path: Path) -> None:
    _search(tmp_path, "hydra/launcher=basic", trials=3)
    sweep = tmp_path / "outputs/sweeps/x"
    before = _values(tmp_path)
    (sweep / "study.journal").unlink()

    done = _search(tmp_path, "hydra/launcher=basic", trials=3)

    assert done.returncode == 0
    said = f"{sweep}/study.journal: lacks 3 trials of study.json, which is kept as study.json.corrupt"
    assert said in done.stdout.splitlines()
    assert _values(tmp_path) == before


def test_two_sweeps_of_one_name_do_not_share_a_study(tmp_path: Path) -> None:
    address = str(tmp_path / "shared.journal")
    _search(tmp_path, "hydra/launcher=basic", trials=2, address=address)

    done = _search(tmp_path, "hydra/launcher=basic", f"outputs={tmp_path}/others", trials=2, address=address)

    assert done.returncode == 1
    owner = tmp_path / "outputs/sweeps/x"
    assert done.stderr == (
        f"the study x in this storage belongs to the sweep in {owner}; another name= begins a new one\n"
    )


@pytest.mark.parametrize("kind", ["other direction", "trials", "odd attributes"])
def test_a_study_that_another_program_made_is_refused(tmp_path: Path, kind: str) -> None:
    address = str(tmp_path / "shared.journal")
    direction = "minimize" if kind == "other direction" else "maximize"
    study = optuna.create_study(study_name="x", storage=storage.open_storage(address), direction=direction)
    if kind == "trials":
        study.optimize(lambda trial: trial.suggest_float("y", 0, 1), n_trials=1)
    if kind == "odd attributes":
        study.set_user_attr("space", ["of stars"])

    done = _search(tmp_path, "hydra/launcher=basic", trials=2, address=address)

    assert done.returncode == 1
    assert done.stderr == "the study x in this storage was made by another program; another name= begins a new one\n"


def _values(folder: Path) -> list[Any]:
    """By number, the parameters and values of a search."""
    study = json.loads((folder / "outputs/sweeps/x/study.json").read_text())
    return [(trial["number"], trial["params"], trial["values"]) for trial in study["trials"]]


# addresses


def test_a_server_that_is_not_there_is_one_line_without_the_password(tmp_path: Path) -> None:
    pytest.importorskip("psycopg", reason="psycopg is not installed: pip install -e '.[postgres]'")

    done = _search(tmp_path, trials=2, address=f"postgresql+psycopg://me:{PASSWORD}@127.0.0.1:1/study")

    assert done.returncode == 1
    assert done.stderr.startswith("hydra.sweeper.storage=postgresql+psycopg://me:***@127.0.0.1:1/study: ")
    assert "refused" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert PASSWORD not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("oracle://me:open-sesame@here/study", "expected a journal file's path or an address of sqlite, postgresql"),
        ("postgresql+nosuch://me:open-sesame@here/study", "Can't load plugin"),
        ("sqlite://", "expected a file"),
        ("sqlite:///:memory:", "expected a file"),
        (
            "postgresql://me:open-sesame@here:port/study",
            "expected postgresql+DRIVER://USER:PASSWORD@HOST:PORT/DATABASE",
        ),
    ],
)
def test_an_address_that_names_no_storage_is_refused(address: str, message: str) -> None:
    with pytest.raises(storage.Lost, match=r"^hydra\.sweeper\.storage=") as refused:
        storage.open_storage(storage.address_of(address, Path()))

    assert message in str(refused.value)
    assert "\n" not in str(refused.value)
    assert PASSWORD not in str(refused.value)


@pytest.mark.parametrize(
    ("dialect", "module", "install"),
    [
        ("postgresql+psycopg", "psycopg", r"pip install 'cifarsweep\[postgres\]'"),
        ("mysql", "MySQLdb", "pip install pymysql"),
    ],
)
def test_a_driver_that_is_not_installed_is_named_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, dialect: str, module: str, install: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)  # what importing it then raises is what its absence would

    with pytest.raises(storage.Lost, match=install) as refused:
        storage.open_storage(f"{dialect}://me:{PASSWORD}@here/study")

    assert PASSWORD not in str(refused.value)


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("postgresql://me:open-sesame@here/study", "postgresql://me:***@here/study"),
        ("postgresql+psycopg://me:open:sesame@here:1/study", "postgresql+psycopg://me:***@here:1/study"),
        ("postgresql://me:open@sesame@here/study", "postgresql://me:***@here/study"),
        (
            "postgresql://here/study?user=me&password=open-sesame&a=1",
            "postgresql://here/study?user=me&password=***&a=1",
        ),
        ("postgresql://me@here/study", "postgresql://me@here/study"),
        ("sqlite:////home/me/study.db", "sqlite:////home/me/study.db"),
    ],
)
def test_a_password_is_hidden_and_nothing_else(address: str, shown: str) -> None:
    assert without_credentials(address) == shown


# searches whose task trains nothing


def _search(folder: Path, *words: str, **given: Any) -> subprocess.CompletedProcess[str]:
    return run_python(*_command(folder, *words, **given), cwd=folder, TOY_LOG=str(folder / "log"))


def _begin(
    folder: Path, *words: str, trials: int, address: str | None = None, **environment: str
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *_command(folder, *words, trials=trials, address=address)],
        cwd=folder,
        env={**os.environ, "TOY_LOG": str(folder / "log"), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _command(folder: Path, *words: str, trials: int, address: str | None = None) -> list[str]:
    kept = [] if address is None else [f"hydra.sweeper.storage={address}"]
    return [TOY, *WORDS, f"hydra.sweeper.n_trials={trials}", f"outputs={folder}/outputs", *kept, *words]


def _started(folder: Path) -> list[int]:
    """The numbers of the trials that were started, in order; a number twice for a trial that was started twice."""
    lines = (folder / "log").read_text().splitlines()
    return sorted(int(line.split()[1]) for line in lines if line.startswith("start"))


def _wait_for_ends(folder: Path, num_trials: int) -> None:
    """Until so many trials have told the study how they ended, the next one's start being the sign of it."""
    log, until = folder / "log", time.monotonic() + PATIENCE_SECONDS
    while not log.exists() or log.read_text().count("start") < num_trials + 3:
        assert time.monotonic() < until, "no trial started"
        time.sleep(0.05)


def test_an_option_that_is_missing_is_no_fault_of_the_storage(tmp_path: Path) -> None:
    """Hydra's error for it is an OSError: somebody has moved the file while the search ran."""
    error = MissingConfigException("In 'config': Could not find 'search/mine'")
    with pytest.raises(MissingConfigException), storage.reaching(str(tmp_path / "study.journal")):
        raise error
