"""optuna-dashboard on a search's storage, by the command that the search prints at its end."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import postgresql
import pytest
from conftest import server  # noqa: F401
from test_search import Toy, read_study, start_toy, toy  # noqa: F401

import cifarsweep

optuna_dashboard = pytest.importorskip("optuna_dashboard")
CLI = "import sys; from optuna_dashboard._cli import main; sys.argv[0] = 'optuna-dashboard'; main()"
WORDS = ["hydra/sweeper/pruner=promote", "trainer.epochs=4"]


@contextlib.contextmanager
def dashboard(storage: str) -> Iterator[Callable[[str], Any]]:
    """What its server answers under /api/."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, "-c", CLI, storage, "--port", str(port), "--host", "127.0.0.1", "--quiet"]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def ask(path: str) -> Any:
        end = time.monotonic() + 120
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/{path}", timeout=60) as answer:
                    return json.load(answer)
            except (urllib.error.URLError, ConnectionError):
                assert process.poll() is None
                assert time.monotonic() < end
                time.sleep(0.1)

    try:
        yield ask
    finally:
        process.kill()
        process.wait()


def study_in(ask: Callable[[str], Any]) -> dict[str, Any]:
    (summary,) = ask("studies")["study_summaries"]
    study: dict[str, Any] = ask(f"studies/{summary['study_id']}?after=0")
    return study


def trials_in(ask: Callable[[str], Any]) -> dict[int, dict[str, Any]]:
    return {trial["number"]: trial for trial in study_in(ask)["trials"]}


def attributes(trial: dict[str, Any]) -> dict[str, str]:
    return {item["key"]: item["value"] for item in trial["user_attrs"]}


def printed_storage(stdout: str) -> str:
    (command,) = re.findall(r"^in a browser: optuna-dashboard (.*)$", stdout, re.MULTILINE)
    (storage,) = shlex.split(command)
    return storage


def compare_with_the_record(folder: Path, storage: str) -> None:
    with dashboard(storage) as ask:
        study = study_in(ask)
    shown, note = {trial["number"]: trial for trial in study["trials"]}, study["note"]["body"]
    assert f"`{folder / 'outputs' / 'runs'}`" in note  # where the folder that a trial's `run` names is
    assert "`paused`" in note
    recorded = read_study(folder)["trials"]
    assert shown.keys() == {trial["number"] for trial in recorded}
    for trial in recorded:
        there = shown[trial["number"]]
        assert attributes(there)["run"] == trial["run"]
        assert {str(value["step"]): value["value"] for value in there["intermediate_values"]} == trial["epochs"]
        assert {item["name"] for item in there["params"]} >= {"model", "optimizer"}
        if trial["state"] == "paused":
            assert attributes(there)["paused"] == max(trial["epochs"])  # a paused trial waits, for Optuna
        else:
            assert there["values"] == trial["values"]
    assert {trial["state"] for trial in recorded} == {"complete", "paused"}


def test_the_command_at_the_end_of_a_search_shows_its_trials(toy: Toy, tmp_path: Path) -> None:  # noqa: F811
    done = toy(*WORDS, "hydra.sweeper.n_trials=9")
    compare_with_the_record(tmp_path, str(tmp_path / printed_storage(done.stdout)))


def test_a_note_that_a_person_wrote_stays(toy: Toy, tmp_path: Path) -> None:  # noqa: F811
    toy(*WORDS, "hydra.sweeper.n_trials=1")
    study = cifarsweep.load_study(tmp_path / "outputs" / "sweeps" / "toy")
    optuna_dashboard.save_note(study, "my own words")
    toy(*WORDS, "hydra.sweeper.n_trials=2")
    assert optuna_dashboard.get_note(study) == "my own words"


def test_a_database_is_shown_as_well(toy: Toy, tmp_path: Path, server: postgresql.Server) -> None:  # noqa: F811
    done = toy(*WORDS, "hydra.sweeper.n_trials=9", f"hydra.sweeper.storage={server.address}")
    user, _, host = printed_storage(done.stdout).partition(":***@")
    assert (server.address.startswith(user), server.address.endswith(host)) == (True, True)
    compare_with_the_record(tmp_path, server.address)


def test_a_running_search_can_be_watched(tmp_path: Path) -> None:
    process = start_toy(tmp_path, *WORDS, "hydra.sweeper.n_trials=9", "hydra/launcher=basic", TOY_SECONDS="0.3")
    journal = tmp_path / "outputs" / "sweeps" / "toy" / "study.journal"
    while not journal.exists() or b'"intermediate_value"' not in journal.read_bytes():
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGSTOP)  # so that it runs still, however long the dashboard takes to start
    with dashboard(str(journal)) as ask:
        shown = trials_in(ask)
        assert any(trial["state"] == "Running" or trial["intermediate_values"] for trial in shown.values())
        assert process.poll() is None
        os.kill(process.pid, signal.SIGCONT)
        _, stderr = process.communicate(timeout=240)
        assert (process.returncode, stderr) == (0, "")
        while {attributes(trial).get("run") for trial in trials_in(ask).values()} != {f"toy-{n}" for n in range(9)}:
            time.sleep(0.2)  # it reads the storage again after a while
