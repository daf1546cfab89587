"""What a study is said to have found: importances of keys whose range depends on a choice."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import optuna
import pytest

from cifarsweep.sweeper.space import Space, parse
from cifarsweep.sweeper.summary import LEAST_FOR_IMPORTANCE, importances

SPACE = parse(
    {
        "optimizer": "choice(sgd, adam)",
        "batch_size": "choice(64, 128)",
        "optimizer.lr": {
            "optimizer=sgd": "tag(log, interval(0.01, 1))",
            "optimizer=adam": "tag(log, interval(1e-5, 1e-3))",
        },
    },
    [],
)


def shares(value_of: Callable[[dict[str, Any]], float], n_trials: int = 200, space: Space = SPACE) -> dict[str, float]:
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(n_trials):
        trial = study.ask()
        study.tell(trial, value_of(space.suggest(trial)))
    return importances(space, study.get_trials(), "maximize")


def test_the_choice_that_matters_does_not_lend_its_weight_to_what_depends_on_it() -> None:
    found = shares(lambda values: (values["optimizer"] == "sgd") + 0.01 * values["batch_size"] / 128)
    assert next(iter(found)) == "optimizer"
    assert found["optimizer.lr"] < 0.1


def test_a_learning_rate_that_matters_in_every_branch_is_found() -> None:
    middle = {"sgd": 0.1, "adam": 1e-4}
    found = shares(lambda values: -abs(math.log(values["optimizer.lr"] / middle[values["optimizer"]])))
    assert found["optimizer.lr"] > 0.8
    assert sum(found.values()) == pytest.approx(1)


def test_with_too_few_complete_trials_there_are_none() -> None:
    assert shares(lambda values: values["batch_size"], LEAST_FOR_IMPORTANCE - 1) == {}
    assert shares(lambda values: values["batch_size"], LEAST_FOR_IMPORTANCE)


def test_trials_that_are_all_alike_have_none_or_equal_ones() -> None:
    assert all(math.isfinite(share) for share in shares(lambda values: 0.5).values())
