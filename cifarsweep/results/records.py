"""What the files of a run hold, each read and written in one place. Knows nothing of training."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from cifarsweep.results import files

# fmt: off
COLUMNS = [
    "run_id", "status", "data", "model", "depth", "params", "optimizer", "lr", "batch_size", "schedule", "loss",
    "epochs", "seed", "train_accuracy", "val_accuracy", "test_accuracy", "val_loss", "test_loss", "train_seconds",
    "images_per_second",
]
# fmt: on
# fmt: on
"""How runs.csv begins; result.json holds every one of them."""


LAYERS = ["layer", "name", "kind", "inputs", "output_shape", "params", "multiply_adds"]


METRICS = ["epoch", "lr", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "seconds"]


class Layer(NamedTuple):
    """A row of layers.csv: what happens to one image in a layer of a network."""

    name: str
    """Where the module is in the network, as 0.1; empty for a function."""
    kind: str
    inputs: tuple[int, ...]
    """The layers, counted from 1, whose outputs it takes; 0 is the image."""
    shape: tuple[int, ...]
    """Of its output for one image: channels, height, width, or features."""
    params: int
    """Trainable numbers."""
    multiply_adds: int


def read_result(run_dir: Path) -> dict[str, Any] | None:
    """What result.json holds, or None where the run has not ended. files.Corrupt where it is no result."""
    path = run_dir / "result.json"
    if not path.exists():
        return None
    result = files.read_json(path)
    if not isinstance(result, dict) or not result.keys() >= {*COLUMNS}:
        raise files.Corrupt(path, "not the result of a run")
    return result


def read_run(run_dir: Path) -> dict[str, Any]:
    """result.json, or what was known at the start, with status `unfinished`, where the run has not ended.

    `dir` is added: where it was found. OSError or ValueError where neither file can be read.
    """
    row = read_result(run_dir)
    if row is None:
        row = {**read_config(run_dir)["run"], "status": "unfinished"}
    return {**row, "dir": run_dir}


def read_config(run_dir: Path) -> dict[str, Any]:
    """The resolved configuration, and under `run` what was known of the run at its start. OSError or files.Corrupt."""
    path = run_dir / "config.yaml"
    try:
        config = yaml.load(path.read_text(encoding="utf-8"), files._LOADER)
        if isinstance(config, dict) and isinstance(config["run"], dict):
            return config
    except (yaml.YAMLError, KeyError, ValueError, RecursionError) as error:
        raise files.Corrupt(path, "not the configuration of a run") from error
    raise files.Corrupt(path, "not the configuration of a run")


def read_metrics(run_dir: Path) -> list[dict[str, float | None]]:
    """One entry an epoch, keys METRICS; None where nothing was measured, as validation without a split."""
    path = run_dir / "metrics.csv"
    if not path.exists():
        return []
    try:
        return [
            {key: float(row[key]) if row[key] else None for key in METRICS} for row in files.read_csv(path, METRICS)
        ]
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise files.Corrupt(path, "not the metrics of a run") from error


def write_layers(run_dir: Path, layers: Iterable[Layer]) -> None:
    """layers.csv: the network that the run trains, a row a layer in the order of the computation."""
    rows = [
        [at, layer.name, layer.kind, _words(layer.inputs), "×".join(map(str, layer.shape)), *layer[4:]]
        for at, layer in enumerate(layers, 1)
    ]
    files.write_csv(run_dir / "layers.csv", LAYERS, rows)


def _words(numbers: Iterable[int]) -> str:
    return " ".join(map(str, numbers))


def read_layers(run_dir: Path) -> list[Layer]:
    """What layers.csv holds; nothing where there is none. files.Corrupt where it is something else."""
    path = run_dir / "layers.csv"
    if not path.exists():
        return []
    try:
        layers = [_layer(row) for row in files.read_csv(path, LAYERS)]
    except (KeyError, TypeError, AttributeError, ValueError, csv.Error) as error:
        raise files.Corrupt(path, "not the layers of a network") from error
    if any(not 0 <= source < at for at, layer in enumerate(layers, 1) for source in layer.inputs):
        raise files.Corrupt(path, "a layer takes what is not there yet")
    return layers


def _layer(row: Mapping[str, str]) -> Layer:
    shape = tuple(int(size) for size in row["output_shape"].split("×") if size)
    inputs = tuple(int(word) for word in row["inputs"].split())
    layer = Layer(row["name"], row["kind"], inputs, shape, int(row["params"]), int(row["multiply_adds"]))
    if min(layer.params, layer.multiply_adds, *shape, 0) < 0:
        raise ValueError("a negative number")
    return layer
