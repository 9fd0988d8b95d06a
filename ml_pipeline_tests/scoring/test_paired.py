"""Intervals of paired differences: against tables, by hand, by enumeration, and how often they hold the truth."""

from __future__ import annotations

import itertools
from math import exp, lgamma, sqrt

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_pipeline.scoring.paired import _sign_limits, counts_interval, differences_interval
from ml_pipeline.scoring.statistics import exact_mcnemar, sign_flip_test
from ml_pipeline_tests.scoring.designs import (
    DESIGNS,
    TEMPLATE_DESIGNS,
    Design,
    differences,
    equal,
    learns_templates_surely,
    truth,
)


@pytest.mark.parametrize(
    ("up", "of", "low", "high"),
    # Clopper and Pearson's exact limits of a share at 95%, as printed in tables.
    [(7, 10, 0.3475, 0.9333), (5, 5, 0.4782, 1.0), (1, 20, 0.0013, 0.2487), (0, 10, 0.0, 0.3085)],
)
def test_the_direction_of_whole_differences_has_clopper_and_pearsons_limits(
    up: int, of: int, low: float, high: float
) -> None:
    limits = _sign_limits([1] * of, 2 * up - of, 0.95)
    assert [(1 + limit) / 2 for limit in limits] == pytest.approx([low, high], abs=5e-5)


@pytest.mark.parametrize("sums", [(3, 1, 2, -1), (5, 4, 4, -1, 2), (8, 8, -1, 1, 3, 1, 20), (1, -1, 1, 1, 2)])
def test_the_direction_of_other_differences_by_going_through_all_signs(sums: tuple[int, ...]) -> None:
    sizes = np.abs(sums)
    signs = np.array(list(itertools.product((1, -1), repeat=len(sums))))
    seen, all_sums = sum(sums), signs @ sizes
    low, high = _sign_limits(sizes.tolist(), seen, 0.95)

    def mean_and_tail(tilt: float, tail: npt.NDArray[np.bool_]) -> tuple[float, float]:
        # A tilt makes each sign by itself: up with the odds exp(2 * tilt * size).
        up = 1 / (1 + np.exp(-2 * tilt * sizes))
        chances = np.where(signs > 0, up, 1 - up).prod(axis=1)
        return float(chances @ all_sums / sizes.sum()), float(chances[tail].sum())

    for limit, tail, rises in ((low, all_sums >= seen, 1), (high, all_sums <= seen, -1)):
        if tail.all():
            assert limit == -rises
            continue
        left, right = -30.0, 30.0
        for _ in range(100):
            middle = (left + right) / 2
            below = (mean_and_tail(middle, tail)[1] < 0.025) == (rises > 0)
            left, right = (middle, right) if below else (left, middle)
        assert limit == pytest.approx(mean_and_tail(left, tail)[0], abs=1e-6)


def test_open_ends_by_hand() -> None:
    # 6 gained and 1 lost of 10, p = 0.125. Wilson: 6 of 10 is 0.3127 to 0.8318, 1 of 10 is 0.0179 to 0.4042. Gains
    # and losses exclude each other: correlation -sqrt(0.6 / 0.4 * 0.1 / 0.9) = -0.4082. So the upper end is
    # 0.5 + sqrt(0.2318^2 + 0.0821^2 + 2 * 0.4082 * 0.2318 * 0.0821), and the lower, 0.0036, is moved to 0.
    assert counts_interval(6, 1, 10) == pytest.approx((0.0, 0.7757), abs=2e-4)


def test_the_end_beside_0_by_hand() -> None:
    # 7 gained, none lost of 20, p = 2 / 2^7. Direction 1, its lower limit 2 * 0.025^(1/7) - 1 = 0.18077; size 0.35,
    # Wilson's lower limit of it 0.18119. The end x solves (1 - x / 0.35)^2 = (1 - 0.18077)^2 + x^2 *
    # (1 / 0.18119 - 1 / 0.35)^2.
    low, high = counts_interval(7, 0, 20)
    assert (1 - low / 0.35) ** 2 == pytest.approx((1 - 0.18077) ** 2 + low**2 * (1 / 0.18119 - 1 / 0.35) ** 2, abs=1e-4)
    assert 0 < low < 0.35 * 0.18077
    assert 0.35 < high < 0.6


