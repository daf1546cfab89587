"""Intervals, paired comparisons and corrections for many of them. Knows numbers only: no tables, no figures.

Student's distribution is computed here, as SciPy would add 100 MB to an install for one function of it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from statistics import fmean, stdev

import numpy as np
from numpy.typing import NDArray

ALPHA = 0.05
"""Level of significance; 1 - ALPHA is the confidence of every interval."""
SEARCH_DEGREES = 4
"""At most so many degrees of freedom where the error of a search counts: the bootstrap of a maximum is a little small,
which Student's t with more degrees would not make up for (tests/test_depth_science.py)."""
ROUNDING = 1e-12
"""Accuracies are quotients of whole numbers: differences that are equal are so up to the last bits of a double."""


@dataclass(frozen=True)
class Comparison:
    """Two models over the seeds that both have, second minus first."""

    first: str
    second: str
    n: int
    difference: float
    """Mean of the differences; NaN where n is 0."""
    low: float
    high: float
    """Ends of the 95 % interval of the difference; NaN where n < 2."""
    effect_size: float
    """Cohen's d_z: mean over standard deviation of the differences; infinite where all are equal and none is 0."""
    p: float
    """Two-sided, of Student's t over the differences; NaN where n < 2."""
    p_corrected: float
    """By Holm's method, over the comparisons that were made together."""

    @property
    def verdict(self) -> str:
        """What may be said of it: `higher` or `lower` is the second; `tie` is a difference that chance explains."""
        if self.n < 2 or math.isnan(self.p):
            return "unknown"
        if self.p_corrected >= ALPHA:
            return "tie"
        return "higher" if self.difference > 0 else "lower"


def compare(
    values: Mapping[str, Mapping[int, float]],
    pairs: Sequence[tuple[str, str]],
    errors: Mapping[str, float] | None = None,
) -> list[Comparison]:
    """The comparison of each pair of names, over the keys (seeds) that their `values` share, corrected together.

    `errors` are standard errors of a name's values that no seed shows, as they are common to all of them: they widen
    the intervals; NaN where nobody knows them.
    """
    comparisons = []
    for first, second in pairs:
        seeds = sorted(values[first].keys() & values[second].keys())
        differences = np.array([values[second][seed] - values[first][seed] for seed in seeds])
        error = math.hypot(*((errors or {}).get(name, 0.0) for name in (first, second)))
        figures = _paired(differences, error)
        comparisons.append(Comparison(first, second, len(seeds), *figures, p_corrected=math.nan))
    corrected = holm([comparison.p for comparison in comparisons])
    return [replace(comparison, p_corrected=p) for comparison, p in zip(comparisons, corrected, strict=True)]


def _paired(differences: NDArray[np.float64], error: float) -> tuple[float, float, float, float, float]:
    """Difference, low, high, effect size and p of a comparison; `error` is common to all differences."""
    n, unknown = len(differences), (math.nan, math.nan, math.nan, math.nan)
    if n < 2:
        return float(differences[0]) if n else math.nan, *unknown
    mean, std = float(differences.mean()), float(differences.std(ddof=1))
    if math.isnan(error):
        return mean, *unknown
    if math.hypot(std, error) < ROUNDING:
        mean = 0.0 if abs(mean) < ROUNDING else mean
        return mean, mean, mean, math.copysign(math.inf, mean) if mean else 0.0, 0.0 if mean else 1.0
    of_mean = math.hypot(std / math.sqrt(n), error)
    half = t_quantile(degrees(n, error)) * of_mean
    effect_size = mean / std if std >= ROUNDING else math.copysign(math.inf, mean)
    return mean, mean - half, mean + half, effect_size, p_value(mean / of_mean, degrees(n, error))


