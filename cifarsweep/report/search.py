"""The study.json of a search to values and trials.csv. Knows nothing of Optuna, figures or terminals."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cifarsweep.results import files

FORMAT = 1
STATES = ("complete", "pruned", "failed", "running", "waiting")
DIRECTIONS = ("maximize", "minimize")


@dataclass(frozen=True)
class Trial:
    number: int
    state: str
    values: list[float | None]
    """One an objective; of a pruned trial the last that it reported; None where there is nothing finite."""
    params: dict[str, Any]
    """Those that this trial had: a search space may depend on its choices."""
    num_epochs: int
    run: str | None
    reason: str | None
    started: str | None
    finished: str | None


@dataclass(frozen=True)
class Study:
    objectives: list[str]
    directions: list[str]
    params: list[str]
    log: list[str]
    importances: dict[str, float]
    best: list[int]
    """Numbers of the best trial, or of the Pareto set where there are several objectives."""
    trials: list[Trial]
    """In order of their numbers."""

    @property
    def last(self) -> int:
        """The number of the last trial that has begun."""
        return max((trial.number for trial in self.trials if trial.state != "waiting"), default=0)


# reading


def read(sweep_dir: Path) -> Study | None:
    """What study.json holds, or None where no search made this sweep. ValueError names the file and what is wrong."""
    path = sweep_dir / "study.json"
    if not path.exists():
        return None
    found = files.read_json(path)
    try:
        return _study(found)
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        reason = f"no key {error}" if isinstance(error, KeyError) else error
        raise ValueError(f"{path}: expected the record of a search ({reason})") from error


def _study(found: dict[str, Any]) -> Study:
    if found["format"] != FORMAT:
        raise ValueError(f"format={found['format']!r}: expected {FORMAT}")
    objectives, directions = _texts(found, "objectives"), _texts(found, "directions")
    if not objectives or len(directions) != len(objectives) or not set(directions) <= set(DIRECTIONS):
        raise ValueError(f"directions={directions}: expected {' or '.join(DIRECTIONS)} for each of {objectives}")
    importances = {key: finite(value) for key, value in found["importances"].items()}
    return Study(
        objectives=objectives,
        directions=directions,
        params=_texts(found, "params"),
        log=_texts(found, "log"),
        importances={key: value for key, value in importances.items() if value is not None},
        best=[int(best) for best in found["best"]],
        trials=sorted(
            (read_trial(trial, len(objectives)) for trial in found["trials"]), key=lambda trial: trial.number
        ),
    )


def _texts(found: Mapping[str, Any], key: str) -> list[str]:
    values = found[key]
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ValueError(f"{key}={values!r}: expected a list of texts")
    return values


def read_trial(found: Mapping[str, Any], num_objectives: int) -> Trial:
    """A row of the record."""
    if found["state"] not in STATES:
        raise ValueError(f"state={found['state']!r}: expected one of {', '.join(STATES)}")
    return Trial(
        number=int(found["number"]),
        state=found["state"],
        values=_values(found, num_objectives),
        params=dict(found["params"]),
        num_epochs=len(found["epochs"]),
        **{key: _text_or_none(found, key) for key in ("run", "reason", "started", "finished")},
    )


def _values(found: Mapping[str, Any], num_objectives: int) -> list[float | None]:
    values, epochs = found["values"] or [], found["epochs"]
    if found["state"] == "complete" and len(values) != num_objectives:
        raise ValueError(f"values={values!r} of trial {found['number']}: expected {num_objectives}")
    if found["state"] == "pruned" and not values and epochs:
        values = [epochs[max(epochs, key=int)]]
    return [finite(value) for value in [*values, *[None] * num_objectives][:num_objectives]]


def _text_or_none(found: Mapping[str, Any], key: str) -> str | None:
    value = found[key]
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{key}={value!r} of trial {found['number']}: expected text or null")
    return value


def finite(value: Any) -> float | None:
    """The value where it is a number that can be drawn: finite and no bool."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e300:
        return None
    return float(value)


# writing


def write(study: Study, folder: Path) -> None:
    """trials.csv: a row a trial, a column an objective and a searched key; empty cells where there is no value."""
    columns = ["number", "state", *study.objectives, *study.params]
    columns += ["epochs", "run", "reason", "started", "finished"]
    rows = ([_csv_text(cell) for cell in _row(trial, study.params)] for trial in study.trials)
    files.write_csv(folder / "trials.csv", map(_csv_text, columns), rows)


def _row(trial: Trial, params: list[str]) -> list[Any]:
    values = [as_text(trial.params[key]) if key in trial.params else None for key in params]
    ends = [trial.num_epochs, trial.run, trial.reason, trial.started, trial.finished]
    return [trial.number, trial.state, *trial.values, *values, *ends]


def as_text(value: Any) -> str:
    """A parameter's value as a command line has it: adam, 0.05, true, null, [1, 2]."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _csv_text(cell: Any) -> Any:
    """JSON can hold half a surrogate pair, a CSV cannot."""
    return cell.encode("utf-8", "backslashreplace").decode() if isinstance(cell, str) else cell
