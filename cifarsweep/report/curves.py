"""Loss and accuracy against the epoch. Knows the tables only."""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from cifarsweep.report.style import GREY, mean_and_interval, page, palette, set_title
from cifarsweep.report.tables import Tables
from cifarsweep.terminal.formatting import count, shortened

SOURCES = {"train": "training", "val": "validation"}
MOST_MODELS = 12
NUM_BEST = 10
"""How many models keep a colour where there are more than MOST_MODELS: a search may try dozens."""
PALE = "#b5b5b5"


def learning_curves(tables: Tables, colours: dict[str, str]) -> Figure | None:
    """Loss and accuracy in two columns, training above validation; None where no run has ended an epoch."""
    curves = _curves(tables)
    if curves.empty:
        return None
    sources = [source for source in SOURCES if source == "train" or curves["val_accuracy"].notna().any()]
    rows = [(data, source) for data in sorted(curves["data"].unique()) for source in sources]
    labels = [label for label in colours if (curves["label"] == label).any()]
    best = best_models(tables.summary, labels)
    caption = " ".join([*best_of(best, labels), *_caption(curves, has_validation="val" in sources)])
    if len(best) < len(labels):
        curves["averaged"] &= curves["label"].isin(best)
        colours, labels = dict.fromkeys(labels, PALE) | palette(best), best
    legend_columns = 5 if max(map(len, labels)) <= 12 else 2
    footer = 0.65 + 0.25 * math.ceil(len(labels) / legend_columns)
    figure, grid = page("Learning curves", caption, (8.8, 2.4), (len(rows), 2), 0.05, footer, share_x=True)
    for (data, source), row in zip(rows, grid, strict=True):
        row[0].set_title(shortened(data) if source == "train" else "")
        for axes, quantity in zip(row, ("loss", "accuracy"), strict=True):
            of_data = curves[curves["data"] == data]
            _draw_models(axes, of_data, f"{source}_{quantity}", colours)
            axes.set_ylabel(f"{SOURCES[source]} {quantity}" + (" (%)" if quantity == "accuracy" else ""))
            _set_limits(axes, of_data, [f"{source}_{quantity}" for source in sources])
    for axes in grid[-1]:
        axes.set_xlabel("epoch")
    handles = [Line2D([], [], color=colours[label], lw=2.5, label=shortened(label)) for label in labels]
    anchor = (0, -0.22)  # under the label of the axis
    grid[-1, 0].legend(handles=handles, loc="upper left", bbox_to_anchor=anchor, ncols=legend_columns, fontsize=11)
    return figure


def best_models(summary: pd.DataFrame, labels: list[str]) -> list[str]:
    """All models in the order given; of many those with the best validation accuracy, where there is one."""
    accuracy = summary[summary["chosen"]].groupby("label")["val_accuracy_mean"].max().nlargest(NUM_BEST)
    if len(labels) <= MOST_MODELS or accuracy.dropna().empty:
        return labels
    return [label for label in labels if label in accuracy.index]


def best_of(best: list[str], labels: list[str]) -> list[str]:
    if len(best) == len(labels):
        return []
    return [f"Coloured: the {len(best)} of {len(labels)} models with the best validation accuracy; grey: the others."]


def accuracy_by_epoch(tables: Tables, label: str, colour: str) -> Figure | None:
    """Training and validation accuracy of one model, and its test accuracy as a level, a panel a data set."""
    curves = _curves(tables)
    curves = curves[curves["label"] == label]
    if curves.empty:
        return None
    data_sets = sorted(curves["data"].unique())
    title, caption = f"{shortened(label)}: accuracy by epoch", " ".join(_caption(curves, others="not shown"))
    figure, grid = page(title, caption, (6.4, 3.4), (len(data_sets), 1), below=0.9)
    for data, axes in zip(data_sets, grid[:, 0], strict=True):
        configurations = tables.summary[(tables.summary["label"] == label) & (tables.summary["data"] == data)]
        of_model = configurations[configurations["chosen"]]
        shown = curves[(curves["data"] == data) & (curves["chosen"] | of_model.empty)]
        for source, look in {"train": {"color": GREY, "ls": "--"}, "val": {"color": colour, "ls": "-"}}.items():
            column = f"{source}_accuracy"
            if shown[column].notna().any():
                _draw_runs(axes, shown, column, look["color"], alpha=0.5)
                _draw_mean(axes, shown[shown["averaged"]], column, label=SOURCES[source], **look)
        levels = 100 * of_model["test_accuracy_mean"]
        ends = zip(100 * of_model["test_accuracy_low"], 100 * of_model["test_accuracy_high"], strict=True)
        for mean, (low, high) in zip(levels, ends, strict=True):
            text = f"test, last epoch: {mean_and_interval(mean, low, high)}"
            axes.axhline(mean, color="black", lw=1.5, ls=":", label=text)
        _set_limits(axes, shown, ["train_accuracy", "val_accuracy"], levels)
        set_title(axes, f"{shortened(data)} · {_configuration(configurations)}")
        axes.set(xlabel="epoch", ylabel="accuracy (%)")
        axes.legend(loc="upper left", bbox_to_anchor=(-0.03, -0.15), ncols=3, fontsize=11, columnspacing=1.5)
    return figure


