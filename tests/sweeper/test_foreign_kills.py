"""A search of somebody else's application whose processes are killed at random moments, and gone on with."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections import defaultdict
from pathlib import Path

import pytest
from foreign import SEARCH, read_results, read_trials, run, start

NUM_STEPS = 20
pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds worker processes in /proc")


def workers_of(parent: int) -> list[int]:
    """The processes of `local`; multiprocessing's own tracker of resources is none of them."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            is_child = int(stat.read_text().rpartition(")")[2].split()[1]) == parent
            if is_child and b"spawn_main" in (stat.parent / "cmdline").read_bytes():
                found.append(int(stat.parent.name))
        except OSError:  # it has ended meanwhile
            continue
    return found


def num_lines(log: Path) -> int:
    return len(log.read_text().splitlines()) if log.exists() else 0


def wait_until_ended(processes: list[int]) -> None:
    end = time.monotonic() + 20
    while any(Path(f"/proc/{process}/cmdline").exists() for process in processes):
        assert time.monotonic() < end, "workers outlive the process that started them"
        time.sleep(0.02)


def kill_at_random_moments(folder: Path, words: list[str], num_kills: int, draw: random.Random) -> int:
    """Kills a worker, then the command, in turn, after some more lines of the log; how many were killed."""
    log, killed, process = folder / "log", 0, None
    try:
        while killed < num_kills:
            if process is None:
                process = start(folder, "checkpointed", *words)
            wanted, end = num_lines(log) + draw.randint(1, NUM_STEPS // 2), time.monotonic() + 60
            while num_lines(log) < wanted and process.poll() is None:
                assert time.monotonic() < end, "the search does nothing more"
                time.sleep(0.005)
            time.sleep(draw.uniform(0, 0.05))
            workers = workers_of(process.pid)
            if process.poll() is not None or not workers:
                break
            if killed % 2:
                process.kill()
                process.communicate()
                wait_until_ended(workers)
                process = None
            else:
                os.kill(draw.choice(workers), signal.SIGKILL)
            killed += 1
        return killed
    finally:
        if process is not None:
            process.kill()
            process.communicate()
            wait_until_ended(workers_of(process.pid))


@pytest.mark.parametrize(
    ("num_kills", "n_trials"), [(4, 5), pytest.param(20, 20, marks=pytest.mark.slow)], ids=["a few", "twenty"]
)
def test_killed_trials_go_on_from_their_checkpoints_and_none_is_lost_or_done_twice(
    tmp_path: Path, num_kills: int, n_trials: int
) -> None:
    words = ["-m", *SEARCH, "hydra.sweeper.n_workers=2", f"hydra.sweeper.n_trials={n_trials}", "x=interval(0, 1)"]
    words += ["hydra.sweeper.max_retries=99", "hydra/sweeper/pruner=none", f"steps={NUM_STEPS}", f"log={tmp_path}/log"]
    assert kill_at_random_moments(tmp_path, words, num_kills, random.Random(num_kills)) == num_kills

    last = start(tmp_path, "checkpointed", *words)
    _, stderr = last.communicate(timeout=240)
    assert last.returncode == 0, stderr
    trials = read_trials(tmp_path)
    assert [(trial["number"], trial["state"]) for trial in trials] == [(n, "complete") for n in range(n_trials)]
    assert read_results(tmp_path)["best_value"] == min(trial["params"]["x"] for trial in trials)

    told = defaultdict(list)
    for line in (tmp_path / "log").read_text().splitlines():
        number, what, step, x = line.split()
        told[int(number)].append((what, int(step)))
        assert float(x) == pytest.approx(trials[int(number)]["params"]["x"]), "a trial went on with other values"
    num_starts = 0
    for trial in trials:
        assert trial["values"] == [pytest.approx(trial["params"]["x"])], "a trial read another's checkpoint"
        ended = 0
        for what, step in told[trial["number"]]:
            if what == "starts":
                num_starts += 1
                assert step in (ended, ended - 1), "a trial did not go on from its last checkpoint"
            else:
                ended = step
        assert ended == NUM_STEPS
    # A kill of the command interrupts both workers' trials, a kill of a worker one.
    assert n_trials <= num_starts <= n_trials + num_kills // 2 * 3


@pytest.mark.slow
def test_a_search_that_is_interrupted_by_ctrl_c_goes_on(tmp_path: Path) -> None:
    words = ["-m", *SEARCH, "hydra.sweeper.n_workers=2", "hydra.sweeper.n_trials=4", "x=interval(0, 1)"]
    words += [f"steps={NUM_STEPS}", f"log={tmp_path}/log", "hydra/sweeper/pruner=none"]
    process = start(tmp_path, "checkpointed", *words)
    while num_lines(tmp_path / "log") < 5 and process.poll() is None:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode != 0

    again: subprocess.Popen[str] = start(tmp_path, "checkpointed", *words)
    _, stderr = again.communicate(timeout=120)
    assert again.returncode == 0, stderr
    assert [trial["state"] for trial in read_trials(tmp_path)] == ["complete"] * 4


def test_a_trial_has_nothing_of_another_one_whose_journal_is_lost(tmp_path: Path) -> None:
    words = ["-m", *SEARCH, "hydra/launcher=basic", "hydra.sweeper.n_trials=2", "x=interval(0, 1)", "steps=2"]
    words += ["hydra/sweeper/pruner=none", "hydra/sweeper/sampler=random", f"log={tmp_path}/log"]
    assert run(tmp_path, "checkpointed", *words, "hydra.sweeper.sampler.seed=1").returncode == 0
    (tmp_path / "sweep" / "study.journal").unlink()
    done = run(tmp_path, "checkpointed", *words, "hydra.sweeper.sampler.seed=2")
    assert (done.returncode, done.stderr) == (0, "")
    for trial in read_trials(tmp_path):
        assert trial["values"] == [trial["params"]["x"]]
        folder = tmp_path / "sweep" / "trials" / str(trial["number"])
        said = f"{folder}: of a trial that the storage does not have; kept as {folder.name}.corrupt"
        assert said in done.stdout.splitlines()
        assert {path.name for path in folder.parent.iterdir()} == {"0", "0.corrupt", "1", "1.corrupt"}
