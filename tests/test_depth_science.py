"""Whether a depth study can be believed: it chooses by no test label, and claims no depth where there is none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from conftest import REPOSITORY

from cifarsweep.report.depth_study import DepthStudy, FinalRun, Searched, pairs
from cifarsweep.report.search import Trial

# test labels


def test_shuffled_test_labels_change_no_decision_and_no_validation_figure(small: list[str], tmp_path: Path) -> None:
    found = {}
    for seed in ("1", "2"):
        found[seed] = _study_with_shuffled_labels(small, tmp_path / seed, seed)
    one, two = found["1"], found["2"]
    assert one["studies"] == two["studies"]
    assert one["validation"] == two["validation"]
    assert len(one["validation"]) >= 2 * (3 + 2)
    assert one["test"].keys() == two["test"].keys()
    assert all(one["test"][run] != two["test"][run] for run in one["test"]), "the labels were not shuffled"


def _study_with_shuffled_labels(small: list[str], folder: Path, seed: str) -> dict[str, Any]:
    folder.mkdir()
    kept = [word for word in small if not word.startswith(("model=", "outputs=", "batch_size"))]
    words = [
        "-m", "search=quick", *kept, f"outputs={folder}/outputs", "name=s", "batch_size=20", "hydra/launcher=basic",
        "hydra.sweeper.study_per=[model]", "hydra.sweeper.budget=epochs:6", "hydra.sweeper.finalists=1",
        "hydra.sweeper.repeats=2",
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "tests" / "shuffled.py"), *words],
        env={**os.environ, "SHUFFLE_SEED": seed},
        capture_output=True,
        text=True,
        timeout=240,
    )
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
        claims = [_verdicts(study, "chosen") for study in _simulated(curvature, effect=0.0)]
        assert np.mean([bool(claimed) for claimed in claims]) > 0.2, curvature


def test_a_depth_that_brings_three_points_is_found() -> None:
    claims = [_verdicts(study, "depths") for study in _simulated(0.03, effect=0.03)]
    assert np.mean([len(claimed) for claimed in claims]) > 0.75 * (NUM_DEPTHS - 1)
    assert all(verdict == "higher" for claimed in claims for verdict in claimed)


def test_a_search_of_one_trial_claims_nothing() -> None:
    """Nobody knows what another one would have found."""
    (study,) = _simulated(0.0, effect=0.2, num_studies=1, num_trials=1)
    assert {pair.depths.verdict for pair in pairs(study)} == {"unknown"}


def _verdicts(study: DepthStudy, which: str) -> list[str]:
    verdicts = [getattr(pair, which).verdict for pair in pairs(study)]
    return [verdict for verdict in verdicts if verdict in ("higher", "lower")]


def _simulated(
    curvature: float, effect: float, num_studies: int = NUM_STUDIES, num_trials: int = NUM_TRIALS
) -> Iterator[DepthStudy]:
    """Studies of a stand-in for training: a random search, the best trial by validation, its final runs."""
    random = np.random.default_rng(0)
    for _ in range(num_studies):
        studies = [_searched(random, depth, curvature, effect, num_trials) for depth in range(1, NUM_DEPTHS + 1)]
        yield DepthStudy(f"{num_trials} trials", 8, [], "train", [], studies, [])


def _searched(random: np.random.Generator, depth: int, curvature: float, effect: float, num_trials: int) -> Searched:
    """Accuracy falls with the square of the distance of the log learning rate, by the optimizer and the batch size."""
    accuracy = 0.8 + effect * depth - curvature * random.uniform(-0.85, 0.85, num_trials) ** 2
    accuracy -= random.choice([0, 0.002, 0.006], num_trials) + random.choice([0, 0.001, 0.003], num_trials)
    noise = random.normal(0, SEED_NOISE, num_trials) + random.normal(0, VALIDATION_NOISE, num_trials)
    trials = [
        Trial(number, "complete", [value], {}, 8, None, None, None, None)
        for number, value in enumerate((accuracy + noise).tolist())
    ]
    best = int(np.argmax(accuracy + noise))
    test = accuracy[best] + random.normal(0, SEED_NOISE, NUM_SEEDS)
    runs = [FinalRun(best, seed, "complete", None, {"test_accuracy": float(test[seed])}) for seed in range(NUM_SEEDS)]
    return Searched("equal width", {"model": f"layers{depth}"}, trials, True, [best], runs, {"depth": depth})
