"""Two sweeps against each other: what changed, which runs agree in everything else, and what these say.

Knows tables and statistics; no files, sentences or figures.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from cifarsweep.report.findings import Best, best_configurations
from cifarsweep.report.statistics import Comparison, compare, compare_unpaired
from cifarsweep.report.tables import SETTINGS, Tables

MOST_VARIANTS = 12
"""Values that only one sweep has are compared one by one up to here. More are a search, of which the best counts."""
NOTHING = "null"
"""Stands for a key that a configuration does not have, too: that is what its constructor takes it for."""
_GROUPS = ("model", "optimizer", "schedule", "loss")
_MEASURED = {"accuracy": "test_accuracy", "seconds": "train_seconds"}


@dataclass(frozen=True)
class Change:
    """A key whose values differ between the sweeps, or something else in which their runs were made differently."""

    key: str
    first: list[str]
    second: list[str]
    follows: bool = False
    """Whether it comes with another change, as the momentum does with the optimizer."""


@dataclass(frozen=True)
class Row:
    """Some runs of the first sweep against some of the second one; differences are second minus first."""

    variant: str
    """Such as lr 0.1 → 0.05, where one of the sweeps has several values; empty where each has one."""
    setting: str
    """The values that both have; empty where these are all pairs."""
    accuracy: Comparison
    seconds: Comparison
    means: dict[str, tuple[float, float]]
    """Of accuracy and seconds, in both sweeps."""


@dataclass(frozen=True)
class SweepComparison:
    changes: list[Change]
    made_with: list[Change]
    """Versions, commits and machines that differ."""
    pairs: pd.DataFrame
    """A row a pair of runs: variant, setting, seed, and of both sweeps run_id, test_accuracy and train_seconds."""
    whole: list[Row]
    """All pairs, a row a variant."""
    settings: list[Row]
    """The pairs of each setting; empty where there is only one."""
    unpaired: Row | None
    """Where nothing pairs: the best configurations."""
    bests: tuple[Best, Best] | None
    """Those of `unpaired`."""
    num_alone: tuple[int, int]
    """How many complete runs are in one sweep only, and in no pair."""
    num_shared: int
    """How many runs both sweeps have: the same run says nothing of a change."""


def compare_sweeps(first: Tables, second: Tables) -> SweepComparison:
    """Both tables have been read with constants. ValueError says why the two cannot be compared."""
    settings = sorted({*first.settings, *second.settings})
    keys = ["model", "depth", *SETTINGS, *settings]
    sides = [_runs(tables, keys) for tables in (first, second)]
    if not {*sides[0]["images"]} & {*sides[1]["images"]}:
        named = [", ".join(sorted({*tables.complete["data"]})) for tables in (first, second)]
        raise ValueError(f"trained on other images ({named[0]}; {named[1]}): expected the same data set")
    values = {key: [sorted(side[key].unique()) for side in sides] for key in keys}
    matched = [key for key, (one, other) in values.items() if len(one) > 1 and len(other) > 1]
    free = [key for key, (one, other) in values.items() if one != other and key not in matched]
    constant = [key for key in free if len(values[key][0]) == len(values[key][1]) == 1]
    free = [key for key in free if key in constant or not all(_follows(side, key, matched) for side in sides)]
    deciding = [_deciding(side, free) for side in sides]
    pairs = _pairs(sides, matched, deciding)
    pairs = pairs[pairs["directory_first"] != pairs["directory_second"]]
    shared = {*sides[0]["directory"]} & {*sides[1]["directory"]}
    too_many = pairs["variant"].nunique() > MOST_VARIANTS
    whole = [] if too_many else _rows(pairs, ["variant"])
    by_setting = [] if too_many or pairs["setting"].nunique() < 2 else _rows(pairs, ["variant", "setting"])
    bests = None if whole else _bests(first, second, sides)
    return SweepComparison(
        changes=[_change(key, values, deciding) for key in free],
        made_with=_made_with(first, second),
        pairs=pairs.iloc[:0] if too_many else pairs,
        whole=whole,
        settings=by_setting,
        unpaired=_unpaired(*bests) if bests else None,
        bests=bests,
        num_alone=(
            len({*sides[0]["directory"]} - {*pairs["directory_first"]} - shared),
            len({*sides[1]["directory"]} - {*pairs["directory_second"]} - shared),
        ),
        num_shared=len(shared),
    )


# what changed


def _runs(tables: Tables, keys: Sequence[str]) -> pd.DataFrame:
    """The complete runs with these keys as texts, so that 0.1 and 1e-1, 1 and 1.0 are the same."""
    runs = tables.complete
    texts = {key: runs[key].map(_text) if key in runs else NOTHING for key in keys}
    images = runs["data_fingerprint"].fillna(runs["data"])
    directories = [str(tables.directories[id].resolve()) for id in runs["run_id"]]
    kept = runs[["data", "seed", "run_id", "test_accuracy", "train_seconds"]]
    return kept.assign(images=images, directory=directories, **texts)


def _text(value: Any) -> str:
    if isinstance(value, bool | np.bool_):
        return str(value).lower()
    if value is None or pd.isna(value):
        return NOTHING
    return f"{value:.12g}" if isinstance(value, int | float | np.integer | np.floating) else str(value)


def _follows(side: pd.DataFrame, key: str, others: Sequence[str]) -> bool:
    """Whether these other keys say which value the key has."""
    return side[key].nunique() == 1 or (bool(others) and bool(side.groupby([*others])[key].nunique().max() == 1))


def _deciding(side: pd.DataFrame, keys: Sequence[str]) -> list[str]:
    """Those that vary in the sweep and do not follow from the ones before them."""
    deciding: list[str] = []
    for key in keys:
        if not _follows(side, key, deciding):
            deciding.append(key)
    return deciding


def _change(key: str, values: dict[str, list[list[str]]], deciding: Sequence[Sequence[str]]) -> Change:
    first, second = values[key]
    if len(first) > 1 or len(second) > 1:
        follows = not any(key in of_side for of_side in deciding)
    else:
        group = "model" if key == "depth" else key.partition(".")[0]
        has_other_choice = group != key and group in _GROUPS and values[group][0] != values[group][1]
        follows = has_other_choice and (key == "depth" or NOTHING in (*first, *second))
    return Change(key, first, second, follows)


def _made_with(first: Tables, second: Tables) -> list[Change]:
    sides = [_makers(tables) for tables in (first, second)]
    values = {key: [sorted(side.get(key, ())) for side in sides] for key in dict.fromkeys([*sides[0], *sides[1]])}
    return [Change(key, one, other) for key, (one, other) in values.items() if one != other]


def _makers(tables: Tables) -> dict[str, set[str]]:
    """What the complete runs were made with: libraries, commit, machine."""
    found: dict[str, set[str]] = {}
    complete = {*tables.complete["run_id"]}
    for id, made_by in zip(tables.directories, tables.provenance, strict=True):
        if id not in complete:
            continue
        versions = made_by.get("versions")
        known = dict(versions) if isinstance(versions, dict) else {}
        commit = str(made_by.get("git_commit") or "")[:12]
        known["commit"] = commit + " with changes" * bool(commit and made_by.get("git_dirty"))
        known |= {"processor": made_by.get("cpu"), "cores": made_by.get("cores")}
        for key, value in known.items():
            if value:
                found.setdefault(str(key), set()).add(str(value))
    for key in ("device", "threads"):
        found[key] = {_text(value) for value in tables.complete[key]} - {NOTHING}
    return found


# pairs


def _pairs(sides: Sequence[pd.DataFrame], matched: Sequence[str], deciding: Sequence[Sequence[str]]) -> pd.DataFrame:
    """Runs of both sweeps on the same images with the same seed that agree in the `matched` keys."""
    on, varied = ["images", *matched, "seed"], list(dict.fromkeys([*deciding[0], *deciding[1]]))
    several_data = len({*sides[0]["images"]} | {*sides[1]["images"]}) > 1
    in_name = [*(["data"] if several_data else []), *_deciding(pd.concat(sides), matched)]
    of_a_run = [*on, *varied, "run_id", "directory", "test_accuracy", "train_seconds"]
    first = sides[0][of_a_run].assign(setting=_named(sides[0], in_name))
    pairs = first.merge(sides[1][of_a_run], on=on, suffixes=("_first", "_second"))
    both = [[pairs[f"{key}_{side}"].map(_short) for side in ("first", "second")] for key in varied]
    variant = pd.Series("", pairs.index, dtype=object)
    for key, (before, after) in zip(varied, both, strict=True):
        variant += (key + " " + before + " → " + after + ", ").where(before != after, key + " " + before + ", ")
    return pairs.assign(variant=variant.str.removesuffix(", "))


def _named(side: pd.DataFrame, keys: Sequence[str]) -> "pd.Series[Any]":
    """model=layers2 lr=0.1, for each run."""
    texts = pd.Series("", side.index, dtype=object)
    for key in keys:
        texts += key + "=" + side[key].map(_short) + " "
    return texts.str.strip()


def _short(text: str) -> str:
    """A number of as many digits as a run's name has."""
    try:
        return f"{float(text):g}"
    except ValueError:
        return text


