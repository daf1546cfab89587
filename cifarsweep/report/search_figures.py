"""How a search went: its history, what mattered, where the good values are, the Pareto set. Knows the study only."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
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
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray

from cifarsweep.report.search_results import Study, Trial, as_text, finite
from cifarsweep.report.style import GREY, LEFT, OKABE_ITO, OUTLINE, count, page, thousands
from cifarsweep.results.study_records import STATES
from cifarsweep.terminal.formatting import shortened

BLUE, ORANGE = OKABE_ITO[0], OKABE_ITO[1]
COSTS = ("params", "flops", "train_seconds")
"""Objectives that differ by factors from model to model: on a logarithmic axis, in three digits."""
NOUNS = {"params": "parameters", "flops": "FLOPs", "train_seconds": "training time"}

MARGIN = 0.08
"""Free on either side of the values, as a part of the axis."""
MOST_BARS = 15
MOST_CATEGORIES = 10
TRIAL_COLOURS = ListedColormap(colormaps["viridis"](np.linspace(0, 0.9, 256)))  # its yellow is too pale on white


def of_study(study: Study) -> Iterator[tuple[str, Callable[[], Figure | None]]]:
    """The figures by name; one that returns None has no data."""
    yield "optimization_history.png", partial(optimization_history, study)
    yield "parameter_importance.png", partial(parameter_importance, study)
    yield "slices.png", partial(slices, study)
    if len(study.objectives) > 1:
        yield "pareto.png", partial(pareto, study)


# an objective


class _Objective:
    """What trials reached in one objective, as it is drawn: accuracies in percent."""

    def __init__(self, study: Study, index: int) -> None:
        self.name = study.objectives[index]
        self.maximised = study.directions[index] == "maximize"
        self.is_accuracy = self.name.endswith("accuracy")
        factor = 100 if self.is_accuracy else 1
        found = {trial.number: trial.values[index] for trial in study.trials if trial.state in ("complete", "pruned")}
        self.value_of = {number: factor * value for number, value in found.items() if value is not None}
        self.complete = [t for t in study.trials if t.state == "complete" and t.number in self.value_of]
        self.pruned = [t for t in study.trials if t.state == "pruned" and t.number in self.value_of]
        self.log = self.name in COSTS and _spans_factors(self.value_of.values())
        self.low, self.high = self._limits()

    @property
    def noun(self) -> str:
        return shortened(NOUNS.get(self.name, self.name.replace("val_", "validation ").replace("_", " ")))

    @property
    def label(self) -> str:
        return self.noun + (" (%)" if self.is_accuracy else " (s)" if self.name.endswith("seconds") else "")

    def values(self, trials: Iterable[Trial]) -> NDArray[Any]:
        return np.array([self.value_of[trial.number] for trial in trials])

    def best(self) -> Trial | None:
        choose = max if self.maximised else min
        return choose(self.complete, key=lambda trial: self.value_of[trial.number], default=None)

    def text(self, value: float) -> str:
        if self.name in COSTS:
            return thousands(round(value)) if value >= 1000 else f"{value:.3g}"
        return f"{value:.2f}" if self.is_accuracy else f"{value:.4g}"

    def is_beyond(self, values: NDArray[Any]) -> NDArray[Any]:
        return values < self.low if self.maximised else values > self.high

    def num_beyond(self) -> int:
        return int(self.is_beyond(np.array(list(self.value_of.values()))).sum())

    def set_axis(self, axes: Axes, which: str, headroom: float = MARGIN) -> None:
        """Scale, limits, ticks and label; `headroom`, a part of the axis, is free beyond the best."""
        axis = axes.xaxis if which == "x" else axes.yaxis
        margins = (MARGIN, headroom) if self.maximised else (headroom, MARGIN)
        limits = _with_margins(self.low, self.high, self.log, *margins)
        (axes.set_xlim if which == "x" else axes.set_ylim)(*limits)
        _set_ticks(axes, which, self.log, self.low, self.high)
        axis.set_label_text(self.label)
        if self.name in COSTS:
            axis.set_major_formatter(FuncFormatter(lambda value, _: self.text(value)))

    def show_all_of(self, trials: list[Trial]) -> None:
        values = self.values(trials)
        self.low, self.high = float(values.min()), float(values.max())
        self.log = self.name in COSTS and _spans_factors(values)

    def _limits(self) -> tuple[float, float]:
        """The better values whole, the worse as far as they stay: one bad trial would flatten all the rest.

        Beyond one and a half times the distance of the quartiles is an outlier by Tukey's rule.
        """
        values = np.array(list(self.value_of.values()) or [0.0])
        if self.log:
            return float(values.min()), float(values.max())
        first, third = np.percentile(values, [25, 75])
        reach = 1.5 * (third - first) or math.inf
        kept = values[values >= first - reach] if self.maximised else values[values <= third + reach]
        return float(kept.min()), float(kept.max())


def _spans_factors(values: Iterable[float]) -> bool:
    """Whether a logarithmic axis shows more than a linear one, and can."""
    values = list(values)
    return bool(values) and min(values) > 0 and max(values) / min(values) >= 3


def _with_margins(
    low: float, high: float, log: bool, below: float = MARGIN, above: float = MARGIN
) -> tuple[float, float]:
    if log:
        return low / (high / low) ** below, high * (high / low) ** above
    span = high - low or max(0.1 * abs(high), 1e-6)
    return low - below * span, high + above * span


def _set_ticks(axes: Axes, which: str, log: bool, low: float, high: float) -> None:
    axis = axes.xaxis if which == "x" else axes.yaxis
    if not log:
        axis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
        return
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    ratio = high / low
    steps = (1, 2, 3, 5, 7) if ratio < 8 else (1, 2, 5) if ratio < 30 else (1, 3) if ratio < 300 else (1,)
    width = axes.get_position().width * axes.figure.get_figwidth()  # type: ignore[union-attr]
    axis.set_major_locator(LogLocator(subs=steps, numticks=4 if which == "x" and width < 4 else 6))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}".replace("e-0", "e-")))  # no formulas


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
    number = sum(objective.num_beyond() for objective in objectives)
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
    last = study.last
    caption = " ".join([_outcomes(study), *_beyond(objectives)])
    figure, grid = page("Optimization history", caption, (6.4, 3.0), (len(objectives), 1), 0.3, 0.55)
    for objective, axes in zip(objectives, grid[:, 0], strict=True):
        objective.set_axis(axes, "y", headroom=0.2 if objective.maximised else 0.3)  # crosses are at the bottom
        _draw_history(axes, objective, last)
        axes.plot(failed, [0.03] * len(failed), "x", color=GREY, ms=6, transform=axes.get_xaxis_transform())
        axes.set_xlim(-max(0.6, 0.02 * last), last + max(0.6, 0.02 * last))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, nbins=9, steps=[1, 2, 5, 10]))
    grid[-1, 0].set_xlabel("trial")
    grid[-1, 0].legend(handles=_history_key(objectives, bool(failed)), **_under(grid[-1, 0], ncols=4))
    return figure


def _draw_history(axes: Axes, objective: _Objective, last: int) -> None:
    if not objective.value_of:
        axes.set_yticks([])
    for trials, colour, hollow in ((objective.complete, BLUE, False), (objective.pruned, ORANGE, True)):
        x = np.array([trial.number for trial in trials])
        _draw_trials(axes, x, trials, objective, to_rgba(colour), hollow)
    best = objective.best()
    if best is None:
        return
    reached = (np.maximum if objective.maximised else np.minimum).accumulate(objective.values(objective.complete))
    numbers = [trial.number for trial in objective.complete]
    axes.step([*numbers, last], [*reached, reached[-1]], where="post", color="black", lw=1.5, zorder=2)
    _annotate_best(axes, best, objective, last)


def _annotate_best(axes: Axes, best: Trial, objective: _Objective, last: int) -> None:
    value = objective.value_of[best.number]
    side = "left" if best.number < last / 2 else "right"
    above = objective.maximised
    text = f"trial {best.number}: {objective.text(value)}"
    axes.plot(best.number, value, "o", ms=10, mfc="none", mec="black", mew=1.3, zorder=4)
    place: Any = {"xytext": (0, 9 if above else -9), "va": "bottom" if above else "top", "ha": side}
    axes.annotate(text, (best.number, value), textcoords="offset points", path_effects=OUTLINE, zorder=5, **place)


def _history_key(objectives: list[_Objective], failed: bool) -> list[Line2D]:
    """The legend's entries, of what there is."""
    entries: list[tuple[bool, dict[str, Any]]] = [
        (any(o.complete for o in objectives), {"color": BLUE, "marker": "o", "ls": "", "label": "complete"}),
        (any(o.complete for o in objectives), {"color": "black", "lw": 1.5, "label": "best so far"}),
        (any(o.pruned for o in objectives), {"mec": ORANGE, "marker": "o", "ls": "", "mfc": "none", "label": "pruned"}),
        (failed, {"color": GREY, "marker": "x", "ls": "", "label": "failed"}),
    ]
    return [Line2D([], [], **look) for there, look in entries if there]


