"""The studies.json of a sweep of several searches to tables and claims. Knows runs and statistics, not how it is shown.

Two questions are kept apart. Of the configurations that were chosen, the seeds say which is better. Of the depths, that
is not enough: another search would have chosen others. In simulated studies without any effect of depth, of 16 trials
and 5 seeds, the seeds alone found one in a quarter to two thirds of them (tests/test_depth_science.py). So a claim on
depth counts the search's own error, too: how far the best of its trials would move if as many were drawn again.
"""

import contextlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

from cifarsweep.report.search_results import Trial, finite, known, trial_of
from cifarsweep.report.statistics import (
    Comparison,
    compare,
    degrees,
    error_of_highest,
    mean_interval,
    t_quantile,
    within_0_and_1,
)
from cifarsweep.results import files, folders, records
from cifarsweep.results.study_records import EARLY, FinalRunRecord, StudiesRecord, StudyWithFinalRuns
from cifarsweep.terminal.domains import as_typed

NUM_BEST = 5
LEAST_TRIALS = 4
"""With fewer trials, complete or pruned, nobody can tell how far the best is luck; nor with one complete trial."""
MATCH = "model.match"
WHATS = {"params": "parameters", "multiply_adds": "multiply-adds"}
FILES = ("depth_study.csv", "depth_study_runs.csv", "depth_study_pairs.csv", "depth_study_trials.csv")


@dataclass(frozen=True, kw_only=True)
class FinalRun(FinalRunRecord):
    result: Mapping[str, Any]
    """result.json; empty where it could not be read."""

    @property
    def test_accuracy(self) -> float | None:
        return finite(self.result.get("test_accuracy")) if self.state == "complete" else None


@dataclass(frozen=True, kw_only=True)
class Searched(StudyWithFinalRuns):
    """One study: a search, and the final runs of its best configurations."""

    comparison: str
    """What is equal in the studies that it is compared with."""
    trials: list[Trial]  # type: ignore[assignment]
    final_runs: list[FinalRun]  # type: ignore[assignment]
    about: Mapping[str, Any]
    """Any of its results, for model, depth, width, params and flops; empty where it has none."""

    @property
    def label(self) -> str:
        return str(self.about.get("model") or ", ".join(f"{key}={as_typed(v)}" for key, v in self.values.items()))

    @property
    def finalist(self) -> int | None:
        """The trial that stands for the study: the best in validation of its final runs, else of the search."""

        def mean_validation(finalist: int) -> float:
            values = known(run.result.get("val_accuracy") for run in self.final_runs if run.finalist == finalist)
            return fmean(values) if values else -1.0

        return max(self.finalists, key=mean_validation, default=None)

    @property
    def runs(self) -> list[FinalRun]:
        """The final runs of the finalist that stands for it, by seed, those with a test accuracy."""
        mine = [run for run in self.final_runs if run.finalist == self.finalist and run.test_accuracy is not None]
        return sorted(mine, key=lambda run: run.seed)

    @property
    def by_seed(self) -> dict[int, float]:
        return {run.seed: run.test_accuracy for run in self.runs if run.test_accuracy is not None}

    @property
    def interval(self) -> tuple[float, float, float, float]:
        """Mean test accuracy, standard deviation and the ends of the 95 % interval over the seeds, from 0 to 1."""
        mean, deviation, low, high = mean_interval(list(self.by_seed.values()))
        return mean, deviation, *within_0_and_1(low, high)

    @property
    def interval_with_search(self) -> tuple[float, float]:
        """The ends of the 95 % interval with the search's own error, too; NaN where either error is unknown."""
        n, (mean, deviation, *_) = len(self.by_seed), self.interval
        error = math.hypot(deviation / math.sqrt(n) if n else math.nan, self.search_error)
        half = error if math.isnan(error) else t_quantile(degrees(n, self.search_error)) * error
        return within_0_and_1(mean - half, mean + half)

    def mean_of(self, key: str) -> float | None:
        """The mean of a figure over its `runs`."""
        values = known(run.result.get(key) for run in self.runs)
        return fmean(values) if values else None

    @property
    def multiply_adds(self) -> int | None:
        """Of one image; two operations each."""
        flops = self.about.get("flops")
        return None if flops is None else flops // 2

    @property
    def chosen(self) -> Trial | None:
        return next((trial for trial in self.trials if trial.number == self.finalist), None)

    @property
    def promised(self) -> float | None:
        """The validation accuracy that the search found for the configuration that was chosen."""
        return self.chosen.values[0] if self.chosen else None

    @property
    def ranked(self) -> list[tuple[float, Trial]]:
        """The complete trials with their validation accuracy, best first."""
        complete = [trial for trial in self.trials if trial.state == "complete"]
        of_trials = [(trial.values[0], trial) for trial in complete if trial.values[0] is not None]
        return sorted(of_trials, key=lambda pair: -pair[0])

    @property
    def best(self) -> list[float]:
        """Validation accuracies of the best NUM_BEST complete trials, or of as many as there are, best first."""
        return [value for value, _ in self.ranked[:NUM_BEST]]

    @property
    def num_ended(self) -> int:
        """How many of its trials have ended."""
        return sum(trial.state in ("complete", "infeasible", *EARLY, "failed") for trial in self.trials)

    @property
    def num_epochs(self) -> int:
        """How many all its trials trained, which a budget that was changed on the way does not say."""
        return sum(trial.num_epochs for trial in self.trials)

    @property
    def search_error(self) -> float:
        """How far the best trial may be chance. One stopped early counts as the worst complete one: what it had
        then is no accuracy of a whole training."""
        complete = [value for value, _ in self.ranked]
        num_early = sum(trial.state in EARLY for trial in self.trials)
        if len(complete) < 2 or len(complete) + num_early < LEAST_TRIALS:
            return math.nan
        return error_of_highest([*complete, *([complete[-1]] * num_early)])

    def gaps(self) -> list[float]:
        """For each final run: what the search promised of its configuration, less the test accuracy."""
        promised = self.promised
        return [] if promised is None else [promised - accuracy for accuracy in self.by_seed.values()]


