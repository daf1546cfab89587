"""Workers that come and go while a search runs, on several launchers, against one study: its total stays exact."""

from __future__ import annotations

import importlib.util
from collections import Counter
from pathlib import Path

import pytest
from optuna.trial import TrialState
from toy_search import Search, kill

pytestmark = pytest.mark.slow

N_TRIALS = 60


def test_a_dead_workers_trial_is_taken_up_while_others_are_left(tmp_path: Path) -> None:
    limits = ["hydra.sweeper.n_trials=40", "hydra.sweeper.n_workers=3", "hydra.sweeper.grace_period=5"]
    search = Search(tmp_path, *limits, seconds=0.25)
    running = search.begin("hydra/launcher=local")
    search.wait_for(lambda events: len({event.process for event in events}) == 3, running)
    search.kill_within_a_trial(running)
    search.finish(running)

    (cut,) = [number for number, times in Counter(search.started).items() if times == 2]
    starts = [event.trial for event in search.events if event.what == "start"]
    after = starts[len(starts) - starts[::-1].index(cut) :]
    assert len(after) > 10, "not only where nothing else was left"
    assert [trial.state for trial in search.trials] == [TrialState.COMPLETE] * 40


@pytest.mark.parametrize("storage", ["journal", "postgresql"])
def test_workers_of_two_launchers_come_and_go(tmp_path: Path, storage: str, request: pytest.FixtureRequest) -> None:
    if importlib.util.find_spec("hydra_plugins.hydra_joblib_launcher") is None:
        pytest.skip("hydra-joblib-launcher is not installed: pip install -e '.[joblib]'")
    address = request.getfixturevalue("server").address if storage == "postgresql" else None
    limits = [f"hydra.sweeper.n_trials={N_TRIALS}", "hydra.sweeper.max_retries=5", "hydra.sweeper.grace_period=20"]
    search = Search(tmp_path, *limits, "hydra.sweeper.n_workers=2", seconds=0.5, storage=address)
    join = "hydra.sweeper.join=true"

    first = search.begin("hydra/launcher=local")
    search.wait_for_further(3, first)
    second = search.begin("hydra/launcher=joblib", join)
    search.wait_for(lambda events: len({event.process for event in events}) >= 4, first, second)
    kill(search.workers(first)[0])  # the launcher starts another
    search.wait_for_further(3, first, second)
    kill(second.pid)  # its workers end with it
    third = search.begin("hydra/launcher=local", join)
    known = {event.process for event in search.events}
    search.wait_for(lambda events: any(event.process not in known for event in events), first, third)
    search.wait_for_further(3, first, third)
    kill(first.pid)
    search.finish(third)

    assert sorted(set(search.started)) == list(range(N_TRIALS))
    assert [trial.state for trial in search.trials] == [TrialState.COMPLETE] * N_TRIALS
    assert all(times <= 5 for times in Counter(search.started).values())
