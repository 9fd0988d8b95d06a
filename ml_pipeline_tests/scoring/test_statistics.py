from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_pipeline.scoring.means import wilson_interval
from ml_pipeline.scoring.results import ProbeResult
from ml_pipeline.scoring.statistics import (
    CategoryScore,
    accuracy_by_category,
    exact_mcnemar,
    holm,
    holm_confidence,
    share_interval,
    sign_flip_test,
)


@pytest.mark.parametrize(
    ("correct", "total", "low", "high"),
    [
        # Newcombe, Statistics in Medicine 17 (1998), table I, method 3 (Wilson's score), to four places.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        # By symmetry.
        (20, 20, 0.8389, 1.0),
        # n = 1: z^2 / (1 + z^2) with z = 1.959964.
        (0, 1, 0.0, 0.7935),
        (0, 0, 0.0, 1.0),
    ],
)
def test_wilson_interval(correct: int, total: int, low: float, high: float) -> None:
    assert wilson_interval(correct, total) == pytest.approx((low, high), abs=5e-5)


def test_wilson_interval_is_exact_at_the_edges() -> None:
    assert wilson_interval(0, 7)[0] == 0.0
    assert wilson_interval(7, 7)[1] == 1.0


@pytest.mark.parametrize(("correct", "total", "confidence"), [(3, 2, 0.95), (-1, 2, 0.95), (1, 2, 1.0), (1, 2, 0.0)])
def test_wilson_interval_refuses(correct: int, total: int, confidence: float) -> None:
    with pytest.raises(ValueError, match="must be"):
        wilson_interval(correct, total, confidence)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_interval_holds_the_share_and_mirrors(pair: tuple[int, int]) -> None:
    correct, total = pair
    low, high = wilson_interval(correct, total)
    assert 0 <= low <= correct / total <= high <= 1
    assert wilson_interval(total - correct, total) == pytest.approx((1 - high, 1 - low))
    assert wilson_interval(correct, total, 0.5)[0] >= low


@pytest.mark.parametrize(
    ("better", "worse", "p"),
    [
        (0, 0, 1.0),
        (1, 0, 1.0),
        (5, 0, 2 / 32),
        (0, 6, 2 / 64),
        (3, 3, 1.0),
        (8, 2, 2 * (1 + 10 + 45) / 1024),
        (2, 8, 2 * (1 + 10 + 45) / 1024),
    ],
)
def test_exact_mcnemar(better: int, worse: int, p: float) -> None:
    assert exact_mcnemar(better, worse) == pytest.approx(p)


def test_exact_mcnemar_of_many_pairs() -> None:
    assert exact_mcnemar(2000, 2000) == 1.0
    assert 0 < exact_mcnemar(1100, 900) < 1e-5
    with pytest.raises(ValueError, match="must not be negative"):
        exact_mcnemar(-1, 2)


IDS = itertools.count()


def result(category: str, passed: bool | None) -> ProbeResult:
    return ProbeResult(f"p{next(IDS)}", category, passed, "42", unscored_reason="time-out" if passed is None else None)


def test_accuracy_by_category_keeps_unscored_apart() -> None:
    results = [result("b", True), result("a", None), result("b", False), result("b", None), result("c", True)]
    scores = accuracy_by_category(iter(results))
    assert [(s.category, s.correct, s.total, s.unscored, s.accuracy) for s in scores] == [
        ("overall", 2, 3, 2, pytest.approx(2 / 3)),
        ("b", 1, 2, 1, 0.5),
        ("a", 0, 0, 1, None),
        ("c", 1, 1, 0, 1.0),
    ]
    assert (scores[2].accuracy_low, scores[2].accuracy_high) == (None, None)
    assert (scores[0].accuracy_low, scores[0].accuracy_high) == wilson_interval(2, 3)


def test_accuracy_of_nothing() -> None:
    assert accuracy_by_category([]) == [CategoryScore("overall", 0, 0, 0, None, None, None)]


