"""Checkpoints on the same probes: how many were gained, how many lost, and whether that could be chance."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Literal

from ml_pipeline.scoring.means import mean_interval
from ml_pipeline.scoring.paired import counts_interval, differences_interval
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
class Differences:
    """The differences of the probes that were scored for both, or of whole templates of them (`sums`), in multiples of
    1 / `unit`; `sizes` says how many probes each sum has, None where it is one."""

    sums: Sequence[int]
    unit: int
    sizes: Sequence[int] | None = None

    @property
    def p_value(self) -> float:
        """The exact two-sided sign-flip test; McNemar's where each probe was asked once."""
        if self.unit == 1 and self.sizes is None:
            return exact_mcnemar(*self._counts())
        return sign_flip_test(self.sums)

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """The interval, -1..1, which leaves out 0 exactly where `p_value` is below 1 - confidence."""
        if self.unit == 1 and self.sizes is None:
            return counts_interval(*self._counts(), len(self.sums), confidence)
        return differences_interval(self.sums, self.unit, self.sizes, confidence)

    def _counts(self) -> tuple[int, int]:
        return sum(one > 0 for one in self.sums), sum(one < 0 for one in self.sums)


@dataclass(frozen=True, slots=True)
class BeyondTemplates:
    """The same difference asked of templates that nobody wrote yet: `count` templates instead of their probes are the
    sample. `low` and `high` are its 95% interval, `p_value` the sign-flip test over whole templates."""

    count: int
    low: float
    high: float
    p_value: float
    differences: Differences = field(repr=False, compare=False)

    def at(self, confidence: float) -> BeyondTemplates:
        """The same with the interval of another confidence."""
        low, high = self.differences.interval(confidence)
        return replace(self, low=low, high=high)


@dataclass(frozen=True, slots=True)
class Comparison:
    """A candidate against a reference on the `paired` probes that were scored for both.

    `better` and `worse` count the probes on which the candidate did better and worse. `delta` is the difference of the
    shares passed (candidate minus reference, -1..1), `low` and `high` its 95% interval. `p_value` is McNemar's exact
    two-sided test, which for several answers a probe is the sign-flip test over probes; `p_adjusted` allows for the
    other checkpoints of the run (Holm). `detectable` is the smallest difference that so many probes find 4 times in 5.

    The interval is the test turned round (`scoring.paired`): it leaves out 0 exactly where `p_value` is below 5%. At
    another confidence it is that of `at`. All this speaks of probes like these, from the same templates; `beyond` of
    other templates, where there are any.
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
    differences: Differences = field(repr=False, compare=False)
    beyond: BeyondTemplates | None = None

    def at(self, confidence: float) -> Comparison:
        """The same with the intervals of another confidence: at 1 - 0.05 / k the interval leaves out 0 exactly where
        the test does that allows for k looks (Bonferroni)."""
        low, high = self.differences.interval(confidence)
        return replace(self, low=low, high=high, beyond=self.beyond and self.beyond.at(confidence))

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
    over whole templates (`means.mean_interval`); None where all differences are equal, which is no proof of anything.
    """

    paired: int
    delta: float
    low: float | None
    high: float | None

    @property
    def clear(self) -> bool:
        """Whether there is an interval and it leaves out 0."""
        return self.low is not None and self.high is not None and not self.low <= 0 <= self.high


def compare(
    reference: Passes, candidate: Passes, templates: Templates | None = None, confidence: float = 0.95
) -> Comparison | None:
    """Compare the passes of two checkpoints by probe id, with intervals of this confidence; None when no probe was
    scored for both."""
    shared = sorted(reference.keys() & candidate.keys())
    if not shared:
        return None
    differences = [candidate[probe] - reference[probe] for probe in shared]
    alone = _in_units(differences)
    p_value, (low, high) = alone.p_value, alone.interval(confidence)
    return Comparison(
        paired=len(shared),
        better=sum(d > 0 for d in differences),
        worse=sum(d < 0 for d in differences),
        delta=float(sum(differences) / len(shared)),
        low=low,
        high=high,
        p_value=p_value,
        p_adjusted=p_value,
        detectable=detectable_difference(_discordance(differences), len(shared)),
        differences=alone,
        beyond=_beyond(shared, alone, templates or {}, confidence),
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
    return RunComparison(paired=len(shared), delta=delta, p_value=sign_flip_test(_in_units(differences).sums))


def compare_means(
    reference: Mapping[str, float], candidate: Mapping[str, float], templates: Templates, confidence: float = 0.95
) -> MeanComparison | None:
    """Compare a figure of two checkpoints by probe id, with an interval of this confidence; None with fewer than two
    probes (or templates) in common."""
    shared = sorted(reference.keys() & candidate.keys())
    clusters = [templates.get(probe, probe) for probe in shared]
    if len(set(clusters)) < 2:
        return None
    differences = [_difference(reference[probe], candidate[probe]) for probe in shared]
    low, high = mean_interval(differences, clusters, confidence) or (None, None)
    return MeanComparison(len(shared), math.fsum(differences) / len(shared), low, high)


def _difference(old: float, new: float) -> float:
    """Equal figures may differ by what rounding left: a mean of three is not always to the last bit that of six."""
    return 0.0 if math.isclose(old, new, rel_tol=1e-12) else new - old


def _in_units(differences: Sequence[Difference]) -> Differences:
    unit = math.lcm(*(difference.denominator for difference in differences))
    return Differences([int(difference * unit) for difference in differences], unit)


def _discordance(differences: Sequence[Difference]) -> float:
    """The mean square of the differences: the share of discordant probes where each was asked once, and as in
    Bonett and Price (2012) with one more on either side, so that a few alike probes claim no perfect eye."""
    return min(1.0, (float(sum(d * d for d in differences)) + 2) / (len(differences) + 2))


def _beyond(
    probes: Sequence[str], alone: Differences, templates: Templates, confidence: float
) -> BeyondTemplates | None:
    sums: dict[str, int] = defaultdict(int)
    sizes: dict[str, int] = defaultdict(int)
    for probe, difference in zip(probes, alone.sums, strict=True):
        template = templates.get(probe, probe)
        sums[template] += difference
        sizes[template] += 1
    if not 1 < len(sums) < len(probes):
        return None
    clustered = Differences(list(sums.values()), alone.unit, list(sizes.values()))
    return BeyondTemplates(len(sums), *clustered.interval(confidence), clustered.p_value, clustered)


def _verdict(p_value: float, delta: float) -> Verdict:
    if p_value >= SIGNIFICANCE:
        return "no clear difference"
    return "better" if delta > 0 else "worse"
