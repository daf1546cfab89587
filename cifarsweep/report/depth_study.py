"""The studies.json of a sweep of several searches to tables and claims. Knows runs and statistics, not how it is shown.

Two questions are kept apart. Of the configurations that were chosen, the seeds say which is better. Of the depths, that
is not enough: another search would have chosen others. In simulated studies without any effect of depth, of 16 trials
and 5 seeds, the seeds alone found one in a quarter to two thirds of them (tests/test_depth_science.py). So a claim on
depth counts the search's own error, too: how far the best of its trials would move if as many were drawn again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from cifarsweep.report.search_results import Trial, as_text, finite, trial_of
from cifarsweep.report.statistics import Comparison, compare, error_of_highest, half_interval
from cifarsweep.results import files, records
from cifarsweep.results.study_records import FinalRunRecord, StudiesRecord, StudyWithFinalRuns

NUM_BEST = 5
LEAST_TRIALS = 4
"""From which on it can be told how far the best of them may be chance."""
MATCH = "model.match"
WHATS = {"params": "parameters", "multiply_adds": "multiply-adds"}


@dataclass(frozen=True)
class FinalRun:
    finalist: int
    seed: int
    state: str
    run: str | None
    result: Mapping[str, Any]
    """result.json; empty where it could not be read."""

    @property
    def test_accuracy(self) -> float | None:
        return finite(self.result.get("test_accuracy")) if self.state == "complete" else None


@dataclass(frozen=True)
class Searched:
    """One study: a search, and the final runs of its best configurations."""

    comparison: str
    """What is equal in the studies that it is compared with."""
    values: dict[str, Any]
    trials: list[Trial]
    is_over: bool
    finalists: list[int]
    final_runs: list[FinalRun]
    about: Mapping[str, Any] = field(default_factory=dict)
    """Model, depth, width, params and flops, by any result of it."""

    @property
    def label(self) -> str:
        return str(self.about.get("model") or ", ".join(f"{key}={as_text(v)}" for key, v in self.values.items()))

    @property
    def finalist(self) -> int | None:
        """The one that stands for the study: of the final runs by validation accuracy, else of the search."""
        return max(self.finalists, key=self._mean_validation, default=None)

    def _mean_validation(self, finalist: int) -> tuple[float, int]:
        found = [finite(run.result.get("val_accuracy")) for run in self.final_runs if run.finalist == finalist]
        known = [value for value in found if value is not None]
        return (fmean(known) if known else -1.0, -self.finalists.index(finalist))

    @property
    def runs(self) -> list[FinalRun]:
        """The final runs of the finalist that stands for it, by seed, those with a test accuracy."""
        mine = [run for run in self.final_runs if run.finalist == self.finalist and run.test_accuracy is not None]
        return sorted(mine, key=lambda run: run.seed)

    @property
    def by_seed(self) -> dict[int, float]:
        return {run.seed: run.test_accuracy for run in self.runs if run.test_accuracy is not None}

    @property
    def chosen(self) -> Trial | None:
        return next((trial for trial in self.trials if trial.number == self.finalist), None)

    @property
    def best(self) -> list[float]:
        """Validation accuracies of the best NUM_BEST complete trials, or of as many as there are, best first."""
        found = [trial.values[0] for trial in self.trials if trial.state == "complete"]
        return sorted((value for value in found if value is not None), reverse=True)[:NUM_BEST]

    @property
    def search_error(self) -> float:
        """How far the best trial may be chance. A pruned trial counts as the worst complete one: what it had when it
        was stopped is no accuracy of a whole training."""
        found = [trial.values[0] for trial in self.trials if trial.state == "complete"]
        complete = [value for value in found if value is not None]
        num_pruned = sum(trial.state == "pruned" for trial in self.trials)
        if not complete or len(complete) + num_pruned < LEAST_TRIALS:
            return math.nan
        return error_of_highest([*complete, *([min(complete)] * num_pruned)])

    def gaps(self) -> list[float]:
        """Of each final run: what the search promised of its configuration, less the test accuracy."""
        promised = self.chosen.values[0] if self.chosen else None
        return [] if promised is None else [promised - accuracy for accuracy in self.by_seed.values()]


@dataclass(frozen=True)
class DepthStudy:
    budget: str
    max_epochs: int
    seeds: list[int]
    final_on: str
    settings: list[str]
    """Keys that each study searched."""
    studies: list[Searched]
    unreadable: list[str]

    @property
    def compares_depths(self) -> bool:
        """Whether anything but the depth is equal in searches of several depths."""
        depths = [{one.about.get("depth") for one in group} - {None} for group in self.comparisons.values()]
        return any(len(found) > 1 for found in depths)

    @property
    def comparisons(self) -> dict[str, list[Searched]]:
        """Studies by what is equal in them, each in order of depth."""
        found: dict[str, list[Searched]] = {}
        for study in self.studies:
            found.setdefault(study.comparison, []).append(study)
        return {key: sorted(group, key=lambda one: one.about.get("depth") or 0) for key, group in found.items()}


@dataclass(frozen=True)
class Pair:
    """Two neighbouring depths."""

    comparison: str
    first: Searched
    second: Searched
    chosen: Comparison
    """Of the two configurations that were chosen: paired over the seeds."""
    depths: Comparison
    """Of the depths: with the error of both searches."""


def pairs(study: DepthStudy) -> list[Pair]:
    """Each depth with the next one, corrected within each comparison, which is a question of its own."""
    found = []
    for name, group in study.comparisons.items():
        of_label = {str(at): one for at, one in enumerate(group)}
        values = {at: one.by_seed for at, one in of_label.items()}
        neighbours = list(pairwise(of_label))
        errors = {at: one.search_error for at, one in of_label.items()}
        tested = zip(compare(values, neighbours), compare(values, neighbours, errors), strict=True)
        for (first, second), (chosen, depths) in zip(neighbours, tested, strict=True):
            found.append(Pair(name, of_label[first], of_label[second], chosen, depths))
    return found


# reading


def read(sweep_dir: Path) -> DepthStudy | None:
    """What studies.json and the results of its runs say, or None where there is none. ValueError names the file."""
    record = StudiesRecord.read(sweep_dir)
    if record is None:
        return None
    if record.max_epochs is None:
        raise ValueError(f"{sweep_dir / 'studies.json'}: expected the searches of trials that train for max_epochs")
    results, unreadable = _results(record, sweep_dir.absolute().parent.parent / "runs")
    return DepthStudy(
        budget=record.budget,
        max_epochs=record.max_epochs,
        seeds=record.seeds,
        final_on=record.final_on,
        settings=list(dict.fromkeys(key for study in record.studies for key in study.params)),
        studies=[_searched(study, results, len(record.objectives)) for study in record.studies],
        unreadable=unreadable,
    )


def _results(record: StudiesRecord, runs_dir: Path) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """The result of each run that the record names, and a line for each that cannot be read."""
    named = [run for study in record.studies for run in _run_names(study)]
    results, unreadable = {}, []
    for name in dict.fromkeys(named):
        try:
            result = records.RunResult.read(runs_dir / name)
        except (OSError, ValueError) as error:
            unreadable.append(" ".join(str(error).split()))
            continue
        if result is not None:
            results[name] = result.as_dict()
    return results, unreadable


def _searched(record: StudyWithFinalRuns, results: Mapping[str, Mapping[str, Any]], num_objectives: int) -> Searched:
    study = Searched(
        comparison=_comparison(record.values),
        values=record.values,
        trials=[trial_of(trial, num_objectives) for trial in record.trials],
        is_over=bool(record.is_over),
        finalists=record.finalists,
        final_runs=[_final_run(run, results) for run in record.final_runs],
    )
    of_finalist = [*(run.run or "" for run in study.runs), Path((study.chosen and study.chosen.run) or "").name]
    about = next((results[name] for name in (*of_finalist, *_run_names(record)) if name in results), {})
    return replace(study, about={key: about.get(key) for key in ("data", "model", "depth", "width", "params", "flops")})


def _run_names(record: StudyWithFinalRuns) -> list[str]:
    """The folders of its runs: first the final ones."""
    runs = [*(run.run for run in record.final_runs), *(trial.run for trial in record.trials)]
    return [Path(run).name for run in runs if run]


def _final_run(record: FinalRunRecord, results: Mapping[str, Mapping[str, Any]]) -> FinalRun:
    run = None if record.run is None else Path(record.run).name
    return FinalRun(record.finalist, record.seed, record.state, run, results.get(run or "", {}))


def _comparison(values: Mapping[str, Any]) -> str:
    """equal width, equal parameters (170,000), equal multiply-adds (4,000,000); whatever else is equal, or nothing."""
    others = {key: value for key, value in values.items() if key not in ("model", "model.depth")}
    parts = []
    if MATCH in others:
        kind, _, number = str(others.pop(MATCH) or "").partition(":")
        parts.append(f"equal {WHATS.get(kind, kind)} ({int(number):,})" if number.isdigit() else "equal width")
    return ", ".join([*parts, *(f"{key} {as_text(value)}" for key, value in others.items())])


# writing


def write(study: DepthStudy, folder: Path) -> None:
    """depth_study.csv, a row a comparison and depth, and beside it its final runs, its pairs and its trials."""
    for name, rows in (
        ("depth_study", [_row(study, one) for group in study.comparisons.values() for one in group]),
        ("depth_study_runs", [_run_row(one, run) for one in study.studies for run in one.final_runs]),
        ("depth_study_pairs", [_pair_row(pair) for pair in pairs(study)]),
        ("depth_study_trials", [_trial_row(study, one, trial) for one in study.studies for trial in one.trials]),
    ):
        columns = list(rows[0]) if rows else []
        files.write_csv(folder / f"{name}.csv", columns, (row.values() for row in rows))


FILES = ("depth_study.csv", "depth_study_runs.csv", "depth_study_pairs.csv", "depth_study_trials.csv")


def _named(one: Searched) -> dict[str, Any]:
    flops = one.about.get("flops")
    return {
        "comparison": one.comparison,
        **{key: one.about.get(key) for key in ("model", "depth", "width", "params")},
        "multiply_adds": None if flops is None else flops // 2,
    }


def interval(values: Sequence[float]) -> tuple[float | None, float | None, float | None, float | None]:
    """Mean, standard deviation and the ends of the 95 % interval, as far as there are values enough."""
    if not values:
        return None, None, None, None
    mean = fmean(values)
    if len(values) < 2:
        return mean, None, None, None
    deviation = stdev(values)
    half = half_interval(deviation, len(values))
    return mean, deviation, mean - half, mean + half


def _row(study: DepthStudy, one: Searched) -> dict[str, Any]:
    mean, deviation, low, high = interval(list(one.by_seed.values()))
    gap, _, gap_low, gap_high = interval(one.gaps())
    states = [trial.state for trial in one.trials]
    validation = interval(_known(run.result.get("val_accuracy") for run in one.runs))[0]
    return {
        **_named(one),
        "n": len(one.by_seed),
        "test_accuracy_mean": mean,
        "test_accuracy_std": deviation,
        "test_accuracy_low": low,
        "test_accuracy_high": high,
        "val_accuracy_mean": validation,
        "search_val_accuracy": one.chosen.values[0] if one.chosen else None,
        "gap_mean": gap,
        "gap_low": gap_low,
        "gap_high": gap_high,
        "search_error": None if math.isnan(one.search_error) else one.search_error,
        "best_five_mean": fmean(one.best) if len(one.best) == NUM_BEST else None,
        "best_five_range": one.best[0] - one.best[-1] if len(one.best) == NUM_BEST else None,
        "trials": sum(state in ("complete", "pruned", "failed") for state in states),
        "complete_trials": states.count("complete"),
        "trial_epochs": sum(trial.num_epochs for trial in one.trials),
        "train_seconds_mean": interval(_known(run.result.get("train_seconds") for run in one.runs))[0],
        "final_on": study.final_on,
        "trial": one.finalist,
        **{key: _text(one.chosen.params.get(key)) if one.chosen else None for key in study.settings},
    }


def _known(values: Iterator[Any]) -> list[float]:
    return [value for value in map(finite, values) if value is not None]


def _run_row(one: Searched, run: FinalRun) -> dict[str, Any]:
    return {
        **_named(one),
        "trial": run.finalist,
        "seed": run.seed,
        "state": run.state,
        "stands_for_depth": run.finalist == one.finalist,
        **{key: run.result.get(key) for key in ("val_accuracy", "test_accuracy", "train_seconds")},
        "run": run.run,
    }


def _pair_row(pair: Pair) -> dict[str, Any]:
    chosen, depths = ({key: _finite(value) for key, value in vars(one).items()} for one in (pair.chosen, pair.depths))
    return {
        "comparison": pair.comparison,
        "first": pair.first.label,
        "second": pair.second.label,
        **{key: chosen[key] for key in ("n", "difference", "low", "high", "effect_size", "p", "p_corrected")},
        "verdict_of_configurations": pair.chosen.verdict,
        **{f"depth_{key}": depths[key] for key in ("low", "high", "p", "p_corrected")},
        "verdict_of_depths": pair.depths.verdict,
    }


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


def _trial_row(study: DepthStudy, one: Searched, trial: Trial) -> dict[str, Any]:
    return {
        **_named(one),
        "number": trial.number,
        "state": trial.state,
        "value": trial.values[0],
        "epochs": trial.num_epochs,
        **{key: _text(trial.params.get(key)) for key in study.settings},
        "run": trial.run,
    }


def _text(value: Any) -> Any:
    return None if value is None else as_text(value)
