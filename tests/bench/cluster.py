"""How many workers one storage serves: what each trial's bookkeeping keeps all others waiting for, and a model of it.

    python tests/bench/cluster.py [--workers 1 8 64 512] [--steps 8] [--check 64] [--json FILE] [--small]

One process plays all workers, which do nothing but the bookkeeping. Each has a trial that runs, and reports a step of
it, by a connection of its own; then the next worker does. So each finds as much news as it would among so many workers,
and their number of cores is not needed. `exclusive ms` is how long a trial holds the study's lock in all (the
journal's, or the study's row in PostgreSQL), `bookkeeping ms` what its bookkeeping takes altogether.

The model: a worker computes for a while without the storage, does its bookkeeping, and waits in line for the exclusive
part of it. Both parts grow with the number of workers as measured (a straight line through the two nearest numbers).
The waiting comes from mean value analysis of a closed queue (Reiser and Lavenberg, 1980). `trials/s at most` is where
the storage is never idle. From `95 % busy from s` on, the seconds of a trial, workers compute for 95 % of their time.
`--check` lets so many real processes sleep instead of computing, and compares what they reach with the model.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bench
import numpy as np
import optuna
from optuna.trial import TrialState
from storage import plan

from cifarsweep.results.locks import Lock
from cifarsweep.sweeper import storage
from cifarsweep.sweeper.database import Database
from cifarsweep.sweeper.heartbeat import Heartbeat
from cifarsweep.sweeper.queue import Outcome
from cifarsweep.sweeper.studies import Studies, StudyPlan
from cifarsweep.sweeper.worker import _Handle

sys.path.append(str(bench.REPOSITORY / "tests"))
import postgresql

MANY = 1000
BUSY = 0.95


class Stopwatch:
    """Adds up how long this process holds a lock of a study, the heartbeats' aside."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._depth, self._began = 0, 0.0

    def begin(self) -> None:
        if self._depth == 0:
            self._began = time.perf_counter()
        self._depth += 1

    def end(self) -> None:
        self._depth -= 1
        if self._depth == 0:
            self.seconds += time.perf_counter() - self._began

    def attach(self) -> None:
        acquire, release, hold, once = Lock.acquire, Lock.release, Database._hold, Database._once

        def acquired(lock: Lock, timeout: float | None = None) -> bool:
            is_held = acquire(lock, timeout)
            if is_held and not isinstance(lock, Heartbeat):
                self.begin()
            return is_held

        def released(lock: Lock) -> None:
            release(lock)
            if not isinstance(lock, Heartbeat):
                self.end()

        def held(server: Database, study_id: int | None) -> None:
            is_new = study_id is not None and study_id not in server._held
            hold(server, study_id)
            if is_new:
                self.begin()

        def taken(server: Database, step: Callable[[], Any], study_id: int | None) -> Any:
            depth = self._depth
            try:
                return once(server, step, study_id)
            finally:
                while self._depth > depth:
                    self.end()

        Lock.acquire, Lock.release, Database._hold, Database._once = acquired, released, held, taken  # type: ignore[method-assign]


class Worker:
    """One that computes nothing."""

    def __init__(self, mine: StudyPlan) -> None:
        self._studies = Studies((mine,))
        self._heartbeat = Heartbeat(mine.folder / ".study" / "workers", mine.settings.grace_period)
        self._heartbeat.acquire()
        self._storage = self._studies.searches[0].queue._storage
        self._pass_time()

    def claim(self) -> None:
        claimed = self._studies.claim(self._heartbeat.id)
        assert claimed is not None
        self._study, self._trial = claimed
        self._handle = _Handle(self._trial, self._study, None, {})
        self._pass_time()

    def report(self, step: int) -> None:
        self._handle.report(step, self._trial.params["lr"])
        self._pass_time()

    def finish(self) -> None:
        """What follows at once is the next claim."""
        outcome = Outcome(TrialState.COMPLETE, [self._trial.params["lr"]])
        assert self._study.queue.finish(self._trial, self._heartbeat.id, outcome)

    def _pass_time(self) -> None:
        """Until its connection is closed, as it is where steps take longer than two seconds."""
        if isinstance(self._storage, Database):
            self._storage._optuna.engine.dispose()

    def leave(self) -> None:
        self._heartbeat.release()


@contextlib.contextmanager
def study(address: str | None, n_trials: int) -> Iterator[StudyPlan]:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        mine = plan(address or f"{folder}/study.journal", Path(folder), n_trials)
        with storage.reaching(mine.address, patience=60):
            optuna.create_study(study_name=mine.name, storage=storage.open_storage(mine.address))
            Studies((mine,)).searches[0].queue.top_up(n_trials)
            yield mine


@dataclass(frozen=True)
class Cost:
    """Of a trial's bookkeeping among so many workers, in seconds; `exclusive` is a part of `whole`."""

    workers: int
    exclusive: float
    whole: float


def measure(address: str | None, num_workers: int, num_steps: int, num_rounds: int) -> Cost:
    stopwatch = Stopwatch()
    with study(address, num_workers * (num_rounds + 2)) as mine:
        workers = [Worker(mine) for _ in range(num_workers)]

        def play(*, first: bool) -> None:
            for worker in workers:
                if not first:
                    worker.finish()
                worker.claim()
            for step in range(1, num_steps + 1):
                for worker in workers:
                    worker.report(step)

        play(first=True)
        stopwatch.attach()
        stopwatch.seconds = 0.0
        began = time.perf_counter()
        for _ in range(num_rounds):
            play(first=False)
        seconds, trials = time.perf_counter() - began, num_workers * num_rounds
        for worker in workers:
            worker.leave()
    return Cost(num_workers, stopwatch.seconds / trials, seconds / trials)


