"""Processes that are killed, interrupted or doubled: what was asked for comes out to the last bit all the same."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import REPOSITORY, start_python

NUM_KILLS = int(os.environ.get("CIFARSWEEP_KILLS", 10))
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """`python -m cifarsweep …` in a process group of its own, in tmp_path."""
    started: list[subprocess.Popen[str]] = []

    def begin(*words: str, stdout: int = subprocess.PIPE, **environment: str) -> subprocess.Popen[str]:
        process = start_python("-m", "cifarsweep", *words, cwd=tmp_path, stdout=stdout, **environment)
        started.append(process)
        return process

    yield begin
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def output(process: subprocess.Popen[str], timeout: float = 120) -> str:
    """What it has printed, once it has ended well."""
    out, err = process.communicate(timeout=timeout)
    assert process.returncode == 0, err
    return out


def results(outputs: Path) -> dict[str, tuple[list[dict[str, str]], bytes, bytes]]:
    """By run: metrics.csv without its seconds, model.pt and confusion.csv."""
    files = {}
    for run in (outputs / "runs").glob("*-*"):
        with (run / "metrics.csv").open() as file:
            rows = [{**row, "seconds": ""} for row in csv.DictReader(file)]
        files[run.name] = rows, (run / "model.pt").read_bytes(), (run / "confusion.csv").read_bytes()
    return files


def epochs_written(outputs: Path) -> int:
    return sum(len(path.read_text().splitlines()) - 1 for path in (outputs / "runs").glob("*/metrics.csv"))


def wait_for_epochs(outputs: Path, num: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while epochs_written(outputs) < num:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


@contextlib.contextmanager
def read_by_nobody() -> Iterator[int]:
    """A pipe whose reader is gone."""
    reading, writing = os.pipe()
    os.close(reading)
    yield writing
    os.close(writing)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds processes through /proc")
@pytest.mark.parametrize(
    ("output_to", "num_kills", "epochs"),
    [
        pytest.param(lambda: contextlib.nullcontext(subprocess.PIPE), NUM_KILLS, 40, id="a pipe"),
        pytest.param(read_by_nobody, 5 * NUM_KILLS, 150, id="a closed pipe"),
    ],
)
def test_random_kills_change_no_byte_of_a_sweep(
    start: Start,
    small: list[str],
    tmp_path: Path,
    output_to: Callable[[], contextlib.AbstractContextManager[int]],
    num_kills: int,
    epochs: int,
) -> None:
    sweep = [
        "-m",
        *small,
        "model=layers1,layers2,layers3",
        "model.dropout=0.1",
        f"trainer.epochs={epochs}",
        "name=kills",
    ]
    output(start(*sweep, f"outputs={tmp_path}/undisturbed"), timeout=600)
    expected = results(tmp_path / "undisturbed")
    assert len(expected) == 3
    sweep += ["trainer.checkpoint_seconds=0.01"]  # so that most of what a kill finds is the middle of an epoch

    dice = random.Random(0)
    for _ in range(num_kills):
        with output_to() as stdout:
            process = start(*sweep, stdout=stdout)
        time.sleep(dice.uniform(1, 6))
        everyone = [process.pid, *group(process.pid)]
        for pid in everyone if dice.random() < 0.5 else [dice.choice(everyone)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if dice.random() < 0.5 and process.poll() is None:  # one worker died: the sweep goes on for a while without us
            time.sleep(dice.uniform(0, 2))
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)
    output(start(*sweep), timeout=600)
    assert results(tmp_path / "outputs") == expected
    left = {path.name for run in (tmp_path / "outputs" / "runs").glob("*-*") for path in run.iterdir()}
    assert "checkpoint.pt" not in left
    assert not [name for name in left if "corrupt" in name]


def group(pid: int) -> list[int]:
    """The other processes of the group, so the workers."""
    others = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[2]) == pid and int(stat.parent.name) != pid:
                others.append(int(stat.parent.name))
    return others


@pytest.mark.slow
def test_a_run_goes_on_after_its_last_epoch(start: Start, small: list[str], tmp_path: Path) -> None:
    words = [*small, "trainer.epochs=30", "optimizer=adamw"]
    first = start(*words)
    wait_for_epochs(tmp_path / "outputs", 5, first)
    first.kill()
    first.communicate(timeout=30)
    out = output(start(*words))
    assert "goes on after epoch " in out
    assert "epoch 1/30" not in out


@pytest.mark.parametrize(
    ("sent", "code", "word"),
    [
        (signal.SIGINT, 130, "interrupted"),
        pytest.param(signal.SIGTERM, 143, "terminated", marks=pytest.mark.slow),
    ],
)
def test_an_interrupted_run_says_how_to_go_on(
    start: Start, small: list[str], tmp_path: Path, sent: signal.Signals, code: int, word: str
) -> None:
    process = start(*small, "trainer.epochs=100000", "force=true")  # to begin anew is no longer wanted then
    wait_for_epochs(tmp_path / "outputs", 2, process)
    begun = time.monotonic()
    process.send_signal(sent)
    _, err = process.communicate(timeout=30)
    assert time.monotonic() - begun < 5
    assert process.returncode == code
    (line,) = err.splitlines()
    assert line == f"{word}; this goes on: python -m cifarsweep {' '.join(small)} trainer.epochs=100000"
    (run,) = (tmp_path / "outputs" / "runs").glob("layers*")
    assert (run / "checkpoint.pt").exists()
    assert not (run / "result.json").exists()


@pytest.mark.slow
def test_a_sweep_without_a_name_says_it(start: Start, small: list[str], tmp_path: Path) -> None:
    process = start("-m", *small, "trainer.epochs=100000", "seed=0,1")
    wait_for_epochs(tmp_path / "outputs", 2, process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    (sweep,) = (tmp_path / "outputs" / "sweeps").iterdir()
    assert err.rstrip().endswith(f" seed=0,1 name={sweep.name}")


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_sweep_interrupted_in_its_report_says_how_to_go_on(
    start: Start, small: list[str], tmp_path: Path, sent: signal.Signals
) -> None:
    process = start("-m", *small, "seed=0,1", "name=report")
    report = tmp_path / "outputs" / "sweeps" / "report" / "report" / "runs.csv"
    while not report.exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(sent)
    _, err = process.communicate(timeout=30)
    assert process.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143}[sent]
    assert "this goes on: python -m cifarsweep -m" in err
    assert "Traceback" not in err


@pytest.mark.slow
def test_a_second_ctrl_c_ends_it_at_once(start: Start, small: list[str], tmp_path: Path) -> None:
    process = start("-m", *small, "trainer.epochs=100000", "seed=0,1", "hydra.launcher.n_workers=2", "name=twice")
    wait_for_epochs(tmp_path / "outputs", 4, process)
    workers = group(process.pid)
    for pid in workers:
        os.kill(pid, signal.SIGSTOP)  # workers that do not answer: an orderly end would wait for them
    while any(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "T" for pid in workers):
        time.sleep(0.01)  # a process that waits for its disk stops only afterwards, and would end by SIGTERM first
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert process.poll() is None
    begun = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert process.wait(5) == 130
    assert time.monotonic() - begun < 1
    for pid in workers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
    deadline = time.monotonic() + 10
    while group(process.pid):
        assert time.monotonic() < deadline, "a worker outlived its sweep"
        time.sleep(0.05)


@pytest.mark.slow
def test_of_two_processes_with_one_run_the_second_takes_over_from_a_dead_one(
    start: Start, small: list[str], tmp_path: Path
) -> None:
    words = [*small, "trainer.epochs=60"]
    first = start(*words)
    wait_for_epochs(tmp_path / "outputs", 2, first)
    second = start(*words)
    assert second.stdout is not None
    assert "another process trains it, waiting for its result" in second.stdout.readline()
    first.kill()
    out = output(second)
    assert "goes on after epoch" in out
    assert "epoch 60/60" in out


@pytest.mark.slow
def test_of_two_processes_with_one_run_the_second_reads_the_result(
    start: Start, small: list[str], tmp_path: Path
) -> None:
    words = [*small, "trainer.epochs=80"]
    first = start(*words)
    wait_for_epochs(tmp_path / "outputs", 1, first)
    second = start(*words)
    outs = [process.communicate(timeout=120) for process in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0), outs
    assert outs[0][0].count("epoch 80/80") == 1
    waiting, read = outs[1][0].splitlines()
    assert waiting.endswith("another process trains it, waiting for its result")
    assert "trained before, test accuracy" in read


@pytest.mark.slow
def test_sweeps_without_a_name_that_start_in_one_second_have_names_of_their_own(
    start: Start, small: list[str], tmp_path: Path
) -> None:
    together = [start("-m", *small, f"seed={seed}", "hydra/launcher=basic") for seed in range(4)]
    for process in together:
        _, err = process.communicate(timeout=240)
        assert (process.returncode, err) == (0, "")
    sweeps = [json.loads(path.read_text()) for path in (tmp_path / "outputs" / "sweeps").glob("*/sweep.json")]
    assert [len(sweep["commands"]) for sweep in sweeps] == [1] * 4


@pytest.mark.slow
def test_a_name_that_a_live_sweep_uses_is_refused(start: Start, small: list[str], tmp_path: Path) -> None:
    words = ["-m", *small, "seed=0,1", "name=one"]
    first = start(*words, "trainer.epochs=100000")
    wait_for_epochs(tmp_path / "outputs", 1, first)
    second = start(*words)
    _, err = second.communicate(timeout=30)
    assert second.returncode == 1
    assert err == "name=one: another process runs this sweep; wait, or give another name=\n"
    sweep = json.loads((tmp_path / "outputs" / "sweeps" / "one" / "sweep.json").read_text())
    assert len(sweep["commands"]) == 1
    first.kill()
    first.wait(30)
    output(start(*words))


@pytest.mark.slow
def test_a_sweep_started_again_trains_only_what_is_missing(start: Start, small: list[str], tmp_path: Path) -> None:
    output(start("-m", *small, "seed=0,1", "name=grid"))
    out = output(start("-m", *small, "seed=0,1,2", "name=grid"))
    assert out.count("trained before") == 2
    assert out.count("epoch 2/2") == 1


JUMPING = """
import random, time
real, dice = time.time, random.Random(1)
time.time = lambda: real() + dice.uniform(-1e6, 1e6)
time.time_ns = lambda: int(time.time() * 1e9)
"""


@pytest.mark.slow
def test_a_clock_that_jumps_changes_nothing(start: Start, small: list[str], tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(JUMPING)
    words = ["-m", *small, "model=layers1,layers2", "name=clock"]
    output(start(*words, f"outputs={tmp_path}/steady"))
    output(start(*words, PYTHONPATH=f"{REPOSITORY}{os.pathsep}{tmp_path}"))
    assert results(tmp_path / "outputs") == results(tmp_path / "steady")
    for path in (tmp_path / "outputs" / "runs").glob("*/metrics.csv"):
        with path.open() as file:
            assert all(0 < float(row["seconds"]) < 60 for row in csv.DictReader(file))


ELSEWHERE = """
import os
if "FROZEN" in os.environ:
    from cifarsweep.results import locks
    locks._PLACE = "elsewhere"
    locks.LEASE = 3.0
    locks.Lock.__init__.__defaults__ = (3.0,)
