"""Runs in the tools of others: each run and each step once, to the last digit, whatever was killed on the way."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY, start_python
from hypothesis import given
from hypothesis import strategies as st

import cifarsweep
from cifarsweep import trackers
from cifarsweep.results import records
from cifarsweep.results.records import Epoch, RunResult
from cifarsweep.trackers import TrackedRun, Trackers

KEYS: dict[str, dict[str, Any]] = {
    "tensorboard": {"folder": None},
    "mlflow": {"uri": None, "experiment": "cifarsweep"},
    "wandb": {"project": "cifarsweep", "entity": None, "mode": "offline"},
    "trackio": {"project": "cifarsweep", "space_id": None},
}


def chosen(name: str, outputs: Path) -> dict[str, dict[str, Any]]:
    """Trackio keeps everything in one folder, where each test has a project of its own."""
    return {name: {**KEYS[name], "project": outputs.parent.name} if name == "trackio" else KEYS[name]}


EPOCHS = [Epoch(n, 0.1 / n, 2.3 / 7**n, 1 / 3 + n / 10, None if n == 2 else 1e-17 / n, 0.1 * n, 1.5) for n in (1, 2, 3)]
ID = "0123456789ab"
CURVES = {
    key: [(epoch.epoch, value) for epoch in EPOCHS if (value := getattr(epoch, key)) is not None]
    for key in records.METRICS[1:]
}


def tracked(outputs: Path, **further: Any) -> TrackedRun:
    run_dir = outputs / "runs" / f"layers2-s0-{ID}"
    run_dir.mkdir(parents=True, exist_ok=True)
    (run_dir / "confusion.csv").write_text("true,a\na,1\n")
    settings = {"optimizer.lr": 0.1, "model._target_": "cifarsweep.models.LayersNet", "data.augment": None}
    return TrackedRun(run_dir, ID, outputs, settings, outputs / "sweeps" / "first", **further)


def result(status: str = "complete") -> RunResult:
    values = {"status": status, "run_id": ID, "epochs_trained": 3, "val_accuracy": 0.3, "test_accuracy": 1 / 3}
    return RunResult.of({**values, "finished": "2026-01-01T00:00:00+00:00"})


def begin(outputs: Path, name: str) -> None:
    """What a process does that is killed after the second epoch."""
    halfway = Trackers(chosen(name, outputs), tracked(outputs))
    halfway.epochs(EPOCHS[:1])
    halfway.epochs(EPOCHS[:2])
    time.sleep(2)  # Trackio and W&B write a little later
    os.kill(os.getpid(), signal.SIGKILL)


Curves = dict[str, list[tuple[int, float]]]


def settled(outputs: Path, name: str, expected: Curves) -> Curves:
    """What the tool has once that is what is expected, or after 20 s: the process of W&B writes a little later."""
    end = time.monotonic() + 20
    while (found := read(outputs, name)) != expected and time.monotonic() < end:
        time.sleep(0.1)
    return found


def read(outputs: Path, name: str) -> Curves:
    """The figures of the only run that the tool has; nothing where it has none yet."""
    found = READERS[name](outputs)
    assert len(found) <= 1
    return next(iter(found.values()), {})


def add(found: dict[str, Curves], run_id: str, step: int, values: dict[str, Any]) -> None:
    """The values of a step, behind those that the run has so far."""
    for key in values.keys() & CURVES.keys():
        found.setdefault(run_id, {}).setdefault(key, []).append((step, values[key]))


def read_tensorboard(outputs: Path) -> dict[str, Curves]:
    """By the id of each run, as the others."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    found: dict[str, Curves] = {}
    for folder in (outputs / "tensorboard").iterdir():
        events = EventAccumulator(str(folder), {"tensors": 0}).Reload()  # 0: all of them
        for tag in events.Tags()["tensors"]:
            for event in events.Tensors(tag) if tag in CURVES else ():
                value = float(make_ndarray(event.tensor_proto))
                add(found, folder.name.rpartition("-")[2], event.step, {tag: value})
    return found


