"""The end of a sweep as text: a table on a terminal, aligned lines in a pipe. Knows tables and comparisons."""

from collections import Counter

import pandas as pd

from cifarsweep.report import comparison_report, findings
from cifarsweep.report.comparison_report import ComparisonReport
from cifarsweep.report.style import mean_and_interval, thousands
from cifarsweep.report.tables import Tables
from cifarsweep.results.study_records import EARLY
from cifarsweep.terminal import formatting
from cifarsweep.terminal.formatting import shortened
from cifarsweep.terminal.streams import print_error, print_line

MOST_ROWS = 20
MOST_REASONS = 5
TEXTS = ("data", "model", "optimizer")


def show(tables: Tables, notes: list[str]) -> None:
    """Prints configurations, best first, then what became of the runs; unreadable runs go to stderr.

    Best is by mean validation accuracy, or by test accuracy where there is none.
    """
    for line in tables.unreadable:
        print_error(f"left out, cannot be read: {line}")
    rows = tables.summary[tables.summary["n"] > 0]
    by_validation = rows["val_accuracy_mean"].notna().any()
    keys = ["data", "val_accuracy_mean"] if by_validation else ["data", "test_accuracy_mean"]
    rows = rows.sort_values(keys, ascending=[True, False], kind="stable", na_position="last")
    if rows.empty:
        print_line("No run is complete.")
    else:
        header, *cells = _cells(rows[:MOST_ROWS])
        formatting.show(header, cells, TEXTS)
    if len(rows) > MOST_ROWS:
        print_line(f"and {len(rows) - MOST_ROWS} more in summary.csv")
    if by_validation:
        interval = " ±: 95 % interval over seeds." if (rows["n"] > 1).any() else ""
        print_line(f"In order of validation accuracy.{interval}")
    elif len(rows):
        print_line("In order of test accuracy, as there was no validation split: the first row's is optimistic.")
    for line in [*outcomes(tables), *notes]:
        print_line(line)


def show_comparison(report: ComparisonReport) -> None:
    """Prints what changed, a row for all pairs and for each setting, then the answer."""
    names = [shortened(name) for name in (report.first, report.second)]
    if changed := comparison_report.changes(report.found):
        formatting.show(
            ["changed", *names], [[shortened(cell, 60) for cell in row] for row in changed], ["changed", *names]
        )
        print_line("")
    rows = comparison_report.cells(report.found)
    formatting.show(comparison_report.header(*names), rows[:MOST_ROWS], comparison_report.LEFT)
    if len(rows) > MOST_ROWS:
        print_line(f"and {len(rows) - MOST_ROWS} more in comparison.csv")
    for sentence in report.sentences:
        print_line(sentence)


def outcomes(tables: Tables) -> list[str]:
    """How many runs are complete, and of those that were lost how many, and why."""
    lines = [findings.outcome(tables)]
    lost = tables.runs[~tables.runs["status"].isin(["complete", *EARLY])]
    causes = zip(lost["status"], lost["diverged_epoch"], lost["error"], strict=True)
    reasons = Counter(_reason(*cause) for cause in causes)
    reasons.update(f"without a run: {shortened(error, 200)}" for error in tables.jobs_without_run)
    lines += [f"  {number} {reason}" for reason, number in reasons.most_common(MOST_REASONS)]
    if rest := sum(number for _, number in reasons.most_common()[MOST_REASONS:]):
        lines.append(f"  {rest} for other reasons, see runs.csv")
    if tables.unreadable:
        lines.append(f"  {len(tables.unreadable)} left out, as a file cannot be read")
    return lines


def _reason(status: str, diverged_epoch: int | None, error: str | None) -> str:
    if status == "diverged" and pd.notna(diverged_epoch):
        return f"diverged in epoch {diverged_epoch}"
    if isinstance(error, str) and error.strip():
        return f"{status}: {shortened(error.strip().splitlines()[0], 200)}"
    return "still running, or interrupted" if status == "unfinished" else status


def _cells(rows: pd.DataFrame) -> list[list[str]]:
    """The table's texts, first the header; the data set and the number of epochs only where they differ."""
    columns = {
        "data": [shortened(data) for data in rows["data"]],
        "model": [shortened(label) for label in rows["label"]],
        "params": ["" if pd.isna(params) else thousands(params) for params in rows["params"]],
        "optimizer": [shortened(name) for name in rows["optimizer"]],
        "lr": ["" if pd.isna(lr) else f"{lr:.4g}" for lr in rows["lr"]],
        "batch size": ["" if pd.isna(size) else str(size) for size in rows["batch_size"]],
        "epochs": ["" if pd.isna(epochs) else str(epochs) for epochs in rows["epochs"]],
        "seeds": [str(n) if n == of else f"{n} of {of}" for n, of in zip(rows["n"], rows["n_runs"], strict=True)],
        "val accuracy %": _percent(rows, "val_accuracy"),
        "test accuracy %": _percent(rows, "test_accuracy"),
        "seconds": ["" if pd.isna(seconds) else f"{seconds:.1f}" for seconds in rows["train_seconds_mean"]],
    }
    left_out = {key for key in ("data", "epochs") if rows[key].nunique(dropna=False) == 1}
    shown = {key: cells for key, cells in columns.items() if key not in left_out}
    return [list(shown), *map(list, zip(*shown.values(), strict=True))]


def _percent(rows: pd.DataFrame, name: str) -> list[str]:
    figures = 100 * rows[[f"{name}_{which}" for which in ("mean", "low", "high")]]
    return ["" if pd.isna(mean) else mean_and_interval(mean, *ends, digits=2) for mean, *ends in figures.to_numpy()]
