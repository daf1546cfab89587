"""What a depth study found, in sentences that claim no more than its intervals allow. Knows the study only."""

from collections import Counter
from collections.abc import Sequence
from statistics import fmean

from cifarsweep.report.depth_study import NUM_BEST, DepthStudy, Searched, pairs
from cifarsweep.report.findings import NOT_ENOUGH, comparison_cells, name, percent, points, short
from cifarsweep.report.statistics import Comparison
from cifarsweep.report.style import mean_and_interval, span
from cifarsweep.terminal.formatting import count, listed

ON = {"train": "the training images", "train_val": "the training and the validation images"}


def answer(study: DepthStudy) -> list[str]:
    """A sentence for each comparison, and what it takes to be claimed."""
    if not any(searched.by_seed for searched in study.studies):
        return [f"No final run is complete yet: {NOT_ENOUGH}."]
    of_pairs = pairs(study)
    sentences = [
        _answer(group, [pair.depths for pair in of_pairs if pair.comparison == key])
        for key, group in study.comparisons.items()
    ]
    if of_pairs:
        sentences.append("Chance is what the seeds and the luck of the searches explain.")
    return sentences


def _answer(group: Sequence[Searched], steps: Sequence[Comparison]) -> str:
    """How accuracy goes from each depth to the next."""
    on = _at(group[0].comparison)
    on = f"{on.strip()}, " if on else ""
    done = [searched for searched in group if searched.by_seed]
    if not done:
        return _capital(f"{on}no final run is complete yet.")
    if len(group) == 1:
        return _capital(f"{on}test accuracy with {name(done[0].label)} is {mean_text(done[0])} in the final runs.")
    verdicts = [step.verdict for step in steps]
    grown = next((at for at, verdict in enumerate(verdicts) if verdict != "higher"), len(steps))
    parts = [f"accuracy grows up to {name(steps[grown - 1].second)}"] if grown else []
    rest = steps[grown:]
    if rest and {step.verdict for step in rest} == {"tie"}:
        parts.append(f"no difference {'after that' if grown else 'between neighbouring depths'} is beyond chance")
    elif rest:
        parts += [_step(step) for step in rest]
    return _capital(f"{on}{'; '.join(parts)}.")


def _step(step: Comparison) -> str:
    first, second = name(step.first), name(step.second)
    return {
        "higher": f"accuracy is higher with {second} than with {first}",
        "lower": f"accuracy is lower with {second} than with {first}",
        "tie": f"the difference between {first} and {second} may be chance",
        "unknown": f"of {first} and {second} there are {NOT_ENOUGH}",
    }[step.verdict]


def means(study: DepthStudy) -> list[dict[str, str]]:
    """The numbers of the answer: a row for each network, with its test accuracy in each comparison."""
    rows: dict[str, dict[str, str]] = {}
    for comparison, group in study.comparisons.items():
        for searched in group:
            row = rows.setdefault(searched.label, {"model": name(searched.label)})
            row[comparison or "test accuracy"] = mean_text(searched)
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    return [{column: row.get(column, "") for column in columns} for row in rows.values()]


def _at(comparison: str) -> str:
    """At equal width, with optimizer adamw; nothing where nothing is equal but what every run has."""
    return comparison and f"{'at' if comparison.startswith('equal') else 'with'} {comparison} "


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def protocol(study: DepthStudy) -> str:
    trials, epochs = zip(*((searched.num_ended, searched.num_epochs) for searched in study.studies), strict=True)
    going = sum(not searched.is_over for searched in study.studies)
    unfinished = f" Not over yet, of {study.budget} each: {count(going, 'search')}." if going else ""
    searches = "The search" if len(study.studies) == 1 else f"Each of {count(len(study.studies), 'search')}"
    seeds = f"{count(len(study.seeds), 'seed')} that no trial had ({', '.join(map(str, study.seeds))})"
    return (
        f"{searches} made {span(trials, 'trial')} of at most "
        f"{count(study.max_epochs, 'epoch')}, {span(epochs, 'epoch')} in all, and saw validation accuracy only. Its "
        f"best configuration was then trained on {ON.get(study.final_on, name(study.final_on))} with {seeds}. The "
        f"test images were seen once, at the end of each of these runs, and chose nothing.{unfinished}"
    )


