"""`python -m cifarsweep.rerun`: a run is reproduced from its directory alone, or what differs is said."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from conftest import Command, without_digests


@pytest.fixture
def alone(cifarsweep: Command, small: list[str], tmp_path: Path) -> Path:
    """The directory of a complete run, with nothing else of its sweep."""
    done = cifarsweep(*small, "model.dropout=0.1", "optimizer=adamw", "schedule=cosine")
    assert done.returncode == 0, done.stderr
    (run,) = (tmp_path / "outputs" / "runs").glob("layers2-*")
    shutil.move(run, tmp_path / "alone")
    shutil.rmtree(tmp_path / "outputs")
    return tmp_path / "alone"


def test_the_same_to_the_last_bit(cifarsweep: Command, alone: Path, tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in alone.iterdir()}
    done = cifarsweep(str(alone), module="cifarsweep.rerun")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "the same to the last bit: metrics.csv, confusion.csv, model.pt"
    assert "epoch 2/2" in done.stdout
    assert {path.name: path.read_bytes() for path in alone.iterdir()} == before
    assert not (tmp_path / "outputs").exists()


def test_what_differs_is_named_with_the_versions_that_differ(cifarsweep: Command, alone: Path) -> None:
    result = without_digests(alone)
    measured = result["test_accuracy"]
    result["test_accuracy"] = 0.99
    result["provenance"]["versions"]["torch"] = "2.0.0"
    (alone / "result.json").write_text(json.dumps(result))
    metrics = (alone / "metrics.csv").read_text()
    (alone / "metrics.csv").write_text(metrics.replace("\n2,", "\n2,9", 1))
    done = cifarsweep(str(alone), module="cifarsweep.rerun")
    assert (done.returncode, done.stderr) == (1, "")
    assert f"test_accuracy: was 0.99, is {measured}" in done.stdout
    assert "metrics.csv: not the same" in done.stdout
    assert "torch: was 2.0.0, is " in done.stdout
    assert done.stdout.splitlines()[-1] == "not the same"


def test_other_images_are_told_apart(cifarsweep: Command, alone: Path) -> None:
    without_digests(alone)
    config = (alone / "config.yaml").read_text()
    assert "num_test: 200" in config
    (alone / "config.yaml").write_text(config.replace("num_test: 200", "num_test: 300"))
    done = cifarsweep(str(alone), module="cifarsweep.rerun")
    assert done.returncode == 1
    assert "data_fingerprint: was " in done.stdout
    assert "run_id: was " in done.stdout


def test_outputs_keeps_the_new_run(cifarsweep: Command, alone: Path, tmp_path: Path) -> None:
    done = cifarsweep(str(alone), "--outputs", "again", module="cifarsweep.rerun")
    assert (done.returncode, done.stderr) == (0, "")
    (run,) = (tmp_path / "again" / "runs").glob("layers2-adamw-*")
    assert (run / "model.pt").read_bytes() == (alone / "model.pt").read_bytes()


def test_a_folder_that_has_the_run_is_refused(cifarsweep: Command, alone: Path) -> None:
    words = [str(alone), "--outputs", "again"]
    assert cifarsweep(*words, module="cifarsweep.rerun").returncode == 0
    done = cifarsweep(*words, module="cifarsweep.rerun")
    assert done.returncode == 1
    assert done.stderr.startswith("--outputs again: expected a folder without this run")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("result.json", None, "alone: unfinished, expected a run that is complete, pruned, paused or diverged"),
        ("result.json", b"{", "result.json: not a JSON file"),
        ("config.yaml", None, "config.yaml"),
        ("config.yaml", b"- 1", "config.yaml: not the configuration of a run"),
        ("config.yaml", b"run: {}\ntrainer: 5\n", "config.yaml: not the configuration of a run"),
        ("config.yaml", b"run: {}\nmodel: {a: '${oc.env:HOME}'}\n", "a=${oc.env:HOME}: expected a value"),
    ],
)
def test_what_cannot_be_trained_again_is_named_in_one_line(
    cifarsweep: Command, alone: Path, name: str, content: bytes | None, message: str
) -> None:
    without_digests(alone)
    (alone / name).unlink()
    if content is not None:
        (alone / name).write_bytes(content)
    done = cifarsweep(str(alone), module="cifarsweep.rerun")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert message in line


def test_another_format_is_refused(cifarsweep: Command, alone: Path) -> None:
    result = without_digests(alone)
    (alone / "result.json").write_text(json.dumps({**result, "format": 0}))
    done = cifarsweep(str(alone), module="cifarsweep.rerun")
    assert done.returncode == 1
    assert done.stderr.startswith(f"{alone}/result.json: not the result of a run (format=0: expected 1); ")
