"""The difference between two checkpoints over the same probes, with an interval that agrees with the exact test."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from math import lgamma, log, sqrt
from statistics import NormalDist

import numpy as np

from ml_pipeline.scoring.means import Floats, spread_count
from ml_pipeline.scoring.statistics import EXACT_STEPS, wilson_interval

_NORMAL = NormalDist()


def counts_interval(better: int, worse: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Interval of a difference of shares (-1..1): of `total` probes, `better` were gained and `worse` were lost.

    It leaves out 0 exactly where McNemar's exact test (`statistics.exact_mcnemar`) has p < 1 - confidence. See
    `differences_interval`, of which this is the case of whole differences.

    Raises:
        ValueError: counts below 0 or above `total`, no probes, or a confidence outside 0..1.
    """
    if better < 0 or worse < 0 or better + worse > total or total == 0:
        raise ValueError(f"of {total} probes {better} cannot be gained and {worse} lost.")
    return _counts(better, worse, total, confidence)


@lru_cache(maxsize=65536)
def _counts(better: int, worse: int, total: int, confidence: float) -> tuple[float, float]:
    changed = better + worse
    signs = _sign_limits([1] * changed, better - worse, confidence)
    low, high = wilson_interval(changed, total, confidence)
    size = changed / total
    return _product((better - worse) / max(1, changed), signs, size, (low, high), 0.0)


def differences_interval(
    sums: Sequence[int], unit: int, sizes: Sequence[int] | None = None, confidence: float = 0.95
) -> tuple[float, float]:
    """Interval of a mean difference, -1..1, between two checkpoints that were asked the same probes.

    `sums` are the differences of the probes (or of whole clusters of them, such as templates, of which `sizes` holds
    how many probes each has), in whole multiples of 1 / `unit`. The interval leaves out 0 exactly where the sign-flip
    test of the sums (`statistics.sign_flip_test`) has p < 1 - confidence, and never leaves -1..1.

    The mean is the product of two figures: how much the checkpoints differ at all (the mean size of the differences),
    and how much of that points one way. The limits of the latter invert the sign-flip test: its distribution, tilted
    exponentially towards one side, which for whole differences is Clopper and Pearson's interval of the share gained.
    Those of the former are Wilson's with the effective count. They are combined by the method of variance estimates
    recovery, which for a product of figures is Fieller's: the sign of a limit is that of the tilted test's.
    Sources: C. J. Clopper and E. S. Pearson, Biometrika 26 (1934); A. Donner and G. Y. Zou, Statistical Methods in
    Medical Research 21 (2012), equation 9, for a ratio (here to the inverse of the mean size), with their correlation.

    Raises:
        ValueError: no sums, a sum larger than its size, or a confidence outside 0..1.
    """
    signed = np.asarray(sums, dtype=np.float64) / unit
    asked = np.ones_like(signed) if sizes is None else np.asarray(sizes, dtype=np.float64)
    far = np.abs(signed)
    if not len(signed) or np.any(far > asked * (1 + 1e-12)):
        raise ValueError(f"differences must be there and within -1..1 of their probes: {len(signed)} sums.")
    changed = [abs(one) for one in sums if one]
    signs = _sign_limits(changed, sum(sums), confidence)
    size = float(far.sum() / asked.sum())
    count = spread_count(far, asked, confidence)
    within = wilson_interval(size * count, count, confidence)
    if not changed:
        return _product(0.0, signs, 0.0, within, 0.0)
    direction = float(signed.sum() / far.sum())
    # Large differences may point one way more than small ones: then direction and size rise and fall together.
    turned, sized = signed - direction * far, far - size * asked
    spread = float((turned @ turned) * (sized @ sized))
    together = float(turned @ sized) / sqrt(spread) if spread > 1e-18 else 0.0
    together *= len(changed) / (len(changed) + 1)
    return _product(direction, signs, size, within, together)


def _product(
    direction: float, signs: tuple[float, float], size: float, within: tuple[float, float], together: float
) -> tuple[float, float]:
    """The limits of direction * size out of the limits of either."""
    if not size:
        return -within[1], within[1]
    low = _lower_limit(direction, signs[0], size, within, together)
    high = -_lower_limit(-direction, -signs[1], size, within, -together)
    return max(-1.0, low), min(1.0, high)


