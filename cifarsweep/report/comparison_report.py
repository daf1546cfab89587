"""What a comparison of two sweeps says: its answer, tables, figure and page. Knows how they look, computes none."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from cifarsweep.report import comparison, figures, findings, page, style, tables
from cifarsweep.report.comparison import Change, Row, SweepComparison
from cifarsweep.report.figures import Drawing
from cifarsweep.report.statistics import Comparison
from cifarsweep.results import files, folders
from cifarsweep.terminal.formatting import count, shortened

COLUMNS = ["variant", "setting", "n", "test_accuracy_first", "test_accuracy_second", "difference", "low", "high"]
COLUMNS += ["effect_size", "p", "p_corrected", "verdict", "train_seconds_first", "train_seconds_second"]
COLUMNS += ["seconds_difference", "seconds_low", "seconds_high"]
PAIR_COLUMNS = ["variant", "setting", "seed", "run_id_first", "run_id_second", "test_accuracy_first"]
PAIR_COLUMNS += ["test_accuracy_second", "train_seconds_first", "train_seconds_second"]
MOST_NAMED = 3
"""Changes that a sentence names."""
MOST_ROWS = 40
"""Of the figure, and of the page's table; comparison.csv has all."""
MORE_SEEDS = (
    "More seeds would tell more: run both sweeps again with 'seed=range(10)'; what is trained is not trained again."
)


@dataclass(frozen=True)
class ComparisonReport:
    folder: Path
    first: str
    second: str
    found: SweepComparison

    @property
    def sentences(self) -> list[str]:
        """The answer, then what it rests on."""
        return [answer(self.found, self.first, self.second), *_evidence(self.found, self.first, self.second)]


def write(first: Path, second: Path) -> ComparisonReport:
    """Compares the runs of two paths, into the second one's report folder. ValueError where they cannot be compared."""
    if first.resolve() == second.resolve():
        raise ValueError(f"--compare {first} {second}: twice the same, expected two sweeps")
    sides = [tables.read(folders.find(path), [], with_constants=True) for path in (first, second)]
    for path, side in zip((first, second), sides, strict=True):
        if side.complete.empty:
            raise ValueError(f"{path}: no run is complete, so there is nothing to compare")
    try:
        found = comparison.compare_sweeps(*sides)
    except ValueError as error:
        raise ValueError(f"{first} and {second}: {error}") from error
    names = first.absolute().name, second.absolute().name
    if names[0] == names[1]:
        names = str(first), str(second)
    folder = second / "report" / f"compared_with_{first.absolute().name}"
    files.make_folder(folder, below=second)
    done = ComparisonReport(folder, *names, found)
    _write_tables(done)
    with style.drawing():
        figures.save(forest(found, *names), folder / "comparison.png")
    _write_page(done)
    return done


# sentences


def answer(found: SweepComparison, first: str, second: str) -> str:
    """Whether the change helped, in one sentence."""
    if found.unpaired:
        what = f"the best configuration of {findings.name(second)} against that of {findings.name(first)}"
        evidence = f"{count(found.unpaired.accuracy.n, 'run')} each, as no two runs agree in all but what changed"
        return _verdict(found.unpaired.accuracy, what, evidence)
    rows = sorted(found.whole, key=lambda row: -row.accuracy.difference)
    if len(rows) == 1:
        evidence = f"{count(rows[0].accuracy.n, 'pair')} of runs"
        return _verdict(rows[0].accuracy, _what_changed(found), evidence)
    by_verdict = {verdict: [row for row in rows if row.accuracy.verdict == verdict] for verdict in _SAID}
    told = [
        f"{said} with {', '.join(map(_with_difference, of_verdict[:MOST_NAMED]))}"
        + (f" and {len(of_verdict) - MOST_NAMED} more" if len(of_verdict) > MOST_NAMED else "")
        for verdict, said in _SAID.items()
        if (of_verdict := by_verdict[verdict])
    ]
    sentence = "; ".join(told)
    return f"{sentence[:1].upper()}{sentence[1:]}."


_SAID = {
    "higher": "yes, test accuracy is higher",
    "lower": "no, it is lower",
    "tie": "nothing beyond chance",
    "unknown": "not enough runs to say",
}


def _with_difference(row: Row) -> str:
    difference = findings.points(row.accuracy.difference, signed=True)
    return f"{shortened(row.variant, 60)} ({difference} points)"


