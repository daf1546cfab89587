"""What trackers take of an epoch, on one thread.

    python tests/bench/trackers.py [--root FOLDER] [--model layers2] [--epochs 6] [--json FILE] [--small]

For each tracker that is installed, and for all at once: seconds of an epoch; `waits ms`, for which the training waits
for the trackers after an epoch, median; `beside ms`, processor time of their threads and processes from the end of the
first epoch to that of the last, for an epoch; and `share %`, both of an epoch: as much as if there were one core. What
happens once a run, imports and files, is `begin s` and `end s`. The target is a share of at most 2 %.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import bench

NAMES = ("tensorboard", "mlflow", "wandb", "trackio")


def beside() -> float:
    """Seconds of processors so far of all but this thread: of other threads, and of processes below this one."""
    descendants, seconds = [os.getpid()], time.process_time() - time.thread_time()
    for process in descendants:
        for children in Path(f"/proc/{process}/task").glob("*/children"):
            descendants += map(int, children.read_text().split())
    for process in descendants[1:]:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        seconds += sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    return seconds


def train(words: list[str]) -> bench.Row:
    """Trains with these words in a process of its own, as each tracker stays in it once it is imported."""
    import cifarsweep
    from cifarsweep import trackers

    waits: list[float] = []
    ends: list[tuple[float, float]] = []
    once: dict[str, float] = {}

    class Timed(trackers.Trackers):
        def __init__(self, *arguments: Any) -> None:
            begin = time.perf_counter()
            super().__init__(*arguments)
            once["begin s"] = time.perf_counter() - begin

        def epochs(self, epochs: Any) -> None:
            begin = time.perf_counter()
            super().epochs(epochs)
            if epochs:
                waits.append(time.perf_counter() - begin)
                ends.append((time.perf_counter(), beside()))

        def end(self, result: Any) -> None:
            begin = time.perf_counter()
            super().end(result)
            once["end s"] = time.perf_counter() - begin

    from cifarsweep.training import run

    run.Trackers = Timed  # type: ignore[misc]
    cifarsweep.train(*words)
    (first, first_beside), (last, last_beside), num = ends[0], ends[-1], len(ends) - 1
    epoch, wait = (last - first) / num, statistics.median(waits[1:])
    taken = (last_beside - first_beside) / num
    share = 100 * (wait + taken) / epoch
    return {"epoch s": epoch, "waits ms": 1000 * wait, "beside ms": 1000 * taken, "share %": share, **once}


def rows(words: list[str]) -> Iterator[bench.Row]:
    names = [name for name in NAMES if find_spec(name)]
    for number, chosen in enumerate([[], *([name] for name in names), names]):
        with tempfile.TemporaryDirectory() as folder:
            os.environ.update(TRACKIO_DIR=f"{folder}/trackio", WANDB_MODE="offline")
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                where = [f"outputs={folder}/{number}", f"tracker=[{','.join(chosen)}]"]
                measured = pool.submit(train, [*words, *where]).result()
        yield {"tracker": "+".join(chosen) or "none", **measured}


if __name__ == "__main__":
    parser = bench.parser(__doc__, data=True)
    parser.add_argument("--model", default="layers2")
    parser.add_argument("--epochs", type=int, default=6)
    arguments = parser.parse_args()
    epochs = 2 if arguments.small else arguments.epochs
    words = [f"model={arguments.model}", f"trainer.epochs={epochs}", "trainer.threads=1"]
    bench.table(rows([*bench.data_words(arguments), *words]), arguments)
