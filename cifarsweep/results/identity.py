"""What makes two runs the same: a hash of what determines their result. Knows no files."""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

FORMAT = 1
"""Version of the on-disk format. It is part of every run_id, so that runs of two formats never mix."""

_DETERMINES = ("data", "model", "optimizer", "schedule", "loss", "trainer", "batch_size", "seed")

DOES_NOT_DETERMINE = {
    "data": {"_target_", "name", "root", "url", "cache"},
    "trainer": {"device", "threads", "compile", "deterministic", "checkpoint_seconds"},
}

_MEANS_NOTHING = [("match", None), ("test_mirrored", False), ("relative_lr", None)]
"""A key with this value is left out, so that runs from before it existed are found. match=null: the model keeps its own
width; test_mirrored=false: the test is as it was; relative_lr=null: all weights have one learning rate."""


def identity(config: Mapping[str, Any], data_fingerprint: str) -> dict[str, Any]:
    """The part of a resolved configuration that determines the result, with the data named by its content."""
    what: dict[str, Any] = {}
    for key in _DETERMINES:
        value = config[key]
        if isinstance(value, Mapping):
            left_out = DOES_NOT_DETERMINE.get(key, set()) | {"_partial_"}
            value = {k: v for k, v in value.items() if k not in left_out and (k, v) not in _MEANS_NOTHING}
        what[key] = value
    what["data"]["fingerprint"] = data_fingerprint
    what["format"] = FORMAT
    return what


def run_id(what: Mapping[str, Any]) -> str:
    """Twelve hexadecimal digits, equal for configurations that mean the same (0.1 and 1e-1, 1 and 1.0)."""
    text = json.dumps(_canonical(what), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def config_id(what: Mapping[str, Any]) -> str:
    """Like run_id, but shared by runs that differ in their seed only: the rows that a mean is taken over."""
    return run_id({key: value for key, value in what.items() if key != "seed"})


def _canonical(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _canonical(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_canonical(v) for v in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def slug(model: str, optimizer: str, lr: float, batch_size: int, seed: int) -> str:
    """A readable name for a run: layers3-momentum-lr0.1-bs128-s0. Safe as a folder name on any system."""
    text = f"{model}-{optimizer}-lr{lr:g}-bs{batch_size}-s{seed}"
    return re.sub(r"[^A-Za-z0-9._+-]+", "_", text).lstrip(".")[:100]
