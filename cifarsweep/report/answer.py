"""What a report says first: the answer in words, the numbers behind it, and the command that would settle what is open.

Knows tables and studies; no HTML and no terminal.
"""

import contextlib
import math
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from cifarsweep.report import depth_study_findings, findings
from cifarsweep.report.depth_study import DepthStudy, pairs
from cifarsweep.report.effects import independent
from cifarsweep.report.findings import ENDED, NOT_ENOUGH, accuracy, best_configurations, name, points, short
from cifarsweep.report.search_results import Study
from cifarsweep.report.statistics import ALPHA, Comparison, compare, t_quantile
from cifarsweep.report.tables import SETTINGS, Tables, families, in_order
from cifarsweep.results import sweeps
from cifarsweep.terminal.formatting import count, listed

STARTS = (["python", "-m", "cifarsweep"], ["cifarsweep"])
"""How a command line begins that trains a run."""
MOST_ROWS = 12
MOST_CONFIGURATIONS = 5
"""Of one model, the best ones by validation accuracy are compared."""
MOST_NAMES = 3
"""A sentence names at most this many models."""
FIRST_SEEDS = 5
MOST_FINALISTS = 3
"""The best trials of a search that are worth several seeds each."""
MOST_SEEDS = 30
"""A difference that needs more seeds is too small to matter."""
POWER = 0.84
"""The normal distribution's quantile of 0.8: the chance that so many seeds show a difference which is there."""
BEYOND, WITHIN, SAME, UNKNOWN = "beyond chance", "may be chance", "the same mean", "one seed only"
"""What may be said of a difference."""
LATE = 0.25
"""A search whose best trial is in this last part of it may well find a better one."""


@dataclass(frozen=True)
class Answer:
    sentences: list[str]
    """One or two: what the runs say, and how sure that is."""
    rows: list[dict[str, str]] = field(default_factory=list)
    """The numbers, a row for each model or configuration."""
    open: str = ""
    """What would settle what is open; empty where nothing is."""
    changes: Mapping[str, str] | None = None
    """The values with which the sweep's command would do so."""


@dataclass(frozen=True)
class Answers:
    question: str
    of_data: list[Answer]
    """One for each data set."""
    next: str
    command: str | None

    @property
    def lines(self) -> list[str]:
        """For a terminal."""
        said = [" ".join(answer.sentences) for answer in self.of_data]
        return [*said, *filter(None, [self.next]), *([f"    {self.command}"] if self.command else [])]


def of(tables: Tables, study: Study | None, depth: DepthStudy | None, sources: Sequence[Path]) -> Answers:
    """The answer of a report on `sources`."""
    if depth and depth.answers:
        found = [Answer(depth_study_findings.answer(depth), depth_study_findings.means(depth), *_open_depths(depth))]
    else:
        found = [_of_data(tables, best.data) for best in best_configurations(tables)]
        if study:
            found = [_of_search(answer, study, depth) for answer in found]
    found = found or [Answer([f"No run is complete, so there is no answer yet: {NOT_ENOUGH}."])]
    what, changes = next(((answer.open, answer.changes) for answer in found if answer.open), ("", None))
    if unfinished := int((tables.runs["status"] == "unfinished").sum()):
        what, changes = f"Next: the same command goes on with {count(unfinished, 'unfinished run')}.", {}
        if any(sweeps.is_running(source) for source in sources):  # nothing is open before it ends
            what, changes = "", None
    command = None if changes is None else _command_with(changes, sources)
    return Answers(_question(tables, depth), found, what, command)


def _question(tables: Tables, depth: DepthStudy | None) -> str:
    complete = tables.complete
    if (depth and depth.answers) or any(len(family) > 1 for family in families(complete)):
        return "How does accuracy grow with depth?"
    if complete.empty:
        return "No answer yet"
    if complete["label"].nunique() > 1:
        return "Which model is best?"
    return "Which settings are best?" if complete["config_id"].nunique() > 1 else "How accurate is it?"


