"""A sweep from another terminal while it runs: `python -m cifarsweep.watch SWEEP`, or with --page from a browser.

Reads files only, but of a sweep that was left to Slurm: it waits for those jobs and reports, or ends them. With --page
it writes the report of a sweep that has ended without one.
"""

if __name__ == "__main__":  # at the top, so that what the imports raise is answered, too
    from cifarsweep.terminal import boundary

    raise SystemExit(boundary.run("cifarsweep.watch"))

import contextlib
import sys
import time
from collections import Counter
from collections.abc import Hashable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cifarsweep.results import folders, records, sweeps
from cifarsweep.results.records import RunResult
from cifarsweep.results.sweeps import JobRecord, SweepRecord
from cifarsweep.terminal import boundary, formatting, streams
from cifarsweep.terminal.arguments import Parser

if TYPE_CHECKING:  # Hydra, which takes 0.3 s to import, and pandas
    from cifarsweep.report.live import Now
    from cifarsweep.sweeper import cluster

SECONDS = 1.0
PATIENCE = 60.0
"""Seconds that the command of a sweep which has ended may take for its report."""
OF_THE_PAGE = {
    "status": "status", "epoch": "epoch", "val_accuracy": "val %", "test_accuracy": "test %", "run": "run",
    "reason": "reason",
}  # fmt: skip
"""Columns above the page, with their titles; a narrow screen shows the first ones."""
EARLY = {"failed": "failed", "diverged": "diverged", "pruned": "stopped early by the search"}
OPEN = {"running": "running", "paused": "paused by the search", "unfinished": "unfinished"}
"""Statuses that the page counts, and their words."""
MOST_ROWS = 40
"""Above the page, whose table has all runs."""
HEADER = ("run", "status", "epoch", "val_accuracy", "test_accuracy", "reason")
LEFT = ("run", "status", "reason")
Stamps = tuple[tuple[int, int, int] | None, ...]
ORDER = {"running": 0, "failed": 1, "damaged": 2}
"""Which status a person wants to see first; all others come after these."""


RECORDS = ("sweep.json", "jobs.jsonl", "study.json", "studies.json")
OF_A_RUN = ("result.json", "metrics.csv")


