"""One run in this process: what it learns, writes and finds again."""

from __future__ import annotations

import csv
import dataclasses
import errno
import json
import os
import random
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hydra
import numpy as np
import pytest
import torch
import yaml
from conftest import REPOSITORY, Command

from cifarsweep import data
from cifarsweep.results import files, records
from cifarsweep.results.records import RunResult
from cifarsweep.sweeper import hydra_compat
from cifarsweep.terminal import progress
from cifarsweep.training import checkpoint, loop, process, run, run_files, session
from cifarsweep.training.configuration import Configuration

Train = Callable[..., dict[str, Any]]


@pytest.fixture
def said() -> Iterator[list[str]]:
    """The lines a person would have read."""
    lines: list[str] = []
    before = progress._hear
    progress.send_to(lambda event: lines.append(event[1]) if event[0] == "line" else None)
    yield lines
    progress.send_to(before)


def prune_after_2(epoch: int, measured: object) -> str | None:
    return "pruned" if epoch == 2 else None


@pytest.fixture
def train(small: list[str], said: list[str]) -> Train:
    def train(*overrides: str, stops: run.Report = lambda epoch, measured: None) -> dict[str, Any]:
        words = [*small, *overrides]
        with hydra.initialize_config_dir(str(REPOSITORY / "conf"), **hydra_compat.VERSION_BASE):
            cfg = hydra.compose("config", words)
        groups = ("model", "optimizer", "schedule", "loss", "data", "trainer")
        choices = {"optimizer": "momentum", "schedule": "onecycle", "loss": "label_smoothing", "trainer": "default"}
        choices |= {k: v for k, v in (word.split("=", 1) for word in words) if k in groups}
        announced: list[str] = []
        result = run.train(Configuration.of(cfg, choices), stops, announced.append)
        return {**result.as_dict(), "dir": Path(cfg.outputs) / "runs" / announced[0]}

    return train


def figures(result: dict[str, Any]) -> dict[str, Any]:
    """Every figure of a result but those that a clock makes."""
    clock = {"train_seconds", "images_per_second", "started", "finished", "dir", "digests", "sizes"}
    return {key: value for key, value in result.items() if key not in clock}


def test_shapes_are_learned_well_above_chance(train: Train) -> None:
    result = train("data.num_train=8000", "data.num_test=1000", "model=layers3", "model.width=8", "trainer.epochs=4")
    assert result["test_accuracy"] > 0.25  # chance is 0.1, and its deviation over 1,000 test images 0.01
    assert result["val_accuracy"] > 0.2


def test_the_figures_of_a_seed_are_those_of_earlier_versions(train: Train) -> None:
    """A change of the mathematics shows here; where it is meant, FORMAT goes up and the figures are taken anew.

    Not to the bit, as CPUs sum in other orders: with the kernels for AVX-512, AVX2 and SSE4 they differ by 3e-4.
    """
    result = train("model=layers3", "model.width=8", "data.augment.cutout=8", "trainer.epochs=3")
    losses = [result[key] for key in ("train_loss", "val_loss", "test_loss")]
    assert losses == pytest.approx([2.24886, 2.32076, 2.33272], rel=1e-3)
    assert result["train_accuracy"] == pytest.approx(0.188, abs=0.005)


