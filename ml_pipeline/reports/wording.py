"""How reports say things: percentages, differences, intervals, sparklines and the sentence that sums up a run."""

from __future__ import annotations

from collections.abc import Sequence

from ml_pipeline.printable import printable
from ml_pipeline.reports.comparison import Comparison, MeanComparison
from ml_pipeline.reports.intervals import Estimate
from ml_pipeline.reports.runs import Point, RunCurve
from ml_pipeline.reports.score_table import JUDGE_PREFIX

NONE = "–"  # noqa: RUF001 - an en dash is what a table shows for "no figure"
NO_SCORES = "No scores yet. Score a checkpoint first: `ml-pipeline score`, or `make demo` for the example."
_BLOCKS, _ASCII_BLOCKS = "▁▂▃▄▅▆▇█", "_.-=+*%#"


def percent(value: float | None) -> str:
    """A share as a whole percentage."""
    return NONE if value is None else f"{value:.0%}"


def percent_interval(estimate: Estimate | None) -> str:
    """A share with its interval: '52% [35-69]', with an en dash."""
    if estimate is None:
        return NONE
    if estimate.low is None or estimate.high is None:
        return percent(estimate.value)
    return f"{percent(estimate.value)} [{100 * estimate.low:.0f}{NONE}{100 * estimate.high:.0f}]"


def number(estimate: Estimate | None, digits: int = 1) -> str:
    """A mean, rounded."""
    return NONE if estimate is None else f"{estimate.value:.{digits}f}"


def points(value: float) -> str:
    """A difference of shares in percentage points, with its sign."""
    rounded = round(100 * value)
    return "0" if rounded == 0 else signed(f"{rounded:+d}")


def signed(figures: str) -> str:
    """Figures with minus signs in place of hyphens."""
    return figures.replace("-", "−")  # noqa: RUF001 - a minus sign


def mean_difference(comparison: MeanComparison | None) -> str:
    """A difference of means with its interval, where there is one: '+0.4 [-0.2 to +1.1]'."""
    if comparison is None:
        return NONE
    if comparison.low is None or comparison.high is None:
        return signed(f"{comparison.delta:+.1f}")
    return signed(f"{comparison.delta:+.1f} [{comparison.low:+.1f} to {comparison.high:+.1f}]")


def mean_name(metric: str) -> str:
    """A metric whose means are compared, as a reader knows it: 'LEK', 'judge: clarity'."""
    return "LEK" if metric == "lek" else f"judge: {printable(metric.removeprefix(JUDGE_PREFIX), 40).replace('_', ' ')}"


def p_value(value: float) -> str:
    """A p value as papers write it, with spaces that do not break a line."""
    words = "p < 0.001" if value < 0.001 else f"p = {value:.3f}" if value < 0.1 else f"p = {value:.2f}"
    return words.replace(" ", "\u00a0")


def difference(comparison: Comparison | None) -> str:
    """A difference in points with its interval: '+22 [+4 to +38]'."""
    if comparison is None:
        return NONE
    return f"{points(comparison.delta)} [{points(comparison.low)} to {points(comparison.high)}]"


def gain(comparison: Comparison) -> str:
    """The difference to the base with its certainty: '+33 points [+14 to +49], p = 0.002'."""
    interval = f"[{points(comparison.low)} to {points(comparison.high)}]"
    return f"{points(comparison.delta)} points {interval}, {p_value(comparison.p_adjusted)}"


def resolution(curve: RunCurve) -> str:
    """What the suite can find at all: '41 probes find a difference from the base of 21 points 4 times in 5.'"""
    paired = [point.vs_base.paired for point in curve.points if point.vs_base is not None]
    if curve.detectable is None:
        return ""
    if curve.detectable >= 1:
        return f"{min(paired)} probes are too few to find any difference from the base reliably."
    return (
        f"{min(paired)} probes find a difference from the base of {points(curve.detectable)[1:]} points 4 times in 5."
    )


def asked(point: Point) -> str:
    """What an accuracy is made of: '41 probes', and of several answers to each '41 probes, 205 answers'."""
    answers = point.accuracy.count if point.accuracy else 0
    probes = len(point.passed) or answers
    return f"{probes} probes" if probes == answers else f"{probes} probes, {answers} answers"


