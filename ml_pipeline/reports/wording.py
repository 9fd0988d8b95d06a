"""How reports say things: percentages, differences, intervals, sparklines and the sentence that sums up a run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ml_pipeline.printable import printable
from ml_pipeline.reports.comparison import Comparison, MeanComparison
from ml_pipeline.reports.conclusions import LIMIT_DECIDES
from ml_pipeline.reports.intervals import Estimate
from ml_pipeline.reports.runs import Point, RunCurve
from ml_pipeline.reports.score_table import JUDGE_PREFIX

NONE = "–"  # noqa: RUF001 - an en dash is what a table shows for "no figure"
UNSOUND_MARK = "†"
UNSOUND_NOTE = (
    f"{UNSOUND_MARK}: a quarter or more of the answers behind this figure are empty, looping, cut or word salad, of "
    "which it says nothing."
)
FINISHED_MARK = "‡"
FINISHED_NOTE = f"{FINISHED_MARK}: of the probes that both finish: the token limit cuts one of the two more often."
NO_SCORES = "No scores yet. Score a checkpoint first: `ml-pipeline score`, or `make demo` for the example."
_BLOCKS, _ASCII_BLOCKS = "▁▂▃▄▅▆▇█", "_.-=+*%#"


def marked(figure: str, point: Point) -> str:
    """A figure of a checkpoint's texts (LEK, a judge's), marked where many of them are unsound."""
    return f"{figure}{UNSOUND_MARK}" if point.is_unsound and figure != NONE else figure


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
    if comparison is None or not comparison.paired:
        return NONE
    return f"{points(comparison.delta)} {_ends(comparison)}"


def on_finished(figure: str, comparison: Comparison | None) -> str:
    """A difference, marked where it is that of the probes which both sides finished."""
    rests = comparison is not None and comparison.limit is not None and figure != NONE
    return f"{figure}{FINISHED_MARK}" if rests else figure


def table_notes(curves: Sequence[RunCurve]) -> list[str]:
    """What the marks mean that stand beside figures of these curves."""
    points = [point for curve in curves for point in (curve.base, *curve.points) if point is not None]
    unsound = any(
        p.is_unsound and any(name == "lek" or name.startswith(JUDGE_PREFIX) for name in p.figures) for p in points
    )
    return [*([FINISHED_NOTE] if rests_on_finished(curves) else []), *([UNSOUND_NOTE] if unsound else [])]


def rests_on_finished(curves: Iterable[RunCurve]) -> bool:
    """Whether any difference from the base is that of the probes which both sides finished."""
    return any(p.vs_base is not None and p.vs_base.limit is not None for curve in curves for p in curve.points)


def gain(comparison: Comparison) -> str:
    """The difference to the base with its certainty: '+33 points [+14 to +49], p = 0.002'."""
    return f"{points(comparison.delta)} points {_ends(comparison)}, {p_value(comparison.p_adjusted)}"


def _ends(comparison: Comparison) -> str:
    """The interval, of which an end beside 0 never looks like 0 where the verdict is clear."""
    low, high = points(comparison.low), points(comparison.high)
    low = ">0" if comparison.low > 0 and low == "0" else low
    high = "<0" if comparison.high < 0 and high == "0" else high
    return f"[{low} to {high}]"


def resolution(curve: RunCurve) -> str:
    """What the suite can find at all: '41 probes find a difference from the base of 21 points 4 times in 5, of which a
    fall is called trouble from 30 on.'"""
    found = curve.typical
    if found is None or not found.paired:
        return ""
    probes = f"{found.paired} probes"
    if found.limit is not None:
        probes = f"Of {found.limit.paired} probes the {found.paired} that both finish"
    if found.detectable >= 1:
        return f"{probes} are too few to find any difference from the base reliably."
    fall, base = curve.detectable_fall, curve.base.accuracy if curve.base is not None else None
    trouble = ""
    if base is not None and fall is not None and (fall > base.value or fall >= 1):
        trouble = f"; no fall from the base's {percent(base.value)} is called trouble as often" if base.value else ""
    elif fall is not None:
        trouble = f"; a fall from {points(fall)[1:]} points on is called trouble as often"
    return f"{probes} find a difference from the base of {points(found.detectable)[1:]} points 4 times in 5{trouble}."


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
    if not curve.highest:
        return f"Not ranked: no probe of this suite has a pass or fail for these checkpoints.{_means(curve)}"
    best = curve.highest[0]
    equal = ", equal" if len(curve.highest) > 1 else ""
    if len(curve.points) == 1:
        many = f"Only checkpoint: {iterations([best])}, {_right(best)}"
    elif curve.best:
        many = f"Best: {iterations(curve.best)}{equal}, {best_right(curve)}"
    else:
        many = f"None is called best: the highest, {iterations(curve.highest)}{equal}, {_right(best)}"
    return f"{many}. {_against_base(curve, best)}{_near(curve)}{_together(curve)}"


