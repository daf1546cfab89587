"""Sweeps as jobs of a real Slurm, and what they do when Slurm or a person ends some of them."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import slurm
from conftest import REPOSITORY
from slurm import Cluster

pytestmark = pytest.mark.slow

UNDER_SLURM = ["hydra/launcher=submitit_slurm", "hydra.launcher.timeout_min=60"]


@pytest.fixture(scope="module")
def running_cluster() -> Iterator[Cluster]:
    if importlib.util.find_spec("submitit") is None:
        pytest.skip("the launcher submitit_slurm is not installed: pip install -e '.[slurm]'")
    try:
        with slurm.running() as cluster:
            yield cluster
    except slurm.Missing as missing:
        pytest.skip(str(missing))


@pytest.fixture
def cluster(running_cluster: Cluster) -> Iterator[Cluster]:
    """With no jobs but the test's own."""
    yield running_cluster
    running_cluster.cancel()


class Sweep:
    """A sweep of toy.py, whose task trains nothing, from its command to its record."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster, self.path, self.folder = cluster, folder, folder / "outputs" / "sweeps" / "x"
        self._before = set(cluster.jobs("all"))

    def start(self, *words: str, **environment: str) -> subprocess.Popen[str]:
        toy = [sys.executable, str(REPOSITORY / "tests" / "toy.py"), "-m", "data=shapes", "name=x"]
        return subprocess.Popen(
            [*toy, "trainer.epochs=2", f"outputs={self.path}/outputs", *UNDER_SLURM, *words],
            cwd=self.path,
            env={
                **os.environ,
                **self.cluster.environment,
                "PYTHONPATH": str(REPOSITORY),
                "TOY_LOG": str(self.path / "log"),
                **environment,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return ended(self.start(*words, **environment))

    def search(self, n_trials: int, n_workers: int, *words: str, **environment: str) -> subprocess.Popen[str]:
        counts = [f"hydra.sweeper.n_trials={n_trials}", f"hydra.sweeper.n_workers={n_workers}"]
        return self.start("search=quick", "hydra/sweeper/pruner=none", *counts, *words, **environment)

    @property
    def jobs(self) -> list[str]:
        """The ids of all jobs that were submitted since the start of the test."""
        return [job for job in self.cluster.jobs("all") if job not in self._before]

    def log(self, what: str) -> list[int]:
        """The numbers of the trials or jobs that did this, in order."""
        lines = (self.path / "log").read_text().splitlines() if (self.path / "log").exists() else []
        return sorted(int(line.split()[1]) for line in lines if line.startswith(what))

    @property
    def trials(self) -> dict[int, str]:
        """The state of each trial, by number."""
        record = json.loads((self.folder / "study.json").read_text())
        return {trial["number"]: trial["state"] for trial in record["trials"]}


def ended(process: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
    try:
        out, err = process.communicate(timeout=120)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


@pytest.fixture
def sweep(cluster: Cluster, tmp_path: Path) -> Sweep:
    return Sweep(cluster, tmp_path)


def test_a_search_runs_as_an_array_of_jobs(sweep: Sweep) -> None:
    done = ended(sweep.search(6, 2, "hydra.launcher.partition=main", "hydra.launcher.name=looks", TOY_SECONDS="0.2"))

    assert done.returncode == 0, done.stderr
    assert sweep.trials == dict.fromkeys(range(6), "complete")
    assert sweep.log("start") == list(range(6))
    assert len(sweep.jobs) == 2
    shown = sweep.cluster.run("scontrol", "show", "job", "--oneliner", sweep.jobs[0])
    for setting in ("JobName=looks", "Partition=main", "TimeLimit=01:00:00", "ArrayTaskThrottle=2"):
        assert setting in shown
