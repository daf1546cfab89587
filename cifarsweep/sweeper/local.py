"""The launcher `local`: a long-lived worker process for each core or GPU, pinned to it. Knows Hydra's jobs only.

`launch` fills a `Pool`, whose `run` gives the jobs out and hears of a process's death; `_work` is what a process does.
"""

import contextlib
import itertools
import multiprocessing
import os
import pickle
import platform
import re
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from functools import cache
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType
from typing import Any, Self

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, setup_globals
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from cifarsweep.sweeper import jobs, pickling
from cifarsweep.sweeper.application import Application
from cifarsweep.terminal import domains, errors, progress, streams

MOST_WORKERS = 1000
MAX_STARTS = 2
"""A job whose process dies is started once more. A second death is the job's own fault, unless it said `began`."""


@dataclass
class Job:
    number: int
    overrides: Sequence[str]
    pickled: bytes
    """Its configuration, which takes a hundredth of the memory in this form."""
    starts: int = 0
    title: str = ""
    """What sets it apart from the others: the overrides that not all of them have."""
    trained: bool = False
    """Whether work was seen; a run that was trained before costs nothing."""
    oom_kills: int | None = None
    """Of the whole machine, when the job was started."""

    def __str__(self) -> str:
        return f"job {self.number} ({' '.join(self.overrides)})" if self.overrides else f"job {self.number}"


@dataclass(frozen=True)
class Slot:
    """What one worker may use: these cores, so many threads, and this GPU where there is one."""

    cores: tuple[int, ...]
    threads: int = 1
    gpu: str | None = None


@dataclass(eq=False)
class WorkerProcess:
    number: int
    slot: Slot
    process: BaseProcess
    connection: Connection
    job: Job | None = None
    is_ready: bool = False
    """Whether it has started. Nothing is sent to it before, as one that dies meanwhile would never read it."""


def check(keys: Mapping[str, Any]) -> None:
    """ValueError names a key below hydra.launcher, its value and what is accepted."""
    domains.check("hydra.launcher.", keys, {"n_workers": domains.whole(1, MOST_WORKERS).or_null()})


def launch(
    job_overrides: Sequence[Sequence[str]],
    initial_job_idx: int,
    *,
    n_workers: int | None,
    hydra_context: HydraContext,
    task_function: TaskFunction,
    config: DictConfig,
) -> list[JobReturn]:
    """Runs the jobs and returns their results in order. The result of a failed job has the exception.

    The application sees every job's configuration before any starts, and hears of each job that is given up because its
    process died again. A job that fails is shown at once, and the others go on.
    """
    setup_globals()
    application, folder = Application.of(task_function), Path(config.hydra.sweep.dir).absolute()
    compose = jobs.Composer(hydra_context.config_loader, config, folder)
    ready, devices = [], set()
    for number, overrides in enumerate(job_overrides, start=initial_job_idx):
        job_config = compose(overrides, number)
        application.check(job_config)
        devices.add(application.device(job_config))
        ready.append(Job(number, overrides, pickling.dumps(job_config)))
    if not ready:
        return []
    common = set.intersection(*(set(job.overrides) for job in ready))
    for job in ready:
        job.title = " ".join(override for override in job.overrides if override not in common)
    slots = plan_slots(n_workers, len(ready), cores(), _gpus() if take_any_gpu(devices) else [])
    with Pool(slots, hydra_context, task_function, name=folder.name) as pool:
        return pool.run(ready)


# what the machine has


