"""What a person sees while a study runs: a line for each finished trial, and a live line for the study. Any launcher.

A thread of the sweeping process reads the study once a second; workers need not know of it.
"""

import math
import threading
import time
from collections import Counter
from datetime import datetime
from typing import Self

from optuna.trial import FrozenTrial, TrialState

from cifarsweep.results.study_records import EARLY, STATES
from cifarsweep.sweeper import storage, summary
from cifarsweep.sweeper.application import Application
from cifarsweep.sweeper.promotion import PAUSED, is_paused
from cifarsweep.sweeper.queue import REASON
from cifarsweep.sweeper.studies import FINALIST, SEED, OpenStudy, Studies, StudyPlan, best_trials
from cifarsweep.terminal import progress

POLL_SECONDS = 1.0
WRITE_SECONDS = 5.0
"""study.json is written at most so often. A report of a running study reads it."""


class Monitor:
    """Tells of the study from entering the block to leaving it."""

    def __init__(self, whole: StudyPlan, studies: Studies, application: Application) -> None:
        self._plan, self._studies, self._application = whole, studies, application
        self._over, self._is_away = threading.Event(), False
        self._thread = threading.Thread(target=self._poll, daemon=True)
        self._told = {_settled(study, trial) for study in studies.all for trial in study.settled}
        self._done_before, self._written = self._progress()[0], 0.0

    def __enter__(self) -> Self:
        if self._told:
            noun = "final runs and trials" if self._studies.finals else "trials"
            num_paused = sum(paused_at is not None for *_, paused_at in self._told)
            paused = f" and {num_paused} that pause" if num_paused else ""
            finished = f"{len(self._told) - num_paused} finished {noun}{paused}"
            progress.line(f"study {self._plan.name}: goes on after {finished}")
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._over.set()
        self._thread.join()
        self._try_to_tell(last=True)
        progress.display.close()

    def _poll(self) -> None:
        while not self._over.wait(POLL_SECONDS):
            self._try_to_tell()

    def _try_to_tell(self, last: bool = False) -> None:
        """Says as well that a database server is away, and that it is back. A file that is lost ends the workers."""
        try:
            with storage.reaching(self._plan.address, patience=0):
                self._tell(last)
        except storage.Lost as error:
            if not self._is_away and storage.is_server(self._plan.address):
                wait = f"waiting for at most {self._plan.settings.storage_timeout:g} s (hydra.sweeper.storage_timeout)"
                progress.line(f"{error}; {wait}")
                self._is_away = True
            return
        if self._is_away:
            progress.line("the storage is back")
            self._is_away = False

    def _tell(self, last: bool) -> None:
        fresh = [
            (trial.datetime_complete, study, trial)
            for study in self._studies.all
            for trial in study.settled
            if _settled(study, trial) not in self._told
        ]
        for _, study, trial in sorted(fresh, key=lambda item: item[0] or datetime.max):
            self._told.add(_settled(study, trial))
            progress.line(_line(study, trial, self._application.unit))
        (done, total), deadline = self._progress(), self._plan.deadline
        most_seconds = math.inf if deadline is None else max(deadline - time.time(), 0.0)
        worked = done - self._done_before
        progress.display.whole(progress.Whole(self._text(), done, worked, total, most_seconds))
        if last or (fresh and time.monotonic() - self._written > WRITE_SECONDS):
            summary.write(self._plan, self._studies, self._application)
            self._written = time.monotonic()

    def _progress(self) -> tuple[float, float]:
        parts = [study.progress for study in self._studies.all]
        return sum(done for done, _ in parts), sum(total for _, total in parts)

    def _text(self) -> str:
        counts = Counter(summary.state(trial) for study in self._studies.searches for trial in study.queue.ours())
        parts = [f"{counts[name]} {name}" for name in STATES if counts[name]]
        if self._studies.finals:
            done = sum(len(study.settled) for study in self._studies.finals)
            parts.append(f"{done} of {sum(study.num_wanted for study in self._studies.finals)} final runs")
        studies = self._studies.searches
        best = best_trials(studies[0].plan, studies[0].queue.ours()) if len(studies) == 1 else []
        if len(best) == 1:
            parts.append(f"best {summary.figures(self._plan, best[0].values)} by trial {best[0].number}")
        return f"{self._plan.name}: {', '.join(parts)}"


def _settled(study: OpenStudy, trial: FrozenTrial) -> tuple[str, int, int | None]:
    """Names the end of a trial, or one of its pauses."""
    return study.plan.name, trial.number, trial.user_attrs[PAUSED] if is_paused(trial) else None


def _line(study: OpenStudy, trial: FrozenTrial, unit: str) -> str:
    what = f"trial {trial.number}"
    if study.plan.is_final:
        what = f"run of trial {trial.user_attrs[FINALIST]}, seed {trial.user_attrs[SEED]},"
    state = summary.state(trial)
    done = f"{study.plan.title}{what} {state}"
    settings = " ".join(f"{key}={summary.short(value)}" for key, value in study.values(trial).items())
    if trial.state == TrialState.FAIL:
        return f"{done}: {trial.user_attrs.get(REASON)}  {settings}"
    if state == "infeasible":
        done += f" ({summary.broken(trial)})"
    step = summary.last_step(trial)
    unit = "run" if study.plan.settings.seeds else unit
    after = f" after {unit} {step}" if state in EARLY and step else ""
    best_numbers = [other.number for other in best_trials(study.plan, study.queue.ours())]
    is_best = not study.plan.is_final and best_numbers == [trial.number]
    best = "  best so far" if is_best else ""
    values = [trial.intermediate_values[step]] if is_paused(trial) else trial.values
    return f"{done}{after}  {summary.figures(study.plan, values)}  {settings}{best}"
