"""`python -m cifarsweep.runs`: which runs and sweeps are listed, in which order, and what is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY, Command

from cifarsweep import runs
from cifarsweep.results import records, sweeps
from cifarsweep.terminal import boundary

List = Callable[..., list[str]]


@pytest.fixture
def outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for seed, (model, lr, accuracy) in enumerate([("layers2", 0.1, 0.7), ("layers3", 0.3, 0.9), ("layers3", 0.1, 0.8)]):
        fake_run(tmp_path / "outputs", model=model, lr=lr, seed=seed, val_accuracy=accuracy)
    fake_run(tmp_path / "outputs", model="layers4", lr=1.0, seed=3, status="failed", error="no luck")
    return tmp_path / "outputs"


def fake_run(outputs: Path, **known: Any) -> Path:
    known = {"run_id": f"{known['seed']:012x}", "status": "complete", "batch_size": 128, **known}
    run = outputs / "runs" / f"{known['model']}-{known['run_id']}"
    run.mkdir(parents=True)
    (run / "config.yaml").write_text(json.dumps({"run": known}))
    started = f"2026-01-0{1 + known['seed']}T00:00:00+00:00"
    result = {**dict.fromkeys(records.COLUMNS), "started": started, **known}
    (run / "result.json").write_text(json.dumps(result))
    return run


@pytest.fixture
def listed(outputs: Path, capsys: pytest.CaptureFixture[str]) -> List:
    """The second column, or that of `--columns`, of each line that is printed."""

    def run(*words: str) -> list[str]:
        assert runs.main(["--columns", "seed", *words]) == 0
        header, *lines = capsys.readouterr().out.splitlines()
        assert header.strip() == "seed"
        return [line.strip() for line in lines]

    return run


@pytest.mark.parametrize(
    ("words", "seeds"),
    [
        ([], "3210"),
        (["--sort", "val_accuracy"], "1203"),
        (["--sort", "val_accuracy", "--reverse"], "0213"),
        (["--sort", "started"], "3210"),
        (["--sort", "lr"], "0213"),
        (["--sort", "seed", "--limit", "2"], "01"),
        (["status=complete"], "210"),
        (["status!=complete"], "3"),
        (["model=layers3"], "21"),
        (["model=layers[23]", "lr=0.1"], "20"),
        (["lr=0.3,1"], "31"),
        (["val_accuracy>0.75"], "21"),
        (["val_accuracy>=0.8", "val_accuracy<0.9"], "2"),
        (["val_accuracy="], "3"),
        (["error=no*"], "3"),
        (["model=layers3 & lr<0.3"], "2"),
        (["outputs/runs"], "3210"),
        (["000000000001"], "1"),
        (["layers3-000000000002"], "2"),
    ],
)
def test_conditions_and_order(listed: List, words: list[str], seeds: str) -> None:
    assert listed(*words) == list(seeds)


def test_a_line_has_what_tells_runs_apart(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert runs.main(["seed=1"]) == 0
    header, line = (text.split() for text in capsys.readouterr().out.splitlines())
    assert header[:4] == ["run_id", "status", "model", "lr"]
    assert line[:4] == ["000000000001", "complete", "layers3", "0.3"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nosuch=1"], "nosuch: no such column, expected one of run_id, status,"),
        (["--sort", "nosuch"], "nosuch: no such column"),
        (["lr>fast"], "lr>fast: expected a number"),
        (["lr>"], "lr>: expected a number"),
        (["lr>0.1,0.3"], "lr>0.1,0.3: expected one value; = takes several"),
        (["started<=2025,2026"], "started<=2025,2026: expected one value; = takes several"),
        (["elsewhere"], "elsewhere: no such folder"),
        (["00"], "00: 4 runs begin with it, such as 000000000000, 000000000001"),
        (["--sweeps"], "no sweeps here, expected a sweep or an outputs folder"),
    ],
)
def test_a_mistake_is_one_line(
    outputs: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert runs.main(words) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_a_run_that_cannot_be_read_is_named_and_the_others_are_listed(
    outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = fake_run(outputs, model="layers5", seed=4)
    (run / "result.json").write_text("{")
    assert runs.main([]) == 0
    done = capsys.readouterr()
    assert len(done.out.splitlines()) == 5
    assert "result.json: not a JSON file" in done.err


def test_sweeps_have_a_line_each(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = outputs / "sweeps" / "depth"
    sweeps.open_sweep(sweep, ["python", "-m", "cifarsweep"], {}, num_jobs=3)
    sweeps.register_job(sweep, 0, ["seed=1"], run="layers3-000000000001")
    sweeps.register_job(sweep, 1, ["seed=9"], error="no memory")
    lock = sweeps.own_sweep(sweep)
    assert lock is not None
    assert runs.main(["--sweeps", "--columns", "sweep,status,jobs,ended,complete,failed,val_accuracy"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split() == ["depth", "running", "3", "2", "1", "1", "0.9000"]
    lock.release()
    assert runs.main(["--sweeps", "--columns", "status,jobs,ended"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split() == ["interrupted", "3", "2"]
    sweeps.note_jobs(sweep, submitted={"7_0": "seed=2"})
    assert runs.main(["--sweeps", "--columns", "status"]) == 0
    assert capsys.readouterr().out.splitlines()[1] == "submitted"
    sweeps.note_jobs(sweep, ended=["7_0"])
    sweeps.close_sweep(sweep)
    assert runs.main(["--sweeps", "--columns", "status"]) == 0
    assert capsys.readouterr().out.splitlines()[1] == "ended"


def test_a_search_that_was_interrupted_before_its_first_trial_has_not_ended(
    outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweeps.open_sweep(outputs / "sweeps" / "search", ["python", "-m", "cifarsweep"], {})
    assert runs.main(["--sweeps", "--columns", "status,ended"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split() == ["interrupted", "0"]


def test_it_is_a_command(cifarsweep: Command, outputs: Path) -> None:
    done = cifarsweep("seed=1", "--columns", "seed", module="cifarsweep.runs")
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, ["seed", "1"], "")


def test_a_reader_that_has_enough_and_ctrl_c_leave_no_traceback(outputs: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)  # as `| head` has done by then
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONUNBUFFERED": ""}  # what is printed waits
    command = [sys.executable, "-m", "cifarsweep.runs", str(outputs)]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, env=environment, timeout=60)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")

    def interrupted() -> int:
        raise KeyboardInterrupt

    assert boundary.command(interrupted)() == 130


def test_a_damaged_sweep_is_left_out_of_the_list(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("one", "two"):
        sweeps.open_sweep(outputs / "sweeps" / name, ["cifarsweep", "-m"], {})
    (outputs / "sweeps" / "one" / "sweep.json").write_text('{"jobs": {}}')
    assert runs.main(["--sweeps", "--columns", "sweep"]) == 0
    captured = capsys.readouterr()
    assert [line.strip() for line in captured.out.splitlines()] == ["sweep", "two"]
    assert captured.err.startswith("left out, cannot be read: ")


def test_ten_thousand_runs_are_listed_in_seconds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in range(2000):
        result = {**dict.fromkeys(records.COLUMNS), "run_id": str(seed), "status": "complete", "seed": seed}
        run = tmp_path / "runs" / f"layers2-{seed}"
        run.mkdir(parents=True)
        (run / "config.yaml").touch()
        (run / "result.json").write_text(json.dumps(result))
    start = time.process_time()
    assert runs.main([str(tmp_path), "--sort", "seed"]) == 0
    assert time.process_time() - start < 3  # a fifth of them; 0.3 s measured
    assert len(capsys.readouterr().out.splitlines()) == 2001
