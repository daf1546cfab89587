"""Seconds until a command answers: --help, a mistyped option, group and key, and the first batch of a warm run.

    python tests/bench/startup.py [--root FOLDER] [--data shapes] [--rounds 5] [--json FILE] [--small]

Warm: the decoded images are in the cache, which an unmeasured run sees to. The first batch is trained when the second
one is asked for. Targets: 0.6 s for the answers, 4 s for the first batch. `processor` tells on a busy machine how much
of the wall clock was waiting for a core.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial

import bench

TARGETS = {"first batch": 4.0}
ANSWERS = {
    "--help": ["--help"],
    "mistyped option": ["--hlep"],
    "mistyped group": ["model=layers33"],
    "mistyped key": ["batchsize=64"],
    "value out of its domain": ["batch_size=0"],
}
FIRST_BATCH = """
import os, sys
from cifarsweep import __main__
from cifarsweep.terminal import progress

def track(batches, stage):
    yield next(iter(batches))
    os._exit(0)

progress.track = track
__main__.main()
"""


def seconds(command: list[str], code: int, processor: list[float]) -> float:
    """Of the wall clock; those of the processor are added to the list."""
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, *command], env=bench.ENVIRONMENT, capture_output=True, text=True)
    taken, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    processor.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert done.returncode == code, done.stderr
    return taken


def rows(arguments: argparse.Namespace) -> Iterator[bench.Row]:
    with tempfile.TemporaryDirectory() as folder:
        words = [*bench.data_words(arguments), f"outputs={folder}"]
        processor: dict[str, list[float]] = {name: [] for name in [*ANSWERS, "first batch"]}
        commands = {
            name: partial(seconds, ["-m", "cifarsweep", *answer], 0 if name == "--help" else 1, processor[name])
            for name, answer in ANSWERS.items()
        }
        first_batch = ["-c", FIRST_BATCH, *words]
        seconds(first_batch, 0, [])
        commands["first batch"] = partial(seconds, first_batch, 0, processor["first batch"])
        for name, wall in bench.interleaved(commands, arguments.rounds).items():
            used = statistics.median(processor[name])
            yield {"command": name, "seconds": wall, "processor": used, "target": TARGETS.get(name, 0.6)}


def main() -> None:
    parser = bench.parser(__doc__, data=True)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    if arguments.small:
        arguments.rounds = 1
    bench.table(rows(arguments), arguments)


if __name__ == "__main__":
    main()
