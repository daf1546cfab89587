"""A study under each launcher that Hydra has: as many trials as were asked for, each started once.

Launchers that are not installed are skipped; `pip install -e '.[joblib,ray,slurm]'` brings them. Slurm has tests of its
own, in test_slurm.py.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import REPOSITORY

N_TRIALS = 6

PLUGINS = {
    "joblib": ("hydra_plugins.hydra_joblib_launcher", "joblib"),
    "ray": ("hydra_plugins.hydra_ray_launcher", "ray"),
    "submitit_local": ("hydra_plugins.hydra_submitit_launcher", "slurm"),
}
"""By launcher, the module it comes in, and our extra that installs it."""

SETTINGS = {
    "ray": [
        "hydra.launcher.ray.init.address=local",  # never a cluster that happens to run here
        "+hydra.launcher.ray.init.num_cpus=2",
        "+hydra.launcher.ray.init.include_dashboard=false",
    ],
    "submitit_local": ["hydra.launcher.timeout_min=2"],
}

KILL_ONCE = """
(lambda flag: number == 1 and not flag.exists() and (flag.touch(), "kill")[1])(__import__("pathlib").Path("killed"))
"""
"""A fault of toy.py: the process that works on trial 1 is killed, the first time only."""


@pytest.fixture
def ray_folder() -> Iterator[Path]:
    """For Ray's session; directly in /tmp, as the path of a socket may have 107 characters."""
    folder = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def proxy() -> Iterator[socket.socket]:
    """Where requests to the network would arrive; nobody answers there."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        yield listening


SLOW_LAUNCHERS = [pytest.param(name, marks=pytest.mark.slow) for name in ("basic", "local", "ray", "submitit_local")]


@pytest.mark.parametrize("launcher", ["joblib", *SLOW_LAUNCHERS])
def test_a_study_runs_each_of_its_trials_once_under(
    launcher: str, tmp_path: Path, ray_folder: Path, proxy: socket.socket
) -> None:
    _needs(launcher)
    # Without it Ray 2.60 asks the metadata services of three clouds where it runs, even with its statistics off.
    (tmp_path / "ray_bootstrap_config.yaml").write_text("provider: {type: local}")

    to_proxy = f"http://127.0.0.1:{proxy.getsockname()[1]}"
    done = _search(tmp_path, launcher, RAY_TMPDIR=str(ray_folder), http_proxy=to_proxy, no_proxy="127.0.0.1")

    assert done.returncode == 0, done.stderr
    trials = _trials(tmp_path)
    assert [trial["number"] for trial in trials] == list(range(N_TRIALS))
    assert {trial["state"] for trial in trials} <= {"complete", "pruned"}
    assert _started(tmp_path) == list(range(N_TRIALS))
    assert _processes_of(ray_folder) == []
    with pytest.raises(BlockingIOError):  # nobody has called
        proxy.accept()


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_a_killed_worker_costs_no_trial_under(launcher: str, tmp_path: Path) -> None:
    """Two retries, as joblib's pool kills the other worker too, which may just have taken over the trial."""
    _needs(launcher)

    done = _search(tmp_path, launcher, "hydra.sweeper.max_retries=2", TOY_FAULT=KILL_ONCE.strip())

    assert done.returncode == 0, done.stderr
    assert {trial["state"] for trial in _trials(tmp_path)} <= {"complete", "pruned"}
    assert set(_started(tmp_path)) == set(range(N_TRIALS))
    assert _started(tmp_path).count(1) > 1


@pytest.mark.slow
def test_no_worker_of_joblib_outlives_a_killed_search(tmp_path: Path) -> None:
    _needs("joblib")
    toy = [sys.executable, str(REPOSITORY / "tests" / "toy.py"), "-m", "search=quick", "data=shapes", "name=x"]
    process = subprocess.Popen(
        [*toy, f"outputs={tmp_path}/outputs", "hydra/launcher=joblib", "hydra.sweeper.n_workers=2"],
        env={**os.environ, "TOY_LOG": str(tmp_path / "log"), "TOY_SECONDS": "0.5"},
        stdout=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "log").exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    workers = {int(line.split()[2]) for line in (tmp_path / "log").read_text().splitlines()}
    process.kill()
    process.wait(10)
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in workers):
        assert time.monotonic() < deadline, "a worker outlived its search"
        time.sleep(0.1)


def _needs(launcher: str) -> None:
    module, extra = PLUGINS.get(launcher, ("hydra", ""))
    if importlib.util.find_spec(module.partition(".")[0]) is None or importlib.util.find_spec(module) is None:
        pytest.skip(f"the launcher {launcher} is not installed: pip install -e '.[{extra}]'")


def _search(folder: Path, launcher: str, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    workers = 1 if launcher == "basic" else 2
    chosen = [f"hydra/launcher={launcher}", f"hydra.sweeper.n_workers={workers}", *SETTINGS.get(launcher, [])]
    return _toy(folder, f"hydra.sweeper.n_trials={N_TRIALS}", *chosen, *words, **environment)


def _toy(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A search whose task trains nothing, in a process of its own that finds the checkout but none of the user's."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    quick = ["search=quick", "hydra/sweeper/pruner=asha"]  # trials that pause start more than once
    toy = [sys.executable, str(REPOSITORY / "tests" / "toy.py"), "-m", *quick, "data=shapes"]
    return subprocess.run(
        [*toy, "trainer.epochs=2", "name=x", f"outputs={folder}/outputs", *words],
        cwd=folder,
        env={
            **inherited,
            "PYTHONPATH": str(REPOSITORY),
            "HOME": str(folder),  # where Ray writes a token
            "RAY_USAGE_STATS_ENABLED": "0",
            "TOY_LOG": str(folder / "log"),
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=150,
    )


def _trials(folder: Path) -> list[dict[str, object]]:
    trials: list[dict[str, object]] = json.loads((folder / "outputs/sweeps/x/study.json").read_text())["trials"]
    return trials


def _started(folder: Path) -> list[int]:
    """The numbers of the trials that were started, in order; a number twice for a trial that was started twice."""
    lines = (folder / "log").read_text().splitlines()
    return sorted(int(line.split()[1]) for line in lines if line.startswith("start"))


def _processes_of(folder: Path, patience_seconds: float = 10) -> list[str]:
    """Command lines that name the folder, once they had time to end."""
    until = time.monotonic() + patience_seconds
    while True:
        commands = [_command(process) for process in Path("/proc").glob("[0-9]*")]
        left = [command for command in commands if str(folder) in command]
        if not left or time.monotonic() > until:
            return left
        time.sleep(0.2)


def _command(process: Path) -> str:
    try:
        return (process / "cmdline").read_text()
    except OSError:  # it has just ended
        return ""