def best_right(curve: RunCurve) -> str:
    """The best checkpoint's accuracy, with the interval that allows for the choice and how much of it is luck."""
    best = curve.highest[0]
    luck = "" if curve.luck is None else f", as the highest of {_scored(curve)} about {_size(curve.luck)} too high"
    return f"{percent_interval(curve.shown_accuracy(best))} of {asked(best)} right{luck}"


def _size(share: float) -> str:
    rounded = round(100 * share)
    return "1 point" if rounded == 1 else f"{rounded} points"


def _scored(curve: RunCurve) -> int:
    return sum(point.accuracy is not None for point in curve.points)


def _right(point: Point) -> str:
    return f"{percent_interval(point.accuracy)} of {asked(point)} right"


def _means(curve: RunCurve) -> str:
    """The means of the newest checkpoint, where it has no accuracy: those that differ from the base's, widest first."""
    newest, base = curve.points[-1], curve.base
    if base is None:
        return ""
    found = {
        name: one for name in newest.means if (one := newest.mean_against(base, name, len(newest.means))) is not None
    }
    clear = [name for name, one in found.items() if one.clear]
    if not found:
        return ""
    clear.sort(key=lambda name: -abs(found[name].delta))
    told = [f"{mean_name(name)} {mean_difference(found[name])}" for name in clear]
    if rest := len(found) - len(clear):
        told.append(f"no clear difference in {rest} of {len(found)} means")
    words = f" The newest, iteration {newest.iteration}, against the base: {'; '.join(told)}."
    unsound = [
        f"{one.unsound:.0%} of {whose} answers"
        for one, whose in ((newest, "its"), (base, "the base's"))
        if one.is_unsound
    ]
    if unsound:
        words += f" But {' and '.join(unsound)} are empty, looping, cut or word salad, of which these say nothing."
    return words


def _against_base(curve: RunCurve, best: Point) -> str:
    if curve.base is None or best.vs_base is None:
        return "There is no base scored in the same way to compare with."
    base = f"the base ({percent(curve.base.accuracy.value if curve.base.accuracy else None)})"
    words = {
        "better": f"Better than {base}",
        "worse": f"Worse than {base}",
        "no clear difference": f"No clear difference from {base}",
    }
    found = best.vs_base
    if found.verdict == LIMIT_DECIDES:
        return f"The token limit decides how it differs from {base}: {limit_words(found)}."
    some = partly(found)
    if not some and found.paired < len(best.passed):
        some = f", on the {found.paired} probes scored for both"
    return f"{words[found.verdict]}: {gain(found)}{some}.{_beyond(found)}"


def partly(found: Comparison, of: str = "the base") -> str:
    """Where a comparison rests on the probes that both finished: on how many, and what the limit cut."""
    return (
        "" if found.limit is None else f", on the {found.paired} probes that both finished ({limit_words(found, of)})"
    )


def limit_words(found: Comparison, of: str = "the base") -> str:
    """What the token limit has to do with a difference: whose answers it cut (`of` names the reference), and the
    difference over all of them."""
    limit = found.limit
    if limit is None:
        return ""
    cut = f"it cuts {percent(limit.cut_reference)} of {of}'s answers and {percent(limit.cut_candidate)} of these"
    if limit.decides and found.paired:
        cut += f"; {difference(found)} on the {found.paired} probes that both finished"
    elif limit.decides:
        cut += "; no probe was finished by both"
    return f"{cut}; {points(limit.delta)} points over all {limit.paired} probes"


def _beyond(comparison: Comparison) -> str:
    found = comparison.beyond
    if found is None:
        return ""
    interval = f"[{points(found.low)} to {points(found.high)}], {p_value(found.p_value)}"
    return f" Beyond these {found.count} templates: {interval}."


def _near(curve: RunCurve) -> str:
    if not curve.near_best:
        return ""
    return f" The truly best may as well be {iterations(curve.near_best)}."


def _together(curve: RunCurve) -> str:
    found = curve.vs_base
    if found is None:
        return ""
    words = {"better": "better than the base", "worse": "worse than the base"}.get(found.verdict, found.verdict)
    certainty = f"{points(found.delta)} points on average, {p_value(found.p_adjusted)}"
    if found.verdict == LIMIT_DECIDES:
        certainty = f"{points(found.delta)} points on average over all {found.paired} probes"
    return f" All {len(curve.points)} checkpoints together: {words} ({certainty})."
