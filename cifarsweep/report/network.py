"""The diagram of a network: a row a layer. Knows the record of a run's layers only."""

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from cifarsweep.report.style import GREY, page, thousands
from cifarsweep.results.records import Layer
from cifarsweep.terminal.formatting import count, shortened

MOST_ROWS = 36
"""Of more layers those that change neither shape nor work are drawn in one row with the layer before."""
MOST_FOLDED = 80
"""Of more rows, the middle ones are left out."""
# Pale enough for black text; which is which is said by the text.
COLOURS = {"Conv": "#cfe3f2", "Pool": "#fbe6bf", "Norm": "#e9e9e9", "Linear": "#c9e8dd"}
OTHER = "#f6f6f6"
BAR = "#d5d5d5"
ROW = 0.29
"""Inches."""
# Left edges and widths in inches, from left to right: the size of the output, the layer, its output, its two costs.
SIZE, LAYER, SHAPE, PARAMS, WORK = (0.55, 0.62), (1.25, 2.9), (4.25, 1.1), (5.45, 0.95), (6.5, 1.0)
WIDTH = 7.6


def diagram(label: str, layers: Sequence[Layer]) -> Figure | None:
    """Each layer with the shape of its output for one image, parameters and multiply-adds; None without layers."""
    if not layers:
        return None
    rows = folded(layers) if len(layers) > MOST_ROWS else list(layers)
    shown = list(range(len(rows)))
    if len(rows) > MOST_FOLDED:
        shown = [*shown[: MOST_FOLDED // 2], *shown[-MOST_FOLDED // 2 :]]
    caption = "For one image: channels × height × width. Left: the height and, logarithmic, the channels of the output."
    if len(shown) < len(rows):
        caption += f" {count(len(rows) - len(shown), 'row')} in the middle are left out."
    height = ROW * (len(shown) + 3)
    figure, grid = page(shortened(label, 40), caption, (WIDTH, height), (1, 1), 0.0, left=0.15)
    figure.subplots_adjust(left=0, right=1)
    axes = grid[0, 0]
    axes.set_axis_off()
    axes.set(xlim=(0, WIDTH), ylim=(len(shown) + 2.5, -0.5))
    for (left, width), text in ((SHAPE, "output"), (PARAMS, "parameters"), (WORK, "multiply-adds")):
        axes.text(left + width, 0, text, ha="right", va="center", fontsize=10, color=GREY)
    axes.text(LAYER[0] + 0.1, 0, "image", va="center", fontsize=11)
    ys = {0: 0.0, **{at + 1: y + 1.0 for y, at in enumerate(shown)}}
    _draw_rows(axes, [rows[at] for at in shown], [ys[at + 1] for at in shown])
    _draw_connections(axes, rows, ys)
    y = len(shown) + 1.35
    axes.plot([LAYER[0], sum(WORK)], [y - 0.5, y - 0.5], color="#999999", lw=0.8)
    axes.text(LAYER[0] + 0.1, y, f"total of {count(len(layers), 'layer')}", va="center", fontsize=10)
    for (left, width), key in ((PARAMS, "params"), (WORK, "multiply_adds")):
        total = sum(getattr(layer, key) for layer in layers)
        axes.text(left + width, y, _number(total), ha="right", va="center", fontsize=10, fontweight="bold")
    return figure


def folded(layers: Sequence[Layer]) -> list[Layer]:
    """A layer joins the one before where it alone takes its output, keeps the shape and multiplies nothing."""
    takers: dict[int, set[int]] = {}
    for at, layer in enumerate(layers, 1):
        for source in layer.inputs:
            takers.setdefault(source, set()).add(at)
    rows: list[Layer] = []
    row_of = {0: 0}
    for at, layer in enumerate(layers, 1):
        before = layers[at - 2] if at > 1 else None
        joins = before and layer.inputs == (at - 1,) and takers[at - 1] == {at} and layer.shape == before.shape
        if joins and not layer.multiply_adds:
            last = rows[-1]
            kinds = last.kind if layer.kind == "Identity" else f"{last.kind} → {layer.kind}"
            rows[-1] = last._replace(kind=kinds, params=last.params + layer.params)
        else:
            rows.append(layer._replace(inputs=tuple(dict.fromkeys(row_of[source] for source in layer.inputs))))
        row_of[at] = len(rows)
    return rows


def _draw_rows(axes: Axes, rows: Sequence[Layer], ys: Sequence[float]) -> None:
    highest = max((row.shape[1] for row in rows if len(row.shape) == 3), default=1)
    widest = max((math.log2(1 + row.shape[0]) for row in rows if row.shape), default=1.0)
    most = {key: max([1, *(getattr(row, key) for row in rows)]) for key in ("params", "multiply_adds")}
    boxes, bars = [], []
    for row, y in zip(rows, ys, strict=True):
        colour = next((colour for part, colour in COLOURS.items() if part in row.kind), OTHER)
        boxes.append(Rectangle((LAYER[0], y - 0.41), LAYER[1], 0.82, fc=colour))
        axes.text(LAYER[0] + 0.1, y, shortened(row.kind, 43), va="center", fontsize=10 if len(row.kind) < 33 else 8)
        if row.shape:
            width = SIZE[1] * math.log2(1 + row.shape[0]) / widest
            tall = max(0.07, 0.82 * row.shape[1] / highest if len(row.shape) == 3 else 0)
            boxes.append(Rectangle((SIZE[0] + (SIZE[1] - width) / 2, y - tall / 2), width, tall, fc=colour))
        axes.text(sum(SHAPE), y, " × ".join(map(str, row.shape)) or "1", ha="right", va="center", fontsize=10)
        for (left, width), key in ((PARAMS, "params"), (WORK, "multiply_adds")):
            value = getattr(row, key)
            if value:
                long = width * value / most[key]
                bars.append(Rectangle((left + width - long, y + 0.22), long, 0.16, fc=BAR))
                axes.text(left + width, y - 0.04, _number(value), ha="right", va="center", fontsize=10)
    for patches, edge in ((boxes, "#999999"), (bars, "none")):  # as two collections: half the time of single ones
        collection = PatchCollection(patches, match_original=True)
        collection.set(edgecolor=edge, linewidth=0.6)
        axes.add_collection(collection)


def _draw_connections(axes: Axes, rows: Sequence[Layer], ys: dict[int, float]) -> None:
    """An arrow from each row to the next that takes it; others around the left side."""
    shown = [(source, at) for at, row in enumerate(rows, 1) for source in row.inputs if at in ys and source in ys]
    into = [ys[at] - 0.47 for source, at in shown if source == at - 1]
    axes.plot([LAYER[0] + 0.05] * len(into), into, "v", color="black", ms=2.5)
    for source, at in shown:
        if source != at - 1:
            x = max(0.1, 0.45 - 0.05 * (ys[at] - ys[source]))
            axes.plot([SIZE[0], x, x, SIZE[0]], [ys[source], ys[source], ys[at], ys[at]], color="#555555", lw=0.9)
            axes.plot(SIZE[0], ys[at], ">", color="#555555", ms=3.5)


def _number(value: int) -> str:
    return f"{value:,}" if value < 10_000_000 else thousands(value)