@dataclass(frozen=True, kw_only=True)
class DepthStudy(StudiesRecord):
    max_epochs: int
    studies: list[Searched]  # type: ignore[assignment]
    unreadable: list[str]

    @property
    def settings(self) -> list[str]:
        """The keys that any study searched."""
        return list(dict.fromkeys(key for study in self.studies for key in study.params))

    @property
    def compares_depths(self) -> bool:
        """Whether there are searches of several depths that are equal in all else."""
        groups = self.comparisons.values()
        return any(len({searched.about.get("depth") for searched in group} - {None}) > 1 for group in groups)

    @property
    def answers(self) -> bool:
        """Whether it says how accuracy goes with depth. A graph of the models over all runs would say it again, of
        whichever width was best, and with the trial that was chosen as one more seed."""
        return self.compares_depths and any(searched.by_seed for searched in self.studies)

    @property
    def comparisons(self) -> dict[str, list[Searched]]:
        """Studies by what is equal in them, each in order of depth."""
        groups: dict[str, list[Searched]] = {}
        for searched in self.studies:
            groups.setdefault(searched.comparison, []).append(searched)
        return {key: sorted(group, key=lambda each: each.about.get("depth") or 0) for key, group in groups.items()}


@dataclass(frozen=True)
class Pair:
    """Two neighbouring depths."""

    comparison: str
    configurations: Comparison
    """Of the two configurations that were chosen: paired over the seeds."""
    depths: Comparison
    """Of the depths: with the error of both searches."""


def pairs(study: DepthStudy) -> list[Pair]:
    """Each depth with the next one, corrected within each comparison, which is a question of its own."""
    of_all = []
    for name, group in study.comparisons.items():
        values = {str(at): searched.by_seed for at, searched in enumerate(group)}  # as labels may be equal
        errors = {str(at): searched.search_error for at, searched in enumerate(group)}
        neighbours = list(pairwise(values))
        tested = zip(compare(values, neighbours), compare(values, neighbours, errors), strict=True)
        for (first, second), comparisons in zip(pairwise(group), tested, strict=True):
            named = (replace(each, first=first.label, second=second.label) for each in comparisons)
            of_all.append(Pair(name, *named))
    return of_all


# reading


def read(sweep_dir: Path) -> DepthStudy | None:
    """What studies.json and the results of its runs say, or None where there is none. ValueError names the file."""
    record = StudiesRecord.read(sweep_dir)
    if record is None:
        return None
    if record.max_epochs is None:
        raise ValueError(f"{sweep_dir / 'studies.json'}: expected the searches of trials that train for max_epochs")
    results, unreadable = {}, []
    places: dict[str, Path] = {}
    with contextlib.suppress(OSError, ValueError):  # of which the tables tell
        places = folders.runs_of(sweep_dir)
    for name in dict.fromkeys(run for study in record.studies for run in _run_names(study)):
        try:
            result = records.RunResult.read(places.get(name) or folders.run_of(sweep_dir, name))
        except (OSError, ValueError) as error:
            unreadable.append(" ".join(str(error).split()))
            continue
        if result is not None:
            results[name] = result.as_dict()
    studies = [_searched(study, results, len(record.objectives)) for study in record.studies]
    return DepthStudy(**vars(record) | {"studies": studies}, unreadable=unreadable)


