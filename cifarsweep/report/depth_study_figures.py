"""The figures of a depth study: accuracy, gap, flatness, chosen settings, cost. Knows the study only."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray

from cifarsweep.report.depth_study import NUM_BEST, DepthStudy, Searched, interval
from cifarsweep.report.search_results import finite
from cifarsweep.report.statistics import degrees, t_quantile
from cifarsweep.report.style import GREY, OKABE_ITO, OUTLINE, page, span_of, thousands
from cifarsweep.terminal.formatting import shortened

STEM = "depth_study"
OFFSET = 0.13
"""Of neighbouring comparisons at one depth, so that their intervals do not cover each other."""
MARKERS = "osD^vP"
NUMBER = 0.15
"""Inches that a digit needs."""
COSTS = {
    "train_seconds": "training time (s)",
    "params": "parameters",
    "flops": "multiply-adds for an image",
}


def of_study(study: DepthStudy) -> Iterator[tuple[str, Callable[[], Figure | None]]]:
    yield f"{STEM}.png", partial(accuracy, study)
    yield f"{STEM}_gap.png", partial(gap, study)
    yield f"{STEM}_flatness.png", partial(flatness, study)
    yield f"{STEM}_settings.png", partial(settings, study)
    yield f"{STEM}_cost.png", partial(cost, study)


def _drawn(study: DepthStudy) -> dict[str, list[Searched]]:
    """The comparisons that have final runs at a known depth."""
    found = {
        name: [one for one in group if one.by_seed and one.about.get("depth") is not None]
        for name, group in study.comparisons.items()
    }
    return {name: group for name, group in found.items() if group}


def _depth(one: Searched) -> int:
    return int(one.about["depth"])


def _looks(study: DepthStudy) -> dict[str, tuple[str, str]]:
    """Colour and marker of each comparison, the same in each figure."""
    return {
        name: (OKABE_ITO[at % len(OKABE_ITO)], MARKERS[at % len(MARKERS)]) for at, name in enumerate(study.comparisons)
    }


def accuracy(study: DepthStudy) -> Figure | None:
    """Test accuracy against depth, a line a comparison; None where no final run is complete."""
    groups = _drawn(study)
    if not groups:
        return None
    num_runs = span_of([len(one.by_seed) for group in groups.values() for one in group], "seed")
    caption = (
        f"Means of {num_runs}; thick bars: 95 % intervals over the seeds of the chosen configuration (Student's t); "
        "thin bars: with the search's own error. Small points: single runs. Each depth was searched with "
        f"{study.budget}."
    )
    figure, axes = _figure(study, "Test accuracy against depth", caption, groups)
    for at, (name, group) in enumerate(groups.items()):
        colour, marker = _looks(study)[name]
        x = np.array([_depth(one) for one in group]) + _shift(at, len(groups))
        means = [100 * float(np.mean(list(one.by_seed.values()))) for one in group]
        axes.plot(x, means, color=colour, lw=1.2, alpha=0.6, zorder=2)
        for place, one, mean in zip(x, group, means, strict=True):
            _bars(axes, place, one, mean, colour)
            axes.plot(place, mean, marker, color=colour, ms=7, mec="white", mew=0.8, zorder=5)
    axes.set_ylabel("test accuracy (%)")
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, -2), min(high, 102))  # the bars of a small search may reach beyond what there is
    return figure


def _bars(axes: Axes, x: float, one: Searched, mean: float, colour: str) -> None:
    values = 100 * np.array(list(one.by_seed.values()))
    if len(values) < 2:
        return
    axes.scatter(np.full(len(values), x + 0.05), values, s=9, color=colour, alpha=0.6, lw=0, zorder=3)
    error = float(values.std(ddof=1)) / math.sqrt(len(values))
    half = t_quantile(degrees(len(values))) * error
    axes.plot([x, x], [mean - half, mean + half], color=colour, lw=3.5, alpha=0.8, zorder=4)
    if not math.isnan(one.search_error):
        half = t_quantile(degrees(len(values), one.search_error)) * math.hypot(error, 100 * one.search_error)
        axes.plot([x, x], [mean - half, mean + half], "_-", color=colour, lw=0.9, ms=6, zorder=3)


def gap(study: DepthStudy) -> Figure | None:
    """What the search promised less what the test gave, by depth."""
    groups = _drawn(study)
    if not groups:
        return None
    caption = (
        "Validation accuracy of the chosen trial, less the test accuracy of its final runs: mean and 95 % interval "
        "over seeds. Above 0, the search chose by luck, or validation images are easier."
    )
    if study.final_on == "train_val":
        caption += " The final runs had the validation images to train on, which lowers it."
    figure, axes = _figure(study, "Did the selection overfit?", caption, groups)
    axes.axhline(0, color=GREY, lw=1)
    for at, (name, group) in enumerate(groups.items()):
        colour, marker = _looks(study)[name]
        for one in group:
            x = _depth(one) + _shift(at, len(groups))
            mean, _, low, high = interval([100 * value for value in one.gaps()])
            if mean is None:
                continue
            if low is not None and high is not None:
                axes.plot([x, x], [low, high], "_-", color=colour, lw=2, ms=8, zorder=3)
            axes.plot(x, mean, marker, color=colour, ms=7, mec="white", mew=0.8, zorder=4)
    axes.set_ylabel("validation − test (points)")
    return figure


def flatness(study: DepthStudy) -> Figure | None:
    """The validation accuracies of each search's best five."""
    groups = {
        name: [one for one in group if one.best and one.about.get("depth") is not None]
        for name, group in study.comparisons.items()
    }
    groups = {name: group for name, group in groups.items() if group}
    if not groups:
        return None
    caption = (
        f"Validation accuracy of the best {NUM_BEST} complete trials of each search, joined by a line. Close together: "
        "several settings are as good, and what the search found is no luck."
    )
    figure, axes = _figure(study, "How flat is each depth's optimum?", caption, groups)
    for at, (name, group) in enumerate(groups.items()):
        colour, marker = _looks(study)[name]
        for one in group:
            x, values = _depth(one) + _shift(at, len(groups)), 100 * np.array(one.best)
            axes.plot([x, x], [values.min(), values.max()], color=colour, lw=1.5, alpha=0.5, zorder=2)
            axes.plot(np.full(len(values), x), values, marker, color=colour, ms=5, mew=0, alpha=0.8, zorder=3)
    axes.set_ylabel("validation accuracy (%)")
    return figure