def read_mlflow(outputs: Path) -> dict[str, Curves]:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{outputs / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("cifarsweep").experiment_id])
    (parent,) = [run for run in runs if "cifarsweep.sweep" in run.data.tags]
    assert parent.info.run_name == "first"
    found: dict[str, Curves] = {}
    for run in runs:
        assert run is parent or run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        for name in run.data.metrics:
            for metric in client.get_metric_history(run.info.run_id, name):
                add(found, run.data.tags["cifarsweep.run_id"], metric.step, {name: metric.value})
    return found


def read_wandb(outputs: Path) -> dict[str, Curves]:
    found: dict[str, Curves] = {}
    for file in (outputs / "wandb").glob("offline-run-*/*.wandb"):
        for record in wandb_records(file):
            items = {item.key or item.nested_key[0]: item.value_json for item in record.history.item}
            values = {key: json.loads(text) for key, text in items.items()}
            add(found, file.stem.removeprefix("run-"), values.get("_step", 0), values)
    return found


def wandb_records(file: Path) -> Iterator[Any]:
    """The file of an offline run: a header of 7 bytes, then a log of LevelDB: blocks of 32 kB with parts of records."""
    from wandb.proto import wandb_internal_pb2

    data, place, whole = file.read_bytes(), 7, b""
    while place + 7 <= len(data):
        if 2**15 - place % 2**15 < 7:
            place += 2**15 - place % 2**15
            continue
        length, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        whole += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or its last part
            yield wandb_internal_pb2.Record.FromString(whole)
            whole = b""


def read_trackio(outputs: Path) -> dict[str, Curves]:
    from trackio.sqlite_storage import SQLiteStorage

    found: dict[str, Curves] = {}
    for run in SQLiteStorage.get_runs(outputs.parent.name):
        for row in SQLiteStorage.get_logs(outputs.parent.name, run):
            add(found, run.rpartition("-")[2], row["step"], row)
    return found


READERS = {"tensorboard": read_tensorboard, "mlflow": read_mlflow, "wandb": read_wandb, "trackio": read_trackio}


@pytest.fixture
def outputs(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path_factory.getbasetemp() / "trackio"))  # read at its import
    monkeypatch.setenv("PYTHONPATH", f"{REPOSITORY}{os.pathsep}{REPOSITORY / 'tests'}")
    return tmp_path / "outputs"


@pytest.mark.parametrize("name", KEYS)
def test_a_killed_run_that_goes_on_is_held_once_with_every_step_once(outputs: Path, name: str) -> None:
    pytest.importorskip(name)
    code = f"import pathlib, test_trackers; test_trackers.begin(pathlib.Path({str(outputs)!r}), {name!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240)
    assert done.returncode == -signal.SIGKILL, done.stderr

    resumed = Trackers(chosen(name, outputs), tracked(outputs))
    resumed.epochs(EPOCHS[:2])
    resumed.epochs(EPOCHS)
    resumed.end(result())
    assert settled(outputs, name, CURVES) == CURVES

    again = Trackers(chosen(name, outputs), tracked(outputs), result())
    again.epochs(EPOCHS)
    again.end(result())
    assert settled(outputs, name, CURVES) == CURVES


@pytest.mark.parametrize("name", KEYS)
def test_a_run_that_was_trained_before_is_given_to_a_tool_that_lacks_it(outputs: Path, name: str) -> None:
    pytest.importorskip(name)
    later = Trackers(chosen(name, outputs), tracked(outputs), result())
    later.epochs(EPOCHS)
    later.end(result())
    assert settled(outputs, name, CURVES) == CURVES


@pytest.mark.parametrize(
    ("status", "in_mlflow"),
    [("complete", "FINISHED"), ("pruned", "KILLED"), ("diverged", "FAILED"), ("failed", "FAILED")],
)
def test_mlflow_holds_settings_status_and_files(outputs: Path, status: str, in_mlflow: str) -> None:
    mlflow = pytest.importorskip("mlflow")
    client = mlflow.MlflowClient(f"sqlite:///{outputs / 'mlflow.db'}")

    def found() -> Any:
        experiment = client.get_experiment_by_name("cifarsweep")
        (run,) = client.search_runs([experiment.experiment_id], f"tags.`cifarsweep.run_id` = '{ID}'")
        return run

    run = Trackers({"mlflow": KEYS["mlflow"]}, tracked(outputs))
    run.epochs(EPOCHS)
    assert (found().info.status, found().data.params["optimizer.lr"]) == ("RUNNING", "0.1")
    run.end(result(status))
    assert (found().info.status, found().data.params["optimizer.lr"]) == (in_mlflow, "0.1")
    assert found().data.tags["cifarsweep.status"] == status
    assert [file.path for file in client.list_artifacts(found().info.run_id)] == ["confusion.csv"]