def _verdict(compared: Comparison, what: str, evidence: str) -> str:
    """Yes: with batch_size 128 → 256, test accuracy is 1.2 points higher (95 % interval 0.8 to 1.6, 9 pairs)."""
    difference = findings.points(compared.difference, signed=True)
    if compared.verdict == "unknown":
        return f"Not enough runs to say whether it helped: {what}, {difference} points ({evidence})."
    if compared.verdict == "tie":
        if compared.difference == 0:
            return f"It changed nothing: {what}, the mean test accuracy is the same ({evidence})."
        evidence = f"95 % interval {_ends(compared.low, compared.high)}, {evidence}"
        differs = f"test accuracy differs by {difference} points, which may be chance"
        return f"Not shown to help: {what}, {differs} ({evidence})."
    yes, higher = ("Yes", "higher") if compared.verdict == "higher" else ("No", "lower")
    low, high = sorted(abs(end) for end in (compared.low, compared.high))
    interval = f"95 % interval {findings.points(low)} to {findings.points(min(high, 1.0))}, {evidence}"
    return f"{yes}: {what}, test accuracy is {findings.points(abs(compared.difference))} points {higher} ({interval})."


def _ends(low: float, high: float) -> str:
    return f"{findings.points(max(low, -1.0), signed=True)} to {findings.points(min(high, 1.0), signed=True)}"


def _what_changed(found: SweepComparison) -> str:
    """With batch_size 128 → 256, and how many others."""
    changes = [change for change in found.changes if not change.follows]
    if not changes:
        return f"with the same settings{', made differently' if found.made_with else ''}"
    named = ", ".join(map(_change_text, changes[:MOST_NAMED]))
    others = len(changes) - MOST_NAMED
    return f"with {named}" + (f" and {count(others, 'other change')}" if others > 0 else "")


def _change_text(change: Change) -> str:
    return f"{findings.name(change.key)} {' → '.join(_values(side) for side in (change.first, change.second))}"


def _values(texts: Sequence[str]) -> str:
    shown = ", ".join(shortened(text, 30) for text in texts[:4])
    return (shown + (f", … ({len(texts)})" if len(texts) > 4 else "")) or "unknown"


def _evidence(found: SweepComparison, first: str, second: str) -> list[str]:
    """What the answer rests on, what it cost in seconds, and what would tell more."""
    sentences = []
    if found.bests:
        chosen = [
            f"{findings.name(name)}: {findings.best_sentence(best)}"
            for name, best in zip((first, second), found.bests, strict=True)
        ]
        sentences += [
            *chosen,
            "Such a comparison counts everything that differs between the two, and the luck of both.",
        ]
    whole = [found.unpaired] if found.unpaired else found.whole
    if any({"higher", "lower"} <= {row.accuracy.verdict for row in _of_variant(found, each)} for each in found.whole):
        sentences.append("It depends on the setting: with some test accuracy is higher, with others lower.")
    if len(whole) == 1:
        sentences.append(_seconds_sentence(whole[0]))
    if found.num_shared:
        sentences.append(f"Left out, as both sweeps have the same: {count(found.num_shared, 'run')}.")
    for number, name in zip(found.num_alone, (first, second), strict=True):
        if found.whole and number:
            sentences.append(
                f"{count(number, 'run')} of {findings.name(name)} {'has' if number == 1 else 'have'} no partner."
            )
    if whole and {row.accuracy.verdict for row in whole} & {"tie", "unknown"}:
        sentences.append(MORE_SEEDS)
    return sentences


def _of_variant(found: SweepComparison, whole: Row) -> list[Row]:
    return [row for row in found.settings if row.variant == whole.variant]


def _seconds_sentence(row: Row) -> str:
    before, after = (f"{value:.3g} s" for value in row.means["seconds"])
    compared = row.seconds
    if before == after:
        return f"A run trains for {before} in both."
    if compared.verdict in ("tie", "unknown"):
        return f"A run trains for {before} in the first sweep and {after} in the second; that may be chance."
    longer = "longer" if compared.difference > 0 else "shorter"
    low, high = sorted(abs(end) for end in (compared.low, compared.high))
    interval = f"95 % interval {low:.3g} to {high:.3g} s"
    return f"A run trains {abs(compared.difference):.3g} s {longer} ({before} → {after}; {interval})."


# tables


def header(first: str, second: str) -> list[str]:
    """Of the printed table and the page's."""
    return ["setting", "pairs", f"{first} %", f"{second} %", "difference", "95 % interval", "p", "verdict", "seconds"]


LEFT = ("setting", "verdict")


def cells(found: SweepComparison) -> list[list[str]]:
    if found.unpaired:
        return [_cells(found.unpaired, "best configurations")]
    name: Callable[[Row], str] = lambda row: ", ".join(filter(None, [row.variant, row.setting])) or "all pairs"  # noqa: E731
    return [_cells(row, shortened(name(row), 60)) for row in (*found.whole, *found.settings)]


def _cells(row: Row, name: str) -> list[str]:
    compared, (before, after) = row.accuracy, row.means["accuracy"]
    seconds = [f"{value:.3g}" for value in row.means["seconds"]]
    known = not math.isnan(compared.low)
    verdicts = {"higher": "better", "lower": "worse", "tie": "may be chance", "unknown": "not enough runs"}
    return [
        name,
        str(compared.n),
        f"{100 * before:.2f}",
        f"{100 * after:.2f}",
        findings.points(compared.difference, signed=True),
        _ends(compared.low, compared.high) if known else "",
        findings.p_text(compared.p_corrected).removeprefix("p ").removeprefix("= ") if known else "",
        verdicts[compared.verdict],
        " → ".join(seconds),
    ]


