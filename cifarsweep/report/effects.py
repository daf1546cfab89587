"""What each setting did: accuracy against its values, and learning rate against batch size. Knows the tables only."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from cifarsweep.report.statistics import Comparison, compare
from cifarsweep.report.style import GREY, OKABE_ITO, in_rows, legend_below, page, set_scale, span, spans_factors
from cifarsweep.report.tables import DECIDING, SETTINGS, Tables, in_order, intervals
from cifarsweep.terminal.formatting import count, shortened

MOST_LEVELS = 8
"""A setting with more values is drawn as at most so many groups of neighbouring values, equally wide on its axis."""
RUNS_PER_GROUP = 6
"""There are two groups at least."""
MOST_PANELS = 9
AS_COLUMNS = {"optimizer.lr": "lr", "trainer.epochs": "epochs"}
"""Keys whose columns have other names."""
ENOUGH = 3
"""A difference counts only over at least so many runs that differ in one setting alone."""


@dataclass(frozen=True)
class Effect:
    """One setting over complete runs of one data set."""

    key: str
    runs: pd.DataFrame
    """A row a run: label, `level` (its place in `levels`), `accuracy` (percent), `adjusted` for the model's mean."""
    levels: list[str]
    numbers: list[float] | None
    """Where the levels are on an axis, of a group its median; None where they are no numbers."""
    is_log: bool
    best: str
    """The level with the highest mean `adjusted` accuracy."""
    comparisons: list[Comparison]
    """The best level against each other one, over runs that differ in nothing else; in points of accuracy."""


class Effects:
    """The settings that vary among the complete runs of the data set that has the most of them."""

    def __init__(self, tables: Tables, linear: Collection[str] = ()) -> None:
        """`linear`: the keys that a search sampled on no logarithmic scale."""
        self.linear = {AS_COLUMNS.get(key, key) for key in linear}
        complete = tables.complete
        has_validation = complete["val_accuracy"].notna().any()
        self.measure = "validation accuracy" if has_validation else "test accuracy"
        column = "val_accuracy" if has_validation else "test_accuracy"
        complete = complete[complete[column].notna()]
        data_sets = complete["data"].value_counts()
        self.data = str(data_sets.index[0]) if len(data_sets) else ""
        self.num_data_sets = len(data_sets)
        runs = complete[complete["data"] == self.data]
        accuracy = 100 * runs[column]
        adjusted = accuracy - accuracy.groupby(runs["label"]).transform("mean") + accuracy.mean()
        self.runs = runs.assign(accuracy=accuracy, adjusted=adjusted)
        self.labels = in_order(self.runs)
        self.by_model = len(self.labels) <= len(OKABE_ITO)  # else there are not enough colours
        varying = independent(self.runs, [*SETTINGS, *tables.settings])
        self.effects = [self._effect(key, varying) for key in varying[:MOST_PANELS]]
        self.left_out = varying[MOST_PANELS:]

    def _effect(self, key: str, varying: list[str]) -> Effect:
        level, levels, numbers = _levels(self.runs[key], may_be_log=key not in self.linear)
        is_log = numbers is not None and spans_factors(numbers) and key not in self.linear
        runs = self.runs[["label", "accuracy", "adjusted"]].assign(level=level)[level >= 0]
        adjusted = runs.groupby("level")["adjusted"].mean()
        best = levels[int(adjusted.index[int(adjusted.argmax())])]
        others = [*(other for other in varying if other != key), "label", "seed"]
        block = self.runs.loc[runs.index, others].astype(str).groupby(others).ngroup()  # of runs equal in all others
        means = runs.assign(block=block).groupby(["level", "block"], as_index=False)["accuracy"].mean()
        values: dict[str, dict[int, float]] = {name: {} for name in levels}
        for level, number, mean in zip(means["level"], means["block"], means["accuracy"], strict=True):
            values[levels[level]][number] = mean
        comparisons = compare(values, [(best, name) for name in levels if name != best])
        return Effect(key, runs, levels, numbers, is_log, best, comparisons)

    @property
    def point(self) -> str:
        """What a point of the figure is: one run, or the mean over 2 to 5 runs with that value."""
        by = ["level", "label"] if self.by_model else ["level"]
        sizes = [size for effect in self.effects for size in effect.runs.groupby(by).size()]
        return f"the mean over {span(sizes, 'run')} with that value" if max(sizes, default=1) > 1 else "one run"


