"""Krippendorff's alpha against published figures, and the median of a panel."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_pipeline.scoring.agreement import krippendorff_alpha, median_reading
from ml_pipeline.scoring.judgement import JudgeReading
from ml_pipeline.suites import load_rubrics

NO = None
# Krippendorff, Computing Krippendorff's Alpha-Reliability (2011), part D: four observers, twelve units.
FOUR_OBSERVERS = (
    (1, 2, 3, 3, 2, 1, 4, 1, 2, NO, NO, NO),
    (1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NO, 3),
    (NO, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NO),
    (1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NO),
)
# Wikipedia, Krippendorff's alpha: three coders, fifteen units.
THREE_CODERS = (
    (NO, NO, NO, NO, NO, 3, 4, 1, 2, 1, 1, 3, 3, NO, 3),
    (1, NO, 2, 1, 3, 3, 4, 3, NO, NO, NO, NO, NO, NO, NO),
    (NO, NO, 2, 1, 3, 4, 4, NO, 2, 1, 1, 3, 3, NO, 4),
)
(RUBRIC,) = load_rubrics(["capability"])


def units(table: tuple[tuple[float | None, ...], ...]) -> list[tuple[float | None, ...]]:
    return list(zip(*table, strict=True))


def test_the_published_figures() -> None:
    assert krippendorff_alpha(units(FOUR_OBSERVERS)) == pytest.approx(0.849, abs=5e-4)
    assert krippendorff_alpha(units(FOUR_OBSERVERS), "ordinal") == pytest.approx(0.815, abs=5e-4)
    assert krippendorff_alpha(units(THREE_CODERS)) == pytest.approx(0.811, abs=5e-4)


@pytest.mark.parametrize(
    ("rated", "alpha"),
    [
        ([(1, 1), (5, 5), (9, 9)], 1.0),
        ([(1, 9), (9, 1)], -0.5),  # observed 64; expected, over four figures, 2 * 64 * 4 / 12
        ([(7, 7), (7, 7)], None),
        ([(1, None), (2,), ()], None),
        ([], None),
        ([(1, 2), (None, 3)], 0.0),  # the lone 3 says nothing
    ],
)
def test_figures_worked_out_by_hand(rated: list[tuple[float | None, ...]], alpha: float | None) -> None:
    assert krippendorff_alpha(rated) == (alpha if alpha is None else pytest.approx(alpha))


def by_definition(rated: list[list[float]], *, ordinal: bool) -> float | None:
    """The formula as published, pair by pair."""
    rated = [unit for unit in rated if len(unit) > 1]
    pooled = sorted(value for unit in rated for value in unit)

    def squared(a: float, b: float) -> float:
        if not ordinal:
            return (a - b) ** 2
        a, b = sorted((a, b))
        between = sum(a <= value <= b for value in pooled)
        return (between - (pooled.count(a) + pooled.count(b)) / 2) ** 2

    def pairs(values: list[float]) -> float:
        return math.fsum(squared(a, b) for a, b in itertools.permutations(values, 2))

    expected = pairs(pooled) / (len(pooled) - 1) if pooled else 0.0
    observed = math.fsum(pairs(unit) / (len(unit) - 1) for unit in rated)
    return None if expected == 0 else 1 - observed / expected


@given(st.lists(st.lists(st.integers(0, 10).map(float), max_size=5), max_size=12))
def test_it_is_the_published_formula(rated: list[list[float]]) -> None:
    for ordinal in (False, True):
        wanted = by_definition(rated, ordinal=ordinal)
        found = krippendorff_alpha(rated, "ordinal" if ordinal else "interval")
        assert found == (wanted if wanted is None else pytest.approx(wanted, abs=1e-9))


def test_order_alone_does_not_see_how_far_apart_figures_are() -> None:
    near, far = [(1, 2), (2, 1), (3, 3), (3, 3)], [(1, 2), (2, 1), (10, 10), (10, 10)]
    assert krippendorff_alpha(near, "ordinal") == krippendorff_alpha(far, "ordinal")
    assert (krippendorff_alpha(near) or 0) < (krippendorff_alpha(far) or 0)


def reading(*scores: float | None) -> JudgeReading:
    names = ("reasoning", "correctness", "clarity")
    given = dict(zip(names, scores, strict=True))
    return JudgeReading(given, {name: f"no {name}" for name, score in given.items() if score is None})


def test_the_median_is_over_judges_however_often_each_was_asked() -> None:
    votes = {"a": [reading(1, 2, 3), reading(3, 2, 3), reading(9, 2, 3)], "b": [reading(6, 6, 6)]}
    found = median_reading(RUBRIC, votes)
    assert found.scores == {"reasoning": 4.5, "correctness": 4, "clarity": 4.5, "avg": pytest.approx(13 / 3)}
    assert found.complete


def test_a_judge_that_cannot_be_read_does_not_count_and_no_judge_is_unscored() -> None:
    votes = {"a": [reading(None, None, 4)], "b": [reading(5, None, 6)], "c": [reading(7, None, 5)]}
    found = median_reading(RUBRIC, votes)
    assert found.scores == {"reasoning": 6, "correctness": None, "clarity": 5, "avg": None}
    assert found.reasons == {"correctness": "no correctness", "avg": "no mean without correctness"}


def test_one_vote_stays_as_it_is() -> None:
    only = replace(reading(1, 2, 3), explanation="why")
    assert median_reading(RUBRIC, {"a": [only]}) is only
    with pytest.raises(ValueError, match="at least one"):
        median_reading(RUBRIC, {})
