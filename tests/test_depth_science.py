"""Whether a depth study can be believed: it chooses by no test label, and claims no depth where there is none."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import REPOSITORY, run_python

from cifarsweep.report.depth_study import DepthStudy, FinalRun, Searched, pairs
from cifarsweep.report.search_results import Trial

# test labels


@pytest.mark.slow
def test_shuffled_test_labels_change_no_decision_and_no_validation_figure(small: list[str], tmp_path: Path) -> None:
    first, second = (_study_with_shuffled_labels(small, tmp_path / seed, seed) for seed in ("1", "2"))
    assert first["studies"] == second["studies"]
    assert first["validation"] == second["validation"]
    assert len(first["validation"]) >= 2 * (3 + 2)
    assert first["test"].keys() == second["test"].keys()
    assert all(first["test"][run] != second["test"][run] for run in first["test"]), "the labels were not shuffled"


def _study_with_shuffled_labels(small: list[str], folder: Path, seed: str) -> dict[str, Any]:
    folder.mkdir()
    kept = [word for word in small if not word.startswith(("model=", "outputs=", "batch_size"))]
    words = [
        "-m", "search=quick", *kept, f"outputs={folder}/outputs", "name=s", "batch_size=20", "hydra/launcher=basic",
        "hydra.sweeper.study_per=[model]", "hydra.sweeper.budget=epochs:6", "hydra.sweeper.finalists=1",
        "hydra.sweeper.repeats=2",
    ]  # fmt: skip
    done = run_python(str(REPOSITORY / "tests" / "shuffled.py"), *words, cwd=folder, SHUFFLE_SEED=seed)
    assert done.returncode == 0, done.stderr
    studies = json.loads((folder / "outputs" / "sweeps" / "s" / "studies.json").read_text())["studies"]
    for study in studies:
        for trial in study["trials"]:
            del trial["started"], trial["finished"]
    results = {
        path.parent.name: json.loads(path.read_text()) for path in (folder / "outputs/runs").glob("*/result.json")
    }
    epochs = {
        path.parent.name: [row.rpartition(",")[0] for row in path.read_text().splitlines()]
        for path in (folder / "outputs/runs").glob("*/metrics.csv")
    }
    return {
        "studies": studies,
        "validation": epochs,
        "test": {run: result["test_loss"] for run, result in results.items() if result["status"] == "complete"},
    }


# no effect of depth

NUM_STUDIES = 400
NUM_TRIALS, NUM_SEEDS, NUM_DEPTHS = 16, 5, 5
SEED_NOISE, VALIDATION_NOISE = 0.003, 0.0057
"""Standard deviations: of seeds as measured on layers2 to layers4, and of an accuracy of 80 % over 5,000 images."""


def test_where_depth_has_no_effect_a_depth_is_claimed_in_at_most_five_percent_of_studies() -> None:
    """Whatever the shape of the optimum. The upper end allows for the error of 400 repetitions, 2.2 points."""
    for curvature in (0.0, 0.03, 0.15):
        claims = [_verdicts(study, "depths") for study in _simulated(curvature, effect=0.0)]
        assert np.mean([bool(claimed) for claimed in claims]) <= 0.05 + 0.022, curvature


def test_the_seeds_alone_would_claim_a_depth_in_a_quarter_of_them_or_more() -> None:
    """The reason for counting the search's own error, too: what is compared would be two searches' luck."""
    for curvature in (0.0, 0.03, 0.15):
        claims = [_verdicts(study, "configurations") for study in _simulated(curvature, effect=0.0)]
        assert np.mean([bool(claimed) for claimed in claims]) > 0.2, curvature


@pytest.mark.parametrize(("kept", "power"), [(3, 0.5), (5, 0.75)])
def test_pruned_trials_neither_make_claims_nor_prevent_them(kept: int, power: float) -> None:
    """Of 20 trials a few are complete; the others have what they had after an epoch or two, far below."""
    for curvature in (0.0, 0.15):
        claims = [_verdicts(study, "depths") for study in _simulated(curvature, 0.0, num_trials=20, kept=kept)]
        assert np.mean([bool(claimed) for claimed in claims]) <= 0.05 + 0.022, curvature
    claims = [_verdicts(study, "depths") for study in _simulated(0.03, effect=0.03, num_trials=20, kept=kept)]
    assert np.mean([len(claimed) for claimed in claims]) > power * (NUM_DEPTHS - 1)


def test_more_seeds_do_not_make_a_search_surer() -> None:
    for curvature in (0.0, 0.03, 0.15):
        claims = [_verdicts(study, "depths") for study in _simulated(curvature, effect=0.0, num_seeds=30)]
        assert np.mean([bool(claimed) for claimed in claims]) <= 0.05 + 0.022, curvature


def test_a_depth_that_brings_three_points_is_found() -> None:
    claims = [_verdicts(study, "depths") for study in _simulated(0.03, effect=0.03)]
    assert np.mean([len(claimed) for claimed in claims]) > 0.75 * (NUM_DEPTHS - 1)
    assert all(verdict == "higher" for claimed in claims for verdict in claimed)


@pytest.mark.parametrize("num_trials", [1, 3])
def test_a_search_of_few_trials_claims_nothing(num_trials: int) -> None:
    """Nobody knows what another one would have found."""
    (study,) = _simulated(0.0, effect=0.2, num_studies=1, num_trials=num_trials)
    assert {pair.depths.verdict for pair in pairs(study)} == {"unknown"}


def test_a_search_with_a_single_complete_trial_claims_nothing() -> None:
    """A pruned trial counts as the worst complete one, so that all would be equal, and the error of the search 0."""
    (study,) = _simulated(0.0, effect=0.2, num_studies=1, kept=1)
    assert {pair.depths.verdict for pair in pairs(study)} == {"unknown"}


def _verdicts(study: DepthStudy, which: str) -> list[str]:
    verdicts = [getattr(pair, which).verdict for pair in pairs(study)]
    return [verdict for verdict in verdicts if verdict in ("higher", "lower")]


def _simulated(
    curvature: float,
    effect: float,
    num_studies: int = NUM_STUDIES,
    num_trials: int = NUM_TRIALS,
    num_seeds: int = NUM_SEEDS,
    kept: int | None = None,
) -> Iterator[DepthStudy]:
    """Studies of a stand-in for training: a random search, the best trial by validation, its final runs.

    `kept`: so many trials are complete, the best as far as an early epoch shows it; the others are pruned.
    """
    random = np.random.default_rng(0)
    for _ in range(num_studies):
        studies = [
            _searched(random, depth, curvature, effect, num_trials, num_seeds, kept or num_trials)
            for depth in range(1, NUM_DEPTHS + 1)
        ]
        yield DepthStudy(
            format=1, name="d", study_per=["model"], objectives=["val_accuracy"], directions=["maximize"],
            budget=f"{num_trials} trials", max_epochs=8, finalists=1, repeats=num_seeds, seeds=[], final_on="train",
            studies=studies, unreadable=[],
        )  # fmt: skip


def _searched(
    random: np.random.Generator,
    depth: int,
    curvature: float,
    effect: float,
    num_trials: int,
    num_seeds: int,
    kept: int,
) -> Searched:
    """Accuracy falls with the square of the distance of the log learning rate, by the optimizer and the batch size."""
    accuracy = 0.8 + effect * depth - curvature * random.uniform(-0.85, 0.85, num_trials) ** 2
    accuracy -= random.choice([0, 0.002, 0.006], num_trials) + random.choice([0, 0.001, 0.003], num_trials)
    noise = random.normal(0, SEED_NOISE, num_trials) + random.normal(0, VALIDATION_NOISE, num_trials)
    values = accuracy + noise
    early = accuracy + random.normal(0, 3 * SEED_NOISE, num_trials)
    pruned = np.argsort(early)[: num_trials - kept]
    values[pruned] -= random.uniform(0.05, 0.25, len(pruned))
    states = ["pruned" if number in pruned else "complete" for number in range(num_trials)]
    trials = [
        Trial.of({"number": number, "state": state, "values": [value], "params": {}, "epochs": {}})
        for number, (state, value) in enumerate(zip(states, values.tolist(), strict=True))
    ]
    best = int(np.argmax(values))
    test = accuracy[best] + random.normal(0, SEED_NOISE, num_seeds)
    runs = [
        FinalRun(finalist=best, seed=seed, state="complete", run=None, reason=None, result={"test_accuracy": accuracy})
        for seed, accuracy in enumerate(test.tolist())
    ]
    return Searched(
        comparison="equal width", values={"model": f"layers{depth}"}, params=[], is_over=True, epochs=0,
        trials=trials, finalists=[best], final_runs=runs, about={"depth": depth},
    )  # fmt: skip
