"""Multiple choice by log-likelihood: which choice does a model find the likeliest to follow the prompt?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

DELIMITER = " "
"""What stands between a prompt and each choice, as in lm-evaluation-harness; it is part of what is scored."""


@dataclass(frozen=True, slots=True)
class ChoiceResult:
    """`likeliest` is the place of the choice with the highest log-probability; `passed` (acc) whether it is the right
    one, `passed_normalised` (acc_norm) whether the right one is highest for each byte."""

    likeliest: int
    passed: bool
    passed_normalised: bool


def labels(check: Mapping[str, Any]) -> tuple[str, ...]:
    """What a model is to score as continuations of the prompt."""
    return tuple(DELIMITER + choice for choice in check["choices"])


def score_choices(check: Mapping[str, Any], log_probabilities: Sequence[float]) -> ChoiceResult:
    """Mark a probe with a check of type `log_likelihood`.

    `log_probabilities` are natural logarithms, each the sum over its choice's tokens. For acc_norm they are divided by
    the bytes of the choice in UTF-8, without the delimiter. Of equals the first one counts, as with numpy's argmax.
    Source: lm-evaluation-harness, which counts characters, the same for ASCII.

    Raises ValueError unless there is one finite number for each choice.
    """
    choices: Sequence[str] = check["choices"]
    if len(log_probabilities) != len(choices) or not all(map(math.isfinite, log_probabilities)):
        raise ValueError(f"{len(choices)} choices need as many finite log-probabilities, not {list(log_probabilities)}")
    per_byte = [one / len(choice.encode()) for one, choice in zip(log_probabilities, choices, strict=True)]
    likeliest = _highest(log_probabilities)
    return ChoiceResult(likeliest, likeliest == check["answer"], _highest(per_byte) == check["answer"])


def _highest(values: Sequence[float]) -> int:
    return max(range(len(values)), key=values.__getitem__)
