"""`python -m cifarsweep.watch`: what the files of a sweep say while it runs and afterwards."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cifarsweep import watch
from cifarsweep.results import files, locks, records, sweeps
from cifarsweep.results.records import RunResult


@pytest.fixture
def sweep(tmp_path: Path) -> Iterator[Path]:
    """A sweep of five jobs that runs: one is complete, one trains, one failed, one died before it had a run."""
    folder = tmp_path / "outputs" / "sweeps" / "depth"
    sweeps.open_sweep(folder, ["python", "-m", "cifarsweep"], {}, num_jobs=5)
    add_run(
        folder, 0, "a-complete", {"status": "complete", "val_accuracy": 0.8125, "test_accuracy": 0.8, "epochs": 2}, 2
    )
    add_run(folder, 1, "b-training", None, 1)
    add_run(folder, 2, "c-failed", {"status": "failed", "error": "no luck", "epochs": 2}, 1)
    sweeps.register_job(folder, 3, ["seed=3"], error="out of memory")
    lock = sweeps.own_sweep(folder)
    assert lock is not None
    yield folder
    lock.release()


def add_run(sweep: Path, job: int, name: str, result: dict[str, Any] | None, num_epochs: int) -> None:
    run = sweep.parent.parent / "runs" / name
    run.mkdir(parents=True)
    rows = [[epoch, 0.1, 1.0, 0.5, 1.0, 0.5 + epoch / 100, 2.0] for epoch in range(1, num_epochs + 1)]
    files.write_csv(run / "metrics.csv", records.METRICS, rows)
    if result:
        known = {**dict.fromkeys(records.COLUMNS), "error": None, "epochs_trained": num_epochs, **result}
        (run / "result.json").write_text(json.dumps(known))
    sweeps.register_job(sweep, job, [f"seed={job}"], run=name)


def shown(sweep: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    assert watch.main([str(sweep)]) == 0
    return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]


def test_those_that_run_and_those_that_failed_come_first(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(sweep, capsys) == [
        "run status epoch val_accuracy test_accuracy reason",
        "b-training running 1 0.5100",
        "seed=3 failed out of memory",
        "c-failed failed 1/2 no luck",
        "a-complete complete 2/2 0.8125 0.8000",
        "depth: 3/5 done, 1 running, 2 failed, 1 complete, best val_accuracy 0.8125 by a-complete",
    ]


def test_without_a_process_nothing_runs(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (sweep / ".owner.lock").unlink()
    lines = shown(sweep, capsys)
    assert "b-training unfinished 1 0.5100" in lines
    assert lines[-1].endswith("(interrupted: no process works on it)")


STUDY: dict[str, Any] = {
    "format": 1, "objectives": ["a"], "directions": ["maximize"], "params": [], "log": [], "importances": {},
    "best": [], "trials": [],
}  # fmt: skip


def test_a_search_has_as_many_as_it_is_to_have_trials(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files.write_json(sweep / "study.json", STUDY | {"n_trials": 40})
    assert shown(sweep, capsys)[-1].startswith("depth: 3/40 done")


def test_with_a_budget_or_final_runs_nobody_knows_how_many(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files.write_json(sweep / "study.json", STUDY | {"n_trials": None})
    assert shown(sweep, capsys)[-1].startswith("depth: 3 done")
    files.write_json(sweep / "study.json", STUDY | {"n_trials": 20})
    (sweep / "studies.json").touch()
    assert shown(sweep, capsys)[-1].startswith("depth: 3 done")


def test_a_sweep_that_may_only_be_read_is_known_to_run(sweep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise PermissionError(13, "Permission denied", str(sweep))

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    monkeypatch.setattr(locks, "_PLACE", "another-host")
    assert sweeps.is_running(sweep)
    long_ago = time.time() - locks.LEASE - 1
    os.utime(sweep / ".owner.lock", (long_ago, long_ago))
    assert not sweeps.is_running(sweep)


def test_a_file_that_cannot_be_read_is_one_row(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (sweep.parent.parent / "runs" / "b-training" / "metrics.csv").write_text("torn")
    assert any(line.startswith("b-training unreadable") for line in shown(sweep, capsys))


def test_hostile_names_move_no_cursor_and_leave_no_folder(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweeps.register_job(sweep, 4, ["seed=4"], run="../../../\x1b[2Jelsewhere")
    assert watch.main([str(sweep)]) == 0
    assert "\x1b" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "content",
    [None, "{", "[]", '{"jobs": {}}', '{"jobs": {}, "commands": []}', '{"jobs": {"a": {"run": 5}}, "commands": [{}]}'],
)
def test_what_is_no_sweep_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None) -> None:
    if content is not None:
        (tmp_path / "sweep.json").write_text(content)
    assert watch.main([str(tmp_path)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{tmp_path / 'sweep.json'}: ")


def test_what_has_not_changed_is_read_once(sweep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = watch.Sweep(sweep)
    rows = watched.rows(running=True)
    with monkeypatch.context() as patch:
        for owner, name in ((RunResult, "read"), (records, "read_metrics"), (sweeps.SweepRecord, "read")):
            patch.setattr(owner, name, None)
        assert watched.rows(running=True) == rows
    sweeps.register_job(sweep, 3, ["seed=3"], error="another one")
    assert "another one" in [row["reason"] for row in watched.rows(running=True)]


def test_a_run_that_failed_and_is_tried_again_runs(sweep: Path) -> None:
    watched = watch.Sweep(sweep)
    watched.rows(running=True)
    (sweep.parent.parent / "runs" / "c-failed" / "result.json").unlink()
    assert {row["run"]: row["status"] for row in watched.rows(running=True)}["c-failed"] == "running"
