"""What the numbers say, in sentences: the answer, and a line for each figure. Knows tables and studies, no HTML.

A sentence claims a difference only where the statistics do; else it says that there are not enough runs to say.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import pandas as pd

from cifarsweep.report.confusion import Confusion
from cifarsweep.report.depth import families
from cifarsweep.report.effects import ENOUGH, Effect, Effects, Interaction
from cifarsweep.report.pictures import Pictures
from cifarsweep.report.search_results import Study, as_text
from cifarsweep.report.statistics import Comparison, compare
from cifarsweep.report.style import count, in_order, span, thousands
from cifarsweep.report.tables import Tables
from cifarsweep.results.records import Layer
from cifarsweep.terminal.formatting import shortened

NOT_ENOUGH = "not enough runs to say"
NOT_ENOUGH_BEGINNING = "Not enough runs to say"
OVERFITTING = 2.0
"""Points that training accuracy, measured on augmented images before the epoch has ended, may be ahead without it."""
ENDED = ("complete", "pruned", "failed")
TRIALS_PER_KEY = 10
"""Complete trials from which on an estimate of importance is taken for more than a hint; a rule of thumb."""
NUM_PAIRS_SHOWN = 6
"""Pairs of classes of which a run keeps images."""
MOST_MEANS = 6
"""Models up to which a sentence lists the mean of each."""
ALL_PAIRS = 8
"""Models up to which each is compared with each; of more, each with the best one only."""


# the best


@dataclass(frozen=True)
class Best:
    """The best configuration of a data set."""

    data: str
    configuration: Mapping[str, Any]
    runs: pd.DataFrame
    """Its complete runs, the one with the best validation accuracy first."""
    is_optimistic: bool
    """Whether it was chosen by test accuracy, as there was no validation split to choose by."""


def best(tables: Tables) -> list[Best]:
    """One a data set, the data set with the most complete runs first."""
    complete = tables.runs[tables.runs["status"] == "complete"]
    found = []
    for data in complete["data"].value_counts().index:
        rows = tables.summary[(tables.summary["data"] == data) & (tables.summary["n"] > 0)]
        rows = rows[rows["chosen"]] if rows["chosen"].any() else rows
        by_test = rows["val_accuracy_mean"].isna().all()
        row = _highest(rows, "test_accuracy_mean" if by_test else "val_accuracy_mean")
        its = complete[complete["config_id"] == row["config_id"]].sort_values(
            ["val_accuracy", "seed"], ascending=[False, True], kind="stable"
        )
        found.append(Best(str(data), row, its, bool(by_test and len(rows) > 1)))
    return found


def best_sentence(found: Best) -> str:
    row, n = found.configuration, int(found.configuration["n"])
    validation = accuracy(row, "val_accuracy")
    parts = [f"{label(row)} on {name(found.data)}: {accuracy(row, 'test_accuracy')} test accuracy"]
    parts += [f"{validation} validation accuracy"] if validation else []
    sentence = ", ".join(parts) + f", {count(n, 'seed')}."
    if found.is_optimistic:
        return (
            f"{sentence} There was no validation split, so it was chosen by the test set: its accuracy is optimistic."
        )
    if not validation:
        return f"{sentence} There was no validation split to choose by."
    return f"{sentence} It was chosen by validation accuracy; the test images had no part in it."


def whose(found: Best) -> str:
    """The best run of a best configuration, as a caption names it."""
    run = found.runs.iloc[0]
    return f"{name(str(run['label']))}, seed {run['seed']}, {name(found.data)}"


# the answer


def answers(tables: Tables) -> list[str]:
    """A sentence a data set: how accuracy grows with depth, and how sure that is."""
    found = [_answer(tables, one) for one in best(tables)]
    return found or [f"No run is complete, so there is no answer yet: {NOT_ENOUGH}."]


def _answer(tables: Tables, best_one: Best) -> str:
    chosen = _chosen(tables, best_one.data)
    on = f"On {name(best_one.data)}"
    if chosen.empty:
        return f"{on} no configuration can be chosen for a model, as there is no validation accuracy to choose by."
    if len(chosen) == 1:
        row = _row(chosen, 0)
        reached = f"{label(row)} reaches {accuracy(row, 'test_accuracy')} test accuracy{_over(chosen)}"
        return f"{on} {reached}; {_why_alone(tables, row)}."
    found = comparisons(tables, best_one.data)
    other = "another" if len(chosen) <= ALL_PAIRS else "the best"
    tied = all(one.verdict == "tie" for one in found)
    no_more = f"no model differs from {other} by more than chance: " if tied else ""
    return f"{on} {no_more}{_growth(chosen)}{_over(chosen)}; {_certainty(found, chosen)}."


def _why_alone(tables: Tables, row: Mapping[str, Any]) -> str:
    """Why this model has no other beside it."""
    complete = tables.summary[(tables.summary["data"] == row["data"]) & (tables.summary["n"] > 0)]
    others = [one for one in in_order(complete) if one != row["label"]]
    if not others:
        return "there is no other model to compare it with"
    listed = name(others[0]) if len(others) == 1 else f"{len(others)} other models"
    return f"of {listed} no configuration can be chosen, as there is no validation accuracy to choose by"


def _chosen(tables: Tables, data: str) -> pd.DataFrame:
    chosen = tables.summary[(tables.summary["data"] == data) & tables.summary["chosen"]]
    return chosen.sort_values("label", key=lambda labels: labels.map(in_order(chosen).index), ignore_index=True)


def _highest(rows: pd.DataFrame, column: str) -> dict[str, Any]:
    return _row(rows, int(np.nanargmax(rows[column].to_numpy(dtype=float))))


def _row(rows: pd.DataFrame, at: int) -> dict[str, Any]:
    return {str(key): value for key, value in rows.iloc[at].to_dict().items()}


def _growth(chosen: pd.DataFrame) -> str:
    """How test accuracy goes with depth; without several depths which model has the highest."""
    by_label = {row["label"]: row for row in (_row(chosen, at) for at in range(len(chosen)))}
    family = max(families(chosen), key=len, default=[])
    if len(family) < 2:
        top = _highest(chosen, "test_accuracy_mean")
        return f"{label(top)} has the highest test accuracy of {len(chosen)} models, {accuracy(top, 'test_accuracy')}"
    means = [by_label[one]["test_accuracy_mean"] for one in family]
    first, last = by_label[family[0]], by_label[family[-1]]
    top = by_label[family[int(np.argmax(means))]]
    ends = " to ".join(f"{accuracy(row, 'test_accuracy')} with {label(row)}" for row in (first, last))
    rises = [after > before for before, after in pairwise(means)]
    if len(set(means)) == 1:
        return f"test accuracy is the same at each depth, {accuracy(first, 'test_accuracy')}"
    if all(rises):
        return f"test accuracy rises with depth, from {ends}"
    if not any(rises):
        return f"test accuracy falls with depth, from {ends}"
    middle = f"; the highest is {accuracy(top, 'test_accuracy')} with {label(top)}" if top is not last else ""
    return f"test accuracy goes from {ends}, not rising at every step{middle}"


def _over(chosen: pd.DataFrame) -> str:
    seeds = span(chosen["n"], "seed")
    if chosen["n"].max() > 1:
        return f" (mean and 95 % interval over {seeds})"
    return f" ({seeds}{' each' if len(chosen) > 1 else ''})"


def _certainty(found: list[Comparison], chosen: pd.DataFrame) -> str:
    """Whether the best two means differ by more than chance."""
    ranked = chosen.sort_values("test_accuracy_mean", ascending=False, kind="stable")["label"].tolist()
    top = {ranked[0], ranked[1]}
    of_top = next((one for one in found if {one.first, one.second} == top), None)
    if of_top is None or of_top.verdict == "unknown":
        return f"whether {name(ranked[0])} differs from {name(ranked[1])} by more than chance: {NOT_ENOUGH}"
    return comparison_sentence(of_top, len(found)).removesuffix(".")


def comparisons(tables: Tables, data: str) -> list[Comparison]:
    """The chosen configurations of a data set's models over shared seeds, the p-values corrected together."""
    chosen = _chosen(tables, data)
    complete = tables.runs[(tables.runs["status"] == "complete") & tables.runs["config_id"].isin(chosen["config_id"])]
    labels = list(chosen["label"])
    values = {
        one: dict(zip(runs["seed"].astype(int), runs["test_accuracy"], strict=True))
        for one, runs in complete[complete["seed"].notna()].groupby("label")
    }
    pairs = list(combinations(labels, 2))
    if len(labels) > ALL_PAIRS:
        top = _highest(chosen, "test_accuracy_mean")["label"]
        pairs = [pair for pair in pairs if top in pair]
    return compare({one: values.get(one, {}) for one in labels}, pairs)


