"""Runs and sweeps as a table: `python -m cifarsweep.runs`. Reads result files only, and quickly."""

if __name__ == "__main__":  # at the top, so that what the imports raise is answered, too
    from cifarsweep.terminal import boundary

    raise SystemExit(boundary.run("cifarsweep.runs"))

import argparse
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

from cifarsweep.results import folders, records, sweeps
from cifarsweep.results.records import RunResult
from cifarsweep.terminal import boundary, conditions, formatting, streams
from cifarsweep.terminal.arguments import Parser
from cifarsweep.terminal.conditions import Condition

Row = Mapping[str, Any]

_MEASURED = {"train_accuracy", "val_accuracy", "test_accuracy", "val_loss", "test_loss", "train_loss"}
_NUMBERS = {item.name for item in fields(RunResult) if item.type in (int, float, int | None, float | None)}
_NUMBERS |= {"jobs", "ended", "complete", "failed"}

_FURTHER = ["run", "config_id", "flops", "train_loss", "epochs_trained", "diverged_epoch", "error", "num_train"]
_FURTHER += ["num_val", "num_test", "device", "threads", "started", "finished"]
RUN_COLUMNS = [*records.COLUMNS, *_FURTHER]
SWEEP_COLUMNS = ["sweep", "status", "jobs", "ended", "complete", "failed", "val_accuracy", "started"]

SHOWN = ["run_id", "status", "data", "model", "optimizer", "schedule", "loss", "epochs", "lr", "batch_size", "seed"]
SHOWN += ["val_accuracy", "test_accuracy", "train_seconds"]
SHOWN_WHERE_THEY_DIFFER = ("data", "optimizer", "schedule", "loss", "epochs")

LARGEST_FIRST = {"train_accuracy", "val_accuracy", "test_accuracy", "images_per_second", "started", "finished"}
"""Columns in which that is the best or the newest."""
LIMIT_ON_A_TERMINAL = 40


@boundary.command
def main(arguments: list[str] | None = None) -> int:
    args = _parse(arguments)
    noun, known = ("sweep", SWEEP_COLUMNS) if args.sweeps else ("run", RUN_COLUMNS)
    paths, wanted = _split(args.words, known)
    columns = args.columns.split(",") if args.columns else []
    for name in [*([args.sort] if args.sort else []), *columns]:
        _check_column(name, known)
    folders_of, read = (folders.find_sweeps, _sweep) if args.sweeps else (folders.find, _run)
    rows = [row for row in _read(paths, folders_of, read) if all(condition.holds(row.get) for condition in wanted)]
    sort = args.sort or "started"
    reverse = args.reverse != (sort in LARGEST_FIRST)
    valued = [row for row in rows if row.get(sort) is not None]
    rows = sorted(valued, key=lambda row: row[sort], reverse=reverse) + [r for r in rows if r.get(sort) is None]
    most = args.limit if args.limit is not None else LIMIT_ON_A_TERMINAL if sys.stdout.isatty() else 0
    shown = rows[:most] if most > 0 else rows
    differ = [name for name in SHOWN_WHERE_THEY_DIFFER if len({row.get(name) for row in shown}) > 1]
    of_runs = [name for name in SHOWN if name in differ or name not in SHOWN_WHERE_THEY_DIFFER]
    names = columns or (SWEEP_COLUMNS if args.sweeps else of_runs)
    if damaged := sum(row["status"] == "damaged" for row in rows) if not args.sweeps else 0:
        are = "run is" if damaged == 1 else "runs are"
        streams.print_error(f"{damaged:,} {are} damaged, see --columns run,error; {RunResult.made_again_by}")
    formatting.show(names, [[_cell(name, row.get(name)) for name in names] for row in shown], set(known) - _NUMBERS)
    if sys.stdout.isatty():
        more = "" if len(shown) == len(rows) else f", of which {len(shown)} are shown; --limit 0 shows all"
        streams.print_line(f"{len(rows):,} {noun}{'' if len(rows) == 1 else 's'}{more}")
    return 0


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = Parser(
        prog="python -m cifarsweep.runs",
        description="Lists runs, or with --sweeps sweeps, the newest first.",
        epilog="A condition is COLUMN, one of = != < <= > >=, and a value: status=complete 'model=layers*' "
        "'val_accuracy>0.8 & lr<0.5' lr=0.1,0.3. Those with < > or & need quotes in a shell. Columns: "
        + ", ".join(RUN_COLUMNS)
        + ".",
    )
    parser.add_argument(
        "words",
        nargs="*",
        metavar="PATH|CONDITION",
        help="outputs folder (default), sweep or run; conditions",
    )
    parser.add_argument("--sweeps", action="store_true", help="a line a sweep; it knows " + ", ".join(SWEEP_COLUMNS))
    parser.add_argument("--sort", metavar="COLUMN", help="best or newest first, settings smallest first, empty last")
    parser.add_argument("--reverse", action="store_true", help="the other way round")
    parser.add_argument(
        "--limit", type=int, metavar="N", help=f"so many lines; 0: all (default: {LIMIT_ON_A_TERMINAL} on a terminal)"
    )
    parser.add_argument("--columns", metavar="A,B", help="which columns to show, in this order")
    return parser.parse_args(arguments)


