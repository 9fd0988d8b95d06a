"""The first sign of trouble in a run: from which iteration its answers degenerate or its scores fall."""

from __future__ import annotations

from dataclasses import dataclass

from ml_pipeline.reports.comparison import compare
from ml_pipeline.reports.intervals import Estimate
from ml_pipeline.reports.runs import Point, RunCurve
from ml_pipeline.scoring.degeneration import SIGNALS, is_notable


@dataclass(frozen=True, slots=True)
class Trouble:
    """Where a run first went wrong, whether it stayed so to its end, and the figures that say so."""

    iteration: int
    persistent: bool
    text: str


@dataclass(frozen=True, slots=True)
class _Sign:
    kind: str
    text: str


def first_trouble(curve: RunCurve) -> Trouble | None:
    """Find the first checkpoint that is clearly worse than the base (without one: than the first checkpoint).

    Signs: far more unscored answers or answers that degenerate (see `scoring.degeneration.is_notable`), accuracy
    below the reference or below an earlier checkpoint (McNemar's exact test at 5%), or a judge's mean below the
    reference's (intervals apart).
    """
    points = list(curve.points)
    if curve.base is None:
        reference, against = (points[0] if points else None), "at the first checkpoint"
        points = points[1:]
    else:
        reference, against = curve.base, "in the base"
    if reference is None:
        return None
    signs = [_signs(reference, against, points[:index], point) for index, point in enumerate(points)]
    first = next((index for index, found in enumerate(signs) if found), None)
    if first is None:
        return None
    persistent = all(signs[first:]) and len(signs) > first + 1
    iteration = points[first].iteration
    where = f"from iteration {iteration}" if persistent else f"at iteration {iteration}"
    return Trouble(iteration, persistent, f"{_verb(signs[first])} {where}: {', '.join(s.text for s in signs[first])}")


def _verb(signs: list[_Sign]) -> str:
    kinds = {sign.kind for sign in signs}
    if "degenerate" in kinds:
        return "degenerates"
    return "gets worse" if "worse" in kinds else "cannot be scored"


def _signs(reference: Point, against: str, earlier: list[Point], point: Point) -> list[_Sign]:
    signs: list[_Sign] = []
    for signal, words in SIGNALS.items():
        if pair := _rose(reference, point, f"{signal}_share"):
            text = f"{pair[1].value:.0%} {words} ({pair[0].value:.0%} {against})"
            signs.append(_Sign("degenerate", text))
    if fall := _accuracy_fall(reference, against, earlier, point):
        signs.append(_Sign("worse", fall))
    before, now = reference.overall("judge:avg"), point.overall("judge:avg")
    # Only where probes have checks: a suite that is judged alone mixes dimensions where high is good and high is bad.
    if point.accuracy is not None and before is not None and now is not None and before.clearly_above(now):
        signs.append(_Sign("worse", f"judge {now.value:.1f} ({before.value:.1f} {against})"))
    if pair := _rose(reference, point, "unscored_share"):
        text = f"{pair[1].value:.0%} of probes unscored ({pair[0].value:.0%} {against})"
        signs.append(_Sign("unscored", text))
    return signs


def _rose(reference: Point, point: Point, metric: str) -> tuple[Estimate, Estimate] | None:
    before, now = reference.overall(metric), point.overall(metric)
    if before is None or now is None or not is_notable(now.value, now.low, before.high):
        return None
    return before, now


def _accuracy_fall(reference: Point, against: str, earlier: list[Point], point: Point) -> str:
    comparison = compare(reference.passed, point.passed)
    if point.accuracy is None or reference.accuracy is None or comparison is None:
        return ""
    if comparison.verdict == "worse":
        return f"accuracy {point.accuracy.value:.0%} ({reference.accuracy.value:.0%} {against})"
    scored = [(other.accuracy.value, other) for other in earlier if other.accuracy is not None]
    if not scored:
        return ""
    value, peak = max(scored, key=lambda pair: pair[0])
    since_peak = compare(peak.passed, point.passed)
    if since_peak is None or since_peak.verdict != "worse":
        return ""
    return f"accuracy {point.accuracy.value:.0%} (down from {value:.0%} at iteration {peak.iteration})"
