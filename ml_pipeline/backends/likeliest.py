"""A model's likeliest next tokens after a fixed text, with an adapter and without: how far they are apart."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TypeVar

Token = TypeVar("Token", int, str)
Position = dict[int, float]
"""Log-probabilities of the likeliest tokens, by token."""


def is_finite(positions: Sequence[Mapping[Token, float]]) -> bool:
    """Whether the model computed numbers."""
    return all(math.isfinite(value) for position in positions for value in position.values())


def largest_difference(base: Sequence[Mapping[Token, float]], other: Sequence[Mapping[Token, float]]) -> float:
    """How far log-probabilities are apart at least, over the positions where both had the same text before them."""
    largest = 0.0
    for first, second in zip(base, other, strict=False):
        largest = max(largest, _difference(first, second))
        if _likeliest(first) != _likeliest(second):
            break
    return largest


def _difference(first: Mapping[Token, float], second: Mapping[Token, float]) -> float:
    differences = [abs(first[token] - second[token]) for token in first.keys() & second.keys()]
    # A token missing from one list has at most that list's smallest log-probability there.
    for there, elsewhere in ((first, second), (second, first)):
        floor = min(elsewhere.values())
        differences += [there[token] - floor for token in there.keys() - elsewhere.keys()]
    return max(differences)


def _likeliest(position: Mapping[Token, float]) -> Token:
    return max(position, key=position.__getitem__)
