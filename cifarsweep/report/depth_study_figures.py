"""The figures of a depth study: accuracy, gap, flatness, chosen settings, cost. Knows the study only."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from cifarsweep.report.depth_study import NUM_BEST, DepthStudy, Searched
from cifarsweep.report.search_results import finite, known
from cifarsweep.report.statistics import mean_interval
from cifarsweep.report.style import GREY, OKABE_ITO, OUTLINE, draw_mean, legend_below, page, span, thousands
from cifarsweep.terminal.formatting import shortened

OFFSET = 0.13
"""Between neighbouring comparisons at one depth, so that their intervals do not cover each other."""
MARKERS = "osD^vP"
NUMBER = 0.15
"""Inches that a digit needs."""
COSTS: dict[str, Callable[[Searched], float | None]] = {
    "training time (s)": lambda searched: searched.mean_of("train_seconds"),
    "parameters": lambda searched: finite(searched.about.get("params")),
    "multiply-adds for an image": lambda searched: finite(searched.multiply_adds),
}


@dataclass(frozen=True)
class _Group:
    """The studies of a comparison that are drawn, and how: the same colour and marker in each figure."""

    name: str
    colour: str
    marker: str
    studies: list[Searched]
    offset: float
    """To the right of the depth."""


def _groups(study: DepthStudy, is_drawn: Callable[[Searched], object]) -> list[_Group]:
    """The comparisons that have studies to draw at a known depth."""
    looks = zip(study.comparisons.items(), cycle(OKABE_ITO), cycle(MARKERS), strict=False)
    drawn = [
        (name, colour, marker, studies)
        for (name, group), colour, marker in looks
        if (studies := [each for each in group if is_drawn(each) and each.about.get("depth") is not None])
    ]
    return [_Group(*look, OFFSET * (at - (len(drawn) - 1) / 2)) for at, look in enumerate(drawn)]


def _depth(searched: Searched) -> int:
    return int(searched.about["depth"])


def accuracy(study: DepthStudy, groups: list[_Group]) -> Figure:
    """Test accuracy against depth, a line a comparison."""
    drawn = [searched for group in groups for searched in group.studies]
    num_runs = span([len(searched.by_seed) for searched in drawn], "seed")
    searched_with = span([searched.num_epochs for searched in drawn], "epoch")
    caption = (
        f"Means of {num_runs}; thick bars: 95 % intervals over the seeds of the chosen configuration (Student's t); "
        "thin bars: with the search's own error. Small points: single runs. The trials of each "
        f"search trained {searched_with} in all."
    )
    figure, axes = _figure("Test accuracy against depth", caption, groups)
    for group in groups:
        places = [_depth(searched) + group.offset for searched in group.studies]
        means = [100 * searched.interval[0] for searched in group.studies]
        axes.plot(places, means, color=group.colour, lw=1.2, alpha=0.6, zorder=2)
        for x, searched, mean in zip(places, group.studies, means, strict=True):
            _bars(axes, x, searched, group.colour)
            axes.plot(x, mean, group.marker, color=group.colour, ms=7, mec="white", mew=0.8, zorder=6)
    axes.set_ylabel("test accuracy (%)")
    return figure


def _bars(axes: Axes, x: float, searched: Searched, colour: str) -> None:
    values = 100 * np.array(list(searched.by_seed.values()))
    if len(values) < 2:
        return
    axes.scatter(np.full(len(values), x), values, s=9, color="white", edgecolors=colour, lw=0.8, zorder=5)
    axes.plot([x, x], [100 * end for end in searched.interval[2:]], color=colour, lw=3.5, alpha=0.8, zorder=4)
    with_search = [100 * end for end in searched.interval_with_search]
    if not math.isnan(with_search[0]):
        axes.plot([x, x], with_search, "_-", color=colour, lw=0.9, ms=6, zorder=3)


def gap(study: DepthStudy, groups: list[_Group]) -> Figure:
    """What the search promised less what the test gave, by depth."""
    caption = (
        "Validation accuracy of the chosen trial, less the test accuracy of its final runs: mean and 95 % interval "
        "over seeds. Above 0, the search chose by luck, or validation images are easier."
    )
    if study.final_on == "train_val":
        caption += " The final runs had the validation images to train on, which lowers it."
    figure, axes = _figure("Did the selection overfit?", caption, groups)
    axes.axhline(0, color=GREY, lw=1)
    for group in groups:
        for searched in group.studies:
            x = _depth(searched) + group.offset
            mean, _, low, high = mean_interval([100 * value for value in searched.gaps()])
            draw_mean(axes, x, mean, (low, high), group.colour, group.marker, size=7)
    axes.set_ylabel("validation − test (points)")
    return figure


def flatness(study: DepthStudy, groups: list[_Group]) -> Figure:
    """The validation accuracies of each search's best five."""
    caption = (
        f"Validation accuracy of the best {NUM_BEST} complete trials of each search, or of all where it has fewer, "
        "joined by a line. Close together: several settings are as good, and what the search found is no luck."
    )
    figure, axes = _figure("How flat is each depth's optimum?", caption, groups)
    for group in groups:
        for searched in group.studies:
            values = 100 * np.array(searched.best)
            x = np.full(len(values), _depth(searched) + group.offset)
            axes.plot(x[:1].repeat(2), [values.min(), values.max()], color=group.colour, lw=1.5, alpha=0.5, zorder=2)
            axes.plot(x, values, group.marker, color=group.colour, ms=5, mew=0, alpha=0.8, zorder=3)
    axes.set_ylabel("validation accuracy (%)")
    return figure


