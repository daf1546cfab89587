"""What the numbers say, in sentences: the best, and a line for each figure. Knows tables and studies, no HTML.

A sentence claims a difference only where the statistics do; else it says that there are not enough runs to say.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from cifarsweep.report.confusion import Confusion
from cifarsweep.report.effects import ENOUGH, Effect, Effects, Interaction
from cifarsweep.report.search_results import Study
from cifarsweep.report.statistics import Comparison, compare
from cifarsweep.report.style import mean_and_interval, thousands
from cifarsweep.report.tables import Tables, in_order
from cifarsweep.results.mosaic import Mosaic
from cifarsweep.results.records import Layer
from cifarsweep.results.study_records import EARLY
from cifarsweep.terminal.domains import as_typed
from cifarsweep.terminal.formatting import count, listed, shortened

NOT_ENOUGH = "not enough runs to say"
NOT_ENOUGH_BEGINNING = "Not enough runs to say"
OVERFITTING = 2.0
"""Training accuracy, measured on augmented images before the epoch has ended, may be this many points ahead."""
ENDED = ("complete", "infeasible", *EARLY, "failed")
TRIALS_PER_KEY = 10
"""An importance estimate counts only with at least this many complete trials for each key; a rule of thumb."""
NUM_PAIRS_SHOWN = 6
"""A run keeps images of so many pairs of classes."""
ALL_PAIRS = 8
"""Up to this many models are each compared with each; of more, each with the best one only."""


# what became of the runs


def outcome(tables: Tables) -> str:
    """How many runs are complete. What a search stopped early is no failure, so that is said apart."""
    statuses = Counter(tables.runs["status"])
    early = sum(statuses.pop(status, 0) for status in EARLY)
    complete = statuses.pop("complete", 0)
    if not early:
        return f"{complete} of {count(tables.num_runs, 'run')} complete"
    others = {**statuses, "without a run": len(tables.jobs_without_run), "cannot be read": len(tables.unreadable)}
    rest = [f"{number} {what}" for what, number in others.items() if number] or ["none failed"]
    parts = [f"{complete} complete", f"{early} stopped early by the search", *rest]
    return f"{count(tables.num_runs, 'run')}: {', '.join(parts)}"


# the best


@dataclass(frozen=True)
class Best:
    """The best configuration of a data set."""

    data: str
    configuration: "pd.Series[Any]"
    """Its row of the summary."""
    runs: pd.DataFrame
    """Its complete runs, the one with the best validation accuracy first."""
    is_optimistic: bool
    """Whether it was chosen by test accuracy, as there was no validation split to choose by."""


def best_configurations(tables: Tables) -> list[Best]:
    """One a data set, the data set with the most complete runs first."""
    bests = []
    for data in tables.complete["data"].value_counts().index:
        rows = tables.summary[(tables.summary["data"] == data) & (tables.summary["n"] > 0)]
        rows = rows[rows["chosen"]] if rows["chosen"].any() else rows
        by_test = rows["val_accuracy_mean"].isna().all()
        row = rows.iloc[int(rows["test_accuracy_mean" if by_test else "val_accuracy_mean"].argmax())]
        its = tables.complete[tables.complete["config_id"] == row["config_id"]]
        its = its.sort_values(["val_accuracy", "seed"], ascending=[False, True], kind="stable")
        bests.append(Best(str(data), row, its, bool(by_test and len(rows) > 1)))
    return bests


def best_sentence(best: Best) -> str:
    row = best.configuration
    validation = accuracy(row, "val_accuracy")
    parts = [f"{label(row)} on {name(best.data)}: {accuracy(row, 'test_accuracy')} test accuracy"]
    parts += [f"{validation} validation accuracy"] if validation else []
    sentence = ", ".join(parts) + f", {count(int(row['n']), 'seed')}."
    if best.is_optimistic:
        why = "There was no validation split, so it was chosen by the test set: its accuracy is optimistic."
        return f"{sentence} {why}"
    if not validation:
        return f"{sentence} There was no validation split to choose by."
    return f"{sentence} It was chosen by validation accuracy; the test images had no part in it."


def search_sentence(tables: Tables, study: Study | None, bests: Sequence[Best]) -> str:
    """Why the best trial of the search is none of these; nothing where it is, or where it has several best trials."""
    trials = [trial for trial in study.trials if trial.number in study.best and trial.run_names] if study else []
    if study is None or len(trials) != 1 or not bests:
        return ""
    (trial,) = trials
    id = trial.run_names[0].rpartition("-")[2]
    if any(id in set(best.runs["run_id"]) for best in bests):
        return ""
    sentence = f"Trial {trial.number}, the best of the search, "
    if id not in tables.directories:
        return f"{sentence}is left out here, as its run cannot be read."
    if study.objectives == ["val_accuracy"] and trial.values[0] == bests[0].configuration["val_accuracy_mean"]:
        return f"{sentence}has the same validation accuracy."
    of = "a single run" if trial.runs is None else f"{len(trial.runs)} runs"
    return f"{sentence}has another configuration, as the search goes by {name(study.objectives[0])} of {of}."


def whose(best: Best) -> str:
    """The best run of a best configuration, as a caption names it."""
    run = best.runs.iloc[0]
    return f"{name(str(run['label']))}, seed {run['seed']}, {name(best.data)}"


# models against each other


def models_of(tables: Tables, data: str) -> pd.DataFrame:
    """The configurations that stand for the models of a data set, in order of depth."""
    models = tables.summary[(tables.summary["data"] == data) & tables.summary["chosen"]]
    return models.sort_values("label", key=lambda labels: labels.map(in_order(models).index), ignore_index=True)


def _highest(models: pd.DataFrame) -> "pd.Series[Any]":
    return models.iloc[int(models["test_accuracy_mean"].argmax())]


def comparisons(tables: Tables, data: str) -> list[Comparison]:
    """The chosen configurations of a data set's models over shared seeds, the p-values corrected together."""
    models = models_of(tables, data)
    complete = tables.complete[tables.complete["config_id"].isin(models["config_id"])]
    values: dict[str, dict[int, float]] = {model: {} for model in models["label"]}
    for model, runs in complete[complete["seed"].notna()].groupby("label"):
        values[str(model)] = dict(zip(runs["seed"].astype(int), runs["test_accuracy"], strict=True))
    pairs = list(combinations(values, 2))
    if len(values) > ALL_PAIRS:
        top = _highest(models)["label"]
        pairs = [pair for pair in pairs if top in pair]
    return compare(values, pairs)


