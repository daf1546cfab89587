"""What a sweep costs beside its jobs: 1,000 jobs of a grid and trials of a search that do nothing.

    python tests/bench/overhead.py [--jobs 1000] [--workers 1 2 8] [--sampler random] [--json FILE] [--small]

Checks that each was started exactly once. By kind and number of workers: jobs a second of all workers; `ms a job`, from
the end of one call of the user's function to the start of the next in the same process, mean, with the job's record in
sweep.json; `ms whole`, the wall clock of the command for a job, with start-up, composition and the end; and the
processor's time for a job. With more workers than cores, `ms a job` is mostly waiting for a core. The target is under
40 ms a job. Trials are never pruned, and sampled at random: what `--sampler tpe` takes longer is Optuna's.
"""

from __future__ import annotations

import argparse
import itertools
import resource
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import bench

Event = tuple[str, int, int, float]
"""start or end, number of the job, process, seconds."""


def words(kind: str, num_jobs: int, num_workers: int, sampler: str) -> list[str]:
    if kind == "grid":
        return [f"seed=range({num_jobs})", f"hydra.launcher.n_workers={num_workers}"]
    return [
        "search=quick", f"hydra.sweeper.n_trials={num_jobs}", f"hydra.sweeper.n_workers={num_workers}",
        f"hydra/sweeper/sampler={sampler}", "hydra/sweeper/pruner=none",
    ]  # fmt: skip


def run(overrides: list[str]) -> list[Event]:
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        where = ["data=shapes", "name=bench", f"outputs={folder}", "trainer.epochs=1"]
        environment = {**bench.ENVIRONMENT, "TOY_LOG": str(log), "TOY_REGISTER": "1"}
        command = [sys.executable, str(bench.TOY), "-m", *where, *overrides]
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
        lines = [line.split() for line in log.read_text().splitlines()]
    return [(what, int(job), int(process), float(seconds)) for what, job, process, seconds in lines]


def measure(kind: str, num_jobs: int, num_workers: int, sampler: str = "random") -> bench.Row:
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    events = run(words(kind, num_jobs, num_workers, sampler))
    after, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter() - start
    starts = sorted(job for what, job, *_ in events if what == "start")
    assert starts == list(range(num_jobs)), "a job was lost, or started twice"
    gaps = between(events)
    times = [seconds for *_, seconds in events]
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "kind": kind, "jobs": num_jobs, "workers": num_workers, "jobs/s": num_jobs / (max(times) - min(times)),
        "ms a job": 1000 * sum(gaps) / max(len(gaps), 1), "ms whole": 1000 * wall / num_jobs,
        "processor ms": 1000 * processor / num_jobs,
    }  # fmt: skip


def between(events: list[Event]) -> list[float]:
    """Seconds from each end to the next start in the same process."""
    of_process = defaultdict(list)
    for what, _, process, seconds in events:
        of_process[process].append((seconds, what))
    pairs = itertools.chain.from_iterable(itertools.pairwise(sorted(mine)) for mine in of_process.values())
    return [later - earlier for (earlier, what), (later, then) in pairs if (what, then) == ("end", "start")]


def rows(arguments: argparse.Namespace) -> Iterator[bench.Row]:
    for kind, num_workers in itertools.product(("grid", "study"), arguments.workers):
        yield measure(kind, arguments.jobs, num_workers, arguments.sampler)


def main() -> None:
    parser = bench.parser(__doc__)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 8])
    parser.add_argument("--sampler", default="random")
    arguments = parser.parse_args()
    if arguments.small:
        arguments.jobs, arguments.workers = 6, [2]
    bench.table(rows(arguments), arguments)


if __name__ == "__main__":
    main()