def comparison_sentence(one: Comparison, num_pairs: int) -> str:
    """layers4 is 0.8 points above layers3 (95 % interval 0.3 to 1.3, p = 0.004 corrected for 3 pairs, 5 seeds)."""
    lower, higher, low, high = name(one.first), name(one.second), one.low, one.high
    if one.verdict == "unknown":
        return f"{higher} and {lower}: {NOT_ENOUGH} ({count(one.n, 'shared seed')})."
    if one.difference < 0:
        lower, higher, low, high = higher, lower, -high, -low
    evidence = f"95 % interval {points(low)} to {points(high)}, {p_text(one.p_corrected)}"
    evidence += f" corrected for {num_pairs} pairs" if num_pairs > 1 else ""
    evidence += f", {count(one.n, 'shared seed')}"
    difference = points(abs(one.difference))
    if one.verdict == "tie":
        return f"{higher} and {lower} tie: a difference of {difference} points may be chance ({evidence})."
    return f"{higher} is {difference} points above {lower} ({evidence})."


# figures


def depth_sentence(tables: Tables) -> str:
    """The means in order of depth, and how many pairs of models differ."""
    bests = best(tables)
    if not bests:
        return f"{NOT_ENOUGH_BEGINNING}."
    data = bests[0].data
    rows = [_row(chosen, at) for chosen in [_chosen(tables, data)] for at in range(len(chosen))]
    on = f" on {name(data)}" if len(bests) > 1 else ""
    means = [f"{accuracy(row, 'test_accuracy')} {label(row)}" for row in rows]
    sentence = f"Test accuracy{on}: {', '.join(means)}. " if 0 < len(means) <= MOST_MEANS else ""
    verdicts = Counter(one.verdict for one in comparisons(tables, data))
    differ = verdicts["higher"] + verdicts["lower"]
    if verdicts.total() == verdicts["unknown"]:
        return f"{sentence}{NOT_ENOUGH_BEGINNING} whether models differ by more than chance."
    parts = [f"{differ or 'none'} {'differs' if differ == 1 else 'differ'} by more than chance"]
    parts += [f"{verdicts['tie']} {'ties' if verdicts['tie'] == 1 else 'tie'}"] if verdicts["tie"] else []
    parts += [f"of {verdicts['unknown']} there are {NOT_ENOUGH}"] if verdicts["unknown"] else []
    return f"{sentence}Of {count(verdicts.total(), 'pair')} of models {', '.join(parts)}."