def _of_data(tables: Tables, data: str) -> Answer:
    models, on = findings.models_of(tables, data), f"On {name(data)},"
    configurations = tables.summary[(tables.summary["data"] == data) & (tables.summary["n"] > 0)]
    others = [model for model in in_order(configurations) if model not in set(models["label"])]
    if models.empty:
        unknown = "no configuration can be chosen for a model, as there is no validation accuracy to choose by"
        what = "Next: keep training images for validation (data.val_size), to choose by."
        return Answer([f"{on} {unknown}."], open=what)
    if len(models) > 1:
        return _of_models(models, findings.comparisons(tables, data), on)
    if others:
        model, which = findings.label(models.iloc[0]), listed(list(map(name, others)), MOST_NAMES, "other models")
        reaches = f"{model} reaches {_percent(models.iloc[0])} test accuracy"
        why = f"Of {which} no configuration can be chosen, as there is no validation accuracy to choose by."
        return Answer([f"{on} {reaches}.", why], _rows(models))
    if len(configurations) > 1:
        return _of_configurations(tables, configurations, on)
    return _of_one(models.iloc[0], on)


# several models


def _of_models(models: pd.DataFrame, compared: Sequence[Comparison], on: str) -> Answer:
    ranked = models.sort_values("test_accuracy_mean", ascending=False, kind="stable")
    top = str(ranked["label"].iloc[0])
    against = {str(other): _lead(compared, top, str(other)) for other in ranked["label"][1:]}
    verdicts = {comparison.verdict for comparison in compared}
    if "tie" in verdicts and not verdicts & {"higher", "lower"}:
        sentences = [f"{on} no difference between the models is beyond chance."]
        if "unknown" in verdicts:
            sentences.append(f"For some there are {NOT_ENOUGH}.")
    else:
        growth = _growth(models, compared, ranked.iloc[0])
        sentences = [f"{on} {growth}.", _certainty("It" if growth.startswith(name(top)) else name(top), against)]
    shown = models[models["label"].isin(ranked["label"][:MOST_ROWS])]
    return Answer(sentences, _rows(shown, against), *_more_seeds(against, models, len(compared)))


def _growth(models: pd.DataFrame, compared: Sequence[Comparison], top: "pd.Series[Any]") -> str:
    """How accuracy goes with depth, where the shallowest and the deepest model differ; else which model is highest."""
    family = max(families(models), key=len, default=[])
    by_depth = models.set_index("label", drop=False).loc[family]
    means = by_depth["test_accuracy_mean"].tolist()
    ends = findings.between(compared, family[0], family[-1]) if len(family) > 1 else None
    if ends and ends.verdict in ("higher", "lower") and means in (sorted(means), sorted(means, reverse=True)):
        first, last = (f"{_percent(by_depth.iloc[at])} with {name(family[at])}" for at in (0, -1))
        return f"test accuracy {'grows' if means[-1] > means[0] else 'falls'} with depth, from {first} to {last}"
    return f"{findings.label(top)} has the highest mean test accuracy, {_percent(top)}"


def _certainty(top: str, against: Mapping[str, Comparison]) -> str:
    """Which of the others it is better than by more than chance."""

    def those(verdict: str) -> list[str]:
        return [name(other) for other, comparison in against.items() if _verdict(comparison) == verdict]

    better, tied, same, unknown = map(those, (BEYOND, WITHIN, SAME, UNKNOWN))
    if len(unknown) == len(against):
        n = max(comparison.n for comparison in against.values())
        shared = "The models share one seed only" if n else "The models share no seed"
        return f"{shared}: {NOT_ENOUGH} whether that is more than chance."
    parts = []
    if better:
        others = "each other model" if len(better) == len(against) > 1 else _those(better)
        parts.append(f"{top} is better than {others} by more than chance")
    if tied:
        lead = "its lead" if parts else "Its lead" if top == "It" else f"The lead of {top}"
        parts.append(f"{lead} over {_those(tied)} may be chance")
    if same:
        parts.append(f"{_those(same)} {'has' if len(same) == 1 else 'have'} the same mean")
    if unknown:
        parts.append(f"for {_those(unknown)} there are {NOT_ENOUGH}")
    return f"{'; '.join(parts)}."


def _those(models: Sequence[str]) -> str:
    return listed(models, MOST_NAMES, "other models")


def _lead(compared: Sequence[Comparison], top: str, other: str) -> Comparison:
    """The other minus the top, over the seeds that both have."""
    found = findings.between(compared, top, other)
    assert found is not None  # the top one is compared with each
    if found.first == top:
        return found
    return replace(found, first=top, second=other, difference=-found.difference, low=-found.high, high=-found.low)