def _curves(tables: Tables) -> pd.DataFrame:
    """The curves in percent. `chosen`: of a model's chosen configuration; `averaged`: the complete ones among these."""
    of_run = tables.runs[["run_id", "label", "data", "config_id"]].copy()
    of_run["chosen"] = of_run["config_id"].isin(tables.summary.loc[tables.summary["chosen"], "config_id"])
    of_run["averaged"] = of_run["chosen"] & (tables.runs["status"] == "complete")
    curves = tables.curves.merge(of_run, on="run_id")
    curves[["train_accuracy", "val_accuracy"]] *= 100
    return curves[curves["train_loss"].notna() | curves["train_accuracy"].notna()]


def _draw_models(axes: Axes, curves: pd.DataFrame, column: str, colours: dict[str, str]) -> None:
    for label, of_model in curves.groupby("label"):
        colour, averaged = colours[str(label)], of_model["averaged"]
        others = of_model[~averaged]
        faintest = 0.25 if averaged.any() else 0.6
        _draw_runs(axes, others, column, colour, alpha=max(0.06, min(faintest, 4 / (1 + others["run_id"].nunique()))))
        _draw_runs(axes, of_model[averaged], column, colour, alpha=0.45)
        _draw_mean(axes, of_model[averaged], column, color=colour)


def _draw_runs(axes: Axes, curves: pd.DataFrame, column: str, colour: str, alpha: float) -> None:
    """Thin lines, all in one collection: an artist for each would take most of the time with 300 runs."""
    lines = _lines(curves, column)
    dots = [line[0] for line in lines if len(line) == 1]  # a line through one point cannot be seen
    if dots:
        axes.plot(*zip(*dots, strict=True), ".", color=colour, alpha=alpha, ms=4, zorder=2)
    axes.add_collection(LineCollection(lines, colors=colour, alpha=alpha, linewidths=0.8, zorder=2))


def _lines(curves: pd.DataFrame, column: str) -> list[NDArray[Any]]:
    """The points (epoch, value) of each run. Its epochs stand together; a groupby would take 100 times as long."""
    curves = curves[curves[column].notna()]
    ids = curves["run_id"].to_numpy()
    ends = np.flatnonzero(ids[1:] != ids[:-1]) + 1
    return [line for line in np.split(curves[["epoch", column]].to_numpy(), ends) if len(line)]


def _draw_mean(axes: Axes, curves: pd.DataFrame, column: str, **look: Any) -> None:
    mean = curves.groupby("epoch")[column].mean().dropna()
    marker = "o" if len(mean) == 1 else ""
    axes.plot(mean.index, mean, lw=2.5, marker=marker, ms=5, zorder=3, **look)


def _set_limits(axes: Axes, curves: pd.DataFrame, columns: list[str], levels: Iterable[float] = ()) -> None:
    """Shows the averaged runs whole, and the others as far as that leaves room: one that blew up would flatten them."""
    shown = curves[curves["averaged"]] if curves["averaged"].any() else curves
    values = shown[columns].to_numpy(dtype=float).ravel()
    values = np.append(values[np.isfinite(values)], list(levels))
    if len(values):
        margin = max(0.07 * np.ptp(values), 0.02 * np.abs(values).max(), 1e-6)
        axes.set_ylim(values.min() - margin, values.max() + margin)
    last = curves["epoch"].max()
    axes.set_xlim(1 - max(0.03 * last, 0.1), last + max(0.03 * last, 0.1))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, nbins=7))


def _configuration(configurations: pd.DataFrame) -> str:
    """The settings of the chosen one, or why there is none."""
    if not configurations["n"].any():
        return f"{count(int(configurations['n_runs'].sum()), 'run')}, none complete"
    if not configurations["chosen"].any():
        return f"{count(len(configurations), 'configuration')}, none chosen"
    row = configurations[configurations["chosen"]].iloc[0]
    lr = f", lr {row['lr']:.4g}" if pd.notna(row["lr"]) else ""
    return f"{shortened(row['optimizer'], 20)}{lr}, batch size {row['batch_size']} · {count(row['n'], 'seed')}"


def _caption(curves: pd.DataFrame, has_validation: bool = True, others: str = "faint") -> list[str]:
    averaged = curves[curves["averaged"]]
    sentences = []
    if averaged["run_id"].nunique() > averaged["config_id"].nunique():
        sentences.append("Thick: mean over the seeds of a model's configuration. Thin: single runs.")
    if len(averaged) and averaged["config_id"].nunique() < curves["config_id"].nunique():
        sentences.append(f"The configuration was chosen by mean validation accuracy; the others are {others}.")
    if not has_validation:
        to_choose = "" if len(averaged) else " to choose a configuration by"
        sentences.append(f"There was no validation split{to_choose}.")
    return [*sentences, "Training values are taken during the epoch, on augmented images where there are any."]
