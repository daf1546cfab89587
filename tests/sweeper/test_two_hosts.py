"""A search on two hosts with PostgreSQL, one of which is cut off. The hosts are network namespaces, which need root."""

from __future__ import annotations

import itertools
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import hosts
import postgresql
import pytest
from conftest import REPOSITORY
from hosts import Host
from optuna.trial import TrialState
from postgresql import Server
from toy_search import Event, Search

from cifarsweep.sweeper.queue import DEATHS, SPENT

pytestmark = pytest.mark.slow


@pytest.fixture
def two_hosts() -> Iterator[list[Host]]:
    try:
        with hosts.running("one", "two") as both:
            yield both
    except hosts.Missing as missing:
        pytest.skip(str(missing))


@pytest.fixture
def server(two_hosts: list[Host]) -> Iterator[Server]:
    try:
        with postgresql.running(host=hosts.SERVER, settings="-c fsync=off") as server:
            yield server
    except postgresql.Missing as missing:
        pytest.skip(str(missing))


def test_a_host_that_is_cut_off_does_not_stop_the_other(server: Server, two_hosts: list[Host], tmp_path: Path) -> None:
    """With a budget each step of a trial is a step of the queue, so that a worker is cut off while it takes one."""
    one, two = two_hosts
    num_steps = 350
    limits = [f"hydra.sweeper.budget=epochs:{num_steps}", "hydra.sweeper.n_workers=2", "hydra.sweeper.grace_period=60"]
    search = Search(tmp_path, *limits, seconds=0.2, storage=server.address)
    stays = search.begin("hydra/launcher=local", prefix=one.prefix)
    search.wait_for_further(1, stays)
    cut = search.begin("hydra/launcher=local", "hydra.sweeper.join=true", prefix=two.prefix)
    search.wait_for(lambda events: len({event.process for event in events}) == 4, stays, cut)

    mine = search.workers(stays)
    began = time.monotonic()
    two.cut()
    search.wait_for(lambda events: _num_ends_after(events, mine, began + 22) > 0, stays, cut)
    two.mend()
    search.finish(cut)
    search.finish(stays)

    moments = [began, *(event.at for event in search.events if event.process in mine and event.at > began)]
    assert max(after - before for before, after in itertools.pairwise(moments)) < 20
    trials = search.trials
    assert sum(trial.user_attrs[SPENT] for trial in trials) == num_steps
    assert {trial.state for trial in trials} <= {TrialState.COMPLETE, TrialState.PRUNED}
    assert not any(trial.user_attrs.get(DEATHS) for trial in trials)


def _num_ends_after(events: list[Event], processes: list[int], moment: float) -> int:
    return sum(event.process in processes and event.at > moment for event in events)


def test_thirty_trials_are_exact_whatever_fails_meanwhile(tmp_path: Path) -> None:
    """Workers, a terminal, a raylet and the database are killed, and a host is cut off: see tests/bench/faults.py."""
    faults = [sys.executable, str(REPOSITORY / "tests" / "bench" / "faults.py"), "--small"]

    done = subprocess.run(faults, cwd=tmp_path, capture_output=True, text=True, timeout=900)

    if done.stdout.startswith("skipped: "):
        pytest.skip(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