def changes(found: SweepComparison) -> list[list[str]]:
    """Key, first, second; those that follow from others come after them, then what the runs were made with."""
    ordered = sorted(found.changes, key=lambda change: change.follows)
    return [[change.key, _values(change.first), _values(change.second)] for change in (*ordered, *found.made_with)]


def _write_tables(done: ComparisonReport) -> None:
    found = done.found
    rows = [*found.whole, *found.settings, *([found.unpaired] if found.unpaired else [])]
    files.write_csv(done.folder / "comparison.csv", COLUMNS, map(_record, rows))
    pairs = found.pairs[PAIR_COLUMNS].itertuples(index=False)
    files.write_csv(done.folder / "pairs.csv", PAIR_COLUMNS, (map(_known, pair) for pair in pairs))
    listed = [
        [change.key, ", ".join(change.first), ", ".join(change.second)] for change in (*found.changes, *found.made_with)
    ]
    files.write_csv(done.folder / "changes.csv", ["key", "first", "second"], listed)


def _record(row: Row) -> list[Any]:
    compared, seconds = row.accuracy, row.seconds
    figures_ = [
        compared.difference,
        compared.low,
        compared.high,
        compared.effect_size,
        compared.p,
        compared.p_corrected,
    ]
    of_seconds = [*row.means["seconds"], seconds.difference, seconds.low, seconds.high]
    values = [compared.n, *row.means["accuracy"], *figures_, compared.verdict, *of_seconds]
    return [row.variant, row.setting, *map(_known, values)]


def _known(value: Any) -> Any:
    return None if value is None or value != value else value


# figure and page


def forest(found: SweepComparison, first: str, second: str) -> Figure:
    """A line a row: the mean difference with its interval, the pairs as small points, and a line where nothing is."""
    rows = ([found.unpaired] if found.unpaired else [*found.whole, *found.settings])[:MOST_ROWS]
    names = [line[0] for line in cells(found)][: len(rows)]
    letters = max(map(len, (shortened(name, 40) for name in names)))
    left = style.LEFT + 0.075 * letters
    caption = f"Test accuracy of {shortened(second)} less that of {shortened(first)}: mean and 95 % interval"
    caption += "." if found.unpaired else "; small points are pairs of runs that agree in everything else."
    figure, grid = style.page("What the change did", caption, (8.0, 0.4 + 0.3 * len(rows)), (1, 1), 0.5, left=left)
    axes = grid[0, 0]
    axes.axvline(0, color=style.GREY, lw=1, zorder=1)
    for at, row in enumerate(rows):
        is_whole = not row.setting
        colour = style.OKABE_ITO[0] if is_whole else style.GREY
        if not found.unpaired:
            of_row = found.pairs[found.pairs["variant"] == row.variant]
            of_row = of_row if is_whole else of_row[of_row["setting"] == row.setting]
            points = 100 * (of_row["test_accuracy_second"] - of_row["test_accuracy_first"])
            axes.plot(points, [at] * len(points), "o", color=colour, ms=3.5, mew=0, alpha=0.45, zorder=2)
        ends = [100 * row.accuracy.low, 100 * row.accuracy.high]
        if not math.isnan(ends[0]):
            axes.plot(ends, [at, at], "|-", color=colour, lw=2, ms=9, mew=2, zorder=3)
        mean = 100 * row.accuracy.difference
        axes.plot(mean, at, "D" if is_whole else "o", color=colour, ms=7, mec="white", mew=0.8, zorder=4)
    axes.set_yticks(range(len(rows)), [shortened(name, 40) for name in names], fontsize=10)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(True, axis="x")
    axes.grid(False, axis="y")
    axes.set_xlabel("difference of test accuracy (points)", fontsize=11)
    return figure


def _write_page(done: ComparisonReport) -> None:
    found = done.found
    rows = cells(found)
    drawing = Drawing("comparison.png", lambda: None, "")
    content = (
        page.environment(done.folder)
        .get_template("comparison.html")
        .render(
            first=done.first,
            second=done.second,
            sentences=done.sentences,
            drawing=drawing,
            header=header(findings.name(done.first), findings.name(done.second)),
            left=LEFT,
            rows=rows[:MOST_ROWS],
            num_left_out=max(0, len(rows) - MOST_ROWS),
            changes=changes(found),
            is_paired=not found.unpaired,
            files=["comparison.csv", "pairs.csv", "changes.csv"],
            table={"number_selector": "#none"},
        )
    )
    with files.atomic(done.folder / "index.html") as file:
        file.write(content)
