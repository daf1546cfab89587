"""What a person sees while a study runs, under any launcher: a line a finished trial, and a live one for the whole.

A thread of the sweeping process reads the study once a second; workers need not know of it.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections import Counter
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from cifarsweep import progress
from cifarsweep.domains import as_typed
from cifarsweep.study import storage, summary
from cifarsweep.study.tickets import REASON, WARM
from cifarsweep.study.worker import Plan, open_study

POLL_SECONDS = 1.0
WRITE_SECONDS = 5.0
"""At most so often study.json is written, which a report of a running study reads."""


class Watch:
    """Tells of the study from entering the block to leaving it; `seconds` is how long that has been."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._study, _ = open_study(plan)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._poll, daemon=True)
        self._started = time.monotonic()
        self._told = {trial.number for trial in self._trials() if trial.state.is_finished()}
        self._before, self._written = len(self._told), 0.0

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started

    def __enter__(self) -> Watch:
        if self._told:
            progress.line(f"study {self._plan.name}: goes on after {len(self._told)} finished trials")
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._over.set()
        self._thread.join()
        with contextlib.suppress(storage.Lost), storage.reaching(self._plan.address):
            self._tell(last=True)
        progress.display.close()

    def _poll(self) -> None:
        while not self._over.wait(POLL_SECONDS):
            # Where the storage is lost, the workers say so.
            with contextlib.suppress(storage.Lost), storage.reaching(self._plan.address):
                self._tell()

    def _tell(self, last: bool = False) -> None:
        trials = self._trials()
        finished = [trial for trial in trials if trial.state.is_finished()]
        fresh = [trial for trial in finished if trial.number not in self._told]
        best = summary.best_trials(self._plan, trials)
        for trial in sorted(fresh, key=lambda trial: trial.datetime_complete or 0):
            self._told.add(trial.number)
            progress.line(self._line(trial, best))
        total = self._plan.settings.n_trials
        done = min(len(finished), total)
        worked, deadline = len(self._told) - self._before, self._plan.deadline
        most_seconds = math.inf if deadline is None else max(deadline - time.time(), 0.0)
        progress.display.whole(progress.Whole(self._text(trials, best), done, worked, total, most_seconds))
        if last or (fresh and time.monotonic() - self._written > WRITE_SECONDS):
            summary.write(self._plan, self._study)
            self._written = time.monotonic()

    def _trials(self) -> list[FrozenTrial]:
        return [trial for trial in self._study.get_trials(deepcopy=False) if WARM not in trial.user_attrs]

    def _line(self, trial: FrozenTrial, best: list[FrozenTrial]) -> str:
        values = self._plan.space.values(trial.params)
        settings = " ".join(f"{key}={_short(value)}" for key, value in values.items())
        done = f"trial {trial.number} {summary.STATES[trial.state]}"
        if trial.state == TrialState.FAIL:
            return f"{done}: {trial.user_attrs.get(REASON)}  {settings}"
        star = "  best so far" if [trial.number] == [one.number for one in best] else ""
        epochs = len(trial.intermediate_values) or len(trial.user_attrs.get("steps", {}))
        after = f" after epoch {epochs}" if trial.state == TrialState.PRUNED and epochs else ""
        return f"{done}{after}  {summary.figures(self._plan, trial.values)}  {settings}{star}"

    def _text(self, trials: list[FrozenTrial], best: list[FrozenTrial]) -> str:
        counts = Counter(trial.state for trial in trials)
        parts = [f"{counts[state]} {name}" for state, name in summary.STATES.items() if counts[state]]
        if len(best) == 1:
            parts.append(f"best {summary.figures(self._plan, best[0].values)} by trial {best[0].number}")
        return f"{self._plan.name}: {', '.join(parts)}"


def _short(value: Any) -> str:
    """Four digits: the exact values are in trials.csv."""
    return f"{value:.4g}" if isinstance(value, float) else as_typed(value)
