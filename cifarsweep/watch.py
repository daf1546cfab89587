"""A sweep from another terminal while it runs: `python -m cifarsweep.watch SWEEP`.

Reads files only, but of a sweep that was left to Slurm: it waits for those jobs and reports, or ends them.
"""

if __name__ == "__main__":  # at the top, so that what the imports raise is answered, too
    from cifarsweep.terminal import boundary

    raise SystemExit(boundary.run("cifarsweep.watch"))

import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cifarsweep.results import folders, records, sweeps
from cifarsweep.results.records import RunResult
from cifarsweep.results.sweeps import JobRecord, SweepRecord
from cifarsweep.terminal import boundary, formatting, streams
from cifarsweep.terminal.arguments import Parser

if TYPE_CHECKING:  # Hydra, which takes 0.3 s to import
    from cifarsweep.sweeper import cluster

SECONDS = 1.0
HEADER = ("run", "status", "epoch", "val_accuracy", "test_accuracy", "reason")
LEFT = ("run", "status", "reason")
ORDER = {"running": 0, "failed": 1, "damaged": 2}
"""Which status a person wants to see first; all others come after these."""


class Sweep:
    """What the files of a sweep say; results, which do not change, are read once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ended: dict[str, dict[str, Any]] = {}
        self.jobs = _left_to_slurm(folder)

    def is_running(self) -> bool:
        if self.jobs is not None and self.jobs.results().keys() < self.jobs.live.keys():
            return True
        return sweeps.is_running(self.folder)

    def rows(self, running: bool) -> list[dict[str, Any]]:
        """A row for each job that has begun: first those that run, then those that failed. ValueError for no sweep."""
        jobs = SweepRecord.read(self.folder).jobs.values()
        rows = [self._row(job, running) for job in sorted(jobs, key=lambda job: -job.job)]
        return sorted(rows, key=lambda row: ORDER.get(row["status"], len(ORDER)))

    def _row(self, job: JobRecord, running: bool) -> dict[str, Any]:
        name = Path(str(job.run or "")).name
        state = "failed" if job.error else "running" if running else "unfinished"
        row: dict[str, Any] = {"run": name or " ".join(job.overrides), "reason": job.error, "status": state}
        if not name:
            return row
        run_dir = folders.run_of(self.folder, name, job.path)
        if state == "unfinished" and not run_dir.is_dir():
            return {**row, "status": "missing", "reason": f"expected {run_dir}"}
        try:
            ended = self._ended.get(name)
            if ended is None and (result := RunResult.read(run_dir)):
                ended = result.row(run_dir)
                if result.status != "paused":  # which may go on
                    self._ended[name] = ended
            if ended:
                return {**ended, "epoch": ended["epochs_trained"], "reason": ended["error"] or job.error}
            epochs = records.read_metrics(run_dir)
        except (OSError, ValueError) as error:
            return {**row, "status": "unreadable", "reason": str(error)}
        return {**row, "epoch": len(epochs), "val_accuracy": epochs[-1].val_accuracy if epochs else None}


def _left_to_slurm(folder: Path) -> "cluster.Jobs | None":
    """The sweep's jobs whose end no command has seen, if there are any."""
    if not (jobs := sweeps.submitted(folder)):
        return None
    from cifarsweep.sweeper import cluster

    return cluster.Jobs(folder, jobs)


@boundary.command
def main(arguments: list[str] | None = None) -> int:
    parser = Parser(prog="python -m cifarsweep.watch", description="Shows a sweep while it runs.")
    parser.add_argument("sweep", type=Path, help="folder of a sweep, outputs/sweeps/…, or its name")
    parser.add_argument("--once", action="store_true", help="show it once and end, as in a pipe")
    parser.add_argument("--cancel", action="store_true", help="end its jobs of Slurm; the same command goes on later")
    args = parser.parse_args(arguments)
    sweep = Sweep(folders.meant(args.sweep, "the folder of a sweep, outputs/sweeps/…, or its name").absolute())
    if args.cancel:
        return _cancel(sweep)
    if sys.stdout.isatty() and not args.once:
        _watch(sweep)
    elif sweep.jobs and not args.once:
        while sweep.is_running():
            time.sleep(SECONDS)
    else:
        line, rows = _now(sweep, sweep.is_running())
        formatting.show(HEADER, rows, LEFT)
        streams.print_line(line)
    return _conclude(sweep, sweep.jobs) if sweep.jobs and not args.once and not sweep.is_running() else 0


