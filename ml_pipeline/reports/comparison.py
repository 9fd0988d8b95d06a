"""Checkpoints on the same probes: how many were gained, how many lost, and whether that could be chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ml_pipeline.reports.intervals import difference_interval
from ml_pipeline.scoring.statistics import exact_mcnemar, sign_flip_test

Verdict = Literal["better", "worse", "no clear difference"]
SIGNIFICANCE = 0.05


@dataclass(frozen=True, slots=True)
class Comparison:
    """A candidate against a reference on the `paired` probes that were scored for both.

    `delta` is the difference of the shares passed (candidate minus reference, -1..1), `low` and `high` its 95%
    interval, `p_value` McNemar's exact two-sided test. The verdict follows the test, which on few probes asks for
    more than the interval does: an interval just clear of 0 may still be "no clear difference".
    """

    paired: int
    better: int
    worse: int
    delta: float
    low: float
    high: float
    p_value: float

    @property
    def verdict(self) -> Verdict:
        """What the test says at the 5% level."""
        return _verdict(self.p_value, self.delta)


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


def compare(reference: Mapping[str, bool], candidate: Mapping[str, bool]) -> Comparison | None:
    """Compare the passes of two checkpoints by probe id; None when no probe was scored for both."""
    shared = reference.keys() & candidate.keys()
    if not shared:
        return None
    better = sum(candidate[probe] and not reference[probe] for probe in shared)
    worse = sum(reference[probe] and not candidate[probe] for probe in shared)
    low, high = difference_interval(better, worse, len(shared))
    return Comparison(
        paired=len(shared),
        better=better,
        worse=worse,
        delta=(better - worse) / len(shared),
        low=low,
        high=high,
        p_value=exact_mcnemar(better, worse),
    )


def compare_run(reference: Mapping[str, bool], candidates: Sequence[Mapping[str, bool]]) -> RunComparison | None:
    """Compare the passes of several checkpoints at once; None when no probe was scored for all."""
    shared = reference.keys() & set.intersection(*(set(candidate) for candidate in candidates)) if candidates else None
    if not shared:
        return None
    differences = [
        sum(int(candidate[probe]) - int(reference[probe]) for candidate in candidates) for probe in sorted(shared)
    ]
    delta = sum(differences) / (len(candidates) * len(shared))
    return RunComparison(paired=len(shared), delta=delta, p_value=sign_flip_test(differences))


def _verdict(p_value: float, delta: float) -> Verdict:
    if p_value >= SIGNIFICANCE:
        return "no clear difference"
    return "better" if delta > 0 else "worse"
