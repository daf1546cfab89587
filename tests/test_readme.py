"""The applications of README.md and of the engine's README, taken out as they stand with their commands, and run
without the CIFAR packages. And README's commands that show the sweep language.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import hydra
import optuna
import pytest
import yaml
from conftest import REPOSITORY, Command
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

README = (REPOSITORY / "README.md").read_text()
ENGINE = (REPOSITORY / "cifarsweep" / "sweeper" / "README.md").read_text()
BLOCKED = ("torch", "torchvision", "pandas", "matplotlib")


def write_files(folder: Path) -> None:
    """fit.py, tune.py and search/conditional.yaml, with Hydra 1.4 as they say; modules that refuse to be imported."""
    (folder / "blocked").mkdir()
    for name in BLOCKED:
        (folder / "blocked" / f"{name}.py").write_text(f"raise ImportError('the engine imports {name}')\n")
    for text, language, name in (
        (README[README.index("## The search in an application of your own") :], "python", "fit.py"),
        (ENGINE, "python", "tune.py"),
        (ENGINE, "yaml", "search/conditional.yaml"),
    ):
        block = re.search(rf"```{language}\n(.*?)```", text, re.DOTALL)
        assert block is not None
        code = block[1]
        if not hydra.__version__.startswith("1.3."):
            code = code.replace("version_base=None", "execution_whitelist=[]")
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(code)


def commands(program: str = "tune.py", text: str = ENGINE) -> list[list[str]]:
    """The words of each `python tune.py`, the program's name first, in the order of the text."""
    lines = re.sub(r"\\\n\s+", "", text).splitlines()
    return [shlex.split(line)[1:] for line in lines if line.startswith(f"    python {program} ")]