def test_a_run_leaves_the_files_of_the_design(train: Train) -> None:
    result = train()
    run_dir = result["dir"]
    names = {path.name for path in run_dir.iterdir()}
    tables = {"metrics.csv", "layers.csv", "confusion.csv"}
    assert names == {"config.yaml", "train.log", "model.pt", "confused.png", "result.json"} | tables
    assert run_dir.name == f"layers2-momentum-lr0.1-bs50-s0-{result['run_id']}"
    written = json.loads((run_dir / "result.json").read_text())
    assert list(written)[: len(records.COLUMNS)] == records.COLUMNS
    assert written["status"] == "complete"
    assert written["provenance"]["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert [epoch.epoch for epoch in records.read_metrics(run_dir)] == [1, 2]
    assert yaml.safe_load((run_dir / "config.yaml").read_text())["optimizer"]["lr"] == 0.1
    assert "epoch 2/2" in (run_dir / "train.log").read_text()


def test_the_confusion_matrix_agrees_with_the_test_accuracy(train: Train) -> None:
    result = train()
    with (result["dir"] / "confusion.csv").open() as file:
        header, *rows = list(csv.reader(file))
    assert header[1:] == [row[0] for row in rows]
    counts = torch.tensor([[int(x) for x in row[1:]] for row in rows])
    assert counts.sum() == 200
    assert counts.diagonal().sum() / 200 == pytest.approx(result["test_accuracy"])


def test_the_same_configuration_gives_the_same_figures_bit_for_bit(train: Train) -> None:
    first = train("model.dropout=0.2")
    weights = (first["dir"] / "model.pt").read_bytes()
    second = train("model.dropout=0.2", "force=true")
    assert second["started"] >= first["started"]
    assert figures(first) == figures(second)
    assert (second["dir"] / "model.pt").read_bytes() == weights


@pytest.mark.parametrize("words", [["model.dropout=0.2", "optimizer=adamw"], ["model=airbench", "optimizer=muon"]])
def test_the_step_before_a_run_leaves_no_trace_in_its_results(
    train: Train, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    first = train(*words, "trainer.epochs=1", "data.augment.cutout=4")
    files = {path.name: path.read_bytes() for path in first["dir"].iterdir() if path.suffix in (".pt", ".png")}
    monkeypatch.setattr(run.dry_step, "check", lambda session: None)
    (first["dir"] / "model.pt").unlink()
    second = train(*words, "trainer.epochs=1", "data.augment.cutout=4", "force=true")
    assert figures(first) == figures(second)
    assert {name: (second["dir"] / name).read_bytes() for name in files} == files


UNFIT = {
    "+loss.reduction=none": "loss: expected a tensor with one number for a batch, got (2,)",
    "loss={_target_: torch.nn.L1Loss, label_smoothing: null}": "loss.label_smoothing: no such key",
    "model._target_=unfit.Net": "model: expected scores of shape (2, 10) for 2 images, got (2, 7)",
    "model._target_=unfit.Broken": "model: KeyError: 'no such layer'",
    "model._target_=unfit.Unsaved": "model: AttributeError: Can't pickle local object",
    "model._target_=unfit.Unread": "model: expected tensors and plain values only in its state_dict()",
    "optimizer._target_=unfit.Fails": "optimizer: fails at its first step",
    "schedule._target_=unfit.Fails": "schedule: ",
    "data._target_=unfit.no_data": "data._target_=unfit.no_data: expected a function that returns a cifarsweep.data",
}
CLASSES = """
import torch
class Net(torch.nn.Linear):
    def __init__(self, num_classes, image_size, **keys):
        super().__init__(3 * image_size**2, 7)
    def forward(self, x):
        return super().forward(x.flatten(1))
class Broken(Net):
    def forward(self, x):
        raise KeyError("no such layer")
class Unsaved(Net):
    def forward(self, x):
        return super().forward(x).repeat(1, 2)[:, :10]
    def get_extra_state(self):
        return lambda: 0
    def set_extra_state(self, state):
        pass
class Unread(Unsaved):
    def get_extra_state(self):
        return Fails
class Fails(torch.optim.SGD):
    def step(self, closure=None):
        raise RuntimeError("fails at its first\\nstep")
def no_data(**keys):
    return 3
"""


@pytest.mark.parametrize("word", UNFIT)
def test_a_class_that_cannot_do_its_part_is_refused_before_the_run_has_files(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str
) -> None:
    (tmp_path / "unfit.py").write_text(CLASSES.replace("\\\\", "\\"))
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=f"^{re.escape(UNFIT[word])}"):
        train(word)
    assert not (tmp_path / "outputs").exists()


def test_another_seed_is_another_run(train: Train) -> None:
    first, second = train(), train("seed=1")
    assert first["run_id"] != second["run_id"]
    assert first["config_id"] == second["config_id"]
    assert first["val_loss"] != second["val_loss"]


def test_a_complete_run_is_returned_as_it_stands(train: Train, said: list[str]) -> None:
    first = train()
    stamps = {path: path.stat().st_mtime_ns for path in first["dir"].iterdir()}
    again = train("trainer.threads=1", "name=other")
    assert again == first
    assert {path: path.stat().st_mtime_ns for path in first["dir"].iterdir()} == stamps
    assert "trained before" in said[-1]


def test_a_run_that_was_interrupted_or_failed_is_trained(train: Train) -> None:
    first = train()
    (first["dir"] / "result.json").unlink()
    assert train()["status"] == "complete"
    failed = {**{k: v for k, v in first.items() if k != "dir"}, "status": "failed"}
    files.write_json(first["dir"] / "result.json", failed)
    assert train()["status"] == "complete"


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam", "adamw", "rmsprop", "muon"])
@pytest.mark.parametrize("schedule", ["onecycle", "step"])
def test_an_interrupted_run_ends_bit_for_bit_where_another_ends(
    train: Train, tmp_path: Path, optimizer: str, schedule: str
) -> None:
    words = [f"optimizer={optimizer}", f"schedule={schedule}", "model.dropout=0.3", "trainer.epochs=4"]
    expected = train(*words, f"outputs={tmp_path}/undisturbed")

    def interrupt(epoch: int, measured: Mapping[str, Any]) -> bool:
        if epoch == 2:
            raise KeyboardInterrupt
        return False

    with pytest.raises(KeyboardInterrupt):
        train(*words, stops=interrupt)
    torch.rand(7), random.random()  # whatever else this process draws
    heard: list[int] = []
    resumed = train(*words, stops=lambda epoch, measured: heard.append(epoch))
    assert heard == [1, 2, 3, 4]
    assert figures(resumed) == figures(expected)
    assert (resumed["dir"] / "model.pt").read_bytes() == (expected["dir"] / "model.pt").read_bytes()
    log = (resumed["dir"] / "train.log").read_text()
    assert "goes on after epoch 2" in log
    assert log.count("epoch 1/4") == log.count("epoch 4/4") == 1
    assert not (resumed["dir"] / "checkpoint.pt").exists()


@pytest.mark.parametrize("optimizer", ["momentum", "muon"])
@pytest.mark.parametrize("num_saved", [1, 2, 12])
def test_a_run_interrupted_in_the_middle_of_an_epoch_ends_bit_for_bit_where_another_ends(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimizer: str, num_saved: int
) -> None:
    words = [f"optimizer={optimizer}", "batch_size=32", "model.dropout=0.3", "trainer.epochs=3"]
    expected = train(*words, f"outputs={tmp_path}/undisturbed")
    saved: list[loop.Part] = []

    def save(*args: Any) -> None:
        checkpoint.save(*args)
        saved.append(args[-1])
        if len(saved) == num_saved:
            raise KeyboardInterrupt

    words += ["trainer.checkpoint_seconds=1e-9"]
    monkeypatch.setattr(run, "checkpoint", SimpleNamespace(save=save, restore=checkpoint.restore))
    with pytest.raises(KeyboardInterrupt):
        train(*words)
    monkeypatch.undo()
    assert saved[-1].steps > 0
    torch.rand(7), random.random()  # whatever else this process draws
    resumed = train(*words)
    assert figures(resumed) == figures(expected)
    assert (resumed["dir"] / "model.pt").read_bytes() == (expected["dir"] / "model.pt").read_bytes()
    log = (resumed["dir"] / "train.log").read_text()
    assert re.search(rf"goes on after epoch \d/3 and {saved[-1].steps} steps", log)
    assert log.count("epoch 1/3") == log.count("epoch 3/3") == 1


def test_a_pruned_run_goes_on_from_its_last_epoch_when_asked_for_alone(train: Train, said: list[str]) -> None:
    pruned = train("trainer.epochs=4", stops=prune_after_2)
    assert (pruned["status"], pruned["epochs_trained"]) == ("pruned", 2)
    assert train("trainer.epochs=4", stops=prune_after_2) == pruned
    assert "trained before" in said[-1]
    said.clear()
    whole = train("trainer.epochs=4")
    assert whole["status"] == "complete"
    assert not [line for line in said if "epoch 2/4  lr" in line]
    assert any("goes on after epoch 2/4" in line for line in said)


def test_a_run_that_failed_after_its_last_epoch_trains_none_again(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = loop.evaluate, []

    def failing_on_the_test_set(*arguments: Any) -> Any:
        calls.append(arguments)
        return 1 / 0 if len(calls) == 3 else real(*arguments)

    monkeypatch.setattr(loop, "evaluate", failing_on_the_test_set)
    with pytest.raises(ZeroDivisionError):
        train()
    result = train()
    assert result["status"] == "complete"
    assert len(calls) == 4
    assert (result["dir"] / "train.log").read_text().count("epoch 1/2") == 1


def test_a_run_whose_metrics_are_lost_has_them_again(train: Train) -> None:
    pruned = train("trainer.epochs=4", stops=prune_after_2)
    whole = records.read_metrics(pruned["dir"])
    for name in ("metrics.csv", "result.json"):
        (pruned["dir"] / name).unlink()
    assert train("trainer.epochs=4", stops=prune_after_2)["status"] == "pruned"
    assert records.read_metrics(pruned["dir"]) == whole


def test_force_trains_anew_even_where_a_checkpoint_is(train: Train, said: list[str]) -> None:
    train("trainer.epochs=4", stops=prune_after_2)
    said.clear()
    assert train("trainer.epochs=4", "force=true")["status"] == "complete"
    assert sum("epoch 1/4  lr" in line for line in said) == 1


def test_a_loss_that_explodes_is_recorded_as_diverged(train: Train, said: list[str]) -> None:
    result = train("optimizer=sgd", "optimizer.lr=1e30", "model.norm=none")
    assert result["status"] == "diverged"
    assert result["diverged_epoch"] == 1
    assert result["test_accuracy"] is None
    json.loads((result["dir"] / "result.json").read_text(), parse_constant=pytest.fail)  # no NaN in the file
    assert "diverged in epoch 1" in said[-1]
    assert train("optimizer=sgd", "optimizer.lr=1e30", "model.norm=none") == result


def test_a_failed_run_says_why_in_its_directory(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "evaluate", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train()
    (run_dir,) = (tmp_path / "outputs" / "runs").glob("layers2-*")
    result = RunResult.read_or_unfinished(run_dir)
    assert (result.status, result.error) == ("failed", "division by zero")
    assert "ZeroDivisionError" in (run_dir / "train.log").read_text()


def test_a_full_disk_is_named_and_the_run_is_not_complete(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fsync

    def full(descriptor: int) -> None:
        if "model.pt" in os.readlink(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device: .*model\.pt"):
        train()
    (run_dir,) = (tmp_path / "outputs" / "runs").glob("layers2-*")
    assert RunResult.read_or_unfinished(run_dir).status == "failed"
    assert not [path for path in run_dir.iterdir() if "model.pt" in path.name]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no disk that is always full")
def test_a_log_that_cannot_be_written_leaves_it_to_the_results_to_say_so(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cifarsweep.results.files.opener", os.open)  # which opens devices, too
    with run_files.log_file(Path("/dev/full"), "w"):
        run.log.info("a line")
    assert capfd.readouterr() == ("", "")


def test_without_validation_images_the_columns_stay_empty(train: Train) -> None:
    result = train("data.val_size=0")
    assert result["val_accuracy"] is None
    assert records.read_metrics(result["dir"])[0].val_loss is None
    assert result["num_train"] == 600


def test_the_test_images_are_seen_once_after_the_last_epoch(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    real = loop.evaluate

    def counted(model: Any, batches: Any, *rest: Any) -> Any:
        result = real(model, batches, *rest)
        sizes.append(len(result.predicted))
        return result

    monkeypatch.setattr(loop, "evaluate", counted)
    train("trainer.epochs=3")
    assert sizes == [100, 100, 100, 200]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["batch_size=501"], "batch_size=501: expected 1 to 500, the number of training images"),
        (["trainer.device=cuda:99"], "trainer.device=cuda:99: not on this machine"),
    ],
)
def test_what_only_the_data_or_the_machine_can_refuse_leaves_no_run(
    train: Train, tmp_path: Path, overrides: list[str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        train(*overrides)
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize(
    "override", ["model=speednet", "model=airbench", "optimizer=muon", "loss=square_error", "trainer.precision=bf16"]
)
def test_other_options_train_too(train: Train, override: str) -> None:
    overrides = [override, "data.augment.cutout=8"]
    if override.startswith("model="):
        overrides += ["trainer.epochs=1"]
    result = train(*overrides)
    assert result["status"] == "complete"
    assert result["train_loss"] is not None


def test_the_model_column_follows_an_overridden_depth(train: Train) -> None:
    result = train("model.depth=3")
    assert (result["model"], result["depth"]) == ("layers3", 3)
    assert result["dir"].name.startswith("layers3-")


def test_threads_are_those_given_to_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert process.num_cores() == 3
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert process.num_cores() >= 1


def test_a_matched_run_is_the_run_of_its_width_and_shows_it(
    cifarsweep: Command, small: list[str], tmp_path: Path
) -> None:
    words = [word for word in small if not word.startswith("model.width")]
    matched = cifarsweep(*words, "model.match=params:50000")
    assert matched.returncode == 0, matched.stderr
    (run_dir,) = (path for path in (tmp_path / "outputs" / "runs").iterdir() if not path.name.startswith("."))
    result = json.loads((run_dir / "result.json").read_text())
    assert result["width"] == 3
    assert yaml.safe_load((run_dir / "config.yaml").read_text())["model"]["width"] == 3
    assert "trained before" in cifarsweep(*words, "model.width=3").stdout
    again = cifarsweep("outputs/runs/" + run_dir.name, module="cifarsweep.rerun")
    assert again.returncode == 0, again.stdout + again.stderr


def test_a_budget_that_no_width_meets_is_one_line(cifarsweep: Command, small: list[str]) -> None:
    done = cifarsweep(*small, "model.match=params:100")
    assert done.returncode == 1
    assert done.stderr == ("model.match=params:100: expected a number within 10% of a width's, as 17,853 (width 1)\n")


def test_every_generator_is_seeded() -> None:
    draws = []
    for _ in range(2):
        process.seed(7)
        draws.append((random.random(), float(np.random.rand()), float(torch.rand(()))))
    assert draws[0] == draws[1]


@pytest.mark.parametrize(("side", "num"), [(32, 300), (128, 125), (1024, 1)])
def test_a_model_sees_fewer_images_before_its_first_step_where_they_are_large(
    data_cache: Path, side: int, num: int
) -> None:
    small = data.load_shapes(cache=str(data_cache), num_train=300, num_test=100, val_size=0)
    large = dataclasses.replace(
        small, train_images=torch.zeros(1, 3, side, side, dtype=torch.uint8).expand(300, -1, -1, -1)
    )
    assert len(session._first_images(large, torch.device("cpu"))) == num
