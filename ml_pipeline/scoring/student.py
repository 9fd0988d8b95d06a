"""The quantiles that intervals are made with."""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist

_FEW = 1000


@lru_cache(maxsize=256)
def z_quantile(confidence: float = 0.95) -> float:
    """What a standard normal variable stays within (either sign) with this chance: 1.96 at 95%.

    Raises:
        ValueError: the confidence is not between 0 and 1.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, not {confidence}.")
    return NormalDist().inv_cdf((1 + confidence) / 2)


@lru_cache(maxsize=4096)
def t_quantile(degrees: int, confidence: float = 0.95) -> float:
    """The t that a Student variable of `degrees` degrees of freedom stays within (either sign) with this chance.

    Solved by bisection of the finite series of Abramowitz and Stegun 26.7.3 and 26.7.4, exact for whole degrees; above
    1000 degrees by their expansion 26.7.5, which is then right to eight places.
    """
    if degrees < 1:
        raise ValueError(f"a t interval needs at least 1 degree of freedom, not {degrees}")
    z = z_quantile(confidence)
    if degrees > _FEW:
        return z + (z**3 + z) / (4 * degrees) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * degrees**2)
    low, high = z, 2 * z
    while _t_central_share(high, degrees) < confidence:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _t_central_share(middle, degrees) < confidence else (low, middle)
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