def _cancel(sweep: Sweep) -> int:
    if sweep.jobs is None:
        raise ValueError(f"{sweep.folder}: no job of Slurm works on this sweep")
    if sweeps.is_running(sweep.folder):
        raise ValueError(f"{sweep.folder}: a command waits for its jobs, and would start others; end it first")
    line = f"{sweep.jobs}: cancelled; the same command goes on"
    sweep.jobs.cancel()
    streams.print_line(line)
    return 0


def _conclude(sweep: Sweep, jobs: "cluster.Jobs") -> int:
    """Reports on a sweep whose jobs have ended while no command waited for them. 1 where one of them failed."""
    from cifarsweep import report
    from cifarsweep.terminal import errors

    lock = sweeps.own_sweep(sweep.folder)
    if lock is None:  # a command has come back to it
        return 0
    overrides = dict(jobs.live)
    failed = {job: result._return_value for job, result in jobs.ended().items() if result.status.name == "FAILED"}
    for job, error in failed.items():
        streams.print_error(f"job {job} ({overrides[job]}) failed: {errors.one_line(error)}")
    sweeps.close_sweep(sweep.folder)
    report.show(report.write(sweep.folder))
    lock.release()
    return 1 if failed else 0


def _now(sweep: Sweep, running: bool) -> tuple[str, list[list[str]]]:
    """A line for the sweep, and cells for its runs."""
    rows = sweep.rows(running)
    counts = Counter(row["status"] for row in rows)
    total = sweeps.total(sweep.folder)
    ended = counts.total() - sum(counts[status] for status in ("running", "unfinished", *(["paused"] * running)))
    parts = [f"{ended}/{total} done" if total else f"{ended} done"]
    parts += [f"{number} {status}" for status, number in counts.items()]
    best = max((row for row in rows if row.get("val_accuracy")), key=lambda row: row["val_accuracy"], default=None)
    if best:
        parts.append(f"best val_accuracy {best['val_accuracy']:.4f} by {best['run']}")
    state = "" if running else f" ({sweeps.state(sweep.folder)}: no process works on it)"
    return f"{sweep.folder.name}: {', '.join(parts)}{state}", [[_cell(row, name) for name in HEADER] for row in rows]


def _cell(row: dict[str, Any], name: str) -> str:
    value = row.get(name)
    if value is None:
        return ""
    if name == "epoch" and row.get("epochs"):
        return f"{value}/{row['epochs']}"
    return f"{value:.4f}" if isinstance(value, float) else formatting.shortened(str(value), 60)


def _watch(sweep: Sweep) -> None:
    """Until no process works on the sweep, or Ctrl-C."""
    from rich.console import Console, Group
    from rich.live import Live
    from rich.text import Text

    console = Console(highlight=False)

    def drawn(running: bool) -> Group:
        line, rows = _now(sweep, running)
        most = max(console.height - 5, 1)
        more = [Text(f"and {len(rows) - most} more")] if len(rows) > most else []
        # The sweep's line comes first, as the end of the window cuts off what does not fit.
        text = Text(formatting.shortened(line, 4 * console.width))
        return Group(text, formatting.rich_table(HEADER, rows[:most], LEFT), *more)

    with Live(drawn(sweep.is_running()), console=console, auto_refresh=False) as live:
        while running := sweep.is_running():
            live.update(drawn(running), refresh=True)
            time.sleep(SECONDS)
        live.update(drawn(False), refresh=True)