def start(folder: Path, words: list[str], python: str = sys.executable) -> subprocess.Popen[str]:
    """In a process to whose workers, too, the packages of the CIFAR application cannot be imported."""
    blocked = folder / "blocked"
    return subprocess.Popen(
        [python, *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(blocked)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(folder: Path, words: list[str], python: str = sys.executable) -> str:
    process = start(folder, words, python)
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, (words, stderr)
    return stdout


def read_trials(sweep: Path) -> list[dict[str, Any]]:
    trials = json.loads((sweep / "study.json").read_text())["trials"]
    assert isinstance(trials, list)
    return sorted(trials, key=lambda trial: int(trial["number"]))


@pytest.fixture(scope="module")
def multirun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the commands leave. Two run at a time, those of the same sweep in their order."""
    folder = tmp_path_factory.mktemp("readme")
    write_files(folder)
    assert len(commands()) == 7
    sweeps: dict[str, list[list[str]]] = {}
    for words in commands():
        sweeps.setdefault(next((word for word in words if word.startswith("hydra.sweep.dir=")), ""), []).append(words)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda in_order: [run(folder, words) for words in in_order], sweeps.values()))
    return folder / "multirun"


def test_the_plain_search_completes_every_trial_and_writes_its_best(multirun: Path) -> None:
    trials = read_trials(multirun / "plain")
    assert [(trial["number"], trial["state"]) for trial in trials] == [(number, "complete") for number in range(6)]
    best = min(trials, key=lambda trial: trial["values"][0])
    results = yaml.safe_load((multirun / "plain" / "optimization_results.yaml").read_text())
    assert results == {"name": "optuna", "best_params": best["params"], "best_value": best["values"][0]}
    assert (multirun / "plain" / "0" / ".hydra" / "config.yaml").exists()
    assert (multirun / "plain" / "0" / "tune.log").exists()


def test_the_search_that_prunes_goes_on_to_the_larger_total(multirun: Path) -> None:
    trials = read_trials(multirun / "pruned")
    assert [trial["number"] for trial in trials] == list(range(15))
    assert {trial["state"] for trial in trials} == {"complete", "pruned"}


def test_trials_pause_and_go_on(multirun: Path) -> None:
    trials = read_trials(multirun / "paused")
    assert [trial["number"] for trial in trials] == list(range(10))
    counts = Counter(trial["state"] for trial in trials)
    assert set(counts) == {"complete", "paused"}
    backend = JournalFileBackend(str(multirun / "paused" / "study.journal"))
    study = optuna.load_study(study_name=None, storage=JournalStorage(backend))
    went_on = [trial.user_attrs["resumed_after"] for trial in study.trials if "resumed_after" in trial.user_attrs]
    assert went_on
    assert set(went_on) <= {1, 3, 9}
    for trial in trials:
        kept = json.loads((multirun / "paused" / "trials" / str(trial["number"]) / "state.json").read_text())
        assert kept["step"] == max(map(int, trial["epochs"]))


def test_the_budget_in_steps_is_spent_to_the_step(multirun: Path) -> None:
    trials = read_trials(multirun / "budget")
    states = [
        json.loads((multirun / "budget" / "trials" / str(trial["number"]) / "state.json").read_text())
        for trial in trials
    ]
    assert sum(state["step"] for state in states) == 60


def test_the_solutions_of_two_objectives_do_not_beat_each_other(multirun: Path) -> None:
    results = yaml.safe_load((multirun / "two" / "optimization_results.yaml").read_text())
    solutions = sorted(tuple(solution["values"]) for solution in results["solutions"])
    assert solutions
    assert [cost for _, cost in solutions] == sorted((cost for _, cost in solutions), reverse=True)


def test_the_conditional_key_is_there_with_its_choice_alone(multirun: Path) -> None:
    trials = read_trials(multirun / "conditional")
    assert len(trials) == 10
    assert {trial["params"]["method"] for trial in trials} == {"plain", "heavy"}
    for trial in trials:
        assert ("momentum" in trial["params"]) == (trial["params"]["method"] == "heavy")


@pytest.mark.parametrize(
    "what", ["ml=zip(", "hydra.sweeper.exclude=", "hydra.sweeper.constraints=", "hydra.sweeper.seeds="]
)
def test_the_sweep_language_is_accepted_as_it_stands(
    what: str, cifarsweep: Command, small: list[str], tmp_path: Path
) -> None:
    (line,) = (line for line in README.splitlines() if line.startswith("    python -m cifarsweep -m") and what in line)
    words = shlex.split(line, comments=True)[3:]
    data = [word for word in small if word.startswith(("data", "outputs="))]
    is_search = "search=default" in words
    of_grid = ["trainer.epochs=1", "model.width=4", "hydra/launcher=basic"]
    ends = ["hydra.sweeper.dry_run=true"] if is_search else of_grid
    done = cifarsweep(*words, *data, "name=language", *ends)

    assert done.returncode == 0, done.stderr
    if is_search:
        assert "plan of language: 1 study of 20 trials" in done.stdout
        assert ("3 runs of" in done.stdout) == ("seeds" in what)
    else:
        runs = sorted(path.name.rpartition("-bs")[0] for path in (tmp_path / "outputs" / "runs").glob("layers*"))
        assert runs == ["layers2-momentum-lr0.1", "layers3-momentum-lr0.05"]


def test_the_shortest_application_searches_to_its_total(tmp_path: Path) -> None:
    write_files(tmp_path)
    (words,) = commands("fit.py", README)
    run(tmp_path, [*words, "hydra.sweep.dir=fit"])
    trials = read_trials(tmp_path / "fit")
    assert [trial["number"] for trial in trials] == list(range(10))
    assert yaml.safe_load((tmp_path / "fit" / "optimization_results.yaml").read_text())["best_params"].keys() == {"lr"}


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds the worker in /proc")
def test_the_trial_of_a_killed_worker_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    write_files(tmp_path)
    words = [*commands()[0], "seconds=0.05", "hydra.sweeper.n_workers=1", "hydra.sweeper.n_trials=2"]
    process, checkpoint = start(tmp_path, words), tmp_path / "multirun" / "plain" / "trials" / "0" / "state.json"
    end = time.monotonic() + 60
    while not checkpoint.exists() or json.loads(checkpoint.read_text())["step"] < 5:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.01)
    (worker,) = workers_of(process.pid)
    os.kill(worker, signal.SIGKILL)
    _, stderr = process.communicate(timeout=60)

    assert process.returncode == 0, stderr
    backend = JournalFileBackend(str(tmp_path / "multirun" / "plain" / "study.journal"))
    study = optuna.load_study(study_name=None, storage=JournalStorage(backend))
    finished = [trial for trial in study.trials if trial.state == TrialState.COMPLETE]
    assert [trial.user_attrs.get("resumed_after", 0) >= 5 for trial in finished] == [True, False]


def workers_of(parent: int) -> list[int]:
    """Its children that multiprocessing spawned."""
    children = [int(number) for number in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]
    return [child for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]
