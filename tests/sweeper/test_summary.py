"""What a study is said to have found: importances of keys whose range depends on a choice."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import optuna
from optuna.trial import TrialState

from cifarsweep.sweeper.space import parse
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


def study_of(value_of: Callable[[dict[str, Any]], float], n_trials: int, num_complete: int, seed: int) -> optuna.Study:
    """Random trials, of which so many are complete, and the others pruned after their first step."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=seed))
    for number in range(n_trials):
        trial = study.ask()
        value = value_of(SPACE.suggest(trial))
        trial.report(value, 1)
        study.tell(
            trial, value if number < num_complete else None, None if number < num_complete else TrialState.PRUNED
        )
    return study


def shares(value_of: Callable[[dict[str, Any]], float], n_trials: int = 200) -> dict[str, float]:
    study = study_of(value_of, n_trials, n_trials, seed=0)
    return {key: share for key, (share, _, _) in importances(SPACE, study.get_trials(), "maximize").items()}


def test_the_choice_that_matters_does_not_lend_its_weight_to_what_depends_on_it() -> None:
    found = shares(lambda values: (values["optimizer"] == "sgd") + 0.01 * values["batch_size"] / 128)
    assert next(iter(found)) == "optimizer"
    assert found.get("optimizer.lr", 0.0) < 0.1


def test_a_learning_rate_that_matters_in_every_branch_is_found() -> None:
    middle = {"sgd": 0.1, "adam": 1e-4}
    found = shares(lambda values: -abs(math.log(values["optimizer.lr"] / middle[values["optimizer"]])))
    assert found["optimizer.lr"] > 0.8
    assert 0.9 < sum(found.values()) <= 1


def test_with_too_few_complete_trials_there_are_none() -> None:
    assert shares(lambda values: values["batch_size"], LEAST_FOR_IMPORTANCE - 1) == {}
    assert shares(lambda values: values["batch_size"], 3 * LEAST_FOR_IMPORTANCE)


def test_trials_that_are_all_alike_have_none_or_equal_ones() -> None:
    assert all(math.isfinite(share) for share in shares(lambda values: 0.5).values())


def test_pruned_trials_count_too() -> None:
    """Those that came through had one optimizer, so that nothing can be told from the complete ones alone."""
    noise = random.Random(0)
    study = study_of(lambda values: (values["optimizer"] == "sgd") + noise.random(), 60, 0, seed=0)
    trials = study.get_trials()
    best = [optuna.trial.create_trial(params=t.params, distributions=t.distributions, value=1.0) for t in trials]
    complete = [trial for trial in best if trial.params["optimizer"] == "sgd"][:12]
    share, low, high = importances(SPACE, [*complete, *trials], "maximize")["optimizer"]
    assert 0.3 < low <= share <= high <= 1
    assert importances(SPACE, complete, "maximize") == {}


def test_of_chance_nothing_is_told() -> None:
    told = 0
    for seed in range(20):
        noise = random.Random(seed)
        study = study_of(lambda values, noise=noise: noise.random(), 14, 14, seed)
        told += bool(importances(SPACE, study.get_trials(), "maximize"))
    assert told <= 3  # of 20, where each is to be wrong in 1 of 20
