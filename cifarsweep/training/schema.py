"""What each key of a configuration accepts. Plain values in, ValueError out; imports neither Hydra nor PyTorch,
so that a mistyped value is answered before either a data set or a network is made."""

import math
import re
from collections.abc import Mapping
from typing import Any

from cifarsweep.terminal import domains
from cifarsweep.terminal.domains import Domain
from cifarsweep.training import signatures


def _matching(pattern: str, text: str) -> Domain:
    return Domain(lambda value: isinstance(value, str | int | float) and bool(re.fullmatch(pattern, str(value))), text)


MOST_IMAGES = 10_000_000
MOST_WIDTH = 2**16
MOST_THREADS = 1024
"""More than the largest machines have cores. OpenMP ends the process by SIGSEGV where it can start no more."""

_LARGE = 1e38  # about what float32 holds, as the weights are
_PART = domains.number("a number from 0 to below 1", lambda x: 0 <= x < 1)
_FOLDER = Domain(lambda value: isinstance(value, str) and value not in ("", "???") and "\0" not in value, "a folder")

_NAME = _matching(r"[\w][\w./ -]{0,99}", "a name of up to 100 letters, digits and . _ / -")


def _images(at_least: int) -> Domain:
    return domains.number(
        f"a whole number of images from {at_least} to {MOST_IMAGES}, or a part of them below 1",
        lambda x: 0 < x < 1 or (x == int(x) and at_least <= x <= MOST_IMAGES),
    )


DOMAINS = {
    "batch_size": domains.whole(1, MOST_IMAGES),
    "seed": domains.whole(0),
    "name": Domain(
        lambda value: _matching(r"[\w+-][\w.+ -]{0,99}", "").accepts(value) and len(str(value).encode()) <= 200,
        "a folder name of up to 100 letters, digits and . _ + -",
    ),
    "force": domains.BOOLEAN,
    "outputs": _FOLDER,
    "model.depth": domains.whole(1, 1000),
    "model.width": domains.whole(1, MOST_WIDTH),
    "model.expansion": domains.whole(1, 1024),
    "model.match": _matching(
        r"(params|multiply_adds):[1-9]\d{0,17}", "params:N or multiply_adds:N with a whole number N"
    ).or_null(),
    "model.activation": domains.one_of("gelu", "silu", "relu"),
    "model.norm": domains.one_of("batch", "group", "none"),
    "model.dropout": _PART,
    "model.hidden": domains.whole(1, MOST_WIDTH),
    "model.in_channels": Domain(lambda value: type(value) is int and value == 3, "3, as images have three channels"),
    "optimizer.lr": domains.number("a number above 0, up to 1e38", lambda x: 0 < x <= _LARGE),
    "optimizer.weight_decay": domains.number("a number from 0 to 1e38", lambda x: 0 <= x <= _LARGE),
    "optimizer.momentum": _PART,
    "optimizer.relative_lr": domains.number("a number above 0, up to 1e38", lambda x: 0 < x <= _LARGE).or_null(),
    "schedule.warmup": _PART,
    "schedule.gamma": domains.number("a number above 0, up to 10", lambda x: 0 < x <= 10),
    "schedule.milestones": domains.list_of(_PART),
    "loss.label_smoothing": _PART,
    "data.name": _matching(r"[^\W\d_].{0,99}", "a name of up to 100 characters"),
    "data.root": _FOLDER,
    "data.url": _matching(r"https?://\S+", "an address that begins with http:// or https://").or_null(),
    "data.cache": _FOLDER,
    "data.size": domains.whole(8, 1024),
    "data.val_size": _images(0),
    "data.test_size": _images(1),
    "data.subset": domains.whole(1, MOST_IMAGES).or_null(),
    "data.split_seed": domains.whole(0),
    "data.seed": domains.whole(0),
    "data.num_train": domains.whole(10, MOST_IMAGES),
    "data.num_test": domains.whole(10, MOST_IMAGES),
    "data.augment.crop": domains.whole(0, 1023),
    "data.augment.flip": Domain(
        lambda value: type(value) is bool or value == "alternating", "true, false or alternating"
    ),
    "data.augment.cutout": domains.whole(0, 1024),
    "tracker.tensorboard.folder": _FOLDER.or_null(),
    "tracker.mlflow.uri": domains.TEXT.or_null(),
    "tracker.mlflow.experiment": _NAME,
    "tracker.wandb.project": _NAME,
    "tracker.wandb.entity": _NAME.or_null(),
    "tracker.wandb.mode": domains.one_of("online", "offline").or_null(),
    "tracker.trackio.project": _NAME,
    "tracker.trackio.space_id": _NAME.or_null(),
    "trainer.epochs": domains.whole(1, 1_000_000),
    "trainer.device": _matching(r"auto|cpu|mps|cuda(:\d{1,3})?", "one of auto, cpu, cuda, cuda:N, mps"),
    "trainer.precision": domains.one_of("fp32", "bf16"),
    "trainer.threads": domains.whole(1, MOST_THREADS).or_null(),
    "trainer.checkpoint_seconds": domains.number("a number of seconds above 0", lambda x: x > 0).or_null(),
    "trainer.test_mirrored": domains.BOOLEAN,
    "trainer.compile": domains.BOOLEAN,
    "trainer.deterministic": domains.BOOLEAN,
}
"""What a key accepts, beside what the annotations of its class say: for the classes whose source is read."""

