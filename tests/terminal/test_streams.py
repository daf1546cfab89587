"""Commands whose output is closed, narrow, full or read by nobody: the work goes on, and the output degrades."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from conftest import REPOSITORY

from cifarsweep.results import folders
from cifarsweep.results.records import RunResult

needs_a_full_disk = pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
OUTPUTS = {
    "closed stdout": ">&-",
    "closed stderr": "2>&-",
    "all closed": "<&- >&- 2>&-",
    "full": "> /dev/full",
    "both full": "> /dev/full 2>&1",
    "read by nobody": "| true",
    "one line read": "| head -1",
}
EVERY_OUTPUT = [
    pytest.param(end, id=what, marks=[needs_a_full_disk] if "full" in what else []) for what, end in OUTPUTS.items()
]


def shell(command: Sequence[str], end: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """The command with its output as `end` says; the exit code is the command's own, not that of a pipe's reader."""
    script = f'set -o pipefail; "$@" {end}'
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY), **environment}
    words = ["bash", "-c", script, "bash", sys.executable, *command]
    return subprocess.run(words, cwd=cwd, env=env, capture_output=True, timeout=240)


def statuses(outputs: Path) -> list[str]:
    return [RunResult.read_or_unfinished(run).status for run in folders.find(outputs)]


@pytest.mark.parametrize(
    "end", [output for output in EVERY_OUTPUT if output.id in ("all closed", "both full", "read by nobody")]
)
def test_a_run_is_complete_wherever_its_output_goes(small: list[str], tmp_path: Path, end: str) -> None:
    done = shell(["-m", "cifarsweep", *small], end, tmp_path)
    assert (done.returncode, done.stderr) == (0, b"")
    assert statuses(tmp_path / "outputs") == ["complete"]


@pytest.mark.slow
@pytest.mark.parametrize("end", EVERY_OUTPUT)
def test_a_sweep_ends_wherever_its_output_goes(small: list[str], tmp_path: Path, end: str) -> None:
    words = ["-m", "cifarsweep", "-m", *small, "seed=0,1", "hydra.launcher.n_workers=2", "name=s"]
    done = shell(words, end, tmp_path)
    assert (done.returncode, done.stderr) == (0, b"")
    assert statuses(tmp_path / "outputs") == ["complete", "complete"]
    assert (tmp_path / "outputs" / "sweeps" / "s" / "report" / "depth_vs_accuracy.png").exists()


@pytest.mark.slow
@pytest.mark.parametrize("end", EVERY_OUTPUT)
def test_a_search_of_any_application_ends_wherever_its_output_goes(tmp_path: Path, end: str) -> None:
    app = REPOSITORY / "tests" / "sweeper" / "apps" / "plain.py"
    words = ["hydra/sweeper=study", "hydra/launcher=local", "hydra.sweep.dir=sweep", "hydra.sweeper.n_trials=3"]
    shell([str(app), "-m", *words, "x=interval(0, 4)"], end, tmp_path)
    assert (tmp_path / "sweep" / "optimization_results.yaml").exists()


def test_a_narrow_encoding_shows_escapes(small: list[str], tmp_path: Path) -> None:
    done = shell(["-m", "cifarsweep", *small], "", tmp_path, PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert (done.returncode, done.stderr) == (0, b"")
    done = shell(["-m", "cifarsweep.report"], "", tmp_path, PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"Report: " in done.stdout
    done.stdout.decode("ascii")


@pytest.mark.parametrize("end", EVERY_OUTPUT)
def test_a_listing_fails_on_a_full_disk_only(tmp_path: Path, end: str) -> None:
    (tmp_path / "outputs" / "runs").mkdir(parents=True)
    done = shell(["-m", "cifarsweep.runs"], end, tmp_path)
    full = "/dev/full" in end
    assert done.returncode == int(full)
    assert done.stderr == (b"No space left on device\n" if full and "2>" not in end else b"")