def status_in_tensorboard(outputs: Path) -> str:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    (folder,) = (outputs / "tensorboard").iterdir()
    metadata = EventAccumulator(str(folder)).Reload().SummaryMetadata("_hparams_/session_start_info")
    content = HParamsPluginData.FromString(metadata.plugin_data.content)
    return str(content.session_start_info.hparams["status"].string_value)


def status_in_wandb(outputs: Path) -> str:
    (file,) = (outputs / "wandb").glob("offline-run-*/*.wandb")
    items = [item for record in wandb_records(file) for item in record.summary.update]
    (status,) = {json.loads(item.value_json) for item in items if item.key == "status"}
    (code,) = [record.exit.exit_code for record in wandb_records(file) if record.HasField("exit")]
    assert code == (status != "pruned")
    return str(status)


def status_in_trackio(outputs: Path) -> str:
    import trackio

    (run,) = trackio.Api().runs(outputs.parent.name)
    (alert,) = run.alerts()
    return str(alert["title"]).split()[0]


@pytest.mark.parametrize("status", ["pruned", "diverged", "failed"])
@pytest.mark.parametrize(
    ("name", "status_in"),
    [("tensorboard", status_in_tensorboard), ("wandb", status_in_wandb), ("trackio", status_in_trackio)],
)
def test_the_tool_knows_how_a_run_ended(
    outputs: Path, name: str, status_in: Callable[[Path], str], status: str
) -> None:
    pytest.importorskip(name)
    run = Trackers(chosen(name, outputs), tracked(outputs))
    run.epochs(EPOCHS)
    run.end(result(status))
    assert settled(outputs, name, CURVES) == CURVES
    assert status_in(outputs) == status


@pytest.mark.parametrize("name", KEYS)
def test_a_run_that_is_trained_anew_begins_anew(outputs: Path, name: str) -> None:
    pytest.importorskip(name)
    for num_epochs in (3, 1):
        anew = Trackers(chosen(name, outputs), tracked(outputs, is_anew=True))
        anew.epochs(EPOCHS[:num_epochs])
        anew.end(result())
    expected = {key: values[:1] for key, values in CURVES.items()}
    assert settled(outputs, name, expected) == expected


def test_figures_that_are_not_finite_are_left_out() -> None:
    figures = trackers._of_epoch(Epoch(1, 0.1, math.nan, 0.5, math.inf, None, 1.0))
    assert figures == {"lr": 0.1, "train_accuracy": 0.5, "seconds": 1.0}


