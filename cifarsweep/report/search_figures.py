"""How a search went: its history, what mattered, where the good values are, the Pareto set. Knows the study only."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize, to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.textpath import TextPath
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from cifarsweep.report.search_results import Study, Trial, known
from cifarsweep.report.style import (
    GREY,
    LEFT,
    MARGIN,
    OKABE_ITO,
    OUTLINE,
    in_rows,
    page,
    set_scale,
    spans_factors,
    thousands,
)
from cifarsweep.results.study_records import EARLY, STATES
from cifarsweep.terminal.domains import as_typed
from cifarsweep.terminal.formatting import count, shortened

BLUE, ORANGE = OKABE_ITO[0], OKABE_ITO[1]
COSTS = ("params", "flops", "train_seconds")
"""Objectives that differ by factors from model to model: on a logarithmic axis, in three digits."""
NOUNS = {"params": "parameters", "flops": "FLOPs", "train_seconds": "training time"}

MOST_BARS = 15
MOST_CATEGORIES = 10
TRIAL_COLOURS = ListedColormap(colormaps["viridis"](np.linspace(0, 0.9, 256)))  # its yellow is too pale on white


# an objective


class _Objective:
    """What trials reached in one objective, as it is drawn: accuracies in percent."""

    def __init__(self, study: Study, index: int) -> None:
        self.name = study.objectives[index]
        self.maximised = study.directions[index] == "maximize"
        self.is_accuracy = self.name.endswith("accuracy")
        factor = 100 if self.is_accuracy else 1
        shown = (trial for trial in study.trials if trial.state in ("complete", *EARLY))
        values = {trial.number: trial.values[index] for trial in shown}
        self.value_of = {number: factor * value for number, value in values.items() if value is not None}
        self.complete = [t for t in study.trials if t.state == "complete" and t.number in self.value_of]
        self.early = [t for t in study.trials if t.state in EARLY and t.number in self.value_of]
        self.log = self.name in COSTS and spans_factors(self.value_of.values())
        self.low, self.high = self._limits()

    @property
    def noun(self) -> str:
        return shortened(NOUNS.get(self.name, self.name.replace("val_", "validation ").replace("_", " ")))

    @property
    def label(self) -> str:
        return self.noun + (" (%)" if self.is_accuracy else " (s)" if self.name.endswith("seconds") else "")

    def values(self, trials: Iterable[Trial]) -> NDArray[Any]:
        return np.array([self.value_of[trial.number] for trial in trials])

    def text(self, value: float) -> str:
        if self.name in COSTS:
            return thousands(round(value)) if value >= 1000 else f"{value:.3g}"
        return f"{value:.2f}" if self.is_accuracy else f"{value:.4g}"

    def is_beyond(self, values: NDArray[Any]) -> NDArray[Any]:
        return values < self.low if self.maximised else values > self.high

    def set_axis(self, axes: Axes, which: str, headroom: float = MARGIN) -> None:
        """Scale, limits, ticks and label; `headroom`, a part of the axis, is free beyond the best."""
        margins = (MARGIN, headroom) if self.maximised else (headroom, MARGIN)
        axis = set_scale(axes, which, self.low, self.high, self.log, margins)
        axis.set_label_text(self.label)
        if self.name in COSTS:
            axis.set_major_formatter(FuncFormatter(lambda value, _: self.text(value)))

    def _limits(self) -> tuple[float, float]:
        """Shows the better values whole, the worse without outliers: one bad trial would flatten all the rest.

        Beyond one and a half times the distance of the quartiles is an outlier by Tukey's rule.
        """
        values = np.array(list(self.value_of.values()) or [0.0])
        if self.log:
            return float(values.min()), float(values.max())
        first, third = np.percentile(values, [25, 75])
        reach = 1.5 * (third - first) or math.inf
        kept = values[values >= first - reach] if self.maximised else values[values <= third + reach]
        return float(kept.min()), float(kept.max())


def _inches(text: str, points: float) -> float:
    return float(TextPath((0, 0), text or " ", size=points).get_extents().width) / 72


def _draw_trials(
    axes: Axes, x: NDArray[Any], trials: list[Trial], objective: _Objective, colours: Any, hollow: bool = False
) -> None:
    """A circle a trial, hollow or filled; a triangle on the axis for one whose value is beyond it."""
    values = objective.values(trials)
    beyond = objective.is_beyond(values)
    edge = axes.get_ylim()[0 if objective.maximised else 1]
    size = 30 if len(objective.value_of) <= 100 else 16
    for marker, here, y in (("o", ~beyond, values), ("v" if objective.maximised else "^", beyond, values * 0 + edge)):
        colour = np.broadcast_to(colours, (len(trials), 4))[here]
        look: Any = {"facecolors": "none" if hollow else colour, "edgecolors": colour if hollow else "white"}
        axes.scatter(
            x[here], y[here], size, marker=marker, lw=1.1 if hollow else 0.4, clip_on=marker == "o", zorder=3, **look
        )


def _beyond(objectives: Iterable[_Objective]) -> list[str]:
    """What a caption says of trials that are drawn as triangles."""
    number = sum(int(each.is_beyond(np.array(list(each.value_of.values()))).sum()) for each in objectives)
    if not number:
        return []
    return [f"Triangles: {count(number, 'value')} beyond the axis, so that the others can be told apart."]


# history


def optimization_history(study: Study) -> Figure | None:
    """Values by trial number with the best so far, a panel an objective; None where no trial has ended."""
    objectives = [_Objective(study, index) for index in range(len(study.objectives))]
    failed = [trial.number for trial in study.trials if trial.state == "failed"]
    if not failed and not any(objective.value_of for objective in objectives):
        return None
    counts = Counter(trial.state for trial in study.trials)
    parts = ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])
    early = _early_noun(study.trials)
    at = f" A {early} trial is at the last value that it reported." if early else ""
    caption = " ".join([f"{count(len(study.trials), 'trial')}: {parts}.{at}", *_beyond(objectives)])
    figure, grid = page("Optimization history", caption, (6.4, 3.0), (len(objectives), 1), 0.3, 0.55)
    for objective, axes in zip(objectives, grid[:, 0], strict=True):
        objective.set_axis(axes, "y", headroom=0.2 if objective.maximised else 0.3)  # crosses are at the bottom
        _draw_history(axes, objective, study.last)
        axes.plot(failed, [0.03] * len(failed), "x", color=GREY, ms=6, transform=axes.get_xaxis_transform())
        axes.set_xlim(-max(0.6, 0.02 * study.last), study.last + max(0.6, 0.02 * study.last))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, nbins=9, steps=[1, 2, 5, 10]))
    entries: list[tuple[bool, dict[str, Any]]] = [
        (any(o.complete for o in objectives), {"color": BLUE, "marker": "o", "ls": "", "label": "complete"}),
        (any(o.complete for o in objectives), {"color": "black", "lw": 1.5, "label": "best so far"}),
        (any(o.early for o in objectives), {"mec": ORANGE, "marker": "o", "ls": "", "mfc": "none", "label": early}),
        (bool(failed), {"color": GREY, "marker": "x", "ls": "", "label": "failed"}),
    ]
    handles = [Line2D([], [], **look) for is_there, look in entries if is_there]
    axes = grid[-1, 0]
    axes.set_xlabel("trial")
    anchor = (-0.03, -0.5 / (axes.get_position().height * figure.get_figheight()))
    axes.legend(handles=handles, loc="upper left", bbox_to_anchor=anchor, ncols=4, fontsize=11, columnspacing=1.5)
    return figure


def _early_noun(trials: Sequence[Trial]) -> str:
    """What those are called that were stopped early: pruned, paused, or both; empty where there are none."""
    return " or ".join(state for state in EARLY if any(trial.state == state for trial in trials))


def _draw_history(axes: Axes, objective: _Objective, last: int) -> None:
    if not objective.value_of:
        axes.set_yticks([])
    for trials, colour, hollow in ((objective.complete, BLUE, False), (objective.early, ORANGE, True)):
        x = np.array([trial.number for trial in trials])
        _draw_trials(axes, x, trials, objective, to_rgba(colour), hollow)
    if not objective.complete:
        return
    is_up = objective.maximised
    best = (max if is_up else min)(objective.complete, key=lambda trial: objective.value_of[trial.number])
    reached = (np.maximum if is_up else np.minimum).accumulate(objective.values(objective.complete))
    numbers = [trial.number for trial in objective.complete]
    axes.step([*numbers, last], [*reached, reached[-1]], where="post", color="black", lw=1.5, zorder=2)
    value = objective.value_of[best.number]
    axes.plot(best.number, value, "o", ms=10, mfc="none", mec="black", mew=1.3, zorder=4)
    place: Any = {"xytext": (0, 9 if is_up else -9), "va": "bottom" if is_up else "top", "textcoords": "offset points"}
    place["ha"] = "left" if best.number < last / 2 else "right"
    text = f"trial {best.number}: {objective.text(value)}"
    axes.annotate(text, (best.number, value), path_effects=OUTLINE, zorder=5, **place)


# importance


def parameter_importance(study: Study) -> Figure | None:
    """A bar a searched key that matters by more than chance, with its interval; None where none is known to."""
    ranked = sorted(study.importances.items(), key=lambda item: -item[1])
    if not ranked:
        return None
    shown = ranked[:MOST_BARS][::-1]
    caption = f"Estimated from {count(study.num_reported, 'trial')}"
    caption += "; lines: intervals of 90 %." if study.importance_intervals else "."
    if len(ranked) > MOST_BARS:
        caption += f" Not shown: {count(len(ranked) - MOST_BARS, 'less important key')}."
    figure, grid = page("Parameter importance", caption, (6.4, 0.35 + 0.33 * len(shown)), (1, 1), 0.5)
    names, values = [shortened(key, 28) for key, _ in shown], [value for _, value in shown]
    figure.subplots_adjust(left=max(LEFT, 0.3 + max(_inches(name, 11) for name in names)) / 6.4)
    axes = grid[0, 0]
    axes.barh(range(len(shown)), values, 0.62, color=BLUE)
    ends = [study.importance_intervals.get(key) or (value, value) for key, value in shown]
    beyond = [max(0.0, high - value) for (_, high), value in zip(ends, values, strict=True)]
    within = [max(0.0, value - low) for (low, _), value in zip(ends, values, strict=True)]
    if study.importance_intervals:
        axes.errorbar(values, range(len(shown)), xerr=[within, beyond], fmt="none", ecolor="black", elinewidth=1.2)
    for at, (value, after) in enumerate(zip(values, beyond, strict=True)):
        place: Any = {"xytext": (4, 0), "textcoords": "offset points", "va": "center"}
        axes.annotate(f"{value:.2f}", (value + after, at), fontsize=11, **place)
    axes.set_yticks(range(len(names)), names, fontsize=11)
    axes.tick_params(axis="y", length=0)
    axes.grid(False)
    axes.set(xlim=(0, 1.12 * max(*map(sum, zip(values, beyond, strict=True)), 1e-6)), ylim=(-0.6, len(shown) - 0.4))
    axes.set_xlabel(f"relative importance for {_Objective(study, 0).noun}")
    return figure


# slices


def slices(study: Study) -> Figure | None:
    """The first objective against each searched key; None where no trial has a value."""
    objective = _Objective(study, 0)
    panels = [panel for panel in (_Slice(study, key, objective) for key in study.params) if panel.trials]
    if not panels:
        return None
    rows, width = in_rows(panels)
    caption = " ".join([*_slices_caption(objective, panels), *_beyond([objective])])
    title = f"{objective.noun[:1].upper()}{objective.noun[1:]} by parameter"
    # Each row has what the names under it take.
    panel_height, below = 2.3, [max(panel.inches_below for panel in row) for row in rows]
    shape = (len(rows), len(rows[0]))
    figure, grid = page(title, caption, (width, panel_height), shape, sum(below) / len(rows))
    figure.subplots_adjust(right=1 - 1.0 / width, wspace=0.17)  # on the right is the colour bar
    bottom = float(grid[0, 0].get_position().y0)
    for row, row_axes, under in zip(rows, grid, below, strict=True):
        for axes in row_axes:
            box = axes.get_position()
            axes.set_position((box.x0, bottom, box.width, box.height))
        bottom -= (under + 0.35 + panel_height) / figure.get_figheight()
        for panel, axes in zip(row, row_axes, strict=False):
            objective.set_axis(axes, "y")
            panel.draw(axes, study.last)
            axes.set_ylabel("" if panel is not row[0] else objective.label)
            axes.yaxis.set_tick_params(labelleft=panel is row[0], length=3.5 if panel is row[0] else 0)
        for axes in row_axes[len(row) :]:
            axes.remove()
    box = grid[0, -1].get_position()
    bar = figure.add_axes((1 - 0.8 / width, box.y0, 0.13 / width, box.height))
    figure.colorbar(ScalarMappable(Normalize(0, max(study.last, 1)), TRIAL_COLOURS), bar)
    bar.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=6, steps=[1, 2, 5, 10]))
    bar.tick_params(labelsize=10)
    bar.set_ylabel("trial", fontsize=11)
    return figure


class _Slice:
    """One searched key: the trials that have it, and where on its axis they are."""

    def __init__(self, study: Study, key: str, objective: _Objective) -> None:
        self.key, self.objective = key, objective
        self.trials = [trial for trial in [*objective.early, *objective.complete] if key in trial.params]
        values = [trial.params[key] for trial in self.trials]
        self.numbers = known(values)
        only_numbers = len(self.numbers) == len(values)
        num_different = len(set(self.numbers))  # few are drawn as choices: 64, 128, 256 at equal distance
        are_few = key not in study.log and num_different <= min(MOST_CATEGORIES, len(values) / 2)
        self.is_choice = not only_numbers or num_different == 1 or are_few
        self.log = key in study.log and spans_factors(self.numbers)
        texts = [f"{value:.4g}" if isinstance(value, float) else as_typed(value) for value in values]
        self.names = _names(texts, self.numbers if only_numbers else None) if self.is_choice else []
        self.choices = [text if text in self.names else self.names[-1] for text in texts] if self.is_choice else []
        self.short_names = [shortened(name, 16) for name in self.names]
        widths = [_inches(name, 9.5) for name in self.short_names]
        distance = 2.3 / (len(widths) + 0.2)  # 2.3 inches: the narrowest panel
        self.is_crowded = any((width + after) / 2 + 0.07 > distance for width, after in pairwise(widths))
        self.inches_below = 0.55 + (max(widths) - 0.1 if self.is_crowded else 0.0)

    def draw(self, axes: Axes, last: int) -> None:
        axes.set_xlabel(shortened(self.key, 26), fontsize=11)
        x = np.array(self.numbers)
        if self.is_choice:
            rotation = 90 if self.is_crowded else 0
            axes.set_xticks(range(len(self.names)), self.short_names, rotation=rotation, fontsize=9.5)
            axes.set_xlim(-0.6, len(self.names) - 0.4)
            seen: Counter[str] = Counter()
            x = np.zeros(len(self.choices))
            for at, choice in enumerate(self.choices):  # spread sideways by the golden ratio: even, the same each time
                x[at] = self.names.index(choice) + 0.45 * ((seen[choice] * 0.618034 + 0.5) % 1 - 0.5)
                seen[choice] += 1
        else:
            width = axes.get_position().width * axes.figure.get_figwidth()  # type: ignore[union-attr]
            set_scale(axes, "x", x.min(), x.max(), self.log, most_powers=4 if width < 4 else 6)
            axes.tick_params(axis="x", labelsize=10)
        colours = TRIAL_COLOURS([trial.number / max(last, 1) for trial in self.trials])
        num_early = sum(trial.state in EARLY for trial in self.trials)
        for part, hollow in ((slice(num_early), True), (slice(num_early, None), False)):
            _draw_trials(axes, x[part], self.trials[part], self.objective, colours[part], hollow)


def _names(texts: list[str], numbers: list[float] | None) -> list[str]:
    """The choices that were tried, numbers in their order; the rarest as one where there are many."""
    order = dict(zip(texts, numbers, strict=True)) if numbers else {}
    tried = Counter(texts)
    kept = [text for text, _ in tried.most_common(MOST_CATEGORIES)]
    names = sorted(kept, key=lambda text: (order.get(text, 0.0), text))
    return [*names, count(len(tried) - len(kept), "other")] if len(tried) > len(kept) else names


def _slices_caption(objective: _Objective, panels: list[_Slice]) -> list[str]:
    sentences = []
    if objective.early:
        sentences.append(f"Hollow: {_early_noun(objective.early)} trials, at the last value that they reported.")
    if any(panel.is_choice and len(panel.trials) > len(panel.names) for panel in panels):
        sentences.append("Trials of one choice are spread sideways.")
    if len({len(panel.trials) for panel in panels}) > 1:
        sentences.append("A panel shows the trials that had its parameter.")
    return sentences


# Pareto set


def pareto(study: Study) -> Figure | None:
    """The first two objectives of the complete trials, the Pareto set joined; None where none is complete."""
    first, second = _Objective(study, 0), _Objective(study, 1)
    x, y = (first, second) if first.name in COSTS and second.name not in COSTS else (second, first)
    trials = [trial for trial in y.complete if trial in x.complete]
    if not trials:
        return None
    best = [trial for trial in trials if trial.number in study.best]
    others = [trial for trial in trials if trial not in best]
    has_more = len(study.objectives) > 2
    title = "Pareto set" + (f" in the first two of {len(study.objectives)} objectives" if has_more else "")
    numbered = "those that are best in these two numbered" if has_more else "numbered"
    which = f"Blue: the Pareto set, {numbered} where there is room."
    caption = " ".join([f"{count(len(trials), 'complete trial')}. {which}", *_beyond([y])])
    figure, grid = page(title, caption, (6.4, 3.8), (1, 1), 0.5)
    axes = grid[0, 0]
    axes.grid(axis="x")
    x.low, x.high = float(x.values(trials).min()), float(x.values(trials).max())  # nothing is beyond this axis
    x.log = x.name in COSTS and spans_factors((x.low, x.high))
    x.set_axis(axes, "x")
    y.set_axis(axes, "y", headroom=0.12)
    _draw_trials(axes, x.values(others), others, y, to_rgba("#999999"))
    _draw_front(axes, best, x, y)
    return figure


def _draw_front(axes: Axes, best: list[Trial], x: _Objective, y: _Objective) -> None:
    """The Pareto set with the border of what was reached, numbered where a number touches none before it."""
    border = _undominated(best, x, y)
    axes.step(x.values(border), y.values(border), where="pre" if x.maximised else "post", color=BLUE, lw=1.3, zorder=2)
    _draw_trials(axes, x.values(best), best, y, to_rgba(BLUE))
    place: Any = {"xytext": (3 if x.maximised else -3, 5 if y.maximised else -5), "textcoords": "offset points"}
    place |= {"ha": "left" if x.maximised else "right", "va": "bottom" if y.maximised else "top"}
    taken: list[NDArray[Any]] = []
    for trial in border:
        point = (x.value_of[trial.number], y.value_of[trial.number])
        at = axes.transData.transform(point) / (axes.figure.dpi / 72)  # in points
        if all(abs(at[0] - other[0]) > 20 or abs(at[1] - other[1]) > 12 for other in taken):
            taken.append(at)
            axes.annotate(str(trial.number), point, fontsize=10, path_effects=OUTLINE, zorder=5, **place)


def _undominated(trials: list[Trial], x: _Objective, y: _Objective) -> list[Trial]:
    """Those that no other beats in these two, in order of x: all, where there are no further objectives."""
    better_y = -1 if y.maximised else 1
    better_x = -1 if x.maximised else 1
    kept: list[Trial] = []
    for trial in sorted(trials, key=lambda t: (better_x * x.value_of[t.number], better_y * y.value_of[t.number])):
        if not kept or better_y * y.value_of[trial.number] < better_y * y.value_of[kept[-1].number]:
            kept.append(trial)
    return kept[::better_x]
