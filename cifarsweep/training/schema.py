"""What each key of a configuration accepts. Plain values in, ValueError out; knows nothing of Hydra or PyTorch,
so that a mistyped value is answered before either a data set or a network is made."""

import math
import re
from collections.abc import Mapping
from typing import Any

from cifarsweep.terminal import domains
from cifarsweep.terminal.domains import Domain


def _matching(pattern: str, text: str) -> Domain:
    return Domain(lambda value: isinstance(value, str | int | float) and bool(re.fullmatch(pattern, str(value))), text)


_POSITIVE = domains.number("a number above 0", lambda x: x > 0)
_NOT_NEGATIVE = domains.number("a number, 0 or more", lambda x: x >= 0)
_PART = domains.number("a number from 0 to below 1", lambda x: 0 <= x < 1)
_FOLDER = Domain(lambda value: isinstance(value, str) and value not in ("", "???") and "\0" not in value, "a folder")

DOMAINS = {
    "batch_size": domains.whole(1),
    "seed": domains.whole(0),
    "name": _matching(r"[\w+-][\w.+ -]{0,99}", "a folder name of letters, digits and . _ + -"),
    "force": domains.BOOLEAN,
    "outputs": _FOLDER,
    "model.depth": domains.whole(1),
    "model.width": domains.whole(1),
    "model.match": _matching(
        r"(params|multiply_adds):[1-9]\d*", "params:N or multiply_adds:N with a whole number N"
    ).or_null(),
    "model.norm": domains.one_of("batch", "group", "none"),
    "model.dropout": _PART,
    "model.hidden": domains.whole(1),
    "optimizer.lr": _POSITIVE,
    "optimizer.weight_decay": _NOT_NEGATIVE,
    "optimizer.momentum": _PART,
    "schedule.warmup": _PART,
    "schedule.gamma": _POSITIVE,
    "schedule.milestones": Domain(
        lambda value: isinstance(value, list) and all(_PART.accepts(x) for x in value),
        "a list of numbers from 0 to below 1",
    ),
    "loss.label_smoothing": _PART,
    "data.root": _FOLDER,
    "data.cache": _FOLDER,
    "data.size": domains.whole(8),
    "data.val_size": _NOT_NEGATIVE,
    "data.test_size": _POSITIVE,
    "data.subset": domains.whole(1).or_null(),
    "data.split_seed": domains.whole(0),
    "data.seed": domains.whole(0),
    "data.num_train": domains.whole(10),
    "data.num_test": domains.whole(10),
    "data.augment.crop": domains.whole(0),
    "data.augment.flip": domains.BOOLEAN,
    "data.augment.cutout": domains.whole(0),
    "trainer.epochs": domains.whole(1),
    "trainer.device": _matching(r"auto|cpu|mps|cuda(:\d+)?", "one of auto, cpu, cuda, cuda:N, mps"),
    "trainer.precision": domains.one_of("fp32", "bf16"),
    "trainer.threads": domains.whole(1).or_null(),
    "trainer.compile": domains.BOOLEAN,
    "trainer.deterministic": domains.BOOLEAN,
}
"""Keys that are not here, such as those of a user's own model, are checked by whatever takes them."""

_REQUIRED = {"batch_size", "seed", "name", "force", "outputs", "optimizer.lr"}
"""And every key of the trainer. A constructor says what else its group needs."""


def check(config: Mapping[str, Any]) -> None:
    """ValueError names the first key that is missing or whose value is not accepted, the value, and what would be."""
    for group in ("model", "optimizer", "schedule", "loss", "data", "trainer"):
        if not isinstance(config.get(group), Mapping):
            raise ValueError(f"{group}: missing, expected {group}= and one of the group's options")
    values = dict(domains.flat(config))
    for key, domain in DOMAINS.items():
        if key not in values and (key in _REQUIRED or key.startswith("trainer.")):
            raise ValueError(f"{key}: missing, expected {domain.text}")
    check_values(values)
    side = values.get("data.size") or (28 if values.get("data.name") == "fashion_mnist" else 32)
    if values.get("model._target_", "").endswith(".LayersNet"):
        depth, most = values["model.depth"], int(math.log2(side))
        if depth > most:
            reason = f"as each layer halves the side of images of {side}×{side}"
            raise ValueError(f"model.depth={depth}: expected 1 to {most}, {reason}")
        if values["model.norm"] == "batch" and values["batch_size"] == 1:
            raise ValueError("batch_size=1: expected 2 or more with model.norm=batch, which compares images of a batch")
    if values.get("data.augment.crop", 0) >= side:
        raise ValueError(f"data.augment.crop={values['data.augment.crop']}: expected 0 to {side - 1} pixels")


def check_values(values: Mapping[str, Any]) -> None:
    """Like `check`, for some keys, each under its full name."""
    for key, domain in DOMAINS.items():
        if key in values and not domain.accepts(values[key]):
            raise ValueError(f"{key}={domains.as_typed(values[key])}: expected {domain.text}")
