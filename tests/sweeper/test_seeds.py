"""hydra.sweeper.seeds: a trial that is the mean over several runs, and the race that ends it early."""

from __future__ import annotations

import csv
import json
import re
import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import in_memory
import numpy as np
import pytest
from conftest import Command, examples
from foreign import read_overrides, read_results, read_trials
from foreign import run as run_in
from hypothesis import assume, given
from hypothesis import settings as with_settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from cifarsweep.sweeper import settings
from cifarsweep.sweeper.application import Application
from cifarsweep.sweeper.queue import Outcome
from cifarsweep.sweeper.studies import OpenStudy

SEARCH = ["-m", "hydra/sweeper=study", "hydra/launcher=local", "hydra.sweep.dir=sweep", "hydra.sweeper.n_workers=1"]
SEEDS = [*SEARCH, "hydra.sweeper.seeds=[0,1,2]", "x=choice(2,3,4,5)"]
ENQUEUED = "hydra.sweeper.enqueue=[{x: 2}, {x: 3}, {x: 4}, {x: 5}]"
NO_PRUNER = [*SEEDS, ENQUEUED, "hydra/sweeper/pruner=none"]


def begun(folder: Path) -> list[dict[str, Any]]:
    """The trials that have begun: further enqueued ones wait for a larger total."""
    return [trial for trial in read_trials(folder) if trial["state"] != "waiting"]


def steps(folder: Path) -> list[tuple[str, ...]]:
    """x, seed, step and folder of each step that was done, in their order."""
    return [tuple(line.split()) for line in (folder / "steps.txt").read_text().splitlines()]


# a search


def test_a_trial_is_the_mean_over_its_runs_and_ends_where_it_is_clearly_worse(tmp_path: Path) -> None:
    words = [*SEEDS, ENQUEUED, "hydra/sweeper/pruner=racing", "hydra.sweeper.pruner.n_startup_trials=2"]
    done = run_in(tmp_path, "seeded", *words, "hydra.sweeper.n_trials=4")

    assert done.returncode == 0, done.stderr
    best, second, *worse = begun(tmp_path)
    assert (best["state"], best["values"]) == ("complete", [pytest.approx(0.01)])
    assert [(run["values"], run["steps"]) for run in best["runs"].values()] == [([0.0], 2), ([0.01], 2), ([0.02], 2)]
    assert (second["state"], second["values"]) == ("complete", [pytest.approx(1.01)])
    assert [(trial["state"], trial["values"], list(trial["runs"])) for trial in worse] == [
        ("pruned", [2.0], ["0"]),
        ("pruned", [3.0], ["0"]),
    ]
    pairs = [*((x, seed) for x in "23" for seed in "012"), ("4", "0"), ("5", "0")]
    assert Counter((x, seed) for x, seed, *_ in steps(tmp_path)) == dict.fromkeys(pairs, 2)
    for seed in (0, 1, 2):
        assert read_overrides(tmp_path / "sweep" / "0" / f"seed={seed}") == ["x=2", f"seed={seed}"]
    assert {folder for *_, folder in steps(tmp_path)} == {"seed=0", "seed=1", "seed=2"}
    assert "trial 2 pruned after run 1" in done.stdout
    assert read_results(tmp_path)["best_value"] == pytest.approx(0.01)
    assert json.loads((tmp_path / "sweep" / "study.json").read_text())["best_command"].endswith("seeded.py x=2 seed=0")

    changed = run_in(tmp_path, "seeded", *words, "hydra.sweeper.seeds=[0,1]")
    assert changed.returncode == 1
    assert changed.stderr.startswith("hydra.sweeper.seeds: was [0, 1, 2], is [0, 1]; the study sweep cannot go on")


@pytest.mark.parametrize("dies", ["a worker", "all"])
@pytest.mark.parametrize(("at", "again"), [("3 1 1", ["1"]), ("3 1 2", ["1", "2"])], ids=["between runs", "in a run"])
def test_a_killed_trial_goes_on_with_the_run_that_it_had_come_to(
    tmp_path: Path, dies: str, at: str, again: list[str]
) -> None:
    words = [*NO_PRUNER, "hydra.sweeper.n_trials=2"]
    done = run_in(tmp_path, "seeded", *words, SEEDED_KILL=f"{dies} {at}")
    if dies == "all":
        assert done.returncode == -9
        done = run_in(tmp_path, "seeded", *words)

    assert done.returncode == 0, done.stderr
    assert [(trial["state"], trial["values"]) for trial in begun(tmp_path)] == [
        ("complete", [pytest.approx(0.01)]),
        ("complete", [pytest.approx(1.01)]),
    ]
    counts = Counter((x, seed, step) for x, seed, step, _ in steps(tmp_path))
    assert {which for which, count in counts.items() if count == 2} == {("3", "1", step) for step in again}
    assert len(counts) == 2 * 3 * 2