def _split(words: Sequence[str], known: Sequence[str]) -> tuple[list[Path], list[Condition]]:
    paths, found = [], []
    for word in words:
        if re.match(r"[\w.]+(!=|[<>=])", word) and not Path(word).exists():
            found.append(conditions.parse(word, partial(_check_column, known=known), _NUMBERS))
        else:
            paths.append(Path(word))
    return paths or [Path("outputs")], found


def _check_column(name: str, known: Sequence[str]) -> None:
    if name not in known:
        raise ValueError(f"{name}: no such column, expected one of {', '.join(known)}")


# reading


def _read(
    paths: Iterable[Path], folders_of: Callable[[Path], list[Path]], read: Callable[[Path], Row]
) -> Iterator[Row]:
    """What is known of each run or sweep. A line on stderr names what cannot be read."""
    for folder in dict.fromkeys(folder for path in paths for folder in folders_of(path)):
        try:
            row = read(folder)
        except (OSError, ValueError) as error:
            streams.print_error(f"left out, cannot be read: {formatting.shortened(str(error), 300)}")
        else:
            yield row


def _run(run_dir: Path) -> Row:
    return RunResult.read_or_unfinished(run_dir).row(run_dir)


def _sweep(folder: Path) -> Row:
    sweep = sweeps.SweepRecord.read(folder)
    jobs, command = sweep.jobs.values(), sweep.commands[-1]
    rows = [row for run_dir in folders.runs_of(folder).values() if (row := _ended(run_dir))]
    counts = Counter(row["status"] for row in rows)
    without_run = sum(job.error is not None and not job.run for job in jobs)
    accuracies = [row["val_accuracy"] for row in rows if row["val_accuracy"] is not None]
    return {
        "sweep": folder.name,
        "status": sweeps.state(folder),
        "jobs": sweeps.total(folder) or len(jobs),
        "ended": len(rows) + without_run,
        "complete": counts["complete"],
        "failed": counts["failed"] + without_run,
        "val_accuracy": max(accuracies, default=None),
        "started": command.time,
    }


def _ended(run_dir: Path) -> Row | None:
    try:
        return result.row(run_dir) if (result := RunResult.read(run_dir)) else None
    except (OSError, ValueError):
        return None


# cells


def _cell(column: str, value: Any) -> str:
    if value is None:
        return ""
    if column in _MEASURED:
        return f"{value:.4f}"
    if isinstance(value, float):
        return f"{value:.6g}" if column == "lr" else f"{value:,.1f}"
    return str(value)
