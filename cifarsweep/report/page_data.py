"""What the page's script is given: all runs with every column and their curves, and Bokeh to draw them.

Knows nothing of HTML; templates/runs.js reads what is packed here.
"""

import base64
import functools
import gzip
import json
import math
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cifarsweep.report.tables import SETTINGS, Tables

CURVES = ["val_accuracy", "train_accuracy", "val_loss", "train_loss"]
MOST_EPOCHS = 250_000
"""In all curves together: beyond it every second epoch is left out, or more. So many take about 3 MB of the page."""
LARGEST_NUMBER = 2**53
"""Beyond it, a whole number of JSON loses digits in JavaScript."""


@functools.cache
def library() -> str:
    """BokehJS as Bokeh's own package has it, without the address of a source map."""
    spec = find_spec("bokeh")  # importing it takes as long as drawing a figure
    assert spec is not None, "a dependency"
    assert spec.origin is not None
    folder = Path(spec.origin).parent / "server" / "static" / "js"
    scripts = [(folder / f"{name}.min.js").read_text(encoding="utf-8") for name in ("bokeh", "bokeh-api")]
    return "\n".join(script.rpartition("//# sourceMappingURL=")[0] or script for script in scripts)


@functools.cache
def packed_library() -> str:
    return packed(library())


def packed(text: str) -> str:
    """gzip in base64. A third of BokehJS's size, and the same text is always the same bytes."""
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()


def runs(
    tables: Tables, table: pd.DataFrame, titles: dict[str, str], shown: list[str], links: Sequence[Any], source: str
) -> str:
    """JSON: the columns of `table`, which has the runs in the order to show, and their curves.

    `titles` are the columns', `shown` are those that the table begins with, `links` lead to the runs' logs, and
    `source` is the path of the runs in a command.
    """
    keys = [str(key) for key in table if key != "label"]
    settings = [key for key in ["model", *SETTINGS, *tables.settings, "seed"] if key in shown]
    described = {
        "columns": [{"key": key, "title": titles[key], **_values(table[key])} for key in keys],
        "shown": shown,
        "settings": settings,
        "links": links,
        "source": source,
        "curves": _curves(tables.curves, list(table["run_id"])),
    }
    return json.dumps(described, separators=(",", ":"), allow_nan=False)


def _values(column: "pd.Series[Any]") -> dict[str, Any]:
    """A column's values, one where all are the same. Those of a column that is not only of numbers are texts."""
    values = [None if pd.isna(value) else value for value in column.tolist()]
    given = [value for value in values if value is not None]
    is_number = bool(given) and all(isinstance(value, int | float) and not isinstance(value, bool) for value in given)
    if not given and isinstance(column.dtype, pd.Int64Dtype | np.dtypes.Float64DType):
        is_number = True
    told = [value if value is None else _number(value) if is_number else _text(value) for value in values]
    if told and all(value == told[0] and type(value) is type(told[0]) for value in told):
        return {"isNumber": is_number, "same": told[0]}
    return {"isNumber": is_number, "values": told}


def _number(value: float) -> float | str:
    return value if math.isfinite(value) and abs(value) < LARGEST_NUMBER else str(value)


def _text(value: Any) -> Any:
    return value if isinstance(value, bool) else str(value)


def _curves(curves: pd.DataFrame, order: list[str]) -> dict[str, Any]:
    """The epochs of all runs one after another, in the order of the runs: how many each has, and their figures."""
    place = {id: at for at, id in enumerate(order)}
    of_runs = curves.assign(place=curves["run_id"].map(place)).dropna(subset=["place", "epoch"])
    of_runs = of_runs.sort_values(["place", "epoch"], kind="stable")
    every = math.ceil(len(of_runs) / MOST_EPOCHS) or 1
    is_last = of_runs["place"] != of_runs["place"].shift(-1)
    of_runs = of_runs[is_last | (of_runs["epoch"] % every == 0)]
    lengths = of_runs["place"].value_counts().reindex(range(len(order)), fill_value=0)
    known = [key for key in CURVES if of_runs[key].notna().any()]
    figures = {key: [None if math.isnan(x) else float(f"{x:.4g}") for x in of_runs[key]] for key in known}
    return {
        "every": every,
        "lengths": [int(length) for length in lengths],
        "epoch": [int(epoch) for epoch in of_runs["epoch"]],
        "figures": figures,
    }
