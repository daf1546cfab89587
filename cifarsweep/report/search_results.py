"""The study.json of a search to values and trials.csv. Knows nothing of Optuna, figures or terminals."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cifarsweep.results import files
from cifarsweep.results.study_records import EARLY, StudyRecord, TrialRecord
from cifarsweep.terminal.domains import as_typed


@dataclass(frozen=True, kw_only=True)
class Trial(TrialRecord):
    values: list[float | None]
    """One for each objective; of a pruned trial the last that it reported; None where there is nothing finite."""

    @property
    def num_epochs(self) -> int:
        return len(self.epochs) if self.runs is None else sum(run.steps for run in self.runs.values())


@dataclass(frozen=True, kw_only=True)
class Study(StudyRecord):
    importance_intervals: dict[str, Any]
    trials: list[Trial]  # type: ignore[assignment]
    """In order of their numbers."""

    @property
    def last(self) -> int:
        """The number of the last trial that has begun."""
        return max((trial.number for trial in self.trials if trial.state != "waiting"), default=0)

    @property
    def num_reported(self) -> int:
        """How many trials have a value, be it of an early step."""
        return sum(any(value is not None for value in trial.values) for trial in self.trials)

    @property
    def num_complete(self) -> int:
        return sum(trial.state == "complete" for trial in self.trials)


# reading


def read(sweep_dir: Path) -> Study | None:
    """What study.json holds, or None where no search made this sweep. ValueError names the file and what is wrong."""
    record = StudyRecord.read(sweep_dir)
    if record is None:
        return None
    importances = {key: value for key, value in record.importances.items() if finite(value) is not None}
    trials = sorted((trial_of(trial, len(record.objectives)) for trial in record.trials), key=lambda t: t.number)
    intervals = {key: ends for key, ends in (record.importance_intervals or {}).items() if _is_interval(ends)}
    return Study(**vars(record) | {"importances": importances, "importance_intervals": intervals, "trials": trials})


def _is_interval(ends: Any) -> bool:
    return isinstance(ends, list) and len(ends) == 2 and all(finite(end) is not None for end in ends)


def trial_of(record: TrialRecord, num_objectives: int) -> Trial:
    """The trial with a value for each objective; one that was stopped early has the last that it reported."""
    values, epochs = record.values or [], record.epochs
    if record.state in EARLY and not values and epochs:
        values = [epochs[max(epochs, key=int)]]
    padded = [*values, *[None] * num_objectives][:num_objectives]
    return Trial(**vars(record) | {"values": [finite(value) for value in padded]})


def finite(value: Any) -> float | None:
    """The value where it is a number that can be drawn: finite and no bool."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e300:
        return None
    return float(value)


def known(values: Iterable[Any]) -> list[float]:
    """Those of the values that are finite numbers."""
    return [number for number in map(finite, values) if number is not None]


# writing


def write(study: Study, folder: Path) -> None:
    """trials.csv: a row a trial, a column an objective and a searched key; empty cells where there is no value."""
    columns = ["number", "state", *study.objectives, *study.params]
    columns += ["epochs", "run", "reason", "started", "finished"]
    rows = []
    for trial in study.trials:
        params = [as_typed(trial.params[key]) if key in trial.params else None for key in study.params]
        ends = [trial.num_epochs, " ".join(trial.run_names), trial.reason, trial.started, trial.finished]
        rows.append([trial.number, trial.state, *trial.values, *params, *ends])
    files.write_csv(folder / "trials.csv", columns, rows)