def between(compared: Sequence[Comparison], one: str, other: str) -> Comparison | None:
    return next((comparison for comparison in compared if {comparison.first, comparison.second} == {one, other}), None)


def _differences(compared: Sequence[Comparison]) -> str:
    """How many pairs of models differ, where there are enough runs to say it of any."""
    verdicts = Counter(comparison.verdict for comparison in compared)
    differ, total = verdicts["higher"] + verdicts["lower"], verdicts.total()
    said = f"{differ} of {count(total, 'pair')} of models {'differs' if differ == 1 else 'differ'} by more than chance"
    if differ == 0:
        said = "no difference between models is beyond chance"
    elif total == 1:
        said = "the two models differ by more than chance"
    unknown = f"; for {count(verdicts['unknown'], 'pair')} there are {NOT_ENOUGH}" if verdicts["unknown"] else ""
    return f"{said}{unknown}"


def comparison_cells(comparison: Comparison) -> dict[str, str]:
    """The row of a table."""
    first, second = name(comparison.first), name(comparison.second)
    verdicts = {"unknown": NOT_ENOUGH, "tie": "may be chance"}
    verdicts |= {"higher": f"{second} is better", "lower": f"{first} is better"}
    cells = {
        "pair": f"{second} − {first}",
        "n": str(comparison.n),
        "difference": points(comparison.difference, signed=True) if comparison.n else "",
        "verdict": verdicts[comparison.verdict],
        **dict.fromkeys(("interval", "effect_size", "p", "p_corrected"), ""),
    }
    if not math.isnan(comparison.low):
        cells["interval"] = _ends(comparison.low, comparison.high)
        cells["effect_size"] = f"{comparison.effect_size:.2f}".replace("-", "−").replace("inf", "∞")
        cells["p"], cells["p_corrected"] = p_text(comparison.p), p_text(comparison.p_corrected)
    return cells


