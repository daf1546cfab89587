"""Peak memory of PyTorch alone, of a layers4 run, of a sweep by number of workers, and of each further worker.

    python tests/bench/memory.py [--root FOLDER] [--data shapes] [--workers 1 2 4] [--json FILE] [--small]

The sum of PSS (/proc/PID/smaps_rollup, so Linux only) over the command and its workers, four times a second: a page
that n processes share counts one n-th in each, so the mapped images count once. `resident` is the largest RSS of one
process, in which all the pages it shares count whole. Targets: a run 900 MiB, a further worker 600 MiB.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import bench

PYTORCH = """
import time, torch
weight = torch.nn.Parameter(torch.ones(2))
optimizer = torch.optim.SGD([weight], lr=0.1)
weight.sum().backward()
optimizer.step()
time.sleep(1)
"""
"""What no run can do without: its import, and one step of an optimizer, which loads its compiler."""


def peak_of_run(words: list[str]) -> tuple[float, float]:
    with tempfile.TemporaryDirectory() as folder:
        return peak(["-m", "cifarsweep", *words, f"outputs={folder}", "trainer.device=cpu"])


def peak(words: list[str]) -> tuple[float, float]:
    """MiB: the largest sum of PSS over the command's processes, and the largest RSS of one of them."""
    most, resident = 0.0, 0.0
    process = subprocess.Popen([sys.executable, *words], env=bench.ENVIRONMENT, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        now = [_memory(pid) for pid in _family(process.pid)]
        most = max(most, sum(pss for pss, _ in now))
        resident = max(resident, *(rss for _, rss in now), 0.0)
        time.sleep(0.25)
    assert process.returncode == 0
    return most, resident


def _family(pid: int) -> list[int]:
    """The process and its descendants."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid, *(one for child in children for one in _family(int(child)))]


def _memory(pid: int) -> tuple[float, float]:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:  # it has just ended
        return 0.0, 0.0
    kib = dict(re.findall(r"^(Pss|Rss): +(\d+) kB", text, re.MULTILINE))
    return int(kib.get("Pss", 0)) / 1024, int(kib.get("Rss", 0)) / 1024


def rows(arguments: argparse.Namespace) -> Iterator[bench.Row]:
    # The whole data set is read when it is opened; 2,000 images of training then reach the peak.
    common = ["model=layers4", "trainer.epochs=1", *bench.data_words(arguments), "data.subset=2000"]
    for what, (most, resident) in (("PyTorch", peak(["-c", PYTORCH])), ("a run", peak_of_run(common))):
        yield {"what": what, "workers": 0, "peak MiB": most, "resident": resident, "a further worker": 0.0}
    fewer = None
    for workers in arguments.workers:
        sweep = ["-m", *common, f"seed=range({workers})", f"hydra.launcher.n_workers={workers}", "name=bench"]
        now, resident = peak_of_run(sweep)
        further = (now - fewer[1]) / (workers - fewer[0]) if fewer else 0.0
        yield {
            "what": "a sweep",
            "workers": workers,
            "peak MiB": now,
            "resident": resident,
            "a further worker": further,
        }
        fewer = workers, now


def main() -> None:
    parser = bench.parser(__doc__, data=True)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    arguments = parser.parse_args()
    if arguments.small:
        arguments.workers = [1, 2]
    bench.table(rows(arguments), arguments)


if __name__ == "__main__":
    main()
