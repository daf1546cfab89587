"""The sampler that learns from learning curves: what its model expects, and what it proposes."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import in_memory
import optuna
import pytest
from optuna.trial import TrialState
from test_search import Toy, toy  # noqa: F401

from cifarsweep.sweeper import space
from cifarsweep.sweeper.curve_gp import CurveModel, Curves, Encoding, Observation
from cifarsweep.sweeper.exclusions import EXCLUDED
from cifarsweep.sweeper.queue import Outcome
from cifarsweep.sweeper.studies import OpenStudy

SPACE = {
    "model": "choice(layers1, layers2, layers10)",
    "batch_size": "choice(64, 256, 128)",
    "optimizer": "choice(sgd, adam)",
    "lr": {"optimizer=sgd": "tag(log, interval(0.01, 1))", "optimizer=adam": "tag(log, interval(0.0001, 0.01))"},
    "momentum": {"optimizer=sgd": "interval(0, 1)"},
}
NUM_STEPS = 8


def curve(values: dict[str, Any], slow: float = 0.5) -> list[float]:
    """Adam begins fast and ends low; sgd's best learning rate is 0.1, adam's 0.001; a deeper model is better."""
    is_sgd = values["optimizer"] == "sgd"
    away = math.log10(values["lr"] / (0.1 if is_sgd else 0.001))
    end = 0.8 + 0.05 * is_sgd - 0.1 * away**2 + 0.01 * ["layers1", "layers2", "layers10"].index(values["model"])
    return [
        end - (slow if is_sgd else 0.1) * (1 - math.log(step) / math.log(NUM_STEPS)) for step in range(1, NUM_STEPS + 1)
    ]


def searched(
    tmp_path: Path, of: Callable[[dict[str, Any]], list[float]] = curve, *, sign: int = 1, **given_: Any
) -> tuple[OpenStudy, list[dict[str, Any]], int]:
    """The study after a search by one worker, what was proposed, and the steps that were trained."""
    few = {"n_startup_trials": 6}
    keys = {
        "sampler": in_memory.option("sampler", "curve_gp", **few),
        "pruner": in_memory.option("pruner", "promote", max_resource=NUM_STEPS),
        "direction": "maximize" if sign > 0 else "minimize",
        "max_steps": NUM_STEPS,
        "n_trials": 14,
    }
    study = in_memory.opened(in_memory.plan(tmp_path, SPACE, **keys | given_))
    proposed: dict[int, dict[str, Any]] = {}
    num_steps = 0
    while (trial := study.claim("worker")) is not None:
        values = proposed.setdefault(trial.number, study.values(trial))
        begun = max(study.trials[trial.number].intermediate_values, default=0)
        for step in range(begun + 1, NUM_STEPS + 1):
            num_steps += 1
            if study.queue.report(trial, step, sign * of(values)[step - 1]):
                study.queue.pause(trial, "worker", step, lambda other: None)
                break
        else:
            study.queue.finish(trial, "worker", in_memory.complete(sign * of(values)[-1]))
    return study, [proposed[number] for number in sorted(proposed)], num_steps


def best_of(study: OpenStudy) -> float:
    return max(trial.values[0] for trial in study.trials if trial.state == TrialState.COMPLETE)


# the model


def observations(of: Callable[[dict[str, Any]], list[float]], num: int, steps_of: Callable[[int], list[int]]) -> Any:
    encoding, draw, seen = Encoding(space.parse(SPACE, [])), random.Random(0), []
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    for number in range(num):
        values = encoding.space.suggest(study.ask())
        seen += [Observation(encoding.place(values), number, step, of(values)[step - 1]) for step in steps_of(number)]
    return encoding, seen, draw


def test_a_slow_beginner_is_expected_to_end_well_once_some_of_its_kind_have() -> None:
    encoding, seen, _ = observations(curve, 24, lambda number: [1, 2, 4, 8] if number < 8 else [1])
    model = CurveModel(seen, encoding.ordered, NUM_STEPS)
    both = [
        {"model": "layers2", "batch_size": 64, "optimizer": "sgd", "lr": 0.1, "momentum": 0.5},
        {"model": "layers2", "batch_size": 64, "optimizer": "adam", "lr": 0.001},
    ]
    assert curve(both[0])[0] < curve(both[1])[0] - 0.3
    (sgd, adam), deviations = model.predict([encoding.place(values) for values in both], [-1, -1])
    assert sgd > adam
    expected = [model.mean + model.deviation * value for value in (sgd, adam)]
    assert expected == pytest.approx([curve(values)[-1] for values in both], abs=0.08)
    assert all(0 < deviation < 1.5 for deviation in deviations)


def test_what_was_seen_is_expected_and_what_is_far_from_all_is_uncertain() -> None:
    encoding, seen, _ = observations(curve, 10, lambda number: [1, 2, 4, 8])
    model = CurveModel(seen, encoding.ordered, NUM_STEPS)
    ends = [o for o in seen if o.step == NUM_STEPS]
    means, deviations = model.predict([o.place for o in ends], [o.trial for o in ends])
    assert [model.mean + model.deviation * m for m in means] == pytest.approx([o.value for o in ends], abs=0.03)
    _, (new,) = model.predict([(-1.0,) * 5], [-1])
    assert new > 2 * max(deviations)


def test_numbers_and_numbered_names_are_ordered_and_what_does_not_apply_has_no_place() -> None:
    encoding = Encoding(space.parse(SPACE, []))
    assert encoding.ordered == (True, True, False, True, True)
    sgd = {"model": "layers10", "batch_size": 128, "optimizer": "sgd", "lr": 0.1, "momentum": 0.25}
    adam = {"model": "layers1", "batch_size": 64, "optimizer": "adam", "lr": 0.01}
    assert encoding.place(sgd) == pytest.approx((1.0, 0.5, 0.0, 0.5, 0.25))
    assert encoding.place(adam) == pytest.approx((0.0, 0.0, 1.0, 1.0, -1.0))


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf, 1e300, -1e300])
def test_a_value_that_is_no_number_or_huge_leaves_the_others_apart(odd: float) -> None:
    def of(values: dict[str, Any]) -> list[float]:
        return [odd if odd < 0 or math.isnan(odd) else -odd] * NUM_STEPS if values["lr"] > 0.3 else curve(values)

    encoding, seen, _ = observations(of, 24, lambda number: [1, 2, 4, 8])
    model = CurveModel(seen, encoding.ordered, NUM_STEPS)
    assert model.deviation < 1
    good = {"model": "layers10", "batch_size": 64, "optimizer": "sgd", "lr": 0.1, "momentum": 0.5}
    poor = {**good, "lr": 0.02}
    (high, low), _ = model.predict([encoding.place(good), encoding.place(poor)], [-1, -1])
    assert high > low


# the search

PAUSES = {"name": "promote", "reduction_factor": 100}
"""With which few trials go on."""


def test_it_finds_more_than_random_trials_by_a_fraction_of_their_steps(tmp_path: Path) -> None:
    def of(values: dict[str, Any]) -> list[float]:
        return curve(values, slow=0.15)

    study, _, num_steps = searched(tmp_path, of, n_trials=20)
    random_ones = {"sampler": in_memory.option("sampler", "random"), "pruner": in_memory.option("pruner", "none")}
    unpruned, _, all_steps = searched(tmp_path, of, n_trials=20, **random_ones)
    assert all_steps == 20 * NUM_STEPS
    assert num_steps <= all_steps / 2
    assert best_of(study) > best_of(unpruned)


@pytest.mark.parametrize("pauses", [True, False])
def test_trials_that_paused_or_were_pruned_are_learned_from(tmp_path: Path, pauses: bool) -> None:
    pruner = (
        in_memory.option("pruner", "promote", reduction_factor=100) if pauses else in_memory.option("pruner", "none")
    )
    study = in_memory.opened(
        in_memory.plan(
            tmp_path,
            {"x": "interval(0, 1)"},
            sampler=in_memory.option("sampler", "curve_gp"),
            pruner=pruner,
            n_trials=24,
        )
    )
    proposed = []
    for _ in range(24):
        trial = study.claim("worker")
        assert trial is not None
        proposed.append(x := study.values(trial)["x"])
        study.queue.report(trial, 1, -abs(x - 0.7))
        if pauses:
            study.queue.pause(trial, "worker", 1, lambda other: None)
        else:
            study.queue.finish(trial, "worker", in_memory.PRUNED)
    assert sum(abs(x - 0.7) < 0.1 for x in proposed[-8:]) >= 6


def test_minimizing_is_maximizing_the_opposite(tmp_path: Path) -> None:
    (_, proposed, steps), (_, others, other_steps) = searched(tmp_path), searched(tmp_path, sign=-1)
    assert (proposed, steps) == (others, other_steps)


def test_the_first_trials_are_spread_over_the_space(tmp_path: Path) -> None:
    _, proposed, _ = searched(tmp_path, n_trials=6)
    assert sorted(values["model"] for values in proposed) == sorted(["layers1", "layers2", "layers10"] * 2)
    assert sorted(values["optimizer"] for values in proposed) == ["adam"] * 3 + ["sgd"] * 3


def test_what_a_person_asks_for_is_tried_and_the_rest_proposed(tmp_path: Path) -> None:
    study = in_memory.opened(
        in_memory.plan(tmp_path, SPACE, sampler=in_memory.option("sampler", "curve_gp"), n_trials=20)
    )
    study.study.enqueue_trial(study.plan.space.place({"optimizer": "sgd", "momentum": 0.5}))
    trial = study.claim("worker")
    assert trial is not None
    values = study.values(trial)
    assert (values["optimizer"], values["momentum"]) == ("sgd", 0.5)
    assert set(values) == set(SPACE)


def searched_until(tmp_path: Path, num_trials: int, **keys: Any) -> OpenStudy:
    """A study with so many complete trials, in which sgd is better, of 40."""
    sampler = in_memory.option("sampler", "curve_gp", n_startup_trials=6)
    study = in_memory.opened(in_memory.plan(tmp_path, SPACE, sampler=sampler, n_trials=40, **keys))
    for _ in range(num_trials):
        complete_one(study)
    return study


def complete_one(study: OpenStudy) -> dict[str, Any]:
    trial = study.claim("worker")
    assert trial is not None
    values = study.values(trial)
    study.queue.finish(trial, "worker", in_memory.complete(curve(values)[-1]))
    return values


def seen_by(study: OpenStudy, trials: list[optuna.trial.FrozenTrial]) -> Curves:
    curves = Curves.of(trials, Encoding(study.plan.space), study.study.direction, [1, 2, 4], None)
    assert curves is not None
    return curves


def test_what_runs_already_promises_less_to_the_next_worker(tmp_path: Path) -> None:
    study = searched_until(tmp_path, 12)
    running = study.claim("another")
    assert running is not None
    place = Encoding(study.plan.space).place(study.values(running))
    before, now = (seen_by(study, trials) for trials in (study.trials[:-1], study.trials))
    assert now._improvement([place])[0] < before._improvement([place])[0] / 2


def test_a_trial_whose_parameters_another_worker_is_just_storing_is_not_seen_yet(tmp_path: Path) -> None:
    study = searched_until(tmp_path, 12)
    claimed = study.study.ask()
    for parameter in study.plan.space.parameters[:3]:
        parameter.suggest(claimed)
        assert {"model", "batch_size", "optimizer", "lr"} <= complete_one(study).keys()


def test_an_infeasible_trial_is_no_example_however_good(tmp_path: Path) -> None:
    study = searched_until(tmp_path, 12)
    best = max(study.trials, key=lambda trial: trial.values[0])
    broken = optuna.trial.create_trial(
        params=best.params, distributions=best.distributions, values=[9.0], constraints={"params<=1": 1.0}
    )
    curves = seen_by(study, [*study.trials, broken])
    assert curves.model.mean + curves.model.deviation * curves.best == pytest.approx(best.values[0])


def test_what_a_person_asks_for_is_part_of_what_the_model_proposes(tmp_path: Path) -> None:
    study = searched_until(tmp_path, 15)
    study.study.enqueue_trial(study.plan.space.place({"optimizer": "adam"}))
    trial = study.claim("worker")
    assert trial is not None
    assert trial.relative_params["optimizer"] == "adam"
    assert study.values(trial)["optimizer"] == "adam"


def test_the_model_proposes_nothing_that_is_excluded(tmp_path: Path) -> None:
    study = searched_until(tmp_path, 0)
    study.plan = replace(study.plan, space=study.plan.space.excluding("model=layers10"))
    proposed = [complete_one(study) for _ in range(6)]
    begun = study.num_excluded
    proposed += [complete_one(study) for _ in range(12)]
    assert {values["model"] for values in proposed} == {"layers1", "layers2"}
    assert study.num_excluded == begun


def test_a_proposal_that_was_left_out_says_nothing_of_its_neighbours(tmp_path: Path) -> None:
    study = searched_until(tmp_path, 12)
    best = max(study.trials, key=lambda trial: trial.values[0])
    left_out = optuna.trial.create_trial(
        state=TrialState.FAIL, params=best.params, distributions=best.distributions, user_attrs={EXCLUDED: True}
    )
    left_out.number = 99
    assert seen_by(study, [*study.trials, left_out]).best == seen_by(study, study.trials).best


def test_failures_are_not_tried_again_and_again(tmp_path: Path) -> None:
    keys = {"sampler": in_memory.option("sampler", "curve_gp", n_startup_trials=4)}
    study = in_memory.opened(in_memory.plan(tmp_path, SPACE, **keys, n_trials=30, max_failures=30))
    proposed = []
    while (trial := study.claim("worker")) is not None:
        proposed.append(values := study.values(trial))
        if values["optimizer"] == "sgd":
            study.queue.finish(trial, "worker", Outcome(TrialState.FAIL, reason="out of memory"))
        else:
            study.queue.finish(trial, "worker", in_memory.complete(curve(values)[-1]))
    assert sum(values["optimizer"] == "sgd" for values in proposed[-15:]) <= 3


def test_several_objectives_are_refused_in_one_line(toy: Toy, tmp_path: Path) -> None:  # noqa: F811
    done = toy(
        "hydra/sweeper/sampler=curve_gp",
        "hydra.sweeper.objectives=[val_accuracy,params]",
        "hydra.sweeper.direction=[maximize,minimize]",
    )
    assert (done.returncode, done.stderr) == (
        1,
        "hydra/sweeper/sampler=curve_gp: expected one objective, here val_accuracy, params\n",
    )
