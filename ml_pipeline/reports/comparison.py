"""Checkpoints on the same probes: how many were gained, how many lost, and whether that could be chance."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal

from ml_pipeline.reports.intervals import difference_interval
from ml_pipeline.scoring.means import mean_interval
from ml_pipeline.scoring.power import SIGNIFICANCE, detectable_difference
from ml_pipeline.scoring.statistics import exact_mcnemar, holm, sign_flip_test

Verdict = Literal["better", "worse", "no clear difference"]
Passes = Mapping[str, bool | Fraction]
"""Whether each probe passed, by its id; of several answers to one, the share that did."""
Difference = int | Fraction
"""By how much the share that passed a probe differs: whole where each was asked once, since that is quicker to add."""
Templates = Mapping[str, str]
"""The template of each probe that has one, by the probe's id."""


@dataclass(frozen=True, slots=True)
class BeyondTemplates:
    """The same difference asked of templates that nobody wrote yet: `count` templates instead of their probes are the
    sample. `low` and `high` are its 95% interval, `p_value` the sign-flip test over whole templates."""

    count: int
    low: float
    high: float
    p_value: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """A candidate against a reference on the `paired` probes that were scored for both.

    `better` and `worse` count the probes on which the candidate did better and worse. `delta` is the difference of the
    shares passed (candidate minus reference, -1..1), `low` and `high` its 95% interval (Bonett and Price's; for several
    answers a probe the paired bootstrap's). `p_value` is McNemar's exact two-sided test, which for several answers is
    the sign-flip test over probes; `p_adjusted` allows for the other checkpoints of the run (Holm). `detectable` is
    the smallest difference that so many probes find 4 times in 5.

    All this speaks of probes like these, from the same templates; `beyond` of other templates, where there are any.
    The verdict follows the adjusted test, which on few probes asks for more than the interval does: an interval just
    clear of 0 may still be "no clear difference".
    """

    paired: int
    better: int
    worse: int
    delta: float
    low: float
    high: float
    p_value: float
    p_adjusted: float
    detectable: float
    beyond: BeyondTemplates | None = None

    @property
    def verdict(self) -> Verdict:
        """What the test says at the 5% level, all checkpoints of the run considered."""
        return _verdict(self.p_adjusted, self.delta)


@dataclass(frozen=True, slots=True)
class RunComparison:
    """All checkpoints of a run together against a reference, on the `paired` probes that were scored for all of them.

    `delta` is the mean difference of the shares passed (-1..1), `p_value` the exact sign-flip test over the probes'
    mean differences. It sees what every checkpoint shares and no single one can prove on few probes; it says nothing
    about which of them is best.
    """

    paired: int
    delta: float
    p_value: float

    @property
    def verdict(self) -> Verdict:
        """What the test says at the 5% level."""
        return _verdict(self.p_value, self.delta)


@dataclass(frozen=True, slots=True)
class MeanComparison:
    """The mean of a figure, such as LEK or a judge's, against a reference's on the `paired` probes that have both.

    `delta` is the difference (candidate minus reference), `low` and `high` its 95% interval, the paired bootstrap's
    over whole templates.
    """

    paired: int
    delta: float
    low: float
    high: float


def compare(reference: Passes, candidate: Passes, templates: Templates | None = None) -> Comparison | None:
    """Compare the passes of two checkpoints by probe id; None when no probe was scored for both."""
    shared = sorted(reference.keys() & candidate.keys())
    if not shared:
        return None
    differences = [candidate[probe] - reference[probe] for probe in shared]
    better, worse = sum(d > 0 for d in differences), sum(d < 0 for d in differences)
    asked_once = all(difference.denominator == 1 for difference in differences)
    p_value = exact_mcnemar(better, worse) if asked_once else _sign_flips(differences)
    interval = difference_interval(better, worse, len(shared)) if asked_once else _bootstrap(differences)
    return Comparison(
        paired=len(shared),
        better=better,
        worse=worse,
        delta=float(sum(differences) / len(shared)),
        low=interval[0],
        high=interval[1],
        p_value=p_value,
        p_adjusted=p_value,
        detectable=detectable_difference(_discordance(differences), len(shared)),
        beyond=_beyond(shared, differences, templates or {}),
    )


def adjusted(comparisons: Sequence[Comparison | None]) -> list[Comparison | None]:
    """The comparisons of one run's checkpoints, each with the p value that allows for all of them."""
    raised = iter(holm([one.p_value for one in comparisons if one is not None]))
    return [None if one is None else replace(one, p_adjusted=next(raised)) for one in comparisons]


def compare_run(reference: Passes, candidates: Sequence[Passes]) -> RunComparison | None:
    """Compare the passes of several checkpoints at once; None when no probe was scored for all."""
    shared = reference.keys() & set.intersection(*(set(candidate) for candidate in candidates)) if candidates else None
    if not shared:
        return None
    differences = [
        sum(candidate[probe] for candidate in candidates) - len(candidates) * reference[probe]
        for probe in sorted(shared)
    ]
    delta = float(sum(differences) / (len(candidates) * len(shared)))
    return RunComparison(paired=len(shared), delta=delta, p_value=_sign_flips(differences))


def compare_means(
    reference: Mapping[str, float], candidate: Mapping[str, float], templates: Templates
) -> MeanComparison | None:
    """Compare a figure of two checkpoints by probe id; None with fewer than two probes (or templates) in common."""
    shared = sorted(reference.keys() & candidate.keys())
    differences = [candidate[probe] - reference[probe] for probe in shared]
    interval = mean_interval(differences, [templates.get(probe, probe) for probe in shared])
    return interval and MeanComparison(len(shared), math.fsum(differences) / len(shared), *interval)


def _sign_flips(differences: Sequence[Difference]) -> float:
    whole = math.lcm(*(difference.denominator for difference in differences))
    return sign_flip_test([int(difference * whole) for difference in differences])


def _bootstrap(differences: Sequence[Difference], clusters: Sequence[str] | None = None) -> tuple[float, float]:
    return mean_interval([float(difference) for difference in differences], clusters) or (-1.0, 1.0)


def _discordance(differences: Sequence[Difference]) -> float:
    """The mean square of the differences: the share of discordant probes where each was asked once, and as in
    `difference_interval` with one more on either side, so that a few alike probes claim no perfect eye."""
    return min(1.0, (float(sum(d * d for d in differences)) + 2) / (len(differences) + 2))


def _beyond(probes: Sequence[str], differences: Sequence[Difference], templates: Templates) -> BeyondTemplates | None:
    clusters = [templates.get(probe, probe) for probe in probes]
    sums: dict[str, Difference] = defaultdict(int)
    for cluster, difference in zip(clusters, differences, strict=True):
        sums[cluster] += difference
    if not 1 < len(sums) < len(probes):
        return None
    low, high = _bootstrap(differences, clusters)
    return BeyondTemplates(len(sums), low, high, _sign_flips(list(sums.values())))


def _verdict(p_value: float, delta: float) -> Verdict:
    if p_value >= SIGNIFICANCE:
        return "no clear difference"
    return "better" if delta > 0 else "worse"