def plan_slots(n_workers: int | None, num_jobs: int, cores: Sequence[int], gpus: Sequence[str]) -> list[Slot]:
    """A slot for each worker: a GPU each, or an equal share of the cores. More workers than cores share them.

    All have the same number of threads, as it changes the last bits of a result.
    """
    n = min(n_workers or len(gpus) or len(cores), num_jobs)
    threads = max(1, len(cores) // n)
    slots = []
    for i in range(n):
        share = cores[i * len(cores) // n : (i + 1) * len(cores) // n]
        slots.append(Slot(tuple(share) or (cores[i % len(cores)],), threads, gpus[i % len(gpus)] if gpus else None))
    return slots


def take_any_gpu(devices: Set[str]) -> bool:
    """Whether jobs on these devices may be given a GPU each. A job that names its own must see all to find it."""
    return devices <= {"auto", "cuda", "cpu"} and devices != {"cpu"}


def cores() -> list[int]:
    """The cores that this process may use."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def _gpus() -> list[str]:
    """Names for CUDA_VISIBLE_DEVICES. The driver's own tool lists them, so that the engine needs no CUDA library."""
    if platform.system() == "Darwin":
        return ["mps"] if platform.machine() == "arm64" else []
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError, UnicodeError):
        return []
    indices = [str(i) for i in range(sum(line.startswith("GPU ") for line in listed.splitlines()))]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return indices
    names = visible.split(",")  # what follows a wrong name is not to be seen
    return list(itertools.takewhile(lambda name: name in indices or name.startswith(("GPU-", "MIG-")), names))


# the parent's side


class Pool:
    """Worker processes with one job at a time each. One that dies is replaced."""

    def __init__(self, slots: list[Slot], hydra_context: HydraContext, task_function: TaskFunction, name: str) -> None:
        """`name` is that of the sweep, for the display."""
        self._application, self._name = Application.of(task_function), name
        self._shared = pickling.dumps((hydra_context, task_function, Singleton.get_state()))
        self._display, self._shown = progress.display, False
        # spawn, not fork: threads and GPU contexts of this process do not survive a fork.
        self._context = multiprocessing.get_context("spawn")
        self._workers = [self._start(number, slot) for number, slot in enumerate(slots)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        for worker in self._workers:
            self._display.end(worker.number)
        if self._shown:
            self._display.close()
        for worker in self._workers:
            worker.process.terminate()
        for worker in self._workers:
            worker.process.join(timeout=5)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()

    def run(self, jobs: Sequence[Job]) -> list[JobReturn]:
        waiting, results = deque(jobs), dict[int, JobReturn]()
        while len(results) < len(jobs):
            if jobs[0].title:  # the jobs differ; those of a search are its workers, and it has a line of its own
                self._show(jobs, results)
            for worker in self._workers:
                if worker.job is None and waiting:
                    job = worker.job = waiting.popleft()
                    job.starts += 1
                    job.oom_kills = _oom_kills()
                    if worker.is_ready:
                        self._send(worker, job.pickled)
            ready = wait([worker.connection for worker in self._workers])
            for worker in [worker for worker in self._workers if worker.connection in ready]:
                try:
                    event = worker.connection.recv()
                except (EOFError, OSError):  # the process has ended, and its end of the connection with it
                    self._replace(worker, waiting, results)
                else:
                    self._hear(worker, event, results)
        return [results[job.number] for job in jobs]

    def _show(self, jobs: Sequence[Job], results: Mapping[int, JobReturn]) -> None:
        """The line on the sweep as a whole."""
        failed = sum(result.status == JobStatus.FAILED for result in results.values())
        worked = sum(job.trained for job in jobs if job.number in results)
        self._shown = True
        text = f"{self._name}: {len(results)}/{len(jobs)} done" + (f", {failed} failed" if failed else "")
        self._display.whole(progress.Whole(text, len(results), worked, len(jobs)))

    def _start(self, number: int, slot: Slot) -> WorkerProcess:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=_work,
            args=(theirs, slot, not self._display.is_live),
            name=f"cifarsweep-{number}",
            daemon=True,  # ends with this process
        )
        with _without_main_module():
            process.start()
        theirs.close()  # so that the worker's death ends the connection
        return WorkerProcess(number, slot, process, ours)

    def _send(self, worker: WorkerProcess, *messages: bytes) -> None:
        with contextlib.suppress(OSError):  # it has just died, which its connection tells
            for message in messages:
                worker.connection.send_bytes(message)

    def _hear(self, worker: WorkerProcess, event: progress.Event, results: dict[int, JobReturn]) -> None:
        """Shows what a worker says, and keeps the result of its job once that has come: the worker is free then."""
        (kind, value), job = event, worker.job
        if kind == "ready":
            worker.is_ready = True
            self._send(worker, self._shared, *([job.pickled] if job else []))
            return
        if kind == "began" and job:
            job.starts = 1
        if kind == "advance" and job:
            job.trained = True
            value = replace(value, title=job.title or value.title)
        if kind != "result":
            self._display.handle(worker.number, (kind, value))
            return
        result: JobReturn = pickle.loads(value)
        assert job is not None
        if result.status == JobStatus.FAILED:
            self._display.line(f"{job} failed: {errors.one_line(result._return_value)}", error=True)
        result.overrides = job.overrides
        results[job.number], worker.job = result, None

    def _replace(self, worker: WorkerProcess, waiting: deque[Job], results: dict[int, JobReturn]) -> None:
        """After its death: its job is started once more or has failed, and another process takes its place."""
        worker.process.join()
        worker.connection.close()
        self._display.end(worker.number)
        job = worker.job
        if job is None:  # idle, as no job is left for it: nothing is lost
            self._workers.remove(worker)
            return
        reason = _death(worker.process.exitcode, job.oom_kills, _oom_kills())
        if job.starts < MAX_STARTS:
            self._display.line(f"{job} lost its process: {reason}; trying once more", error=True)
            waiting.appendleft(job)
        else:
            reason = f"its process ended twice, {reason}"
            self._display.line(f"{job} failed: {reason}", error=True)
            results[job.number] = JobReturn(overrides=job.overrides, status=JobStatus.FAILED)
            results[job.number].return_value = ChildProcessError(reason)
            self._application.lost(pickle.loads(job.pickled), reason)
        self._workers[self._workers.index(worker)] = self._start(worker.number, worker.slot)


@contextlib.contextmanager
def _without_main_module() -> Iterator[None]:
    """spawn runs a script again in each process. One that does not ask for its __name__ would begin a sweep there.

    The task needs no script, as it is pickled with all that it has from there.
    """
    main, sys.modules["__main__"] = sys.modules["__main__"], ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _death(exitcode: int | None, oom_kills_before: int | None, oom_kills: int | None) -> str:
    if exitcode is None or exitcode >= 0:
        return f"exit code {exitcode}"
    name = signal.Signals(-exitcode).name
    if name != "SIGKILL":
        return name
    if oom_kills_before is None or oom_kills is None:
        return "SIGKILL, perhaps out of memory"
    return "SIGKILL, as the machine is out of memory" if oom_kills > oom_kills_before else "SIGKILL"


def _oom_kills() -> int | None:
    """How many processes the system has killed for want of memory since it started; None where it does not say."""
    try:
        kills = re.search(rb"^oom_kill (\d+)$", Path("/proc/vmstat").read_bytes(), re.MULTILINE)
    except OSError:
        return None
    return int(kills[1]) if kills else None


# the worker's side


def _work(connection: Connection, slot: Slot, details: bool) -> None:
    """Takes jobs from the connection until the parent ends this process, or itself. `details`: tells each epoch."""
    streams.prepare(work_goes_on=True)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole terminal group; the parent decides
    threading.Thread(target=_die_with_parent, daemon=True).start()
    # A daemon may have no processes of its own, such as those of a DataLoader, and cannot say so by public means.
    multiprocessing.current_process()._config["daemon"] = False  # type: ignore[attr-defined]
    # Before PyTorch is imported: the cores, the number of threads and the GPU that it will find.
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, slot.cores)
    os.environ["OMP_NUM_THREADS"] = str(slot.threads)
    if slot.gpu not in (None, "mps"):
        os.environ["CUDA_VISIBLE_DEVICES"] = str(slot.gpu)
    progress.send_to(connection.send, details)
    connection.send(("ready", None))
    context, task, singletons = connection.recv()
    Singleton.set_state(singletons)  # with the configurations and resolvers that the application has registered
    setup_globals()
    while True:
        try:
            config = connection.recv()
        except EOFError:  # the parent is gone
            return
        result = jobs.run(config, task, context)
        connection.send(("result", _sendable(result)))


def _sendable(result: JobReturn) -> bytes:
    """The result, pickled. A text replaces a value or an exception that cannot be pickled."""
    has_failed = result.status == JobStatus.FAILED
    if has_failed and not errors.is_users(result._return_value):  # its traceback stays here
        result._return_value.add_note("".join(traceback.format_exception(result._return_value)))
    try:
        pickled = pickling.dumps(result)
        pickle.loads(pickled)
    except Exception as error:
        reason = f"what the task returned cannot be sent to the launcher: {errors.one_line(error)}"
        result.return_value = errors.plain(result._return_value) if has_failed else ValueError(reason)
        result.status = JobStatus.FAILED
        pickled = pickling.dumps(result)
    return pickled


def _die_with_parent() -> None:
    """At once: a write to its connection would end in a traceback."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


@cache
def end_with_launcher() -> None:
    """Ends this process with the one that started it, which another launcher's workers would outlive.

    Not under submitit, whose jobs are meant to outlive it.
    """
    if "SUBMITIT_EXECUTOR" in os.environ:
        return
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