def test_no_difference_at_all_is_as_unsure_as_a_share_of_none() -> None:
    # Wilson's interval of 0 of 41 ends at z^2 / (41 + z^2).
    end = 1.959964**2 / (41 + 1.959964**2)
    assert counts_interval(0, 0, 41) == pytest.approx((-end, end))
    assert differences_interval([0] * 4, 3, [1, 1, 1, 1])[1] == pytest.approx(1.959964**2 / (4 + 1.959964**2))


@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99, 0.999])
def test_interval_and_exact_test_are_one_statement(confidence: float) -> None:
    for total in (1, 5, 9, 16):
        for better, worse in itertools.product(range(total + 1), repeat=2):
            if better + worse > total:
                continue
            low, high = counts_interval(better, worse, total, confidence)
            assert -1 <= low <= (better - worse) / total <= high <= 1
            assert (low > 0 or high < 0) == (exact_mcnemar(better, worse) < 1 - confidence)
            assert counts_interval(worse, better, total, confidence) == pytest.approx((-high, -low))


@st.composite
def clusters_of_differences(draw: st.DrawFn) -> tuple[list[int], int, list[int]]:
    unit = draw(st.sampled_from([1, 2, 3, 4, 8, 12]))
    sizes = draw(st.lists(st.integers(1, 6), min_size=1, max_size=14))
    return [draw(st.integers(-unit * size, unit * size)) for size in sizes], unit, sizes


@given(clusters_of_differences(), st.sampled_from([0.9, 0.95, 0.995]))
def test_interval_and_sign_flips_are_one_statement(drawn: tuple[list[int], int, list[int]], confidence: float) -> None:
    sums, unit, sizes = drawn
    low, high = differences_interval(sums, unit, sizes, confidence)
    delta = sum(sums) / unit / sum(sizes)
    assert -1 <= low <= delta + 1e-9
    assert delta - 1e-9 <= high <= 1
    assert (low > 0 or high < 0) == (sign_flip_test(sums) < 1 - confidence)
    mirrored = differences_interval([-one for one in sums], unit, sizes, confidence)
    assert mirrored == pytest.approx((-high, -low), abs=1e-7)


def test_a_surer_interval_is_wider() -> None:
    for better, worse in [(0, 0), (3, 0), (12, 2), (9, 9), (30, 1)]:
        ends = [counts_interval(better, worse, 60, confidence) for confidence in (0.8, 0.95, 0.99, 0.999)]
        assert all(a[0] >= b[0] and a[1] <= b[1] for a, b in itertools.pairwise(ends))


def test_two_templates_never_leave_the_scale() -> None:
    low, high = differences_interval([5, -1], 1, [5, 5])
    assert (low >= -1, high <= 1, low < 0 < high) == (True, True, True)


def test_ragged_samples_and_many_probes_are_approximated_as_the_test_is() -> None:
    generator = np.random.default_rng(2)
    many = generator.integers(-840, 900, 700).tolist()
    low, high = differences_interval(many, 900)
    # Student's (here normal) interval of so many differences that stand alone.
    values = np.array(many) / 900
    margin = 1.96 * values.std(ddof=1) / sqrt(len(values))
    assert (low, high) == pytest.approx((values.mean() - margin, values.mean() + margin), abs=0.006)
    assert (low > 0) == (sign_flip_test(many) < 0.05)


