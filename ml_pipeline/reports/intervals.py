"""Figures with their uncertainty: what was measured, its 95% interval, and on how many answers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure and its 95% interval (None where one answer gives no interval), made of `count` answers.

    `unscored` answers have no figure; they count neither way.
    """

    value: float
    low: float | None
    high: float | None
    count: int
    unscored: int = 0
