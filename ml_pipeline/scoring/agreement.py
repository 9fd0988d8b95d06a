"""How far judges agree, with each other or with themselves: Krippendorff's alpha, and the median of their figures."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Literal

from ml_pipeline.scoring.judgement import AVERAGE, JudgeReading, mean_of_dimensions
from ml_pipeline.suites.suite import Rubric

Level = Literal["interval", "ordinal"]


def krippendorff_alpha(units: Sequence[Sequence[float | None]], level: Level = "interval") -> float | None:
    """Krippendorff's alpha: 1 for full agreement, 0 for what chance gives, below 0 for systematic disagreement.

    A unit holds the figures that one answer was given, in any order; None is a figure that is missing, and a unit
    with fewer than two says nothing. `interval` takes differences as they are, `ordinal` only the order of the
    figures. None when there is nothing to compare: no unit with two figures, or all figures the same.

    Source: K. Krippendorff, Computing Krippendorff's Alpha-Reliability, 2011. The squared ordinal difference of two
    values is that of their mid-ranks, which makes it the interval form over ranks. One pass; no pairs are built.
    """
    rated = [[value for value in unit if value is not None] for unit in units]
    rated = [unit for unit in rated if len(unit) > 1]
    if level == "ordinal":
        ranks = _mid_ranks([value for unit in rated for value in unit])
        rated = [[ranks[value] for value in unit] for unit in rated]
    pooled = [value for unit in rated for value in unit]
    expected = _squared_differences(pooled) / (len(pooled) - 1) if pooled else 0.0
    if expected == 0:
        return None
    observed = math.fsum(_squared_differences(unit) / (len(unit) - 1) for unit in rated)
    return 1 - observed / expected


def median_reading(rubric: Rubric, readings: Mapping[str, Sequence[JudgeReading]]) -> JudgeReading:
    """The panel's figure for one answer: of each dimension the median over judges of each judge's own median.

    `readings` are those of each judge by name, one a repeat. What a judge could not be read for does not count; a
    dimension that no judge gave is None, with their reasons. The mean is that of the medians. Raises ValueError
    without any reading.
    """
    every = [reading for repeats in readings.values() for reading in repeats]
    if len(every) == 1:
        return every[0]
    if not every:
        raise ValueError("the median of no reading: give at least one judge's.")
    scores: dict[str, float | None] = {}
    reasons: dict[str, str] = {}
    for dimension in rubric.dimensions:
        medians = [own for repeats in readings.values() if (own := _median_of(repeats, dimension.name)) is not None]
        scores[dimension.name] = statistics.median(medians) if medians else None
        if not medians:
            reasons[dimension.name] = "; ".join(dict.fromkeys(reading.reasons[dimension.name] for reading in every))
    if rubric.average:
        scores[AVERAGE], reason = mean_of_dimensions(scores)
        if reason:
            reasons[AVERAGE] = reason
    return JudgeReading(scores, reasons)


def _median_of(readings: Sequence[JudgeReading], dimension: str) -> float | None:
    scores = [score for reading in readings if (score := reading.scores[dimension]) is not None]
    return statistics.median(scores) if scores else None


def _squared_differences(values: Sequence[float]) -> float:
    """The sum of squared differences over all ordered pairs, by way of the mean, which keeps it exact enough."""
    mean = math.fsum(values) / len(values)
    return 2 * len(values) * math.fsum((value - mean) ** 2 for value in values)


def _mid_ranks(values: Sequence[float]) -> dict[float, float]:
    counts = sorted(Counter(values).items())
    through = accumulate(count for _, count in counts)
    return {value: last - count / 2 for (value, count), last in zip(counts, through, strict=True)}
