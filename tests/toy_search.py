"""One search of toy.py, which several commands work on, for tests and benchmarks that kill some of it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import optuna

ROOT = Path(__file__).resolve().parent.parent
TOY = [str(ROOT / "tests" / "toy.py"), "-m", "data=shapes", "name=x"]
SEARCH = ["search=quick", "hydra/sweeper/pruner=none"]
PATIENCE_SECONDS = 240
"""For what takes up to 30 s on an idle machine."""


class Event(NamedTuple):
    what: str
    """start or end of a trial."""
    trial: int
    process: int
    at: float
    """By time.monotonic(), which all processes of this machine share."""


class Search:
    """`words` are the command's in all terminals, `seconds` what an epoch takes. With `is_grid` it is no search."""

    def __init__(
        self,
        folder: Path,
        *words: str,
        seconds: float,
        epochs: int = 2,
        storage: str | None = None,
        is_grid: bool = False,
    ) -> None:
        self.folder, self._seconds, self._storage = folder, seconds, storage
        kept = [] if storage is None else [f"hydra.sweeper.storage={storage}"]
        self._words = [
            f"outputs={folder}/outputs",
            f"trainer.epochs={epochs}",
            *([] if is_grid else SEARCH),
            *kept,
            *words,
        ]
        self._outputs: dict[int, Path] = {}

    def begin(self, *words: str, prefix: Sequence[str] = (), **environment: str) -> subprocess.Popen[bytes]:
        """The command, with further words; `prefix` is a command that runs it elsewhere."""
        toy = {"TOY_LOG": f"{self.folder}/log", "TOY_SECONDS": f"{self._seconds}"}
        if "hydra/launcher=ray" in words:  # whose workers have the environment of their raylet
            env_vars = ",".join(f"{key}:'{value}'" for key, value in toy.items())
            words = (*words, f"+hydra.launcher.ray.init.runtime_env.env_vars={{{env_vars}}}")
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
        output = self.folder / f"output{len(self._outputs)}"
        with output.open("wb") as file:
            process = subprocess.Popen(
                [*prefix, sys.executable, *TOY, *self._words, *words],
                cwd=self.folder,
                env={**inherited, "PYTHONPATH": str(ROOT), **toy, **environment},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
            )
        self._outputs[process.pid] = output
        return process

    def output(self, process: subprocess.Popen[bytes]) -> str:
        return self._outputs[process.pid].read_text()

    def finish(self, process: subprocess.Popen[bytes], patience: float = PATIENCE_SECONDS) -> str:
        """What the command has printed, once it has ended well."""
        try:
            code = process.wait(patience)
        except subprocess.TimeoutExpired:
            raise AssertionError(self.output(process)) from None
        assert code == 0, self.output(process)
        return self.output(process)

    @property
    def events(self) -> list[Event]:
        log = self.folder / "log"
        words = [line.split() for line in log.read_text().splitlines()] if log.exists() else []
        return [Event(what, int(trial), int(process), float(at)) for what, trial, process, at in words]

    @property
    def started(self) -> list[int]:
        """The numbers of the trials that were started, in order; a number twice for one that was started twice."""
        return sorted(event.trial for event in self.events if event.what == "start")

    def wait_for(self, is_so: Callable[[list[Event]], bool], *running: subprocess.Popen[bytes]) -> None:
        """Until it is so, while these commands run."""
        until = time.monotonic() + PATIENCE_SECONDS
        while not is_so(self.events):
            for process in running:
                assert process.poll() is None, self.output(process)
            assert time.monotonic() < until, [self.output(process) for process in running]
            time.sleep(0.05)

    def wait_for_further(self, num_trials: int, *running: subprocess.Popen[bytes]) -> None:
        """Until so many trials more than now have ended."""
        goal = self.num_ends + num_trials
        self.wait_for(lambda events: self.num_ends >= goal, *running)

    @property
    def num_ends(self) -> int:
        return sum(event.what == "end" for event in self.events)

    def workers(self, of: subprocess.Popen[bytes]) -> list[int]:
        """The processes that have worked on a trial of this command, and still run."""
        return [process for process in descendants(of.pid) if process in self.alive]

    @property
    def alive(self) -> set[int]:
        """The processes that have worked on a trial, and still run."""
        return {event.process for event in self.events if Path(f"/proc/{event.process}/cmdline").exists()}

    def kill_within_a_trial(self, *running: subprocess.Popen[bytes]) -> None:
        """Kills the process that has started a trial last. It is stopped first, as its trial may be about to end."""

        def has_killed(events: list[Event]) -> bool:
            victim = next(event.process for event in reversed(events) if event.what == "start")
            os.kill(victim, signal.SIGSTOP)
            is_within = [event.what for event in self.events if event.process == victim][-1] == "start"
            os.kill(victim, signal.SIGKILL if is_within else signal.SIGCONT)
            return is_within

        self.wait_for(has_killed, *running)

    @property
    def trials(self) -> list[optuna.trial.FrozenTrial]:
        """As another program reads them."""
        from cifarsweep.sweeper import storage

        address = self._storage or str(self.folder / "outputs/sweeps/x/study.journal")
        return optuna.load_study(study_name="x", storage=storage.open_storage(address)).trials


def kill(process: int) -> None:
    os.kill(process, signal.SIGKILL)


def descendants(process: int) -> list[int]:
    """Its children, and theirs."""
    children: list[int] = []
    with contextlib.suppress(OSError):  # it has just ended
        for path in Path(f"/proc/{process}/task").glob("*/children"):
            children += map(int, path.read_text().split())
    return [*children, *(further for child in children for further in descendants(child))]
