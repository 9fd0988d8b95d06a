from __future__ import annotations

from collections.abc import Callable
from math import sqrt
from statistics import NormalDist
from time import perf_counter

import numpy as np
import numpy.typing as npt
import pytest

from ml_pipeline.scoring.means import (
    bounded_interval,
    clustered_error,
    effective_count,
    mean_interval,
    wilson_interval,
)
from ml_pipeline.scoring.samples import pass_at_k
from ml_pipeline.scoring.statistics import share_interval
from ml_pipeline.scoring.student import t_quantile

VALUES = [1.0, 0.0, 1.0, 1.0, 0.0, 0.5, 3.0, 2.0]
CLUSTERS = ["a", "a", "b", "b", "b", "c", "d", "d"]


def test_clustered_error_by_the_formula_of_the_paper() -> None:
    # Miller (2024), equation 4: sum over all pairs of one cluster, squares included; times G / (G - 1).
    mean = sum(VALUES) / 8
    pairs = sum(
        (x - mean) * (y - mean)
        for x, c in zip(VALUES, CLUSTERS, strict=True)
        for y, d in zip(VALUES, CLUSTERS, strict=True)
        if c == d
    )
    assert clustered_error(VALUES, CLUSTERS) == pytest.approx(sqrt(pairs / 8**2 * 4 / 3))


def test_clustered_error_without_clusters_is_the_ordinary_one() -> None:
    ordinary = np.std(VALUES, ddof=1) / sqrt(8)
    assert clustered_error(VALUES) == pytest.approx(ordinary)
    assert clustered_error(VALUES, range(8)) == pytest.approx(ordinary)


def test_one_cluster_has_no_error() -> None:
    assert clustered_error(VALUES, ["a"] * 8) is None
    assert clustered_error([]) is None
    with pytest.raises(ValueError, match="8 values have 2 clusters"):
        clustered_error(VALUES, ["a", "b"])


def test_copies_count_once() -> None:
    # Every value five times: as good as the 40 different ones that it is.
    values = [float(i % 3 == 0) for i in range(40) for _ in range(5)]
    clusters = [i for i in range(40) for _ in range(5)]
    assert effective_count(values, clusters) == pytest.approx(40)
    assert effective_count(values, range(200)) == pytest.approx(200)


@pytest.mark.parametrize(
    ("clusters", "count"),
    # Kish's count of unequal clusters is their sum squared over the sum of squares: 6^2 / (4^2 + 1 + 1) = 2.
    [("aabbcc", 3), ("aaaaaa", 1), ("abcdef", 6), ("aaaabc", 2)],
)
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_values_that_are_all_alike_count_as_their_clusters(clusters: str, count: int, value: float) -> None:
    assert effective_count([value] * 6, clusters) == pytest.approx(count)


def test_one_value_unlike_the_others_says_little_about_clusters() -> None:
    clusters = [i for i in range(20) for _ in range(10)]
    counts = [effective_count([float(i >= wrong) for i in range(200)], clusters) for wrong in (0, 1, 2)]
    spread = [effective_count([float(i % 10 >= wrong) for i in range(200)], clusters) for wrong in (0, 1)]
    assert counts[0] == spread[0] == pytest.approx(20)
    assert 20 < counts[1] < 60
    # A mistake in each template, instead: they do not hang together at all.
    assert spread[1] > 170


def test_one_template_is_one_answer() -> None:
    # Wilson's interval of 1 of 1.
    assert share_interval([True] * 14, ["t"] * 14) == pytest.approx(wilson_interval(1, 1))
    assert (share_interval([True] * 14, ["t"] * 14) or (0, 0))[0] == pytest.approx(1 / (1 + 1.959964**2))


@pytest.mark.parametrize("count", [2, 7, 19])
def test_few_values_have_students_interval_widened_for_lopsided_ones(count: int) -> None:
    values = (VALUES * 3)[:count]
    margin = t_quantile(count - 1) * (1 + 4 / (count + 2)) * np.std(values, ddof=1) / sqrt(count)
    assert mean_interval(values) == pytest.approx((np.mean(values) - margin, np.mean(values) + margin))


