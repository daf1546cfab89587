"""The graph of depth against test accuracy. Knows the tables only."""

import textwrap
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cifarsweep.report.style import OUTLINE, page, span, thousands
from cifarsweep.report.tables import Tables, families, in_order
from cifarsweep.terminal.formatting import count, shortened


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
    groups = [group for _, group in summary.groupby("data")]
    most = max(group["label"].nunique() for group in groups)
    ticks = _FEW if most <= 5 else _SEVERAL if most <= 12 else _MANY
    panels = [_Panel(group, tables.complete, colours, ticks) for group in groups]
    width = max(6.4, 1.1 + most * ticks.inches)
    below = max(panel.inches_below() for panel in panels)
    caption = " ".join(_caption(tables, panels))
    figure, grid = page("Test accuracy against depth", caption, (width, 3.4), (len(panels), 1), below)
    for panel, axes in zip(panels, grid[:, 0], strict=True):
        panel.draw(axes)
    return figure


class _Panel:
    """One data set's models side by side; accuracies in percent."""

    def __init__(self, summary: pd.DataFrame, complete: pd.DataFrame, colours: dict[str, str], ticks: _Ticks) -> None:
        percent = summary.filter(regex="^test_accuracy_(mean|low|high)$") * 100
        self.summary = summary.assign(**percent)
        self.chosen = self.summary[self.summary["chosen"]].set_index("label")
        self.complete_runs = complete
        self.chosen_runs = complete[self._are_of(self.chosen)]
        self.means = {str(label): float(mean) for label, mean in self.chosen["test_accuracy_mean"].items()}
        self.colours, self.ticks = colours, ticks
        self.labels = in_order(summary)
        self.names = [self._name(label) for label in self.labels]
        self.shown = self.summary[self.summary["chosen"] | ~self.summary["label"].isin(self.means)]
        self.bottom, self.top = self._limits()

    def draw(self, axes: Axes) -> None:
        rising: set[str] = set()  # models with a line that rises to the next
        for family in families(self.summary):
            joined = [label for label in family if label in self.means]
            means = [self.means[label] for label in joined]
            axes.plot([self.labels.index(label) for label in joined], means, color="#999999", lw=1.5, zorder=1)
            rising |= {label for label, (mean, after) in zip(joined, pairwise(means), strict=False) if after > mean}
        for x, label in enumerate(self.labels):
            self._draw_others(axes, x, label)
            if label in self.means:
                self._draw_chosen(axes, x, label, below=label in rising)
        axes.set_ylim(self.bottom, self.top)
        axes.yaxis.set_major_locator(MaxNLocator(nbins=8, steps=[1, 2, 5, 10]))
        axes.set_xlim(-0.6, len(self.labels) - 0.4)
        axes.set_ylabel("test accuracy (%)")
        # What the reader must know to believe the graph: data, length of training, number of seeds.
        seeds = span(self.shown["n"], "seed") + (": no interval" if self.shown["n"].max() == 1 else "")
        images = span(self.complete_runs.loc[self._are_of(self.shown), "num_train"], "training image")
        parts = [shortened(str(self.shown["data"].iloc[0])), images, span(self.shown["epochs"], "epoch"), seeds]
        axes.set_title(" · ".join(part for part in parts if part))
        rotation = 0 if self.ticks.upright else 90
        axes.set_xticks(range(len(self.names)), self.names, rotation=rotation, fontsize=10.5)
        if not self.ticks.unit:
            axes.set_xlabel("model and number of parameters", fontsize=11)

    def inches_below(self) -> float:
        """What names of models and the axis label take, at 10.5 and 11 points."""
        lines = max(name.count("\n") + 1 for name in self.names)
        letters = max(len(line) for name in self.names for line in name.splitlines())
        return 0.2 + (0.17 * lines if self.ticks.upright else 0.09 * letters) + (0.0 if self.ticks.unit else 0.25)

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
        headroom = margin if self.ticks.upright else margin + 0.2 * (top - bottom)
        return max(bottom - margin, -6.0), min(top + headroom, 106.0)

    def _draw_others(self, axes: Axes, x: int, label: str) -> None:
        """Small circles left of the model; triangles on the axis for those that are below it."""
        others = self.summary[(self.summary["label"] == label) & ~self.summary["chosen"]]
        means = others["test_accuracy_mean"].to_numpy(dtype=float)
        beside = (-0.4, -0.26) if label in self.means else (-0.1, 0.1)
        spread = x + np.linspace(*beside, len(means))
        below = means < self.bottom
        faint: dict[str, Any] = {"color": self.colours[label], "alpha": 0.4, "ls": "", "mew": 0, "zorder": 2}
        if label not in self.means:
            faint["alpha"] = 0.8
        axes.plot(spread[~below], means[~below], "o", ms=4.5, **faint)
        axes.plot(spread[below], np.full(below.sum(), self.bottom), "v", ms=7, clip_on=False, **faint)

    def _draw_chosen(self, axes: Axes, x: int, label: str, below: bool) -> None:
        """The mean of a model's configuration, with its runs and the interval where there are several."""
        colour, mean, text = self.colours[label], self.means[label], f"{self.means[label]:.1f}"
        accuracies = 100 * self.chosen_runs.loc[self.chosen_runs["label"] == label, "test_accuracy"]
        if len(accuracies) > 1:
            ends = self.chosen.loc[label, ["test_accuracy_low", "test_accuracy_high"]].to_numpy(dtype=float)
            axes.scatter(x + np.linspace(-0.2, -0.1, len(accuracies)), accuracies, s=16, color=colour, lw=0, zorder=3)
            axes.plot([x, x], ends, "_-", color=colour, lw=2, ms=13, mew=2, zorder=3)
        axes.plot(x, mean, "o", color=colour, ms=7.5, mec="white", mew=0.8, zorder=4)
        if self.ticks.upright:  # on the side that the line to the next model leaves free
            place: dict[str, Any] = {"xytext": (9, -4 if below else 4), "va": "top" if below else "bottom"}
        else:
            place = {"xytext": (0, 9), "va": "bottom", "ha": "center", "rotation": 90}
            mean = np.nanmax([mean, self.chosen.loc[label, "test_accuracy_high"]])
        axes.annotate(text, (x, mean), textcoords="offset points", path_effects=OUTLINE, zorder=5, **place)

    def _name(self, label: str) -> str:
        letters = self.ticks.letters
        short = shortened(label, 2 * letters if self.ticks.upright else letters)
        of_model = self.summary[self.summary["label"] == label].sort_values("chosen", ascending=False)
        params = of_model["params"].iloc[0]
        size = f"{thousands(int(params))}{self.ticks.unit}" if pd.notna(params) else ""
        return "\n".join([*textwrap.wrap(short, letters)[:2], size])


