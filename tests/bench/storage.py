"""What a trial's bookkeeping costs, by storage: processes that claim, suggest, report steps and finish, and do no more.

    python tests/bench/storage.py [--trials 200] [--waiting 50 1000] [--workers 1 8] [--paused N] [--json FILE]

PostgreSQL is a server of its own with its default settings, fsync among them; without its programs it is left out. The
sampler is random and the pruner is asha. `top_up s` is what it takes to ask for `waiting` trials in all, of which
`trials` are then worked on. With --paused the pruner is promote, and so many trials pause already, all of them worse.
`ms a trial` is of one worker: with 8 workers it is 8 times what passes between the ends of two trials. That no trial
was claimed twice is checked. The target for PostgreSQL is at most 30 ms with one worker and at least 60 trials a second
with 8, on two cores. On a busy machine, `chrt -r 1` before the command puts it first.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import bench
import optuna
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState

from cifarsweep.sweeper import storage
from cifarsweep.sweeper.heartbeat import Heartbeat
from cifarsweep.sweeper.promotion import PAUSED, is_paused
from cifarsweep.sweeper.queue import PAUSE_TIME, WORKER, Outcome
from cifarsweep.sweeper.studies import Studies, StudyPlan
from cifarsweep.sweeper.worker import _Handle

sys.path.append(str(bench.REPOSITORY / "tests"))
import in_memory
import postgresql

NUM_STEPS = 3


def plan(address: str, folder: Path, n_trials: int, pruner: str = "asha") -> StudyPlan:
    space = {"lr": "tag(log, interval(0.001, 1))", "momentum": "interval(0, 1)"}
    keys = {"n_trials": n_trials, "pruner": in_memory.option("pruner", pruner), "direction": "minimize"}
    return in_memory.plan(folder, space, address, **keys)


def work(mine: StudyPlan, num_trials: int, ready: multiprocessing.Barrier, ended: multiprocessing.Queue) -> None:
    with storage.reaching(mine.address), Heartbeat(mine.folder / ".study" / "workers", 120) as me:
        studies = Studies((mine,))
        ready.wait()
        started = time.perf_counter()
        for _ in range(num_trials):
            claimed = studies.claim(me.id)
            assert claimed is not None
            study, trial = claimed
            handle = _Handle(trial, study, None, {})
            for step in range(1, NUM_STEPS + 1):
                if handle.report(step, trial.params["lr"]) and handle.pauses:
                    assert study.queue.pause(trial, me.id, step, lambda other: None)
                    break
            else:
                assert study.queue.finish(trial, me.id, Outcome(TrialState.COMPLETE, [trial.params["lr"]]))
        ended.put(time.perf_counter() - started)


def add_paused(study: optuna.Study, number: int) -> None:
    facts = {PAUSED: 1, PAUSE_TIME: time.time(), WORKER: "another", **{f"fact {i}": i for i in range(3)}}
    for i in range(number):
        params = {"lr": 0.001 + i / number / 2, "momentum": i / number}
        distributions = {"lr": FloatDistribution(0.001, 1, log=True), "momentum": FloatDistribution(0, 1)}
        study.add_trial(
            optuna.trial.create_trial(
                state=TrialState.WAITING,
                params=params,
                distributions=distributions,
                intermediate_values={1: 2.0},
                user_attrs=facts,
            )
        )


def measure(kind: str, address: str, waiting: int, num_workers: int, num_trials: int, paused: int) -> bench.Row:
    with tempfile.TemporaryDirectory() as folder:
        mine = plan(address.format(folder=folder), Path(folder), waiting, "promote" if paused else "asha")
        study = optuna.create_study(study_name=mine.name, storage=storage.open_storage(mine.address))
        add_paused(study, paused)
        studies = Studies((mine,))
        began = time.perf_counter()
        studies.searches[0].queue.top_up(paused + waiting)
        top_up = time.perf_counter() - began
        each = min(num_trials, waiting) // num_workers
        spawn = multiprocessing.get_context("spawn")
        ready, ended = spawn.Barrier(num_workers), spawn.Queue()
        workers = [spawn.Process(target=work, args=(mine, each, ready, ended)) for _ in range(num_workers)]
        for worker in workers:
            worker.start()
        seconds = max(ended.get() for _ in workers)
        for worker in workers:
            worker.join()
        done = [trial for trial in studies.searches[0].trials if trial.state == TrialState.COMPLETE or is_paused(trial)]
        num_all = len(studies.searches[0].trials) if paused else each * num_workers  # a claim may be a promotion
        assert [trial.number for trial in done] == list(range(num_all)), "a trial was lost"
    return {
        "storage": kind, "waiting": waiting, "workers": num_workers, "top_up s": top_up,
        "ms a trial": 1000 * seconds / each, "trials/s": each * num_workers / seconds,
    }  # fmt: skip


def rows(arguments: argparse.Namespace) -> Iterator[bench.Row]:
    cases = list(itertools.product(arguments.waiting, arguments.workers))
    for kind, address in (("journal", "{folder}/study.journal"), ("sqlite", "sqlite:///{folder}/study.db")):
        for case in cases:
            yield measure(kind, address, *case, arguments.trials, arguments.paused)
    try:
        with postgresql.running() as server:
            for case in cases:
                yield measure("postgresql", server.address, *case, arguments.trials, arguments.paused)
    except postgresql.Missing as missing:
        print(missing, file=sys.stderr)


def main() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    parser = bench.parser(__doc__)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--waiting", type=int, nargs="+", default=[50, 1000])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--paused", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.small:
        arguments.trials, arguments.waiting, arguments.workers = 4, [4], [2]
    bench.table(rows(arguments), arguments)


if __name__ == "__main__":
    main()