@pytest.mark.parametrize("max_steps", ["2", "null"])
def test_a_budget_counts_the_steps_of_every_run(tmp_path: Path, max_steps: str) -> None:
    words = [*NO_PRUNER, f"hydra.sweeper.max_steps={max_steps}"]
    done = run_in(tmp_path, "seeded", *words, "hydra.sweeper.budget=steps:9", SEEDED_KILL="a worker 3 0 1")

    assert done.returncode == 0, done.stderr
    assert len(steps(tmp_path)) == 9 + 1  # the step in which its process died was done again
    best, cut = begun(tmp_path)
    assert [trial["state"] for trial in (best, cut)] == ["complete", "pruned"]
    assert [run["steps"] for run in (*best["runs"].values(), *cut["runs"].values())] == [2, 2, 2, 2, 1]
    assert cut["values"] == [1.0]

    more = run_in(tmp_path, "seeded", *words, "hydra.sweeper.budget=steps:12")
    assert more.returncode == 0, more.stderr
    assert len(steps(tmp_path)) == 12 + 1


def test_a_budget_of_seconds_counts_every_run_once(tmp_path: Path) -> None:
    done = run_in(tmp_path, "seeded", *NO_PRUNER, "hydra.sweeper.budget=seconds:2", "+seconds=0.1")
    assert done.returncode == 0, done.stderr
    trials = begun(tmp_path)
    spent = [run["spent"] for trial in trials for run in trial["runs"].values()]
    assert all(0.2 <= seconds < 2 for seconds in spent[:-1])
    assert 2 <= sum(spent) < 3


def test_constraints_are_on_means_over_the_runs(tmp_path: Path) -> None:
    words = [*NO_PRUNER, "hydra.sweeper.n_trials=2", "hydra.sweeper.constraints=['cost>=3']"]
    done = run_in(tmp_path, "seeded", *words)

    assert done.returncode == 0, done.stderr
    infeasible, best = begun(tmp_path)  # their runs cost 0, 2, 4 and 0, 3, 6
    assert [(trial["state"], trial["reason"]) for trial in (infeasible, best)] == [
        ("infeasible", "cost>=3"),
        ("complete", None),
    ]
    assert [run["figures"] for run in best["runs"].values()] == [{"cost": 0}, {"cost": 3}, {"cost": 6}]
    assert read_results(tmp_path)["best_params"] == {"x": 3}


def test_each_of_several_objectives_is_a_mean(tmp_path: Path) -> None:
    words = [*NO_PRUNER, "hydra.sweeper.n_trials=2", "hydra.sweeper.objectives=[value,cost]"]
    done = run_in(tmp_path, "seeded", *words, "hydra.sweeper.direction=[minimize,maximize]")
    assert done.returncode == 0, done.stderr
    assert [trial["values"] for trial in begun(tmp_path)] == [pytest.approx([0.01, 2]), pytest.approx([1.01, 3])]


def test_a_run_that_fails_fails_its_trial(tmp_path: Path) -> None:
    words = [*NO_PRUNER, "hydra.sweeper.n_trials=2", "+fails='3 1'"]
    done = run_in(tmp_path, "seeded", *words)
    assert done.returncode == 0, done.stderr
    best, failed = begun(tmp_path)
    assert (best["state"], failed["state"], failed["reason"]) == ("complete", "failed", "no luck")
    assert [run["values"] for run in failed["runs"].values()] == [[1.0], None]


