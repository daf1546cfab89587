"""Runs to tables: a row a run, a row a configuration with its statistics. Knows nothing of figures or terminals."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from pandas.api.typing import SeriesGroupBy

from cifarsweep.report.statistics import half_interval
from cifarsweep.results import files, folders, identity, records, sweeps

NAMES = ("runs", "summary", "epochs")
"""Of the files that `write` makes."""
SETTINGS = ["optimizer", "lr", "batch_size", "schedule", "loss", "epochs"]
"""Those that have a column of their own, whether the runs differ in them or not."""
DECIDING = ["optimizer", "schedule", "loss", "label"]
"""Columns that decide about other settings, as the optimizer does about its momentum."""
CONFIGURATION = ["data", "model", "depth", "params", *SETTINGS]
MEASURED = ("test_accuracy", "val_accuracy")

_COLUMNS = [*records.COLUMNS, "config_id", "epochs_trained", "diverged_epoch", "error"]
_COLUMNS += ["num_train", "num_val", "num_test", "device", "threads", "started", "finished"]
_COLUMNS += ["directory", "data_fingerprint"]
_ORDER = ["data", "depth", *CONFIGURATION, "config_id", "seed", "run_id"]

_REQUIRED = ("run_id", "data", "model", "optimizer", "schedule", "loss", "config_id")
_TYPES = {field.name: field.type for field in fields(records.RunResult)}
_INTEGERS = [key for key in _COLUMNS if _TYPES.get(key) in (int, int | None)]
_NUMBERS = [key for key in _COLUMNS if _TYPES.get(key) in (float, float | None)]

_GROUPS = ("data", "model", "optimizer", "schedule", "loss", "trainer")
_SHOWN_BY_A_COLUMN = {"data.name", "model.depth", "optimizer.lr", "trainer.epochs"}
_NO_INFLUENCE = {f"{group}.{key}" for group, keys in identity.DOES_NOT_DETERMINE.items() for key in keys}


@dataclass(frozen=True)
class Tables:
    runs: pd.DataFrame
    """A row a run: COLUMNS of records, further columns, the settings that vary, and `label`, the model in figures."""
    summary: pd.DataFrame
    """A row a configuration: its settings, `n` complete of `n_runs`, statistics; `chosen` to stand for its model."""
    curves: pd.DataFrame
    """A row an epoch of a run: run_id and records.METRICS, NaN where nothing finite was measured."""
    unreadable: list[str]
    """A line a run whose files cannot be read: where, and why."""
    jobs_without_run: list[str]
    """The reasons why jobs of a sweep ended before they had a run."""
    directories: dict[str, Path]
    """Where each run is, by its run_id."""
    provenance: list[dict[str, Any]]
    """Of each run: with which versions it was made, and on which machine."""

    @property
    def complete(self) -> pd.DataFrame:
        """The runs that are complete."""
        return self.runs[self.runs["status"] == "complete"]

    @property
    def num_runs(self) -> int:
        """All runs that there are or should be, those that cannot be read and jobs without a run included."""
        return len(self.runs) + len(self.unreadable) + len(self.jobs_without_run)

    @property
    def settings(self) -> list[str]:
        """Keys of config.yaml in which the runs differ and that have no column of their own, as model.dropout."""
        return [column for column in self.runs.columns if "." in column]

    def written(self) -> dict[str, pd.DataFrame]:
        """What stands in the files of these NAMES, with their columns and their order of rows."""
        place = {id: place for place, id in enumerate(self.runs["run_id"])}
        order = self.curves["run_id"].map(place).argsort(kind="stable")
        epochs = self.curves.assign(epoch=self.curves["epoch"].astype("Int64")).iloc[order]
        tables = (table.drop(columns="label") for table in (self.runs, self.summary))
        return dict(zip(NAMES, (*tables, epochs.reset_index(drop=True)), strict=True))


# reading


def read(run_dirs: Iterable[Path], jobs_without_run: list[str], with_constants: bool = False) -> Tables:
    """The tables of these runs; a run that stands in two places counts once.

    `with_constants`, they also have the settings that are the same in all runs.
    """
    runs: dict[str, _Run] = {}
    unreadable = []
    for run_dir in dict.fromkeys(run_dirs):
        try:
            run = _read_run(run_dir)
        except (OSError, ValueError) as error:
            reason = _one_line(error)
            unreadable.append(reason if str(run_dir) in reason else f"{run_dir}: {reason}")
            continue
        id = run.row["run_id"]
        if id not in runs or runs[id].row["status"] != "complete":
            runs[id] = run
    table = _runs_table([run.row for run in runs.values()], with_constants)
    epochs = [{"run_id": id, **vars(epoch)} for id, run in runs.items() for epoch in run.curve]
    curves = pd.DataFrame(epochs, columns=["run_id", *records.METRICS]).astype(dict.fromkeys(records.METRICS, float))
    finite = curves.replace([np.inf, -np.inf], np.nan)
    directories = {id: run.directory for id, run in runs.items()}
    made_by = [run.provenance for run in runs.values()]
    return Tables(table, summarize(table), finite, unreadable, jobs_without_run, directories, made_by)


def jobs_without_run(path: Path) -> list[str]:
    """Why jobs of a sweep have no run to show; nothing where `path` is no sweep."""
    if not (path / "sweep.json").exists():
        return []
    sweep, places = sweeps.SweepRecord.read(path), folders.runs_of(path)
    jobs = sweep.jobs.values()
    lost = [job for job in jobs if not job.run or (job.error and not places[Path(job.run).name].is_dir())]
    num_left = 0 if sweeps.is_running(path) else (sweep.commands[-1].num_jobs or 0) - len(jobs)
    return [
        *(_one_line(job.error or "unknown reason") for job in lost),
        *(_one_line(f"missing, expected {place}") for place in folders.missing_runs(path)),
        *["not begun"] * max(num_left, 0),
    ]


class _Run(NamedTuple):
    row: dict[str, Any]
    curve: list[records.Epoch]
    directory: Path
    provenance: dict[str, Any]


def _read_run(run_dir: Path) -> _Run:
    result = records.RunResult.read_or_unfinished(run_dir)
    result.check(run_dir, "config.yaml", "metrics.csv")
    curve = records.read_metrics(run_dir)
    name = run_dir.name.encode("utf-8", "backslashreplace").decode()  # a name may hold any bytes, a CSV cannot
    values = {**vars(result), "directory": name}
    if values["epochs_trained"] is None:  # unfinished
        values["epochs_trained"] = len(curve)
    row = {key: values[key] for key in _COLUMNS}
    for key in _REQUIRED:
        if row[key] is None:
            raise ValueError(f"{key}=None: expected text")
    accuracy = row["test_accuracy"]
    if row["status"] == "complete" and (accuracy is None or not 0 <= accuracy <= 1):
        raise ValueError(f"test_accuracy={accuracy}: expected 0 to 1, as status=complete")
    return _Run({**row, **_settings(run_dir)}, curve, run_dir, result.provenance or {})


def _settings(run_dir: Path) -> dict[str, Any]:
    """The groups of config.yaml as flat keys, as `optimizer.weight_decay`."""
    # `run` is the last key, and is known already: without it, reading takes a third of the time.
    config = files.read_yaml(run_dir / "config.yaml", before="run:")
    if not isinstance(config, Mapping):
        raise files.Corrupt(run_dir / "config.yaml", "not the configuration of a run")
    groups = {group: config[group] for group in _GROUPS if isinstance(config.get(group), Mapping)}
    flat = {f"{group}.{key}": value for group, values in groups.items() for key, value in values.items()}
    return {
        key: str(value) if isinstance(value, list | Mapping) else value
        for key, value in flat.items()
        if "._" not in key and key not in _SHOWN_BY_A_COLUMN | _NO_INFLUENCE
    }


def _one_line(error: object) -> str:
    return " ".join(str(error).encode("utf-8", "backslashreplace").decode().split())


def _runs_table(rows: list[dict[str, Any]], with_constants: bool) -> pd.DataFrame:
    settings = sorted({key for row in rows for key in row} - set(_COLUMNS))
    varying = [key for key in settings if with_constants or len({repr(row.get(key)) for row in rows}) > 1]
    kinds = dict.fromkeys(_INTEGERS, "Int64") | dict.fromkeys(_NUMBERS, float) | dict.fromkeys(varying, object)
    table = pd.DataFrame(rows, columns=[*_COLUMNS, *varying]).astype(kinds)
    # Different images may go by one name. With the beginning of their fingerprint in it they never mix.
    fingerprints = table["data_fingerprint"].astype(object)
    are_several = fingerprints.groupby(table["data"]).transform("nunique") > 1
    names = [
        f"{name} {fingerprint[:6]}" if several and isinstance(fingerprint, str) else name
        for name, fingerprint, several in zip(table["data"], fingerprints, are_several, strict=True)
    ]
    table["data"] = pd.Series(names, table.index, dtype=table["data"].dtype)
    table = table.sort_values(list(dict.fromkeys(_ORDER)), na_position="last", ignore_index=True)
    # A model is called with its depth where `model.depth` was swept under one name.
    num_depths = table.groupby("model")["depth"].transform(lambda depth: depth.nunique(dropna=False))
    with_depth = table["model"] + ", depth " + table["depth"].astype(str)
    return table.assign(label=table["model"].where(num_depths == 1, with_depth))


# statistics


def summarize(table: pd.DataFrame) -> pd.DataFrame:
    """A row a configuration, in the order of the runs: mean, standard deviation (n - 1), 95 % interval over seeds."""
    settings = [column for column in table.columns if "." in column]
    by_configuration = table.groupby("config_id", sort=False)
    summary = by_configuration[[*CONFIGURATION, *settings, "label"]].first()
    complete = table[table["status"] == "complete"].groupby("config_id")
    summary["n"] = complete.size().reindex(summary.index, fill_value=0)
    summary["n_runs"] = by_configuration.size()
    for name in MEASURED:
        of_seeds = intervals(complete[name], most=1.0)[["mean", "std", "low", "high"]]
        summary = summary.join(of_seeds.add_prefix(f"{name}_"))
    summary["train_seconds_mean"] = complete["train_seconds"].mean()
    summary["chosen"] = _chosen(summary)
    return summary.reset_index()


def intervals(groups: "SeriesGroupBy[Any, Any]", most: float) -> pd.DataFrame:
    """Mean, standard deviation, number and 95 % interval of the accuracies of each group, up to `most`.

    NaN where there are too few. An interval is cut where it would reach below 0 or above `most`.
    """
    table = groups.agg(["mean", "std", "count"])
    half = [half_interval(*pair) for pair in zip(table["std"], table["count"], strict=True)]
    return table.assign(low=(table["mean"] - half).clip(lower=0.0), high=(table["mean"] + half).clip(upper=most))


def _chosen(summary: pd.DataFrame) -> "pd.Series[bool]":
    """One configuration for each data set and model: the only one, or the best by mean validation accuracy.

    Compared are those with at least half as many complete runs as the most repeated one: a search tries dozens of
    configurations once, and the luckiest of them would outdo the few that were repeated to find out. Without
    validation accuracy none is chosen, as the test set must not choose.
    """
    is_chosen = pd.Series(False, index=summary.index)
    for _, group in summary[summary["n"] > 0].groupby(["data", "label"]):
        known = group[group["val_accuracy_mean"].notna()]
        validation = known.loc[known["n"] >= known["n"].max() / 2, "val_accuracy_mean"]
        if len(group) == 1:
            is_chosen[group.index[0]] = True
        elif len(validation):
            is_chosen[validation.idxmax()] = True
    return is_chosen


# models


def in_order(table: pd.DataFrame) -> list[str]:
    """Labels of models by depth; then those without a depth, by size."""
    return list(dict.fromkeys(table.sort_values(["depth", "params", "label"], na_position="last")["label"]))


def families(table: pd.DataFrame) -> list[list[str]]:
    """Labels of models that differ in depth only, shallow first: one stem, then digits, with a depth."""
    labels: dict[str, list[str]] = {}
    with_depth = table[table["depth"].notna()]
    model_of = dict(zip(with_depth["label"], with_depth["model"], strict=True))
    for label in in_order(with_depth):
        stem = re.fullmatch(r"(.*?)\d+", model_of[label], re.DOTALL)
        if stem:
            labels.setdefault(stem[1], []).append(label)
    return list(labels.values())


# writing


def write(tables: Tables, folder: Path, parquet: bool = False) -> None:
    """runs, summary and epochs, in their order of rows; as CSV with floats at full precision and empty cells where
    there is no value, as Parquet, where that is asked for, with a column's own type."""
    for name, table in tables.written().items():
        columns = [[None if v is None or v is pd.NA or v != v else v for v in table[key].tolist()] for key in table]
        files.write_csv(folder / f"{name}.csv", map(str, table), zip(*columns, strict=True))
        if parquet:
            mixed = [key for key in table if table[key].map(type).nunique() > 1 and table[key].dtype == object]
            texts = table[mixed].map(lambda value: None if value is None or value != value else str(value))
            with files.atomic(folder / f"{name}.parquet", "wb") as file:
                table.assign(**texts).to_parquet(file, engine="pyarrow", index=False)