def _caption(tables: Tables, panels: list[_Panel]) -> list[str]:
    sentences = []
    if any((panel.chosen["n"] > 1).any() for panel in panels):
        sentences.append("Large points: means over seeds, 95 % intervals (Student's t). Small points: single runs.")
    num_models = sum(len(panel.labels) for panel in panels)
    num_chosen = sum(len(panel.chosen) for panel in panels)
    if num_chosen and any(len(panel.summary) > len(panel.labels) for panel in panels):
        are_below = any((panel.summary["test_accuracy_mean"] < panel.bottom).any() for panel in panels)
        below = ", triangles: below the axis" if are_below else ""
        uneven = any(panel.summary["n"].nunique() > 1 for panel in panels)
        among = " among those with the most seeds" if uneven else ""
        how = f"The configuration of each model was chosen by mean validation accuracy{among}"
        sentences.append(f"{how}; the others are faint{below}.")
    if num_chosen < num_models:
        sentences.append("Where there is no validation accuracy to choose by, all configurations are shown.")
    lost = tables.runs.loc[tables.runs["status"] != "complete", "status"].value_counts().to_dict()
    lost |= {"that cannot be read": len(tables.unreadable), "without files": len(tables.jobs_without_run)}
    if any(lost.values()):
        counts = ", ".join(f"{number} {what}" for what, number in lost.items() if number)
        sentences.append(f"Left out of {count(tables.num_runs, 'run')}: {counts}.")
    return sentences
