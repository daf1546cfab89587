"""What a search costs beside the user's own function: 1,000 trivial trials on the journal, by 1, 2 and 8 workers.

    python tests/bench/study_overhead.py [--trials 1000] [--workers 1 2 8] [--sampler random]

Checks that each trial was started exactly once. Prints, for each number of workers: the trials a second of all workers;
the milliseconds from the end of one call of the user's function to the start of the next, mean over the workers; and
the processor time of a trial, start of the processes included. With more workers than cores, the second figure is
mostly waiting for a core.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

TOY = Path(__file__).resolve().parent.parent / "toy.py"


def search(folder: Path, trials: int, workers: int, sampler: str) -> list[tuple[str, int, int, float]]:
    """One study; the lines of its log: what, trial, process, seconds."""
    log = folder / "log"
    words = [
        "search=quick", "data=shapes", "name=bench", f"outputs={folder}", "trainer.epochs=1",
        f"hydra.sweeper.n_trials={trials}", f"hydra.sweeper.n_workers={workers}",
        f"hydra/sweeper/sampler={sampler}", "hydra/sweeper/pruner=none",
    ]  # fmt: skip
    subprocess.run(
        [sys.executable, str(TOY), "-m", *words],
        env={**os.environ, "TOY_LOG": str(log)}, check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    rows = [line.split() for line in log.read_text().splitlines()]
    return [(what, int(trial), int(process), float(seconds)) for what, trial, process, seconds in rows]


def measure(trials: int, workers: int, sampler: str) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with tempfile.TemporaryDirectory() as folder:
        lines = search(Path(folder), trials, workers, sampler)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    starts = [trial for what, trial, _, _ in lines if what == "start"]
    assert sorted(starts) == list(range(trials)), "a trial was lost, or claimed twice"
    of_process = defaultdict(list)
    for what, _, process, seconds in lines:
        of_process[process].append((seconds, what))
    gaps = [
        (later - earlier) * 1000
        for events in of_process.values()
        for (earlier, before_what), (later, what) in zip(sorted(events), sorted(events)[1:], strict=False)
        if (before_what, what) == ("end", "start")
    ]
    times = [seconds for *_, seconds in lines]
    processor = (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / trials * 1000
    print(
        f"{workers} workers, {sampler}: {trials} trials, each once; {trials / (max(times) - min(times)):.0f} trials/s, "
        f"{sum(gaps) / len(gaps):.1f} ms a trial a worker, {processor:.1f} ms of processor a trial"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 8])
    parser.add_argument("--sampler", default="random")
    arguments = parser.parse_args()
    for workers in arguments.workers:
        measure(arguments.trials, workers, arguments.sampler)
