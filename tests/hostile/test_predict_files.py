"""model.pt of a stranger: whatever it holds, predict gives probabilities or one line."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cifarsweep import models, predict

ARGUMENTS = {"depth": 1, "width": 2, "norm": "batch", "hidden": 4, "image_size": 8, "num_classes": 2}


def written() -> dict[str, Any]:
    """What a run writes, see training/run_files.py."""
    return {
        "target": "cifarsweep.models.LayersNet",
        "arguments": dict(ARGUMENTS),
        "state_dict": dict(models.LayersNet(**ARGUMENTS).state_dict()),  # type: ignore[arg-type]
        "class_names": ["rose", "sky"],
        "mean": [0.5, 0.5, 0.5],
        "std": [0.25, 0.25, 0.25],
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    (folder / "result.json").write_text('{"status": "complete"}')  # without digests, as an earlier version wrote it
    Image.new("RGB", (8, 8), (250, 0, 20)).save(folder / "red.png")
    return folder


numbers = st.integers() | st.floats() | st.sampled_from([0, -1, 2**31, 2**63, 10**30, 0.0, 1e-45])
plain = st.none() | st.booleans() | numbers | st.text() | st.binary()
tensors = st.builds(
    lambda shape, kind: torch.zeros(shape, dtype=kind),
    st.lists(st.integers(0, 4), max_size=4),
    st.sampled_from([torch.float32, torch.float64, torch.int64, torch.bool, torch.complex64, torch.bfloat16]),
)
anything = st.recursive(
    plain | tensors,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text() | st.integers(), inner, max_size=3),
)


@st.composite
def contents(draw: st.DrawFn) -> Any:
    """One to three values of a model file, at any depth, replaced or taken away."""
    content = written()
    for _ in range(draw(st.integers(1, 3))):
        node: Any = content
        while True:
            key = draw(st.sampled_from(list(node) if isinstance(node, dict) else range(len(node))))
            if draw(st.booleans()) and isinstance(node[key], dict | list) and node[key]:
                node = node[key]
                continue
            if draw(st.booleans()):
                del node[key]
            else:
                node[key] = draw(anything)
            break
        if not content:
            break
    return draw(anything) if draw(st.integers(0, 9)) == 0 else content


def answer(folder: Path) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = predict.main([str(folder), str(folder / "red.png")])
    return code, out.getvalue(), err.getvalue()


@given(content=contents())
def test_whatever_a_model_file_holds_is_answered_in_one_line(folder: Path, content: Any) -> None:
    torch.save(content, folder / "model.pt")
    code, out, err = answer(folder)
    assert code in (0, 1)
    assert (out if code == 0 else err).count("\n") == 1
    assert (err if code == 0 else out) == ""
    assert "nan" not in out
    if code:
        assert err.startswith((f"{folder / 'model.pt'}: not a model file", f"{folder / 'red.png'}: the network gives"))


@given(data=st.binary(max_size=200), at=st.integers(0, 10**4))
def test_whatever_bytes_are_in_a_model_file_is_answered_in_one_line(folder: Path, data: bytes, at: int) -> None:
    torch.save(written(), folder / "model.pt")
    whole = (folder / "model.pt").read_bytes()
    at %= len(whole)
    for damaged in (data, whole[:at], whole[:at] + data + whole[at + len(data) :]):
        (folder / "model.pt").write_bytes(damaged)
        code, out, err = answer(folder)
        assert code in (0, 1)
        assert (out + err).count("\n") == 1