def _under(axes: Axes, ncols: int) -> dict[str, Any]:
    """A legend's place under the label of the x axis."""
    height = axes.get_position().height * axes.figure.get_figheight()  # type: ignore[union-attr]
    anchor = (-0.03, -0.5 / height)
    return {"loc": "upper left", "bbox_to_anchor": anchor, "ncols": ncols, "fontsize": 11, "columnspacing": 1.5}


def _outcomes(study: Study) -> str:
    counts = Counter(trial.state for trial in study.trials)
    parts = ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])
    pruned = " A pruned trial is at the last value that it reported." if counts["pruned"] else ""
    return f"{count(len(study.trials), 'trial')}: {parts}.{pruned}"


# importance


def parameter_importance(study: Study) -> Figure | None:
    """A bar a searched key, the most important on top; None where no importance is known."""
    ranked = sorted(study.importances.items(), key=lambda item: -item[1])
    if not ranked:
        return None
    shown = ranked[:MOST_BARS][::-1]
    caption = f"Estimated from {count(study.num_complete, 'complete trial')}"
    caption += "; so few may mislead." if study.num_complete < 30 else "."
    if len(ranked) > MOST_BARS:
        caption += f" Not shown: {count(len(ranked) - MOST_BARS, 'less important key')}."
    figure, grid = page("Parameter importance", caption, (6.4, 0.35 + 0.33 * len(shown)), (1, 1), 0.5)
    names, values = [shortened(key, 28) for key, _ in shown], [value for _, value in shown]
    figure.subplots_adjust(left=max(LEFT, 0.3 + max(_inches(name, 11) for name in names)) / 6.4)
    axes = grid[0, 0]
    bars = axes.barh(range(len(shown)), values, 0.62, color=BLUE)
    axes.bar_label(bars, [f"{value:.2f}" for value in values], padding=4, fontsize=11)
    axes.set_yticks(range(len(names)), names, fontsize=11)
    axes.tick_params(axis="y", length=0)
    axes.grid(False)
    axes.set(xlim=(0, 1.12 * max(*values, 1e-6)), ylim=(-0.6, len(shown) - 0.4))
    axes.set_xlabel(f"relative importance for {_Objective(study, 0).noun}")
    return figure


