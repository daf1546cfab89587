"""The graph of depth against test accuracy. Knows the tables only."""

import textwrap
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cifarsweep.report.style import OUTLINE, draw_mean, page, set_title, span, thousands
from cifarsweep.report.tables import Tables, families, in_order
from cifarsweep.results.study_records import EARLY
from cifarsweep.terminal.formatting import count, shortened

MOST_SLOTS = 30
"""Of a name's width, from the first depth to the last; models that are further apart stand at equal distances."""
MOST_DEPTH = 10_000
"""Beyond it, too: a stranger's result may have any number, up to those that an axis cannot tell apart."""


@dataclass(frozen=True)
class _Ticks:
    """How models are named under the axis; chosen by how many stand side by side, so that names do not touch."""

    inches: float
    """Width that each model takes."""
    letters: int
    """In a line of its name."""
    unit: str = ""
    upright: bool = True


_FEW = _Ticks(inches=1.55, letters=14, unit=" parameters")
_SEVERAL = _Ticks(inches=1.05, letters=10)
_MANY = _Ticks(inches=0.45, letters=24, upright=False)


def depth_vs_accuracy(tables: Tables, colours: dict[str, str]) -> Figure | None:
    """Test accuracy of the models in order of depth, a panel a data set; None where no run is complete."""
    summary = tables.summary[tables.summary["n"] > 0]
    if summary.empty:
        return None
    panels = [_Panel(group, tables.complete, colours) for _, group in summary.groupby("data")]
    most = max(panel.num_slots for panel in panels)
    ticks = _FEW if most <= 5 else _SEVERAL if most <= 12 else _MANY
    width = max(6.4, 1.1 + most * ticks.inches)
    below = max(panel.inches_below(ticks) for panel in panels)
    caption = " ".join(_caption(tables, panels))
    figure, grid = page("Test accuracy against depth", caption, (width, 3.4), (len(panels), 1), below)
    for panel, axes in zip(panels, grid[:, 0], strict=True):
        panel.draw(axes, ticks)
    return figure