def cost_sentence(tables: Tables, cost: str) -> str:
    """The most accurate model beside the cheapest one."""
    found = best(tables)
    chosen = _chosen(tables, found[0].data) if found else pd.DataFrame({cost: []})
    chosen = chosen[chosen[cost].notna()]
    if len(chosen) < 2:
        return f"One model only: {NOT_ENOUGH} what more of it would bring." if len(chosen) else f"{NOT_ENOUGH}."
    top = _highest(chosen, "test_accuracy_mean")
    low = _row(chosen, int(np.argmin(chosen[cost].to_numpy(dtype=float))))
    text = _parameters if cost == "params" else _seconds
    if top["label"] == low["label"]:
        return f"{label(top)} has the highest mean accuracy and the least: {text(top[cost])}."
    less = top["test_accuracy_mean"] - low["test_accuracy_mean"]
    return (
        f"{label(top)} has the highest mean accuracy with {text(top[cost])}; "
        f"{label(low)} has the least, {text(low[cost])}, and is {points(less)} points lower."
    )


def _parameters(value: Any) -> str:
    return f"{thousands(int(value))} parameters"


def _seconds(value: Any) -> str:
    return f"{float(value):.3g} s of training"


def curve_sentence(tables: Tables, of_label: str | None = None) -> str:
    """Where training and validation ended, and whether the last epoch still brought something."""
    found = best(tables)
    chosen = tables.summary[tables.summary["chosen"]]
    chosen = (
        chosen[chosen["label"] == of_label]
        if of_label is not None
        else chosen[chosen["data"] == found[0].data]
        if found
        else chosen
    )
    if chosen.empty:
        return f"No complete run of a chosen configuration: {NOT_ENOUGH}."
    row = _highest(chosen, "test_accuracy_mean")
    ids = tables.runs.loc[
        (tables.runs["config_id"] == row["config_id"]) & (tables.runs["status"] == "complete"), "run_id"
    ]
    means = tables.curves[tables.curves["run_id"].isin(ids)].groupby("epoch")[["train_accuracy", "val_accuracy"]].mean()
    if means.empty:
        return f"No epochs were recorded: {NOT_ENOUGH}."
    train, val = (100 * float(means[f"{source}_accuracy"].iloc[-1]) for source in ("train", "val"))
    ended = f"{label(row)} ends after {count(len(means), 'epoch')} at {train:.1f} % on training images"
    if math.isnan(val):
        return f"{ended}."
    gap = train - val
    fit = f"{gap:.1f} points apart, a sign of overfitting" if gap > OVERFITTING else "no sign of overfitting"
    sentence = f"{ended} and {val:.1f} % on validation images: {fit}"
    if len(means) > 1:
        gain = 100 * float(means["val_accuracy"].diff().iloc[-1])
        sentence += f"; the last epoch brought {points(gain / 100, signed=True)} points"
    return f"{sentence}."


