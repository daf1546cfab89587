"""What a depth study found, in sentences that claim no more than its intervals allow. Knows the study only."""

from collections import Counter
from collections.abc import Sequence
from statistics import fmean

from cifarsweep.report.depth_study import NUM_BEST, DepthStudy, Pair, Searched, pairs
from cifarsweep.report.findings import NOT_ENOUGH, comparison_cells, comparison_sentence, name, percent, points, short
from cifarsweep.report.style import mean_and_interval, span
from cifarsweep.terminal.formatting import count

ON = {"train": "the training images", "train_val": "the training and the validation images"}


def answer(study: DepthStudy) -> list[str]:
    """A sentence for each comparison, and what it takes to be claimed."""
    if not any(searched.by_seed for searched in study.studies):
        return [f"No final run is complete yet: {NOT_ENOUGH}."]
    of_pairs = pairs(study)
    sentences = [
        _answer(group, [pair for pair in of_pairs if pair.comparison == key])
        for key, group in study.comparisons.items()
    ]
    if of_pairs:
        sentences.append(
            "A difference between depths is claimed where it is beyond what the seeds and the luck of the search "
            "explain (p < 0.05, corrected by Holm's method within each comparison). What is not claimed may be there, "
            "but was not seen."
        )
    return sentences


def _answer(group: Sequence[Searched], of_pairs: Sequence[Pair]) -> str:
    done = [searched for searched in group if searched.by_seed]
    on = _at(group[0].comparison)
    if not done:
        return f"{_capital(f'{on}no')} final run is complete yet."
    means = ", ".join(f"{mean_text(searched)} with {name(searched.label)}" for searched in done)
    sentence = f"{_capital(f'{on}test')} accuracy is {means}."
    unknown = [pair for pair in of_pairs if pair.depths.verdict == "unknown"]
    tied = [pair.depths for pair in of_pairs if pair.depths.verdict == "tie"]
    claims = [comparison_sentence(p.depths) for p in of_pairs if p.depths.verdict in ("higher", "lower")]
    if claims:
        *first, last = claims
        sentence += f" {', '.join(first)} and {last}." if first else f" {last}."
    if tied and len(tied) == len(of_pairs):
        return f"{sentence} No difference between neighbouring depths is beyond chance."
    if tied:
        between = "; ".join(f"{name(comparison.first)} and {name(comparison.second)}" for comparison in tied)
        sentence += f" No difference is beyond chance between {between}."
    if unknown:
        sentence += f" For {count(len(unknown), 'pair')} there are {NOT_ENOUGH}."
    return sentence


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
        f"best configuration was then trained on {ON.get(study.final_on, name(study.final_on))} with {seeds}; the "
        f"test images were seen once, at the end of each of these runs, and no choice was made by them.{unfinished}"
    )


def sentences(study: DepthStudy) -> dict[str, str]:
    """What each figure shows, by its stem."""
    groups = [[each for each in group if each.by_seed] for group in study.comparisons.values()]
    tops = [max(group, key=lambda each: fmean(each.by_seed.values())) for group in groups if group]
    if not tops:
        return {}
    done = [searched for searched in study.studies if searched.by_seed]
    top = max(done, key=lambda searched: fmean(searched.by_seed.values()))
    highest = "; ".join(f"{_at(each.comparison)}{name(each.label)}, {mean_text(each)}" for each in tops)
    gap = f"No search has a promise to compare with the test: {NOT_ENOUGH}."
    gaps = [fmean(searched.gaps()) for searched in done if searched.gaps()]
    if gaps:
        gap = (
            f"What the search promised, less what the test gave: {points(fmean(gaps), signed=True)} points on average "
            f"({points(min(gaps), signed=True)} to {points(max(gaps), signed=True)})."
        )
    settings = "The settings with the best validation accuracy in each search."
    optimizers = [searched.chosen.params.get("optimizer") for searched in done if searched.chosen]
    counts = Counter(str(optimizer) for optimizer in optimizers if optimizer is not None)
    if counts:
        listed = ", ".join(f"{name(optimizer)} {number}" for optimizer, number in counts.most_common())
        settings = f"Optimizers that were chosen, by number of searches: {listed}."
    return {
        "depth_study": f"The highest means: {highest}.",
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
        have = "has" if len(ranges) == 1 else "have"
        sentence = f"{len(ranges)} of {count(len(study.studies), 'search')} {have} {NUM_BEST} complete trials or more"
        sentence += f"; of such a search the best {NUM_BEST} lie within {within} points"
    comparison = widest.comparison and f", {widest.comparison}"
    furthest = f"; furthest apart are those of {name(widest.label)}{comparison}" if least < most else ""
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
    texts = {"unknown": "not enough to say", "tie": "no difference beyond chance"}
    cells = []
    for pair in pairs(study):
        depths = comparison_cells(pair.depths, **texts)
        of_depths = {"depths": depths["interval"], "depths_p": depths["p_corrected"], "verdict": depths["verdict"]}
        cells.append({"comparison": pair.comparison, **comparison_cells(pair.configurations, **texts), **of_depths})
    return cells


def mean_text(searched: Searched) -> str:
    """82.0 ± 0.4 %: the interval is that of the seeds."""
    mean, _, low, high = searched.interval
    return percent(mean, low, high)