# figures


def depth_sentence(tables: Tables) -> str:
    """How many pairs of models differ."""
    bests = best_configurations(tables)
    if not bests:
        return f"{NOT_ENOUGH_BEGINNING}."
    compared = comparisons(tables, bests[0].data)
    on = f"On {name(bests[0].data)}, " if len(bests) > 1 else ""
    if all(comparison.verdict == "unknown" for comparison in compared):
        return f"{NOT_ENOUGH_BEGINNING} whether models differ by more than chance."
    differences = f"{on}{_differences(compared)}."
    return differences[:1].upper() + differences[1:]


COSTS = {
    "params": ("parameters", "has only", "has fewer"),
    "train_seconds_mean": ("of training", "takes only", "trains faster"),
}
"""Columns of the summary: what their values are of, and what is said of a model that has less."""


def cost_sentence(tables: Tables, cost: str) -> str:
    """The most accurate model beside the cheapest one."""
    what, has_only, has_less = COSTS[cost]

    def text(row: "pd.Series[Any]") -> str:
        return thousands(int(row[cost])) if cost == "params" else f"{float(row[cost]):.3g} s"

    bests = best_configurations(tables)
    models = models_of(tables, bests[0].data) if bests else pd.DataFrame({cost: []})
    models = models[models[cost].notna()]
    if len(models) < 2:
        return f"{NOT_ENOUGH_BEGINNING} whether a model that costs more is better."
    top, low = _highest(models), models.iloc[int(models[cost].argmin())]
    sentence = f"{label(top)} has the highest mean accuracy, with {text(top)} {what}"
    if top["label"] == low["label"]:
        return f"{sentence}; no model {has_less}."
    less = top["test_accuracy_mean"] - low["test_accuracy_mean"]
    compared = between(comparisons(tables, bests[0].data), top["label"], low["label"])
    lower = f"its mean is {points(less)} points lower{_certainty(compared)}" if less else "the same mean"
    return f"{sentence}; {label(low)} {has_only} {text(low)}, and {lower}."


def _certainty(compared: Comparison | None) -> str:
    """What is to be added to a difference of means; nothing where it is beyond chance."""
    if compared is None or compared.verdict == "unknown":
        return f"; whether by more than chance: {NOT_ENOUGH}"
    if compared.verdict == "tie":
        seeds = count(compared.n, "shared seed")
        return f", which chance could explain (paired t-test over {seeds}, {p_text(compared.p_corrected)})"
    return ""


def curve_sentence(tables: Tables, of_label: str | None = None) -> str:
    """Where training and validation ended, and whether the last epoch still brought something."""
    bests = best_configurations(tables)
    models = tables.summary[tables.summary["chosen"]]
    if of_label is not None:
        models = models[models["label"] == of_label]
    elif bests:
        models = models[models["data"] == bests[0].data]
    if models.empty:
        return f"No complete run of a chosen configuration: {NOT_ENOUGH}."
    row = _highest(models)
    ids = tables.complete.loc[tables.complete["config_id"] == row["config_id"], "run_id"]
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
        gain = float(means["val_accuracy"].diff().iloc[-1])
        did = f"{'brought' if gain > 0 else 'cost'} {points(abs(gain))} points" if gain else "changed nothing"
        sentence += f"; the last epoch {did}"
    return f"{sentence}."