def compare_unpaired(first: Sequence[float], second: Sequence[float]) -> Comparison:
    """Second minus first where no value of one belongs to a value of the other: Welch's t-test.

    Its degrees of freedom are rounded down. The comparison's `n` is that of the smaller sample.
    """
    n, unknown = min(len(first), len(second)), math.nan
    difference = fmean(second) - fmean(first) if n else math.nan
    if n < 2:
        return Comparison("first", "second", n, difference, *[unknown] * 5)
    variances = [stdev(values) ** 2 for values in (first, second)]
    parts = [variance / len(values) for variance, values in zip(variances, (first, second), strict=True)]
    error = math.sqrt(sum(parts))
    if error < ROUNDING:
        difference = 0.0 if abs(difference) < ROUNDING else difference
        effect_size = math.copysign(math.inf, difference) if difference else 0.0
        p = 0.0 if difference else 1.0
        return Comparison("first", "second", n, difference, difference, difference, effect_size, p, p)
    shares = (part**2 / (len(values) - 1) for part, values in zip(parts, (first, second), strict=True))
    degrees = max(n - 1, int(sum(parts) ** 2 / sum(shares)))
    half, p = t_quantile(degrees) * error, p_value(difference / error, degrees)
    effect_size = difference / math.sqrt(fmean(variances))
    return Comparison("first", "second", n, difference, difference - half, difference + half, effect_size, p, p)


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values corrected for their number (Holm 1979); those that are NaN stay so and are not counted."""
    known = sorted((p, at) for at, p in enumerate(p_values) if not math.isnan(p))
    corrected, largest = list(p_values), 0.0
    for rank, (p, at) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - rank) * p))
        corrected[at] = largest
    return corrected


def half_interval(std: float, n: float) -> float:
    """Half the width of the 95 % interval of a mean of `n` values, by Student's t; NaN where n < 2."""
    return t_quantile(int(n) - 1) * std / math.sqrt(n) if n >= 2 else math.nan


def mean_interval(values: Sequence[float]) -> tuple[float, float, float, float]:
    """Mean, standard deviation (n - 1) and the ends of the 95 % interval; NaN where there are too few values."""
    if len(values) < 2:
        return (values[0] if values else math.nan), math.nan, math.nan, math.nan
    mean, deviation = fmean(values), stdev(values)
    half = half_interval(deviation, len(values))
    return mean, deviation, mean - half, mean + half


def within_0_and_1(low: float, high: float) -> tuple[float, float]:
    """The ends of an interval of accuracies, which have no others; NaN stays so."""
    return max(low, 0.0), min(high, 1.0)


def degrees(n: int, error: float = 0.0) -> int:
    """Degrees of freedom of a mean of `n` values, which may have the `error` of a search in common."""
    return min(n - 1, SEARCH_DEGREES) if error else n - 1


def error_of_highest(values: Sequence[float]) -> float:
    """The standard deviation of the highest of `values` if as many were drawn from them again (bootstrap), exactly.

    Large where the best value stands alone, small where several are as good: how much a search's luck may bring.
    NaN where n < 2.
    """
    n = len(values)
    if n < 2:
        return math.nan
    highest = np.sort(np.asarray(values, dtype=float))
    chances = np.diff((np.arange(n + 1) / n) ** n)  # that a draw of n has its highest at each place
    mean = float(chances @ highest)
    return math.sqrt(max(0.0, float(chances @ (highest - mean) ** 2)))


def wilson(successes: int, n: int) -> tuple[float, float]:
    """The 95 % interval of a proportion (Wilson 1927), right for proportions near 0 and 1 too; NaN where n is 0."""
    if n == 0:
        return math.nan, math.nan
    z = 1.959963984540054  # the normal distribution's quantile of 0.975
    centre = (successes + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * math.sqrt(successes * (n - successes) / n + z * z / 4)
    return centre - half, centre + half


# Student's t


def p_value(t: float, degrees: int) -> float:
    """P(|T| >= |t|), to about 1e-15 absolute, for Student's T with a whole number of degrees of freedom."""
    return max(0.0, 1.0 - _probability_within(math.atan(abs(t) / math.sqrt(degrees)), degrees))


@cache
def t_quantile(degrees: int, confidence: float = 1 - ALPHA) -> float:
    """t such that |T| <= t with this probability, for Student's T with a whole number of degrees of freedom.

    Bisects the closed form of the probability (Abramowitz and Stegun, 26.7.3 and 26.7.4) in the angle
    arctan(t / sqrt(degrees)), in which it rises from 0 to 1 over a quarter turn.
    """
    low, high = 0.0, math.pi / 2
    for _ in range(60):  # halvings down to the last bit of a double
        middle = (low + high) / 2
        low, high = (middle, high) if _probability_within(middle, degrees) < confidence else (low, middle)
    return math.sqrt(degrees) * math.tan(low)


def _probability_within(angle: float, degrees: int) -> float:
    cosine_squared = math.cos(angle) ** 2
    odd = degrees % 2
    term = math.sin(angle) * (math.cos(angle) if odd else 1.0)
    total = 0.0
    for k in range(1 + odd, degrees, 2):
        total += term
        term *= cosine_squared * k / (k + 1)
    return (angle + total) * 2 / math.pi if odd else total
