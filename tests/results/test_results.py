"""The on-disk format: identity, names, atomic files, sweeps, two processes at one run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY
from hypothesis import given
from hypothesis import strategies as st

from cifarsweep.results import files, folders, identity, provenance, records, sweeps
from cifarsweep.results.records import Epoch, RunResult
from cifarsweep.results.sweeps import JobRecord, SweepRecord


def config(**changed: Any) -> dict[str, Any]:
    plain = {
        "data": {"_target_": "d", "name": "cifar10", "root": "/a", "cache": "/b", "val_size": 5000},
        "model": {"_target_": "m", "depth": 3},
        "optimizer": {"_target_": "o", "_partial_": True, "lr": 0.1},
        "schedule": {"_target_": "s", "warmup": 0.25},
        "loss": {"_target_": "l"},
        "trainer": {"epochs": 8, "device": "cpu", "threads": None, "compile": False, "deterministic": True},
        "batch_size": 128,
        "seed": 0,
        "name": "first",
        "force": False,
        "outputs": "outputs",
    }
    for key, value in changed.items():
        group, _, inner = key.partition("__")
        plain[group] = {**plain[group], inner: value} if inner else value  # type: ignore[dict-item]
    return plain


def run_id(fingerprint: str = "f", **changed: Any) -> str:
    return identity.run_id(identity.identity(config(**changed), fingerprint))


# identity


@pytest.mark.parametrize(
    "changed",
    [
        {"data__root": "/elsewhere"},
        {"data__cache": "/elsewhere"},
        {"data__name": "my photos"},
        {"trainer__device": "cuda"},
        {"trainer__threads": 4},
        {"trainer__compile": True},
        {"name": "second"},
        {"outputs": "/results"},
        {"force": True},
        {"optimizer__lr": 1e-1},
        {"trainer__epochs": 8.0},
    ],
)
def test_what_does_not_change_the_result_does_not_change_the_run_id(changed: dict[str, Any]) -> None:
    assert run_id(**changed) == run_id()


@pytest.mark.parametrize(
    "changed",
    [
        {"seed": 1},
        {"batch_size": 64},
        {"model__depth": 4},
        {"model__width": 16},
        {"model___target_": "other"},
        {"optimizer__lr": 0.11},
        {"schedule__warmup": 0.2},
        {"loss__label_smoothing": 0.1},
        {"data__val_size": 0},
        {"trainer__epochs": 9},
        {"fingerprint": "other images"},
    ],
)
def test_what_changes_the_result_changes_the_run_id(changed: dict[str, Any]) -> None:
    assert run_id(**changed) != run_id()


def test_runs_that_differ_in_their_seed_share_a_config_id() -> None:
    first, second = (identity.identity(config(seed=seed), "f") for seed in (0, 1))
    assert identity.config_id(first) == identity.config_id(second)
    assert identity.config_id(first) != identity.config_id(identity.identity(config(batch_size=64), "f"))


@given(st.text(), st.text(), st.floats(1e-9, 1e9), st.integers(1, 10**6), st.integers(0, 2**63))
def test_a_slug_is_one_safe_folder_name(model: str, optimizer: str, lr: float, batch_size: int, seed: int) -> None:
    slug = identity.slug(model, optimizer, lr, batch_size, seed)
    assert slug
    assert len(slug) <= 100
    assert Path(slug).name == slug
    assert slug.isascii()
    assert not slug.startswith(".")


def test_the_slug_is_the_one_of_the_design() -> None:
    assert identity.slug("layers3", "sgd", 0.1, 128, 0) == "layers3-sgd-lr0.1-bs128-s0"


# files


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    files.write_json(path, {"status": "complete"})
    with pytest.raises(AttributeError):
        files.write_json(path, {"status": object()})
    assert files.read_json(path) == {"status": "complete"}
    assert os.listdir(tmp_path) == ["result.json"]


def test_metrics_survive_the_csv_file_to_the_last_bit(tmp_path: Path) -> None:
    epoch = Epoch(1, 0.1 + 0.2, 1 / 3, 2**-40, None, None, 12.5)
    records.write_metrics(tmp_path, [epoch])
    assert records.read_metrics(tmp_path) == [epoch]


def test_a_file_that_is_no_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text('{"status": "comp')
    with pytest.raises(ValueError, match=r"result\.json: not a JSON file"):
        RunResult.read(tmp_path)


def test_files_get_the_permissions_of_the_umask(tmp_path: Path) -> None:
    files.write_json(tmp_path / "a.json", 1)
    (tmp_path / "b").write_text("")
    assert (tmp_path / "a.json").stat().st_mode == (tmp_path / "b").stat().st_mode


# runs and sweeps


def make_run(folder: Path, name: str, result: dict[str, Any] | None = None) -> Path:
    run = folder / "runs" / name
    run.mkdir(parents=True)
    (run / "config.yaml").write_text("run: {run_id: abc, model: layers3}\n")
    if result is not None:
        files.write_json(run / "result.json", result)
    return run


def test_a_run_without_a_result_is_unfinished(tmp_path: Path) -> None:
    run = make_run(tmp_path, "a-abc")
    unfinished = RunResult.read_or_unfinished(run)
    assert (unfinished.run_id, unfinished.model, unfinished.status) == ("abc", "layers3", "unfinished")
    files.write_json(run / "result.json", {**dict.fromkeys(records.COLUMNS), "status": "complete"})
    assert RunResult.read_or_unfinished(run).status == "complete"


def test_runs_are_found_in_a_run_a_sweep_and_an_outputs_folder(tmp_path: Path) -> None:
    first, second = make_run(tmp_path, "a-1"), make_run(tmp_path, "b-2")
    sweep = tmp_path / "sweeps" / "s"
    sweeps.open_sweep(sweep, ["python", "-m", "cifarsweep"], {})
    sweeps.register_job(sweep, 0, ["model=layers2"], run="b-2")
    sweeps.register_job(sweep, 1, ["model=layers9"], error="no")
    assert folders.find(first) == [first]
    assert folders.find(sweep) == [second]
    assert folders.find(tmp_path) == folders.find(tmp_path / "runs") == [first, second]
    with pytest.raises(ValueError, match="expected a run, a sweep or an outputs folder"):
        folders.find(tmp_path / "nothing")


def test_a_sweep_keeps_every_command_and_the_last_word_on_each_job(tmp_path: Path) -> None:
    for command in ("one", "two"):
        sweeps.open_sweep(tmp_path, [command], {"seed": 0})
    sweeps.register_job(tmp_path, 0, ["seed=1"], run="a-1")
    sweeps.register_job(tmp_path, 0, ["seed=1"], error="it failed")
    sweep = SweepRecord.read(tmp_path)
    assert [command.command_line for command in sweep.commands] == [["one"], ["two"]]
    assert sweep.jobs == {"seed=1": JobRecord(job=0, overrides=["seed=1"], run="a-1", error="it failed")}
    sweeps.register_job(tmp_path, 0, ["seed=1"], run="a-1")
    assert SweepRecord.read(tmp_path).jobs["seed=1"].error is None


@pytest.mark.parametrize("move", [sweeps.close_sweep, lambda sweep: sweeps.note_jobs(sweep, {"7": "seed=1"})])
def test_what_jobs_told_is_moved_to_sweep_json(tmp_path: Path, move: Callable[[Path], None]) -> None:
    sweeps.open_sweep(tmp_path, ["x"], {})
    sweeps.register_job(tmp_path, 0, ["seed=1"], error="an earlier one")
    move(tmp_path)
    sweeps.register_job(tmp_path, 0, ["seed=1"], run="a-1")
    sweeps.register_job(tmp_path, 0, ["seed=1"], error="it failed")
    journal, told = (tmp_path / "jobs.jsonl").read_bytes(), SweepRecord.read(tmp_path).jobs
    assert told == {"seed=1": JobRecord(job=0, overrides=["seed=1"], run="a-1", error="it failed")}
    move(tmp_path)
    assert (tmp_path / "jobs.jsonl").exists() == (move is not sweeps.close_sweep)  # to the end of the command
    assert not (tmp_path / "jobs.jsonl").exists() or not (tmp_path / "jobs.jsonl").read_bytes()
    assert json.loads((tmp_path / "sweep.json").read_text())["jobs"] == {
        "seed=1": {"job": 0, "overrides": ["seed=1"], "run": "a-1", "error": "it failed"}
    }
    (tmp_path / "jobs.jsonl").write_bytes(journal)  # as if killed before it was removed
    assert SweepRecord.read(tmp_path).jobs == told


def test_a_line_that_was_cut_short_costs_no_other(tmp_path: Path) -> None:
    sweeps.open_sweep(tmp_path, ["x"], {})
    sweeps.register_job(tmp_path, 0, ["seed=1"], run="a-1")
    with (tmp_path / "jobs.jsonl").open("a") as file:
        file.write('{"job": 1, "overr')
    assert [*SweepRecord.read(tmp_path).jobs] == ["seed=1"]
    sweeps.register_job(tmp_path, 2, ["seed=3"], run="a-3")
    assert [*SweepRecord.read(tmp_path).jobs] == ["seed=1", "seed=3"]


@given(st.text(st.characters()))
def test_whatever_a_jobs_error_says_is_recorded_and_read(tmp_path_factory: pytest.TempPathFactory, error: str) -> None:
    sweep = tmp_path_factory.mktemp("sweep")
    sweeps.open_sweep(sweep, ["cifarsweep"], {})
    sweeps.register_job(sweep, 0, ["seed=1"], error=f"{error}\udcff")
    read = SweepRecord.read(sweep).jobs["seed=1"].error
    assert read is not None
    assert read.encode("utf-8", "backslashreplace") == f"{error}\udcff".encode("utf-8", "backslashreplace")


def test_many_processes_register_their_jobs_in_one_sweep(tmp_path: Path) -> None:
    sweeps.open_sweep(tmp_path, ["x"], {})
    code = (
        "import sys; from pathlib import Path; from cifarsweep.results import sweeps\n"
        "[sweeps.register_job(Path(sys.argv[1]), j, [f'{sys.argv[2]}={j}'], run='r') for j in range(20)]"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path), name], cwd=REPOSITORY) for name in ("a", "b", "c")
    ]
    assert [process.wait() for process in started] == [0, 0, 0]
    assert len(SweepRecord.read(tmp_path).jobs) == 60


def test_a_run_has_one_owner_and_the_other_waits(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from cifarsweep.results import folders\n"
        "with folders.owned(Path(sys.argv[1]), 'a', '1', lambda: print('waits', flush=True)) as (run, _):\n"
        "    run.mkdir(exist_ok=True)\n"
        "    print('owns', len(list(run.iterdir())), flush=True)\n"
        "    time.sleep(1)\n"
        "    (run / 'done').write_text('')\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    first = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY)
    assert first.stdout is not None
    assert first.stdout.readline() == "owns 0\n"
    second = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, check=True)
    assert second.stdout == "waits\nowns 1\n"
    assert first.wait() == 0


def test_a_run_keeps_the_directory_it_has_under_another_slug(tmp_path: Path) -> None:
    (tmp_path / "layers3-sgd-77").mkdir()
    with folders.owned(tmp_path, "layers3-momentum", "77") as (run, _):
        assert run.name == "layers3-sgd-77"


def test_provenance_names_versions_and_the_commit() -> None:
    made_by = provenance.provenance()
    assert made_by["versions"]["torch"]
    assert set(made_by) >= {"git_commit", "git_dirty", "platform", "cpu", "cores"}


# records


def test_the_records_of_the_example_come_back_byte_for_byte(tmp_path: Path) -> None:
    example = REPOSITORY / "outputs" / "example"
    for run_dir in (example / "runs").glob("*/"):
        result = RunResult.read(run_dir)
        assert result is not None
        files.write_json(tmp_path / "result.json", {k: v for k, v in result.as_dict().items() if k != "digests"})
        records.write_metrics(tmp_path, records.read_metrics(run_dir))
        records.write_layers(tmp_path, records.read_layers(run_dir))
        written = {name: (run_dir / name).read_bytes() for name in ("result.json", "metrics.csv", "layers.csv")}
        assert {name: (tmp_path / name).read_bytes() for name in written} == written
    (sweep_dir,) = (example / "sweeps").iterdir()
    SweepRecord.read(sweep_dir).write(tmp_path)
    assert (tmp_path / "sweep.json").read_bytes() == (sweep_dir / "sweep.json").read_bytes()


def test_keys_that_this_version_does_not_know_are_kept_and_missing_ones_are_none(tmp_path: Path) -> None:
    files.write_json(tmp_path / "result.json", {**dict.fromkeys(records.COLUMNS), "status": "complete", "newer": [1]})
    result = RunResult.read(tmp_path)
    assert result is not None
    assert result.num_train is None
    result.write(tmp_path)
    assert files.read_json(tmp_path / "result.json")["newer"] == [1]


def test_a_run_whose_process_died_is_marked_as_failed_unless_it_has_ended(tmp_path: Path) -> None:
    run = make_run(tmp_path, "a-abc")
    (run.parent / ".locks").mkdir()
    records.mark_failed(run, "killed")
    records.mark_failed(run, "killed again")
    result = RunResult.read(run)
    assert result is not None
    assert (result.run_id, result.status, result.error) == ("abc", "failed", "killed")


def test_half_a_surrogate_pair_is_written_as_an_escape_which_json_reads_back(tmp_path: Path) -> None:
    files.write_json(tmp_path / "x.json", {"half \ud800": "\udfff"})
    assert files.read_json(tmp_path / "x.json") == {"half \ud800": "\udfff"}
    files.write_csv(tmp_path / "x.csv", ["a\ud800"], [["\udfff", 1]])
    assert (tmp_path / "x.csv").read_text(encoding="utf-8") == "a\\ud800\n\\udfff,1\n"


def test_a_home_directory_that_nobody_knows_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert folders.expanded("~/x", "outputs") == Path("/home/me/x")
    with pytest.raises(ValueError, match=r"^data\.root=~nobody-of-this-name/x: the home directory that ~nobody-of-thi"):
        folders.expanded("~nobody-of-this-name/x", "data.root")


def test_every_path_that_a_user_gives_is_expanded_by_one_function() -> None:
    package = REPOSITORY / "cifarsweep"
    callers = [path.relative_to(package) for path in package.rglob("*.py") if "expanduser(" in path.read_text("utf-8")]
    assert callers == [Path("results/folders.py")]