def effect_sentence(effect: Effect, effects: Effects) -> str:
    """The value with the best mean, then what runs that differ in nothing else say of it: they may contradict it."""
    sentence = f"{name(effect.key)}: {name(effect.best)} has the highest mean {effects.measure}"
    tested = [comparison for comparison in effect.comparisons if comparison.n >= ENOUGH]
    if not tested:
        return f"{sentence}; whether that is more than chance: {NOT_ENOUGH} (too few differ in it alone)."
    worst = min(tested, key=lambda comparison: comparison.difference)
    if worst.difference < 0:
        difference, evidence = _lead(worst, -1)
        sentence += f", {difference} points above {name(worst.second)} {evidence}"
    for comparison in tested:
        if comparison.verdict == "higher":
            difference, evidence = _lead(comparison, 1)
            sentence += f"; but {name(comparison.second)} is {difference} points above it {evidence}"
    ties = [name(comparison.second) for comparison in tested if comparison.verdict == "tie"]
    return f"{sentence}{f'; {listed(ties)} may be as good' if ties else ''}."


def _lead(comparison: Comparison, sign: int) -> tuple[str, str]:
    """By how many points one is ahead, and what that rests on; `sign` is -1 for the first of the two."""
    difference, *ends = (sign * value / 100 for value in (comparison.difference, comparison.low, comparison.high))
    interval = _ends(*sorted(ends))
    runs = f"in {count(comparison.n, 'run')} that differ in nothing else"
    return points(difference), f"{runs} ({interval}, {p_text(comparison.p_corrected)})"


def settings_sentence(effects: Effects) -> str:
    shown = "; a colour is a model" if effects.by_model else ", whatever their model"
    return f"Each point is {effects.point}{shown}."


def interaction_sentence(interaction: Interaction) -> str:
    """Whether the best learning rate depends on the batch size."""
    means, sizes = interaction.means, interaction.batch_sizes
    columns = [at for at in range(len(sizes)) if np.isfinite(means[:, at]).sum() > 1]
    if not columns:
        return f"Learning rate by batch size: {NOT_ENOUGH}."
    rates = [interaction.rates[int(np.nanargmax(means[:, at]))] for at in columns]
    if len(columns) == 1:
        size = sizes[columns[0]]
        return f"At batch size {size} the learning rate {rates[0]} has the highest mean; {NOT_ENOUGH} for others."
    fewest = int(interaction.num_runs[interaction.num_runs > 0].min())
    caution = f" Some cells have {count(fewest, 'run')} only: take it as a hint." if fewest < ENOUGH else ""
    if len(set(rates)) == 1:
        return f"The learning rate {rates[0]} has the highest mean at each batch size.{caution}"
    listed = ", ".join(f"{rate} at {sizes[at]}" for rate, at in zip(rates, columns, strict=True))
    return f"The learning rate with the highest mean differs by batch size: {listed}.{caution}"


def confusion_sentence(confusion: Confusion) -> str:
    pairs = confusion.pairs(1)
    if not pairs:
        return "No test image was taken for another class."
    true, taken, number, share = pairs[0]
    error = f"{name(true)} taken for {name(taken)}, {count(number, 'image')}, {share:.1%} of that class"
    return f"The most frequent error: {error}.".replace("%", " %")


def class_sentence(confusion: Confusion) -> str:
    accuracies = confusion.accuracies
    if np.isnan(accuracies).all():
        return "There are no test images."
    low, high = int(np.nanargmin(accuracies)), int(np.nanargmax(accuracies))
    easy, hard = name(confusion.names[high]), name(confusion.names[low])
    return f"Recognised best: {easy}, {100 * accuracies[high]:.1f} %; worst: {hard}, {100 * accuracies[low]:.1f} %."