def settings(study: DepthStudy) -> Figure | None:
    """The learning rate that each depth chose, by optimizer, and its batch size; a panel a comparison."""
    groups = {name: [one for one in group if one.chosen] for name, group in _drawn(study).items()}
    groups = {name: group for name, group in groups.items() if group}
    rates = [rate for group in groups.values() for one in group for rate in _rates(one)]
    if not rates:
        return None
    names = sorted({str(o) for group in groups.values() for one in group for o in _optimizers(one)})
    colours = dict(zip(names, OKABE_ITO, strict=False))
    has_batch_size = "batch_size" in study.settings
    caption = f"Large: the configuration that was chosen{', with its batch size' if has_batch_size else ''}. " + (
        f"Small: the others of the best {NUM_BEST} trials. Learning rates of different optimizers do not compare."
    )
    footer = 0.5 if names else 0.2
    figure, grid = page("What each depth chose", caption, (6.4, 2.0), (len(groups), 1), 0.45, footer)
    for (name, group), axes in zip(groups.items(), grid[:, 0], strict=True):
        axes.set_title(shortened(name, 60))
        for one in group:
            _draw_rates(axes, one, colours)
        _depth_axis(axes, groups)
        axes.set_yscale("log")
        axes.set_ylim(*_decade(rates))
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 3)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.set_ylabel("learning rate")
    if names:
        handles = [Line2D([], [], color=colours.get(n, GREY), marker="o", ls="", label=shortened(n, 20)) for n in names]
        anchor = (-0.02, -0.62 / 2.0)
        grid[-1, 0].legend(handles=handles, loc="upper left", bbox_to_anchor=anchor, ncols=3, fontsize=11)
    grid[-1, 0].set_xlabel("depth")
    return figure


def _good(one: Searched) -> list[Any]:
    """The best complete trials."""
    found = [trial for trial in one.trials if trial.state == "complete" and trial.values[0] is not None]
    return sorted(found, key=lambda trial: -(trial.values[0] or 0.0))[:NUM_BEST]


def _rates(one: Searched) -> list[float]:
    found = [finite(trial.params.get("optimizer.lr")) for trial in _good(one)]
    return [rate for rate in found if rate is not None and rate > 0]


def _decade(rates: list[float]) -> tuple[float, float]:
    """Limits with margins, a factor of ten apart or more, in which the axis has two numbers."""
    low, high = min(rates) / 1.5, max(rates) * 1.5
    more = math.sqrt(max(1.0, 10 * low / high))
    return low / more, high * more


def _optimizers(one: Searched) -> list[Any]:
    return [t.params["optimizer"] for t in [*_good(one), one.chosen] if t and "optimizer" in t.params]


def _draw_rates(axes: Axes, one: Searched, colours: dict[str, str]) -> None:
    for trial in _good(one):
        rate, is_chosen = finite(trial.params.get("optimizer.lr")), trial.number == one.finalist
        if rate is None:
            continue
        colour = colours.get(str(trial.params.get("optimizer")), GREY)
        x = _depth(one) + (0 if is_chosen else 0.12)
        axes.plot(x, rate, "o", color=colour, ms=9 if is_chosen else 4.5, mew=0, alpha=1 if is_chosen else 0.45)
        if is_chosen and "batch_size" in trial.params:
            place: Any = {"textcoords": "offset points", "xytext": (-8, 0), "ha": "right", "va": "center"}
            axes.annotate(str(trial.params["batch_size"]), (x, rate), fontsize=9.5, **place)


