"""Jobs of Slurm: submits them, waits for them, ends them, and what a job does in its process. Knows no trial.

They go through Hydra's launcher submitit_slurm, but are waited for here. Its own way is to ask sacct, which needs a
database that not every cluster has, at most once in ten minutes, and to end by the first job that was cancelled.
"""

import contextlib
import importlib
import json
import os
import shlex
import signal
import subprocess
import threading
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import TaskFunction
from omegaconf import DictConfig

from cifarsweep.results import files, sweeps
from cifarsweep.terminal import command_line, errors

SQUEUE_SECONDS = 5.0
"""Slurm is asked at most so often: it has all users of a cluster to answer."""
_ENDED = {
    *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY"),
    *("PREEMPTED", "TIMEOUT"),
}
_FOLDER = ".jobs"
"""In the sweep's folder: a file for each job, which says how it ended."""
MOST_NAMED = 20


def is_submitit(launcher: DictConfig) -> bool:
    return str(launcher._target_).startswith("hydra_plugins.hydra_submitit_launcher.")


def is_slurm(launcher: DictConfig) -> bool:
    return is_submitit(launcher) and launcher._target_.endswith(".SlurmLauncher")


def check_detach(detach: bool, hydra: DictConfig) -> None:
    """ValueError where this launcher has no jobs that can be left."""
    if detach and not is_slurm(hydra.launcher):
        name = hydra.runtime.choices.get("hydra/launcher")
        expected = f"expected false with hydra/launcher={name}, whose jobs end with this command"
        raise ValueError(f"hydra.sweeper.detach=true: {expected}; those of submitit_slurm can be left")


# a job's side


@dataclass(frozen=True)
class InJob:
    """The task of a launched job: it stops on signals and, in a job of Slurm, has its threads and leaves its result."""

    task: TaskFunction
    folder: Path
    """Of the sweep."""

    def __call__(self, config: DictConfig) -> Any:
        if os.environ.get("SUBMITIT_EXECUTOR") != "slurm":
            with _stopping_on_signals():
                return self.task(config)
        os.environ["OMP_NUM_THREADS"] = str(_num_threads())  # before PyTorch is imported
        array, number = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
        path = _end_of(self.folder, f"{array}_{number}" if array else os.environ["SLURM_JOB_ID"])
        files.make_folder(path.parent, below=self.folder)
        try:
            with _stopping_on_signals():
                value = self.task(config)
        except Exception as error:
            details = None if errors.is_users(error) else "".join(traceback.format_exception(error))
            files.write_json(path, {"error": errors.one_line(error), "details": details})
            raise
        files.write_json(path, {"value": _plain(value)})
        return value


def _num_threads() -> int:
    """What the job was given; what the process may use where that is less, as it is in a step of one CPU."""
    given = os.environ.get("SLURM_CPUS_PER_TASK") or os.environ.get("SLURM_CPUS_ON_NODE") or ""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(int(given), usable) if given.isdecimal() else usable


def _plain(value: Any) -> Any:
    """None where JSON cannot hold it."""
    try:
        return json.loads(json.dumps(value))
    except (TypeError, ValueError, RecursionError):
        return None


def _end_of(folder: Path, job: str) -> Path:
    return folder / _FOLDER / f"{job}.json"


