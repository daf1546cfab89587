"""The launcher `local`: who gets which cores, and what becomes of a job whose process dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from conftest import REPOSITORY, Command, start_python

from cifarsweep.sweeper.local import Slot, _death, _gpus, plan_slots, take_any_gpu

CRASHING = """
import os, pathlib, signal, torch
from cifarsweep.models import LayersNet

def net(die, **arguments):
    '''Kills its process: always, once or never while it is built; at its step `die`, where that is a number.'''
    flag = pathlib.Path(os.environ["CRASH_FLAG"] + str(die))
    if die == "always" or (die == "once" and not flag.exists()):
        flag.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    network = LayersNet(**arguments)
    if isinstance(die, int):
        steps = iter(range(1, die))
        def count(*_):
            if torch.is_grad_enabled() and not next(steps, 0):
                os.kill(os.getpid(), signal.SIGKILL)
        network.register_forward_pre_hook(count)
    return network
"""


@pytest.mark.parametrize(
    ("n_workers", "num_jobs", "cores", "gpus", "slots"),
    [
        (None, 5, [0, 1], [], [Slot((0,)), Slot((1,))]),
        (None, 1, [0, 1], [], [Slot((0, 1), 2)]),
        (2, 9, [0, 1, 2, 3, 4], [], [Slot((0, 1), 2), Slot((2, 3, 4), 2)]),
        (3, 9, [0, 1], [], [Slot((0,)), Slot((0,)), Slot((1,))]),
        (None, 9, [0, 1, 2, 3], ["0", "1"], [Slot((0, 1), 2, "0"), Slot((2, 3), 2, "1")]),
        (3, 9, [0, 1, 2], ["0", "1"], [Slot((0,), 1, "0"), Slot((1,), 1, "1"), Slot((2,), 1, "0")]),
    ],
)
def test_workers_share_cores_and_gpus(
    n_workers: int | None, num_jobs: int, cores: list[int], gpus: list[str], slots: list[Slot]
) -> None:
    assert plan_slots(n_workers, num_jobs, cores, gpus) == slots


@pytest.mark.parametrize(
    ("devices", "any_gpu"),
    [({"auto"}, True), ({"auto", "cpu"}, True), ({"cpu"}, False), ({"cuda:1"}, False), ({"auto", "cuda:1"}, False)],
)
def test_a_job_that_names_its_gpu_sees_all(devices: set[str], any_gpu: bool) -> None:
    assert take_any_gpu(devices) == any_gpu


@pytest.mark.parametrize(
    ("visible", "count", "names"),
    [
        (None, 2, ["0", "1"]),
        ("", 2, []),
        ("-1", 2, []),
        ("3,1", 4, ["3", "1"]),
        ("0,9,1", 2, ["0"]),
        ("GPU-ab,GPU-cd", 2, ["GPU-ab", "GPU-cd"]),
    ],
)
def test_gpus_are_those_that_can_be_seen(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, count: int, names: list[str]
) -> None:
    monkeypatch.setattr("platform.system", lambda: "Linux")
    listed = "".join(f"GPU {i}: NVIDIA H100 (UUID: GPU-{i})\n" for i in range(count))
    monkeypatch.setattr("subprocess.run", lambda *words, **options: subprocess.CompletedProcess(words, 0, listed))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert _gpus() == names


@pytest.mark.parametrize(
    ("exitcode", "before", "after", "reason"),
    [
        (-9, 3, 4, "SIGKILL, as the machine is out of memory"),
        (-9, 3, 3, "SIGKILL"),
        (-9, None, None, "SIGKILL, perhaps out of memory"),
        (-11, 3, 4, "SIGSEGV"),
        (7, 3, 4, "exit code 7"),
    ],
)
def test_a_death_is_named(exitcode: int, before: int | None, after: int | None, reason: str) -> None:
    assert _death(exitcode, before, after) == reason


@pytest.fixture
def crashing(tmp_path: Path, small: list[str]) -> tuple[list[str], dict[str, str]]:
    (tmp_path / "crashing.py").write_text(CRASHING)
    environment = {"PYTHONPATH": f"{REPOSITORY}{os.pathsep}{tmp_path}", "CRASH_FLAG": str(tmp_path / "flag-")}
    return [*small, "model._target_=crashing.net", "trainer.epochs=1", "name=crash"], environment


@pytest.mark.slow
def test_a_job_whose_process_dies_is_tried_once_more(
    cifarsweep: Command, crashing: tuple[list[str], dict[str, str]]
) -> None:
    words, environment = crashing
    done = cifarsweep("-m", *words, "+model.die=never,once", **environment)
    assert done.returncode == 0, done.stderr
    assert "lost its process: SIGKILL; trying once more" in done.stderr
    assert done.stdout.count("test accuracy") >= 2


@pytest.mark.slow
def test_a_job_that_kills_its_process_twice_fails_and_the_others_go_on(
    cifarsweep: Command, crashing: tuple[list[str], dict[str, str]], tmp_path: Path
) -> None:
    words, environment = crashing
    done = cifarsweep("-m", *words, "+model.die=always,never", **environment)
    assert done.returncode == 1
    assert "its process ended twice, SIGKILL" in done.stderr
    assert "1 of 2 jobs failed" in done.stderr
    results = list((tmp_path / "outputs" / "runs").glob("*/result.json"))
    assert [json.loads(path.read_text())["status"] for path in results] == ["complete"]
    jobs = json.loads((tmp_path / "outputs" / "sweeps" / "crash" / "sweep.json").read_text())["jobs"].values()
    assert {job.get("error") for job in jobs} == {None, "its process ended twice, SIGKILL"}


@pytest.mark.slow
def test_a_run_that_kills_its_process_twice_is_failed_and_one_that_dies_later_goes_on(
    cifarsweep: Command, crashing: tuple[list[str], dict[str, str]], tmp_path: Path
) -> None:
    words, environment = crashing
    done = cifarsweep("-m", *words, "trainer.epochs=2", "+model.die=5,15", **environment)
    assert done.returncode == 1
    results = [json.loads(path.read_text()) for path in (tmp_path / "outputs" / "runs").glob("*/result.json")]
    found = {result["status"]: result.get("epochs_trained") for result in results}
    assert found == {"failed": None, "complete": 2}, done.stderr
    (error,) = [result["error"] for result in results if result["status"] == "failed"]
    assert error == "its process ended twice, SIGKILL"
    assert "goes on after epoch 1/2" in done.stdout
    table = (tmp_path / "outputs" / "sweeps" / "crash" / "report" / "runs.csv").read_text()
    assert "its process ended twice, SIGKILL" in table


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system pins no process")
def test_each_worker_is_pinned_and_uses_as_many_threads(cifarsweep: Command, small: list[str], tmp_path: Path) -> None:
    code = "import os, json\nfrom cifarsweep.models import LayersNet\n"
    code += (
        "def net(**a):\n    print('cores', sorted(os.sched_getaffinity(0)), flush=True)\n    return LayersNet(**a)\n"
    )
    (tmp_path / "pinned.py").write_text(code)
    path = f"{REPOSITORY}{os.pathsep}{tmp_path}"
    words = ["model._target_=pinned.net", "trainer.epochs=1", "seed=range(4)", "name=pinned"]
    done = cifarsweep("-m", *small, *words, "hydra.launcher.n_workers=2", PYTHONPATH=path)
    assert done.returncode == 0, done.stderr
    seen = {line for line in done.stdout.splitlines() if line.startswith("cores")}
    assert seen == {f"cores {list(slot.cores)}" for slot in plan_slots(2, 4, sorted(os.sched_getaffinity(0)), [])}
    for path_to_result in (tmp_path / "outputs" / "runs").glob("*/result.json"):
        assert json.loads(path_to_result.read_text())["threads"] in {
            len(slot.cores) for slot in plan_slots(2, 4, sorted(os.sched_getaffinity(0)), [])
        }


def children(pid: int) -> list[int]:
    return [int(x) for x in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def start_long_sweep(small: list[str], tmp_path: Path) -> tuple[subprocess.Popen[str], list[int]]:
    words = ["-m", *small, "trainer.epochs=100000", "seed=0,1", "hydra.launcher.n_workers=2", "name=long"]
    process = start_python("-m", "cifarsweep", *words, cwd=tmp_path)
    assert process.stdout is not None
    while "epoch 2/" not in process.stdout.readline():
        pass
    return process, children(process.pid)


def all_gone(pids: list[int], within: float = 10) -> bool:
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        states = [Path(f"/proc/{pid}/stat").read_text().split()[2] for pid in pids if Path(f"/proc/{pid}").exists()]
        if all(state == "Z" for state in states):
            return True
        time.sleep(0.1)
    return False


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks at processes through /proc")
@pytest.mark.parametrize("sent", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_no_worker_outlives_its_sweep(small: list[str], tmp_path: Path, sent: signal.Signals) -> None:
    process, workers = start_long_sweep(small, tmp_path)
    assert len(workers) >= 2
    if sent == signal.SIGINT:
        os.killpg(process.pid, sent)  # as a terminal does: to every process of the group
    else:
        process.send_signal(sent)
    _, stderr = process.communicate(timeout=30)
    assert all_gone(workers)
    assert "Traceback" not in stderr
    if sent == signal.SIGINT:
        assert process.returncode == 130
        assert "interrupted; this goes on: python -m cifarsweep -m data=shapes " in stderr
        assert stderr.rstrip().endswith("name=long")
