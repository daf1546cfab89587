"""Where a study is kept: exact numbers of trials under several workers, and one line where a storage is lost.

PostgreSQL is a real server on loopback, which the tests start and stop; without its programs those tests are skipped.
"""

from __future__ import annotations

import importlib.util
import json
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from conftest import REPOSITORY, run_python

from cifarsweep.sweeper import storage
from cifarsweep.terminal.command_line import without_credentials

PASSWORD = "open-sesame"
TOY = str(REPOSITORY / "tests" / "toy.py")
WORDS = ["-m", "search=quick", "data=shapes", "trainer.epochs=2", "name=x"]

PATIENCE_SECONDS = 150
"""For what takes 5 s on an idle machine."""


class Server:
    """A PostgreSQL of our own. Its programs refuse to run as root, so that root hands them to the user `postgres`."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self._programs, self._folder = programs, folder
        self._user = "postgres" if os.geteuid() == 0 else None
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self.address = f"postgresql+psycopg://me:{PASSWORD}@127.0.0.1:{self._port}/postgres"

    def create(self) -> None:
        password = self._folder / "password"
        password.write_text(PASSWORD)
        if self._user is not None:
            for path in (self._folder, password):
                shutil.chown(path, self._user)
        login = ["--username=me", "--auth=scram-sha-256", f"--pwfile={password}"]
        self._run("initdb", *login, "--no-sync", "--no-locale", "--encoding=UTF8")

    def start(self) -> None:
        options = f"-p {self._port} -c listen_addresses=127.0.0.1 -k {self._folder} -c fsync=off"
        self._run("pg_ctl", "start", "--wait", f"--log={self._folder}/log", f"--options={options}")

    def stop(self) -> None:
        """As if its machine lost power."""
        self._run("pg_ctl", "stop", "--mode=immediate")

    def _run(self, program: str, *words: str) -> None:
        subprocess.run(
            [self._programs / program, f"--pgdata={self._folder}/data", *words],
            cwd=self._folder,
            user=self._user,
            group=self._user,
            extra_groups=None if self._user is None else [],
            stdout=subprocess.DEVNULL,  # the server inherits it, and a pipe would stay open
            check=True,
            timeout=60,
        )


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    programs = _postgresql()
    # Not in pytest's folder, which other users cannot enter; short, as the path of a socket may have 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="pg", dir="/tmp"))
    server = Server(programs, folder)
    try:
        server.create()
        server.start()
        yield server
        server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _postgresql() -> Path:
    """The folder of PostgreSQL's programs; skips where the server or its driver is not installed."""
    if importlib.util.find_spec("psycopg") is None:
        pytest.skip("psycopg is not installed: pip install -e '.[postgres]'")
    on_path = shutil.which("initdb")
    found = [Path(on_path)] if on_path else sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        pytest.skip("no PostgreSQL server is installed: apt-get install postgresql")
    if os.geteuid() == 0 and not any(user.pw_name == "postgres" for user in pwd.getpwall()):
        pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
    return found[-1].resolve().parent


# PostgreSQL


def test_three_workers_share_a_study_in_postgresql(server: Server, tmp_path: Path) -> None:
    done = _search(tmp_path, "name=three", "hydra.sweeper.n_workers=3", trials=12, address=server.address)

    assert done.returncode == 0, done.stderr
    assert _started(tmp_path) == list(range(12))
    assert sorted(_finished("three", server.address)) == list(range(12))


def test_a_study_goes_on_after_its_server_was_gone(server: Server, tmp_path: Path) -> None:
    running = _begin(tmp_path, "hydra.sweeper.n_workers=3", trials=20, address=server.address, TOY_SECONDS="0.2")
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


def test_a_server_that_was_started_anew_between_two_epochs_is_not_noticed(server: Server) -> None:
    study = optuna.create_study(study_name="anew", storage=storage.open_storage(server.address))
    trial = study.ask()
    server.stop()
    server.start()
    trial.report(0.5, 1)
    study.tell(trial, 0.5)
    assert study.best_value == 0.5


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
def test_a_journal_damaged_in_the_middle_is_named_in_one_line(tmp_path: Path, damage: str) -> None:
    _search(tmp_path, "hydra/launcher=basic", trials=2)
    journal = tmp_path / "outputs/sweeps/x/study.journal"
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join([*lines[:4], f"{damage}\n", *lines[5:]]))

    done = _search(tmp_path, "hydra/launcher=basic", trials=3)

    assert done.returncode == 1
    assert done.stderr.splitlines() == [f"{journal}: not a journal of Optuna, or damaged in the middle"]


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