@contextlib.contextmanager
def _stopping_on_signals() -> Iterator[None]:
    """Where a cluster is about to take the machine away, raises SystemExit, so that everything is left in order.

    The signals are SIGTERM, and SIGUSR2 under submitit, whose handler asks for another turn. Slurm then sends SIGTERM
    at once, and so it does after SIGUSR2 at a time limit: nothing may interrupt what follows the first signal, and
    another turn is asked for last. Only a main thread can set handlers; most launchers run a job in one.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    submitits: Any = signal.getsignal(signal.SIGUSR2) if "SUBMITIT_EXECUTOR" in os.environ else None
    ending = [signal.SIGTERM, signal.SIGUSR2] if callable(submitits) else [signal.SIGTERM]
    received: list[int] = []

    def end(number: int, frame: Any) -> None:
        for each in ending:
            signal.signal(each, signal.SIG_IGN)
        received.append(number)
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, end) for number in ending}
    try:
        yield
    finally:
        if not received:
            for number, handler in before.items():
                signal.signal(number, handler)
        elif received[0] != signal.SIGTERM:
            submitits(received[0], None)


# a command's side


def shown(overrides: Iterable[str]) -> str:
    """The overrides of a job, by which a later command knows it."""
    return " ".join(map(command_line.without_credentials, overrides))


class Jobs:
    """The jobs of a sweep that this command waits for, from their submission until it has seen their end.

    sweep.json names them meanwhile, so that the next command finds them.
    """

    def __init__(self, folder: Path, live: Mapping[str, str]) -> None:
        self._folder, self._asked, self._missed = folder, -SQUEUE_SECONDS, set[str]()
        self._killed: dict[str, str] = {}
        self.live = dict(live)
        """By id, the overrides of each."""

    @classmethod
    def of_earlier_commands(cls, folder: Path) -> Self:
        """Without those that Slurm has ended while no command waited for them, so that they are started again."""
        jobs = cls(folder, sweeps.submitted(folder))
        jobs._forget(job for job in _gone(jobs.live) or () if jobs._result(job) is None)
        return jobs

    def submit(self, launcher: Launcher, jobs: Mapping[int, Sequence[str]]) -> None:
        """Submits a job for these overrides of each number. ValueError where Slurm refuses them."""
        if not (self._folder / sweeps.SweepRecord.file).exists():  # of an application that keeps no record
            sweeps.open_sweep(self._folder, command_line.words(), {})
        new = dict(zip(_submit(launcher, jobs), map(shown, jobs.values()), strict=True))
        self.live |= new
        sweeps.note_jobs(self._folder, submitted=new)

    def ended(self) -> dict[str, JobReturn]:
        """The results of those that have ended since the last call, by id."""
        results = self.results()
        self._forget(results)
        return results

    def results(self) -> dict[str, JobReturn]:
        """Of those that have ended, which stay on the list.

        A job that ended without a word was killed. That is believed the second time that Slurm says so: what is
        started again has no state for a moment, and files of another machine come late.
        """
        results = {job: result for job in self.live if (result := self._result(job)) is not None}
        waiting = [job for job in self.live if job not in results and job not in self._killed]
        is_due = waiting and time.monotonic() - self._asked >= SQUEUE_SECONDS
        if is_due and (gone := _gone(waiting)) is not None:
            self._asked = time.monotonic()
            self._killed |= {job: state for job, state in gone.items() if job in self._missed}
            self._missed = set(gone)
        for job in self._killed.keys() - results.keys():
            results[job] = JobReturn(status=JobStatus.FAILED)
            results[job].return_value = ChildProcessError(f"Slurm ended it: {self._killed[job]}")
        return results

    def _result(self, job: str) -> JobReturn | None:
        """None where it has left none yet."""
        path = _end_of(self._folder, job)
        try:
            end = files.read_json(path)
        except FileNotFoundError:
            return None
        result = JobReturn(status=JobStatus.COMPLETED)
        result.return_value = end.get("value")
        if (line := end.get("error")) is not None:
            error = RuntimeError(line) if end.get("details") else ValueError(line)
            if end.get("details"):
                error.add_note(end["details"])
            result.status, result.return_value = JobStatus.FAILED, error
        return result

    def cancel(self) -> None:
        """Ends them all. ValueError in Slurm's own words where it cannot."""
        if self.live:
            done = subprocess.run(["scancel", "--quiet", *self.live], capture_output=True, text=True)
            if done.returncode:
                raise ValueError(f"scancel: {' '.join(done.stderr.split())}")
        self._forget(self.live)

    def conclude(self, seconds: float) -> None:
        """Where nothing is left to do: waits so long for them to end, and cancels those that never began."""
        until = time.monotonic() + seconds
        while self.live and time.monotonic() < until:
            self.ended()
            time.sleep(0.2)
        with contextlib.suppress(ValueError):  # they end by themselves once they begin
            self.cancel()

    def _forget(self, jobs: Iterable[str]) -> None:
        if jobs := list(jobs):
            sweeps.note_jobs(self._folder, ended=jobs)
            for job in jobs:
                del self.live[job]
                self._killed.pop(job, None)
                _end_of(self._folder, job).unlink(missing_ok=True)

    def __str__(self) -> str:
        named = ", ".join(list(self.live)[:MOST_NAMED])
        more = f" and {len(self.live) - MOST_NAMED} more" if len(self.live) > MOST_NAMED else ""
        return f"{'job' if len(self.live) == 1 else 'jobs'} {named}{more} of Slurm"

    @property
    def left(self) -> str:
        """What a person is told who leaves them."""
        command = f"python -m cifarsweep.watch {shlex.quote(str(self._folder))}"
        goes_on = "runs" if len(self.live) == 1 else "run"
        return f"{self} {goes_on} on; the same command comes back; {command} waits, and with --cancel ends them"


def _submit(launcher: Launcher, jobs: Mapping[int, Sequence[str]]) -> list[str]:
    """The launcher would wait for the jobs (1.2, the only version). It has no way to leave them but an exception."""
    submitit: Any = importlib.import_module("submitit")

    class Submitted(Exception):
        pass

    class Leaving(submitit.AutoExecutor):  # type: ignore[misc]
        def map_array(self, job: Any, overrides: Any, keys: Any, numbers: Any, *rest: Any) -> None:
            raise Submitted([job.job_id for job in super().map_array(job, overrides, keys, tuple(jobs), *rest)])

    waiting, submitit.AutoExecutor = submitit.AutoExecutor, Leaving
    try:
        launcher.launch(list(jobs.values()), initial_job_idx=0)
    except Submitted as submitted:
        ids: list[str] = submitted.args[0]
        return ids
    except (submitit.core.utils.FailedJobError, subprocess.CalledProcessError) as error:
        said = [line for line in str(error).splitlines() if "error:" in line] or [errors.one_line(error)]
        raise ValueError(f"Slurm refused the jobs: {said[-1].strip()}") from error
    finally:
        submitit.AutoExecutor = waiting
    raise AssertionError("the launcher submitted nothing")


def _gone(jobs: Iterable[str]) -> dict[str, str] | None:
    """The state of each of these jobs that has ended, which Slurm forgets some minutes later. None: no answer."""
    if not (ids := list(jobs)):
        return {}
    named = f"--jobs={','.join([*ids, ids[0]])}"  # of a single job that it knows no more, it speaks as of an error
    command = ["squeue", "--noheader", "--array", "--states=all", "--format=%i %T", named]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    except FileNotFoundError:  # no Slurm here
        listed = ""
    except (OSError, subprocess.SubprocessError):
        return None
    states = dict(line.split() for line in listed.splitlines())
    return {job: states.get(job, "it is gone") for job in ids if states.get(job) in {*_ENDED, None}}
