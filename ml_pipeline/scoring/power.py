"""What a suite can and cannot find: the smallest difference between two checkpoints that its probes detect."""

from __future__ import annotations

from math import sqrt
from statistics import NormalDist

POWER = 0.8
SIGNIFICANCE = 0.05


def detectable_difference(discordance: float, pairs: float) -> float:
    """Smallest true difference of two shares passed (0..1) that McNemar's test at 5% finds 4 times in 5.

    `discordance` is the share of probes that only one of the two checkpoints passes, `pairs` how many probes (or
    independent ones as good, see `means.effective_count`) both were asked. 1.0 where no difference would do.
    Source: R. J. Connor, Biometrics 43 (1987), solved for the difference, with the continuity correction of
    J. L. Fleiss (Statistical Methods for Rates and Proportions, 1981) for the exact test.
    """
    if not 0 <= discordance <= 1 or pairs <= 0:
        raise ValueError(f"discordance must be within 0..1 and pairs above 0, not {discordance} and {pairs}.")
    normal = NormalDist()
    sure, strong = normal.inv_cdf(1 - SIGNIFICANCE / 2), normal.inv_cdf(POWER)
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        # A difference needs at least as many discordant probes as it is large.
        discordant = max(discordance, middle)
        spread = sure * sqrt(discordant) + strong * sqrt(discordant - middle**2)
        needed = (spread / middle) ** 2 + 1 / middle
        low, high = (middle, high) if needed > pairs else (low, middle)
    return high
