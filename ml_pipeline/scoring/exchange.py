"""Exact tests of equal checkpoints: had nothing changed, any of the answers to a probe could as well be any other's."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.int64]
Masks = npt.NDArray[np.bool_]


class Tails(NamedTuple):
    """How often chance alone gives as little as was seen (`lower`), and as much (`upper`)."""

    lower: float
    upper: float

    @property
    def two_sided(self) -> float:
        """Twice the smaller tail, at most 1."""
        return min(1.0, 2 * min(self.lower, self.upper))


def exchange_test(reference: Values, others: Values, scored: Masks | None = None) -> Tails:
    """The tails of the reference's sum, if on every probe its value is equally likely any of those seen there.

    `reference` has one whole number a probe (1 for passed, 0 for failed; of several answers, how many passed),
    `others` a row of them for each of the checkpoints that it is held against, `scored` says which of those there are.
    The probes are independent, so that the sum of passes is Poisson-binomial, with the share of all checkpoints that
    pass a probe as its chance. One other checkpoint makes it McNemar's exact test. Unlike flips of the sign of a
    difference from a mean it is exact where the checkpoints are many and the probes alike or decided.
    Source: E. J. G. Pitman, JRSS Supplement 4 (1937); for Poisson-binomial sums Y. Hong, CSDA 59 (2013), direct
    convolution.
    """
    values, there = _together(reference, others, scored)
    least = np.where(there, values, reference[None, :]).min(axis=0)
    spread = np.where(there, values, reference[None, :]).max(axis=0) - least
    open_probes = np.flatnonzero(spread)
    if not len(open_probes):
        return Tails(1.0, 1.0)
    shifted, there = (values - least)[:, open_probes], there[:, open_probes]
    seen = int(shifted[0].sum())
    chances = np.ones(1)
    for column, known, top in zip(shifted.T, there.T, spread[open_probes], strict=True):
        counts = np.bincount(column[known], minlength=int(top) + 1)
        chances = np.convolve(chances, counts / counts.sum())
    return Tails(min(1.0, float(chances[: seen + 1].sum())), min(1.0, float(chances[seen:].sum())))


def exchange_z(reference: Values, others: Values, scored: Masks | None = None) -> float:
    """How many standard deviations the reference's sum lies above what `exchange_test` expects: quick, not exact."""
    values, there = _together(reference, others, scored)
    counts = there.sum(axis=0)
    means = (values * there).sum(axis=0) / counts
    spread = float(((values * values * there).sum(axis=0) / counts - means * means).sum())
    return 0.0 if spread <= 0 else float((reference - means).sum()) / math.sqrt(spread)


def _together(reference: Values, others: Values, scored: Masks | None) -> tuple[Values, Masks]:
    values = np.vstack([reference[None, :], others])
    there = np.ones(values.shape, dtype=bool)
    if scored is not None:
        there[1:] = scored
    return values, there


def share_rose(before: int, before_of: int, now: int, now_of: int) -> float:
    """One-sided p that a share of answers did not rise: `now` of `now_of` show a sign, `before` of `before_of` did.

    Fisher's exact test. Answers that show the sign with chances of their own, the same in both, vary less than it
    allows for. Source: R. A. Fisher, Statistical Methods for Research Workers (1934), section 21.02.
    """
    if not (0 <= before <= before_of and 0 <= now <= now_of):
        raise ValueError(f"counts must be within their totals: {before} of {before_of}, {now} of {now_of}.")
    hits = before + now
    ways = math.comb(before_of + now_of, hits)
    least = max(now, hits - before_of)
    tail = sum(math.comb(now_of, k) * math.comb(before_of, hits - k) for k in range(least, min(hits, now_of) + 1))
    return tail / ways