def independent(runs: pd.DataFrame, keys: Sequence[str]) -> list[str]:
    """Keys with several values. Leaves out those that follow from another, such as momentum from the optimizer."""
    varying: list[str] = []
    for key in keys:
        values = runs[key].map(str)
        follows = any(values.groupby(runs[group]).nunique().max() == 1 for group in DECIDING if group != key)
        if values.nunique() > 1 and not follows:
            varying.append(key)
    return varying


def _levels(values: "pd.Series[Any]", may_be_log: bool) -> tuple["pd.Series[int]", list[str], list[float] | None]:
    """For each run the place of its value, -1 where it has none; the names of the values; the numbers that they are."""
    known = values.dropna()
    kinds = (int, float, np.integer, np.floating)
    is_number = all(
        isinstance(value, kinds) and not isinstance(value, bool) and bool(-1e300 < value < 1e300) for value in known
    )
    if is_number and known.nunique() > MOST_LEVELS:
        numbers = values.astype(float)
        num_groups = min(MOST_LEVELS, max(2, len(known) // RUNS_PER_GROUP))
        places = np.log(numbers) if may_be_log and spans_factors(numbers.dropna()) else numbers
        groups = pd.Series(pd.cut(places, num_groups, labels=False, duplicates="drop"), values.index)
        codes = groups.rank(method="dense").fillna(0).astype(int) - 1  # without the groups that nothing is in
        of_groups = numbers[codes >= 0].groupby(codes)
        ends = of_groups.agg(["min", "max"]).map("{:.3g}".format)
        names = [low if low == high else f"{low}–{high}" for low, high in ends.to_numpy()]
        return codes, names, of_groups.median().tolist() if len(names) > 1 else None
    texts = values if is_number else values.map(str)
    different = sorted(texts[values.notna()].unique())
    codes = texts.map({value: at for at, value in enumerate(different)}).where(values.notna(), -1).astype(int)
    names = [f"{value:.4g}" if isinstance(value, float) else str(value) for value in different]
    return codes, names, [float(value) for value in different] if is_number else None


# figures


def settings(effects: Effects, colours: dict[str, str]) -> Figure | None:
    """Mean accuracy at each value of each setting, a line a model; None where nothing but the model varies."""
    panels = effects.effects
    if not panels:
        return None
    rows, width = in_rows(panels)
    labels = effects.labels if effects.by_model else []
    letters = [max(len(shortened(level, 20)) for level in panel.levels) for panel in panels]
    fitting = {1: 60, 2: 36, 3: 30}[len(rows[0])]  # letters that a panel has room for side by side
    crowded = [
        panel.key
        for panel, most in zip(panels, letters, strict=True)
        if panel.numbers is None and most * len(panel.levels) > fitting
    ]
    upright = {panel.key: 0.075 * most for panel, most in zip(panels, letters, strict=True) if panel.key in crowded}
    *_, last = belows = [0.42 + max(upright.get(panel.key, 0.0) for panel in row) for row in rows]
    title = f"{effects.measure[:1].upper()}{effects.measure[1:]} by setting"
    caption = " ".join(_caption(effects))
    footer = 0.35 * bool(labels) + 0.22 * (len(labels) > 4)
    footer += last - max(belows)  # the legend stands right under the last row
    figure, grid = page(title, caption, (width, 2.4), (len(rows), len(rows[0])), max(belows), footer)
    figure.subplots_adjust(wspace=0.12)
    limits = _limits(effects)
    for row, row_axes in zip(rows, grid, strict=True):
        for panel, axes in zip(row, row_axes, strict=False):
            _draw_panel(axes, panel, colours if effects.by_model else None, effects.labels, limits)
            _set_axis(axes, panel, fitting)
            axes.tick_params(axis="x", rotation=90 if panel.key in crowded else 0)
            axes.set_ylim(*limits)
            axes.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
            axes.yaxis.set_tick_params(labelleft=panel is row[0])
        row_axes[0].set_ylabel(f"{effects.measure} (%)")
        for axes in row_axes[len(row) :]:
            axes.remove()
    if labels:
        handles = [Line2D([], [], color=colours[label], marker="o", label=shortened(label, 20)) for label in labels]
        legend_below(grid[-1, 0], handles, (last - 0.1) / 2.4, ncols=4)
    return figure


def _cells(panel: Effect, label: str | None) -> pd.DataFrame:
    """Mean and interval of the runs at each level, of a model or of all."""
    runs = panel.runs if label is None else panel.runs[panel.runs["label"] == label]
    return intervals(runs.groupby("level")["adjusted" if label is None else "accuracy"], most=100.0)


def _limits(effects: Effects) -> tuple[float, float]:
    """Every mean, and intervals as far as the means stay apart: one of two runs can be as wide as the page."""
    of_models = effects.labels if effects.by_model else [None]
    cells = pd.concat([_cells(panel, label) for panel in effects.effects for label in of_models])
    low, high = float(cells["mean"].min()), float(cells["mean"].max())
    reach = max(0.5 * (high - low), 0.5)
    bottom = max(low - reach, float(np.nanmin(cells[["mean", "low"]])))
    top = min(high + reach, float(np.nanmax(cells[["mean", "high"]])))
    margin = max(0.06 * (top - bottom), 0.25)
    return bottom - margin, top + margin


def _draw_panel(
    axes: Axes, panel: Effect, colours: dict[str, str] | None, labels: list[str], limits: tuple[float, float]
) -> None:
    of_models: Sequence[str | None] = labels if colours else [None]
    for at, label in enumerate(of_models):
        cells = _cells(panel, label)
        x = _places(panel, cells.index.to_numpy(dtype=int), (at + 0.5) / len(of_models) - 0.5)
        colour = colours[label] if colours and label is not None else GREY
        axes.plot(x, cells["mean"], color=colour, lw=1.2, alpha=0 if panel.numbers is None else 0.6, zorder=2)
        known = cells["low"].notna().to_numpy()
        axes.vlines(x[known], cells["low"][known], cells["high"][known], color=colour, lw=1.8, zorder=3)
        for is_beyond, end, marker in ((cells["low"] < limits[0], 0, "v"), (cells["high"] > limits[1], 1, "^")):
            arrows = x[is_beyond.to_numpy()]
            if len(arrows):
                axes.plot(arrows, [limits[end]] * len(arrows), marker, color=colour, ms=6, mew=0, clip_on=False)
        axes.plot(x, cells["mean"], "o", color=colour, ms=5.5, mec="white", mew=0.6, zorder=4)
    axes.set_title(shortened(panel.key, 30))


def _places(panel: Effect, levels: NDArray[np.int_], aside: float) -> NDArray[Any]:
    """Where these levels are on the x axis, those that several models share a little `aside` (-0.5 to 0.5)."""
    if panel.numbers is None:
        return levels + 0.5 * aside
    is_shared = panel.runs.groupby("level")["label"].nunique().max() > 1
    low, *_, high = panel.numbers
    offset, numbers = 0.06 * aside * is_shared, np.array(panel.numbers)[levels]
    return np.asarray(numbers * (high / low) ** offset if panel.is_log else numbers + (high - low) * offset)


def _set_axis(axes: Axes, panel: Effect, fitting: int) -> None:
    """An axis of numbers, with a tick at each value where all names fit; other values side by side."""
    names = [shortened(name, 20) for name in panel.levels]
    if panel.numbers is None:
        axes.set_xticks(range(len(names)), names, fontsize=9.5)
        axes.set_xlim(-0.6, len(names) - 0.4)
        return
    set_scale(axes, "x", panel.numbers[0], panel.numbers[-1], panel.is_log, most_powers=4)
    axes.tick_params(axis="x", labelsize=9.5)
    places = np.log(panel.numbers) if panel.is_log else np.array(panel.numbers)
    if np.diff(places).min() / np.ptp(places) * fitting > max(map(len, names)):
        axes.set_xticks(panel.numbers, names)


def _caption(effects: Effects) -> list[str]:
    of_data = f" of {shortened(effects.data)}" if effects.num_data_sets > 1 else ""
    bars = "" if effects.point == "one run" else "; bars: 95 % intervals, none for one run, an arrow where one goes on"
    sentences = [f"Each point is {effects.point}{of_data}, whatever the other settings{bars}."]
    if not effects.by_model:
        sentences.append(f"Differences between the {len(effects.labels)} models are taken out.")
    if effects.left_out:
        sentences.append(f"Not shown: {count(len(effects.left_out), 'more setting')}.")
    return sentences


# learning rate and batch size


@dataclass(frozen=True)
class Interaction:
    rates: list[str]
    batch_sizes: list[str]
    means: np.ndarray[Any, Any]
    """Mean accuracy in percent, adjusted for the model, of rates x batch sizes; NaN where there is no run."""
    num_runs: np.ndarray[Any, Any]


def interaction(effects: Effects) -> Interaction | None:
    """Learning rate by batch size; None where either has one value only."""
    of_key = {effect.key: effect for effect in effects.effects}
    if not {"lr", "batch_size"} <= of_key.keys():
        return None
    rate, size = of_key["lr"], of_key["batch_size"]
    cells = effects.runs["adjusted"].groupby([rate.runs["level"], size.runs["level"]]).agg(["mean", "size"])
    shape = len(rate.levels), len(size.levels)
    means, num_runs = np.full(shape, math.nan), np.zeros(shape, int)
    for (row, column), mean, number in cells.itertuples():
        means[int(row), int(column)], num_runs[int(row), int(column)] = mean, number
    return Interaction(rate.levels, size.levels, means, num_runs)


def rate_by_batch_size(effects: Effects, cells: Interaction) -> Figure:
    """A heat map with the accuracy and the number of runs in each cell."""
    height = max(2.2, 0.5 * len(cells.rates))
    caption = f"Mean {effects.measure} (%) and number of complete runs, whatever their other settings."
    caption += " Differences between models are taken out." if len(effects.labels) > 1 else ""
    figure, grid = page("Learning rate by batch size", caption, (6.4, height), (1, 1), 0.5)
    figure.subplots_adjust(left=(0.55 + 0.1 * max(map(len, cells.rates))) / 6.4)
    axes = grid[0, 0]
    axes.grid(False)
    low, high = np.nanmin(cells.means), np.nanmax(cells.means)
    axes.imshow(cells.means, cmap="cividis", vmin=low, vmax=max(high, low + 1e-9), aspect="auto", origin="lower")
    for (row, column), mean in np.ndenumerate(cells.means):
        text, look = "no run", {"color": GREY, "fontsize": 9}
        if np.isfinite(mean):
            red, green, blue, _ = colormaps["cividis"](float((mean - low) / max(high - low, 1e-9)))
            is_dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
            text = f"{mean:.1f}  ({cells.num_runs[row, column]})"
            look = {"color": "white" if is_dark else "black", "fontsize": 10}
        axes.text(column, row, text, ha="center", va="center", **look)
    axes.set_xticks(range(len(cells.batch_sizes)), cells.batch_sizes)
    axes.set_yticks(range(len(cells.rates)), cells.rates)
    axes.set(xlabel="batch size", ylabel="learning rate")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure
