from __future__ import annotations

from fractions import Fraction
from itertools import combinations

import pytest

from ml_pipeline.scoring.samples import majority_passes, pass_at_k


@pytest.mark.parametrize(("samples", "k"), [(1, 1), (5, 1), (5, 3), (8, 4), (10, 10)])
def test_pass_at_k_is_the_share_of_all_choices_that_hold_a_pass(samples: int, k: int) -> None:
    for passed in range(samples + 1):
        answers = [True] * passed + [False] * (samples - passed)
        chosen = [any(choice) for choice in combinations(answers, k)]
        assert pass_at_k(passed, samples, k) == pytest.approx(float(Fraction(sum(chosen), len(chosen))))


def test_pass_at_1_is_the_share_passed() -> None:
    assert pass_at_k(3, 7, 1) == pytest.approx(3 / 7)


@pytest.mark.parametrize(("passed", "samples", "k"), [(2, 1, 1), (-1, 3, 1), (1, 3, 0), (1, 3, 4)])
def test_pass_at_k_refuses(passed: int, samples: int, k: int) -> None:
    with pytest.raises(ValueError, match=f"pass@{k}"):
        pass_at_k(passed, samples, k)


@pytest.mark.parametrize(
    ("extracted", "passed", "right"),
    [
        (["4", "5", "4"], [True, False, True], True),
        (["5", "4", "5"], [False, True, False], False),
        (["5", "4"], [False, True], False),
        (["4", "5"], [True, False], True),
        ([None, None, "4"], [False, False, True], True),
        ([None, None], [False, False], False),
        ([], [], False),
    ],
)
def test_majority(extracted: list[str | None], passed: list[bool], right: bool) -> None:
    assert majority_passes(extracted, passed) is right
