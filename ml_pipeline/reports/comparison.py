"""Checkpoints on the same probes: how many were gained, how many lost, and whether that could be chance."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction

import numpy as np

from ml_pipeline.reports.conclusions import (
    NO_DIFFERENCE,
    Verdict,
    agreeing,
    limit_may_decide,
    simultaneous_confidence,
    verdict_of,
)
from ml_pipeline.scoring.exchange import Values, exchange_test
from ml_pipeline.scoring.means import mean_interval
from ml_pipeline.scoring.paired import counts_interval, differences_interval
from ml_pipeline.scoring.power import SIGNIFICANCE, detectable_change
from ml_pipeline.scoring.statistics import exact_mcnemar, holm, sign_flip_test

Probes = frozenset[str]
NO_PROBES: Probes = frozenset()
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
class Limit:
    """What the token limit has to do with a difference: of all `paired` probes it cut the share `cut_reference` of the
    reference's answers and `cut_candidate` of the candidate's, so differently that the difference may be its doing.

    `delta` is the difference over all of them; the comparison speaks of the probes that both finished. `decides`:
    all of them together would be a clear difference, those that both finished are none, or are too few.
    """

    paired: int
    delta: float
    cut_reference: float
    cut_candidate: float
    decides: bool


@dataclass(frozen=True, slots=True)
class Comparison:
    """A candidate against a reference on the `paired` probes that were scored for both; where `limit` is there, on
    those of them that both finished.

    `better` and `worse` count the probes on which the candidate did better and worse. `delta` is the difference of the
    shares passed (candidate minus reference, -1..1), `low` and `high` its interval, the test turned
    round (`scoring.paired`). `p_value` is McNemar's exact two-sided test, which for several answers is
    the sign-flip test over probes. `p_adjusted` and the interval allow for the `tests` comparisons of which this is
    one (Holm; Bonferroni): all intervals together hold the truth with 95%. `detectable` is the smallest true difference
    that so many probes find 4 times in 5, with that allowance.

    Test and interval are one statement: the interval lies on one side of 0 exactly where `p_adjusted` is below 5%.
    All this speaks of probes like these, from the same templates; `beyond` of other templates, where there are any.
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
    tests: int = 1
    beyond: BeyondTemplates | None = None
    limit: Limit | None = None

    def at(self, confidence: float) -> Comparison:
        """The same with the intervals of another confidence: at 1 - 0.05 / k the interval leaves out 0 exactly where
        the test does that allows for k looks (Bonferroni)."""
        low, high = self.differences.interval(confidence)
        return replace(self, low=low, high=high, beyond=self.beyond and self.beyond.at(confidence))

    def detectable_at(self, significance: float) -> float:
        """The smallest true difference that so many probes find 4 times in 5 at this level; 1.0 where none."""
        if not self.paired:
            return 1.0
        return detectable_change(_noise(self.differences, self.p_value), self.paired, significance=significance)

    @property
    def verdict(self) -> Verdict:
        """What the test says at the 5% level, all comparisons considered."""
        return verdict_of(self.p_adjusted, self.delta, decided_by_limit=self.limit is not None and self.limit.decides)


