"""Values that are accepted, and refusals that name key, value and what is accepted."""

from __future__ import annotations

import re
from typing import Any

import pytest

from cifarsweep.training import schema


def config(**changed: Any) -> dict[str, Any]:
    plain: dict[str, Any] = {
        "batch_size": 128,
        "seed": 0,
        "name": "first",
        "force": False,
        "outputs": "outputs",
        "model": {"_target_": "cifarsweep.models.LayersNet", "depth": 3, "width": 16, "norm": "batch", "dropout": 0.0},
        "optimizer": {"_target_": "torch.optim.SGD", "_partial_": True, "lr": 0.1, "weight_decay": 5e-4},
        "schedule": {"_target_": "cifarsweep.optim.onecycle", "_partial_": True, "warmup": 0.25},
        "data": {
            "_target_": "cifarsweep.data.load_torchvision",
            "name": "cifar10",
            "root": "/data",
            "cache": "/cache",
            "val_size": 5000,
            "augment": {"crop": 2},
        },
        "loss": {"_target_": "torch.nn.CrossEntropyLoss", "label_smoothing": 0.1},
        "trainer": {
            "epochs": 8,
            "device": "auto",
            "precision": "fp32",
            "threads": None,
            "compile": False,
            "deterministic": True,
        },
    }
    for key, value in changed.items():
        *groups, last = key.split("__")
        node = plain
        for group in groups:
            node = node[group]
        node[last] = value
    return plain


