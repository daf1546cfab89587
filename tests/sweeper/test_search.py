"""The sweeper `study`: totals, resume, faults, pruning, objectives, and what it refuses before anything starts."""

from __future__ import annotations

import itertools
import json
import os
import random
import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import pytest
from conftest import REPOSITORY, Command, run_python, start_python
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from cifarsweep.results.study_records import StudyRecord
from cifarsweep.sweeper.storage import open_storage

Toy = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    """run_toy in tmp_path."""
    return partial(run_toy, tmp_path)


def run_toy(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """tests/toy.py, a search whose task trains nothing, as a process; its log of starts and ends in folder/log.

    Its only worker is the process itself, unless the words ask for others.
    """
    if not any(word.startswith(("hydra.sweeper.n_workers=", "hydra/launcher=")) for word in words):
        words = (*words, "hydra/launcher=basic")
    return run_python(*toy_command(folder, *words), cwd=folder, **{"TOY_LOG": str(folder / "log"), **environment})


def start_toy(folder: Path, *words: str, **environment: str) -> subprocess.Popen[str]:
    """The same in a fresh interpreter and a process group of its own, to be killed, with as many workers as cores."""
    return start_python(*toy_command(folder, *words), cwd=folder, **{"TOY_LOG": str(folder / "log"), **environment})


def toy_command(folder: Path, *words: str) -> list[str]:
    options = [word for word in words if word.startswith("--")]
    words = tuple(word for word in words if not word.startswith("--"))
    space = [] if any(word.startswith(("hydra/sweeper=", "search=")) for word in words) else ["search=quick"]
    if space and not any(word.startswith("hydra/sweeper/pruner=") for word in words):
        space.append("hydra/sweeper/pruner=asha")  # trials that pause start more than once
    command = [str(REPOSITORY / "tests" / "toy.py"), "-m", *options, "data=shapes", "name=toy", *space]
    return [*command, f"outputs={folder}/outputs", "trainer.epochs=3", *words]


def read_study(folder: Path, name: str = "toy") -> dict[str, Any]:
    found = json.loads((folder / "outputs" / "sweeps" / name / "study.json").read_text())
    assert isinstance(found, dict)
    return found


def states(folder: Path) -> Counter[str]:
    return Counter(trial["state"] for trial in read_study(folder)["trials"])


def num_finished(folder: Path) -> int:
    counts = states(folder)
    return counts["complete"] + counts["pruned"] + counts["failed"]


def logged(folder: Path, what: str) -> list[int]:
    return [int(line.split()[1]) for line in (folder / "log").read_text().splitlines() if line.startswith(f"{what} ")]


# the total


def test_a_search_ends_with_exactly_n_trials_and_names_the_best(toy: Toy, tmp_path: Path) -> None:
    done = toy("hydra.sweeper.n_trials=9", "hydra.sweeper.n_workers=3")
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(logged(tmp_path, "start")) == list(range(9))
    study = read_study(tmp_path)
    best = max((t for t in study["trials"] if t["state"] == "complete"), key=lambda t: t["values"])
    assert study["best"] == [best["number"]]
    lr = best["params"]["optimizer.lr"]
    assert study["best_command"] == (
        f"python -m cifarsweep data=shapes outputs={tmp_path}/outputs trainer.epochs=3 "
        f"model={best['params']['model']} optimizer={best['params']['optimizer']} optimizer.lr={lr!r}"
    )
    assert study["best_command"] in done.stdout
    sweep_dir = tmp_path / "outputs" / "sweeps" / "toy"
    written = (sweep_dir / "study.json").read_bytes()
    record = StudyRecord.read(sweep_dir)
    assert record
    record.write(sweep_dir)
    assert (sweep_dir / "study.json").read_bytes() == written


@pytest.mark.parametrize("words", [[], ["hydra.sweeper.study_per=[model]"], ["hydra.sweeper.seeds=[1,2]"]])
def test_a_setting_of_hydras_may_refer_to_what_only_a_job_has(toy: Toy, words: list[str]) -> None:
    pruner = "hydra/sweeper/pruner=none"
    done = toy("hydra.sweeper.n_trials=2", "hydra.sweep.subdir='of-${hydra.job.num}'", pruner, *words)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_same_command_again_runs_nothing_and_a_larger_total_only_the_rest(toy: Toy, tmp_path: Path) -> None:
    toy("hydra.sweeper.n_trials=4")
    before = read_study(tmp_path)["trials"]
    again = toy("hydra.sweeper.n_trials=4")
    assert again.returncode == 0
    assert len(logged(tmp_path, "start")) == 4
    toy("hydra.sweeper.n_trials=6")
    assert sorted(logged(tmp_path, "start")) == list(range(6))
    assert read_study(tmp_path)["trials"][:4] == before


@pytest.mark.slow
def test_a_smaller_total_leaves_the_surplus_trials_alone(toy: Toy, tmp_path: Path) -> None:
    started = start_toy(tmp_path, "hydra.sweeper.n_trials=30", TOY_SECONDS="0.2")
    wait_for_starts(tmp_path, 3)
    kill_all(started)
    done = toy("hydra.sweeper.n_trials=8")
    assert done.returncode == 0
    assert num_finished(tmp_path) == 8


def test_one_worker_gives_the_same_trials_twice(toy: Toy, tmp_path: Path) -> None:
    for name in ("one", "two"):
        assert toy("hydra.sweeper.n_trials=14", f"name={name}").returncode == 0
    one, two = (read_study(tmp_path, name)["trials"] for name in ("one", "two"))
    assert [(t["params"], t["values"]) for t in one] == [(t["params"], t["values"]) for t in two]


@pytest.mark.slow
def test_random_trials_do_not_depend_on_the_number_of_workers_or_on_interruptions(toy: Toy, tmp_path: Path) -> None:
    words = ["hydra/sweeper/sampler=random", "hydra/sweeper/pruner=none"]
    toy(*words, "hydra.sweeper.n_trials=8", "name=one")
    toy(*words, "hydra.sweeper.n_trials=3", "hydra.sweeper.n_workers=3", "name=three")
    toy(*words, "hydra.sweeper.n_trials=8", "hydra.sweeper.n_workers=3", "name=three")
    one, three = (read_study(tmp_path, name)["trials"] for name in ("one", "three"))
    assert [t["params"] for t in one] == [t["params"] for t in three]
    assert len({t["params"]["optimizer.lr"] for t in one}) == 8


# killed


def wait_for_starts(folder: Path, number: int) -> None:
    deadline = time.monotonic() + 60
    while not (folder / "log").exists() or len(logged(folder, "start")) < number:
        assert time.monotonic() < deadline, "no trial was started"
        time.sleep(0.02)


def kill_all(started: subprocess.Popen[str]) -> None:
    os.killpg(started.pid, signal.SIGKILL)
    started.communicate()


def worker_pids(folder: Path) -> list[int]:
    lines = (folder / "log").read_text().splitlines()
    return sorted({int(line.split()[2]) for line in lines if line.startswith("start")})


def kill_one_worker(folder: Path, chance: random.Random) -> None:
    alive = [pid for pid in worker_pids(folder) if Path(f"/proc/{pid}").exists()]
    if alive:
        os.kill(chance.choice(alive), signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").exists(), reason="finds live workers in /proc")
def test_ten_kills_at_random_moments_lose_no_trial_and_run_none_twice(tmp_path: Path) -> None:
    """Alternately one worker, which the study survives, and everything, after which the same command goes on."""
    words = ["hydra.sweeper.n_trials=80", "hydra.sweeper.n_workers=3", "hydra.sweeper.max_retries=9"]
    chance = random.Random(7)
    finished: dict[int, Any] = {}
    for kill in range(10):
        started_before = len(logged(tmp_path, "start")) if kill else 0
        started = start_toy(tmp_path, *words, TOY_SECONDS="0.03")
        wait_for_starts(tmp_path, started_before + chance.randrange(1, 7))
        time.sleep(chance.uniform(0, 0.15))
        if kill % 2:
            kill_one_worker(tmp_path, chance)
            time.sleep(chance.uniform(0, 0.5))
        kill_all(started)
        finished = check_none_changed(tmp_path, finished)
    last = start_toy(tmp_path, *words)
    _, err = last.communicate(timeout=120)
    assert last.returncode == 0, err
    check_none_changed(tmp_path, finished)
    assert num_finished(tmp_path) == len(read_study(tmp_path)["trials"]) == 80
    assert states(tmp_path)["failed"] == 0
    twice = [number for number, count in Counter(logged(tmp_path, "start")).items() if count > 1]
    assert len(twice) <= 10 * 3, "only what ran at a kill is started again"


def check_none_changed(folder: Path, before: dict[int, Any]) -> dict[int, Any]:
    """What the journal holds of finished trials, after a check that nothing of `before` has changed or run again."""
    import optuna

    from cifarsweep.sweeper.storage import open_storage

    storage = open_storage(str(folder / "outputs" / "sweeps" / "toy" / "study.journal"))
    trials = optuna.load_study(study_name="toy", storage=storage).trials
    now = {t.number: (t.state, t.values, t.params, t.datetime_complete) for t in trials if t.state.is_finished()}
    assert {number: now[number] for number in before} == before
    return now


def test_a_killed_worker_is_replaced_and_its_trial_goes_on_elsewhere(toy: Toy, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    first_time = f"not __import__('os').path.exists('{flag}') and not open('{flag}', 'w').close()"
    fault = f"'kill' if number == 2 and {first_time} else None"
    done = toy("hydra.sweeper.n_trials=6", "hydra.sweeper.n_workers=2", TOY_FAULT=fault)
    assert done.returncode == 0
    assert "lost its process: SIGKILL" in done.stderr
    assert states(tmp_path)["failed"] == 0
    assert num_finished(tmp_path) == 6
    assert Counter(logged(tmp_path, "start"))[2] == 2


@pytest.mark.slow
def test_a_trial_that_kills_its_process_twice_fails_and_the_others_go_on(toy: Toy, tmp_path: Path) -> None:
    done = toy("hydra.sweeper.n_trials=6", "hydra.sweeper.n_workers=2", TOY_FAULT="'kill' if number == 1 else None")
    assert done.returncode == 0
    trials = read_study(tmp_path)["trials"]
    assert trials[1]["reason"] == "its process died 2 times, perhaps out of memory or killed"
    assert [t["state"] for t in trials].count("failed") == 1
    assert num_finished(tmp_path) == 6


def test_ctrl_c_gives_the_trials_back_at_once(toy: Toy, tmp_path: Path) -> None:
    started = start_toy(tmp_path, "hydra.sweeper.n_trials=12", TOY_SECONDS="0.5")
    wait_for_starts(tmp_path, 2)
    os.killpg(started.pid, signal.SIGINT)
    _, err = started.communicate(timeout=30)
    assert started.returncode == 130
    assert err.startswith("interrupted; this goes on: toy.py -m data=shapes name=toy search=quick ")
    assert states(tmp_path)["running"] == 0
    assert toy("hydra.sweeper.n_trials=12").returncode == 0
    assert num_finished(tmp_path) == 12


def test_sigterm_to_a_worker_gives_its_trial_back_and_counts_no_death(tmp_path: Path) -> None:
    started = start_toy(
        tmp_path, "hydra.sweeper.n_trials=4", "hydra/launcher=basic", "hydra.sweeper.max_retries=0", TOY_SECONDS="0.5"
    )
    wait_for_starts(tmp_path, 1)
    started.terminate()
    started.communicate(timeout=30)
    assert started.returncode == 143
    assert states(tmp_path) == {"waiting": 1}


@pytest.mark.slow
def test_a_worker_that_is_told_to_end_gives_its_trial_back_by_itself(tmp_path: Path) -> None:
    """As on another machine, where nobody would see for grace_period seconds that it is gone."""
    started = start_toy(tmp_path, "hydra.sweeper.n_trials=2", "hydra.sweeper.n_workers=1", TOY_SECONDS="0.5")
    wait_for_starts(tmp_path, 1)
    os.kill(started.pid, signal.SIGSTOP)
    (worker,) = worker_pids(tmp_path)
    os.kill(worker, signal.SIGTERM)
    journal = str(tmp_path / "outputs" / "sweeps" / "toy" / "study.journal")
    deadline = time.monotonic() + 30
    while True:
        trials = optuna.load_study(study_name="toy", storage=open_storage(journal)).get_trials()
        if not any(trial.state == TrialState.RUNNING for trial in trials):
            break
        assert time.monotonic() < deadline, "the trial was not given back"
        time.sleep(0.1)
    kill_all(started)
    assert [trial.state for trial in trials] == [TrialState.WAITING]
    assert not any("deaths" in trial.user_attrs for trial in trials)


# two terminals


@pytest.mark.slow
def test_a_second_terminal_is_refused_unless_it_joins(toy: Toy, tmp_path: Path) -> None:
    words = ["hydra.sweeper.n_trials=20", "hydra.sweeper.n_workers=1", "hydra/sweeper/pruner=none"]
    first = start_toy(tmp_path, *words, TOY_SECONDS="0.2")
    wait_for_starts(tmp_path, 1)
    refused = toy(*words)
    assert refused.returncode == 1
    assert refused.stderr == ("name=toy: another process runs this study; hydra.sweeper.join=true adds workers to it\n")
    joined = toy(*words, "hydra.sweeper.join=true", TOY_SECONDS="0.2")
    out, err = first.communicate(timeout=60)
    assert (joined.returncode, first.returncode, err) == (0, 0, "")
    assert sorted(logged(tmp_path, "start")) == list(range(20))
    assert len(worker_pids(tmp_path)) == 2
    assert "20 trials finished" in joined.stdout
    assert "20 trials finished" in out


# failures


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("'raise' if number == 1 else None", "no luck with lr"),
        ("'nan' if number == 1 else None", "the task returned float nan, expected a finite number for val_accuracy"),
        ("'memory' if number == 1 else None", "out of memory: MemoryError"),
    ],
)
def test_a_trial_that_fails_says_why_and_the_study_goes_on(toy: Toy, tmp_path: Path, fault: str, reason: str) -> None:
    done = toy("hydra.sweeper.n_trials=4", TOY_FAULT=fault)
    assert done.returncode == 0
    failed = read_study(tmp_path)["trials"][1]
    assert failed["state"] == "failed"
    assert failed["reason"].startswith(reason)
    assert f"trial 1 failed: {reason}" in done.stdout
    assert num_finished(tmp_path) == 4


def test_too_many_failures_in_a_row_stop_the_study_with_the_last_error_in_full(toy: Toy, tmp_path: Path) -> None:
    words = ["hydra.sweeper.n_trials=20", "hydra.sweeper.max_failures=3"]
    done = toy(*words, TOY_FAULT="'raise' if number > 1 else None")
    assert done.returncode == 1
    assert "Traceback (most recent call last)" in done.stderr
    assert "raise ZeroDivisionError" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("study toy stopped, as more than 3 trials failed in a row")
    assert states(tmp_path) == {"complete": 2, "failed": 4}
    mended = toy(*words)
    assert mended.returncode == 0
    assert num_finished(tmp_path) == 20


# pruning and objectives


@pytest.mark.parametrize("pruner", ["median", "hyperband", "asha", "patient"])
def test_each_pruner_stops_some_trials_and_they_keep_their_values(toy: Toy, tmp_path: Path, pruner: str) -> None:
    words = ["hydra.sweeper.n_trials=25", f"hydra/sweeper/pruner={pruner}", "trainer.epochs=9"]
    done = toy(*words, "hydra/sweeper/sampler=random", TOY_BEST="3")
    assert done.returncode == 0
    trials = read_study(tmp_path)["trials"]
    pruned = [t for t in trials if t["state"] == "pruned"]
    assert 3 <= len(pruned) < 25
    assert all(0 < len(t["epochs"]) < 9 for t in pruned)
    assert all(t["values"] == [list(t["epochs"].values())[-1]] for t in pruned)


def test_without_a_pruner_every_trial_is_complete(toy: Toy, tmp_path: Path) -> None:
    toy("hydra.sweeper.n_trials=12", "hydra/sweeper/pruner=none")
    assert states(tmp_path) == {"complete": 12}


def test_several_objectives_end_in_a_pareto_set_and_prune_what_is_dominated(toy: Toy, tmp_path: Path) -> None:
    objectives = ["hydra.sweeper.objectives=[val_accuracy,params]", "hydra.sweeper.direction=[maximize,minimize]"]
    done = toy(*objectives, "hydra/sweeper=study", "hydra/sweeper/sampler=random", "hydra.sweeper.n_trials=40",
               "model=layers2,layers3,layers4", "optimizer.lr=tag(log,interval(0.001,1))")  # fmt: skip
    assert done.returncode == 0, done.stderr
    study = read_study(tmp_path)
    complete = [t for t in study["trials"] if t["state"] == "complete"]
    best = {t["number"] for t in complete if not any(beats(other, t) for other in complete)}
    assert set(study["best"]) == best
    assert {t["params"]["model"] for t in complete if t["number"] in best} == {"layers2", "layers3", "layers4"}
    assert 0 < states(tmp_path)["pruned"] < 40


def beats(a: dict[str, Any], b: dict[str, Any]) -> bool:
    (accuracy_a, params_a), (accuracy_b, params_b) = a["values"], b["values"]
    return accuracy_a >= accuracy_b and params_a <= params_b and a["values"] != b["values"]


# samplers


SLOW_SAMPLERS = [pytest.param(name, marks=pytest.mark.slow) for name in ("gp", "cmaes", "qmc")]


@pytest.mark.parametrize("sampler", ["random", "nsgaii", *SLOW_SAMPLERS])
def test_each_sampler_searches_a_conditional_space(toy: Toy, tmp_path: Path, sampler: str) -> None:
    needs = {"gp": "scipy", "cmaes": "cmaes", "qmc": "scipy"}
    if sampler in needs:
        pytest.importorskip(needs[sampler])
    done = toy("hydra.sweeper.n_trials=14", f"hydra/sweeper/sampler={sampler}", "hydra/sweeper/pruner=none")
    assert (done.returncode, done.stderr) == (0, "")
    assert states(tmp_path) == {"complete": 14}


@pytest.mark.parametrize("sampler", ["grid", "bruteforce"])
def test_a_finite_space_is_visited_once_by_workers_side_by_side(toy: Toy, tmp_path: Path, sampler: str) -> None:
    done = toy("hydra/sweeper=study", f"hydra/sweeper/sampler={sampler}", "hydra/sweeper/pruner=none",
               "hydra.sweeper.n_trials=100", "hydra.sweeper.n_workers=3",
               "model=layers2,layers3,layers4", "batch_size=choice(64,128)", "seed=range(2)")  # fmt: skip
    assert done.returncode == 0, done.stderr
    params = [tuple(t["params"].values()) for t in read_study(tmp_path)["trials"]]
    assert sorted(params) == sorted(itertools.product(["layers2", "layers3", "layers4"], [64, 128], [0, 1]))


def test_bruteforce_visits_conditional_points_once(toy: Toy, tmp_path: Path) -> None:
    (tmp_path / "conf" / "search").mkdir(parents=True)
    (tmp_path / "conf" / "search" / "mine.yaml").write_text(
        "# @package _global_\n"
        "defaults:\n  - override /hydra/sweeper: study\n"
        "hydra:\n  sweeper:\n    params:\n"
        "      optimizer: choice(sgd, momentum)\n"
        "      optimizer.lr:\n        optimizer=sgd: choice(0.1, 0.2, 0.3)\n"
    )
    done = toy(f"--config-dir={tmp_path}/conf", "search=mine", "hydra/sweeper/sampler=bruteforce",
               "hydra/sweeper/pruner=none", "hydra.sweeper.n_workers=2")  # fmt: skip
    assert done.returncode == 0, done.stderr
    params = [tuple(t["params"].values()) for t in read_study(tmp_path)["trials"]]
    assert sorted(params) == [("momentum",), ("sgd", 0.1), ("sgd", 0.2), ("sgd", 0.3)]


def test_a_missing_package_is_reported_with_the_pip_line_before_anything_starts(toy: Toy, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util as u, functools\n"
        "found = u.find_spec\n"
        "u.find_spec = lambda name, *more: None if name == 'cmaes' else found(name, *more)\n"
    )
    done = toy("hydra/sweeper/sampler=cmaes", PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    assert done.stderr == "hydra/sweeper/sampler: CmaEsSampler needs cmaes: pip install cmaes\n"
    assert not (tmp_path / "log").exists()


# the user's own trials


def test_enqueued_trials_come_first_and_once(toy: Toy, tmp_path: Path) -> None:
    words = [
        "hydra.sweeper.enqueue=[{model: layers3, optimizer: momentum, optimizer.lr: 0.1}, {model: layers2}]",
    ]
    toy(*words, "hydra.sweeper.n_trials=4")
    toy(*words, "hydra.sweeper.n_trials=5")
    trials = read_study(tmp_path)["trials"]
    assert trials[0]["params"] == {"model": "layers3", "optimizer": "momentum", "optimizer.lr": 0.1}
    assert trials[1]["params"]["model"] == "layers2"
    assert len(trials) == 5


def test_a_files_enqueued_trials_are_left_out_where_they_do_not_fit_a_narrower_space(toy: Toy, tmp_path: Path) -> None:
    words = [
        "search=default",
        "model=choice(layers2, layers4)",
        "hydra/sweeper/pruner=none",
        "hydra.sweeper.n_trials=2",
    ]
    done = toy(*words)
    line = "hydra.sweeper.enqueue leaves out a trial: model=layers3: expected choice(layers2, layers4)"
    assert (done.returncode, done.stdout.splitlines().count(line)) == (0, 1)
    trials = read_study(tmp_path)["trials"]
    assert [trial["params"]["optimizer.lr"] == 0.0086 for trial in trials] == [True, False]


def test_a_grid_visits_each_point_whatever_a_file_enqueues(toy: Toy, tmp_path: Path) -> None:
    one = [
        "optimizer=choice(sgd)",
        "optimizer.weight_decay=choice(0)",
        "batch_size=choice(64)",
        "schedule=choice(cosine)",
        "model.width=choice(8)",
    ]
    grid = ["hydra/sweeper/sampler=grid", "model=choice(layers2, layers3)", "optimizer.lr=choice(0.1, 0.2)"]
    done = toy("search=default", *grid, *one)
    assert done.returncode == 0, done.stderr
    assert states(tmp_path)["complete"] + states(tmp_path)["pruned"] == 4


# refused before the start


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["hydra/sweeper/sampler=best"],
            "hydra/sweeper/sampler=best: no such option, expected one of auto, bruteforce, cmaes",
        ),
        (["hydra/sweeper/pruner=axe"], "hydra/sweeper/pruner=axe: no such option, expected one of asha, auto, hyper"),
        (["hydra.sweeper.direction=up"], "hydra.sweeper.direction=up: expected maximize or minimize"),
        (
            ["hydra.sweeper.direction=[maximize,minimize]"],
            "hydra.sweeper.direction=[maximize, minimize]: expected 1, one for each of val_accuracy",
        ),
        (["hydra.sweeper.objectives=test_accuracy"], "hydra.sweeper.objectives=test_accuracy: expected some of val_"),
        (["hydra.sweeper.n_trials=0"], "hydra.sweeper.n_trials=0: expected a whole number from 1 to 100000"),
        (
            ["hydra.sweeper.n_workers=none"],
            "hydra.sweeper.n_workers=none: expected a whole number from 1 to 1000",
        ),
        (["hydra.sweeper.sampler.n_startup_trials=x"], "hydra.sweeper.sampler"),
        (["hydra.sweeper.pruner.reduction_factor=1"], "hydra.sweeper.pruner.reduction_factor=1: expected a whole"),
        (["hydra.sweeper.storage=mongo://x"], "hydra.sweeper.storage=mongo://x: expected a journal file's path or"),
        (["model=layers3"], "model=layers3: model is searched, by choice(layers2, layers3); 'model=choice(layers3)'"),
        (["model=choice(layers2,layers9)"], "model=layers9: no such option, expected one of airbench, layers1"),
        (["optimizer.lr=interval(-1,1)"], "optimizer.lr=-1.0: expected a number above 0"),
        (["optimizer.lrr=interval(0,1)"], "optimizer.lrr: no such key; optimizer accepts lr, momentum"),
        (["hydra.sweeper.enqueue=[{model: layers9}]"], "hydra.sweeper.enqueue: model=layers9: expected choice("),
        (["hydra/sweeper/sampler=grid"], "a space with conditions has no grid; hydra/sweeper/sampler=bruteforce"),
        (["hydra/sweeper/sampler=bruteforce"], "tag(log, interval(0.01, 0.5)): BruteForceSampler needs choice(…) or"),
        (["hydra/sweeper=study"], "nothing to search: give a key a space, as in lr=interval(0.01,1)"),
        (["data.val_size=0"], "data.val_size=0: expected validation images"),
        (["batch_size=0"], "batch_size=0: expected a whole number from 1 to 10000000"),
        (["hydra.sweeper.study_per=[depth]"], "hydra.sweeper.study_per: depth: not searched, expected some of model, "),
        (["hydra.sweeper.study_per=[optimizer.lr]"], "hydra.sweeper.study_per: optimizer.lr="),
        (["hydra.sweeper.study_per=3"], "hydra.sweeper.study_per=3: expected a list of keys that are searched"),
        (
            ["hydra.sweeper.budget=hours:3"],
            "hydra.sweeper.budget=hours:3: expected trials:N, steps:N, epochs:N or seconds:N",
        ),
        (["hydra.sweeper.finalists=-1"], "hydra.sweeper.finalists=-1: expected a whole number from 0 to 1000"),
        (["hydra.sweeper.repeats=0"], "hydra.sweeper.repeats=0: expected a whole number from 1 to 1000"),
        (["hydra.sweeper.final_on=test"], "hydra.sweeper.final_on=test: expected train or train_val"),
        (["hydra.sweeper.dry_run=maybe"], "hydra.sweeper.dry_run=maybe: expected true or false"),
        (
            ["hydra.sweeper.finalists=1", "hydra.sweeper.objectives=val_loss", "hydra.sweeper.direction=minimize"],
            "hydra.sweeper.finalists=1: expected 0, or objectives=val_accuracy and direction=maximize",
        ),
        (
            [
                "hydra.sweeper.study_per=[model]",
                "hydra.sweeper.objectives=[val_accuracy,params]",
                "hydra.sweeper.direction=[maximize,minimize]",
            ],
            "hydra.sweeper.study_per=[model]: expected [] with several objectives",
        ),
        (["hydra.sweeper.max_epochs=2"], "hydra.sweeper.max_steps=2: expected trainer.epochs, which is 3"),
        (
            ["hydra.sweeper.budget=epochs:9", "trainer.epochs=range(1,4)"],
            "hydra.sweeper.budget=9 epochs: expected trials:N where trainer.epochs is searched",
        ),
    ],
)
def test_a_mistake_is_one_line_before_anything_starts(toy: Toy, tmp_path: Path, words: list[str], message: str) -> None:
    done = toy(*words)
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "log").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["model=choice(layers2)"], "model: was choice(layers2, layers3), is choice(layers2)"),
        (["optimizer.lr=interval(0.01,0.5)"], "optimizer.lr | optimizer="),
        (["seed=range(3)"], "seed: was not searched"),
        (["trainer.epochs=4"], "trainer.epochs: was 3, is 4"),
        (["hydra.sweeper.objectives=val_loss"], "hydra.sweeper.objectives: was val_accuracy, is val_loss"),
        (["hydra.sweeper.direction=minimize"], "hydra.sweeper.direction: was maximize, is minimize"),
    ],
)
def test_a_study_refuses_to_go_on_with_other_values_than_it_began_with(
    finished_study: Path, words: list[str], message: str
) -> None:
    done = run_toy(finished_study, "hydra.sweeper.n_trials=4", *words)
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stderr.endswith("the study toy cannot go on with it; another name= begins a new one\n")