class Sweep:
    """What the files of a sweep say. A file that has not changed is not read again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.jobs = _left_to_slurm(folder)
        self._ended: dict[str, dict[str, Any]] = {}
        """What does not change any more, by run."""
        self._open: dict[str, tuple[Path, Stamps, dict[str, Any]]] = {}
        """What may change: by run its folder, when its files were written, and what they said."""
        self._num_epochs: dict[str, int | None] = {}
        self._records: Stamps | None = None
        self._jobs: list[JobRecord] = []
        self.total: int | None = None
        """How many jobs or trials it will have, as far as that is known."""
        self._looked_at: list[Any] = []

    def is_running(self) -> bool:
        if self.jobs is not None and self.jobs.results().keys() < self.jobs.live.keys():
            return True
        return sweeps.is_running(self.folder)

    def changed(self) -> bool:
        """Whether the files say something new since this was asked last, by their dates: reads none but the lock."""
        before, folders_of_runs = self._looked_at, [run_dir for run_dir, *_ in self._open.values()]
        self._looked_at = [self.is_running(), _stamps(self.folder, RECORDS)]
        self._looked_at += [_stamps(run_dir, OF_A_RUN) for run_dir in folders_of_runs]
        return self._looked_at != before

    def rows(self, running: bool) -> list[dict[str, Any]]:
        """A row for each job that has begun: first those that run, then those that failed. ValueError for no sweep."""
        if (stamps := _stamps(self.folder, RECORDS)) != self._records:
            self._jobs = sorted(SweepRecord.read(self.folder).jobs.values(), key=lambda job: -job.job)
            self.total, self._records = sweeps.total(self.folder), stamps
        rows = [self._row(job, running) for job in self._jobs]
        return sorted(rows, key=lambda row: ORDER.get(row["status"], len(ORDER)))

    def _row(self, job: JobRecord, running: bool) -> dict[str, Any]:
        name = Path(str(job.run or "")).name
        state = "failed" if job.error else "running" if running else "unfinished"
        row: dict[str, Any] = {"run": name or " ".join(job.overrides), "reason": job.error, "status": state}
        if not name:
            return row
        if name not in self._ended:
            run_dir = folders.run_of(self.folder, name, job.path)
            if state == "unfinished" and not run_dir.is_dir():
                return {**row, "status": "missing", "reason": f"expected {run_dir}"}
            try:
                said = self._read(name, run_dir)
            except (OSError, ValueError) as error:
                return {**row, "status": "unreadable", "reason": str(error)}
            if said.get("status") not in ("complete", "pruned"):  # a failed one is tried again, a paused one goes on
                return {**row, **said, "reason": said.get("reason") or job.error}
            self._ended[name] = said
            del self._open[name]
        return {**self._ended[name], "reason": self._ended[name]["reason"] or job.error}

    def _read(self, name: str, run_dir: Path) -> dict[str, Any]:
        """What the run's files say; it has a status where the run has ended, or pauses."""
        stamps, known = _stamps(run_dir, OF_A_RUN), self._open.get(name)
        if known and known[1] == stamps:
            return known[2]
        if result := RunResult.read(run_dir):
            said = result.row(run_dir)
            said |= {"epoch": said["epochs_trained"], "reason": said["error"]}
        else:
            epochs = records.read_metrics(run_dir)
            if self._num_epochs.get(name) is None:
                with contextlib.suppress(OSError, ValueError):  # not written yet
                    self._num_epochs[name] = RunResult.read_or_unfinished(run_dir).epochs
            said = {"epoch": len(epochs), "epochs": self._num_epochs.get(name)}
            said |= {"val_accuracy": epochs[-1].val_accuracy if epochs else None}
            said |= {"train_seconds": sum(epoch.seconds for epoch in epochs)}
        self._open[name] = run_dir, stamps, said
        return said


def _stamps(folder: Path, names: Iterable[str]) -> "Stamps":
    """When each of these files was written last, and what else of it changes with its content."""
    found: list[tuple[int, int, int] | None] = []
    for name in names:
        try:
            status = (folder / name).lstat()
        except OSError:
            found.append(None)
        else:
            found.append((status.st_mtime_ns, status.st_size, status.st_ino))
    return tuple(found)


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
    parser.add_argument(
        "--page", action="store_true", help="its report's page in a browser on this machine, while it runs"
    )
    parser.add_argument("--port", type=int, help="of the page's address (default: one that is free)")
    args = parser.parse_args(arguments)
    if args.page and (args.once or args.cancel):
        raise ValueError(f"--page with {'--once' if args.once else '--cancel'}: expected one of them")
    if args.port is not None and not (args.page and 0 < args.port < 2**16):
        raise ValueError(f"--port {args.port}: expected --page with it, and a number from 1 to 65535")
    sweep = Sweep(folders.meant(args.sweep, "the folder of a sweep, outputs/sweeps/…, or its name").absolute())
    if args.cancel:
        return _cancel(sweep)
    if args.page:
        return _serve(sweep, args.port or 0)
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
    total = sweep.total
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


# in a browser