@pytest.mark.parametrize(
    "changed",
    [
        {"optimizer__lr": 1},
        {"optimizer__lr": 1e-9},
        {"optimizer__weight_decay": 0},
        {"data__val_size": 0},
        {"data__val_size": 0.1},
        {"data__subset": 1},
        {"data__augment": None},
        {"trainer__device": "cuda:1"},
        {"trainer__threads": 2},
        {"name": "2026-01-01_00-00-00"},
        {"name": 7},
        {"name": "mein versuch"},
        {"model": {"_target_": "torchvision.Net", "layers": -1, "norm": ["layer"], "dropout": 2}},
        {"seed": 2**63 - 1},
        {"optimizer__betas": [0.9, 0.99], "optimizer__foreach": None, "optimizer___target_": "torch.optim.AdamW"},
        {"loss__weight": {"_target_": "torch.ones", "_args_": [10]}},
        {"loss": {"_target_": "torch.nn.functional.cross_entropy", "_partial_": True}},
    ],
)
def test_sensible_values_are_accepted(changed: dict[str, Any]) -> None:
    schema.check(config(**changed))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"batch_size": 0}, "batch_size=0: expected a whole number from 1 to"),
        ({"batch_size": 12.5}, "batch_size=12.5: expected a whole number from 1 to"),
        ({"batch_size": True}, "batch_size=true: expected a whole number from 1 to"),
        ({"batch_size": 1}, "batch_size=1: expected 2 or more with model.norm=batch"),
        ({"optimizer__lr": -1}, "optimizer.lr=-1: expected a number above 0"),
        ({"optimizer__lr": 0}, "optimizer.lr=0: expected a number above 0"),
        ({"optimizer__lr": "abc"}, "optimizer.lr=abc: expected a number above 0"),
        ({"optimizer__lr": float("nan")}, "optimizer.lr=nan: expected a number above 0"),
        ({"optimizer__lr": float("inf")}, "optimizer.lr=inf: expected a number above 0"),
        ({"optimizer__lr": None}, "optimizer.lr=null: expected a number above 0"),
        ({"trainer__epochs": 0}, "trainer.epochs=0: expected a whole number from 1 to"),
        ({"trainer__device": "gpu"}, "trainer.device=gpu: expected one of auto, cpu, cuda, cuda:N, mps"),
        ({"trainer__precision": "fp16"}, "trainer.precision=fp16: expected one of fp32, bf16"),
        ({"model__depth": 6}, "model.depth=6: expected 1 to 5, as each layer halves the side of images of 32×32"),
        ({"model__depth": 5, "data__name": "fashion_mnist"}, "model.depth=5: expected 1 to 4"),
        (
            {"model__match": "flops:5"},
            "model.match=flops:5: expected params:N or multiply_adds:N with a whole number N",
        ),
        ({"model__match": "params:1e5"}, "model.match=params:1e5: expected params:N or multiply_adds:N"),
        ({"model__dropout": 1.0}, "model.dropout=1.0: expected a number from 0 to below 1"),
        ({"model__norm": "layer"}, "model.norm=layer: expected one of batch, group, none"),
        ({"schedule__warmup": 1}, "schedule.warmup=1: expected a number from 0 to below 1"),
        ({"seed": -1}, "seed=-1: expected a whole number, 0 or more"),
        ({"seed": 2**63}, "seed=9223372036854775808: expected a whole number"),
        (
            {"data__val_size": -5},
            "data.val_size=-5: expected a whole number of images from 0 to 10000000, or a part of them below 1",
        ),
        ({"data__root": "???"}, "data.root=???: expected a folder"),
        ({"data__augment__crop": 32}, "data.augment.crop=32: expected 0 to 31 pixels"),
        ({"data__val_size": 1.5}, "data.val_size=1.5: expected a whole number of images"),
        ({"data__name": None}, "data.name=null: expected a name"),
        ({"data__name": "imagenet"}, "data.name=imagenet: expected one of cifar10, cifar100, fashion_mnist"),
        ({"data__augment__cutout": 33}, "data.augment.cutout=33: expected 0 to 32 pixels"),
        ({"data__augment": 3}, "data.augment=3: expected crop, flip and cutout, or null"),
        ({"data__augment__zoom": 3}, "data.augment.zoom: no such key; data.augment accepts crop, flip, cutout"),
        ({"trainer__threads": 100_000}, "trainer.threads=100000: expected a whole number from 1 to 1024, or null"),
        ({"trainer__nope": 1}, "trainer.nope: no such key; trainer accepts epochs, device, precision, threads"),
        ({"nope": 1}, "nope: no such key; expected one of model, optimizer, schedule, loss, data, trainer"),
        ({"model__nope": 1}, "model.nope: no such key; model accepts depth, width, norm, dropout, hidden"),
        ({"model__num_classes": 1}, "model.num_classes: no such key"),
        ({"model__width": 100_000_000}, "model.width=100000000: expected a whole number from 1 to 65536"),
        ({"model___target_": 5}, "model._target_=5: expected the dotted name of a class"),
        ({"model___target_": "nope.Net"}, "model._target_=nope.Net: no package or module nope"),
        ({"model___partial_": 3}, "model._partial_=3: expected true or false"),
        ({"model": {"_target_": "torchvision.Net", "x": {"y": "???"}}}, "model.x.y=???: expected a value"),
        ({"model": {"_target_": "torchvision.Net", "depth": [1]}}, "model.depth=[1]: expected a whole number"),
        ({"optimizer__foreach": "abc"}, "optimizer.foreach=abc: expected true or false or null"),
        ({"optimizer__lr": 10**400}, "optimizer.lr=1000"),
        ({"loss__ignore_index": "abc"}, "loss.ignore_index=abc: expected a whole number"),
        ({"batch_size": {"a": 1}}, "batch_size={a: 1}: expected a whole number"),
        ({"name": "猫" * 100}, "expected a folder name"),
        ({"name": "../up"}, "name=../up: expected a folder name"),
        ({"name": ".hidden"}, "name=.hidden: expected a folder name"),
        ({"name": "a\0b"}, "expected a folder name"),
        ({"name": "x" * 300}, "expected a folder name"),
    ],
)
def test_a_value_outside_its_domain_is_refused_by_name(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        schema.check(config(**changed))
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("batch_size", "batch_size: missing, expected a whole number from 1 to"),
        ("trainer", "trainer: missing, expected trainer= and one of the group's options"),
        ("trainer.epochs", "trainer.epochs: missing, expected a whole number from 1 to"),
        ("model.depth", "model.depth: missing, expected a whole number from 1 to"),
        ("model._target_", "model._target_: missing, expected the dotted name of a class"),
        ("data.cache", "data.cache: missing, expected a folder"),
        ("optimizer.lr", "optimizer.lr: missing, expected a number above 0"),
    ],
)
def test_a_key_that_is_not_there_is_named(missing: str, message: str) -> None:
    without = config()
    *groups, last = missing.split(".")
    node = without
    for group in groups:
        node = node[group]
    del node[last]
    with pytest.raises(ValueError, match=re.escape(message)):
        schema.check(without)
