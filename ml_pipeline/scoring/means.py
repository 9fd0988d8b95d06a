"""Shares and means with honest error bars, also of values that come in clusters."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import lru_cache
from math import sqrt
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from ml_pipeline.scoring.student import t_quantile, z_quantile

RESAMPLES = 2000
_FEWEST, _MOST = 20, 1000
_FEWEST_BEYOND = 20
"""So many resampled means must lie beyond an interval for its ends to be known."""
_PRIOR = 1.0
"""So many values unlike the others are taken to be wholly bound to their cluster before any is seen."""
Floats = npt.NDArray[np.float64]
Clusters = Sequence[Hashable]


def clustered_error(values: Sequence[float] | Floats, clusters: Clusters | None = None) -> float | None:
    """Standard error of the mean of values that succeed and fail together within a cluster (None: each stands alone).

    None with fewer than two clusters, which say nothing about the spread between them. With one value a cluster it is
    the ordinary standard error. Source: E. Miller, Adding Error Bars to Evals, arXiv 2411.00640 (2024), equation 4,
    with the usual factor G / (G - 1) for G clusters.
    """
    return error_by_sums(*_grouped(values, clusters))


def error_by_sums(sums: Floats, sizes: Floats) -> float | None:
    """`clustered_error` out of the sum and the size of each cluster; 0 where only rounding tells the values apart."""
    if len(sums) < 2:
        return None
    residuals = sums - sizes * (sums.sum() / sizes.sum())
    error = float(sqrt((residuals @ residuals) * len(sums) / (len(sums) - 1)) / sizes.sum())
    return error if error > 1e-12 * float(np.abs(sums / sizes).max()) else 0.0


def lopsided(groups: int) -> float:
    """How much wider Student's interval of so many values must be to hold the mean of values that are as lopsided as
    an exponential variable 19 times in 20."""
    return 1 + 4 / (groups + 2)


def effective_count(values: Sequence[float] | Floats, clusters: Clusters, confidence: float = 0.95) -> float:
    """How many values (0..1) that stand alone tell as much about the mean as these clustered ones.

    It is at most their number, and at least that of the clusters (of unequal ones Kish's: L. Kish, Survey Sampling,
    1965), which is what it is where nothing says more: for one cluster, and for values that are all alike. In between
    it is the number less the design effect, and a little less again since few clusters tell that only roughly
    (E. L. Korn and B. I. Graubard, Survey Methodology 24, 1998).
    """
    sums, sizes = _grouped(values, clusters)
    return min(float(len(values)), spread_count(sums, sizes, confidence))


def spread_count(sums: Floats, sizes: Floats, confidence: float = 0.95) -> float:
    """The effective count of clusters of values 0..1 out of the sum and the size of each: see `effective_count`.

    It may be more than there are values: of shares, such as those of several answers, one tells more than one yes or
    no.
    """
    total, groups = float(sizes.sum()), len(sums)
    fewest = total**2 / float(sizes @ sizes)
    if groups < 2:
        return fewest
    mean = float(sums.sum()) / total
    residuals = sums - sizes * mean
    together = float(residuals @ residuals) * groups / (groups - 1)
    alone = total * mean * (1 - mean) * total / (total - 1)
    # A few values unlike the others say little about how clusters hang together: until there are more, they count as
    # if they did wholly.
    design = (together + _PRIOR * total / fewest) / (alone + _PRIOR)
    unsure = 1.0 if groups == total else (z_quantile(confidence) / t_quantile(groups - 1, confidence)) ** 2
    return max(fewest, total / design * unsure)


def mean_interval(
    values: Sequence[float] | Floats, clusters: Clusters | None = None, confidence: float = 0.95
) -> tuple[float, float] | None:
    """Interval of a mean; None with fewer than two values (or clusters), and where all are equal, which says nothing
    about how far others would be. Of values between known bounds take `bounded_interval`.

    It is made for values as lopsided as an exponential variable, of which 95% intervals hold the mean 19 times in 20
    from two values on: Student's t with the clustered error, widened as `lopsided` says. Of normal values they hold it
    more often; of values that are mostly the same and rarely far off, less often until some of those are seen, for
    which only known bounds help. From 20 to 1000 clusters (values, where there are none) it is a bootstrap of whole
    clusters: bias-corrected and accelerated (B. Efron, JASA 82, 1987), its quantiles widened to that t (T. Hesterberg,
    The American Statistician 69, 2015), unless the confidence asks for more resamples than there are. The same values
    give the same interval.
    """
    return mean_by_sums(*_grouped(values, clusters), confidence)


def mean_by_sums(sums: Floats, sizes: Floats, confidence: float = 0.95) -> tuple[float, float] | None:
    """`mean_interval` out of the sum and the size of each cluster."""
    error = error_by_sums(sums, sizes)
    if not error:
        return None
    mean, groups = float(sums.sum() / sizes.sum()), len(sums)
    t = t_quantile(groups - 1, confidence) * lopsided(groups)
    if not _FEWEST <= groups <= _MOST or (1 - confidence) * RESAMPLES < _FEWEST_BEYOND:
        return mean - t * error, mean + t * error
    weights = _weights(groups)
    means = (weights @ sums) / (weights @ sizes)
    low, high = np.quantile(means, _levels(means, mean, sums, sizes, t))
    return float(low), float(high)


def bounded_interval(
    values: Sequence[float] | Floats, clusters: Clusters | None = None, confidence: float = 0.95
) -> tuple[float, float] | None:
    """Interval, within 0..1, of the mean of values that cannot leave 0..1: Wilson's, with the effective count of
    `spread_count`; None for no values.

    Of values that are all equal it is as wide as for as many yes or no answers as there are clusters.
    """
    sums, sizes = _grouped(values, clusters)
    return bounded_by_sums(sums, sizes, confidence) if len(sums) else None


def bounded_by_sums(sums: Floats, sizes: Floats, confidence: float = 0.95) -> tuple[float, float]:
    """`bounded_interval` out of the sum and the size of each cluster."""
    count = spread_count(sums, sizes, confidence)
    return wilson_interval(min(count, float(sums.sum() / sizes.sum()) * count), count, confidence)


def wilson_interval(correct: float, total: float, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval for a share, as (low, high) within 0..1; (0, 1) where nothing was counted.

    Unlike the textbook interval it stays within 0..1 and keeps its width at 0 of n and n of n. Counts need not be
    whole: answers that are not independent count as fewer, see `effective_count`.
    Source: E. B. Wilson, Probable Inference, JASA 22 (1927).
    """
    if not 0 <= correct <= total:
        raise ValueError(f"correct must be within 0..{total}, not {correct}.")
    z = z_quantile(confidence)
    if total == 0:
        return 0.0, 1.0
    share = correct / total
    centre = share + z * z / (2 * total)
    spread = z * sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    # At the edges the exact bound is 0 or 1, which rounding would miss by a hair.
    low = 0.0 if correct == 0 else (centre - spread) / scale
    high = 1.0 if correct == total else (centre + spread) / scale
    return low, high


