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
        "optimizer": {"lr": 0.1, "weight_decay": 5e-4},
        "schedule": {"warmup": 0.25},
        "data": {"name": "cifar10", "root": "/data", "val_size": 5000, "subset": None, "augment": {"crop": 2}},
        "loss": {"label_smoothing": 0.1},
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
        {"model": {"_target_": "my.Net", "layers": -1}},
        {"seed": 2**63 - 1},
    ],
)
def test_sensible_values_are_accepted(changed: dict[str, Any]) -> None:
    schema.check(config(**changed))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"batch_size": 0}, "batch_size=0: expected a whole number, 1 or more"),
        ({"batch_size": 12.5}, "batch_size=12.5: expected a whole number, 1 or more"),
        ({"batch_size": True}, "batch_size=true: expected a whole number, 1 or more"),
        ({"batch_size": 1}, "batch_size=1: expected 2 or more with model.norm=batch"),
        ({"optimizer__lr": -1}, "optimizer.lr=-1: expected a number above 0"),
        ({"optimizer__lr": 0}, "optimizer.lr=0: expected a number above 0"),
        ({"optimizer__lr": "abc"}, "optimizer.lr=abc: expected a number above 0"),
        ({"optimizer__lr": float("nan")}, "optimizer.lr=nan: expected a number above 0"),
        ({"optimizer__lr": float("inf")}, "optimizer.lr=inf: expected a number above 0"),
        ({"optimizer__lr": None}, "optimizer.lr=null: expected a number above 0"),
        ({"trainer__epochs": 0}, "trainer.epochs=0: expected a whole number, 1 or more"),
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
        ({"data__val_size": -5}, "data.val_size=-5: expected a number, 0 or more"),
        ({"data__root": "???"}, "data.root=???: expected a folder"),
        ({"data__augment__crop": 32}, "data.augment.crop=32: expected 0 to 31 pixels"),
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
        ("batch_size", "batch_size: missing, expected a whole number, 1 or more"),
        ("trainer", "trainer: missing, expected trainer= and one of the group's options"),
        ("trainer.epochs", "trainer.epochs: missing, expected a whole number, 1 or more"),
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