# slices


def slices(study: Study) -> Figure | None:
    """The first objective against each searched key; None where no trial has a value."""
    objective = _Objective(study, 0)
    panels = [_Slice(study, key, objective) for key in study.params]
    panels = [panel for panel in panels if panel.trials]
    if not panels:
        return None
    columns = 2 if len(panels) in (2, 4) else min(3, len(panels))
    rows = [panels[at : at + columns] for at in range(0, len(panels), columns)]
    width = (6.4, 8.0, 9.6)[columns - 1]
    caption = " ".join([*_slices_caption(objective, panels), *_beyond([objective])])
    title = f"{objective.noun[:1].upper()}{objective.noun[1:]} by parameter"
    figure, grid = _page_of_rows(title, caption, width, rows)
    for row, row_axes in zip(rows, grid, strict=True):
        for panel, axes in zip(row, row_axes, strict=False):
            objective.set_axis(axes, "y")
            panel.draw(axes, study.last)
            axes.set_ylabel("" if panel is not row[0] else objective.label)
            axes.yaxis.set_tick_params(labelleft=panel is row[0], length=3.5 if panel is row[0] else 0)
        for axes in row_axes[len(row) :]:
            axes.remove()
    _colour_bar(figure, grid, width, study.last)
    return figure


def _page_of_rows(title: str, caption: str, width: float, rows: list[list[_Slice]]) -> tuple[Figure, NDArray[Any]]:
    """A page whose rows have what the names under them take, and a margin on the right for the colour bar."""
    panel_height, below = 2.3, [max(panel.inches_below() for panel in row) for row in rows]
    shape = (len(rows), len(rows[0]))
    figure, grid = page(title, caption, (width, panel_height), shape, sum(below) / len(rows), share_x=False)
    figure.subplots_adjust(right=1 - 1.0 / width, wspace=0.12)
    height = figure.get_figheight()
    bottom = float(grid[0, 0].get_position().y0)
    for row_axes, under in zip(grid, below, strict=True):
        for axes in row_axes:
            box = axes.get_position()
            axes.set_position((box.x0, bottom, box.width, box.height))
        bottom -= (under + 0.35 + panel_height) / height
    return figure, grid


