"""What is the machine's fault is no trial's: the trial waits again, and the same command goes on with it later."""

from __future__ import annotations

import errno
import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import InstantiationException
from hypothesis import given
from hypothesis import strategies as st
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from cifarsweep.results.locks import Lock
from cifarsweep.sweeper import journal, worker
from cifarsweep.terminal import errors


def failed(error: BaseException) -> JobReturn:
    result = JobReturn(status=JobStatus.FAILED)
    result.return_value = error
    return result


@given(code=st.sampled_from(sorted(errno.errorcode)), wrapped=st.booleans())
def test_an_error_of_the_machine_is_raised_and_any_other_is_the_trials(code: int, wrapped: bool) -> None:
    error: Exception = OSError(code, os.strerror(code), "/x/checkpoint.pt")
    if wrapped:
        outer = InstantiationException("Error in call to target 'x'\nfull_key: data")
        outer.__cause__, error = error, outer
    if errno.errorcode[code] in errors.FAULTS_OF_A_MACHINE:
        with pytest.raises(OSError, match="checkpoint"):
            worker._outcome(failed(error), ("value",))
    else:
        assert worker._outcome(failed(error), ("value",)).state == TrialState.FAIL


@given(error=st.sampled_from([ValueError("x"), MemoryError(), KeyError("x"), OSError(), RuntimeError("out of memory")]))
def test_an_error_without_a_number_is_the_trials(error: Exception) -> None:
    assert worker._outcome(failed(error), ("value",)).state == TrialState.FAIL


@given(
    before=st.lists(st.dictionaries(st.text(max_size=3), st.integers(), min_size=1, max_size=3), max_size=5),
    room=st.integers(0, 60),
)
def test_a_journal_on_a_full_disk_keeps_whole_lines(
    tmp_path_factory: pytest.TempPathFactory, before: list[dict[str, Any]], room: int
) -> None:
    path = tmp_path_factory.mktemp("journal") / "study.journal"
    backend = journal.Backend(path, Lock(Path(f"{path}.lock")))
    backend.append_logs(before)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + room, limits[1]))
    try:  # Python ignores SIGXFSZ, so that a write beyond the limit is cut short, and the next one is an error
        with pytest.raises(OSError, match="File too large"):
            backend.append_logs([{"key": "x" * 80}])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    backend.append_logs([{"last": 1}])
    logs = list(JournalFileBackend(str(path)).read_logs(0))
    assert [{key: log[key] for key in log if key != "line_crc32"} for log in logs] == [*before, {"last": 1}]


APP = """
import errno, os, pathlib, sys
import hydra
from omegaconf import DictConfig

@hydra.main(config_path=None, version_base="1.3")
def main(cfg: DictConfig) -> float:
    if pathlib.Path("full").exists() and cfg.x > 0.5:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "outputs/model")
    return cfg.x

if __name__ == "__main__":
    main()
"""


@pytest.mark.parametrize("launcher", ["basic", pytest.param("local", marks=pytest.mark.slow)])
def test_a_search_on_a_full_disk_ends_in_one_line_and_goes_on_later(tmp_path: Path, launcher: str) -> None:
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "full").touch()
    words = ["-m", "hydra/sweeper=study", f"hydra/launcher={launcher}", "hydra.sweep.dir=s", "+x=interval(0, 1)"]
    words += ["hydra.sweeper.n_trials=12", "hydra.sweeper.sampler.seed=0", "hydra.sweeper.max_failures=0"]
    words += ["+hydra.job.env_set.ADDRESS='postgresql://me:open-sesame@here/x?sslpassword=open-sesame'"]

    def search() -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
        command = [sys.executable, "app.py", *words]
        return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=240)

    full = search()
    assert full.returncode == 1
    assert full.stderr.splitlines()[0] == "outputs/model: No space left on device"
    (tmp_path / "full").unlink()
    done = search()
    assert done.returncode == 0, done.stderr
    trials = json.loads((tmp_path / "s" / "study.json").read_text())["trials"]
    assert [trial["state"] for trial in trials] == ["complete"] * 12
    written = [path.read_text() for path in (tmp_path / "s").glob("*/.hydra/*.yaml")]
    assert "postgresql://me:***@here/x" in "".join(written)
    assert "open-sesame" not in "".join(written)