def sentences(study: DepthStudy) -> dict[str, str]:
    """What each figure shows, by its stem."""
    groups = [[each for each in group if each.by_seed] for group in study.comparisons.values()]
    tops = [max(group, key=lambda each: fmean(each.by_seed.values())) for group in groups if group]
    if not tops:
        return {}
    done = [searched for searched in study.studies if searched.by_seed]
    top = max(done, key=lambda searched: fmean(searched.by_seed.values()))
    highest = listed([f"{name(each.label)} {_at(each.comparison)}".strip() for each in tops])
    gap = f"No search has a validation accuracy to compare with the test: {NOT_ENOUGH}."
    gaps = [fmean(searched.gaps()) for searched in done if searched.gaps()]
    if gaps:
        mean, least, most = (points(gap, signed=True) for gap in (fmean(gaps), min(gaps), max(gaps)))
        between = f" ({least} to {most})" if least != most else ""
        gap = f"Validation accuracy in the search, less test accuracy: {mean} points on average{between}."
    settings = "The settings with the best validation accuracy in each search."
    optimizers = [searched.chosen.params.get("optimizer") for searched in done if searched.chosen]
    counts = Counter(str(optimizer) for optimizer in optimizers if optimizer is not None)
    if counts:
        chosen = listed([f"{name(optimizer)} in {number}" for optimizer, number in counts.most_common()])
        settings = f"Of {count(len(optimizers), 'search')} the best trial has {chosen}."
    return {
        "depth_study": f"The highest mean is that of {highest}.",
        "depth_study_gap": gap,
        "depth_study_flatness": _flatness(study),
        "depth_study_settings": settings,
        "depth_study_cost": f"{_capital(_at(top.comparison))}{name(top.label)} has the highest mean, {mean_text(top)}.",
    }


def _flatness(study: DepthStudy) -> str:
    """How far the best NUM_BEST trials of a search lie apart, and of how many searches that can be said."""
    ranges = [(each.best[0] - each.best[-1], each) for each in study.studies if len(each.best) == NUM_BEST]
    if not ranges:
        return f"No search has {NUM_BEST} complete trials: {NOT_ENOUGH}."
    least, (most, widest) = min(r for r, _ in ranges), max(ranges, key=lambda pair: pair[0])
    within = points(most) if least == most else f"{points(least)} to {points(most)}"
    sentence = f"The best {NUM_BEST} trials of a search lie within {within} points"
    if len(ranges) < len(study.studies):
        has = "has" if len(ranges) == 1 else "have"
        sentence += f" ({len(ranges)} of {count(len(study.studies), 'search')} {has} so many complete ones)"
    comparison = widest.comparison and f" {_at(widest.comparison).strip()}"
    furthest = f"; they are furthest apart with {name(widest.label)}{comparison}" if least < most else ""
    return f"{sentence}{furthest}."


def rows(study: DepthStudy) -> list[dict[str, str]]:
    """The table of the page: a row a comparison and depth."""
    return [_row(study, searched) for group in study.comparisons.values() for searched in group]


def _row(study: DepthStudy, searched: Searched) -> dict[str, str]:
    params = searched.about.get("params")
    settings = searched.chosen.params if searched.chosen else {}
    with_search = [100 * part for part in (searched.interval[0], *searched.interval_with_search)]
    return {
        "comparison": searched.comparison,
        "model": name(searched.label),
        "width": str(searched.about.get("width") or ""),
        "parameters": "" if params is None else f"{params:,}",
        "multiply-adds": "" if searched.multiply_adds is None else f"{searched.multiply_adds:,}",
        "seeds": str(len(searched.by_seed)),
        "test %": mean_text(searched).removesuffix(" %"),
        "± with search": mean_and_interval(*with_search).partition(" ")[2],
        "gap": points(fmean(searched.gaps()), signed=True) if searched.gaps() else "",
        "chosen": ", ".join(
            f"{key.removeprefix('optimizer.')} {short(settings[key])}" for key in study.settings if key in settings
        ),
    }


def pair_rows(study: DepthStudy) -> list[dict[str, str]]:
    """The pairs on the page: the figures of their configurations, then interval, p and verdict of the depths."""
    cells = []
    for pair in pairs(study):
        depths = comparison_cells(pair.depths)
        of_depths = {"depths": depths["interval"], "depths_p": depths["p_corrected"], "verdict": depths["verdict"]}
        cells.append({"comparison": pair.comparison, **comparison_cells(pair.configurations), **of_depths})
    return cells


def mean_text(searched: Searched) -> str:
    """82.0 ± 0.4 %: the interval is that of the seeds."""
    mean, _, low, high = searched.interval
    return percent(mean, low, high)
