"""The engine in applications of others: a function under @hydra.main, Hydra, and nothing of ours but `trial`."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from foreign import APPS, IS_HYDRA_1_3, SEARCH, Run, read_overrides, read_results, read_trials
from foreign import run as run_in

HAS_JOBLIB = importlib.util.find_spec("joblib") and importlib.util.find_spec("hydra_plugins.hydra_joblib_launcher")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return partial(run_in, tmp_path)


# the simplest application


@pytest.mark.parametrize(
    "launcher",
    [
        "local",
        "basic",
        pytest.param(
            "joblib", marks=[pytest.mark.slow, pytest.mark.skipif(not HAS_JOBLIB, reason="its launcher is missing")]
        ),
    ],
)
def test_a_search_minimizes_what_an_application_returns_under_any_launcher(
    run: Run, tmp_path: Path, launcher: str
) -> None:
    words = [f"hydra/launcher={launcher}", "hydra.sweeper.n_workers=2", "hydra.sweeper.n_trials=6"]
    done = run("plain", "-m", "hydra/sweeper=study", "hydra.sweep.dir=sweep", *words, "x=interval(0, 4)")

    assert done.returncode == 0, done.stderr
    trials = read_trials(tmp_path)
    assert [(trial["number"], trial["state"]) for trial in trials] == [(number, "complete") for number in range(6)]
    best = min(trials, key=lambda trial: trial["values"][0])
    assert read_results(tmp_path) == {"name": "optuna", "best_params": best["params"], "best_value": best["values"][0]}
    assert best["values"] == [pytest.approx((best["params"]["x"] - 2) ** 2)]


def test_a_script_that_does_not_ask_whether_it_is_imported_is_run_once_and_its_task_may_have_processes(
    run: Run, tmp_path: Path
) -> None:
    done = run("bare", "-m", *SEARCH, "hydra.sweeper.n_trials=3", "x=interval(0, 4)")

    assert done.returncode == 0, done.stderr
    values = [(trial["values"], [pytest.approx(3 * trial["params"]["x"])]) for trial in read_trials(tmp_path)]
    assert len(values) == 3
    assert all(found == expected for found, expected in values)


@pytest.mark.parametrize("words", [("x=0,1",), ("hydra/sweeper=study", "hydra.sweeper.n_trials=2", "x=interval(0, 4)")])
def test_workers_that_die_as_they_start_end_the_sweep_with_a_line(
    run: Run, tmp_path: Path, words: tuple[str, ...]
) -> None:
    dying = "import os, sys\nif any('spawn_main' in word for word in sys.orig_argv):\n    os._exit(7)\n"
    (tmp_path / "sitecustomize.py").write_text(dying)

    done = run("plain", "-m", "hydra/launcher=local", "hydra.sweep.dir=sweep", *words, PYTHONPATH=str(tmp_path))

    assert done.returncode == 1
    assert "its process ended twice, exit code 7" in done.stderr


def test_the_same_command_tops_up_to_the_total_and_repeats_nothing(run: Run, tmp_path: Path) -> None:
    words = ["plain", "-m", *SEARCH, "x=interval(0, 4)"]
    assert run(*words, "hydra.sweeper.n_trials=2").returncode == 0
    before = read_trials(tmp_path)
    assert run(*words, "hydra.sweeper.n_trials=3").returncode == 0

    assert read_trials(tmp_path)[:2] == before
    assert len(read_trials(tmp_path)) == 3


def test_a_single_run_of_an_application_that_reports_is_not_disturbed(run: Run) -> None:
    for app in ("plain", "pruned", "checkpointed", "several"):
        done = run(app)
        assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_the_engine_imports_no_package_of_the_cifar_application(tmp_path: Path) -> None:
    words = ["-m", "hydra/sweeper=study", "hydra/launcher=basic", "hydra.sweeper.n_trials=2", "x=interval(0, 4)"]
    code = (
        f"import runpy, sys\nsys.argv = ['plain.py', *{words}]\n"
        f"runpy.run_path({str(APPS / 'plain.py')!r}, run_name='__main__')\n"
        "print([name for name in ('torch', 'torchvision', 'pandas', 'matplotlib', 'cifarsweep.training',"
        " 'cifarsweep.data', 'cifarsweep.models', 'cifarsweep.report') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


# Hydra's own sweeper with our launcher


def test_hydras_basic_sweeper_has_its_jobs_run_by_local(run: Run, tmp_path: Path) -> None:
    done = run("looks", "-m", "hydra/launcher=local", "hydra.sweep.dir=sweep", "x=3,5,7")

    assert done.returncode == 0, done.stderr
    assert [seen(tmp_path, number)["config"]["x"] for number in range(3)] == [3, 5, 7]
    assert [read_overrides(tmp_path / "sweep" / str(number)) for number in range(3)] == [["x=3"], ["x=5"], ["x=7"]]
    assert (tmp_path / "sweep" / "multirun.yaml").exists()


def test_the_error_of_a_job_under_local_ends_hydras_sweep_after_all_jobs(run: Run, tmp_path: Path) -> None:
    done = run("mistakes", "-m", "hydra/launcher=local", "hydra.sweep.dir=sweep", "mistake=raises,nothing", "x=0,1")

    assert done.returncode == 1
    assert "the application's own error" in done.stderr
    assert all((tmp_path / "sweep" / str(number) / ".hydra" / "config.yaml").exists() for number in range(4))


# Hydra's conventions


def seen(folder: Path, number: int, job_dir: str | None = None) -> dict[str, Any]:
    found = json.loads((folder / "sweep" / (job_dir or str(number)) / "seen.json").read_text())
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("launcher", ["local", "basic"])
def test_each_trial_has_the_folder_the_log_and_the_number_that_hydra_gives_a_job(
    run: Run, tmp_path: Path, launcher: str
) -> None:
    words = [f"hydra/launcher={launcher}", "hydra/sweeper/sampler=grid", "hydra.sweeper.n_trials=3"]
    done = run("looks", "-m", "hydra/sweeper=study", "hydra.sweep.dir=sweep", *words, "x=choice(3, 5, 7)")

    assert done.returncode == 0, done.stderr
    for trial in read_trials(tmp_path):
        number, x = trial["number"], trial["params"]["x"]
        job_dir, facts = tmp_path / "sweep" / str(number), seen(tmp_path, number)
        assert facts["num"] == number
        assert facts["id"] == str(number)
        assert facts["name"] == "looks"
        assert facts["overrides"] == [f"x={x}"] == read_overrides(job_dir)
        assert facts["override_dirname"] == f"x={x}"
        assert facts["subdir"] == str(number)
        assert Path(facts["output_dir"]) == job_dir
        assert facts["cwd"] == str(tmp_path)
        assert facts["environment"] == str(number)
        assert facts["config"] == {"x": x, "unused": 0, "doubled": 2 * x}
        assert yaml.safe_load((job_dir / ".hydra" / "config.yaml").read_text())["x"] == x
        hydra_config = yaml.safe_load((job_dir / ".hydra" / "hydra.yaml").read_text())["hydra"]
        assert (hydra_config["job"]["num"], hydra_config["overrides"]["task"]) == (number, [f"x={x}"])
        assert f"x is {x}\n" in (job_dir / "looks.log").read_text()
        assert (job_dir / "looks.log").read_text().count("x is") == 1


def test_no_folder_is_made_for_what_is_no_trial(run: Run, tmp_path: Path) -> None:
    done = run("plain", "-m", *SEARCH, "hydra.sweeper.n_workers=2", "hydra.sweeper.n_trials=1", "x=interval(0, 4)")

    assert done.returncode == 0, done.stderr
    job_dirs = {folder.parent.name for folder in (tmp_path / "sweep").glob("*/.hydra")}
    assert job_dirs == {"0"}


def test_callbacks_hear_of_each_trial_once(run: Run, tmp_path: Path) -> None:
    done = run("looks", "-m", *SEARCH, "hydra/sweeper/sampler=grid", "hydra.sweeper.n_workers=2", "x=choice(3, 5, 7)")

    assert done.returncode == 0, done.stderr
    ends = [f"end {trial['number']} COMPLETED {trial['params']['x']}" for trial in read_trials(tmp_path)]
    heard = (tmp_path / "heard").read_text().splitlines()
    assert sorted(heard) == sorted([*ends, "start 0", "start 1", "start 2"])


def test_a_subdir_may_be_made_of_the_overrides_and_the_job_may_run_in_it(run: Run, tmp_path: Path) -> None:
    subdir = "hydra.sweep.subdir=${hydra.job.override_dirname}"
    done = run("looks", "-m", *SEARCH, subdir, "hydra.job.chdir=true", "hydra/sweeper/sampler=grid", "x=choice(3, 5)")

    assert done.returncode == 0, done.stderr
    for x in (3, 5):
        assert seen(tmp_path, 0, f"x={x}")["cwd"] == str(tmp_path / "sweep" / f"x={x}")
        assert (tmp_path / "sweep" / f"x={x}" / "looks.log").exists()


@pytest.mark.skipif(IS_HYDRA_1_3, reason="a resolver of Hydra 1.4")
def test_a_subdir_may_be_made_by_hydras_resolver_of_overrides(run: Run, tmp_path: Path) -> None:
    subdir = "hydra.sweep.subdir='${hydra_override_dirname:{kv_sep:_}}'"
    done = run("looks", "-m", *SEARCH, subdir, "hydra/sweeper/sampler=grid", "x=choice(3, 5)")

    assert done.returncode == 0, done.stderr
    assert sorted(seen(tmp_path, 0, f"x_{x}")["config"]["x"] for x in (3, 5)) == [3, 5]


def test_keys_may_be_added_and_taken_away(run: Run, tmp_path: Path) -> None:
    done = run("looks", "-m", *SEARCH, "hydra/sweeper/sampler=grid", "x=choice(3, 5)", "+more=8", "~unused")

    assert done.returncode == 0, done.stderr
    assert [set(seen(tmp_path, number)["config"]) for number in range(2)] == [{"x", "doubled", "more"}] * 2
    assert set(read_overrides(tmp_path / "sweep" / "0")) >= {"+more=8", "~unused"}


# spaces


CONDITIONAL = """\
# @package _global_
defaults:
  - override /hydra/sweeper: study
  - override /hydra/launcher: local