@pytest.fixture(scope="module")
def finished_study(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("finished")
    run_toy(folder, "hydra.sweeper.n_trials=2")
    yield folder
    assert num_finished(folder) == 2, "a refused command changed the study"


# real runs


def test_a_trial_is_an_ordinary_run_which_a_single_command_finds(
    cifarsweep: Command, small: list[str], tmp_path: Path
) -> None:
    words = [word for word in small if not word.startswith("model=")]
    done = cifarsweep("-m", "search=quick", *words, "name=s", "hydra.sweeper.n_trials=3", "hydra/sweeper/pruner=none",
                      "hydra/launcher=basic")  # fmt: skip
    assert done.returncode == 0, done.stderr
    study = read_study(tmp_path, "s")
    runs = {t["run"] for t in study["trials"]}
    assert runs == {path.name for path in (tmp_path / "outputs" / "runs").iterdir() if not path.name.startswith(".")}
    best = study["trials"][study["best"][0]]
    result = json.loads((tmp_path / "outputs" / "runs" / best["run"] / "result.json").read_text())
    assert best["values"] == [result["val_accuracy"]]
    assert (tmp_path / "outputs" / "sweeps" / "s" / "report" / "optimization_history.png").exists()
    single = cifarsweep(*study["best_command"].split()[3:])
    assert "trained before" in single.stdout


def test_the_command_for_the_best_trial_gives_what_an_experiment_changes_by_value(
    cifarsweep: Command, small: list[str], tmp_path: Path
) -> None:
    """As a single run takes no experiment that says how to search."""
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    (tmp_path / "mine" / "experiment" / "recipe.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /optimizer: adamw\n  - override /hydra/sweeper: study\n"
        "trainer: {epochs: 1}\nmodel: {dropout: 0.1}\nhydra: {sweeper: {n_trials: 2, params: {seed: 'choice(3, 4)'}}}\n"
    )
    words = [word for word in small if not word.startswith("trainer.epochs")]
    done = cifarsweep(
        "-m",
        "--config-dir=mine",
        "experiment=recipe",
        *words,
        "name=r",
        "hydra/launcher=basic",
        "hydra/sweeper/pruner=none",
    )
    assert done.returncode == 0, done.stderr
    command = read_study(tmp_path, "r")["best_command"].split()
    assert {"optimizer=adamw", "trainer.epochs=1", "model.dropout=0.1"} <= set(command)
    single = cifarsweep(*command[3:])
    assert "trained before" in single.stdout, single.stderr


@pytest.mark.slow
def test_a_search_trains_nothing_that_was_trained_before(cifarsweep: Command, small: list[str], tmp_path: Path) -> None:
    words = ["-m", "search=quick", *(word for word in small if not word.startswith("model=")),
             "hydra.sweeper.n_trials=3", "hydra/launcher=basic", "hydra/sweeper/sampler=random"]  # fmt: skip
    cifarsweep(*words, "name=one", "hydra/sweeper/pruner=none")
    results = sorted((tmp_path / "outputs" / "runs").glob("*/result.json"))
    before = [path.stat().st_mtime_ns for path in results]
    again = cifarsweep(*words, "name=two", "hydra/sweeper/pruner=asha")
    assert again.returncode == 0, again.stderr
    assert [path.stat().st_mtime_ns for path in results] == before
    one, two = (read_study(tmp_path, name)["trials"] for name in ("one", "two"))
    assert [(t["state"], t["values"], t["epochs"]) for t in one] == [
        (t["state"], t["values"], t["epochs"]) for t in two
    ]


@pytest.mark.slow
def test_a_pruned_run_is_trained_to_the_end_when_it_is_asked_for_alone(
    cifarsweep: Command, small: list[str], tmp_path: Path
) -> None:
    done = cifarsweep(
        "-m", "hydra/sweeper=study", *small, "name=p", "seed=range(6)", "trainer.epochs=3", "trainer.threads=1",
        "hydra/sweeper/sampler=grid", "hydra/launcher=basic",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    pruned = next(t for t in read_study(tmp_path, "p")["trials"] if t["state"] == "pruned")
    run = tmp_path / "outputs" / "runs" / pruned["run"]
    assert json.loads((run / "result.json").read_text())["status"] == "pruned"
    rows = (run / "metrics.csv").read_text().splitlines()
    assert len(rows) == 1 + len(pruned["epochs"]) < 4
    assert (
        f"{pruned['run'].rpartition('-')[2]},pruned"
        in (tmp_path / "outputs" / "sweeps" / "p" / "report" / "runs.csv").read_text()
    )
    cifarsweep(*small, "trainer.epochs=3", "trainer.threads=1", f"seed={pruned['params']['seed']}")
    assert json.loads((run / "result.json").read_text())["status"] == "complete"
    assert (run / "metrics.csv").read_text().splitlines()[1].rpartition(",")[0] == rows[1].rpartition(",")[0]


@pytest.mark.slow
def test_warm_start_brings_in_the_runs_that_fit_and_no_others(
    cifarsweep: Command, small: list[str], tmp_path: Path
) -> None:
    words = [word for word in small if not word.startswith("model=")]
    cifarsweep("-m", *words, "model=layers2", "optimizer.lr=0.1,0.05,7", "name=grid", "hydra/launcher=basic")
    cifarsweep("-m", *words, "model=layers2", "trainer.epochs=1", "name=other", "hydra/launcher=basic")
    done = cifarsweep(
        "-m", "hydra/sweeper=study", *words, "model=layers2,layers3", "optimizer.lr=tag(log,interval(0.01,1))",
        "name=warm", "hydra/launcher=basic", "hydra.sweeper.n_trials=1", "hydra.sweeper.warm_start=true",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "2 complete runs fit the space" in done.stdout
    trials = read_study(tmp_path, "warm")["trials"]
    warm = [t["params"] for t in trials if t["warm_start"]]
    assert sorted(p["optimizer.lr"] for p in warm) == [0.05, 0.1]
    assert len(trials) == 3


def test_a_diverged_run_is_a_failed_trial(cifarsweep: Command, small: list[str], tmp_path: Path) -> None:
    done = cifarsweep(
        "-m", "hydra/sweeper=study", *small, "optimizer=sgd", "optimizer.lr=choice(1e30,0.1)", "schedule=constant",
        "name=d", "hydra/launcher=basic", "model.norm=none", "hydra/sweeper/sampler=bruteforce",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    failed = next(t for t in read_study(tmp_path, "d")["trials"] if t["params"]["optimizer.lr"] == 1e30)
    assert re.match(r"diverged in epoch 1: the loss is no longer finite", failed["reason"])


# other tools, other file systems


@pytest.mark.slow
def test_a_tool_of_optuna_writes_to_the_journal_of_a_search_that_runs(tmp_path: Path) -> None:
    """As optuna-dashboard does with a note: by Optuna's own storage, which takes its own lock."""
    started = start_toy(tmp_path, "hydra.sweeper.n_trials=60", "hydra.sweeper.n_workers=2", TOY_SECONDS="0.02")
    wait_for_starts(tmp_path, 2)
    backend = JournalFileBackend(str(tmp_path / "outputs" / "sweeps" / "toy" / "study.journal"))
    study = optuna.load_study(study_name="toy", storage=JournalStorage(backend))
    longest = 0.0
    for number in range(20):
        began = time.monotonic()
        study.set_user_attr(f"note{number}", "x" * number)
        longest = max(longest, time.monotonic() - began)
    was_running = started.poll() is None
    _, err = started.communicate(timeout=120)
    assert (started.returncode, err) == (0, "")
    assert was_running
    assert longest < 10
    assert num_finished(tmp_path) == 60
    now = optuna.load_study(study_name="toy", storage=open_storage(backend._file_path))
    assert {f"note{number}" for number in range(20)} <= now.user_attrs.keys()


@pytest.mark.slow
def test_a_file_system_without_flock_and_hard_links_is_as_good_as_any(toy: Toy, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import errno, fcntl, os\n"
        "def refuse(*args, **kwargs):\n"
        "    raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))\n"
        "fcntl.flock = os.link = refuse\n"
    )
    path = f"{REPOSITORY}{os.pathsep}{tmp_path}"
    done = toy("hydra.sweeper.n_trials=20", "hydra.sweeper.n_workers=2", PYTHONPATH=path)
    assert (done.returncode, done.stderr) == (0, "")
    assert num_finished(tmp_path) == 20
    assert sorted(logged(tmp_path, "start")) == list(range(20))
