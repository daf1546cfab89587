"""Images a second summed over a grid sweep of real processes, beside the compute-only limit.

    python tests/bench/sweep.py [--root FOLDER] [--data shapes] [--epochs 2] [--batch-size 128] [--json FILE] [--small]

For each depth, `python -m cifarsweep -m` trains two seeds a core with the default recipe. `training`: images a second
of the runs' epochs, all workers together. `whole`: all images trained, by the command's wall clock, with the start of
the workers, validation, test, files and the report. `limit`: see throughput.py; half of its measurements are taken
before the sweep, half after it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import bench
import throughput


def sweep(arguments: argparse.Namespace, depth: int) -> tuple[float, float]:
    """Images a second: of training, and of the whole command."""
    num_cores = len(bench.cores())
    overrides = [
        f"model=layers{depth}", f"batch_size={arguments.batch_size}", f"seed=range({2 * num_cores})",
        f"trainer.epochs={arguments.epochs}", "trainer.device=cpu", "name=bench", *bench.data_words(arguments),
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "cifarsweep", "-m", f"outputs={folder}", *overrides]
        start = time.perf_counter()
        subprocess.run(command, env=bench.ENVIRONMENT, check=True, stdout=subprocess.DEVNULL)
        wall = time.perf_counter() - start
        results = [json.loads(file.read_text()) for file in Path(folder).glob("runs/*/result.json")]
    images = sum(result["images_per_second"] * result["train_seconds"] for result in results)
    return num_cores * images / sum(result["train_seconds"] for result in results), images / wall


def rows(arguments: argparse.Namespace) -> Iterator[bench.Row]:
    words = ["--data", arguments.data, "--root", arguments.root, *(["--small"] if arguments.small else [])]
    for depth in arguments.depths:

        def limits(depth: int = depth) -> list[float]:
            team = throughput.Team([[core] for core in bench.cores()], words)
            images = throughput.IMAGES["limit"] // (10 if arguments.small else 1)
            rates = [
                team.images_per_second("limit", f"model=layers{depth}", arguments.batch_size, images) for _ in range(3)
            ]
            team.end()
            return rates

        before = limits()
        training, whole = sweep(arguments, depth)
        limit = statistics.median(before + limits())
        yield {
            "model": f"layers{depth}", "batch_size": arguments.batch_size, "training": training, "whole": whole,
            "limit": limit, "training of limit": training / limit, "whole of limit": whole / limit,
        }  # fmt: skip


def main() -> None:
    parser = bench.parser(__doc__, data=True)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--depths", type=int, nargs="+", default=[2, 3, 4])
    parser.add_argument("--batch-size", type=int, default=128)
    arguments = parser.parse_args()
    if arguments.small:
        arguments.epochs, arguments.depths = 1, [2]
    bench.table(rows(arguments), arguments)


if __name__ == "__main__":
    main()
