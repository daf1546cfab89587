"""How cost grows: training by number of workers, and a grid and a search of more and more jobs that do nothing.

    python tests/bench/scaling.py [--root FOLDER] [--data shapes] [--workers 1 2 4 8] [--jobs 10 100 1000] [--json FILE]

`images/s` is of the whole command, eight runs of layers3, one epoch each. The jobs are those of overhead.py; --jobs
10 100 1000 10000 takes half an hour more. What the report costs over 10 to 10,000 runs is report.py's.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import bench
import overhead


def images_per_second(arguments: argparse.Namespace, workers: int) -> float:
    num_runs = 2 if arguments.small else 8
    words = [
        "model=layers3", f"seed=range({num_runs})", "trainer.epochs=1", "trainer.device=cpu", "name=bench",
        f"hydra.launcher.n_workers={workers}", *bench.data_words(arguments),
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        command = [sys.executable, "-m", "cifarsweep", "-m", f"outputs={folder}", *words]
        subprocess.run(command, env=bench.ENVIRONMENT, check=True, stdout=subprocess.DEVNULL)
        wall = time.perf_counter() - start
        results = [json.loads(file.read_text()) for file in Path(folder).glob("runs/*/result.json")]
    return float(sum(result["images_per_second"] * result["train_seconds"] for result in results) / wall)


def rows(arguments: argparse.Namespace) -> Iterator[bench.Row]:
    first = None
    for workers in arguments.workers:
        rate = images_per_second(arguments, workers)
        first = first or rate
        yield {"what": "training", "workers": workers, "images/s": rate, "times the first": rate / first}
    for kind, jobs in itertools.product(("grid", "study"), arguments.jobs):
        yield overhead.measure(kind, jobs, len(bench.cores()))


def main() -> None:
    parser = bench.parser(__doc__, data=True)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--jobs", type=int, nargs="+", default=[10, 100, 1000])
    arguments = parser.parse_args()
    if arguments.small:
        arguments.workers, arguments.jobs = [1, 2], [4]
    bench.table(rows(arguments), arguments)


if __name__ == "__main__":
    main()
