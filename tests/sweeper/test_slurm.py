"""Sweeps as jobs of a real Slurm, and what they do when Slurm or a person ends some of them."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import postgresql
import pytest
import slurm
from conftest import REPOSITORY, small_run
from foreign import APPS
from slurm import Cluster, wait_until

pytestmark = pytest.mark.slow

UNDER_SLURM = ["hydra/launcher=submitit_slurm", "hydra.launcher.timeout_min=60"]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    if importlib.util.find_spec("submitit") is None:
        pytest.skip("the launcher submitit_slurm is not installed: pip install -e '.[slurm]'")
    try:
        with slurm.running() as cluster:
            yield cluster
    except slurm.Missing as missing:
        pytest.skip(str(missing))


class Sweep:
    """A sweep of toy.py, whose task trains nothing, from its command to its record."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster, self.path, self.folder = cluster, folder, folder / "outputs" / "sweeps" / "x"
        self._before, self._started = set(cluster.jobs("all")), list[subprocess.Popen[str]]()

    def start(self, *words: str, under: Sequence[str] = UNDER_SLURM, **environment: str) -> subprocess.Popen[str]:
        toy = [str(REPOSITORY / "tests" / "toy.py"), "-m", "data=shapes", "name=x", f"outputs={self.path}/outputs"]
        return self.start_python(*toy, "trainer.epochs=2", *under, *words, **environment)

    def start_python(self, *words: str, **environment: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, *words],
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
        self._started.append(process)
        return process

    def watch(self, *words: str) -> subprocess.Popen[str]:
        return self.start_python("-m", "cifarsweep.watch", str(self.folder), *words)

    def end(self) -> None:
        """Of whatever a test that failed has left: a command would submit what is missing."""
        for process in self._started:
            process.kill()
            process.wait()
        self.cluster.cancel()

    def grid(self, *words: str) -> subprocess.Popen[str]:
        """Of runs that train."""
        small = small_run(self.path / "cache", self.path / "outputs")
        return self.start_python("-m", "cifarsweep", "-m", *small, "name=x", *UNDER_SLURM, *words)

    def search(self, n_trials: int, n_workers: int, *words: str, **environment: str) -> subprocess.Popen[str]:
        counts = [f"hydra.sweeper.n_trials={n_trials}", f"hydra.sweeper.n_workers={n_workers}"]
        return self.start("search=quick", "hydra/sweeper/pruner=none", *counts, *words, **environment)

    @property
    def jobs(self) -> list[str]:
        """The ids of all jobs that were submitted since the start of the test."""
        return sorted(job for job in self.cluster.jobs("all") if job not in self._before)

    def log(self, what: str) -> list[int]:
        """The numbers of the trials or jobs that did this, in order."""
        lines = (self.path / "log").read_text().splitlines() if (self.path / "log").exists() else []
        return sorted(int(line.split()[1]) for line in lines if line.startswith(what))

    @property
    def trials(self) -> dict[int, str]:
        """The state of each trial, by number."""
        record = json.loads((self.folder / "study.json").read_text())
        return {trial["number"]: trial["state"] for trial in record["trials"]}

    @property
    def runs(self) -> dict[int, dict[str, Any]]:
        """What is recorded of each run that has ended, by its number of epochs."""
        results = [json.loads(path.read_text()) for path in self.path.glob("outputs/runs/*/result.json")]
        return {result["epochs"]: result for result in results}