def effect_sentence(effect: Effect, effects: Effects) -> str:
    """The value with the best mean, beside what runs say that differ in nothing else: they may contradict it."""
    best_level = name(effect.best)
    beginning = f"{name(effect.key)}: {best_level} has the highest mean {effects.measure}"
    tested = [one for one in effect.comparisons if one.n >= ENOUGH]
    if not tested:
        return f"{beginning}; whether that is more than chance: {NOT_ENOUGH} (too few differ in it alone)."
    worst = min(tested, key=lambda one: one.difference)
    parts = [beginning]
    if worst.difference < 0:
        lead = _lead(-worst.difference, -worst.high, -worst.low, worst)
        parts[0] += f", {lead[0]} points above {name(worst.second)} {lead[1]}"
    for one in tested:
        if one.verdict == "higher":
            lead = _lead(one.difference, one.low, one.high, one)
            parts.append(f"but {name(one.second)} is {lead[0]} points above it {lead[1]}")
    ties = [name(one.second) for one in tested if one.verdict == "tie"]
    parts += [f"tied with it within chance: {', '.join(ties)}"] if ties else []
    return f"{'; '.join(parts)}."


def _lead(difference: float, low: float, high: float, one: Comparison) -> tuple[str, str]:
    """Percents as points, and what they rest on."""
    shown, *ends = (points(value / 100) for value in (difference, low, high))
    return shown, f"in {one.n} runs that differ in nothing else ({' to '.join(ends)}, {p_text(one.p_corrected)})"


def interaction_sentence(found: Interaction) -> str:
    """Whether the best learning rate depends on the batch size."""
    columns = [at for at in range(len(found.batch_sizes)) if np.isfinite(found.means[:, at]).sum() > 1]
    if not columns:
        return f"Learning rate by batch size: {NOT_ENOUGH}."
    rates = [found.rates[int(np.nanargmax(found.means[:, at]))] for at in columns]
    if len(columns) == 1:
        size = found.batch_sizes[columns[0]]
        return f"At batch size {size} the learning rate {rates[0]} has the highest mean; {NOT_ENOUGH} for others."
    fewest = int(found.num_runs[found.num_runs > 0].min())
    caution = f" Cells of {count(fewest, 'run')} are in it: take it as a hint." if fewest < ENOUGH else ""
    if len(set(rates)) == 1:
        return f"The learning rate {rates[0]} has the highest mean at each batch size.{caution}"
    listed = ", ".join(f"{rate} at {found.batch_sizes[at]}" for rate, at in zip(rates, columns, strict=True))
    return f"The learning rate with the highest mean differs by batch size: {listed}.{caution}"


def confusion_sentence(found: Confusion) -> str:
    pairs = found.pairs(1)
    if not pairs:
        return "No test image was taken for another class."
    true, taken, number, share = pairs[0]
    return (
        f"The most frequent error: {name(true)} taken for {name(taken)}, {number:,} images, "
        f"{share:.1%} of that class.".replace("%", " %")
    )


def class_sentence(found: Confusion) -> str:
    accuracies = found.accuracies
    if np.isnan(accuracies).all():
        return "There are no test images."
    low, high = int(np.nanargmin(accuracies)), int(np.nanargmax(accuracies))
    easy, hard = name(found.names[high]), name(found.names[low])
    return f"Recognised best: {easy}, {100 * accuracies[high]:.1f} %; worst: {hard}, {100 * accuracies[low]:.1f} %."


def confused_sentence(confusion: Confusion) -> str:
    wrong = int(confusion.counts.sum() - confusion.counts.trace())
    shown = sum(number for _, _, number, _ in confusion.pairs(NUM_PAIRS_SHOWN))
    return f"Test images of the most confused pairs, which make {shown:,} of {count(wrong, 'error')}."


# images and networks


def classes_sentence(pictures: Pictures) -> str:
    num = len(pictures.classes.names) if pictures.classes else 0
    return f"Training images of each of the {num} classes of {name(pictures.data)}, drawn at random."