@dataclass(frozen=True, slots=True)
class RunComparison:
    """All checkpoints of a run together against a reference, on the `paired` probes that were scored for all of them.

    `delta` is the mean difference of the shares passed (-1..1), `p_value` the exact two-sided test of
    `scoring.exchange`: without a difference the base's answers are as likely any checkpoint's. It sees what every
    checkpoint shares and no single one can prove on few probes; it says nothing about which of them is best.
    `p_adjusted` allows for the `tests` suites of which this is one (Bonferroni). `decided_by_limit`: the token limit
    cut the two sides so differently that nothing can be said.
    """

    paired: int
    delta: float
    p_value: float
    tests: int = 1
    decided_by_limit: bool = False

    @property
    def p_adjusted(self) -> float:
        """The p value that allows for the run's other suites."""
        return min(1.0, self.tests * self.p_value)

    @property
    def verdict(self) -> Verdict:
        """What the test says at the 5% level."""
        return verdict_of(self.p_adjusted, self.delta, decided_by_limit=self.decided_by_limit)


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
    reference: Passes,
    candidate: Passes,
    templates: Templates | None = None,
    *,
    tests: int = 1,
    cut: tuple[Probes, Probes] = (NO_PROBES, NO_PROBES),
) -> Comparison | None:
    """Compare the passes of two checkpoints by probe id; None when no probe was scored for both.

    It is one of `tests` comparisons. `cut` are the probes whose answers the token limit cut, of reference and
    candidate: where it cut them differently, the probes that both finished are what is compared.
    """
    shared = sorted(reference.keys() & candidate.keys())
    if not shared:
        return None
    everything = _compared(reference, candidate, shared, templates or {}, tests)
    shares = [len(probes.intersection(shared)) / len(shared) for probes in cut]
    if not limit_may_decide(everything.delta, *shares):
        return everything
    finished = [probe for probe in shared if probe not in cut[0] and probe not in cut[1]]
    found = _compared(reference, candidate, finished, templates or {}, tests) if finished else None
    alike = found is None or found.verdict == NO_DIFFERENCE
    decides = found is None or (alike and everything.verdict != NO_DIFFERENCE)
    limit = Limit(len(shared), everything.delta, shares[0], shares[1], decides)
    return replace(found or _nothing_in_common(everything), limit=limit)


def adjusted(comparisons: Sequence[Comparison | None]) -> list[Comparison | None]:
    """The comparisons of one run's checkpoints, each with the p value that allows for all of them, and for as many more
    as their `tests` count."""
    known = [one for one in comparisons if one is not None]
    # Of comparisons that are counted but not at hand nothing is known: as if they showed no difference at all.
    others = max((one.tests for one in known), default=0) - len(known)
    raised = iter(holm([one.p_value for one in known] + [1.0] * max(0, others)))
    return [None if one is None else _with_p(one, next(raised)) for one in comparisons]


def compare_run(
    reference: Passes,
    candidates: Sequence[Passes],
    *,
    tests: int = 1,
    cut: tuple[Probes, Sequence[Probes]] = (NO_PROBES, ()),
) -> RunComparison | None:
    """Compare the passes of several checkpoints at once; None when no probe was scored for all.

    It is the comparison on one of `tests` suites. `cut` are the probes whose answers the token limit cut, of the
    reference and of each candidate: where it cut them differently, the verdict rests on the probes that all finished.
    """
    shared = reference.keys() & set.intersection(*(set(candidate) for candidate in candidates)) if candidates else None
    if not shared:
        return None
    found = _run_compared(reference, candidates, sorted(shared), tests)
    shares = len(cut[0] & shared) / len(shared), sum(len(c & shared) for c in cut[1]) / (len(shared) * len(candidates))
    if not limit_may_decide(found.delta, *shares):
        return found
    finished = sorted(shared.difference(cut[0], *cut[1]))
    rest = _run_compared(reference, candidates, finished, tests) if finished else None
    if rest is not None and (rest.verdict != NO_DIFFERENCE or found.verdict == NO_DIFFERENCE):
        return rest
    return replace(found, decided_by_limit=True)


def _run_compared(reference: Passes, candidates: Sequence[Passes], probes: Sequence[str], tests: int) -> RunComparison:
    values, unit = _whole_numbers([reference, *candidates], probes)
    delta = float((values[1:].mean(axis=0) - values[0]).mean()) / unit
    return RunComparison(len(probes), delta, exchange_test(values[0], values[1:]).two_sided, tests)


