"""Searches and grids on a real Ray cluster of two raylets, which the tests start and stop; skipped without Ray."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray_cluster
from conftest import REPOSITORY
from ray_cluster import Cluster

pytestmark = pytest.mark.slow

TOY = [str(REPOSITORY / "tests" / "toy.py"), "-m", "data=shapes", "trainer.epochs=2", "name=x"]
N_TRIALS = 6
PATIENCE_SECONDS = 180


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    try:
        with ray_cluster.running() as cluster:
            yield cluster
    except ray_cluster.Missing as missing:
        pytest.skip(str(missing))


@pytest.mark.parametrize("said", ["auto", "by RAY_ADDRESS"])
def test_a_search_joins_a_cluster_that_is_named(cluster: Cluster, tmp_path: Path, said: str) -> None:
    words = ["hydra.launcher.ray.init.address=auto"] if said == "auto" else []
    environment = {} if words else {"RAY_ADDRESS": cluster.address}
    limits = [f"hydra.sweeper.n_trials={N_TRIALS}", "hydra.sweeper.n_workers=2"]

    out, err = _finish(_begin(cluster, tmp_path, "search=quick", *limits, *words, **environment))

    assert f"{N_TRIALS} trials finished" in out
    assert "Connected to Ray cluster" in err
    assert _started(tmp_path) == list(range(N_TRIALS))


def test_a_grid_joins_a_cluster_that_is_named(cluster: Cluster, tmp_path: Path) -> None:
    _finish(_begin(cluster, tmp_path, "model=layers1,layers2", "hydra.launcher.ray.init.address=auto"))

    assert _started(tmp_path) == [0, 1]


def test_the_trials_of_a_raylet_that_dies_are_taken_up_meanwhile_and_quietly(cluster: Cluster, tmp_path: Path) -> None:
    raylet, n_trials = cluster.add_raylet(), 60
    limits = [f"hydra.sweeper.n_trials={n_trials}", "hydra.sweeper.n_workers=6", "hydra.sweeper.grace_period=5"]
    words = [*limits, "hydra/sweeper/pruner=none", f"hydra.launcher.ray.init.address={cluster.address}"]
    running = _begin(cluster, tmp_path, "search=quick", *words, TOY_SECONDS="0.5")
    log, until = tmp_path / "log", time.monotonic() + PATIENCE_SECONDS
    while len({line.split()[2] for line in _lines(log)}) < 6:  # each worker has a trial
        assert running.poll() is None, running.communicate()
        assert time.monotonic() < until
        time.sleep(0.1)
    cluster.kill(raylet)
    killed_at = time.monotonic()

    out, err = _finish(running)

    starts = [(int(line.split()[1]), float(line.split()[3])) for line in _lines(log) if line.startswith("start")]
    again = {number: at for i, (number, at) in enumerate(starts) if number in dict(starts[:i])}
    assert len(again) == 2, "the trials of the two workers that died"
    assert max(again.values()) - killed_at < 5 + 1 + 2 * 1, "grace period, a fifth of it, and a trial that ran"
    assert sorted(dict(starts)) == list(range(n_trials))
    study = json.loads((tmp_path / "outputs/sweeps/x/study.json").read_text())
    assert [trial["state"] for trial in study["trials"]] == ["complete"] * n_trials
    assert "Last 20 lines" not in out + err
    said = [line for line in (out + err).splitlines() if "(raylet)" in line]
    assert len(said) <= 4, "a line for each worker that Ray begins anew, and one or two for the node"


def _begin(cluster: Cluster, folder: Path, *words: str, **environment: str) -> subprocess.Popen[str]:
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    toy = {"TOY_LOG": f"{folder}/log", "TOY_SECONDS": environment.pop("TOY_SECONDS", "0")}
    for_workers = ",".join(f"{key}:'{value}'" for key, value in toy.items())
    return subprocess.Popen(
        [
            *(sys.executable, *TOY, f"outputs={folder}/outputs", "hydra/launcher=ray"),
            f"+hydra.launcher.ray.init.runtime_env.env_vars={{{for_workers}}}",
            *words,
        ],
        cwd=folder,
        env={**inherited, "PYTHONPATH": str(REPOSITORY), **cluster.environment, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _finish(running: subprocess.Popen[str]) -> tuple[str, str]:
    out, err = running.communicate(timeout=PATIENCE_SECONDS)
    assert running.returncode == 0, out + err
    return out, err


def _lines(log: Path) -> list[str]:
    return log.read_text().splitlines() if log.exists() else []


def _started(folder: Path) -> list[int]:
    """The numbers of the jobs that were started, in order; a number twice for one that was started twice."""
    return sorted(int(line.split()[1]) for line in _lines(folder / "log") if line.startswith("start"))
