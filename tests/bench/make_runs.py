"""Writes made-up runs of CIFAR-10, in the files that real ones leave, for benchmarks of the report.

    python tests/bench/make_runs.py FOLDER [--runs 10000] [--epochs 20]

Every fifteenth run has not ended well: diverged, pruned, failed or unfinished. The same arguments write the same
files, except for file times. 10,000 runs take about 20 s and 250 MB.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from cifarsweep.results import files, folders, identity, records
from cifarsweep.results.mosaic import Mosaic

MODELS = {"layers1": 0.69, "layers2": 0.78, "layers3": 0.81, "layers4": 0.82, "layers5": 0.825}
PARAMS = {"layers1": 526_000, "layers2": 268_698, "layers3": 156_186, "layers4": 164_634, "layers5": 415_000}
OPTIMIZERS = {"sgd": -0.02, "momentum": 0.0, "adam": -0.008, "adamw": -0.005}
RATES = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0]
BATCH_SIZES = [32, 64, 128, 256, 512]
CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
ENDS = ("diverged", "pruned", "failed", "unfinished")
PROVENANCE = {
    "versions": {"python": "3.11.7", "cifarsweep": "0.1.0", "torch": "2.14.1", "numpy": "2.4.6"},
    "platform": "Linux", "cpu": "Example CPU", "cores": 2, "git_commit": "0" * 40, "git_dirty": False,
}  # fmt: skip


def make(outputs: Path, num_runs: int, num_epochs: int = 20, name: str = "bench") -> Path:
    """The folder of a sweep of `num_runs` runs under `outputs`."""
    seeds = range(max(5, math.ceil(num_runs / (len(OPTIMIZERS) * len(RATES) * len(BATCH_SIZES) * len(MODELS)))))
    plan = itertools.product(OPTIMIZERS, RATES, BATCH_SIZES, seeds, MODELS)
    jobs = {}
    for number, (optimizer, lr, batch_size, seed, model) in enumerate(itertools.islice(plan, num_runs)):
        overrides = [f"model={model}", f"optimizer={optimizer}", f"optimizer.lr={lr}"]
        overrides += [f"batch_size={batch_size}", f"seed={seed}"]
        run = _make_run(outputs / "runs", number, model, optimizer, lr, batch_size, seed, num_epochs)
        jobs[" ".join(overrides)] = {"job": number, "overrides": overrides, "run": run}
    sweep_dir = outputs / "sweeps" / name
    sweep_dir.mkdir(parents=True)
    files.write_json(sweep_dir / "sweep.json", {"format": identity.FORMAT, "commands": [{}], "jobs": jobs})
    _write_pictures(outputs)
    return sweep_dir


def _write_pictures(outputs: Path) -> None:
    """Of as much noise as makes a PNG file of them as large as one of CIFAR-10's images: 0.7 of their bytes."""
    noise = np.random.default_rng(0).integers(32, size=(len(CLASSES), 10, 32, 32, 3), dtype=np.uint8)
    folder = folders.pictures(outputs, "cifar10", "made up")
    folder.mkdir(parents=True)
    names = ("classes.png", folders.augmentation_picture(crop=2, flip=True), "confused.png")
    for name, rows in zip(names, (10, 10, 6), strict=True):
        Mosaic(CLASSES[:rows], noise[:rows]).write(folder / name)
    for confusion in (outputs / "runs").glob("*/confusion.csv"):
        (confusion.parent / "confused.png").hardlink_to(folder / "confused.png")  # 180 KB, which 10,000 runs share


def _make_run(
    folder: Path, number: int, model: str, optimizer: str, lr: float, batch_size: int, seed: int, num_epochs: int
) -> str:
    config = _config(model, optimizer, lr, batch_size, seed, num_epochs)
    what = identity.identity(config, "made up")
    run = {
        "run_id": identity.run_id(what), "config_id": identity.config_id(what), "data": "cifar10", "model": model,
        "depth": int(model[-1]), "params": PARAMS[model], "flops": 8_000_000, "optimizer": optimizer, "lr": lr,
        "batch_size": batch_size, "schedule": "onecycle", "loss": "label_smoothing", "epochs": num_epochs, "seed": seed,
    }  # fmt: skip
    run_dir = folder / f"{identity.slug(model, optimizer, lr, batch_size, seed)}-{run['run_id']}"
    run_dir.mkdir(parents=True)
    (run_dir / "config.yaml").write_text(yaml.dump({**config, "run": run}, Dumper=yaml.CSafeDumper, sort_keys=False))
    status = ENDS[number // 15 % len(ENDS)] if number % 15 == 14 else "complete"
    chance = random.Random(number)
    final = MODELS[model] + OPTIMIZERS[optimizer] - 0.02 * math.log10(lr / 0.1) ** 2 + chance.gauss(0, 0.004)
    final -= 0.004 * abs(math.log2(batch_size / 64))
    curve = _curve(final, num_epochs if status == "complete" else num_epochs // 4, num_epochs, lr, chance)
    with (run_dir / "metrics.csv").open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([records.METRICS, *curve])
    (run_dir / "train.log").write_text("made up\n")
    with (run_dir / "layers.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([records.LAYERS, *_layers(int(model[-1]))])
    if status == "complete":
        _write_confusion(run_dir, final, chance)
    if status != "unfinished":
        (run_dir / "result.json").write_text(json.dumps(_result(run, status, final, curve), indent=1) + "\n")
    return run_dir.name


def _layers(depth: int) -> list[list[Any]]:
    kinds = [("Conv2d 3×3", 1), ("MaxPool2d 2×2", 2), ("BatchNorm2d", 2), ("ReLU", 2)]
    sizes = [(kind, f"{16 << block}×{32 >> block + part - 1}×{32 >> block + part - 1}")
             for block in range(depth) for kind, part in kinds]  # fmt: skip
    rows = [*sizes, ("Flatten", "2048"), ("Linear", "128"), ("ReLU", "128"), ("Dropout 0", "128"), ("Linear", "10")]
    return [[at, f"{at}", kind, at - 1, shape, 4_608, 1_179_648] for at, (kind, shape) in enumerate(rows, 1)]


def _config(model: str, optimizer: str, lr: float, batch_size: int, seed: int, num_epochs: int) -> dict[str, Any]:
    return {
        "model": {"_target_": "cifarsweep.models.LayersNet", "depth": int(model[-1]), "width": 16, "norm": "batch"},
        "optimizer": {"_target_": optimizer, "_partial_": True, "lr": lr, "weight_decay": 5e-4},
        "schedule": {"_target_": "onecycle", "_partial_": True, "warmup": 0.25},
        "loss": {"_target_": "torch.nn.CrossEntropyLoss", "label_smoothing": 0.1},
        "data": {"name": "cifar10", "val_size": 5000, "split_seed": 0, "augment": {"crop": 2, "flip": True}},
        "trainer": {"epochs": num_epochs, "device": "auto", "precision": "fp32", "threads": None},
        "batch_size": batch_size, "seed": seed, "name": "bench", "force": False, "outputs": "outputs",
    }  # fmt: skip


def _curve(final: float, num_epochs: int, of: int, lr: float, chance: random.Random) -> list[list[float]]:
    rows: list[list[float]] = []
    for epoch in range(1, num_epochs + 1):
        progress = 1 - math.exp(-4 * epoch / of)
        train = 0.3 + (final - 0.3) * progress
        val = 0.35 + (final - 0.35) * progress + chance.gauss(0, 0.01) * (1 - epoch / of)
        rows.append([epoch, lr * (1 - epoch / of), 2.4 * (1 - train) + 0.5, train, 2.5 * (1 - val) + 0.5, val, 12.5])
    return rows


def _write_confusion(run_dir: Path, final: float, chance: random.Random) -> None:
    size = len(CLASSES)
    right = [round(1000 * min(1, final + chance.uniform(-0.1, 0.1))) for _ in CLASSES]
    wrong = [(1000 - number) // (size - 1) for number in right]
    rows = [[name, *[wrong[at]] * at, right[at], *[wrong[at]] * (size - at - 1)] for at, name in enumerate(CLASSES)]
    with (run_dir / "confusion.csv").open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([["true", *CLASSES], *rows])


def _result(run: dict[str, Any], status: str, final: float, curve: list[list[float]]) -> dict[str, Any]:
    _, _, train_loss, train_accuracy, val_loss, val_accuracy, _ = curve[-1]
    complete, seconds = status == "complete", 12.5 * len(curve) * (1 + run["depth"] / 10)
    return {
        **{column: run.get(column) for column in records.COLUMNS}, **run, "status": status,
        "train_accuracy": train_accuracy, "val_accuracy": val_accuracy, "test_accuracy": final if complete else None,
        "train_loss": train_loss, "val_loss": val_loss, "test_loss": 0.9 if complete else None,
        "train_seconds": seconds, "images_per_second": 3600.0, "epochs_trained": len(curve),
        "diverged_epoch": len(curve) if status == "diverged" else None,
        "error": "RuntimeError: out of memory" if status == "failed" else None,
        "num_train": 45_000, "num_val": 5_000, "num_test": 10_000, "data_fingerprint": "made up", "device": "cpu",
        "threads": 1, "started": "2026-01-01T10:00:00+00:00", "finished": "2026-01-01T10:05:00+00:00",
        "command_line": ["python", "-m", "cifarsweep", "-m"], "provenance": PROVENANCE, "format": identity.FORMAT,
    }  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=20)
    arguments = parser.parse_args()
    print(make(arguments.folder, arguments.runs, arguments.epochs))
