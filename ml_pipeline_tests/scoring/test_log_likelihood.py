"""acc and acc_norm, worked out by hand."""

from __future__ import annotations

import math

import pytest

from ml_pipeline.scoring.log_likelihood import labels, score_choices

CHECK = {"type": "log_likelihood", "choices": ["no", "certainly"], "answer": 1}


@pytest.mark.parametrize(
    ("scores", "likeliest", "passed", "normalised"),
    [
        # 2 and 9 bytes: -3/2 = -1.5 and -9/9 = -1.
        ([-3.0, -9.0], 0, False, True),
        # -1/2 = -0.5 and -9/9 = -1.
        ([-1.0, -9.0], 0, False, False),
        ([-5.0, -4.0], 1, True, True),
        # Of equals the first one counts.
        ([-4.0, -4.0], 0, False, True),
    ],
)
def test_the_highest_sum_and_the_highest_for_each_byte(
    scores: list[float], likeliest: int, passed: bool, normalised: bool
) -> None:
    result = score_choices(CHECK, scores)
    assert (result.likeliest, result.passed, result.passed_normalised) == (likeliest, passed, normalised)


def test_length_is_in_bytes_and_the_delimiter_is_no_part_of_it() -> None:
    # "ü" has 2 bytes: -3/2 = -1.5 is above -1.6/1, where by characters -3 would be below.
    check = {"type": "log_likelihood", "choices": ["ü", "u"], "answer": 0}
    assert score_choices(check, [-3.0, -1.6]).passed_normalised
    assert labels(check) == (" ü", " u")


@pytest.mark.parametrize("scores", [[], [-1.0], [-1.0, math.nan], [-1.0, -math.inf]])
def test_what_is_no_score_is_refused(scores: list[float]) -> None:
    with pytest.raises(ValueError, match="2 choices need as many finite log-probabilities"):
        score_choices(CHECK, scores)