def _serve(sweep: Sweep, port: int) -> int:
    """Until the sweep has ended, or Ctrl-C. One that was interrupted is waited for: the same command goes on."""
    from cifarsweep import report

    was_running = False
    if sweeps.state(sweep.folder) == "ended":
        streams.print_line(f"{sweep.folder.name} has ended; its page: {_final_page(sweep.folder, patience=0)}")
        return 0
    with report.live_page(sweep.folder, port) as page:
        from cifarsweep.report.live import Now

        streams.print_line(page.address)
        streams.print_line("for this machine only; Ctrl-C ends the page, not the sweep")
        sys.stdout.flush()
        while True:
            if sweep.changed():
                running = sweep.is_running()
                state = "running" if running else sweeps.state(sweep.folder)
                was_running |= running
                now, content = _shown(sweep, running, state)
            if not running and (state == "ended" or (sweep.jobs is not None and state == "submitted")):
                break
            page.tell(now, content)
            time.sleep(SECONDS)
        code = _conclude(sweep, sweep.jobs) if sweep.jobs else 0
        path = _final_page(sweep.folder, PATIENCE if was_running else 0)
        page.end(path.read_text(encoding="utf-8"), Now(f"The sweep has ended. This page is kept as {path}."))
    streams.print_line(f"{sweep.folder.name} has ended; its page: {path}")
    return code


def _final_page(folder: Path, patience: float) -> Path:
    """The report's page once it is newer than the end of the sweep; written here if nobody else does."""
    from cifarsweep import report

    path, until = folder / "report" / "index.html", time.monotonic() + patience
    while not path.exists() or path.stat().st_mtime < (folder / SweepRecord.file).stat().st_mtime:
        if time.monotonic() >= until:
            report.write(folder)
            break
        time.sleep(SECONDS)
    return path


def _shown(sweep: Sweep, running: bool, state: str) -> "tuple[Now, Hashable]":
    """What is told above the page at this moment, and what changes with the page."""
    from cifarsweep.report.live import Now

    rows, total = sweep.rows(running), sweep.total
    counts = Counter(row["status"] for row in rows)
    num_open = sum(counts[status] for status in ("running", "unfinished", "paused"))
    ended = len(rows) - num_open
    parts = [f"{ended} of {total} ended" if total else f"{ended} ended"]
    if early := [f"{counts[status]} {text}" for status, text in EARLY.items() if counts[status]]:
        parts[0] += f" ({', '.join(early)})"
    parts += [f"{counts[status]} {text}" for status, text in OPEN.items() if counts[status]]
    waiting = max(total - len(rows), 0) if total else 0
    parts += [f"{waiting} waiting"] if waiting else []
    seconds = _seconds_left(rows, waiting)
    parts += [f"about {formatting.duration(seconds)} left"] if running and seconds else []
    best = max((row for row in rows if row.get("val_accuracy")), key=lambda row: row["val_accuracy"], default=None)
    if best:
        parts.append(f"best validation accuracy {100 * best['val_accuracy']:.1f} % by {best['run']}")
    text = ", ".join(parts)
    if not running:
        text += f" ({state}: no process works on it; the same command goes on)"
    cells = tuple(tuple(_page_cell(row, key) for key in OF_THE_PAGE) for row in rows[:MOST_ROWS])
    content = frozenset((row["run"], row["status"], row.get("epoch")) for row in rows)
    return Now(text, tuple(OF_THE_PAGE.values()), LEFT, cells, len(rows) - len(cells)), (running, content)


def _page_cell(row: dict[str, Any], key: str) -> str:
    """As in the page's table of all runs."""
    value = row.get(key)
    return f"{100 * value:.2f}" if isinstance(value, float) else _cell(row, key)


def _seconds_left(rows: list[dict[str, Any]], waiting: int) -> float | None:
    """By the mean seconds of an epoch so far, as many runs at a time as now. None where nobody can know yet."""
    known = [row for row in rows if row.get("epoch") and row.get("train_seconds")]
    running = [row for row in rows if row["status"] == "running" and row.get("epochs")]
    if not known or not running:
        return None
    seconds = sum(row["train_seconds"] for row in known) / sum(row["epoch"] for row in known)
    ended = [row["epoch"] for row in known if row["status"] in ("complete", "pruned", "paused")]
    epochs_each = sum(ended) / len(ended) if ended else running[0]["epochs"]
    left = sum(row["epochs"] - row["epoch"] for row in running) + waiting * epochs_each
    return float(left * seconds / len(running))