class _Slice:
    """One searched key: the trials that have it, and where on its axis they are."""

    def __init__(self, study: Study, key: str, objective: _Objective) -> None:
        self.key, self.objective = key, objective
        self.trials = [trial for trial in [*objective.pruned, *objective.complete] if key in trial.params]
        found = [trial.params[key] for trial in self.trials]
        numbers = [finite(value) for value in found]
        self.numbers = [value for value in numbers if value is not None]
        only_numbers = len(self.numbers) == len(found)
        self.is_choice = not only_numbers or _are_few(self.numbers, key in study.log)
        self.log = key in study.log and _spans_factors(self.numbers)
        texts = [f"{value:.4g}" if isinstance(value, float) else as_text(value) for value in found]
        self.names = _names(texts, self.numbers if only_numbers else None) if self.is_choice else []
        self.choices = [text if text in self.names else self.names[-1] for text in texts] if self.is_choice else []

    def draw(self, axes: Axes, last: int) -> None:
        axes.set_xlabel(shortened(self.key, 26), fontsize=11)
        x = self._draw_choices(axes) if self.is_choice else self._draw_scale(axes)
        colours = TRIAL_COLOURS([trial.number / max(last, 1) for trial in self.trials])
        num_pruned = sum(trial.state == "pruned" for trial in self.trials)
        for part, hollow in ((slice(num_pruned), True), (slice(num_pruned, None), False)):
            _draw_trials(axes, x[part], self.trials[part], self.objective, colours[part], hollow)

    def inches_below(self) -> float:
        """What the names of choices and the label of the axis take."""
        return 0.55 + (max(self._widths()) - 0.1 if self._is_crowded() else 0.0)

    def _draw_scale(self, axes: Axes) -> NDArray[Any]:
        low, high = min(self.numbers), max(self.numbers)
        axes.set_xlim(*_with_margins(low, high, self.log))
        _set_ticks(axes, "x", self.log, low, high)
        axes.tick_params(axis="x", labelsize=10)
        return np.array(self.numbers)

    def _draw_choices(self, axes: Axes) -> NDArray[Any]:
        """The positions, spread sideways by the golden ratio: even, and the same each time."""
        rotation = 90 if self._is_crowded() else 0
        axes.set_xticks(range(len(self.names)), self._short_names(), rotation=rotation, fontsize=9.5)
        axes.set_xlim(-0.6, len(self.names) - 0.4)
        seen: Counter[str] = Counter()
        x = []
        for choice in self.choices:
            x.append(self.names.index(choice) + 0.45 * ((seen[choice] * 0.618034 + 0.5) % 1 - 0.5))
            seen[choice] += 1
        return np.array(x)

    def _short_names(self) -> list[str]:
        return [shortened(name, 16) for name in self.names]

    def _widths(self) -> list[float]:
        """In inches; none where the axis is a scale."""
        return [_inches(name, 9.5) for name in self._short_names()]

    def _is_crowded(self) -> bool:
        """Whether names would touch side by side, in the 2.4 inches of the narrowest panel."""
        distance = 2.4 / (len(self.names) + 0.2)
        return any((one + other) / 2 + 0.07 > distance for one, other in pairwise(self._widths()))


def _are_few(numbers: list[float], log: bool) -> bool:
    """Whether numbers are drawn as choices: 64, 128, 256 at equal distance."""
    num_different = len(set(numbers))
    return num_different == 1 or (not log and num_different <= min(MOST_CATEGORIES, len(numbers) / 2))


def _names(texts: list[str], numbers: list[float] | None) -> list[str]:
    """The choices that were tried, numbers in their order; the rarest as one where there are many."""
    order = dict(zip(texts, numbers, strict=True)) if numbers else {}
    tried = Counter(texts)
    kept = [text for text, _ in tried.most_common(MOST_CATEGORIES)]
    names = sorted(kept, key=lambda text: (order.get(text, 0.0), text))
    return [*names, f"{len(tried) - len(kept)} others"] if len(tried) > len(kept) else names


