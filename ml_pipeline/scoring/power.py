"""What a suite can and cannot find: the smallest difference between two checkpoints that its probes detect."""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt
from statistics import NormalDist

POWER = 0.8
SIGNIFICANCE = 0.05


def detectable_difference(discordance: float, pairs: float, significance: float = SIGNIFICANCE) -> float:
    """Smallest true difference of two shares passed (0..1) that McNemar's test at this level finds 4 times in 5.

    `discordance` is the share of probes that only one of the two checkpoints passes, `pairs` how many probes (or
    independent ones as good, see `means.effective_count`) both were asked. 1.0 where no difference would do.
    Source: R. J. Connor, Biometrics 43 (1987), solved for the difference, with the continuity correction of
    J. L. Fleiss (Statistical Methods for Rates and Proportions, 1981) for the exact test.
    """
    if not 0 <= discordance <= 1 or pairs <= 0:
        raise ValueError(f"discordance must be within 0..1 and pairs above 0, not {discordance} and {pairs}.")
    return _least(lambda _: discordance, pairs, significance)


def detectable_change(noise: float, pairs: float, tests: int = 1, significance: float = SIGNIFICANCE) -> float:
    """As `detectable_difference`, for one of `tests` comparisons (Bonferroni), where `noise` is the share of probes
    that two equal checkpoints pass differently: what a checkpoint gains or loses wholly comes on top of that."""
    if not 0 <= noise <= 1 or pairs <= 0 or tests < 1:
        raise ValueError(f"noise must be within 0..1, pairs and tests above 0, not {noise}, {pairs} and {tests}.")
    return _least(lambda change: noise * (1 - change) + change, pairs, significance / tests)


def _least(discordance: Callable[[float], float], pairs: float, significance: float) -> float:
    normal = NormalDist()
    sure, strong = normal.inv_cdf(1 - significance / 2), normal.inv_cdf(POWER)
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        # A difference needs at least as many discordant probes as it is large.
        discordant = max(discordance(middle), middle)
        spread = sure * sqrt(discordant) + strong * sqrt(discordant - middle**2)
        needed = (spread / middle) ** 2 + 1 / middle
        low, high = (middle, high) if needed > pairs else (low, middle)
    return high
