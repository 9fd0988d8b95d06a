"""The difference between two checkpoints over the same probes, with an interval that agrees with the exact test."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from math import log, sqrt
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from ml_pipeline.scoring.means import Floats, bounded_by_sums
from ml_pipeline.scoring.statistics import EXACT_STEPS

_NORMAL = NormalDist()
_SMALL = 16
"""Up to this size of a difference a convolution is quicker than adding one difference after the other."""


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
    same = total - better - worse
    return differences_interval([1] * better + [-1] * worse + [0] * same, 1, confidence=confidence)


def differences_interval(
    sums: Sequence[int], unit: int, sizes: Sequence[int] | None = None, confidence: float = 0.95
) -> tuple[float, float]:
    """Interval of a mean difference, -1..1, between two checkpoints that were asked the same probes.

    `sums` are the differences of the probes (or of whole clusters of them, such as templates, of which `sizes` holds
    how many probes each has), in whole multiples of 1 / `unit`. The interval leaves out 0 exactly where the sign-flip
    test of the sums (`statistics.sign_flip_test`) has p < 1 - confidence, and never leaves -1..1.

    The sign comes from the inverted test: the distribution of its sum, tilted exponentially towards one side, gives
    limits for the direction, which is the share of the differences that points up less the share that points down (for
    whole differences they are Clopper and Pearson's). Where these say that the sign is sure, the end next to 0 is the
    limit of direction times mean size. All other ends are the limits of gains less losses, moved to 0 where they would
    leave it out although the test does not. Sizes, gains and losses have Wilson's limits with the effective count, and
    limits are combined by the method of variance estimates recovery.
    Sources: C. J. Clopper and E. S. Pearson, Biometrika 26 (1934); R. G. Newcombe, Statistics in Medicine 17 (1998),
    2635, for the difference; A. Donner and G. Y. Zou, Statistical Methods in Medical Research 21 (2012), for the
    product (a ratio to the inverse of the size).

    Raises:
        ValueError: no sums, a sum larger than its size, or a confidence outside 0..1.
    """
    signed = np.asarray(sums, dtype=np.float64) / unit
    asked = np.ones_like(signed) if sizes is None else np.asarray(sizes, dtype=np.float64)
    far = np.abs(signed)
    if not len(signed) or np.any(far > asked * (1 + 1e-12)):
        raise ValueError(f"differences must be there and within -1..1 of their probes: {len(signed)} sums.")
    parts = (np.maximum(signed, 0), np.maximum(-signed, 0), far)
    gained, lost, either = (_share(part, asked, confidence) for part in parts)
    signs = _sign_limits([abs(one) for one in sums if one], sum(sums), confidence)
    direction = signed - float(signed.sum() / max(far.sum(), 1e-12)) * far
    shares = [part - share.value * asked for part, share in zip(parts, (gained, lost, either), strict=True)]
    # Large differences may point one way more than small ones: then direction and size rise and fall together. Few of
    # them say little about that.
    changed = int(np.count_nonzero(far))
    together = _Correlations(_correlation(*shares[:2]), _correlation(direction, shares[2]) * changed / (changed + 1))
    return _ends(gained, lost, either, signs, together)


class _Share(NamedTuple):
    value: float
    low: float
    high: float


class _Correlations(NamedTuple):
    gained_lost: float
    direction_size: float


def _share(sums: Floats, sizes: Floats, confidence: float) -> _Share:
    return _Share(float(sums.sum() / sizes.sum()), *bounded_by_sums(sums, sizes, confidence))


def _correlation(one: Floats, other: Floats) -> float:
    """Of two figures, by how much each probe moves them."""
    spread = float((one @ one) * (other @ other))
    return float(one @ other) / sqrt(spread) if spread > 1e-18 else 0.0


def _ends(
    gained: _Share, lost: _Share, either: _Share, signs: tuple[float, float], together: _Correlations
) -> tuple[float, float]:
    mirrored = _Correlations(together.gained_lost, -together.direction_size)
    return (
        _low_end(gained, lost, either, signs[0], together),
        0.0 - _low_end(lost, gained, either, -signs[1], mirrored),
    )


def _low_end(gained: _Share, lost: _Share, either: _Share, sign: float, together: _Correlations) -> float:
    difference = gained.value - lost.value
    if sign > 0:
        largest = 1 / max(either.low, 1e-9)
        return _nearest(difference / either.value, sign, 1 / either.value, largest, together.direction_size)
    down, up = gained.value - gained.low, lost.high - lost.value
    away = sqrt(down**2 + up**2 - 2 * together.gained_lost * down * up)
    return max(-1.0, min(0.0, difference - away))


def _nearest(direction: float, limit: float, inverse: float, largest: float, together: float) -> float:
    """The limit above 0 of a direction (its own limit being above 0) over the inverse of a size: where direction -
    ratio * inverse is as far from 0 as the limits of the two allow together."""
    away = largest - inverse
    squared, half = inverse**2 - away**2, direction * inverse + together * (direction - limit) * away
    rest = limit * (2 * direction - limit)
    if abs(squared) < 1e-12 * inverse**2:
        return rest / (2 * half)
    return (half - sqrt(max(0.0, half**2 - squared * rest))) / squared


def _sign_limits(sizes: Sequence[int], total: int, confidence: float) -> tuple[float, float]:
    """Limits, -1..1, of the share of the sizes that points up less that which points down."""
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
            return _log_binomial(self._whole)
        shares = np.ones(1)
        for size, count in zip(self._sizes.astype(int), self._counts.astype(int), strict=True):
            if size <= _SMALL:
                sparse = np.zeros(count * size + 1)
                sparse[::size] = np.exp(_log_binomial(count))
                shares = np.convolve(shares, sparse)
                continue
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


def _log_binomial(count: int) -> Floats:
    """Logarithm of the chance of 0, 1 ... `count` heads of a fair coin."""
    ways = np.concatenate(([0.0], np.cumsum(np.log(np.arange(count, 0, -1) / np.arange(1, count + 1)))))
    return ways - count * log(2)


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
