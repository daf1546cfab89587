"""What a report costs: seconds after the imports, peak memory and size of the page over more and more made-up runs.

    python tests/bench/report.py [--runs 10 100 1000 10000] [--json FILE] [--small]

Fails where a target is missed: 100 runs in 3 s, 10,000 runs in 20 s and 1 GiB, every page below 5 MiB.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import bench
from make_runs import make

CODE = """
import os, resource, sys, time
from pathlib import Path
from cifarsweep import report
from cifarsweep.report import figures, page, search_results, tables
def processor():
    return sum(os.times()[:4])  # that of the process which draws half of the figures as well
wall, start = time.perf_counter(), processor()
report.write(Path(sys.argv[1]))
wall = time.perf_counter() - wall
peaks = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
print(wall, processor() - start, sum(peaks))  # KiB on Linux; what the two share counts twice
"""
TARGETS = {100: (3.0, 1024), 10_000: (20.0, 1024)}
"""Seconds and MiB, by number of runs."""
MOST_PAGE = 5.0
"""MiB."""


def measure(num_runs: int) -> bench.Row:
    with tempfile.TemporaryDirectory() as folder:
        sweep_dir = make(Path(folder), num_runs)
        words = [sys.executable, "-c", CODE, str(sweep_dir)]
        done = subprocess.run(words, check=True, capture_output=True, text=True, env=bench.ENVIRONMENT).stdout.split()
        page = (sweep_dir / "report" / "index.html").stat().st_size / 2**20
        whole = sum(file.stat().st_size for file in (sweep_dir / "report").iterdir()) / 2**20
    wall, processor, memory = float(done[0]), float(done[1]), int(done[2]) / 1024
    most_seconds, most_memory = TARGETS.get(num_runs, (float("inf"), float("inf")))
    return {
        "runs": num_runs, "seconds": wall, "processor s": processor, "peak MiB": memory, "page MiB": page,
        "report MiB": whole, "within": wall <= most_seconds and memory <= most_memory and page <= MOST_PAGE,
    }  # fmt: skip


def main() -> int:
    parser = bench.parser(__doc__)
    parser.add_argument("--runs", type=int, nargs="+", default=[10, 100, 1_000, 10_000])
    arguments = parser.parse_args()
    rows = bench.table(map(measure, [10] if arguments.small else arguments.runs), arguments)
    return 0 if all(row["within"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