def test_every_run_of_a_network_is_in_the_report_and_none_is_trained_twice(
    cifarsweep: Command, small: list[str], tmp_path: Path
) -> None:
    search = ["hydra/sweeper=study", "hydra/launcher=basic", "hydra/sweeper/sampler=grid", "hydra/sweeper/pruner=none"]
    words = [*search, "optimizer.lr=choice(0.01,0.02)", "hydra.sweeper.seeds=[3,4]", *small, "name=s"]
    done = cifarsweep("-m", *words, "trainer.epochs=2")

    assert done.returncode == 0, done.stderr
    sweep, runs = tmp_path / "outputs" / "sweeps" / "s", tmp_path / "outputs" / "runs"
    study = json.loads((sweep / "study.json").read_text())
    named = [run["run"] for trial in study["trials"] for run in trial["runs"].values()]
    assert sorted(named) == sorted(path.name for path in runs.glob("layers2-*"))
    assert len(named) == 4
    for trial in study["trials"]:
        results = [json.loads((runs / run["run"] / "result.json").read_text()) for run in trial["runs"].values()]
        assert [result["seed"] for result in results] == [3, 4]
        assert trial["values"] == [pytest.approx(np.mean([result["val_accuracy"] for result in results]))]
    with (sweep / "report" / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epochs"] for row in rows] == ["4", "4"]
    assert sorted(name for row in rows for name in row["run"].split()) == sorted(named)
    with (sweep / "report" / "runs.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 4

    times = {path: path.stat().st_mtime_ns for path in runs.glob("*/result.json")}
    alone = cifarsweep(*shlex.split(study["best_command"])[3:])
    assert alone.returncode == 0, alone.stderr
    assert {path: path.stat().st_mtime_ns for path in runs.glob("*/result.json")} == times


# mistakes


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"seeds": [1]}, "hydra.sweeper.seeds=[1]: expected [], or a list of 2 to 100 different whole numbers"),
        ({"seeds": [1, 1]}, "hydra.sweeper.seeds=[1, 1]: expected []"),
        ({"seeds": [0.5, 1]}, "hydra.sweeper.seeds=[0.5, 1]: expected []"),
        ({"seeds": [-1, 1]}, "hydra.sweeper.seeds=[-1, 1]: expected []"),
        ({"seeds": 3}, "hydra.sweeper.seeds=3: expected []"),
        ({"seeds": None}, "hydra.sweeper.seeds=null: expected []"),
        ({"seeds": [0, 1], "pruner": in_memory.option("pruner", "asha")}, "hydra/sweeper/pruner=auto, racing or none"),
        ({"seeds": [0, 1], "warm_start": True}, "expected [] with hydra.sweeper.warm_start"),
        (
            {"seeds": [0, 1], "sampler": in_memory.option("sampler", "curve_gp")},
            "expected [] with hydra/sweeper/sampler",
        ),
        ({"pruner": in_memory.option("pruner", "racing")}, "racing: expected one objective and hydra.sweeper.seeds"),
        (
            {
                "seeds": [0, 1],
                "pruner": in_memory.option("pruner", "racing"),
                "objectives": ["a", "b"],
                "direction": ["minimize", "maximize"],
            },
            "racing: expected one objective",
        ),
        (
            {"seeds": [0, 1], "pruner": in_memory.option("pruner", "racing", standard_errors=-1)},
            "hydra.sweeper.pruner.standard_errors=-1: expected a number from 0 to 100",
        ),
    ],
)
def test_a_mistake_is_refused_by_name(tmp_path: Path, given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        in_memory.plan(tmp_path, {"x": "interval(0,1)"}, **given)


@pytest.mark.parametrize(("objectives", "pruner"), [(["a"], "racing"), (["a", "b"], "none")])
def test_auto_serves_trials_of_several_runs(tmp_path: Path, objectives: list[str], pruner: str) -> None:
    auto = {group: in_memory.option(group, "auto") for group in ("sampler", "pruner")}
    several = {"objectives": objectives, "direction": ["minimize"] * len(objectives)}
    chosen = in_memory.plan(tmp_path, {"x": "interval(0,1)"}, seeds=[0, 1], **auto, **several).settings
    assert chosen.sampler == in_memory.option("sampler", "tpe")
    assert chosen.pruner == in_memory.option("pruner", pruner)

    auto["pruner"]["min_resource"] = 3
    with pytest.raises(ValueError, match=re.escape("hydra.sweeper.pruner.min_resource: no such key")):
        in_memory.plan(tmp_path, {"x": "interval(0,1)"}, seeds=[0, 1], **auto, **several)


def test_the_noise_of_fewer_than_two_trials_is_not_known(tmp_path: Path) -> None:
    pruner = in_memory.option("pruner", "racing", n_startup_trials=1)
    plan = in_memory.plan(tmp_path, {"x": "interval(0,1)"}, seeds=[0, 1], pruner=pruner)
    with pytest.raises(ValueError, match=re.escape("n_startup_trials=1: expected 2 or more")):
        settings.try_out(plan.settings, plan.space)


def test_a_task_without_the_key_is_refused() -> None:
    keys = OmegaConf.create({**OmegaConf.load(in_memory.KEYS / "study.yaml"), "seeds": [0, 1]})
    keys.sampler, keys.pruner = in_memory.option("sampler", "tpe"), in_memory.option("pruner", "none")
    del keys["defaults"]
    expected = "hydra.sweeper.seeds=[0, 1]: expected [], or a configuration with the key seed"
    with pytest.raises(ValueError, match=re.escape(expected)):
        settings.read(keys, Application(), OmegaConf.create({"x": 1}))
    assert settings.read(keys, Application(), OmegaConf.create({"seed": None})).seeds == (0, 1)


def test_a_searched_seed_is_refused(tmp_path: Path) -> None:
    done = run_in(tmp_path, "seeded", *NO_PRUNER, "seed=choice(1,2)")
    assert done.returncode == 1
    assert done.stderr.splitlines()[0] == "hydra.sweeper.seeds=[0, 1, 2]: expected [], as seed is searched"


# the race


def race(folder: Path, trials: Sequence[Sequence[float]], direction: str = "maximize", **keys: Any) -> list[int]:
    """How many of its runs each trial makes, given what they come to."""
    pruner = in_memory.option("pruner", "racing", **keys)
    seeds = [*range(len(trials[0]))]
    given = {"n_trials": len(trials), "seeds": seeds, "pruner": pruner, "direction": direction}
    study = in_memory.opened(in_memory.plan(folder, {"x": "interval(0,1)"}, **given))
    return [num_runs(study, runs) for runs in trials]


def num_runs(study: OpenStudy, runs: Sequence[float], violation: float = 0.0) -> int:
    trial = study.claim("me")
    assert trial is not None
    for k in range(1, len(runs) + 1):
        mean = float(np.mean(runs[:k]))
        if study.queue.report(trial, k, mean) and k < len(runs):
            study.queue.finish(trial, "me", in_memory.PRUNED)
            return k
    complete = in_memory.complete(mean)
    study.queue.finish(trial, "me", Outcome(complete.state, complete.values, violations={"size<=1": violation}))
    return len(runs)


NOISE = [(0.1, -0.2, 0.1), (-0.1, 0.1, 0.0), (0.2, 0.0, -0.2), (-0.2, 0.1, 0.1)]
FIRST = [[level + luck for luck in of_trial] for level, of_trial in zip((1, 2, 3, 2), NOISE, strict=True)]


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_a_race_ends_what_is_behind_by_more_than_noise(tmp_path: Path, direction: str) -> None:
    sign = 1 if direction == "maximize" else -1
    later = [[2.8, 3.2, 3.3], [2.0, 2.1, 2.2], [2.7, 2.2, 2.0], [4.0, 4.0, 4.0], [3.3, 3.3, 3.3]]
    trials = [[sign * value for value in runs] for runs in (*FIRST, *later)]
    assert race(tmp_path, trials, direction) == [3, 3, 3, 3, 3, 1, 2, 3, 1]


def test_no_race_ends_a_trial_before_the_noise_is_known(tmp_path: Path) -> None:
    assert race(tmp_path, [*FIRST, [0.0] * 3, [0.0] * 3], n_startup_trials=5) == [3, 3, 3, 3, 3, 1]


def test_what_a_seed_does_to_all_trials_counts_for_none(tmp_path: Path) -> None:
    easy, hard = np.array([10.0, 0.0, -10.0]), np.array([-10.0, 0.0, 10.0])
    for seeds in (easy, hard):
        trials = [*FIRST, [3.1, 3.1, 3.1], [2.0, 2.0, 2.0]]
        assert race(tmp_path, [[*(seeds + runs)] for runs in trials]) == [3, 3, 3, 3, 3, 1]


def test_a_race_is_against_the_best_that_breaks_no_constraint(tmp_path: Path) -> None:
    pruner = in_memory.option("pruner", "racing")
    given = {"n_trials": 6, "seeds": [0, 1, 2], "pruner": pruner}
    study = in_memory.opened(in_memory.plan(tmp_path, {"x": "interval(0,1)"}, **given))
    for runs in FIRST:
        num_runs(study, runs, violation=float(runs[0] > 2.5))
    assert num_runs(study, [2.3, 2.3, 2.3]) == 3
    assert num_runs(study, [1.0, 1.0, 1.0]) == 1


VALUES = st.floats(-100, 100).map(lambda value: round(value, 3))
ROWS = st.integers(2, 5).flatmap(
    lambda n: st.lists(st.lists(VALUES, min_size=n, max_size=n), min_size=3, max_size=7, unique_by=tuple)
)


@with_settings(max_examples=examples(40))
@given(ROWS, st.floats(0.1, 4))
def test_a_race_goes_by_least_squares(trials: list[list[float]], standard_errors: float) -> None:
    """Fitted by parts of trials and of seeds, as a statistician would write it."""
    *complete, racing = trials
    m, n = len(complete), len(racing)
    part_of = np.array([[*np.eye(m)[i], *np.eye(n)[j]] for i in range(m) for j in range(n)])
    fitted, *_ = np.linalg.lstsq(part_of, np.ravel(complete), rcond=None)
    of_seeds = fitted[m:] - fitted[m:].mean()
    variance = np.square(np.ravel(complete) - part_of @ fitted).sum() / ((m - 1) * (n - 1))
    behind = [
        max(map(np.mean, complete)) - np.mean(np.array(racing[:k]) - of_seeds[:k])
        - standard_errors * np.sqrt(variance * (1 / k - 1 / n) * (1 + 1 / m))
        for k in range(1, n)
    ]  # fmt: skip
    assume(all(abs(margin) > 1e-6 for margin in behind))
    ends = next((k for k, margin in enumerate(behind, start=1) if margin > 0), n)
    assert race(Path(), trials, n_startup_trials=m, standard_errors=standard_errors) == [n] * m + [ends]
