"""What a depth study found, in sentences that claim no more than its intervals allow. Knows the study only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from cifarsweep.report.depth_study import NUM_BEST, DepthStudy, Pair, Searched, interval, pairs
from cifarsweep.report.findings import NOT_ENOUGH, name, p_text, points
from cifarsweep.report.statistics import degrees, t_quantile
from cifarsweep.report.style import count, span_of

ON = {"train": "the training images", "train_val": "the training and the validation images"}


def answer(study: DepthStudy) -> list[str]:
    """A sentence a comparison, and which claims they are."""
    of_pairs = pairs(study)
    found = [_answer(group, [p for p in of_pairs if p.comparison == key]) for key, group in study.comparisons.items()]
    if not any(one.by_seed for one in study.studies):
        return [f"No final run is complete yet: {NOT_ENOUGH}."]
    if of_pairs:
        found.append(
            "A difference between depths is claimed where it is beyond what the seeds and the luck of the search "
            "explain (p < 0.05, corrected by Holm's method within each comparison). What is not claimed may be there, "
            "but was not seen."
        )
    return found


def _answer(group: Sequence[Searched], of_pairs: Sequence[Pair]) -> str:
    done = [one for one in group if one.by_seed]
    on = _at(group[0].comparison)
    if not done:
        return f"{_capital(f'{on}no')} final run is complete yet."
    means = ", ".join(f"{mean_text(one)} {name(one.label)}" for one in done)
    claims = [_claim(pair) for pair in of_pairs if pair.depths.verdict in ("higher", "lower")]
    open_pairs = [pair for pair in of_pairs if pair.depths.verdict not in ("higher", "lower")]
    sentence = f"{_capital(f'{on}test')} accuracy is {means}."
    if claims:
        sentence += f" {_listed(claims)}."
    unknown = [pair for pair in open_pairs if pair.depths.verdict == "unknown"]
    if len(of_pairs) and len(open_pairs) == len(of_pairs) and not unknown:
        return f"{sentence} No difference between neighbouring depths is beyond chance."
    tied = [f"{name(pair.first.label)} and {name(pair.second.label)}" for pair in open_pairs if pair not in unknown]
    if tied:
        sentence += f" No difference is beyond chance between {'; '.join(tied)}."
    if unknown:
        sentence += f" For {count(len(unknown), 'pair')} there are {NOT_ENOUGH}."
    return sentence


def _at(comparison: str) -> str:
    """At equal width, with optimizer adamw; nothing where nothing is equal but what every run has."""
    return comparison and f"{'at' if comparison.startswith('equal') else 'with'} {comparison} "


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _claim(pair: Pair) -> str:
    one, better = pair.depths, pair.depths.difference > 0
    low, high = (one.low, one.high) if better else (-one.high, -one.low)
    upper, lower = (pair.second, pair.first) if better else (pair.first, pair.second)
    interval = f"95 % interval {points(low)} to {points(high)}, {p_text(one.p_corrected)}"
    return f"{name(upper.label)} is {points(abs(one.difference))} points above {name(lower.label)} ({interval})"


def protocol(study: DepthStudy) -> str:
    trials = [sum(t.state in ("complete", "pruned", "failed") for t in one.trials) for one in study.studies]
    epochs = [sum(t.num_epochs for t in one.trials) for one in study.studies]
    over = sum(one.is_over for one in study.studies)
    unfinished = "" if over == len(study.studies) else f" {len(study.studies) - over} searches are not over yet."
    searches = "1 search" if len(study.studies) == 1 else f"{len(study.studies)} searches"
    seeds = f"{count(len(study.seeds), 'seed')} that no trial had ({', '.join(map(str, study.seeds))})"
    return (
        f"{searches} of {study.budget} each, of at most {count(study.max_epochs, 'epoch')} a trial, made "
        f"{span_of(trials, 'trial')} of {span_of(epochs, 'epoch')} in all; they saw validation accuracy only. The best "
        f"configuration of each was then trained on {ON.get(study.final_on, name(study.final_on))} with {seeds}; the "
        f"test images were seen once, at the end of each of these runs, and no choice was made by them.{unfinished}"
    )


def sentences(study: DepthStudy) -> dict[str, str]:
    """What each figure shows, by its stem."""
    done = [one for one in study.studies if one.by_seed]
    if not done:
        return {}
    gaps = [fmean(one.gaps()) for one in done if one.gaps()]
    ranges = [(one.best[0] - one.best[-1], one) for one in study.studies if len(one.best) == NUM_BEST]
    widest = max(ranges, key=lambda pair: pair[0], default=None)
    flat = (
        f"The best {NUM_BEST} trials of a search are {points(min(r for r, _ in ranges))} to {points(widest[0])} points "
        f"apart, the most at {name(widest[1].label)}, {widest[1].comparison}."
        if widest
        else f"No search has {NUM_BEST} complete trials: {NOT_ENOUGH}."
    )
    top = max(done, key=lambda one: fmean(one.by_seed.values()))
    return {
        "depth_study": _highest_sentence(study),
        "depth_study_gap": (
            f"The search promised {points(abs(fmean(gaps)))} points {'more' if fmean(gaps) >= 0 else 'less'} than the "
            f"test gave, on average "
            f"({points(min(gaps), signed=True)} to {points(max(gaps), signed=True)})."
            if gaps
            else f"{NOT_ENOUGH}."
        ),
        "depth_study_flatness": flat,
        "depth_study_settings": _settings_sentence(done),
        "depth_study_cost": f"{_capital(_at(top.comparison))}{name(top.label)} has the highest mean, {mean_text(top)}.",
    }


def _highest_sentence(study: DepthStudy) -> str:
    parts = []
    for comparison, group in study.comparisons.items():
        done = [one for one in group if one.by_seed]
        if done:
            top = max(done, key=lambda one: fmean(one.by_seed.values()))
            parts.append(f"{_at(comparison)}{name(top.label)}, {mean_text(top)}")
    return f"The highest means: {'; '.join(parts)}."


def _settings_sentence(done: Sequence[Searched]) -> str:
    chosen = [one.chosen.params.get("optimizer") for one in done if one.chosen]
    counts = {str(key): chosen.count(key) for key in dict.fromkeys(chosen) if key is not None}
    if not counts:
        return "The settings with the best validation accuracy in each search."
    listed = ", ".join(f"{name(key)} {number}" for key, number in sorted(counts.items(), key=lambda item: -item[1]))
    return f"Optimizers that {len(chosen)} searches chose: {listed}."


def rows(study: DepthStudy) -> list[dict[str, str]]:
    """The table of the page: a row a comparison and depth."""
    found = []
    for group in study.comparisons.values():
        for one in group:
            flops, params = one.about.get("flops"), one.about.get("params")
            found.append(
                {
                    "comparison": one.comparison,
                    "model": name(one.label),
                    "width": str(one.about.get("width") or ""),
                    "parameters": "" if params is None else f"{params:,}",
                    "multiply-adds": "" if flops is None else f"{flops // 2:,}",
                    "seeds": str(len(one.by_seed)),
                    "test %": mean_text(one).removesuffix(" %"),
                    "± with search": _with_search(one),
                    "gap": points(fmean(one.gaps()), signed=True) if one.gaps() else "",
                    "chosen": _chosen(study, one),
                }
            )
    return found


def _with_search(one: Searched) -> str:
    _, _, low, high = interval(list(one.by_seed.values()))
    if low is None or high is None or math.isnan(one.search_error):
        return ""
    n = len(one.by_seed)
    error = math.hypot((high - low) / 2 / t_quantile(degrees(n)), one.search_error)
    return f"± {100 * t_quantile(degrees(n, one.search_error)) * error:.1f}"


def _chosen(study: DepthStudy, one: Searched) -> str:
    if one.chosen is None:
        return ""
    params = one.chosen.params
    return ", ".join(
        f"{key.removeprefix('optimizer.')} {_short(params[key])}" for key in study.settings if key in params
    )


def _short(value: Any) -> str:
    return name(f"{value:.3g}" if isinstance(value, float) else str(value))


def pair_rows(study: DepthStudy) -> list[dict[str, str]]:
    found = []
    for pair in pairs(study):
        chosen, depths = pair.chosen, pair.depths
        known = chosen.n >= 2
        found.append(
            {
                "comparison": pair.comparison,
                "pair": f"{name(pair.second.label)} − {name(pair.first.label)}",
                "n": str(chosen.n),
                "difference": points(chosen.difference, signed=True) if chosen.n else "",
                "seeds": f"{points(chosen.low)} to {points(chosen.high)}" if known else "",
                "effect_size": f"{chosen.effect_size:.2f}".replace("-", "−").replace("inf", "∞") if known else "",
                "p": p_text(chosen.p_corrected) if known else "",
                "depths": f"{points(depths.low)} to {points(depths.high)}" if not math.isnan(depths.low) else "",
                "depths_p": p_text(depths.p_corrected) if not math.isnan(depths.p_corrected) else "",
                "verdict": {
                    "unknown": "not enough to say",
                    "tie": "no difference beyond chance",
                    "higher": f"{name(pair.second.label)} is better",
                    "lower": f"{name(pair.first.label)} is better",
                }[depths.verdict],
            }
        )
    return found


def mean_text(one: Searched) -> str:
    """82.0 ± 0.4 %: the interval is that of the seeds."""
    mean, _, low, high = interval(list(one.by_seed.values()))
    if mean is None:
        return ""
    return (
        f"{100 * mean:.1f} %" if low is None or high is None else f"{100 * mean:.1f} ± {100 * (high - low) / 2:.1f} %"
    )


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