def ended(process: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
    out, err = process.communicate(timeout=slurm.PATIENCE_SECONDS)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


@pytest.fixture
def sweep(cluster: Cluster, tmp_path: Path) -> Iterator[Sweep]:
    sweep = Sweep(cluster, tmp_path)
    yield sweep
    sweep.end()


def test_a_search_runs_as_an_array_of_jobs(sweep: Sweep) -> None:
    done = ended(sweep.search(6, 2, "hydra.launcher.partition=main", "hydra.launcher.name=looks", TOY_SECONDS="0.2"))

    assert done.returncode == 0, done.stderr
    assert sweep.trials == dict.fromkeys(range(6), "complete")
    assert sweep.log("start") == list(range(6))
    assert len(sweep.jobs) == 2
    shown = sweep.cluster.run("scontrol", "show", "job", "--oneliner", sweep.jobs[0])
    for setting in ("JobName=looks", "Partition=main", "TimeLimit=01:00:00", "ArrayTaskThrottle=2"):
        assert setting in shown


def test_a_trial_of_several_time_slices_completes_and_no_slice_is_a_death(
    sweep: Sweep, server: postgresql.Server
) -> None:
    """Slurm sends SIGUSR2 before the time limit; submitit asks for another turn, and Slurm sends SIGTERM at once.

    In PostgreSQL, where a trial takes so long to be given back that SIGTERM comes in its middle.
    """
    words = ["hydra/sweeper=study", "hydra.sweep.dir=sweep", "hydra.launcher.max_num_timeout=9", "steps=16"]
    counts = ["hydra.sweeper.n_workers=1", "hydra.sweeper.n_trials=2", "hydra.sweeper.max_retries=0"]
    counts.append("hydra/sweeper/pruner=none")
    counts.append(f"hydra.sweeper.storage={server.address}")
    log = sweep.path / "log"
    search = sweep.start_python(
        f"{APPS}/checkpointed.py", "-m", *UNDER_SLURM, *words, *counts, "x=interval(0,1)", f"log={log}", "seconds=0.3"
    )

    def steps() -> int:
        return log.read_text().count("ends") if log.exists() else 0

    for _ in range(3):
        before = steps()
        wait_until(lambda before=before: steps() > before + 2, "three more steps")
        (job,) = sweep.cluster.jobs("R")
        sweep.cluster.run("scancel", "--signal=USR2", job)
    done = ended(search)

    assert done.returncode == 0, done.stderr
    trials = json.loads((sweep.path / "sweep" / "study.json").read_text())["trials"]
    assert [trial["state"] for trial in trials] == ["complete", "complete"]
    assert len([line for line in log.read_text().splitlines() if " starts " in line]) == 5
    assert [line.split()[2] for line in log.read_text().splitlines() if " starts " in line].count("0") == 2
    assert len(sweep.jobs) == 1


def test_only_the_worker_that_was_cancelled_is_started_again(sweep: Sweep) -> None:
    search = sweep.search(12, 3, TOY_SECONDS="2")
    wait_until(lambda: len(sweep.log("start")) >= 3, "three trials to start")
    first = sweep.jobs

    sweep.cluster.cancel(first[0])
    done = ended(search)

    assert done.returncode == 0, done.stderr
    assert sweep.trials == dict.fromkeys(range(12), "complete")
    assert len(first) == 3
    assert len(sweep.jobs) == 4


def test_after_ctrl_c_the_workers_run_on_and_the_same_command_comes_back_to_them(sweep: Sweep) -> None:
    search = sweep.search(9, 3, TOY_SECONDS="1.5")
    wait_until(lambda: len(sweep.log("start")) >= 3, "three trials to start")

    refused = ended(sweep.watch("--cancel"))
    search.send_signal(signal.SIGINT)
    interrupted = ended(search)
    first = sweep.jobs
    done = ended(sweep.search(9, 3, TOY_SECONDS="1.5"))

    assert refused.returncode == 1
    assert "a command waits for its jobs, and would start others" in refused.stderr
    assert interrupted.returncode == 130
    jobs_line, resuming = interrupted.stderr.splitlines()[-2:]
    assert all(job in jobs_line for job in first)
    assert f"python -m cifarsweep.watch {sweep.folder} waits, and with --cancel ends them" in jobs_line
    assert resuming.startswith("interrupted; this goes on: toy.py -m")
    assert done.returncode == 0, done.stderr
    assert sweep.jobs == first
    assert sweep.trials == dict.fromkeys(range(9), "complete")
    assert sweep.log("start") == list(range(9))
    wait_until(lambda: not sweep.cluster.jobs(), "the workers to end")


def test_a_cancelled_job_of_a_grid_stops_within_a_batch_and_the_others_are_reported(sweep: Sweep) -> None:
    grid = sweep.grid("trainer.epochs=1,2,100000", "hydra.launcher.cpus_per_task=1")
    wait_until(lambda: len(sweep.runs) == 2 and len(sweep.cluster.jobs()) == 1, "two runs to end")
    long = next(path for path in sweep.path.glob("outputs/runs/[!.]*") if not (path / "result.json").exists())
    wait_until(lambda: "epoch 1/" in (long / "train.log").read_text(), "the third run's first epoch")

    before = time.monotonic()
    sweep.cluster.cancel(*sweep.cluster.jobs())
    seconds = time.monotonic() - before
    done = ended(grid)

    assert done.returncode == 1
    failed, summary = done.stderr.splitlines()
    assert "trainer.epochs=100000" in failed
    assert failed.endswith("Slurm ended it: CANCELLED")
    assert summary == "1 of 3 jobs failed; the same command tries them again"
    assert (sweep.folder / "report" / "index.html").exists()
    assert seconds < slurm.KILL_WAIT
    assert "SIGTERM" not in "".join(path.read_text() for path in sweep.folder.glob(".submitit/*/*_log.*"))
    assert (long / "checkpoint.pt").exists()


def test_a_job_has_the_threads_that_slurm_gave_it(sweep: Sweep) -> None:
    assert ended(sweep.grid("trainer.epochs=1", "hydra.launcher.cpus_per_task=2")).returncode == 0
    assert ended(sweep.grid("trainer.epochs=2", "hydra.launcher.cpus_per_task=1")).returncode == 0
    assert {epochs: run["threads"] for epochs, run in sweep.runs.items()} == {1: 2, 2: 1}


def test_how_many_workers_must_be_said(sweep: Sweep) -> None:
    done = ended(sweep.start("search=quick"))
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("hydra.sweeper.n_workers=null: expected a number with hydra/launcher=submitit_slurm")
    assert not sweep.jobs


def test_a_search_that_was_left_is_waited_for_by_the_same_command(sweep: Sweep) -> None:
    left = ended(sweep.search(6, 2, "hydra.sweeper.detach=true", TOY_SECONDS="1"))
    first = sweep.jobs
    done = ended(sweep.search(6, 2, "hydra.sweeper.detach=true", TOY_SECONDS="1"))

    assert left.returncode == 0, left.stderr
    assert all(job in left.stdout for job in first)
    assert left.stdout.splitlines()[-1].startswith("this goes on: toy.py -m")
    assert done.returncode == 0, done.stderr
    assert "comes back to jobs" in done.stdout
    assert sweep.jobs == first
    assert len(first) == 2
    assert sweep.trials == dict.fromkeys(range(6), "complete")


def test_a_search_that_was_left_is_ended_by_watch_and_goes_on_later(sweep: Sweep) -> None:
    assert ended(sweep.search(6, 2, "hydra.sweeper.detach=true", TOY_SECONDS="2")).returncode == 0
    wait_until(lambda: len(sweep.log("start")) >= 2, "two trials to start")

    cancelled = ended(sweep.watch("--cancel"))
    wait_until(lambda: not sweep.cluster.jobs(), "the workers to end")
    again = ended(sweep.watch("--cancel"))
    done = ended(sweep.search(6, 2))

    assert cancelled.returncode == 0, cancelled.stderr
    assert again.returncode == 1
    assert again.stderr == f"{sweep.folder}: no job of Slurm works on this sweep\n"
    assert done.returncode == 0, done.stderr
    assert sweep.trials == dict.fromkeys(range(6), "complete")


def test_watch_waits_for_a_grid_that_was_left_and_reports(sweep: Sweep) -> None:
    left = ended(sweep.grid("trainer.epochs=1,2", "hydra.sweeper.detach=true"))
    watched = ended(sweep.watch())

    assert left.returncode == 0, left.stderr
    assert watched.returncode == 0, watched.stderr
    assert sorted(sweep.runs) == [1, 2]
    assert (sweep.folder / "report" / "index.html").exists()
    assert "submitted" not in json.loads((sweep.folder / "sweep.json").read_text())


def test_the_same_command_comes_back_to_a_grid_that_was_left(sweep: Sweep) -> None:
    left = ended(sweep.grid("trainer.epochs=1,40", "hydra.sweeper.detach=true"))
    first = sweep.jobs
    done = ended(sweep.grid("trainer.epochs=1,40", "hydra.sweeper.detach=true"))

    assert (left.returncode, done.returncode) == (0, 0), done.stderr
    assert sweep.jobs == first
    assert sorted(sweep.runs) == [1, 40]
    assert (sweep.folder / "report" / "index.html").exists()


def test_watch_writes_the_report_of_a_search_that_was_left(sweep: Sweep) -> None:
    assert ended(sweep.search(3, 2, "hydra.sweeper.detach=true")).returncode == 0
    watched = ended(sweep.watch())

    assert watched.returncode == 0, watched.stderr
    assert sweep.trials == dict.fromkeys(range(3), "complete")
    assert (sweep.folder / "report" / "index.html").exists()


@pytest.mark.parametrize("launcher", ["basic", "local"])
def test_only_jobs_of_slurm_can_be_left(sweep: Sweep, launcher: str) -> None:
    for words in (["search=quick"], ["seed=1,2"]):
        done = ended(sweep.start(*words, f"hydra/launcher={launcher}", "hydra.sweeper.detach=true", under=()))
        assert done.returncode == 1
        expected = f"hydra.sweeper.detach=true: expected false with hydra/launcher={launcher}, whose jobs end with"
        assert done.stderr.startswith(expected)