def _verdict(comparison: Comparison) -> str:
    """Of another model against the one with the highest mean."""
    if comparison.verdict == "unknown":
        return UNKNOWN
    if comparison.difference == 0:
        return SAME
    return BEYOND if comparison.verdict == "lower" else WITHIN


# one model


def _of_configurations(tables: Tables, configurations: pd.DataFrame, on: str) -> Answer:
    """The configuration that was chosen, beside the next best ones."""
    ranked = configurations.sort_values(["chosen", "val_accuracy_mean"], ascending=False, kind="stable")
    shown = ranked[:MOST_CONFIGURATIONS]
    best, ids = shown.iloc[0], shown["config_id"].tolist()
    complete = tables.complete[tables.complete["config_id"].isin(ids) & tables.complete["seed"].notna()]
    values: dict[str, dict[int, float]] = {id: {} for id in ids}
    for id, runs in complete.groupby("config_id"):
        values[str(id)] = dict(zip(runs["seed"].astype(int), runs["test_accuracy"], strict=True))
    compared = compare(values, [(ids[0], id) for id in ids[1:]])
    against = {comparison.second: comparison for comparison in compared}
    keys = independent(configurations, [*SETTINGS, *tables.settings])
    with_settings = listed([f"{name(_title(key))} {short(best[key])}" for key in keys[:MOST_NAMES]])
    reaches = f"reaches {_percent(best)} test accuracy"
    best_of = f"the best of {count(len(configurations), 'configuration')} by validation accuracy"
    sentence = f"{on} {best_of} {reaches}, with {with_settings}."
    rows = []
    for (_, row), cells in zip(shown.iterrows(), _rows(shown, against, "config_id"), strict=True):
        settings = {_title(key): short(row[key]) if pd.notna(row[key]) else "" for key in keys[:MOST_NAMES]}
        rows.append({**settings, **{key: cell for key, cell in cells.items() if key != "model"}})
    sentences = [sentence, _certainty_of_configurations(against, len(configurations))]
    return Answer(sentences, rows, *_more_seeds(against, shown, len(compared)))


def _title(key: str) -> str:
    return key if "." in key else key.replace("_", " ")


def _certainty_of_configurations(against: Mapping[str, Comparison], of: int) -> str:
    verdicts = {_verdict(comparison) for comparison in against.values()}
    if verdicts == {UNKNOWN}:
        return f"With so few seeds there are {NOT_ENOUGH} whether another one is as good."
    if verdicts == {BEYOND}:
        others = f"the next {len(against)}" if len(against) < of - 1 else "the others" if of > 2 else "the other one"
        return f"It is better than {others} by more than chance."
    return "Another one may be as good: its lead over the next ones may be chance."


def _of_one(row: "pd.Series[Any]", on: str) -> Answer:
    n = int(row["n"])
    sentence = f"{on} {findings.label(row)} reaches {_percent(row)} test accuracy with {count(n, 'seed')}"
    changes = {"seed": f"range({FIRST_SEEDS})"} if n == 1 else None
    what = f"Next: {FIRST_SEEDS} seeds would say how much of that is luck." if n == 1 else ""
    return Answer(
        [f"{sentence}; there is no other model to compare it with."], _rows(pd.DataFrame([row])), what, changes
    )


# the numbers


def _percent(row: "pd.Series[Any]") -> str:
    return f"{100 * float(row['test_accuracy_mean']):.1f} %"


def _rows(
    summary: pd.DataFrame, against: Mapping[str, Comparison] | None = None, key: str = "label"
) -> list[dict[str, str]]:
    rows = []
    for _, row in summary.iterrows():
        cells = {
            "model": findings.label(row),
            "seeds": str(row["n"]),
            "test accuracy": accuracy(row, "test_accuracy"),
        }
        if against is not None:
            cells["against the best"] = _against(against.get(str(row[key])))
        rows.append(cells)
    return rows


def _against(comparison: Comparison | None) -> str:
    if comparison is None:
        return "the best"
    if not comparison.n:
        return "no seed in common"
    if comparison.difference == 0:
        return SAME
    side = "lower" if comparison.difference < 0 else "higher"
    return f"{points(abs(comparison.difference))} points {side}, {_verdict(comparison)}"


# what is open


