"""Figures are the same bytes whatever the user's own settings of matplotlib are."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import matplotlib
import pytest
from conftest import examples, run_python
from hypothesis import given, settings
from hypothesis import strategies as st

from cifarsweep.report import style

HOSTILE = "text.usetex: True\nfont.size: 40\nfigure.facecolor: red\nbackend: qtagg\nsavefig.bbox: tight\nnonsense\n"


def drawn() -> bytes:
    with style.drawing():
        figure, grid = style.page("A title", "A caption.", (6.4, 2.0), (1, 1), 0.45)
        grid[0, 0].plot([1, 2, 3], [2.0, 1.0, 4.0], "o-", label="layers$2$")
        grid[0, 0].legend()
        file = io.BytesIO()
        figure.savefig(file, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return file.getvalue()


def others(key: str, value: Any) -> list[Any]:
    """Values of the same kind that matplotlib accepts for the key."""
    kinds: dict[type, list[Any]] = {bool: [not value], str: ["red", "dashed", "serif", "tight"]}
    candidates = kinds.get(type(value), [3, 0.3, True, "red"])
    accepted = []
    for candidate in candidates:
        try:
            with matplotlib.rc_context({key: candidate}):
                accepted.append(candidate)
        except (ValueError, TypeError, KeyError, RuntimeError):
            continue
    return accepted


CHANGES = [
    (key, other)
    for key, value in matplotlib.rcParamsDefault.items()
    if not key.startswith(("backend", "webagg", "toolbar"))
    for other in others(key, value)
]


@pytest.fixture(scope="module")
def expected() -> bytes:
    return drawn()


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=examples(50))
@given(st.lists(st.sampled_from(CHANGES), min_size=3, max_size=40))
def test_no_setting_of_the_users_changes_a_figure(expected: bytes, changes: list[tuple[str, Any]]) -> None:
    with matplotlib.rc_context(dict(changes)):
        theirs = matplotlib.rcParams.copy()
        assert drawn() == expected
        assert matplotlib.rcParams == theirs


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"MPLBACKEND": "module://matplotlib_inline.backend_inline"},
        {"MPLBACKEND": "nope", "MATPLOTLIBRC": "other"},
        {"LC_ALL": "de_DE.UTF-8", "PYTHONHASHSEED": "7"},
    ],
    ids=str,
)
def test_matplotlib_is_imported_without_what_the_environment_says(tmp_path: Path, environment: dict[str, str]) -> None:
    (tmp_path / "matplotlibrc").write_bytes(HOSTILE.encode() + b"\xff\xfe")
    (tmp_path / "other").write_text(HOSTILE)
    code = "import os, sys\nfrom cifarsweep.report import plain_matplotlib\nplain_matplotlib.load()\n"
    code += "import matplotlib as m\nassert not m.rcParams['text.usetex'] and m.get_backend() == 'agg'\n"
    code += "assert 'matplotlib.pyplot' not in sys.modules\nprint(os.getcwd(), os.environ.get('MPLBACKEND'))"
    done = run_python("-W", "error::UserWarning", "-c", code, cwd=tmp_path, **{"PYTHONUTF8": "1", **environment})
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == [os.path.realpath(tmp_path), str(environment.get("MPLBACKEND"))]