def cost(study: DepthStudy) -> Figure | None:
    """Test accuracy against seconds, parameters and multiply-adds, the depth beside each point."""
    groups = _drawn(study)
    if not groups:
        return None
    caption = (
        "Numbers are depths; means over seeds with their 95 % intervals. Seconds are wall clock, of runs that share "
        "the machine."
    )
    figure, grid = page(
        "Test accuracy against cost", caption, (6.4, 2.6), (len(COSTS), 1), 0.45, 0.3 * len(groups) + 0.2
    )
    for (key, label), axes in zip(COSTS.items(), grid[:, 0], strict=True):
        numbers: list[tuple[float, float, str, str]] = []
        for name, group in groups.items():
            colour, marker = _looks(study)[name]
            points = [(_cost(one, key), one) for one in group]
            known = [(x, one) for x, one in points if x is not None]
            means = [100 * float(np.mean(list(one.by_seed.values()))) for _, one in known]
            axes.plot([x for x, _ in known], means, color=colour, lw=1, alpha=0.35, zorder=1)
            for (x, one), mean in zip(known, means, strict=True):
                _, _, low, high = interval([100 * value for value in one.by_seed.values()])
                if low is not None and high is not None:
                    axes.plot([x, x], [low, high], color=colour, lw=1.5, zorder=2)
                axes.plot(x, mean, marker, color=colour, ms=6, mec="white", mew=0.6, zorder=3)
                numbers.append((x, mean, str(_depth(one)), colour))
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=9))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(
            FuncFormatter(lambda value, _: thousands(round(value)) if value >= 1 else f"{value:g}")
        )
        axes.set(xlabel=label, ylabel="test accuracy (%)")
        axes.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
        axes.margins(x=0.08, y=0.12)
        _write_beside(axes, numbers)
    _legend(grid[-1, 0], study, groups, below=0.55 / 2.6)
    return figure


def _write_beside(axes: Axes, numbers: list[tuple[float, float, str, str]]) -> None:
    """Texts right of their points (x, y, text, colour), those of points close to each other under each other."""
    if not numbers:
        return
    inches = (axes.transData - axes.figure.dpi_scale_trans).transform([(x, y) for x, y, _, _ in numbers])
    order = np.lexsort((inches[:, 1], inches[:, 0]))
    starts = np.flatnonzero(np.diff(inches[order, 0]) > NUMBER) + 1
    for column in np.split(order, starts):
        column = column[np.argsort(inches[column, 1], kind="stable")]
        right = inches[column, 0].max() + 0.08
        for at, height in zip(column, _spread(inches[column, 1], NUMBER), strict=True):
            x, y, text, colour = numbers[at]
            place: Any = {"textcoords": "offset points", "ha": "left", "va": "center_baseline"}
            offset = 72 * (np.array([right, height]) - inches[at])
            axes.annotate(text, (x, y), offset, color=colour, fontsize=10, path_effects=OUTLINE, zorder=5, **place)


def _spread(heights: NDArray[Any], least: float) -> NDArray[Any]:
    """Rising heights, moved up and down alike until they are `least` apart."""
    steps = least * np.arange(len(heights))
    rest = heights - steps
    return (np.maximum.accumulate(rest) + np.minimum.accumulate(rest[::-1])[::-1]) / 2 + steps


def _cost(one: Searched, key: str) -> float | None:
    if key == "train_seconds":
        found = [finite(run.result.get(key)) for run in one.runs]
        known = [value for value in found if value is not None]
        return float(np.mean(known)) if known else None
    value = finite(one.about.get(key))
    return value if value is None or key == "params" else value / 2


# what they have in common


def _figure(study: DepthStudy, title: str, caption: str, groups: dict[str, list[Searched]]) -> tuple[Figure, Axes]:
    """One panel over depth, with a legend of the comparisons below it."""
    figure, grid = page(title, caption, (6.4, 3.6), (1, 1), 0.5, 0.27 * len(groups) + 0.1)
    axes: Axes = grid[0, 0]
    _depth_axis(axes, groups)
    axes.set_xlabel("depth (number of convolution layers)")
    axes.yaxis.set_major_locator(MaxNLocator(nbins=8, steps=[1, 2, 5, 10]))
    _legend(axes, study, groups, below=0.55 / 3.6)
    return figure, axes


def _legend(axes: Axes, study: DepthStudy, groups: dict[str, list[Searched]], below: float) -> None:
    looks = _looks(study)
    handles = [
        Line2D([], [], color=looks[name][0], marker=looks[name][1], ls="", label=shortened(name, 60)) for name in groups
    ]
    axes.legend(handles=handles, loc="upper left", bbox_to_anchor=(-0.02, -below), fontsize=11)


def _depth_axis(axes: Axes, groups: dict[str, list[Searched]]) -> None:
    depths = sorted({_depth(one) for group in groups.values() for one in group})
    axes.set_xlim(depths[0] - 0.5, depths[-1] + 0.5)
    axes.set_xticks(depths)


def _shift(at: int, of: int) -> float:
    return OFFSET * (at - (of - 1) / 2)
