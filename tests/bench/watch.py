"""What `watch --page` costs while a sweep runs and a browser listens, over more and more made-up runs: its processor
time while nothing happens and for the page, and how soon it tells of an epoch that has ended.

    python tests/bench/watch.py [--runs 6 100 1000 5000] [--json FILE] [--small]

Fails where a target is missed: 1 % of a core while nothing happens, 2 s from an epoch's end until it is told.
"""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import bench
from make_runs import make

from cifarsweep.results import records, sweeps
from cifarsweep.results.records import Epoch

MOST_IDLE, MOST_DELAY = 0.01, 2.0


def measure(num_runs: int, seconds: float) -> bench.Row:
    with tempfile.TemporaryDirectory() as folder:
        sweep_dir = make(Path(folder), num_runs, num_epochs=8)
        running = sorted((Path(folder) / "runs").glob("*-s0-*"))[0]  # the first has not ended yet
        (running / "result.json").unlink(missing_ok=True)
        sweeps.open_sweep(sweep_dir, ["python", "-m", "cifarsweep"], {}, num_jobs=num_runs + 1)
        lock = sweeps.own_sweep(sweep_dir)
        assert lock is not None
        words = [sys.executable, "-m", "cifarsweep.watch", str(sweep_dir), "--page"]
        process = subprocess.Popen(words, env=bench.ENVIRONMENT, stdout=subprocess.PIPE, text=True)
        try:
            return {"runs": num_runs, **_measured(process, running, seconds)}
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate()
            lock.release()


def _measured(process: subprocess.Popen[str], running: Path, seconds: float) -> bench.Row:
    assert process.stdout is not None
    host, token, _ = process.stdout.readline().removeprefix("http://").split("/")
    before = _processor(process.pid)
    page = http.client.HTTPConnection(host)
    page.request("GET", f"/{token}/")
    size = len(page.getresponse().read())
    of_page = _processor(process.pid) - before
    events = http.client.HTTPConnection(host)
    events.request("GET", f"/{token}/events")
    told = events.getresponse()
    time.sleep(3)
    before = _processor(process.pid)
    time.sleep(seconds)
    idle = (_processor(process.pid) - before) / seconds
    epochs = records.read_metrics(running)
    last = vars(epochs[-1]) | {"epoch": len(epochs) + 1, "val_accuracy": 0.123456}
    records.write_metrics(running, [*epochs, Epoch(**last)])
    began = time.monotonic()
    next(line for line in told if b"12.35" in line)
    delay = time.monotonic() - began
    return {
        "idle % of a core": 100 * idle, "page, processor s": of_page, "page MB": size / 1e6, "delay s": delay,
        "within": idle <= MOST_IDLE and delay <= MOST_DELAY,
    }  # fmt: skip


def _processor(pid: int) -> float:
    """Seconds of a core that the process has used, threads and all."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> int:
    parser = bench.parser(__doc__)
    parser.add_argument("--runs", type=int, nargs="+", default=[6, 100, 1_000, 5_000])
    arguments = parser.parse_args()
    counts, seconds = ([6], 3.0) if arguments.small else (arguments.runs, 30.0)
    rows = bench.table((measure(count, seconds) for count in counts), arguments)
    return 0 if arguments.small or all(row["within"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