def sparkline(values: Sequence[float | None], width: int = 40, *, ascii_only: bool = False) -> str:
    """Shares 0..1 as a line of blocks, on the fixed scale 0 to 100% so that noise looks like noise.

    More than `width` values are thinned evenly, the last kept. A missing value is a middle dot.
    """
    blocks, gap = (_ASCII_BLOCKS, " ") if ascii_only else (_BLOCKS, "·")
    shown = [values[index] for index in evenly(len(values), width)]
    top = len(blocks) - 1
    return "".join(gap if value is None else blocks[min(top, int(value * len(blocks)))] for value in shown)


def evenly(count: int, most: int) -> list[int]:
    """At most `most` indices spread evenly over 0..count-1, first and last among them."""
    if count <= most:
        return list(range(count))
    if most <= 1:
        return [count - 1]
    return sorted({round(step * (count - 1) / (most - 1)) for step in range(most)})


def iterations(chosen: Sequence[Point], most: int = 4) -> str:
    """'iteration 300', 'iterations 300 and 400', 'iterations 10, 20, 30 and 7 more'."""
    names = [str(point.iteration) for point in chosen[: most if len(chosen) <= most else most - 1]]
    if len(chosen) > most:
        names.append(f"{len(chosen) - most + 1} more")
    if len(names) == 1:
        return f"iteration {names[0]}"
    return f"iterations {', '.join(names[:-1])} and {names[-1]}"


def headline(curve: RunCurve) -> str:
    """The run in plain words: its best checkpoint, what that gained over the base, and how sure it is."""
    if not curve.points:
        base = percent_interval(curve.base.accuracy if curve.base else None)
        return f"Only the base has been scored: {base} of probes right."
    if not curve.best or curve.best[0].accuracy is None:
        return f"Not ranked: no probe of this suite has a pass or fail for these checkpoints.{_means(curve)}"
    best = curve.best[0]
    right = f"{percent_interval(best.accuracy)} of {asked(best)} right"
    many = (
        f"Best: {iterations(curve.best)}, equal, {right}"
        if len(curve.best) > 1
        else f"Best: {iterations([best])}, {right}"
    )
    if len(curve.points) == 1:
        many = f"Only checkpoint: {iterations([best])}, {right}"
    return f"{many}. {_against_base(curve, best)}{_near(curve)}{_together(curve)}"


def _means(curve: RunCurve) -> str:
    """The means of the newest checkpoint, where it has no accuracy: those that differ from the base's, widest first."""
    newest, base = curve.points[-1], curve.base
    if base is None:
        return ""
    found = {name: one for name in newest.means if (one := newest.mean_against(base, name)) is not None}
    clear = [name for name, one in found.items() if one.clear]
    if not found:
        return ""
    clear.sort(key=lambda name: -abs(found[name].delta))
    told = [f"{mean_name(name)} {mean_difference(found[name])}" for name in clear]
    if rest := len(found) - len(clear):
        told.append(f"no clear difference in {rest} of {len(found)} means")
    return f" The newest, iteration {newest.iteration}, against the base: {'; '.join(told)}."


def _against_base(curve: RunCurve, best: Point) -> str:
    if curve.base is None or best.vs_base is None:
        return "There is no base scored in the same way to compare with."
    base = f"the base ({percent(curve.base.accuracy.value if curve.base.accuracy else None)})"
    words = {
        "better": f"Better than {base}",
        "worse": f"Worse than {base}",
        "no clear difference": f"No clear difference from {base}",
    }
    partly = ""
    if best.vs_base.paired < len(best.passed):
        partly = f", on the {best.vs_base.paired} probes scored for both"
    return f"{words[best.vs_base.verdict]}: {gain(best.vs_base)}{partly}.{_beyond(best.vs_base)}"


def _beyond(comparison: Comparison) -> str:
    found = comparison.beyond
    if found is None:
        return ""
    interval = f"[{points(found.low)} to {points(found.high)}], {p_value(found.p_value)}"
    return f" Beyond these {found.count} templates: {interval}."


def _near(curve: RunCurve) -> str:
    if not curve.near_best:
        return ""
    return f" These probes cannot tell it from {iterations(curve.near_best)}."


def _together(curve: RunCurve) -> str:
    found = curve.vs_base
    if found is None:
        return ""
    words = {"better": "better than the base", "worse": "worse than the base"}.get(found.verdict, found.verdict)
    certainty = f"{points(found.delta)} points on average, {p_value(found.p_value)}"
    return f" All {len(curve.points)} checkpoints together: {words} ({certainty})."