def _rows(pairs: pd.DataFrame, by: list[str]) -> list[Row]:
    """A row a group, in the order of the pairs; the p-values are corrected for the number of rows."""
    groups = [group for _, group in pairs.groupby(by, sort=False)]
    compared = {}
    for what, column in _MEASURED.items():
        values: dict[str, dict[int, float]] = {}
        for at, group in enumerate(groups):
            for side in ("first", "second"):
                known = group[group[[f"{column}_first", f"{column}_second"]].notna().all(axis=1)]
                values[f"{at} {side}"] = dict(enumerate(known[f"{column}_{side}"]))
        compared[what] = compare(values, [(f"{at} first", f"{at} second") for at in range(len(groups))])
    return [
        Row(
            variant=str(group["variant"].iloc[0]),
            setting=str(group["setting"].iloc[0]) if "setting" in by else "",
            accuracy=compared["accuracy"][at],
            seconds=compared["seconds"][at],
            means={
                what: (float(group[f"{column}_first"].mean()), float(group[f"{column}_second"].mean()))
                for what, column in _MEASURED.items()
            },
        )
        for at, group in enumerate(groups)
    ]


# where nothing pairs


def _bests(first: Tables, second: Tables, sides: Sequence[pd.DataFrame]) -> tuple[Best, Best]:
    """The best configurations on the data set that both have and of which the first has most runs."""
    images, places = (
        [dict(zip(side["run_id"], side[column], strict=True)) for side in sides] for column in ("images", "directory")
    )
    others = {images[1][best.runs["run_id"].iloc[0]]: best for best in best_configurations(second)}
    for best in best_configurations(first):
        other = others.get(images[0][best.runs["run_id"].iloc[0]])
        if other is None:
            continue
        if {places[0][id] for id in best.runs["run_id"]} & {places[1][id] for id in other.runs["run_id"]}:
            raise ValueError("have the same best runs, and no other two that agree in all but what changed")
        return best, other
    raise AssertionError("they have a data set in common")


def _unpaired(first: Best, second: Best) -> Row:
    samples = {
        what: [best.runs[column].dropna().tolist() for best in (first, second)] for what, column in _MEASURED.items()
    }
    return Row(
        variant="",
        setting="",
        accuracy=compare_unpaired(*samples["accuracy"]),
        seconds=compare_unpaired(*samples["seconds"]),
        means={what: (float(np.mean(one)), float(np.mean(other))) for what, (one, other) in samples.items()},
    )
