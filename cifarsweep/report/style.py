"""How figures look: fonts, colours, labels. Knows nothing of what they show.

Texts are data: names of models are drawn as they are, never read as formulas ($), and shortened where they are long.
"""

import math
import re
import textwrap
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import matplotlib
import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray

from cifarsweep.terminal.formatting import count

Panel = TypeVar("Panel")

RC_PARAMS: Any = {
    "text.parse_math": False,
    "font.size": 12,  # on 6.4 inches: legible where a page shows the figure at half its size
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "legend.frameon": False,
    "savefig.dpi": 200,
    "svg.hashsalt": "cifarsweep",  # the same figure is the same file
    "svg.fonttype": "none",  # text that can be searched and edited, in a third of the bytes that outlines take
}
# Okabe and Ito, "Color Universal Design" (2008), without yellow, which is too pale for lines on white.
OKABE_ITO = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000")
GREY = "#666666"
OUTLINE = [withStroke(linewidth=3, foreground="white")]
"""Of a text over lines and points."""

LEFT = 0.85
"""Inches left of a panel: the label of its y axis and numbers of four digits."""
CHARACTERS = 138
"""Average characters of 1 point in an inch, measured."""
MARGIN = 0.08
"""Free on either side of the values, as a part of the axis."""


@contextmanager
def drawing() -> Iterator[None]:
    """In it, figures look as they should, whatever the user's own settings are.

    A name in a script that the font lacks is drawn as boxes, without a word.
    """
    with matplotlib.rc_context({**matplotlib.rcParamsDefault, **RC_PARAMS}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")
        yield


def page(
    title: str,
    caption: str,
    size: tuple[float, float],
    shape: tuple[int, int],
    below: float,
    footer: float = 0.0,
    share_x: bool = False,
    left: float = LEFT,
) -> tuple[Figure, NDArray[Any]]:
    """A figure with a title, a grid of axes and a caption, placed in inches.

    `size` is the figure's width and each panel's height; each row has `below` under its axis, the last `footer` more.
    Explicit, as matplotlib's constrained layout leaves holes around captions of several lines and takes as long
    as drawing does.
    """
    (width, panel_height), (num_rows, num_columns) = size, shape
    lines = textwrap.wrap(caption, int(CHARACTERS / 10 * (width - 0.3)))
    above, between, under = 0.65, below + 0.35, below + footer + 0.17 * len(lines) + 0.15
    height = above + num_rows * panel_height + (num_rows - 1) * between + under
    panel_width = (width - LEFT - 0.2) / num_columns
    figure = Figure(figsize=(width, height))
    grid = figure.subplots(num_rows, num_columns, squeeze=False, sharex=share_x)
    figure.subplots_adjust(
        left=left / width,
        right=1 - 0.2 / width,
        bottom=under / height,
        top=1 - above / height,
        hspace=between / panel_height,
        wspace=LEFT / (panel_width - LEFT * (num_columns - 1) / num_columns),
    )
    figure.text(left / width, 1 - 0.1 / height, title, va="top", fontsize=14, fontweight="bold")
    figure.text(0.15 / width, 0.1 / height, "\n".join(lines), va="bottom", fontsize=10, color=GREY)
    return figure, grid


def set_title(axes: Axes, text: str) -> None:
    """The title of a panel that has its row alone, in smaller letters where it would go beyond the figure."""
    room = axes.get_figure().get_figwidth() - LEFT - 0.2  # type: ignore[union-attr]
    axes.set_title(text, fontsize=min(11.0, CHARACTERS * room / max(1, len(text))))


def draw_mean(
    axes: Axes, x: float, mean: float, ends: Sequence[float], colour: str, marker: str = "o", size: float = 8
) -> None:
    """A point with the interval from `ends`, where there is one."""
    if not np.isnan(ends).any():
        axes.plot([x, x], ends, "_-", color=colour, lw=2, ms=size + 1, mew=2, zorder=3)
    axes.plot(x, mean, marker, color=colour, ms=size, mec="white", mew=0.8, zorder=4)


def legend_below(axes: Axes, handles: Sequence[Line2D], below: float, ncols: int = 1) -> None:
    """Under the panel; `below` is a part of its height."""
    axes.legend(handles=handles, loc="upper left", bbox_to_anchor=(-0.02, -below), ncols=ncols, fontsize=11)


def spans_factors(values: Iterable[float]) -> bool:
    """Whether a logarithmic axis shows more than a linear one, and can."""
    values = list(values)
    return bool(values) and min(values) > 0 and 3 <= max(values) / min(values) < 1e100


def set_scale(
    axes: Axes,
    which: str,
    low: float,
    high: float,
    log: bool,
    margins: tuple[float, float] = (MARGIN, MARGIN),
    most_powers: int = 6,
) -> Axis:
    """The x or the y axis from `low` to `high`, with margins that are parts of it, and ticks at round numbers."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    below, above = margins
    if log:
        ratio = high / low
        axes.set(**{f"{which}lim": (low / ratio**below, high * ratio**above), f"{which}scale": "log"})
        steps = (1, 2, 3, 5, 7) if ratio < 8 else (1, 2, 5) if ratio < 30 else (1, 3) if ratio < 300 else (1,)
        axis.set_major_locator(LogLocator(subs=steps, numticks=most_powers))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}".replace("e-0", "e-")))  # no formulas
    else:
        length = high - low or max(0.1 * abs(high), 1e-6)
        axes.set(**{f"{which}lim": (low - below * length, high + above * length)})
        axis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
    return axis


def in_rows(panels: list[Panel]) -> tuple[list[list[Panel]], float]:
    """The panels in rows of at most three, and how many inches wide the figure is."""
    columns = 2 if len(panels) in (2, 4) else min(3, len(panels))
    return [panels[at : at + columns] for at in range(0, len(panels), columns)], (6.4, 8.0, 9.6)[columns - 1]


def palette(labels: Sequence[str]) -> dict[str, str]:
    """Colours that colour-blind readers tell apart: Okabe-Ito's as far as they go, else steps from dark to light."""
    if len(labels) <= len(OKABE_ITO):
        return dict(zip(labels, OKABE_ITO, strict=False))
    steps = colormaps["viridis"](np.linspace(0, 0.9, len(labels)))
    return {label: to_hex(colour) for label, colour in zip(labels, steps, strict=True)}


def file_names(labels: Iterable[str], what: str) -> dict[str, str]:
    """<what>_<model>.png for each, safe and different on any file system."""
    names: dict[str, str] = {}
    for label in labels:
        name = stem = f"{what}_" + re.sub(r"[^A-Za-z0-9._+-]+", "_", label)[:80]
        taken = {other.casefold() for other in names.values()}
        number = 1
        while f"{name}.png".casefold() in taken:
            number += 1
            name = f"{stem}-{number}"
        names[label] = f"{name}.png"
    return names


def mean_and_interval(mean: float, low: float, high: float, *, digits: int = 1) -> str:
    """82.0 ± 0.4; 61.0 (22.2 to 100.0) where the interval is cut at an end; 82.0 where there is none."""
    text = f"{mean:.{digits}f}"
    if math.isnan(low) or math.isnan(high):
        return text
    if math.isclose(mean - low, high - mean, abs_tol=1e-9):
        return f"{text} ± {high - mean:.{digits}f}"
    return f"{text} ({low:.{digits}f} to {high:.{digits}f})"


def thousands(count: int) -> str:
    """157 k, 11.2 M: three digits are enough to tell models apart."""
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if count >= size:
            return f"{count / size:.3g}{unit}" if count < 999.5 * size else f"{count / size:.0f}{unit}"
    return str(count)


def span(values: Iterable[Any], noun: str) -> str:
    """5 seeds, or 1 to 5 seeds, where the values differ; nothing where there are none."""
    known = [int(value) for value in values if pd.notna(value)]
    if not known:
        return ""
    low, high = min(known), max(known)
    return count(low, noun) if low == high else f"{low:,} to {count(high, noun)}"
