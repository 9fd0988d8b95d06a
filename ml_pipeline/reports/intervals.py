"""Figures with their uncertainty: what was measured, its 95% interval, and on how many answers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist


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


def difference_interval(better: int, worse: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Interval of a paired difference of shares: of `total` probes, `better` were gained and `worse` were lost.

    The adjusted Wald interval of Bonett and Price (2012, "Adjusted Wald Confidence Interval for a Difference of
    Binomial Proportions Based on Paired Data"): one probe is added to either side, which keeps its coverage near 95%
    on a few dozen probes, where the plain Wald interval is too narrow. Cut to -1..1.
    """
    gained, lost = (better + 1) / (total + 2), (worse + 1) / (total + 2)
    difference = gained - lost
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    margin = z * math.sqrt((gained + lost - difference**2) / (total + 2))
    return max(-1.0, difference - margin), min(1.0, difference + margin)