def augmentation_sentence(pictures: Pictures) -> str:
    num = pictures.augmentation.images.shape[1] - 1 if pictures.augmentation else 0
    return (
        f"Training sees an image another way in each epoch: the original, and beside it {num} times what training has."
    )


def network_sentence(label: str, layers: Sequence[Layer]) -> str:
    """Its size, and where most of its parameters and of its work are."""
    if not layers:
        return ""
    params, work = sum(layer.params for layer in layers), sum(layer.multiply_adds for layer in layers)
    sentence = f"{name(label)}: {thousands(params)} parameters, {thousands(work)} multiply-adds an image."
    if not params or not work:
        return sentence
    largest = max(range(len(layers)), key=lambda at: layers[at].params)
    busiest = max(range(len(layers)), key=lambda at: layers[at].multiply_adds)
    parameters = f"{100 * layers[largest].params / params:.0f} % of the parameters"
    multiplied = f"{100 * layers[busiest].multiply_adds / work:.0f} % of the multiply-adds"
    if largest == busiest:
        return f"{sentence} {_place(layers, largest)} has {parameters} and {multiplied}."
    return f"{sentence} {_place(layers, largest)} has {parameters}, {_place(layers, busiest)} {multiplied}."


def _place(layers: Sequence[Layer], at: int) -> str:
    """Linear 1 of 2: which of the layers of its class this is."""
    kind = layers[at].kind.split(" ")[0].strip(",")
    alike = [other for other, layer in enumerate(layers) if layer.kind.split(" ")[0].strip(",") == kind]
    return f"{name(kind)} {alike.index(at) + 1} of {len(alike)}"


# a search


def history_sentence(study: Study) -> str:
    complete = count(_num_complete(study), "complete trial")
    if not _num_complete(study) or not study.best:
        return f"No trial is complete: {NOT_ENOUGH}."
    if len(study.objectives) > 1:
        return f"{len(study.best)} of {complete} are beaten by no other in every objective."
    later = sum(trial.number > study.best[0] and trial.state in ENDED for trial in study.trials)
    return f"Trial {study.best[0]} is the best of {complete}; {count(later, 'later trial')} did no better."


def pareto_sentence(study: Study) -> str:
    return f"To do better in one objective than a blue trial costs another: {history_sentence(study)}"


def slices_sentence(study: Study) -> str:
    """The values of the best trial, where there is one best."""
    trials = [trial for trial in study.trials if trial.number in study.best]
    if len(trials) != 1:
        return "Where on each searched setting the good trials are."
    values = ", ".join(f"{name(key)} {name(_value(value))}" for key, value in list(trials[0].params.items())[:8])
    return f"The best trial has {values}."


def _value(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else as_text(value)


def _num_complete(study: Study) -> int:
    return sum(trial.state == "complete" for trial in study.trials)


def importance_sentence(study: Study) -> str:
    ranked = sorted(study.importances.items(), key=lambda item: -item[1])
    if not ranked:
        return f"{NOT_ENOUGH_BEGINNING}."
    complete = _num_complete(study)
    sentence = f"{name(ranked[0][0])} mattered most ({ranked[0][1]:.2f} of 1)"
    sentence += f", then {name(ranked[1][0])} ({ranked[1][1]:.2f})" if len(ranked) > 1 else ""
    sentence += f", by an estimate from {count(complete, 'complete trial')}"
    return f"{sentence}{f': {NOT_ENOUGH} for sure' if complete < TRIALS_PER_KEY * len(ranked) else ''}."


# texts


def name(text: str) -> str:
    """Short enough for a sentence, printable."""
    return shortened(text, 40) or "(no name)"


def label(row: Mapping[str, Any]) -> str:
    return name(str(row["label"]))


def accuracy(row: Mapping[str, Any], which: str) -> str:
    """82.0 ± 0.4 %, without interval for one seed, nothing where it was not measured."""
    mean, high = row[f"{which}_mean"], row[f"{which}_high"]
    if pd.isna(mean):
        return ""
    return f"{100 * mean:.1f} %" if pd.isna(high) else f"{100 * mean:.1f} ± {100 * (high - mean):.1f} %"


def points(part: float, signed: bool = False) -> str:
    """Parts of 1 as points of accuracy, with a true minus; two digits where one would show 0.0 only."""
    digits = 1 if abs(part) >= 0.0005 or part == 0 else 2
    return f"{100 * part:{'+' if signed else ''}.{digits}f}".replace("-", "−")


def p_text(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}" if p < 0.995 else "p = 1"