def in_a_process(call: Callable[..., Any], *arguments: Any) -> Any:
    """So that what one measurement leaves in memory does not slow the next."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as one:
        return one.submit(call, *arguments).result()


# the model


@dataclass(frozen=True)
class Model:
    costs: tuple[Cost, ...]

    def cost(self, workers: int) -> Cost:
        """Between two measured numbers, or beyond the last two, on a straight line."""
        if len(self.costs) == 1:
            return Cost(workers, self.costs[0].exclusive, self.costs[0].whole)
        after = next((i for i, cost in enumerate(self.costs) if i and cost.workers >= workers), len(self.costs) - 1)
        low, high = self.costs[after - 1], self.costs[after]
        part = (workers - low.workers) / (high.workers - low.workers)
        more = [max(0.0, part * (b - a)) for a, b in ((low.exclusive, high.exclusive), (low.whole, high.whole))]
        return Cost(workers, low.exclusive + more[0], low.whole + more[1])

    def busy(self, workers: int, trial_seconds: float) -> float:
        """The part of their time that workers compute, by mean value analysis."""
        cost = self.cost(workers)
        alone = trial_seconds + cost.whole - cost.exclusive
        in_line, rate = 0.0, 0.0
        for number in range(1, workers + 1):
            waits = cost.exclusive * (1 + in_line)
            rate = number / (alone + waits)
            in_line = rate * waits
        return rate * trial_seconds / workers

    def shortest_trial(self, workers: int) -> float:
        """The seconds of a trial from which on workers are busy for 95 % of their time."""
        low, high = 0.0, 1e6
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (low, middle) if self.busy(workers, middle) >= BUSY else (middle, high)
        return high


# the check


def work(mine: StudyPlan, seconds: float, num_steps: int, until: float, ready: Any, ended: Any) -> None:
    with storage.reaching(mine.address, patience=60):
        worker, computed = Worker(mine), 0.0
        worker.claim()
        worker.finish()  # the first time a worker reads all there is, and a server plans its statements
        ready.wait()
        time.sleep(np.random.default_rng().uniform(0, seconds))  # they do not all begin at once
        began = time.monotonic()
        while time.monotonic() - began < until:
            worker.claim()
            for step in range(1, num_steps + 1):
                time.sleep(seconds / num_steps)
                worker.report(step)
            worker.finish()
            computed += seconds
        ended.put((computed, time.monotonic() - began))
        worker.leave()


def check(address: str | None, num_workers: int, num_steps: int, seconds: float) -> float:
    """The part of their time that so many processes sleep, which stands for computing."""
    context = multiprocessing.get_context("fork")
    ready, ended = context.Barrier(num_workers), context.Queue()
    with study(address, 100_000) as mine:
        arguments = mine, seconds, num_steps, 5 * seconds, ready, ended
        processes = [context.Process(target=work, args=arguments) for _ in range(num_workers)]
        for process in processes:
            process.start()
        computed, lasted = np.sum([ended.get() for _ in processes], axis=0)
        for process in processes:
            process.join()
    return float(computed / lasted)


def of_storage(kind: str, address: str | None, arguments: argparse.Namespace) -> Iterator[bench.Row]:
    costs = []
    for number in arguments.workers:
        cost = in_a_process(measure, address, number, arguments.steps, max(1, arguments.trials // number))
        costs.append(cost)
        model = Model((cost,))
        yield {
            "storage": kind, "workers": number, "exclusive ms": 1000 * cost.exclusive,
            "bookkeeping ms": 1000 * cost.whole, "trials/s at most": 1 / cost.exclusive,
            "95 % busy from s": model.shortest_trial(number),
        }  # fmt: skip
    model = Model(tuple(costs))
    cost = model.cost(MANY)
    yield {
        "storage": kind, "workers": f"{MANY} by the model", "exclusive ms": 1000 * cost.exclusive,
        "bookkeeping ms": 1000 * cost.whole, "trials/s at most": 1 / cost.exclusive,
        "95 % busy from s": model.shortest_trial(MANY),
    }  # fmt: skip
    if number := arguments.check:
        # A quarter of the machine's time: these workers wait for its cores, too, those of a cluster do not. With half
        # of it, 64 workers of PostgreSQL are busy for 90 % where the model says 98.
        seconds = max(1.0, 4 * number * model.cost(number).whole / len(bench.cores()))
        yield {
            "storage": kind, "workers": f"{number} processes", "trial s": seconds,
            "busy": in_a_process(check, address, number, arguments.steps, seconds),
            "busy by the model": model.busy(number, seconds),
        }  # fmt: skip


def rows(arguments: argparse.Namespace) -> Iterator[bench.Row]:
    yield from of_storage("journal", None, arguments)
    try:
        with postgresql.running() as server:
            yield from of_storage("postgresql", server.address, arguments)
    except postgresql.Missing as missing:
        print(missing, file=sys.stderr)


def main() -> None:
    parser = bench.parser(__doc__)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 8, 64, 512])
    parser.add_argument("--steps", type=int, default=8, help="that a trial reports")
    parser.add_argument("--trials", type=int, default=200, help="measured for each number of workers, at least")
    parser.add_argument("--check", type=int, default=64, metavar="WORKERS", help="0: leave it out")
    arguments = parser.parse_args()
    if arguments.small:
        arguments.workers, arguments.steps, arguments.trials, arguments.check = [1, 4], 2, 8, 2
    bench.table(rows(arguments), arguments)


if __name__ == "__main__":
    main()