class _Panel:
    """One data set's models, each at its depth; accuracies in percent."""

    def __init__(self, summary: pd.DataFrame, complete: pd.DataFrame, colours: dict[str, str]) -> None:
        percent = summary.filter(regex="^test_accuracy_(mean|low|high)$") * 100
        self.summary = summary.assign(**percent)
        self.chosen = self.summary[self.summary["chosen"]].set_index("label")
        self.complete_runs = complete
        self.chosen_runs = complete[self._are_of(self.chosen)]
        self.means = {str(label): float(mean) for label, mean in self.chosen["test_accuracy_mean"].items()}
        self.colours = colours
        self.shown = self.summary[self.summary["chosen"] | ~self.summary["label"].isin(self.means)]
        self.depths = dict(zip(summary["label"], summary["depth"], strict=True))
        self.bottom, self.top = self._limits()
        self.places, self.gap = self._places()
        self.num_slots = 1 + (max(self.places.values()) - min(self.places.values())) // self.gap
        """How many names the axis must have room for."""

    def _places(self) -> tuple[dict[str, int], int]:
        """The depth of each model, and the least difference; one without, or with the same, stands one to the right."""
        labels = in_order(self.summary)
        depths = [self.depths[label] for label in labels]
        steps = [1 if pd.isna(after) else max(1, int(after - depth)) for depth, after in pairwise(depths)]
        gap = min(steps, default=1)
        first = 0 if pd.isna(depths[0]) else int(depths[0])
        if sum(steps) > MOST_SLOTS * gap or abs(first) > MOST_DEPTH:
            steps, gap, first = [1] * len(steps), 1, 0
        return dict(zip(labels, accumulate(steps, initial=first), strict=True)), gap

    def draw(self, axes: Axes, ticks: _Ticks) -> None:
        rising: set[str] = set()  # models with a line that rises to the next
        for family in families(self.summary):
            joined = [label for label in family if label in self.means]
            means = [self.means[label] for label in joined]
            axes.plot([self.places[label] for label in joined], means, color="#999999", lw=1.5, zorder=1)
            rising |= {label for label, (mean, after) in zip(joined, pairwise(means), strict=False) if after > mean}
        for label, x in self.places.items():
            self._draw_others(axes, x, label)
            if label in self.means:
                self._draw_chosen(axes, x, label, ticks.upright, below=label in rising)
        headroom = 0.0 if ticks.upright else 0.2 * (self.top - self.bottom)
        axes.set_ylim(self.bottom, min(self.top + headroom, 106.0))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=8, steps=[1, 2, 5, 10]))
        axes.set_ylabel("test accuracy (%)")
        # What the reader must know to believe the graph: data, length of training, number of seeds.
        seeds = span(self.shown["n"], "seed") + (": no interval" if self.shown["n"].max() == 1 else "")
        images = span(self.complete_runs.loc[self._are_of(self.shown), "num_train"], "training image")
        parts = [shortened(str(self.shown["data"].iloc[0])), images, span(self.shown["epochs"], "epoch"), seeds]
        set_title(axes, " · ".join(part for part in parts if part))
        self._set_axis(axes, ticks)

    def _set_axis(self, axes: Axes, ticks: _Ticks) -> None:
        """Names the models, and the depths between them where there is room."""
        names = {x: self._name(label, ticks) for label, x in self.places.items()}
        with_depth = [x for label, x in self.places.items() if pd.notna(self.depths[label])]
        if with_depth and ticks.inches / self.gap > 0.4 and all(x in self.depths.values() for x in with_depth):
            names |= {x: str(x) for x in range(with_depth[0], with_depth[-1]) if x not in names}
        axes.set_xticks(list(names), list(names.values()), rotation=0 if ticks.upright else 90, fontsize=10.5)
        axes.set_xlim(min(names) - 0.6 * self.gap, max(names) + 0.6 * self.gap)
        further = "" if ticks.unit else ", model and number of parameters"
        axes.set_xlabel(f"depth{further}" if with_depth else further[2:] or "model", fontsize=11)

    def inches_below(self, ticks: _Ticks) -> float:
        """What names of models and the axis label take, at 10.5 and 11 points."""
        names = [self._name(label, ticks) for label in self.places]
        lines = max(name.count("\n") + 1 for name in names)
        letters = max(len(line) for name in names for line in name.splitlines())
        return 0.45 + (0.17 * lines if ticks.upright else 0.09 * letters)

    def _are_of(self, configurations: pd.DataFrame) -> "pd.Series[bool]":
        return self.complete_runs["config_id"].isin(configurations["config_id"])

    def _limits(self) -> tuple[float, float]:
        """The chosen configurations whole; the others as far down as the chosen stay readable."""
        intervals = self.shown[["test_accuracy_mean", "test_accuracy_low", "test_accuracy_high"]].to_numpy(dtype=float)
        points = np.append(intervals.ravel(), 100 * self.chosen_runs["test_accuracy"])
        low, high = float(np.nanmin(points)), float(np.nanmax(points))
        means = self.summary["test_accuracy_mean"]
        bottom = min(low, max(float(means.min()), low - max(high - low, 2.0)))
        top = max(high, float(means.max()))
        margin = max(0.12 * (top - bottom), 1.0 - (top - bottom) / 2)
        return max(bottom - margin, -6.0), min(top + margin, 106.0)

    def _draw_others(self, axes: Axes, x: int, label: str) -> None:
        """Small circles; triangles on the axis for those that are below it."""
        others = self.summary[(self.summary["label"] == label) & ~self.summary["chosen"]]
        means = others["test_accuracy_mean"].to_numpy(dtype=float)
        below = means < self.bottom
        faint: dict[str, Any] = {"color": self.colours[label], "ls": "", "mew": 0, "zorder": 2}
        faint["alpha"] = 0.4 if label in self.means else 0.8
        axes.plot(np.full(np.sum(~below), x), means[~below], "o", ms=4.5, **faint)
        axes.plot(np.full(np.sum(below), x), np.full(np.sum(below), self.bottom), "v", ms=7, clip_on=False, **faint)

    def _draw_chosen(self, axes: Axes, x: int, label: str, upright: bool, below: bool) -> None:
        """The mean of a model's configuration, with its runs and the interval where there are several."""
        colour, mean = self.colours[label], self.means[label]
        accuracies = 100 * self.chosen_runs.loc[self.chosen_runs["label"] == label, "test_accuracy"]
        low, high = (float(self.chosen[f"test_accuracy_{end}"][label]) for end in ("low", "high"))
        draw_mean(axes, x, mean, (low, high), colour)
        if len(accuracies) > 1:
            axes.scatter([x] * len(accuracies), accuracies, s=12, color="white", edgecolors=colour, lw=1, zorder=5)
        if upright:  # on the side that the line to the next model leaves free
            place: dict[str, Any] = {"xytext": (9, -4 if below else 4), "va": "top" if below else "bottom"}
        else:
            place = {"xytext": (0, 9), "va": "bottom", "ha": "center", "rotation": 90}
        at = mean if upright else np.nanmax([mean, high])
        axes.annotate(f"{mean:.1f}", (x, at), textcoords="offset points", path_effects=OUTLINE, zorder=6, **place)

    def _name(self, label: str, ticks: _Ticks) -> str:
        """Its depth, its name and its number of parameters."""
        short = shortened(label, 2 * ticks.letters if ticks.upright else ticks.letters)
        of_model = self.summary[self.summary["label"] == label].sort_values("chosen", ascending=False)
        params = of_model["params"].iloc[0]
        size = f"{thousands(int(params))}{ticks.unit}" if pd.notna(params) else ""
        lines = [*textwrap.wrap(short, ticks.letters)[:2], size]
        if not ticks.upright:
            return "\n".join(lines)
        depths = {label: str(depth) for label, depth in self.depths.items() if pd.notna(depth)}
        return "\n".join([depths.get(label, ""), *lines] if depths else lines)


def _caption(tables: Tables, panels: list[_Panel]) -> list[str]:
    sentences = []
    if any((panel.chosen["n"] > 1).any() for panel in panels):
        sentences.append("Large points: means over seeds, 95 % intervals (Student's t). Small points: single runs.")
    num_models = sum(len(panel.places) for panel in panels)
    num_chosen = sum(len(panel.chosen) for panel in panels)
    if num_chosen and any(len(panel.summary) > len(panel.places) for panel in panels):
        are_below = any((panel.summary["test_accuracy_mean"] < panel.bottom).any() for panel in panels)
        below = ", triangles: below the axis" if are_below else ""
        uneven = any(panel.summary["n"].nunique() > 1 for panel in panels)
        among = " among those with the most seeds" if uneven else ""
        how = f"The configuration of each model was chosen by mean validation accuracy{among}"
        sentences.append(f"{how}; the others are faint{below}.")
    if num_chosen < num_models:
        sentences.append("Where there is no validation accuracy to choose by, all configurations are shown.")
    statuses = tables.runs.loc[tables.runs["status"] != "complete", "status"]
    lost = statuses.replace(dict.fromkeys(EARLY, "stopped early by the search")).value_counts().to_dict()
    lost |= {"that cannot be read": len(tables.unreadable), "without files": len(tables.jobs_without_run)}
    if any(lost.values()):
        counts = ", ".join(f"{number} {what}" for what, number in lost.items() if number)
        sentences.append(f"Left out of {count(tables.num_runs, 'run')}: {counts}.")
    return sentences