def _searched(record: StudyWithFinalRuns, results: Mapping[str, Mapping[str, Any]], num_objectives: int) -> Searched:
    final_runs = []
    for run in record.final_runs:
        name = None if run.run is None else Path(run.run).name
        final_runs.append(FinalRun(**vars(run) | {"run": name}, result=results.get(name or "", {})))
    trials = [trial_of(trial, num_objectives) for trial in record.trials]
    own = vars(record) | {"trials": trials, "final_runs": final_runs}
    study = Searched(**own, comparison=_comparison(record.values), about={})
    of_finalist = [*(run.run or "" for run in study.runs), Path((study.chosen and study.chosen.run) or "").name]
    about = next((results[name] for name in (*of_finalist, *_run_names(record)) if name in results), {})
    return replace(study, about=about)


def _run_names(record: StudyWithFinalRuns) -> list[str]:
    """The folders of its runs: first the final ones."""
    runs = [*(run.run for run in record.final_runs), *(name for trial in record.trials for name in trial.run_names)]
    return [Path(run).name for run in runs if run]


def _comparison(values: Mapping[str, Any]) -> str:
    """equal width, equal parameters (170,000), equal multiply-adds (4,000,000); whatever else is equal, or nothing."""
    others = {key: value for key, value in values.items() if key not in ("model", "model.depth")}
    parts = []
    if MATCH in others:
        kind, _, number = str(others.pop(MATCH) or "").partition(":")
        parts.append(f"equal {WHATS.get(kind, kind)} ({int(number):,})" if number.isdigit() else "equal width")
    return ", ".join([*parts, *(f"{key} {as_typed(value)}" for key, value in others.items())])


# writing


def write(study: DepthStudy, folder: Path) -> None:
    """depth_study.csv, a row a comparison and depth, and beside it its final runs, its pairs and its trials."""
    of_depths = [_row(study, searched) for group in study.comparisons.values() for searched in group]
    of_runs = [
        {
            **_named(searched),
            "trial": run.finalist,
            "seed": run.seed,
            "state": run.state,
            "stands_for_depth": run.finalist == searched.finalist,
            **{key: run.result.get(key) for key in ("val_accuracy", "test_accuracy", "train_seconds")},
            "run": run.run,
        }
        for searched in study.studies
        for run in searched.final_runs
    ]
    of_trials = [
        {
            **_named(searched),
            "number": trial.number,
            "state": trial.state,
            "value": trial.values[0],
            "epochs": trial.num_epochs,
            **{key: _text(trial.params.get(key)) for key in study.settings},
            "run": " ".join(trial.run_names),
        }
        for searched in study.studies
        for trial in searched.trials
    ]
    tables = (of_depths, of_runs, [_pair_row(pair) for pair in pairs(study)], of_trials)
    for name, rows in zip(FILES, tables, strict=True):
        cells = ([None if cell != cell else cell for cell in row.values()] for row in rows)  # NaN equals nothing
        files.write_csv(folder / name, list(rows[0]) if rows else [], cells)


def _named(searched: Searched) -> dict[str, Any]:
    return {
        "comparison": searched.comparison,
        **{key: searched.about.get(key) for key in ("model", "depth", "width", "params")},
        "multiply_adds": searched.multiply_adds,
    }


def _row(study: DepthStudy, searched: Searched) -> dict[str, Any]:
    mean, deviation, low, high = searched.interval
    gap, _, gap_low, gap_high = mean_interval(searched.gaps())
    best, params = searched.best, searched.chosen.params if searched.chosen else {}
    return {
        **_named(searched),
        "n": len(searched.by_seed),
        "test_accuracy_mean": mean,
        "test_accuracy_std": deviation,
        "test_accuracy_low": low,
        "test_accuracy_high": high,
        "val_accuracy_mean": searched.mean_of("val_accuracy"),
        "search_val_accuracy": searched.promised,
        "gap_mean": gap,
        "gap_low": gap_low,
        "gap_high": gap_high,
        "search_error": searched.search_error,
        "best_five_mean": fmean(best) if len(best) == NUM_BEST else None,
        "best_five_range": best[0] - best[-1] if len(best) == NUM_BEST else None,
        "trials": searched.num_ended,
        "complete_trials": sum(trial.state == "complete" for trial in searched.trials),
        "trial_epochs": searched.num_epochs,
        "train_seconds_mean": searched.mean_of("train_seconds"),
        "final_on": study.final_on,
        "trial": searched.finalist,
        **{key: _text(params.get(key)) for key in study.settings},
    }


def _pair_row(pair: Pair) -> dict[str, Any]:
    return {
        "comparison": pair.comparison,
        **vars(pair.configurations),
        "verdict_of_configurations": pair.configurations.verdict,
        **{f"depth_{key}": getattr(pair.depths, key) for key in ("low", "high", "p", "p_corrected")},
        "verdict_of_depths": pair.depths.verdict,
    }


def _text(value: Any) -> str | None:
    return None if value is None else as_typed(value)