_OF_ANY_CLASS = ("model.depth", "model.width", "model.match", "optimizer.lr")
"""A run records them, so they mean the same for a class of a user's own, whose other arguments are its own business."""

_TARGET = Domain(
    lambda value: isinstance(value, str) and re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)+", value) is not None,
    "the dotted name of a class or function, such as torch.optim.SGD",
)
_OF_HYDRA = {
    "_target_": _TARGET,
    "_partial_": domains.BOOLEAN,
    "_recursive_": domains.BOOLEAN,
    "_convert_": domains.one_of("none", "partial", "object", "all"),
}
"""What `instantiate` takes in any group."""

_FROM_THE_RUN = {"model": ["image_size", "num_classes"], "optimizer": ["params"], "schedule": ["step", "num_steps"]}
"""Arguments that a run gives itself."""
_PARTIAL = Domain(lambda value: value is True, "true, as a run gives the rest of the arguments")

CALLS = ("model", "optimizer", "schedule", "loss", "data")
"""Groups that name a class or function and its arguments."""


_NEWER = {"checkpoint_seconds": None, "test_mirrored": False}
"""Of the trainer: what a configuration from before these keys means."""


def check(config: Mapping[str, Any]) -> None:
    """ValueError names the first key that is missing, unknown, or whose value is not accepted, and what would be."""
    for group in (*CALLS, "trainer"):
        if not isinstance(config.get(group), Mapping):
            raise ValueError(f"{group}: missing, expected {group}= and one of the group's options")
    known = {**dict.fromkeys((*CALLS, "trainer", "tracker"), domains.ANYTHING), **_below("")}
    domains.check("", {"tracker": None, **config}, known)
    _check_trackers(config.get("tracker") or {})
    domains.check("trainer.", {**_NEWER, **config["trainer"]}, _below("trainer."))
    for group in CALLS:
        _check_call(group, config[group])
    for key, value in domains.flat(config):
        if value == "???":
            raise ValueError(f"{key}=???: expected a value")
        if not _is_finite(value):  # of an argument that takes anything; what a run is named after has no such number
            raise ValueError(f"{key}={domains.as_typed(value)}: expected finite numbers")
    if config["data"]["_target_"].startswith("cifarsweep.data."):
        _check_images(config)
    of_layers = config["model"]["_target_"].endswith(".LayersNet")
    if of_layers and config["batch_size"] == 1 and config["model"].get("norm", "batch") == "batch":
        raise ValueError("batch_size=1: expected 2 or more with model.norm=batch, which compares images of a batch")