@pytest.mark.parametrize(
    ("better", "worse", "total", "confidence", "words"),
    [(3, 8, 10, 0.95, "of 10 probes"), (0, 0, 0, 0.95, "of 0 probes"), (1, 0, 5, 1.0, "between 0 and 1")],
)
def test_it_refuses(better: int, worse: int, total: int, confidence: float, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        counts_interval(better, worse, total, confidence)
    with pytest.raises(ValueError, match=r"within -1\.\.1"):
        differences_interval([3], 2, [1])


def exact_coverage(total: int, gained: float, lost: float) -> float:
    """How often the interval of one answer a probe holds the truth: by going through all counts of gains and losses."""
    held = 0.0
    for better in range(total + 1):
        for worse in range(total + 1 - better):
            low, high = counts_interval(better, worse, total)
            if not low - 1e-12 <= gained - lost <= high + 1e-12:
                continue
            same = total - better - worse
            ways = lgamma(total + 1) - lgamma(better + 1) - lgamma(worse + 1) - lgamma(same + 1)
            held += exp(ways) * gained**better * lost**worse * max(0.0, 1 - gained - lost) ** same
    return held


@pytest.mark.parametrize("total", [5, 12, 41])
def test_one_answer_a_probe_holds_the_truth_by_going_through_all_counts(total: int) -> None:
    found = [
        exact_coverage(total, discordant * share, discordant * (1 - share))
        for discordant in (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.8)
        for share in (0.0, 0.1, 0.25, 0.5, 0.9)
    ]
    assert min(found) > 0.935
    assert all(exact_coverage(total, one, one) > 0.95 for one in (0.02, 0.1, 0.25, 0.5))


def missed(design: Design, shape: tuple[int, ...], samples: int, runs: int) -> tuple[float, float]:
    """How often the interval lies above and below the truth."""
    generator, true = np.random.default_rng(11), truth(design)
    above = below = 0
    for _ in range(runs):
        seen = differences(design, generator, shape, samples)
        if len(shape) == 1:
            low, high = differences_interval(seen.tolist(), samples)
        else:
            low, high = differences_interval(seen.sum(axis=1).tolist(), samples, [shape[1]] * shape[0])
        above += low > true + 1e-12
        below += high < true - 1e-12
    return above / runs, below / runs


@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize(("probes", "samples"), [(5, 4), (41, 2), (41, 8)])
def test_intervals_hold_the_truth(design: Design, probes: int, samples: int) -> None:
    # 300 runs: at 95% a standard error of 1.3 points, so that the bound is over three below.
    assert sum(missed(design, (probes,), samples, 300)) < 0.09


@pytest.mark.parametrize("design", TEMPLATE_DESIGNS)
def test_intervals_of_other_templates_hold_the_truth(design: Design) -> None:
    assert sum(missed(design, (20, 5), 2, 300)) < 0.09


@pytest.mark.slow
@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize(("probes", "samples"), [(5, 8), (41, 1), (41, 4), (223, 2), (223, 8), (610, 5)])
def test_intervals_hold_the_truth_19_times_in_20(design: Design, probes: int, samples: int) -> None:
    # 1500 runs: a standard error of 0.56 points; 93.5% must hold.
    assert sum(missed(design, (probes,), samples, 1500)) < 0.065 + 0.012


@pytest.mark.slow
@pytest.mark.parametrize("design", TEMPLATE_DESIGNS)
@pytest.mark.parametrize(("templates", "probes", "samples"), [(3, 5, 1), (8, 5, 2), (20, 10, 1), (61, 10, 1)])
def test_intervals_of_other_templates_hold_the_truth_19_times_in_20(
    design: Design, templates: int, probes: int, samples: int
) -> None:
    assert sum(missed(design, (templates, probes), samples, 1500)) < 0.065 + 0.012


def test_intervals_are_not_wider_than_they_need_be() -> None:
    """Where the test is fine-grained and probes are many, the rate is 95%, not 100%."""
    assert 0.02 < sum(missed(equal, (223,), 8, 400)) < 0.085
    assert sum(missed(learns_templates_surely, (61, 10), 1, 200)) < 0.085