def confused_sentence(confusion: Confusion) -> str:
    wrong = int(confusion.counts.sum() - confusion.counts.trace())
    shown = sum(number for _, _, number, _ in confusion.pairs(NUM_PAIRS_SHOWN))
    return f"Test images of the most confused pairs, which make up {shown:,} of {count(wrong, 'error')}."


# images and networks


def classes_sentence(classes: Mosaic, data: str) -> str:
    return f"{count(len(classes.names), 'class')} of {name(data)}: training images, drawn at random."


def augmentation_sentence(augmentation: Mosaic) -> str:
    shown = count(augmentation.images.shape[1] - 1, "version")
    return f"Training sees another version of an image in each epoch: the original, and beside it {shown}."


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
    complete = count(study.num_complete, "complete trial")
    if not study.num_complete or not study.best:
        return f"No trial is complete: {NOT_ENOUGH}."
    if len(study.objectives) > 1:
        return f"The Pareto set has {len(study.best)} of {complete}."
    later = sum(trial.number > study.best[0] and trial.state in ENDED for trial in study.trials)
    no_better = f"{count(later, 'later trial')} did no better" if later else "no trial came after it"
    return f"Trial {study.best[0]} is the best of {complete}; {no_better}."


def pareto_sentence(study: Study) -> str:
    return f"{history_sentence(study)} To do better than these (blue) in one objective costs another one."


def slices_sentence(study: Study) -> str:
    """The values of the best trial, where there is one best."""
    trials = [trial for trial in study.trials if trial.number in study.best]
    if len(trials) != 1:
        return "Each panel shows where on a searched setting the good trials are."
    params = list(trials[0].params.items())[:8]
    return f"The best trial has {', '.join(f'{name(key)} {short(value)}' for key, value in params)}."


def importance_sentence(study: Study) -> str:
    ranked = sorted(study.importances.items(), key=lambda item: -item[1])
    if not ranked:
        return f"{NOT_ENOUGH_BEGINNING}."

    def share(key: str, value: float) -> str:
        ends = study.importance_intervals.get(key)
        return f"{value:.2f}, {ends[0]:.2f} to {ends[1]:.2f}" if ends else f"{value:.2f}"

    sentence = f"{name(ranked[0][0])} mattered most ({share(*ranked[0])} of 1)"
    sentence += f", then {name(ranked[1][0])} ({share(*ranked[1])})" if len(ranked) > 1 else ""
    sentence += f", by an estimate from {count(study.num_reported, 'trial')}"
    is_sure = study.importance_intervals or study.num_complete >= TRIALS_PER_KEY * len(ranked)
    return f"{sentence}{'' if is_sure else f': {NOT_ENOUGH} for sure'}."


# texts


def name(text: str) -> str:
    """Short enough for a sentence, printable."""
    return shortened(text, 40) or "(no name)"


def short(value: Any) -> str:
    """The value of a setting, of a number three digits."""
    return name(f"{value:.3g}" if isinstance(value, float) else as_typed(value))


def label(row: "pd.Series[Any]") -> str:
    return name(str(row["label"]))


def accuracy(row: "pd.Series[Any]", which: str) -> str:
    return percent(*(row[f"{which}_{what}"] for what in ("mean", "low", "high")))


def percent(mean: float, low: float, high: float) -> str:
    """82.0 ± 0.4 %, without interval for one seed, nothing where it was not measured."""
    return "" if pd.isna(mean) else f"{mean_and_interval(100 * mean, 100 * low, 100 * high)} %"


def points(part: float, signed: bool = False) -> str:
    """Parts of 1 as points of accuracy, with a true minus; two digits where one would show 0.0 only."""
    digits = 2 if 0.00005 <= abs(part) < 0.0005 else 1
    return f"{100 * part:{'+' if signed else ''}.{digits}f}".replace("-", "−")


def _ends(low: float, high: float) -> str:
    """Of the interval of a difference, which lies within 100 points."""
    return f"{points(max(low, -1.0))} to {points(min(high, 1.0))}"


def p_text(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}" if p < 0.995 else "p = 1"
