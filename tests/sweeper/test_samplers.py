"""Samplers learn from a search's trials as they do from a plain Optuna study's."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import in_memory
import optuna
import pytest
from optuna.trial import TrialState

from cifarsweep.sweeper import settings
from cifarsweep.sweeper.studies import StudyPlan

SPACE = {"a": "choice(x, y, z)", "b": "interval(0, 1)", "c": "tag(log, interval(0.001, 1))", "d": "range(1, 9)"}
NEEDS = {"gp": "torch", "cmaes": "cmaes", "qmc": "scipy"}
NUM_TRIALS = 25


def value(values: dict[str, Any]) -> float:
    return 1.0 * (values["a"] == "y") - (values["b"] - 0.3) ** 2 - values["c"] / 10 + values["d"] / 100


def is_pruned(number: int) -> bool:
    return number % 3 == 1


def searched_by_the_engine(plan: StudyPlan) -> list[dict[str, Any]]:
    study = in_memory.opened(plan)
    proposed = []
    while (trial := study.claim("worker")) is not None:
        proposed.append(study.values(trial))
        study.queue.report(trial, 1, value(proposed[-1]))
        outcome = in_memory.PRUNED if is_pruned(trial.number) else in_memory.complete(value(proposed[-1]))
        study.queue.finish(trial, "worker", outcome)
    return proposed


def searched_by_optuna(plan: StudyPlan) -> list[dict[str, Any]]:
    study = optuna.create_study(direction="maximize")
    proposed = []
    for number in range(NUM_TRIALS):
        study.sampler = settings.make_sampler(plan.settings, plan.space, number)
        trial = study.ask()
        proposed.append(plan.space.suggest(trial))
        trial.report(value(proposed[-1]), 1)
        if is_pruned(number):
            study.tell(trial, state=TrialState.PRUNED)
        else:
            study.tell(trial, value(proposed[-1]))
    return proposed


@pytest.mark.parametrize("sampler", ["tpe", "random", "nsgaii", "gp", "cmaes", "qmc"])
def test_a_sampler_proposes_what_it_proposes_to_plain_optuna(tmp_path: Path, sampler: str) -> None:
    pytest.importorskip(NEEDS.get(sampler, "optuna"))
    few = {"tpe": {"n_startup_trials": 5}, "gp": {"n_startup_trials": 5}, "nsgaii": {"population_size": 4}}
    keys = in_memory.option("sampler", sampler, **few.get(sampler, {}))
    plan = in_memory.plan(tmp_path, SPACE, sampler=keys, n_trials=NUM_TRIALS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert searched_by_the_engine(plan) == searched_by_optuna(plan)


def test_the_default_sampler_finds_better_than_chance(tmp_path: Path) -> None:
    def best(sampler: str) -> float:
        plan = in_memory.plan(tmp_path, SPACE, sampler=in_memory.option("sampler", sampler), n_trials=60)
        proposed = searched_by_the_engine(plan)
        return sum(map(value, proposed[-20:])) / 20

    assert best("tpe") > best("random") + 0.3


@pytest.mark.parametrize(
    ("given", "sampler", "pruner"),
    [
        ({}, "CurveGPSampler", "PromotionPruner"),
        ({"objectives": ["a", "b"], "direction": ["minimize"] * 2}, "TPESampler", "SuccessiveHalvingPruner"),
        ({"sampler": in_memory.option("sampler", "grid")}, "GridSampler", "SuccessiveHalvingPruner"),
        ({"sampler": in_memory.option("sampler", "random")}, "RandomSampler", "PromotionPruner"),
        ({"pruner": in_memory.option("pruner", "median")}, "CurveGPSampler", "MedianPruner"),
        ({"max_steps": 1, "pruner": in_memory.option("pruner", "auto")}, "CurveGPSampler", "NopPruner"),
    ],
)
def test_auto_stands_for_what_serves_the_search(
    given: dict[str, Any], sampler: str, pruner: str, tmp_path: Path
) -> None:
    auto = {
        "sampler": in_memory.option("sampler", "auto", n_startup_trials=3),
        "pruner": in_memory.option("pruner", "auto", min_resource=2),
    }
    chosen = in_memory.plan(tmp_path, {"x": "choice(1, 2)"}, **(auto | given)).settings
    assert chosen.sampler["_target_"].endswith(f".{sampler}")
    assert chosen.pruner["_target_"].endswith(f".{pruner}")
    if "sampler" not in given:
        assert chosen.sampler["n_startup_trials"] == 3
    if "pruner" not in given:
        assert chosen.pruner["min_resource"] == 2
        assert chosen.pruner["reduction_factor"] == (3 if pruner == "PromotionPruner" else 2)
