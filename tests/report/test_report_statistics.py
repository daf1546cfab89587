"""The report's statistics, against scipy.stats."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from scipy import stats

from cifarsweep.report import statistics
from cifarsweep.report.statistics import Comparison, compare, error_of_highest, t_quantile


def accuracies(seed: int, n: int, mean: float) -> dict[int, float]:
    chance = random.Random(seed)
    return {number: round(chance.gauss(mean, 0.004), 4) for number in range(n)}


def compared(first: dict[int, float], second: dict[int, float]) -> Comparison:
    (comparison,) = statistics.compare({"a": first, "b": second}, [("a", "b")])
    return comparison


# Student's t


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
def test_the_t_quantile_is_scipys(confidence: float) -> None:
    for degrees in [*range(1, 101), 1000]:
        expected = stats.t.ppf((1 + confidence) / 2, degrees)
        assert statistics.t_quantile(degrees, confidence) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("t", [0.0, 0.3, -1.96, 4.3, 25.0, 1e9])
def test_the_p_value_is_scipys(t: float) -> None:
    for degrees in [*range(1, 31), 999]:
        assert statistics.p_value(t, degrees) == pytest.approx(2 * stats.t.sf(abs(t), degrees), rel=1e-9, abs=1e-14)


# comparisons


@pytest.mark.parametrize("n", [2, 3, 5, 20])
def test_a_comparison_is_scipys_paired_t_test(n: int) -> None:
    first, second = accuracies(1, n, 0.80), accuracies(2, n, 0.805)
    found = compared(first, second)
    expected = stats.ttest_rel(list(second.values()), list(first.values()))
    interval = expected.confidence_interval(0.95)
    differences = [second[seed] - first[seed] for seed in first]
    assert found.n == n
    assert found.p == pytest.approx(expected.pvalue, rel=1e-9)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=1e-9)
    assert found.effect_size == pytest.approx(stats.tmean(differences) / stats.tstd(differences), rel=1e-9)
    assert found.effect_size == pytest.approx(expected.statistic / math.sqrt(n), rel=1e-9)


def test_only_shared_seeds_are_compared() -> None:
    found = compared({0: 0.5, 1: 0.6, 7: 0.1}, {1: 0.7, 0: 0.7, 9: 0.9})
    assert found.n == 2
    assert found.difference == pytest.approx(0.15)


@pytest.mark.parametrize(
    ("second", "n", "difference"), [({}, 0, math.nan), ({5: 0.7}, 0, math.nan), ({0: 0.7}, 1, 0.2)]
)
def test_one_shared_seed_has_no_interval_and_no_p_value(second: dict[int, float], n: int, difference: float) -> None:
    found = compared({0: 0.5, 1: 0.6}, second)
    assert (found.n, found.verdict) == (n, "unknown")
    assert found.difference == pytest.approx(difference, nan_ok=True)
    assert all(math.isnan(value) for value in (found.low, found.high, found.effect_size, found.p, found.p_corrected))


def test_equal_values_are_a_tie() -> None:
    found = compared({0: 0.5, 1: 0.6}, {0: 0.5, 1: 0.6})
    assert (found.difference, found.low, found.high, found.effect_size, found.p) == (0, 0, 0, 0, 1)
    assert found.verdict == "tie"


def test_a_difference_that_never_varies_is_certain() -> None:
    found = compared({0: 0.1, 1: 0.6, 2: 0.3}, {0: 0.4, 1: 0.9, 2: 0.6})  # 0.3 up to the last bits of a double
    assert (found.p, found.effect_size, found.verdict) == (0, math.inf, "higher")
    assert (found.low, found.high) == pytest.approx((0.3, 0.3))


def test_a_difference_that_chance_explains_is_a_tie_and_the_sign_decides_otherwise() -> None:
    near, far = accuracies(1, 5, 0.80), accuracies(2, 5, 0.90)
    assert compared(near, accuracies(3, 5, 0.80)).verdict == "tie"
    assert compared(near, far).verdict == "higher"
    assert compared(far, near).verdict == "lower"


# many comparisons


def test_p_values_are_corrected_over_the_pairs_that_are_compared_together() -> None:
    values = {name: accuracies(at, 5, 0.80 + 0.004 * at) for at, name in enumerate("abcd")}
    pairs = [("a", "b"), ("a", "c"), ("a", "d"), ("b", "c"), ("b", "d"), ("c", "d")]
    found = statistics.compare(values, pairs)
    assert [(one.first, one.second) for one in found] == pairs
    assert [one.p_corrected for one in found] == statistics.holm([one.p for one in found])
    smallest = min(found, key=lambda one: one.p)
    assert smallest.p_corrected == pytest.approx(6 * smallest.p)


@pytest.mark.parametrize(
    ("p_values", "corrected"),
    [
        ([], []),
        ([0.03], [0.03]),
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),  # the example of R's p.adjust
        ([0.5, 0.6], [1.0, 1.0]),
        ([0.02, 0.02], [0.04, 0.04]),
    ],
)
def test_holms_correction(p_values: list[float], corrected: list[float]) -> None:
    assert statistics.holm(p_values) == pytest.approx(corrected)


def test_holms_correction_rejects_what_its_definition_rejects() -> None:
    chance = random.Random(0)
    for _ in range(200):
        p_values = [chance.random() ** 4 for _ in range(chance.randint(1, 8))]
        rejected = 0
        for rank, p in enumerate(sorted(p_values)):
            if p > 0.05 / (len(p_values) - rank):
                break
            rejected += 1
        assert sum(p <= 0.05 for p in statistics.holm(p_values)) == rejected


def test_a_p_value_that_is_not_known_is_not_counted() -> None:
    first, unknown, second = statistics.holm([0.01, math.nan, 0.02])
    assert (first, second) == (0.02, 0.02)
    assert math.isnan(unknown)


# proportions


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (10, 10), (519, 1000), (1, 1)])
def test_the_interval_of_a_proportion_is_scipys(successes: int, n: int) -> None:
    expected = stats.binomtest(successes, n).proportion_ci(0.95, method="wilson")
    assert statistics.wilson(successes, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_no_trials_have_no_proportion() -> None:
    assert all(math.isnan(end) for end in statistics.wilson(0, 0))


def test_the_error_of_the_highest_is_that_of_drawing_again() -> None:
    chance = np.random.default_rng(0)
    values = chance.normal(size=16)
    drawn = values[chance.integers(0, 16, (50_000, 16))].max(axis=1).std()
    assert error_of_highest(list(values)) == pytest.approx(drawn, rel=0.02)
    assert error_of_highest([0.7, 0.7, 0.7]) == 0
    assert math.isnan(error_of_highest([0.7]))


def test_an_error_that_no_seed_shows_widens_the_interval_and_one_that_nobody_knows_leaves_no_verdict() -> None:
    values = {"a": {1: 0.70, 2: 0.71, 3: 0.72}, "b": {1: 0.75, 2: 0.76, 3: 0.77}}
    (alone,) = compare(values, [("a", "b")])
    (widened,) = compare(values, [("a", "b")], {"a": 0.03, "b": 0.04})
    (unknown,) = compare(values, [("a", "b")], {"a": math.nan})
    assert (alone.verdict, widened.verdict, unknown.verdict) == ("higher", "tie", "unknown")
    assert widened.high - widened.difference == pytest.approx(0.05 * t_quantile(2))
    assert unknown.difference == widened.difference == alone.difference
