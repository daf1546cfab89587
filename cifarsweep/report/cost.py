"""Test accuracy against what it costs: parameters and training time. Knows the tables only."""

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from cifarsweep.report.curves import PALE, best_models, best_of
from cifarsweep.report.style import MARGIN, draw_mean, legend_below, page, set_scale, spans_factors, thousands
from cifarsweep.report.tables import Tables, in_order
from cifarsweep.terminal.formatting import count, shortened

COSTS = {"params": "number of parameters", "train_seconds_mean": "training time (s)"}


def accuracy_against(cost: str, tables: Tables, colours: dict[str, str]) -> Figure | None:
    """Each model's chosen configuration, a panel a data set; None where no configuration stands for its model."""
    models = tables.summary[tables.summary["chosen"] & tables.summary[cost].notna()]
    if models.empty:
        return None
    groups = list(models.groupby("data"))
    labels = in_order(models)
    best = best_models(models, labels)
    if len(best) < len(labels):
        colours = {label: colours[label] if label in best else PALE for label in labels}
    columns = 3 if max(len(shortened(label, 24)) for label in best) <= 12 else 2
    footer = 0.25 * math.ceil(len(best) / columns) + 0.2
    title = "Test accuracy against " + COSTS[cost].removesuffix(" (s)").removeprefix("number of ")
    caption = " ".join([*_caption(tables, models, cost), *best_of(best, labels)])
    figure, grid = page(title, caption, (6.4, 3.4), (len(groups), 1), 0.45, footer)
    for (data, group), axes in zip(groups, grid[:, 0], strict=True):
        axes.set_title(shortened(str(data)))
        _draw(axes, group, cost, colours)
        axes.set(xlabel=COSTS[cost], ylabel="test accuracy (%)")
    handles = [Line2D([], [], color=colours[label], marker="o", ls="", label=shortened(label, 24)) for label in best]
    legend_below(grid[-1, 0], handles, 0.5 / 3.4, columns)
    return figure


def _draw(axes: Axes, group: pd.DataFrame, cost: str, colours: dict[str, str]) -> None:
    for _, row in group.iterrows():
        mean, *ends = (100 * row[f"test_accuracy_{which}"] for which in ("mean", "low", "high"))
        draw_mean(axes, float(row[cost]), mean, ends, colours[row["label"]])
    low, high = float(group[cost].min()), float(group[cost].max())
    margin = MARGIN if low < high else 1.0  # a single value has a tenth of it on either side
    set_scale(axes, "x", low, high, spans_factors((low, high)), (margin, margin), most_powers=7)
    text = (lambda value, _: thousands(round(value))) if cost == "params" else (lambda value, _: f"{value:g}")
    axes.xaxis.set_major_formatter(FuncFormatter(text))
    accuracies = group[["test_accuracy_mean", "test_accuracy_low", "test_accuracy_high"]].to_numpy(dtype=float)
    low, high = 100 * np.nanmin(accuracies), 100 * np.nanmax(accuracies)
    margin = max(0.12 * (high - low), 0.5)
    axes.set_ylim(low - margin, high + margin)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=7, steps=[1, 2, 5, 10]))


def _caption(tables: Tables, models: pd.DataFrame, cost: str) -> list[str]:
    sentences = ["Each model's configuration, chosen by mean validation accuracy where there are several."]
    if (models["n"] > 1).any():
        sentences.append("Points: means over seeds; bars: 95 % intervals of the accuracy (Student's t).")
    if cost == "train_seconds_mean":
        are_of = tables.complete["config_id"].isin(models["config_id"])
        devices = tables.complete.loc[are_of, ["device", "threads"]].drop_duplicates().dropna()
        on = [f"{shortened(str(device), 30)}, {count(threads, 'thread')}" for device, threads in devices.to_numpy()]
        sentences.append(f"Wall clock of the training, on {' and '.join(on[:3])}." if on else "Wall clock.")
    return sentences