def _lower_limit(direction: float, limit: float, size: float, within: tuple[float, float], together: float) -> float:
    inverse = 1 / size
    away = (1 / max(within[0], 1e-9) - inverse) if limit > 0 else (inverse - 1 / within[1])
    squared = inverse**2 - away**2
    half = direction * inverse + together * (direction - limit) * away
    rest = limit * (2 * direction - limit)
    if abs(squared) < 1e-12 * inverse**2:
        return rest / (2 * half) if half else 0.0
    return (half - sqrt(max(0.0, half**2 - squared * rest))) / squared


def _sign_limits(sizes: Sequence[int], total: int, confidence: float) -> tuple[float, float]:
    """Limits, -1..1, of the share of the sizes that points up less that which points down."""
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, not {confidence}.")
    if not sizes:
        return -1.0, 1.0
    tilted = _Tilted(sizes)
    alpha = 1 - confidence
    return tilted.lower_limit(total, alpha / 2), -tilted.lower_limit(-total, alpha / 2)


class _Tilted:
    """The sum of `sizes` with signs by chance, each up with the odds exp(2 * tilt * size)."""

    def __init__(self, sizes: Sequence[int]) -> None:
        different, counts = np.unique(np.asarray(sizes, dtype=np.int64), return_counts=True)
        step = int(np.gcd.reduce(different))
        self._sizes, self._counts = different / step, counts.astype(np.float64)
        self._step, self._whole = step, int(different @ counts) // step
        # Exact as far as the test is; McNemar's, where all sizes are one, always is.
        exact = len(different) == 1 or len(sizes) * self._whole * step <= EXACT_STEPS
        self._log_ways = self._log_distribution() if exact else None
        self._sums = 2.0 * np.arange(self._whole + 1) - self._whole

    def _log_distribution(self) -> Floats:
        """Logarithm of the share of all choices of signs that give each sum, from the lowest."""
        if len(self._sizes) == 1:
            n = self._whole
            return np.array([lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1) - n * log(2) for k in range(n + 1)])
        shares = np.ones(1)
        for size, count in zip(self._sizes.astype(int), self._counts.astype(int), strict=True):
            for _ in range(count):
                moved = np.zeros(len(shares) + size)
                moved[: len(shares)] += shares
                moved[size:] += shares
                shares = moved / 2
        with np.errstate(divide="ignore"):
            found: Floats = np.log(shares)
        return found

    def lower_limit(self, total: int, tail: float) -> float:
        """The mean direction, -1..1, at which a sum of `total` or more has the chance `tail`."""
        total //= self._step
        if total == -self._whole:
            return -1.0
        target = log(tail)
        low = high = 0.0
        below = above = self._log_tail(0.0, total) - target
        step = 1 / sqrt(float(self._counts @ self._sizes**2))
        # The bracket ends at 0, never beyond: so the sign of the limit is what the test says, to the last bit.
        while above < 0:
            low, below, high, step = high, above, high + step, 2 * step
            above = self._log_tail(high, total) - target
        while below >= 0 and low <= 0:
            high, above, low, step = low, below, low - step, 2 * step
            below = self._log_tail(low, total) - target
        tilt = _root(lambda tilt: self._log_tail(tilt, total) - target, (low, below), (high, above))
        return float(self._counts @ (self._sizes * np.tanh(tilt * self._sizes)) / self._whole)

    def _log_tail(self, tilt: float, total: int) -> float:
        if self._log_ways is None:
            lean = np.tanh(tilt * self._sizes)
            mean = float(self._counts @ (self._sizes * lean))
            deviation = sqrt(float(self._counts @ (self._sizes**2 * (1 - lean**2))))
            return log(max(1e-300, _NORMAL.cdf((mean - total) / max(deviation, 1e-9))))
        weights = self._log_ways + tilt * self._sums
        return _log_sum(weights[(total + self._whole) // 2 :]) - _log_sum(weights)


def _log_sum(weights: Floats) -> float:
    largest = float(weights.max())
    return largest + log(float(np.exp(weights - largest).sum()))


def _root(rises: Callable[[float], float], low: tuple[float, float], high: tuple[float, float]) -> float:
    """Where a rising function is 0, between two places with their values: regula falsi, by the Illinois rule."""
    (left, below), (right, above) = low, high
    side = 0
    for _ in range(100):
        if right - left < 1e-12 * (1 + abs(left)):
            break
        middle = (left * above - right * below) / (above - below)
        found = rises(middle)
        if abs(found) < 1e-10:
            return middle
        if found < 0:
            left, below = middle, found
            above, side = above / (2 if side < 0 else 1), -1
        else:
            right, above = middle, found
            below, side = below / (2 if side > 0 else 1), 1
    return (left + right) / 2
