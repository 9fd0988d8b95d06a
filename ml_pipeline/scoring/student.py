"""The quantiles that 95% intervals are made with."""

from __future__ import annotations

import math
from functools import lru_cache

Z_95 = 1.959963984540054
"""What a standard normal variable stays within (either sign) 95% of the time."""
_FEW = 1000


@lru_cache(maxsize=4096)
def t_quantile_95(degrees: int) -> float:
    """The t that a Student variable of `degrees` degrees of freedom stays within (either sign) 95% of the time.

    Solved by bisection of the finite series of Abramowitz and Stegun 26.7.3 and 26.7.4, exact for whole degrees; above
    1000 degrees by their expansion 26.7.5, which is then right to eight places.
    """
    if degrees < 1:
        raise ValueError(f"a t interval needs at least 1 degree of freedom, not {degrees}")
    if degrees > _FEW:
        return Z_95 + (Z_95**3 + Z_95) / (4 * degrees) + (5 * Z_95**5 + 16 * Z_95**3 + 3 * Z_95) / (96 * degrees**2)
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
