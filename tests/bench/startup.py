"""Seconds until a command answers: --help, a mistyped option, group and key, and the first batch of a warm run.

    python tests/bench/startup.py [--root FOLDER] [--data shapes] [--rounds 5] [--json FILE] [--small]

Warm: the decoded images are in the cache, which an unmeasured run sees to. The first batch is trained when the second
one is asked for. Targets: 0.6 s for the answers, 4 s for the first batch.
"""

from __future__ import annotations

import argparse
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
from cifarsweep import __main__, progress

def track(batches, stage):
    yield next(iter(batches))
    os._exit(0)

progress.track = track
__main__.main()
"""


def seconds(command: list[str], code: int) -> float:
    start = time.perf_counter()
    done = subprocess.run([sys.executable, *command], env=bench.ENVIRONMENT, capture_output=True, text=True)
    taken = time.perf_counter() - start
    assert done.returncode == code, done.stderr
    return taken


def rows(arguments: argparse.Namespace) -> Iterator[bench.Row]:
    with tempfile.TemporaryDirectory() as folder:
        words = [*bench.data_words(arguments), f"outputs={folder}"]
        commands = {
            name: partial(seconds, ["-m", "cifarsweep", *answer], 0 if name == "--help" else 1)
            for name, answer in ANSWERS.items()
        }
        commands["first batch"] = partial(seconds, ["-c", FIRST_BATCH, *words], 0)
        commands["first batch"]()
        for name, median in bench.interleaved(commands, arguments.rounds).items():
            yield {"command": name, "seconds": median, "target": TARGETS.get(name, 0.6)}


def main() -> None:
    parser = bench.parser(__doc__, data=True)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    if arguments.small:
        arguments.rounds = 1
    bench.table(rows(arguments), arguments)


if __name__ == "__main__":
    main()