@pytest.mark.parametrize("differences", [(3,), (1, -1), (2, 1, 0, -1), (5, 4, 4, -1, 2), (-3, -3, -2, 0, 0, 1, 2, -4)])
def test_sign_flips_by_counting_every_flip(differences: tuple[int, ...]) -> None:
    flips = list(itertools.product((1, -1), repeat=len(differences)))
    extreme = sum(
        abs(sum(sign * size for sign, size in zip(signs, differences, strict=True))) >= abs(sum(differences))
        for signs in flips
    )
    assert sign_flip_test(differences) == extreme / len(flips)


def test_sign_flips_of_single_steps_are_mcnemars_test() -> None:
    assert sign_flip_test([1] * 9 + [-1] * 2 + [0] * 30) == pytest.approx(exact_mcnemar(9, 2))
    assert sign_flip_test([0, 0]) == sign_flip_test([]) == 1.0


def test_many_sign_flips_are_approximated() -> None:
    many = [100] * 1060 + [-100] * 940
    assert sign_flip_test(many) == pytest.approx(exact_mcnemar(1060, 940), rel=0.1)


def test_holm_by_hand() -> None:
    # Holm (1979): 0.01 * 4, then at least that and 0.02 * 3, 0.03 * 2, 0.04 * 1; in the order given.
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.9, 0.6]) == [1.0, 1.0]
    assert holm([0.03]) == [0.03]
    assert holm([]) == []


@pytest.mark.parametrize(
    ("p_values", "level", "finds"),
    # Holm (1979) of 4: 0.05 / 4, then / 3, / 2, / 1, until one is not below; the level is that of the next.
    [
        ([0.01, 0.016, 0.024, 0.3], 0.05, 3),
        ([0.013, 0.02, 0.3, 0.3], 0.05 / 4, 0),
        ([0.01, 0.02, 0.3, 0.3], 0.05 / 3, 1),
        ([0.04], 0.05, 1),
        ([0.001, 0.002], 0.05, 2),
        ([], 0.05, 0),
    ],
)
def test_the_confidence_of_holm(p_values: list[float], level: float, finds: int) -> None:
    confidence = holm_confidence(len(p_values), lambda one: sum(p < 1 - one for p in p_values))
    assert confidence == pytest.approx(1 - level)
    found = [p < 1 - confidence for p in p_values]
    assert found == [p < 0.05 for p in holm(p_values)]
    assert sum(found) == finds


@given(st.lists(st.floats(0.0001, 1), max_size=8))
def test_the_confidence_of_holm_finds_what_holm_does(p_values: list[float]) -> None:
    confidence = holm_confidence(len(p_values), lambda one: sum(p < 1 - one for p in p_values))
    assert [p < 1 - confidence for p in p_values] == [p < 0.05 for p in holm(p_values)]


def test_share_interval_of_probes_that_stand_alone_is_wilsons() -> None:
    assert share_interval([True, False, True], "abc") == wilson_interval(2, 3)
    assert share_interval([], []) is None


def test_share_interval_of_copies_is_as_wide_as_without_them() -> None:
    once = [index % 4 == 0 for index in range(60)]
    low, high = share_interval(once, range(60)) or (0, 0)
    copied = share_interval([one for one in once for _ in range(5)], [i for i in range(60) for _ in range(5)])
    assert copied == pytest.approx((low, high), abs=0.01)


def test_accuracy_allows_for_templates_and_for_several_answers() -> None:
    one_template = [
        ProbeResult(f"t{index // 4}/{index}", "c", index // 4 % 2 == 0, "42", template=f"t{index // 4}")
        for index in range(40)
    ]
    low, high = accuracy_by_category(one_template)[0].accuracy_low, accuracy_by_category(one_template)[0].accuracy_high
    plain = wilson_interval(20, 40)
    assert low is not None
    assert high is not None
    assert low < plain[0] < plain[1] < high
    several = [ProbeResult(f"p{index // 4}", "c", index // 4 % 2 == 0, "42") for index in range(40)]
    assert accuracy_by_category(several)[0].accuracy_low == low