def test_a_tracker_that_fails_costs_a_line_and_no_other_tracker(
    outputs: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    heard: list[int] = []

    class Fine:
        def __init__(self, run: TrackedRun, uri: str | None = None) -> None: ...

        def epochs(self, epochs: Any) -> None:
            heard.append(len(epochs))

        def end(self, result: RunResult) -> None: ...

    class Broken(Fine):
        def epochs(self, epochs: Any) -> None:
            raise ConnectionError("the server is gone\nfor good")

    monkeypatch.setattr(trackers, "ADAPTERS", {"broken": Broken, "fine": Fine})
    both = Trackers({"broken": {}, "fine": {"uri": "http://me:sesame@host"}}, tracked(outputs))
    both.epochs(EPOCHS[:1])
    both.epochs(EPOCHS)
    both.end(result())
    assert heard == [1, 3]
    said = f"tracker=broken: the server is gone for good; layers2-s0-{ID} goes on without it\n"
    assert capsys.readouterr().out == said
    record = (tracked(outputs).run_dir / "trackers.json").read_text()
    assert json.loads(record).keys() == {"fine"}
    assert "sesame" not in record


@given(
    st.recursive(
        st.none() | st.text() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_whatever_stands_in_the_record_of_trackers_is_survived(tmp_path_factory: Any, content: Any) -> None:
    run = tracked(tmp_path_factory.getbasetemp() / "record")
    (run.run_dir / trackers.DONE).write_text(json.dumps(content))
    Trackers({}, run, result()).end(result())


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_a_server_that_is_not_there_costs_a_line_and_its_password_stands_nowhere(
    small: list[str], tmp_path: Path, name: str
) -> None:
    pytest.importorskip(name)
    words = [f"tracker={name}", *(["tracker.mlflow.uri=http://me:sesame@127.0.0.1:9"] if name == "mlflow" else [])]
    server = {"WANDB_API_KEY": 40 * "0", "WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_INIT_TIMEOUT": "2"}
    process = start_python(
        "-m", "cifarsweep", "-m", *small, "trainer.epochs=1", "seed=0", "name=a", *words, cwd=tmp_path, **server
    )
    stdout, stderr = process.communicate(timeout=240)
    assert (process.returncode, stderr) == (0, "")
    (line,) = [line for line in stdout.splitlines() if line.startswith(f"tracker={name}: ")]
    assert line.endswith(" goes on without it")
    written = [path for path in (tmp_path / "outputs").rglob("*") if path.is_file()]
    assert [path for path in written if b"sesame" in path.read_bytes()] == []


def test_a_tracker_whose_package_is_missing_is_named_before_anything_starts(
    small: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"^tracker=wandb: not installed, .* pip install -e '\.\[wandb\]'$"):
        cifarsweep.train(*small, "tracker=wandb")
    assert not (tmp_path / "outputs").exists()


def test_trackers_change_no_run_and_stand_in_no_file_of_it(small: list[str], tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    plain = cifarsweep.train(*small, "trainer.epochs=1")
    (run_dir,) = (tmp_path / "outputs" / "runs").glob("*-*")
    assert cifarsweep.train(*small, "trainer.epochs=1", "tracker=tensorboard") == plain
    assert read(tmp_path / "outputs", "tensorboard")["val_accuracy"] == [(1, plain.val_accuracy)]
    assert "tensorboard" not in (run_dir / "config.yaml").read_text()


@pytest.mark.slow
def test_trackers_print_nothing(small: list[str], outputs: Path, tmp_path: Path) -> None:
    words = [*small, "trainer.epochs=1", f"tracker=[{','.join(filter(find_spec, KEYS))}]"]
    process = start_python("-m", "cifarsweep", *words, cwd=tmp_path, WANDB_MODE="offline")
    stdout, stderr = process.communicate(timeout=240)
    assert (process.returncode, stderr) == (0, "")
    lines = [line for line in stdout.splitlines() if not line.startswith("preparing ")]
    assert [": epoch 1/1 " in lines[0], ": test accuracy " in lines[1], lines[2:]] == [True, True, []]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds a worker in /proc")
def test_a_sweep_whose_worker_is_killed_is_in_every_tool_as_in_its_tables(
    small: list[str], outputs: Path, tmp_path: Path
) -> None:
    from toy_search import descendants, kill

    names = [name for name in KEYS if find_spec(name)]
    if not names:
        pytest.skip("no tracker is installed")
    project = f"tracker.trackio.project={tmp_path.name}"
    words = [*small, "trainer.epochs=12", "model.depth=1,2,3", "seed=range(3)", f"tracker=[{','.join(names)}]"]
    words += ["name=first", "hydra.launcher.n_workers=2", *([project] if "trackio" in names else [])]
    process = start_python("-m", "cifarsweep", "-m", *words, cwd=tmp_path, WANDB_MODE="offline")
    while not [*outputs.glob("runs/*/metrics.csv")]:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    kill(
        next(
            child for child in descendants(process.pid) if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()
        )
    )
    stdout, stderr = process.communicate(timeout=600)
    assert process.returncode == 0, stderr
    assert [line for line in stdout.splitlines() if line.startswith("tracker=")] == []

    curves = cifarsweep.load_epochs(outputs)
    expected = {
        str(run_id): {key: [*zip(curve["epoch"], curve[key], strict=True)] for key in CURVES}
        for run_id, curve in curves.groupby("run_id")
    }
    assert len(expected) == 9
    for name in names:
        assert READERS[name](outputs) == expected, name
