"""How long workers wait for each other: trials of 0.2 s and 2 s in a fixed order, by our sweeper and by Hydra's own.

    python tests/bench/asynchrony.py [--rounds 1] [--json FILE] [--small]

Ours is `study` with the launcher `local`; the other is hydra-optuna-sweeper with the joblib launcher, n_jobs=2, which
waits for whole batches. Both have two workers, sample at random and run the same trials. `idle` is the part of the
workers' time in which they had no trial, from the start of the first trial to the start of the last; the target is
under 5 %. Needs hydra-optuna-sweeper and hydra-joblib-launcher for Hydra's figure.
"""

from __future__ import annotations

import importlib.util
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import bench
import hydra

APP = bench.REPOSITORY / "tests" / "sweeper" / "apps" / "timed.py"
NUM_WORKERS = 2
SECONDS = (0.2, 2.0)
CONTENDERS = {
    "study, local": [
        "hydra/sweeper=study", "hydra/launcher=local", f"hydra.sweeper.n_workers={NUM_WORKERS}",
        "hydra/sweeper/sampler=random", "hydra/sweeper/pruner=none",
    ],
    "optuna, joblib": [
        "hydra/sweeper=optuna", "hydra/launcher=joblib", f"hydra.sweeper.n_jobs={NUM_WORKERS}",
        f"hydra.launcher.n_jobs={NUM_WORKERS}", "hydra/sweeper/sampler=random",
    ],
}  # fmt: skip


def is_there(name: str) -> bool:
    plugins = ("hydra_optuna_sweeper", "hydra_joblib_launcher") if name.startswith("optuna") else ()
    return all(importlib.util.find_spec(f"hydra_plugins.{plugin}") for plugin in plugins)


def durations(num_trials: int) -> list[float]:
    """As many short as long ones, in the same random order each time."""
    seconds = [SECONDS[i % len(SECONDS)] for i in range(num_trials)]
    random.Random(0).shuffle(seconds)
    return seconds


def measure(name: str, seconds: list[float]) -> bench.Row:
    with tempfile.TemporaryDirectory() as folder:
        words = [f"hydra.sweeper.n_trials={len(seconds)}", f"hydra.sweep.dir={folder}/sweep", f"log={folder}/log"]
        words += [f"seconds={seconds}".replace(" ", ""), "x=interval(0, 1)"]
        command = [sys.executable, str(APP), "-m", *CONTENDERS[name], *words]
        done = subprocess.run(command, cwd=folder, env=dict(os.environ), capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"{name}: {done.stderr}")
        lines = [line.split() for line in (Path(folder) / "log").read_text().splitlines()]
    assert sorted(int(number) for number, *_ in lines) == list(range(len(seconds))), "a trial was lost, or run twice"
    spans = [(float(start), float(end)) for _, start, end in lines]
    first, last = min(start for start, _ in spans), max(start for start, _ in spans)
    busy = sum(min(end, last) - start for start, end in spans)
    return {
        "sweeper": name, "hydra": hydra.__version__, "trials": len(seconds), "workers": NUM_WORKERS,
        "seconds": last - first, "idle %": 100 * (1 - busy / (NUM_WORKERS * (last - first))),
    }  # fmt: skip


def rows(num_trials: int, rounds: int) -> Iterator[bench.Row]:
    for _ in range(rounds):
        for name in CONTENDERS:
            if is_there(name):
                yield measure(name, durations(num_trials))
            else:
                print(f"{name}: hydra-optuna-sweeper and hydra-joblib-launcher are not installed", file=sys.stderr)


def main() -> None:
    parser = bench.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=1)
    arguments = parser.parse_args()
    bench.table(rows(8 if arguments.small else 60, arguments.rounds), arguments)


if __name__ == "__main__":
    main()
