from __future__ import annotations

from itertools import product
from math import comb
from statistics import NormalDist

import numpy as np
import pytest

from ml_pipeline.scoring.exchange import exchange_test, exchange_z, share_rose
from ml_pipeline.scoring.statistics import exact_mcnemar


def enumerated(values: np.ndarray) -> tuple[float, float]:
    """Both tails, by giving the reference each value of each probe in turn."""
    sums = [sum(chosen) for chosen in product(*(column.tolist() for column in values.T))]
    seen = values[0].sum()
    return sum(one <= seen for one in sums) / len(sums), sum(one >= seen for one in sums) / len(sums)


@pytest.mark.parametrize("most", [1, 3])
def test_the_tails_are_those_of_all_exchanges(most: int) -> None:
    generator = np.random.default_rng(most)
    for _ in range(20):
        values = generator.integers(0, most + 1, (4, 6))
        assert exchange_test(values[0], values[1:]) == pytest.approx(enumerated(values))


def test_one_other_checkpoint_makes_it_mcnemar() -> None:
    reference, other = np.array([1] * 7 + [0] * 2 + [1] * 5), np.array([0] * 7 + [1] * 2 + [1] * 5)
    found = exchange_test(reference, other[None, :])
    assert found.two_sided == pytest.approx(exact_mcnemar(2, 7))
    # By hand: 7 or more of 9 fair coins, (36 + 9 + 1) / 512.
    assert found.upper == pytest.approx(46 / 512)


def test_a_base_that_alone_passes_seven_probes() -> None:
    # Each of them could as well be any of the three checkpoints': (1 / 3) ** 7.
    values = np.zeros((3, 41), dtype=np.int64)
    values[0, :7] = 1
    assert exchange_test(values[0], values[1:]).upper == pytest.approx(3.0**-7)
    assert exchange_test(values[0], values[1:]).lower == pytest.approx(1.0)
    assert exchange_test(values[1], values[[0, 2]]).lower == pytest.approx((2 / 3) ** 7)


def test_what_was_not_scored_is_not_exchanged() -> None:
    values = np.array([[1, 1, 0], [0, 0, 9], [0, 1, 0]])
    scored = np.array([[True, True, False], [True, False, True]])
    # Probe 1: one of three; probe 2: one of two; probe 3 is 0 for both.
    assert exchange_test(values[0], values[1:], scored).upper == pytest.approx(1 / 6)


def test_probes_on_which_all_agree_say_nothing() -> None:
    same = np.ones((3, 5), dtype=np.int64)
    assert tuple(exchange_test(same[0], same[1:])) == (1.0, 1.0)
    assert exchange_z(same[0], same[1:]) == 0.0


def test_the_quick_figure_agrees_with_the_exact_one() -> None:
    generator = np.random.default_rng(1)
    values = (generator.random((6, 400)) < 0.4).astype(np.int64)
    # A normal variable: P(Z >= z) against the exact upper tail, which includes what was seen.
    assert exchange_test(values[0], values[1:]).upper == pytest.approx(
        1 - NormalDist().cdf(exchange_z(values[0], values[1:])), abs=0.03
    )


@pytest.mark.parametrize(("before", "before_of", "now", "now_of"), [(0, 4, 4, 4), (1, 5, 3, 6), (2, 3, 0, 4)])
def test_shares_are_compared_by_fishers_test(before: int, before_of: int, now: int, now_of: int) -> None:
    hits = before + now
    # All ways to deal the hits out, of which those with as many now, or more, count.
    ways = {k: comb(now_of, k) * comb(before_of, hits - k) for k in range(now_of + 1) if 0 <= hits - k <= before_of}
    expected = sum(n for k, n in ways.items() if k >= now) / comb(before_of + now_of, hits)
    assert share_rose(before, before_of, now, now_of) == pytest.approx(expected)


def test_impossible_counts_are_refused() -> None:
    with pytest.raises(ValueError, match="counts must be within"):
        share_rose(5, 4, 0, 4)
