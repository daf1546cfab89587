"""What each key of a configuration accepts. Plain values in, ValueError out; knows nothing of Hydra or PyTorch,
so that a mistyped value is answered before either a data set or a network is made."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple


class Domain(NamedTuple):
    accepts: Callable[[Any], bool]
    text: str


def whole(low: int, or_none: bool = False) -> Domain:
    def accepts(value: Any) -> bool:
        return (or_none and value is None) or (type(value) is int and low <= value < 2**63)

    return Domain(accepts, f"a whole number, {low} or more" + (", or null" if or_none else ""))


def _number(text: str, inside: Callable[[float], bool]) -> Domain:
    return Domain(lambda value: type(value) in (int, float) and math.isfinite(value) and inside(value), text)


def _one_of(*options: str) -> Domain:
    return Domain(lambda value: value in options, f"one of {', '.join(options)}")


_POSITIVE = _number("a number above 0", lambda x: x > 0)
_NOT_NEGATIVE = _number("a number, 0 or more", lambda x: x >= 0)
_PART = _number("a number from 0 to below 1", lambda x: 0 <= x < 1)
BOOLEAN = Domain(lambda value: type(value) is bool, "true or false")
_FOLDER = Domain(lambda value: isinstance(value, str) and value not in ("", "???") and "\0" not in value, "a folder")
_NAME = Domain(
    lambda value: isinstance(value, str | int | float) and bool(re.fullmatch(r"[\w+-][\w.+ -]{0,99}", str(value))),
    "a folder name of letters, digits and . _ + -",
)
_DEVICE = Domain(
    lambda value: isinstance(value, str) and bool(re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", value)),
    "one of auto, cpu, cuda, cuda:N, mps",
)
_MILESTONES = Domain(
    lambda value: isinstance(value, list) and all(_PART.accepts(x) for x in value),
    "a list of numbers from 0 to below 1",
)
_MATCH = Domain(
    lambda value: (
        value is None or (isinstance(value, str) and bool(re.fullmatch(r"(params|multiply_adds):[1-9]\d*", value)))
    ),
    "params:N or multiply_adds:N with a whole number N, or null",
)

DOMAINS = {
    "batch_size": whole(1),
    "seed": whole(0),
    "name": _NAME,
    "force": BOOLEAN,
    "outputs": _FOLDER,
    "model.depth": whole(1),
    "model.width": whole(1),
    "model.match": _MATCH,
    "model.norm": _one_of("batch", "group", "none"),
    "model.dropout": _PART,
    "model.hidden": whole(1),
    "optimizer.lr": _POSITIVE,
    "optimizer.weight_decay": _NOT_NEGATIVE,
    "optimizer.momentum": _PART,
    "schedule.warmup": _PART,
    "schedule.gamma": _POSITIVE,
    "schedule.milestones": _MILESTONES,
    "loss.label_smoothing": _PART,
    "data.root": _FOLDER,
    "data.cache": _FOLDER,
    "data.size": whole(8),
    "data.val_size": _NOT_NEGATIVE,
    "data.test_size": _POSITIVE,
    "data.subset": whole(1, or_none=True),
    "data.split_seed": whole(0),
    "data.seed": whole(0),
    "data.num_train": whole(10),
    "data.num_test": whole(10),
    "data.augment.crop": whole(0),
    "data.augment.flip": BOOLEAN,
    "data.augment.cutout": whole(0),
    "trainer.epochs": whole(1),
    "trainer.device": _DEVICE,
    "trainer.precision": _one_of("fp32", "bf16"),
    "trainer.threads": whole(1, or_none=True),
    "trainer.compile": BOOLEAN,
    "trainer.deterministic": BOOLEAN,
}
"""Keys that are not here, as those of a user's own model, are checked by whatever takes them."""

_GROUPS = ("model", "optimizer", "schedule", "loss", "data", "trainer")
_REQUIRED = {"batch_size", "seed", "name", "force", "outputs", "optimizer.lr"}
"""With those of the trainer; what else a group's option needs, its constructor says."""


def check(config: Mapping[str, Any]) -> None:
    """ValueError names the first key that is missing or whose value is not accepted, the value, and what would be."""
    for group in _GROUPS:
        if not isinstance(config.get(group), Mapping):
            raise ValueError(f"{group}: missing, expected {group}= and one of the group's options")
    values = dict(flat(config))
    for key, domain in DOMAINS.items():
        if key not in values and (key in _REQUIRED or key.startswith("trainer.")):
            raise ValueError(f"{key}: missing, expected {domain.text}")
    check_values(values)
    _check_together(values)


def check_values(values: Mapping[str, Any]) -> None:
    """ValueError as `check`, for some keys, each under its full name."""
    for key, domain in DOMAINS.items():
        if key in values and not domain.accepts(values[key]):
            raise ValueError(f"{key}={as_typed(values[key])}: expected {domain.text}")


def _check_together(values: Mapping[str, Any]) -> None:
    side = values.get("data.size") or (28 if values.get("data.name") == "fashion_mnist" else 32)
    if values.get("model._target_", "").endswith(".LayersNet"):
        most = int(math.log2(side))
        if values["model.depth"] > most:
            raise ValueError(
                f"model.depth={values['model.depth']}: expected 1 to {most}, as each layer halves the side of images "
                f"of {side}×{side}"
            )
        if values["model.norm"] == "batch" and values["batch_size"] == 1:
            raise ValueError("batch_size=1: expected 2 or more with model.norm=batch, which compares images of a batch")
    if values.get("data.augment.crop", 0) >= side:
        raise ValueError(f"data.augment.crop={values['data.augment.crop']}: expected 0 to {side - 1} pixels")


def as_typed(value: Any) -> str:
    """A value as a command line has it."""
    return str(value).lower() if isinstance(value, bool) else "null" if value is None else str(value)


def flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The values of a configuration, each under its full key: optimizer.lr."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