def _slices_caption(objective: _Objective, panels: list[_Slice]) -> list[str]:
    sentences = []
    if objective.pruned:
        sentences.append("Hollow: pruned trials, at the last value that they reported.")
    if any(panel.is_choice and len(panel.trials) > len(panel.names) for panel in panels):
        sentences.append("Trials of one choice are spread sideways.")
    if len({len(panel.trials) for panel in panels}) > 1:
        sentences.append("A panel shows the trials that had its parameter.")
    return sentences


def _colour_bar(figure: Figure, grid: NDArray[Any], width: float, last: int) -> None:
    """Right of the first row, as high as it."""
    box = grid[0, -1].get_position()
    axes = figure.add_axes((1 - 0.8 / width, box.y0, 0.13 / width, box.height))
    figure.colorbar(ScalarMappable(Normalize(0, max(last, 1)), TRIAL_COLOURS), axes)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=6, steps=[1, 2, 5, 10]))
    axes.tick_params(labelsize=10)
    axes.set_ylabel("trial", fontsize=11)


# Pareto set


def pareto(study: Study) -> Figure | None:
    """The first two objectives of the complete trials, the Pareto set joined; None where none is complete."""
    first, second = _Objective(study, 0), _Objective(study, 1)
    x, y = (first, second) if first.name in COSTS and second.name not in COSTS else (second, first)
    trials = [trial for trial in y.complete if trial in x.complete]
    if not trials:
        return None
    of = len(study.objectives)
    title = "Pareto set" + (f" in the first two of {of} objectives" if of > 2 else "")
    best = [trial for trial in trials if trial.number in study.best]
    caption = " ".join([*_pareto_caption(len(trials), len(best), of), *_beyond([y])])
    figure, grid = page(title, caption, (6.4, 3.8), (1, 1), 0.5)
    axes = grid[0, 0]
    axes.grid(axis="x")
    x.show_all_of(trials)
    x.set_axis(axes, "x")
    y.set_axis(axes, "y", headroom=0.12)
    others = [trial for trial in trials if trial not in best]
    _draw_trials(axes, x.values(others), others, y, to_rgba("#999999"))
    _draw_front(axes, best, x, y)
    return figure


def _draw_front(axes: Axes, best: list[Trial], x: _Objective, y: _Objective) -> None:
    """The Pareto set with the border of what was reached, numbered where there is room."""
    border = _undominated(best, x, y)
    axes.step(x.values(border), y.values(border), where="pre" if x.maximised else "post", color=BLUE, lw=1.3, zorder=2)
    _draw_trials(axes, x.values(best), best, y, to_rgba(BLUE))
    place: Any = {"xytext": (3 if x.maximised else -3, 5 if y.maximised else -5)}
    place |= {"ha": "left" if x.maximised else "right", "va": "bottom" if y.maximised else "top"}
    for trial, point in _apart(axes, border, np.stack([x.values(border), y.values(border)], axis=1)):
        text = str(trial.number)
        axes.annotate(text, point, textcoords="offset points", fontsize=10, path_effects=OUTLINE, zorder=5, **place)


def _undominated(trials: list[Trial], x: _Objective, y: _Objective) -> list[Trial]:
    """In order of x those that no other beats in these two: all, where there are no further objectives."""
    better_y = -1 if y.maximised else 1
    better_x = -1 if x.maximised else 1
    kept: list[Trial] = []
    for trial in sorted(trials, key=lambda t: (better_x * x.value_of[t.number], better_y * y.value_of[t.number])):
        if not kept or better_y * y.value_of[trial.number] < better_y * y.value_of[kept[-1].number]:
            kept.append(trial)
    return kept[::better_x]


def _apart(axes: Axes, trials: list[Trial], points: NDArray[Any]) -> Iterator[tuple[Trial, Any]]:
    """Those whose number touches none before it."""
    taken: list[NDArray[Any]] = []
    for trial, point in zip(trials, points, strict=True):
        at = axes.transData.transform(point) / (axes.figure.dpi / 72)  # in points
        if all(abs(at[0] - other[0]) > 20 or abs(at[1] - other[1]) > 12 for other in taken):
            taken.append(at)
            yield trial, point


def _pareto_caption(num_trials: int, num_best: int, num_objectives: int) -> list[str]:
    numbered = "those that are best in these two numbered" if num_objectives > 2 else "numbered"
    which = f"the {num_best} of the Pareto set, {numbered} where there is room"
    return [f"{count(num_trials, 'complete trial')}. Blue: {which}."]