def _more_seeds(against: Mapping[str, Comparison], rows: pd.DataFrame, num_compared: int) -> tuple[str, Any]:
    """How many seeds would tell the best from its closest rival, if they differ as much as they seem to."""
    undecided = [each for each in against.values() if _verdict(each) != BEYOND]
    if not undecided:
        return "", None
    if any(each.verdict == "unknown" for each in undecided):
        num_seeds = max(FIRST_SEEDS, int(rows["n"].max()))
        what = f"Next: {num_seeds} seeds for each would tell which differences are more than chance."
        return what, {"seed": f"range({num_seeds})"}
    closest = undecided[0]
    needed = _seeds_for(closest.effect_size, num_compared)
    if needed is None:
        return f"Even {MOST_SEEDS} seeds would hardly tell the best from the next one: they are about as good.", None
    num_seeds = max(needed, closest.n + 2)
    return (
        f"Next: {num_seeds} seeds would probably tell the best from the next one, if they differ as much as it seems.",
        {"seed": f"range({num_seeds})"},
    )


def _seeds_for(effect_size: float, num_compared: int) -> int | None:
    """The least number of seeds that show such a difference with a chance of 80 %; None beyond MOST_SEEDS."""
    for n in range(3, MOST_SEEDS + 1):
        if abs(effect_size) * math.sqrt(n) >= t_quantile(n - 1, 1 - ALPHA / num_compared) + POWER:
            return n
    return None


def _of_search(answer: Answer, study: Study, depth: DepthStudy | None) -> Answer:
    """The same answer with what a search can do: go on where it still found better trials, else final runs."""
    ended = [trial for trial in study.trials if trial.state in ENDED]
    if not answer.changes or len(study.best) != 1:
        return replace(answer, open="", changes=None)
    later = sum(trial.number > study.best[0] for trial in ended)
    if study.n_trials and later < LATE * len(ended):
        what = f"Next: the best trial was among the last of {len(ended)}, so a longer search may find a better one."
        return replace(answer, open=what, changes={"hydra.sweeper.n_trials": str(2 * study.n_trials)})
    if any(trial.runs is not None for trial in study.trials):
        return replace(answer, open="", changes=None)
    repeats, finalists = FIRST_SEEDS, MOST_FINALISTS
    if depth and depth.finalists:
        repeats, finalists = max(FIRST_SEEDS, 2 * depth.repeats), depth.finalists
    what = f"Next: {repeats} fresh seeds for the best trials would tell which of them is best."
    return replace(
        answer, open=what, changes={"hydra.sweeper.finalists": str(finalists), "hydra.sweeper.repeats": str(repeats)}
    )


def _open_depths(study: DepthStudy) -> tuple[str, Any]:
    """More seeds where they cannot tell the chosen configurations apart; else a longer search, whose luck decides."""
    undecided = [pair for pair in pairs(study) if pair.depths.verdict in ("tie", "unknown")]
    if not undecided:
        return "", None
    if all(pair.configurations.verdict in ("tie", "unknown") for pair in undecided):
        repeats = max(FIRST_SEEDS, 2 * study.repeats)
        what = f"Next: {repeats} seeds would tell more about the depths that do not differ yet."
        return what, {"hydra.sweeper.repeats": str(repeats)}
    what = "Next: a longer search, as with this one luck may have chosen the configurations that seem to differ."
    amount = re.fullmatch(r"(\d+) ([a-z]+)", study.budget)
    return what, {"hydra.sweeper.budget": f"{amount[2]}:{2 * int(amount[1])}"} if amount else None


def _command_with(changes: Mapping[str, str], sources: Sequence[Path]) -> str | None:
    """The last command of a sweep with these values, under the same name: what is trained is not trained again."""
    if len(sources) != 1:
        return None
    words: list[str] = []
    with contextlib.suppress(OSError, ValueError):
        words = sweeps.SweepRecord.read(sources[0]).commands[-1].command_line or []
    start = next((start for start in STARTS if words[: len(start)] == start), words)
    if not {"-m", "--multirun"} & set(words[len(start) :]):
        return None
    kept = [word for word in words if word.partition("=")[0].lstrip("+~") not in changes]
    if not any(word.startswith("name=") for word in kept):
        kept.append(f"name={sources[0].name}")
    return shlex.join([*kept, *(f"{key}={value}" for key, value in changes.items())])