def settings(study: DepthStudy, groups: list[_Group]) -> Figure | None:
    """The learning rate that each depth chose, by optimizer, and its batch size; a panel a comparison."""
    best = [trial for group in groups for searched in group.studies for _, trial in searched.ranked[:NUM_BEST]]
    rates = [rate for rate in known(trial.params.get("optimizer.lr") for trial in best) if rate > 0]
    if not rates:
        return None
    finalists = [searched.chosen for group in groups for searched in group.studies if searched.chosen]
    names = sorted({str(trial.params["optimizer"]) for trial in [*best, *finalists] if "optimizer" in trial.params})
    colours = dict(zip(names, OKABE_ITO, strict=False))
    has_batch_size = "batch_size" in study.settings
    caption = f"Large: the configuration that was chosen{', with its batch size' if has_batch_size else ''}. " + (
        f"Small: the others of the best {NUM_BEST} trials. Learning rates of different optimizers do not compare."
    )
    low, high = min(rates) / 1.5, max(rates) * 1.5
    more = math.sqrt(max(1.0, 10 * low / high))  # over a factor of ten the axis has two numbers at least
    figure, grid = page("What each depth chose", caption, (6.4, 2.0), (len(groups), 1), 0.45, 0.5 if names else 0.2)
    for group, axes in zip(groups, grid[:, 0], strict=True):
        axes.set_title(shortened(group.name, 60))
        for searched in group.studies:
            _draw_rates(axes, searched, colours)
        _set_depth_axis(axes, groups)
        axes.set_yscale("log")
        axes.set_ylim(low / more, high * more)
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 3)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.set_ylabel("learning rate")
    if names:
        handles = [Line2D([], [], color=colours.get(n, GREY), marker="o", ls="", label=shortened(n, 20)) for n in names]
        legend_below(grid[-1, 0], handles, 0.62 / 2.0, ncols=3)
    grid[-1, 0].set_xlabel("depth")
    return figure


def _draw_rates(axes: Axes, searched: Searched, colours: dict[str, str]) -> None:
    for _, trial in searched.ranked[:NUM_BEST]:
        rate, is_chosen = finite(trial.params.get("optimizer.lr")), trial.number == searched.finalist
        if rate is None:
            continue
        colour = colours.get(str(trial.params.get("optimizer")), GREY)
        x = _depth(searched) + (0 if is_chosen else 0.12)
        axes.plot(x, rate, "o", color=colour, ms=9 if is_chosen else 4.5, mew=0, alpha=1 if is_chosen else 0.45)
        if is_chosen and "batch_size" in trial.params:
            place: Any = {"textcoords": "offset points", "xytext": (-8, 0), "ha": "right", "va": "center"}
            axes.annotate(str(trial.params["batch_size"]), (x, rate), fontsize=9.5, **place)


