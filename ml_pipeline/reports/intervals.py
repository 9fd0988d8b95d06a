"""Figures with their uncertainty: what was measured, its 95% interval, and on how many answers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

Z_95 = 1.959963984540054


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

    def clearly_above(self, other: Estimate) -> bool:
        """Whether the whole interval lies above the other's: stricter than a test at 5%, so it cries wolf rarely."""
        return self.low is not None and other.high is not None and self.low > other.high


def difference_interval(better: int, worse: int, total: int) -> tuple[float, float]:
    """95% interval of a paired difference of shares: of `total` probes, `better` were gained and `worse` were lost.

    The adjusted Wald interval of Bonett and Price (2012, "Adjusted Wald Confidence Interval for a Difference of
    Binomial Proportions Based on Paired Data"): one probe is added to either side, which keeps its coverage near 95%
    on a few dozen probes, where the plain Wald interval is too narrow. Cut to -1..1.
    """
    gained, lost = (better + 1) / (total + 2), (worse + 1) / (total + 2)
    difference = gained - lost
    margin = Z_95 * math.sqrt((gained + lost - difference**2) / (total + 2))
    return max(-1.0, difference - margin), min(1.0, difference + margin)


def mean_interval(mean: float, deviation: float, count: int) -> tuple[float, float] | None:
    """95% Student t interval of a mean with sample standard deviation `deviation`; None for fewer than two values.

    Equal values give an interval of no width: the interval speaks of the spread between answers, nothing else.
    """
    if count < 2:
        return None
    margin = t_quantile_95(count - 1) * deviation / math.sqrt(count)
    return mean - margin, mean + margin


@lru_cache(maxsize=4096)
def t_quantile_95(degrees: int) -> float:
    """The t that a Student variable of `degrees` degrees of freedom stays within (either sign) 95% of the time.

    Solved by bisection of the finite series of Abramowitz and Stegun 26.7.3 and 26.7.4, exact for whole degrees.
    """
    if degrees < 1:
        raise ValueError(f"a t interval needs at least 1 degree of freedom, not {degrees}")
    low, high = Z_95, 13.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _t_central_share(middle, degrees) < 0.95 else (low, middle)
    return (low + high) / 2


def _t_central_share(t: float, degrees: int) -> float:
    angle = math.atan(t / math.sqrt(degrees))
    cosine = math.cos(angle)
    odd = degrees % 2
    term = cosine if odd else 1.0
    total = term if degrees > 1 else 0.0
    for step in range(3 if odd else 2, degrees - 1, 2):
        term *= cosine**2 * (step - 1) / step
        total += term
    series = math.sin(angle) * total
    return 2 / math.pi * (angle + series) if odd else series