def _check_trackers(chosen: Mapping[str, Any]) -> None:
    options = {key.split(".")[1]: domains.ANYTHING for key in DOMAINS if key.startswith("tracker.")}
    domains.check_keys("tracker.", chosen, options)
    for name, keys in chosen.items():
        domains.check(f"tracker.{name}.", keys, _below(f"tracker.{name}."))


def _is_finite(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(map(_is_finite, value.values()))
    if isinstance(value, list):
        return all(map(_is_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


def check_values(values: Mapping[str, Any]) -> None:
    """ValueError where the value of one of these keys, each under its full name, is not accepted."""
    domains.check_values("", values, {key: DOMAINS[key] for key in values})


def _below(prefix: str) -> dict[str, Domain]:
    """The domains of the keys directly below it."""
    below = {key.removeprefix(prefix): domain for key, domain in DOMAINS.items() if key.startswith(prefix)}
    return {key: domain for key, domain in below.items() if "." not in key}


def _check_call(group: str, values: Mapping[str, Any]) -> None:
    """What a group's class is called with: its own parameters, of the kinds that it says, within our domains."""
    domains.check_values(f"{group}.", values, {"_target_": _OF_HYDRA["_target_"]})
    target = values["_target_"]
    if not signatures.is_installed(target):
        package = target.partition(".")[0]
        raise ValueError(f"{group}._target_={target}: no package or module {package}, expected {_TARGET.text}")
    parameters = signatures.parameters(target)
    accepted = {key: domain for key, domain in _OF_HYDRA.items() if key in values}
    if parameters is None:
        always = (key.rpartition(".")[2] for key in _OF_ANY_CLASS if key.startswith(f"{group}."))
        accepted |= {key: DOMAINS[f"{group}.{key}"] for key in always if key in values}
    else:
        own = {key: given for key, given in parameters.items() if key not in _FROM_THE_RUN.get(group, ())}
        domains.check_keys(f"{group}.", values, [*own, *accepted])
        accepted |= {
            key: DOMAINS.get(f"{group}.{key}", given.domain)
            for key, given in own.items()
            if key in values or (given.is_required and not values.get("_partial_"))
        }
        if group in ("optimizer", "schedule"):
            accepted["_partial_"] = _PARTIAL
    if group == "optimizer":
        accepted["lr"] = DOMAINS["optimizer.lr"]  # PyTorch has defaults, but a run records it
    domains.check_values(f"{group}.", values, accepted)


def _check_images(config: Mapping[str, Any]) -> None:
    """What depends on the size of the images, in a data set of ours."""
    data, augment = config["data"], config["data"].get("augment")
    names = ("cifar10", "cifar100", "fashion_mnist")
    if data["_target_"].endswith(".load_torchvision") and data["name"] not in names:
        raise ValueError(f"data.name={data['name']}: expected one of {', '.join(names)}")
    side = data.get("size") or (28 if data.get("name") == "fashion_mnist" else 32)
    if augment is not None:
        if not isinstance(augment, Mapping):
            raise ValueError(f"data.augment={domains.as_typed(augment)}: expected crop, flip and cutout, or null")
        prefix, accepted = "data.augment.", _below("data.augment.")
        domains.check_keys(prefix, augment, accepted)
        domains.check_values(prefix, augment, {key: accepted[key] for key in augment})
        for key, most in (("crop", side - 1), ("cutout", side)):
            if augment.get(key, 0) > most:
                raise ValueError(f"data.augment.{key}={augment[key]}: expected 0 to {most} pixels")
    if config["model"]["_target_"].endswith(".LayersNet"):
        depth, most = config["model"]["depth"], int(math.log2(side))
        if depth > most:
            reason = f"as each layer halves the side of images of {side}×{side}"
            raise ValueError(f"model.depth={depth}: expected 1 to {most}, {reason}")