"""


@pytest.mark.slow
def test_a_run_of_a_host_that_froze_goes_on_after_the_lease_and_the_frozen_one_writes_nothing_more(
    start: Start, small: list[str], tmp_path: Path
) -> None:
    """The other host is a process that is stopped and takes itself for one of another host."""
    words = [*small, "trainer.epochs=12"]
    output(start(*words, f"outputs={tmp_path}/whole"))
    (tmp_path / "sitecustomize.py").write_text(ELSEWHERE)
    frozen = start(*words, FROZEN="1", PYTHONPATH=f"{REPOSITORY}{os.pathsep}{tmp_path}")
    wait_for_epochs(tmp_path / "outputs", 2, frozen)
    os.kill(frozen.pid, signal.SIGSTOP)
    assert "goes on after epoch" in output(start(*words))
    (run,) = (tmp_path / "outputs" / "runs").glob("*-*")
    written = {path.name: path.read_bytes() for path in run.iterdir() if path.name != "train.log"}
    os.kill(frozen.pid, signal.SIGCONT)
    _, err = frozen.communicate(timeout=120)
    assert frozen.returncode == 1
    assert err.endswith(": this process gave no sign of life for 3 s, and another one has taken its work over\n")
    assert len(err.splitlines()) == 1
    assert {path.name: path.read_bytes() for path in run.iterdir() if path.name != "train.log"} == written
    assert results(tmp_path / "outputs") == results(tmp_path / "whole")


@pytest.mark.slow
def test_a_search_goes_on_while_a_host_is_frozen_and_the_frozen_one_drops_its_trial_and_goes_on(
    start: Start, small: list[str], tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(ELSEWHERE)
    words = ["-m", *small, "trainer.epochs=8", "name=both", "hydra/sweeper=study", "optimizer.lr=interval(0.01, 0.1)"]
    words += [
        "hydra/launcher=basic",
        "hydra.sweeper.n_trials=2",
        "hydra.sweeper.grace_period=3",
        "hydra/sweeper/pruner=none",
    ]
    frozen = start(*words, FROZEN="1", PYTHONPATH=f"{REPOSITORY}{os.pathsep}{tmp_path}")
    wait_for_epochs(tmp_path / "outputs", 1, frozen)
    os.kill(frozen.pid, signal.SIGSTOP)
    time.sleep(3.5)
    output(start(*words))
    study = json.loads((tmp_path / "outputs" / "sweeps" / "both" / "study.json").read_text())
    assert [trial["state"] for trial in study["trials"]] == ["complete"] * 2
    written = results(tmp_path / "outputs")
    os.kill(frozen.pid, signal.SIGCONT)
    out = output(frozen)
    assert "another one has taken its work over; result dropped" in out
    again = json.loads((tmp_path / "outputs" / "sweeps" / "both" / "study.json").read_text())
    assert again["trials"] == study["trials"]
    assert results(tmp_path / "outputs") == written