def bca(values: npt.NDArray[np.float64], confidence: float) -> tuple[float, float]:
    """B. Efron and R. J. Tibshirani, An Introduction to the Bootstrap (1993), 14.9 to 14.15, by 100,000 resamples."""
    normal, count = NormalDist(), len(values)
    means = np.random.default_rng(1).choice(values, (100_000, count)).mean(axis=1)
    bias = normal.inv_cdf(float((means < values.mean()).mean()))
    without = (values.sum() - values) / (count - 1)
    centred = without.mean() - without
    acceleration = float((centred**3).sum() / (6 * (centred**2).sum() ** 1.5))
    ends = [bias + normal.inv_cdf((1 + side * confidence) / 2) for side in (-1, 1)]
    low, high = np.quantile(means, [normal.cdf(bias + end / (1 - acceleration * end)) for end in ends])
    return float(low), float(high)


def test_the_bootstrap_is_bca_at_the_widened_confidence() -> None:
    values = np.exp(np.linspace(-2, 2, 30))
    # The check itself against scipy 1.17.1: stats.bootstrap((x,), np.mean, n_resamples=200_000, method="BCa",
    # confidence_level=2 * Phi(t(29) * sqrt(30 / 29)) - 1, rng=0).
    plain = t_quantile(29) * sqrt(30 / 29)
    assert bca(values, 2 * NormalDist().cdf(plain) - 1) == pytest.approx((1.242, 2.7964), rel=0.03)
    widened = 2 * NormalDist().cdf(plain * (1 + 4 / 32)) - 1
    assert mean_interval(values) == pytest.approx(bca(values, widened), rel=0.03)


def test_an_interval_is_the_same_every_time_and_turns_with_its_values() -> None:
    values = [float(i * i % 17) for i in range(41)]
    low, high = mean_interval(values) or (0, 0)
    assert mean_interval(values) == (low, high)
    assert mean_interval([10 * value + 3 for value in values]) == pytest.approx((10 * low + 3, 10 * high + 3))


@pytest.mark.parametrize("values", [[5.0] * 20, [5.0] * 3, [0.1] * 41, [0.0] * 5, [], [1.0]])
def test_equal_values_have_no_interval(values: list[float]) -> None:
    assert mean_interval(values) is None


def test_equal_values_between_bounds_are_as_unsure_as_so_many_answers() -> None:
    assert bounded_interval([1.0] * 8) == pytest.approx(wilson_interval(8, 8))
    assert bounded_interval([0.0] * 8, "aabbccdd") == pytest.approx(wilson_interval(0, 4))
    low, high = bounded_interval([0.5] * 8) or (0, 1)
    assert 0 < low < 0.5 < high < 1
    assert bounded_interval([]) is None


Draw = Callable[[np.random.Generator, int], npt.NDArray[np.float64]]


Interval = Callable[[npt.NDArray[np.float64]], tuple[float, float] | None]


def held(interval: Interval, draw: Draw, true: float, count: int, runs: int) -> float:
    """How often the interval of `count` values holds their true mean; one that is not there says nothing wrong."""
    generator = np.random.default_rng(5)
    found = [interval(draw(generator, count)) for _ in range(runs)]
    return float(np.mean([ends is None or ends[0] <= true <= ends[1] for ends in found]))


LOPSIDED: dict[str, tuple[Draw, float]] = {
    "normal": (lambda generator, count: generator.normal(1, 1, count), 1.0),
    "uniform": (lambda generator, count: generator.random(count), 0.5),
    "exponential": (lambda generator, count: generator.exponential(1, count), 1.0),
    "dice": (lambda generator, count: generator.integers(1, 7, count).astype(float), 3.5),
}


@pytest.mark.parametrize("name", LOPSIDED)
@pytest.mark.parametrize("count", [2, 3, 4, 5, 6, 7, 8])
def test_intervals_of_few_lopsided_values_hold_their_mean(name: str, count: int) -> None:
    # 1500 runs: a standard error of 0.56 points.
    assert held(mean_interval, *LOPSIDED[name], count, 1500) > 0.935 - 0.012


@pytest.mark.parametrize("name", LOPSIDED)
@pytest.mark.parametrize("count", [12, 20, 41])
def test_intervals_of_more_lopsided_values_hold_their_mean(name: str, count: int) -> None:
    assert held(mean_interval, *LOPSIDED[name], count, 300) > 0.935 - 0.035


def _judge(generator: np.random.Generator, count: int) -> npt.NDArray[np.float64]:
    """Figures of a judge, 1 to 10 as 0 to 1, mostly the lowest."""
    return (generator.choice([1, 2, 3, 8], count, p=[0.7, 0.15, 0.1, 0.05]) - 1) / 9