def compare_means(
    reference: Mapping[str, float],
    candidate: Mapping[str, float],
    templates: Templates,
    confidence: float = 0.95,
    *,
    cut: tuple[Probes, Probes] = (NO_PROBES, NO_PROBES),
) -> MeanComparison | None:
    """Compare a figure of two checkpoints by probe id, with an interval of this confidence; None with fewer than two
    probes (or templates) in common.

    Where the token limit `cut` the answers of the two very differently, those that both finished are compared: that an
    answer breaks off shows in its figures.
    """
    shared = sorted(reference.keys() & candidate.keys())
    if shared and limit_may_decide(0.0, *(len(probes.intersection(shared)) / len(shared) for probes in cut)):
        shared = [probe for probe in shared if probe not in cut[0] and probe not in cut[1]]
    clusters = [templates.get(probe, probe) for probe in shared]
    if len(set(clusters)) < 2:
        return None
    differences = [_difference(reference[probe], candidate[probe]) for probe in shared]
    low, high = mean_interval(differences, clusters, confidence) or (None, None)
    return MeanComparison(len(shared), math.fsum(differences) / len(shared), low, high)


def _difference(old: float, new: float) -> float:
    """Equal figures may differ by what rounding left: a mean of three is not always to the last bit that of six."""
    return 0.0 if math.isclose(old, new, rel_tol=1e-12) else new - old


def _compared(
    reference: Passes, candidate: Passes, probes: Sequence[str], templates: Templates, tests: int
) -> Comparison:
    differences = [candidate[probe] - reference[probe] for probe in probes]
    alone = _in_units(differences)
    p_value, confidence = alone.p_value, simultaneous_confidence(tests)
    low, high = alone.interval(confidence)
    found = Comparison(
        paired=len(probes),
        better=sum(d > 0 for d in differences),
        worse=sum(d < 0 for d in differences),
        delta=float(sum(differences) / len(probes)),
        low=low,
        high=high,
        p_value=p_value,
        p_adjusted=p_value,
        detectable=detectable_change(_noise(alone, p_value), len(probes), tests),
        differences=alone,
        tests=tests,
        beyond=_beyond(probes, alone, templates, confidence),
    )
    return _with_p(found, min(1.0, tests * p_value))


def _nothing_in_common(everything: Comparison) -> Comparison:
    """The comparison on no probe at all: it is not known to be anything."""
    return replace(
        everything,
        paired=0,
        better=0,
        worse=0,
        low=-1.0,
        high=1.0,
        p_value=1.0,
        p_adjusted=1.0,
        detectable=1.0,
        beyond=None,
    )


def _with_p(found: Comparison, p_adjusted: float) -> Comparison:
    low, high = agreeing(found.low, found.high, p_adjusted, found.delta)
    return replace(found, low=low, high=high, p_adjusted=p_adjusted)


def _whole_numbers(passes: Sequence[Passes], probes: Sequence[str]) -> tuple[Values, int]:
    """The shares passed as whole numbers of one unit, and that unit: a row a checkpoint, a column a probe."""
    unit = math.lcm(*(one[probe].denominator for one in passes for probe in probes))
    return np.array([[int(one[probe] * unit) for probe in probes] for one in passes], dtype=np.int64), unit


def _in_units(differences: Sequence[Difference]) -> Differences:
    unit = math.lcm(*(difference.denominator for difference in differences))
    return Differences([int(difference * unit) for difference in differences], unit)


def _noise(differences: Differences, p_value: float) -> float:
    """The share of probes on which two equal checkpoints like these would differ: the mean square of the differences
    (the share of discordant probes where each was asked once), less a true difference where there is one, and as in
    Bonett and Price (2012) with one more on either side, so that a few alike probes claim no perfect eye."""
    squares = sum(one * one for one in differences.sums) / differences.unit**2
    if p_value < SIGNIFICANCE:
        squares = max(0.0, squares - abs(sum(differences.sums)) / differences.unit)
    return min(1.0, (squares + 2) / (len(differences.sums) + 2))


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