def cost(study: DepthStudy, groups: list[_Group]) -> Figure:
    """Test accuracy against seconds, parameters and multiply-adds, the depth beside each point."""
    caption = "Numbers are depths, black where comparisons share the runs; means over seeds with their 95 % intervals. "
    caption += "Seconds are wall clock, of runs that share the machine."
    footer = 0.3 * len(groups) + 0.2
    figure, grid = page("Test accuracy against cost", caption, (6.4, 2.6), (len(COSTS), 1), 0.45, footer)
    for (label, cost_of), axes in zip(COSTS.items(), grid[:, 0], strict=True):
        numbers: dict[tuple[float, float, str], str] = {}
        for group in groups:
            points = [(x, searched) for searched in group.studies if (x := cost_of(searched)) is not None]
            means = [100 * searched.interval[0] for _, searched in points]
            axes.plot([x for x, _ in points], means, color=group.colour, lw=1, alpha=0.35, zorder=1)
            for x, searched in points:
                mean, _, low, high = (100 * value for value in searched.interval)
                if not math.isnan(low):
                    axes.plot([x, x], [low, high], color=group.colour, lw=1.5, zorder=2)
                axes.plot(x, mean, group.marker, color=group.colour, ms=6, mec="white", mew=0.6, zorder=3)
                at = (x, mean, str(_depth(searched)))
                numbers[at] = "black" if at in numbers else group.colour  # the same runs in several comparisons
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=9))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(
            FuncFormatter(lambda value, _: thousands(round(value)) if value >= 1 else f"{value:g}")
        )
        axes.set(xlabel=label, ylabel="test accuracy (%)")
        axes.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
        axes.margins(x=0.08, y=0.12)
        _write_beside(axes, [(*at, colour) for at, colour in numbers.items()])
    legend_below(grid[-1, 0], _keys(groups), 0.55 / 2.6)
    return figure


def _write_beside(axes: Axes, numbers: list[tuple[float, float, str, str]]) -> None:
    """Writes texts right of their points (x, y, text, colour), or joined to them by a line where points are close."""
    if not numbers:
        return
    inches = (axes.transData - axes.figure.dpi_scale_trans).transform([(x, y) for x, y, _, _ in numbers])
    order = np.lexsort((inches[:, 1], inches[:, 0]))
    starts = np.flatnonzero(np.diff(inches[order, 0]) > 2 * NUMBER) + 1
    for column in np.split(order, starts):
        column = column[np.argsort(inches[column, 1], kind="stable")]
        right = inches[column, 0].max() + 0.2
        # Rising heights are moved up and down alike until they are so far apart.
        steps = NUMBER * np.arange(len(column))
        rest = inches[column, 1] - steps
        spread = (np.maximum.accumulate(rest) + np.minimum.accumulate(rest[::-1])[::-1]) / 2 + steps
        for at, height in zip(column, spread, strict=True):
            x, y, text, colour = numbers[at]
            place: Any = {"textcoords": "offset points", "ha": "left", "va": "center_baseline"}
            aside, above = 0.08, float(height - inches[at, 1])
            if abs(above) > 0.01:
                aside = float(right - inches[at, 0])
                place["arrowprops"] = {"arrowstyle": "-", "color": colour, "lw": 0.5, "shrinkA": 0, "shrinkB": 3}
            offset = (72 * aside, 72 * above)
            axes.annotate(text, (x, y), offset, color=colour, fontsize=10, path_effects=OUTLINE, zorder=5, **place)


FIGURES: dict[str, tuple[Callable[[Searched], object], Callable[[DepthStudy, list[_Group]], Figure | None]]] = {
    "depth_study": (lambda searched: searched.by_seed, accuracy),
    "depth_study_gap": (lambda searched: searched.by_seed, gap),
    "depth_study_flatness": (lambda searched: searched.best, flatness),
    "depth_study_settings": (lambda searched: searched.by_seed and searched.chosen, settings),
    "depth_study_cost": (lambda searched: searched.by_seed, cost),
}
"""By the names of their files: which studies each shows, and how it is drawn."""


def draw(name: str, study: DepthStudy) -> Figure | None:
    """The figure of this name; None where no study has what it shows."""
    is_drawn, draw_groups = FIGURES[name]
    groups = _groups(study, is_drawn)
    return draw_groups(study, groups) if groups else None


# what they have in common


def _figure(title: str, caption: str, groups: list[_Group]) -> tuple[Figure, Axes]:
    """One panel over depth, with a legend of the comparisons below it."""
    figure, grid = page(title, caption, (6.4, 3.6), (1, 1), 0.5, 0.27 * len(groups) + 0.1)
    axes: Axes = grid[0, 0]
    _set_depth_axis(axes, groups)
    axes.set_xlabel("depth (number of convolution layers)")
    axes.yaxis.set_major_locator(MaxNLocator(nbins=8, steps=[1, 2, 5, 10]))
    legend_below(axes, _keys(groups), 0.55 / 3.6)
    return figure, axes


def _keys(groups: list[_Group]) -> list[Line2D]:
    return [Line2D([], [], color=g.colour, marker=g.marker, ls="", label=shortened(g.name, 60)) for g in groups]


def _set_depth_axis(axes: Axes, groups: list[_Group]) -> None:
    depths = sorted({_depth(searched) for group in groups for searched in group.studies})
    axes.set_xlim(depths[0] - 0.5, depths[-1] + 0.5)
    axes.set_xticks(depths)