def _pass_at_2(generator: np.random.Generator, count: int) -> npt.NDArray[np.float64]:
    passed = generator.binomial(4, generator.beta(0.3, 0.3, count))
    return np.array([pass_at_k(int(one), 4, 2) for one in passed])


# The chance that one of two answers is right, for abilities of a beta distribution with both parameters 0.3:
# 1 - E (1 - p)^2 = 1 - (0.25 + 0.25 / 1.6).
BOUNDED: dict[str, tuple[Draw, float]] = {
    "judge": (_judge, (0.7 + 0.3 + 0.3 + 0.4 - 1) / 9),
    "pass@2": (_pass_at_2, 1 - (0.25 + 0.25 / 1.6)),
    "yes or no": (lambda generator, count: generator.binomial(1, 0.3, count).astype(float), 0.3),
}


@pytest.mark.parametrize("name", BOUNDED)
@pytest.mark.parametrize("count", [3, 5, 8, 20, 41, 610])
def test_intervals_between_bounds_hold_the_mean_and_never_leave_them(name: str, count: int) -> None:
    draw, true = BOUNDED[name]
    # Of 3 to 8 yes or no answers Wilson's own rate swings between 84 and 99%.
    least = 0.80 if name == "yes or no" and count < 20 else 0.935 - 0.025
    assert held(bounded_interval, draw, true, count, 600) > least
    low, high = bounded_interval(draw(np.random.default_rng(0), count)) or (-1, 2)
    assert 0 <= low <= high <= 1


def share_held(templates: int, probes: int, together: float, share: float, runs: int) -> float:
    """How often the interval of a share holds it, where probes of a template have the correlation `together`."""
    generator, clusters = np.random.default_rng(6), [t for t in range(templates) for _ in range(probes)]
    count = 0
    for _ in range(runs):
        if together in (0, 1):
            ability = np.full(templates, share) if together == 0 else generator.binomial(1, share, templates)
        else:
            rest = 1 / together - 1
            ability = generator.beta(share * rest, (1 - share) * rest, templates)
        passed = generator.random((templates, probes)) < ability[:, None]
        low, high = share_interval(passed.ravel().tolist(), clusters) or (0, 0)
        count += low <= share <= high
    return count / runs


@pytest.mark.parametrize("together", [0.0, 0.1, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("share", [0.5, 0.9])
@pytest.mark.parametrize(("templates", "probes"), [(1, 14), (2, 10), (8, 5), (41, 5)])
def test_shares_of_clustered_answers_are_held(templates: int, probes: int, together: float, share: float) -> None:
    # 300 runs. One template that is known wholly or not at all is one answer, of which Wilson's interval is 21 to
    # 100%: it misses 90% where it is not known, in one run of ten.
    least = 0.86 if templates == 1 else 0.935 - 0.04
    assert share_held(templates, probes, together, share, 300) > least


@pytest.mark.slow
@pytest.mark.parametrize("together", [0.0, 0.1, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("share", [0.5, 0.9, 0.98])
@pytest.mark.parametrize(("templates", "probes"), [(20, 10), (41, 5), (61, 10)])
def test_shares_of_clustered_answers_are_held_19_times_in_20(
    templates: int, probes: int, together: float, share: float
) -> None:
    assert share_held(templates, probes, together, share, 1500) > 0.935 - 0.015


def _clustered(lopsided: bool, groups: int, size: int) -> float:
    """How often the interval of clustered values holds their true mean, which is 1."""
    generator, clusters, count = np.random.default_rng(5), np.repeat(np.arange(groups), size), 0
    for _ in range(300):
        shared = generator.exponential(1, groups) if lopsided else generator.normal(1, 1, groups)
        values = np.repeat(shared, size) + generator.normal(0, 0.5, groups * size)
        low, high = mean_interval(values, clusters.tolist()) or (0, 0)
        count += low <= 1 <= high
    return count / 300


@pytest.mark.parametrize(("lopsided", "groups", "size"), [(False, 12, 1), (False, 30, 6), (True, 40, 4)])
def test_intervals_of_clustered_values_hold_the_mean(lopsided: bool, groups: int, size: int) -> None:
    assert _clustered(lopsided, groups, size) > 0.95 - 0.035


def test_a_million_values_are_quick() -> None:
    values = np.random.default_rng(0).random(1_000_000)
    started = perf_counter()
    low, high = mean_interval(values) or (0, 0)
    assert 0.498 < low < high < 0.502
    assert perf_counter() - started < 5
