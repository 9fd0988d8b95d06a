from __future__ import annotations

from math import sqrt
from time import perf_counter

import numpy as np
import pytest

from ml_pipeline.scoring.means import clustered_error, effective_count, mean_interval
from ml_pipeline.scoring.student import t_quantile, z_quantile

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
    # Every value five times: as good as the 40 different ones that it is, less what few clusters leave unsure.
    values = [float(i % 3 == 0) for i in range(40) for _ in range(5)]
    clusters = [i for i in range(40) for _ in range(5)]
    assert effective_count(values, clusters) == pytest.approx(40 * (z_quantile() / t_quantile(39)) ** 2, rel=0.03)
    assert effective_count(values, range(200)) == 200
    assert effective_count([1.0] * 6, "aabbcc") == 6
    assert effective_count(values, ["a"] * 200) == 200


@pytest.mark.parametrize("count", [2, 7])
def test_few_values_have_students_interval(count: int) -> None:
    values = VALUES[:count]
    margin = t_quantile(count - 1) * np.std(values, ddof=1) / sqrt(count)
    assert mean_interval(values) == pytest.approx((np.mean(values) - margin, np.mean(values) + margin))


def test_the_bootstrap_meets_that_of_scipy() -> None:
    # scipy 1.17.1: stats.bootstrap((x,), np.mean, n_resamples=200_000, method="BCa", confidence_level=c, rng=0) with
    # the confidence c = 2 * Phi(t * sqrt(n / (n - 1))) - 1 of Hesterberg's widening; x as here.
    values = np.exp(np.linspace(-2, 2, 30))
    assert mean_interval(values) == pytest.approx((1.242, 2.7964), rel=0.03)


def test_an_interval_is_the_same_every_time_and_turns_with_its_values() -> None:
    values = [float(i * i % 17) for i in range(41)]
    low, high = mean_interval(values) or (0, 0)
    assert mean_interval(values) == (low, high)
    assert mean_interval([10 * value + 3 for value in values]) == pytest.approx((10 * low + 3, 10 * high + 3))


@pytest.mark.parametrize("values", [[5.0] * 20, [5.0] * 3, [0.1] * 41])
def test_equal_values_have_no_width(values: list[float]) -> None:
    assert mean_interval(values) == pytest.approx((values[0], values[0]))


@pytest.mark.parametrize("values", [[], [1.0]])
def test_one_value_has_no_interval(values: list[float]) -> None:
    assert mean_interval(values) is None


def _covered(lopsided: bool, groups: int, size: int) -> float:
    """How often the interval of clustered values holds their true mean, which is 1."""
    generator = np.random.default_rng(5)
    clusters, held = np.repeat(np.arange(groups), size), 0
    for _ in range(300):
        shared = generator.exponential(1, groups) if lopsided else generator.normal(1, 1, groups)
        values = np.repeat(shared, size) + generator.normal(0, 0.5, groups * size)
        low, high = mean_interval(values, clusters.tolist()) or (0, 0)
        held += low <= 1 <= high
    return held / 300


@pytest.mark.parametrize(("lopsided", "groups", "size"), [(False, 12, 1), (False, 30, 6), (True, 40, 4)])
def test_intervals_hold_the_true_mean_19_times_in_20(lopsided: bool, groups: int, size: int) -> None:
    # 300 runs: a standard error of 1.3 points.
    assert _covered(lopsided, groups, size) == pytest.approx(0.95, abs=0.035)


def test_a_million_values_are_quick() -> None:
    values = np.random.default_rng(0).random(1_000_000)
    started = perf_counter()
    low, high = mean_interval(values) or (0, 0)
    assert 0.498 < low < high < 0.502
    assert perf_counter() - started < 5
