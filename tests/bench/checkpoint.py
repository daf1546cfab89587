"""What the checkpoint after each epoch costs: the share of the epoch's time, for layers4 and each optimizer.

    python tests/bench/checkpoint.py [--num-train 45000] [--epochs 3] [--model layers4]

Trains on `shapes`, one thread, in a temporary folder of the current directory's file system; the target is under 2 %.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import hydra

from cifarsweep.sweeper import hydra_compat
from cifarsweep.terminal import progress
from cifarsweep.training import checkpoint, run
from cifarsweep.training.configuration import Configuration

CONF = Path(__file__).resolve().parents[2] / "conf"


def measure(model: str, optimizer: str, num_train: int, epochs: int) -> tuple[float, float, int]:
    """Median seconds of an epoch's training, of a checkpoint, and its bytes."""
    seconds: list[float] = []
    sizes: list[int] = []
    save = checkpoint.save

    def timed(path: Path, *rest: Any) -> None:
        start = time.perf_counter()
        save(path, *rest)
        seconds.append(time.perf_counter() - start)
        sizes.append(path.stat().st_size)

    checkpoint.save = timed
    try:
        with tempfile.TemporaryDirectory(dir=".") as folder:
            words = [f"model={model}", f"optimizer={optimizer}", "data=shapes", f"data.num_train={num_train + 5000}"]
            words += [f"outputs={folder}", f"trainer.epochs={epochs}", "trainer.threads=1"]
            with hydra.initialize_config_dir(str(CONF), **hydra_compat.VERSION_BASE):
                cfg = hydra.compose("config", words)
            choices = {"model": model, "optimizer": optimizer, "schedule": "onecycle", "loss": "label_smoothing"}
            result = run.train(Configuration.of(cfg, choices))
    finally:
        checkpoint.save = save
    return (result.train_seconds or 0.0) / epochs, statistics.median(seconds), sizes[-1]


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--num-train", type=int, default=45_000)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--model", default="layers4")
    arguments = parser.parse_args()
    progress.send_to(lambda event: None)
    for optimizer in ("momentum", "adamw", "muon"):
        epoch, save, size = measure(arguments.model, optimizer, arguments.num_train, arguments.epochs)
        print(
            f"{arguments.model} {optimizer}: epoch {epoch:.2f} s, checkpoint {save * 1000:.1f} ms "
            f"({size / 1e6:.2f} MB): {save / epoch:.2%}"
        )
