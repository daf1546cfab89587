"""Searches and grids on a real Ray cluster, which the tests start, extend and stop; skipped without Ray."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import ray_cluster
from optuna.trial import TrialState
from ray_cluster import Cluster
from toy_search import Search

pytestmark = pytest.mark.slow

AUTO = "hydra.launcher.ray.init.address=auto"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    try:
        with ray_cluster.running() as cluster:
            yield cluster
    except ray_cluster.Missing as missing:
        pytest.skip(str(missing))


@pytest.mark.parametrize("said", ["auto", "by RAY_ADDRESS"])
def test_a_search_joins_a_cluster_that_is_named(cluster: Cluster, tmp_path: Path, said: str) -> None:
    search = Search(tmp_path, "hydra.sweeper.n_trials=6", "hydra.sweeper.n_workers=2", seconds=0)
    words = [AUTO] if said == "auto" else []
    environment = {} if words else {"RAY_ADDRESS": cluster.address}

    out = search.finish(search.begin("hydra/launcher=ray", *words, **cluster.environment, **environment))

    assert "6 trials finished" in out
    assert "Connected to Ray cluster" in out
    assert search.started == list(range(6))


def test_a_grid_joins_a_cluster_that_is_named(cluster: Cluster, tmp_path: Path) -> None:
    grid = Search(tmp_path, "model=layers1,layers2", seconds=0, is_grid=True)

    grid.finish(grid.begin("hydra/launcher=ray", AUTO, **cluster.environment))

    assert grid.started == [0, 1]


def test_the_trials_of_a_raylet_that_dies_are_taken_up_meanwhile_and_quietly(cluster: Cluster, tmp_path: Path) -> None:
    raylet, n_trials = cluster.add_raylet(), 60
    limits = [f"hydra.sweeper.n_trials={n_trials}", "hydra.sweeper.n_workers=4", "hydra.sweeper.grace_period=5"]
    search = Search(tmp_path, *limits, seconds=1)
    address = f"hydra.launcher.ray.init.address={cluster.address}"
    running = search.begin("hydra/launcher=ray", address, **cluster.environment)
    # The head has room for two of them.
    search.wait_for(lambda events: len({event.process for event in events}) > 2, running)
    cluster.kill(raylet)
    out = search.finish(running)

    starts = [event for event in search.events if event.what == "start"]
    again = [i for i, event in enumerate(starts) if event.trial in {other.trial for other in starts[:i]}]
    assert 1 <= len(again) <= 2, "the trials of the two workers that died, one of which may have had none"
    assert again[-1] < len(starts) - 10, "not only where nothing else was left"
    assert sorted({event.trial for event in starts}) == list(range(n_trials))
    assert [trial.state for trial in search.trials] == [TrialState.COMPLETE] * n_trials
    assert "raylet)" not in out
