"""`python -m cifarsweep.report`: its arguments, what it prints and how it fails. Knows nothing of tables or figures."""

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from cifarsweep.report import plain_matplotlib
from cifarsweep.terminal import boundary, streams
from cifarsweep.terminal.arguments import Parser

if TYPE_CHECKING:  # pandas and matplotlib cost 0.9 s, which `--help` and a wrong PATH need not pay
    from cifarsweep.report.comparison_report import ComparisonReport
    from cifarsweep.report.live import LivePage
    from cifarsweep.report.writing import Report


def write(*paths: Path, parquet: bool = False) -> "Report":
    """Writes the tables, figures and page of all runs that `paths` stand for into the first's report folder.

    One sweep that a search made also has trials.csv and the figures of the search, even where no trial had a run.
    A run whose files cannot be read is left out and named in the tables' `unreadable`. ValueError where a path
    holds no runs or none can be read, OSError where the folder cannot be written.
    """
    paths, run_dirs = _found(paths)
    plain_matplotlib.load()
    from cifarsweep.report import writing

    return writing.write(paths, run_dirs, parquet)


def _found(paths: tuple[Path, ...]) -> tuple[tuple[Path, ...], list[Path]]:
    """The folders that are meant, and the runs that they stand for."""
    from cifarsweep.results import folders  # other projects' code, whose import the boundary has to answer for

    paths, run_dirs = tuple(map(folders.meant, paths)), []
    for path in paths:
        of_path = folders.find(path)
        # A sweep may have no run: it has just begun, or none of its jobs has.
        if not of_path and not (path / "sweep.json").exists() and not (path / "study.json").exists():
            raise ValueError(f"{path}: no runs here: expected a run, a sweep or an outputs folder")
        run_dirs += of_path
    return paths, run_dirs


def live_page(path: Path, port: int) -> "LivePage":
    """The page of a sweep that runs, to be served. ValueError where the port is taken."""
    plain_matplotlib.load()
    from cifarsweep.report import live, writing

    return live.LivePage(lambda: writing.page_now(path, _found((path,))[1]), port)


def compare(first: Path, second: Path) -> "ComparisonReport":
    """Writes what changed between two sweeps, and what it did, into the second one's report folder.

    ValueError where they cannot be compared, OSError where the folder cannot be written.
    """
    (first, second), _ = _found((first, second))
    plain_matplotlib.load()
    from cifarsweep.report import comparison_report

    return comparison_report.write(first, second)


def show(report: "Report") -> None:
    """Prints the configurations, best first, what became of the other runs, and where the report is."""
    from cifarsweep.report import printed

    printed.show(report.tables, report.notes)
    streams.print_line(f"Report: {report.folder / 'index.html'}")


def show_comparison(report: "ComparisonReport") -> None:
    """Prints what changed, the differences, the answer, and where the page is."""
    from cifarsweep.report import printed

    printed.show_comparison(report)
    streams.print_line(f"Comparison: {report.folder / 'index.html'}")


@boundary.command
def main(arguments: list[str] | None = None) -> int:
    parser = Parser(
        prog="python -m cifarsweep.report", description="Writes the tables and figures of runs that were trained."
    )
    parser.add_argument(
        "path",
        nargs="*",
        type=Path,
        default=[Path("outputs")],
        help="a run or a sweep, by path or name, or an outputs folder",
    )
    parser.add_argument(
        "--format", default="csv", help="csv, or parquet: runs, summary and epochs in both; needs pyarrow"
    )
    parser.add_argument(
        "--compare",
        action="store_true",
        help="compare two sweeps: what changed between the first and the second, and whether it helped",
    )
    args = parser.parse_args(arguments)
    if args.compare:
        if len(args.path) != 2:
            raise ValueError(f"--compare {' '.join(map(str, args.path))}: expected two sweeps")
        show_comparison(compare(*args.path))
        return 0
    if args.format not in ("csv", "parquet"):
        raise ValueError(f"--format {args.format}: expected csv or parquet")
    if args.format == "parquet" and find_spec("pyarrow") is None:
        raise ValueError("--format parquet: needs pyarrow: pip install pyarrow")
    from cifarsweep.results import folders

    show(write(*args.path, parquet=args.format == "parquet"))
    return 1 if any(folders.missing_runs(folders.meant(path)) for path in args.path) else 0