def _levels(means: Floats, mean: float, sums: Floats, sizes: Floats, t: float) -> list[float]:
    """The two quantiles of the resampled means that bound the interval."""
    normal, groups = NormalDist(), len(sums)
    equal = np.isclose(means, mean, rtol=1e-12, atol=0)
    below = float(np.mean((means < mean) & ~equal) + np.mean(equal) / 2)
    bias = normal.inv_cdf(min(max(below, 1 / RESAMPLES), 1 - 1 / RESAMPLES))
    without = (sums.sum() - sums) / (sizes.sum() - sizes)
    skewed = without.mean() - without
    acceleration = float((skewed**3).sum() / (6 * (skewed @ skewed) ** 1.5))
    widened = t * sqrt(groups / (groups - 1))
    levels = []
    for end in (bias - widened, bias + widened):
        room = 1 - acceleration * end
        levels.append(normal.cdf(bias + end / room) if room > 0 else float(end > 0))
    return levels


@lru_cache(maxsize=8)
def _weights(groups: int) -> Floats:
    """How often each cluster is drawn in each resample: the same for every mean of so many clusters."""
    generator = np.random.default_rng(groups)
    return generator.multinomial(groups, [1 / groups] * groups, size=RESAMPLES).astype(np.float64)


def _grouped(values: Sequence[float] | Floats, clusters: Clusters | None) -> tuple[Floats, Floats]:
    """Sum and size of each cluster."""
    numbers = np.asarray(values, dtype=np.float64)
    if clusters is None:
        return numbers, np.ones_like(numbers)
    if len(clusters) != len(numbers):
        raise ValueError(f"{len(numbers)} values have {len(clusters)} clusters; each needs one.")
    places: dict[Hashable, int] = {}
    at = np.fromiter((places.setdefault(name, len(places)) for name in clusters), np.intp, len(numbers))
    sizes: Floats = np.bincount(at, minlength=len(places)).astype(np.float64)
    sums: Floats = np.bincount(at, weights=numbers, minlength=len(places)).astype(np.float64)
    return sums, sizes
