"""A search on two hosts and by two launchers, most of whose parts are killed, cut off or started anew meanwhile.

    python tests/bench/faults.py            # 200 trials, about 5 minutes
    python tests/bench/faults.py --small    # 30 trials, as the slow tests run it; --seed=1 for other moments

Host two runs Ray with two raylets and is a network namespace (which needs root). This host runs Slurm with two slurmd
and PostgreSQL. The faults come in random order, spread over the search. It ends well (0) where exactly the trials that
were asked for are complete, no more deaths were counted than workers were killed, and no worker waited for a trial for
more than 30 s after a fault had passed. Jobs that Slurm cancels or requeues are no deaths.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path += [str(ROOT), str(ROOT / "tests")]

import hosts  # noqa: E402
import numpy as np  # noqa: E402
import postgresql  # noqa: E402
import ray_cluster  # noqa: E402
import slurm  # noqa: E402
from hosts import Host  # noqa: E402
from optuna.trial import TrialState  # noqa: E402
from postgresql import Server  # noqa: E402
from ray_cluster import Cluster  # noqa: E402
from toy_search import Event, Search, kill  # noqa: E402

from cifarsweep.sweeper.queue import DEATHS  # noqa: E402

GRACE_SECONDS = 20
LONGEST_IDLE_SECONDS = 30


@dataclass(frozen=True)
class Size:
    num_trials: int
    epoch_seconds: float
    num_kills: int
    num_cancels: int
    num_requeues: int
    num_restarts: int
    restart_seconds: float
    cut_seconds: float


SMALL = Size(30, 2, 2, 1, 1, 1, 3, 10)
WHOLE = Size(200, 2, 5, 5, 3, 2, 10, 60)


@dataclass
class _Faults:
    """What can go wrong; each method returns once it has passed."""

    size: Size
    search: Search
    server: Server
    two: Host
    cluster: Cluster
    raylet: str
    slurm: slurm.Cluster
    begin_parent: Callable[[], subprocess.Popen[bytes]]
    parent: subprocess.Popen[bytes]
    """The command whose workers are jobs of Slurm."""
    random: random.Random
    passed: list[tuple[str, float, float]] = field(default_factory=list)
    """Of each fault its name, and when it came and passed."""

    def all(self) -> list[Callable[[], None]]:
        often = [(self.kill_worker, self.size.num_kills), (self.restart_database, self.size.num_restarts)]
        often += [(self.cancel_job, self.size.num_cancels), (self.requeue_job, self.size.num_requeues)]
        faults = [fault for fault, times in often for _ in range(times)]
        faults += [self.kill_parent, self.cut_network, self.kill_raylet]
        self.random.shuffle(faults)
        return faults

    def kill_worker(self) -> None:
        with contextlib.suppress(ProcessLookupError, IndexError):  # it has just ended
            kill(self.random.choice(sorted(self.search.alive)))

    def kill_parent(self) -> None:
        self.parent.kill()
        self.parent.wait()
        self.parent = self.begin_parent()
        # A command that starts while the database is away says so and ends.
        slurm.wait_until(lambda: self.search.output(self.parent), "the command to tell of a trial")

    def cancel_job(self) -> None:
        self.slurm.cancel(self._running_job())

    def requeue_job(self) -> None:
        self.slurm.run("scontrol", "requeue", self._running_job())

    def _running_job(self) -> str:
        slurm.wait_until(lambda: self.slurm.jobs("R"), "a job of Slurm to run")
        return self.random.choice(self.slurm.jobs("R"))

    def restart_database(self) -> None:
        self.server.stop()
        time.sleep(self.size.restart_seconds)
        self.server.start()

    def cut_network(self) -> None:
        self.two.cut()
        time.sleep(self.size.cut_seconds)
        self.two.mend()

    def kill_raylet(self) -> None:
        self.cluster.kill(self.raylet)
        self.raylet = self.cluster.add_raylet(wait=False)

    def happen(self, fault: Callable[[], None]) -> None:
        came = time.monotonic()
        fault()
        self.passed.append((fault.__name__, came, time.monotonic()))
        print(f"{fault.__name__}: after {self.search.num_ends} trials, {time.monotonic() - came:.1f} s", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    try:
        mistakes = _run(SMALL if given.small else WHOLE, random.Random(given.seed))
    except (hosts.Missing, postgresql.Missing, ray_cluster.Missing, slurm.Missing) as missing:
        print(f"skipped: {missing}")
        return 0
    for mistake in mistakes:
        print(f"wrong: {mistake}")
    return bool(mistakes)


def _run(size: Size, chance: random.Random) -> list[str]:
    with contextlib.ExitStack() as stack:
        (two,) = stack.enter_context(hosts.running("two"))
        server = stack.enter_context(postgresql.running(host=hosts.SERVER))
        cluster = stack.enter_context(ray_cluster.running(prefix=two.prefix))
        raylet = cluster.add_raylet()
        jobs = stack.enter_context(slurm.running())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="faults")))
        limits = [f"hydra.sweeper.n_trials={size.num_trials}", f"hydra.sweeper.grace_period={GRACE_SECONDS}"]
        limits += ["hydra.sweeper.n_workers=2", "hydra.sweeper.max_retries=5"]
        search = Search(folder, *limits, seconds=size.epoch_seconds, storage=server.address)

        def begin_parent() -> subprocess.Popen[bytes]:
            by_slurm = ["hydra/launcher=submitit_slurm", "hydra.launcher.timeout_min=60", "hydra.sweeper.join=true"]
            return search.begin(*by_slurm, **jobs.environment)

        by_ray = ["hydra/launcher=ray", f"hydra.launcher.ray.init.address={cluster.address}"]
        ray = search.begin(*by_ray, prefix=two.prefix, **cluster.environment)
        search.wait_for(lambda events: len(events) > 0, ray)
        parent = begin_parent()
        search.wait_for(lambda events: len({event.process for event in events}) == 4, ray, parent)
        faults = _Faults(size, search, server, two, cluster, raylet, jobs, begin_parent, parent, chance)
        planned = faults.all()
        goals = np.linspace(search.num_ends + 1, size.num_trials, len(planned), endpoint=False)
        for goal, fault in zip(goals, planned, strict=True):
            search.wait_for(lambda events, goal=goal: search.num_ends >= goal)
            faults.happen(fault)
        for command in (ray, faults.parent):
            search.finish(command)
        return list(_mistakes(size, search, faults))


def _mistakes(size: Size, search: Search, faults: _Faults) -> Iterator[str]:
    trials = search.trials
    if [trial.state for trial in trials] != [TrialState.COMPLETE] * size.num_trials:
        yield f"trials that did not complete, or not {size.num_trials}: {[trial.state.name for trial in trials]}"
    names = [name for name, _, _ in faults.passed]
    killed = names.count("kill_worker") + 2 * names.count("kill_raylet")
    deaths = sum(trial.user_attrs.get(DEATHS, 0) for trial in trials)
    print(f"{deaths} trials counted a death, {killed} workers were killed at most")
    if deaths > killed:
        yield f"{deaths} deaths of trials, but at most {killed} workers were killed"
    longest = max(_idle_seconds(search.events, [(came, passed) for _, came, passed in faults.passed]))
    print(f"longest wait of a worker for a trial after a fault had passed: {longest:.1f} s")
    if longest > LONGEST_IDLE_SECONDS:
        yield f"a worker waited for {longest:.1f} s"


def _idle_seconds(events: Sequence[Event], faults: Sequence[tuple[float, float]]) -> Iterator[float]:
    """Of each pause of a worker between two trials, the part after the last fault in it had passed."""
    for process in {event.process for event in events}:
        mine = [event for event in events if event.process == process]
        for end, start in itertools.pairwise(mine):
            if (end.what, start.what) == ("end", "start"):
                ends = [passed for came, passed in faults if came < start.at and passed > end.at]
                yield max(0.0, start.at - max([end.at, *ends]))


if __name__ == "__main__":
    sys.exit(main())
