"""What a report costs: seconds after the imports, peak memory and size of the page over more and more made-up runs.

    python tests/bench/report.py [--runs 10 100 1000 10000]

Fails where a target is missed: 100 runs in 3 s, 10,000 runs in 20 s and 1 GiB, every page below 5 MiB.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from make_runs import make

CODE = """
import resource, sys, time
from pathlib import Path
from cifarsweep import report
from cifarsweep.report import figures, page, search, tables
wall, processor = time.perf_counter(), time.process_time()
report.write(Path(sys.argv[1]))
wall, processor = time.perf_counter() - wall, time.process_time() - processor
print(wall, processor, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)  # KiB on Linux
"""
TARGETS = {100: (3.0, 1024), 10_000: (20.0, 1024)}
"""Seconds and MiB, by number of runs."""
MOST_PAGE = 5.0
"""MiB."""


def measure(num_runs: int) -> bool:
    """Prints the figures of one report; whether they are within the targets."""
    with tempfile.TemporaryDirectory() as folder:
        sweep_dir = make(Path(folder), num_runs)
        words = [sys.executable, "-c", CODE, str(sweep_dir)]
        done = subprocess.run(words, check=True, capture_output=True, text=True).stdout.split()
        size = (sweep_dir / "report" / "index.html").stat().st_size / 2**20
        whole = sum(file.stat().st_size for file in (sweep_dir / "report").iterdir()) / 2**20
    wall, processor, memory = float(done[0]), float(done[1]), int(done[2]) / 1024
    print(
        f"{num_runs:6,} runs: {wall:6.2f} s ({processor:.2f} s of processor), {memory:5.0f} MiB at most, "
        f"page {size:.2f} MiB, report {whole:.1f} MiB",
        flush=True,
    )
    most_seconds, most_memory = TARGETS.get(num_runs, (float("inf"), float("inf")))
    return processor <= most_seconds and memory <= most_memory and size <= MOST_PAGE


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, nargs="+", default=[10, 100, 1_000, 10_000])
    within = [measure(num_runs) for num_runs in parser.parse_args().runs]
    sys.exit(0 if all(within) else 1)
