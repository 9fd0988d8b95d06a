"""How a run stands over all its suites: whether it is in trouble, from which iteration on and why, or shows no sign."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ml_pipeline.reports import conclusions
from ml_pipeline.reports.comparison import Comparison
from ml_pipeline.reports.conclusions import LIMIT_DECIDES, Fall
from ml_pipeline.reports.runs import Point, RunCurve
from ml_pipeline.scoring.degeneration import SIGNALS

_JUDGE = "judge:avg"
_UNSCORED = "unscored_share"


@dataclass(frozen=True, slots=True)
class Trouble:
    """Where a run first went wrong, on which suite, whether it stayed so to its end, and the figures that say so."""

    iteration: int
    persistent: bool
    text: str
    suite: str


@dataclass(frozen=True, slots=True)
class RunStanding:
    """What is said of a run on every one of its suites: the same.

    `trouble` is the first there is over all suites. `calm`: there is none, nothing was called worse, and something
    could be compared. `limits` says where the token limit decides what differs.
    """

    trouble: Trouble | None
    calm: bool
    limits: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Sign:
    kind: str
    text: str


def run_standing(curve: RunCurve) -> RunStanding:
    """The standing of the run that a curve belongs to, over all its curves; worked out once."""
    curves = curve.group or [curve]
    memo = curve.group.memo
    if "standing" not in memo:
        found = [trouble for one in curves if (trouble := _first_trouble(one, named=len(curves) > 1)) is not None]
        limits = tuple(words for one in curves if (words := _limit(one)))
        compared = any(len(one.points) + (one.base is not None) > 1 for one in curves)
        worse = any(_called_worse(one) for one in curves)
        memo["standing"] = RunStanding(
            min(found, key=lambda trouble: trouble.iteration, default=None),
            calm=compared and not found and not worse and not limits,
            limits=limits,
        )
    standing: RunStanding = memo["standing"]
    return standing


def first_trouble(curve: RunCurve) -> Trouble | None:
    """The first trouble of the run that a curve belongs to, over all its suites.

    Signs: more broken or unscored answers than in the base (without one: than at the first checkpoint), a lower
    accuracy than there or than at earlier checkpoints, or lower figures of the judge. `conclusions` says what counts.
    """
    return run_standing(curve).trouble


def _first_trouble(curve: RunCurve, *, named: bool) -> Trouble | None:
    first = next((i for i in range(len(curve.points)) if _signs(curve, i, first=True)), None)
    if first is None:
        return None
    # From here on the run is known to be in trouble: what else there is, and whether it lasts, is told at 5%.
    sure, every = _signs(curve, first, first=True), _signs(curve, first, first=False)
    rest = [_signs(curve, index, first=False) for index in range(first + 1, len(curve.points))]
    # A stretch of checkpoints is lower from its first one on, where nothing else is the sign.
    fall = curve.falls[first]
    window = fall.window if fall is not None and len(sure) == 1 else 1
    persistent = (bool(rest) or window > 1) and all(rest)
    iteration = curve.points[first + 1 - window].iteration
    where = f"from iteration {iteration}" if persistent else f"at iteration {iteration}"
    shown = dict.fromkeys(sign.text for sign in (*every, *sure))
    suite = f" on {curve.suite}" if named else ""
    text = f"{_verb(sure)} {where}{suite}: {', '.join(shown)}"
    return Trouble(iteration, persistent, text, curve.suite)


def _verb(signs: Sequence[_Sign]) -> str:
    kinds = {sign.kind for sign in signs}
    if "degenerate" in kinds:
        return "degenerates"
    return "gets worse" if "worse" in kinds else "cannot be scored"


def _signs(curve: RunCurve, index: int, *, first: bool) -> list[_Sign]:
    """The signs at a checkpoint; `first`: at the level at which a sound run is rarely called in trouble."""
    reference, point = curve.reference, curve.points[index]
    if reference is None:
        return []
    against = "in the base" if curve.base is not None else "at the first checkpoint"
    shares = [
        _Sign("unscored" if metric == _UNSCORED else "degenerate", _share(reference, point, metric, against))
        for metric in curve.signs(point, index + 1, first=first)
    ]
    signs = [sign for sign in shares if sign.kind == "degenerate"]
    fall = curve.falls[index] or (None if first else conclusions.still_fallen(curve.answers, index + 1))
    if fall is not None:
        signs.append(_Sign("worse", _fall(curve, fall)))
    if point is not reference and (
        judged := _judged_lower(reference, point, index + 1, curve.ranked_suites, first, against)
    ):
        signs.append(_Sign("worse", judged))
    return [*signs, *(sign for sign in shares if sign.kind == "unscored")]


def _share(reference: Point, point: Point, metric: str, against: str) -> str:
    before, now = reference.overall(metric), point.overall(metric)
    assert before is not None
    assert now is not None
    words = "of probes unscored" if metric == _UNSCORED else SIGNALS[metric.removesuffix("_share")]
    return f"{now.value:.0%} {words} ({before.value:.0%} {against})"


def _fall(curve: RunCurve, fall: Fall) -> str:
    points = curve.points
    first, last = points[fall.at - fall.window].iteration, points[fall.at - 1].iteration
    now = f"accuracy {fall.now:.0%}" + (f" over iterations {first} to {last}" if fall.window > 1 else "")
    if fall.earlier is None:
        return f"{now} ({fall.before:.0%} in the base)"
    start, end = points[fall.earlier - fall.window].iteration, points[fall.earlier - 1].iteration
    if start == end == points[0].iteration and curve.base is None:
        return f"{now} ({fall.before:.0%} at the first checkpoint)"
    stretch = f"at iteration {end}" if fall.window == 1 else f"over iterations {start} to {end}"
    return f"{now} (down from {fall.before:.0%} {stretch})"


def _judged_lower(reference: Point, point: Point, position: int, suites: int, first: bool, against: str) -> str:
    before, now = reference.overall(_JUDGE), point.overall(_JUDGE)
    # Only where probes have checks: a suite that is judged alone mixes dimensions where high is good and high is bad.
    if point.accuracy is None or before is None or now is None:
        return ""
    figures, others = point.means.get(_JUDGE, {}), reference.means.get(_JUDGE, {})
    # A judge sees that an answer breaks off, which is the token limit's doing.
    shared = sorted(figures.keys() & others.keys() - point.cut - reference.cut)
    if not conclusions.judged_lower([figures[p] - others[p] for p in shared], position, suites, first=first):
        return ""
    return f"judge {now.value:.1f} ({before.value:.1f} {against})"


def _called_worse(curve: RunCurve) -> bool:
    """Whether anything else that is shown of a curve says worse, be it less sure than trouble must be."""
    together = curve.vs_base is not None and curve.vs_base.verdict == "worse"
    return together or any(point.vs_base is not None and point.vs_base.verdict == "worse" for point in curve.points)


def _limit(curve: RunCurve) -> str:
    """Where the token limit decides how the best checkpoint differs from the base, or how all of them do."""
    point = curve.highest[0] if curve.highest else None
    found: Comparison | None = None if point is None else point.vs_base
    if point is None or found is None or found.limit is None or found.verdict != LIMIT_DECIDES:
        return ""
    return (
        f"on {curve.suite} the token limit cuts {found.limit.cut_reference:.0%} of the base's answers and "
        f"{found.limit.cut_candidate:.0%} of iteration {point.iteration}'s: raise max_tokens before comparing them"
    )