hydra:
  sweep:
    dir: sweep
  sweeper:
    n_trials: 12
    params:
      optimizer: choice(sgd, adam)
      optimizer.lr:
        optimizer=sgd: tag(log, interval(0.01, 1))
        optimizer=adam: tag(log, interval(0.0001, 0.009))
      optimizer.momentum:
        optimizer=sgd: choice(0.8, 0.9)
"""


def test_a_conditional_space_of_a_structured_configuration_stands_in_a_config_dir(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mine" / "search").mkdir(parents=True)
    (tmp_path / "mine" / "search" / "conditional.yaml").write_text(CONDITIONAL)
    done = run("structured", "-m", "--config-dir", "mine", "+search=conditional", "hydra.sweeper.n_workers=2")

    assert done.returncode == 0, done.stderr
    trials = read_trials(tmp_path)
    assert len(trials) == 12
    for trial in trials:
        params = trial["params"]
        if params["optimizer"] == "sgd":
            assert 0.01 <= params["optimizer.lr"] <= 1
            assert params["optimizer.momentum"] in (0.8, 0.9)
        else:
            assert 0.0001 <= params["optimizer.lr"] <= 0.009
            assert "optimizer.momentum" not in params
        assert trial["values"] == [
            pytest.approx(abs(params["optimizer.lr"] - 0.05) + params.get("optimizer.momentum", 1.0))
        ]


def test_a_value_of_the_wrong_type_is_refused_by_its_key_before_any_trial(run: Run, tmp_path: Path) -> None:
    done = run("structured", "-m", *SEARCH, "batch_size=choice(16, many)")

    assert done.returncode == 1
    assert "batch_size" in done.stderr
    assert "many" in done.stderr
    assert not list((tmp_path / "sweep").glob("*/.hydra"))


def test_a_key_that_is_not_there_is_refused_before_any_trial(run: Run, tmp_path: Path) -> None:
    done = run("structured", "-m", *SEARCH, "optimizer.rate=interval(0, 1)")

    assert done.returncode == 1
    assert "optimizer.rate" in done.stderr
    assert not list((tmp_path / "sweep").glob("*/.hydra"))


# pruning, budgets and several objectives


def test_trials_that_are_worse_than_others_are_pruned(run: Run, tmp_path: Path) -> None:
    pruner = ["hydra/sweeper/pruner=median", "hydra.sweeper.pruner.n_startup_trials=1"]
    enqueue = "hydra.sweeper.enqueue=[{x: 0}, {x: 1}, {x: 2}, {x: 3}]"
    words = [*pruner, enqueue, "hydra.sweeper.n_workers=1", "hydra.sweeper.n_trials=4"]
    done = run("pruned", "-m", *SEARCH, *words, "x=choice(0, 1, 2, 3)")

    assert done.returncode == 0, done.stderr
    assert [trial["state"] for trial in read_trials(tmp_path)] == ["complete", "pruned", "pruned", "pruned"]
    assert read_results(tmp_path) == {"name": "optuna", "best_params": {"x": 0}, "best_value": pytest.approx(0.05)}


def test_a_budget_may_be_counted_in_steps(run: Run, tmp_path: Path) -> None:
    words = ["hydra.sweeper.budget=steps:50", "hydra/sweeper/pruner=none", "hydra.sweeper.n_workers=2"]
    done = run("pruned", "-m", *SEARCH, *words, "x=interval(0, 3)")

    assert done.returncode == 0, done.stderr
    trials = read_trials(tmp_path)
    assert sum(len(trial["epochs"]) for trial in trials) == 50
    assert {trial["state"] for trial in trials} == {"complete", "pruned"}
    assert 2 < len(trials) <= 4


def test_several_objectives_have_names_of_the_applications_own(run: Run, tmp_path: Path) -> None:
    objectives = ["hydra.sweeper.objectives=[error, size]", "hydra.sweeper.direction=[minimize, minimize]"]
    space = ["hydra/sweeper/sampler=grid", "x=choice(0, 1, 2, 3)", "y=choice(0, 1)"]
    done = run("several", "-m", *SEARCH, *objectives, *space)

    assert done.returncode == 0, done.stderr
    results = read_results(tmp_path)
    assert set(results) == {"name", "solutions"}
    solutions = sorted(results["solutions"], key=lambda solution: solution["params"]["x"])
    assert solutions == [
        {"params": {"x": 0, "y": 0}, "values": [4.0, 0.0]},
        {"params": {"x": 1, "y": 0}, "values": [1.0, 1.0]},
        {"params": {"x": 2, "y": 0}, "values": [0.0, 2.0]},
    ]


# mistakes


EXPECTED_REASONS = {
    "raises": r"the application's own error",
    "none": r"returned .*None\b.*number",
    "text": r"returned .*good.*number",
    "no_number": r"returned .*\bnan\b.*finite",
    "too_many": r"returned .*\[1\.0, 2\.0\].*(a|one) finite number\b",
    "tensor": r"report\(1\b.*number.*Tensor|report\(1\b.*Tensor.*number",
    "twice": r"report\(1\b.*step after 1\b",
    "complex": r"returned complex 1j, expected a finite number",
    "huge": r"returned int, expected a finite number",
    "huge_report": r"report\(1\b.*expected a number as value, here int 1000",
    "far_step": r"report\(1000.*expected a whole number from 0 to 2147483647 as the step",
    "own_fact": r"record\(warm_start=…\): the search keeps",
    "odd_fact": r"record\(path=…\): expected what JSON can hold, here PosixPath",
    "backwards": r"report\(1\b.*step after 2\b",
}


def test_each_mistake_of_an_application_fails_its_trial_with_one_clear_line(run: Run, tmp_path: Path) -> None:
    kinds = ", ".join(["nothing", *EXPECTED_REASONS])
    words = ["hydra/sweeper/sampler=grid", "hydra.sweeper.max_failures=99", "hydra.sweeper.n_workers=1"]
    done = run("mistakes", "-m", *SEARCH, *words, f"mistake=choice({kinds})")

    assert done.returncode == 0, done.stderr
    trials = {trial["params"]["mistake"]: trial for trial in read_trials(tmp_path)}
    assert trials.pop("nothing")["state"] == "complete"
    assert {trial["state"] for trial in trials.values()} == {"failed"}
    for mistake, trial in trials.items():
        assert re.search(EXPECTED_REASONS[mistake], trial["reason"]), (mistake, trial["reason"])
        assert "\n" not in trial["reason"]
        lines = [line for line in (done.stdout + done.stderr).splitlines() if trial["reason"] in line]
        assert len(lines) == 1, (mistake, lines)
    assert "Traceback" not in done.stdout + done.stderr
    assert read_results(tmp_path)["best_params"] == {"mistake": "nothing"}


def test_a_trials_folder_that_cannot_be_made_ends_the_search_and_is_not_held_against_the_trial(
    run: Run, tmp_path: Path
) -> None:
    """As of a full disk."""
    words = ["plain", "-m", *SEARCH, "hydra.sweeper.n_workers=1", "hydra.sweeper.n_trials=2", "x=interval(0, 4)"]
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "1").touch()
    done = run(*words)
    assert done.returncode == 1
    assert "sweep/1: File exists" in done.stderr
    assert "Traceback" not in done.stderr

    (tmp_path / "sweep" / "1").unlink()
    assert run(*words).returncode == 0
    assert [trial["state"] for trial in read_trials(tmp_path)] == ["complete", "complete"]


def test_too_few_numbers_for_several_objectives_fail_the_trial(run: Run, tmp_path: Path) -> None:
    objectives = ["hydra.sweeper.objectives=[error, size]", "hydra.sweeper.direction=[minimize, minimize]"]
    done = run("plain", "-m", *SEARCH, *objectives, "hydra.sweeper.n_trials=1", "x=interval(0, 4)")

    (trial,) = read_trials(tmp_path)
    assert trial["state"] == "failed"
    assert re.search(r"returned .*expected .*2 finite numbers", trial["reason"])
    assert "Traceback" not in done.stderr


def test_objectives_and_directions_must_match_in_number(run: Run) -> None:
    done = run("plain", "-m", *SEARCH, "hydra.sweeper.objectives=[error, size]", "x=interval(0, 4)")

    assert done.returncode == 1
    assert "hydra.sweeper.direction" in done.stderr


def test_a_search_whose_trials_all_failed_is_a_failure_with_the_first_reason(run: Run, tmp_path: Path) -> None:
    done = run("mistakes", "-m", *SEARCH, "hydra.sweeper.n_trials=3", "mistake=choice(raises)", "x=range(3)")

    assert done.returncode == 1
    assert "study sweep: all 3 trials failed; the first: the application's own error" in done.stderr
    assert "Traceback" not in done.stderr
    assert [trial["state"] for trial in read_trials(tmp_path)] == ["failed"] * 3


@pytest.mark.parametrize(
    "word",
    [
        "hydra.sweeper.n_trials=99999999999999",
        "hydra.sweeper.storage=foo",
        "hydra.sweeper.objectives=[value,value]",
        "+hydra.sweeper.zzz=1",
        "~hydra.sweeper.n_trials",
        "+hydra.launcher.zzz=1",
        "hydra.launcher.n_workers=0",
        "hydra.launcher.n_workers=1000000000",
        "hydra.sweeper.sampler.seed=abc",
        "hydra.sweeper.sampler.n_startup_trials=-5",
        "+hydra.sweeper.pruner.zzz=1",
        "hydra.sweeper.sampler._target_=os.system",
    ],
)
def test_a_key_of_the_engine_that_cannot_be_used_is_refused_and_nothing_is_written(
    run: Run, tmp_path: Path, word: str
) -> None:
    done = run("plain", "-m", *SEARCH, "x=interval(0, 4)", word)

    assert done.returncode == 1
    assert done.stderr.startswith(word.lstrip("+~").partition("=")[0])
    assert not list(tmp_path.iterdir())
