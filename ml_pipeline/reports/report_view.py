"""What the HTML report shows, as plain records: the template only lays them out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from ml_pipeline.reports.conclusions import LIMIT_DECIDES, NO_DIFFERENCE
from ml_pipeline.reports.flips import AnswerBook, FlipSet
from ml_pipeline.reports.heat_map import HeatMap, category_heat_map
from ml_pipeline.reports.intervals import Estimate
from ml_pipeline.reports.leaderboard import NO_BASE, NOT_SCORED, verdict_of
from ml_pipeline.reports.panels import Panel, curve_panels, health_panels
from ml_pipeline.reports.plots import panels_figure
from ml_pipeline.reports.provenance import UnscoredBook, UnscoredGroup, provenance, some_iterations
from ml_pipeline.reports.render import to_svg
from ml_pipeline.reports.runs import Point, RunCurve
from ml_pipeline.reports.scores import Scores
from ml_pipeline.reports.trouble import run_standing
from ml_pipeline.reports.wording import (
    NONE,
    difference,
    evenly,
    headline,
    marked,
    number,
    on_finished,
    p_value,
    percent,
    percent_interval,
    points,
    resolution,
    sparkline,
)

FEW_ROWS = 24
_FAILED_SINCE = "newest attempt failed"
_THINNED_ROWS = 10
_SIGNS = {"better": "▲", "worse": "▼", NO_DIFFERENCE: "≈", LIMIT_DECIDES: "✂"}


@dataclass(frozen=True, slots=True)
class Verdict:
    """A verdict's words, the sign before them, and the style class they share."""

    words: str
    sign: str
    style: str


@dataclass(frozen=True, slots=True)
class Row:
    """A checkpoint in its run's table; `notable` rows stay when a long table is thinned."""

    iteration: str
    label: str
    mark: str
    accuracy: str
    bar: Estimate | None
    verdict: Verdict | None
    p_value: str
    cells: tuple[str, ...]
    notable: bool


@dataclass(frozen=True, slots=True)
class Plot:
    """A figure's SVG and the caption under it."""

    svg: str
    caption: str


@dataclass(frozen=True, slots=True)
class Section:
    """A run on one suite under one protocol."""

    anchor: str
    name: str
    suite: str
    base_model: str
    headline: str
    resolution: str
    ranked: bool
    verdict: Verdict | None
    trouble: str
    calm: bool
    limits: tuple[str, ...]
    spark: str
    trend: str
    base_bar: Estimate | None
    best_bar: Estimate | None
    best_name: str
    checkpoints: int
    plots: tuple[Plot, ...]
    heat_map: HeatMap | None
    headings: tuple[str, ...]
    rows: tuple[Row, ...]
    short_rows: tuple[Row, ...]
    flips: tuple[FlipSet, ...]
    unscored: tuple[UnscoredGroup, ...]
    provenance: tuple[tuple[str, str], ...]


def sections(scores: Scores, curves: Sequence[RunCurve]) -> list[Section]:
    """A section for each of the scores' curves, in their order."""
    answers, unscored = AnswerBook(scores, len(curves)), UnscoredBook(scores)
    return [_section(scores, curve, answers, unscored, f"run-{index}") for index, curve in enumerate(curves, 1)]


def _section(scores: Scores, curve: RunCurve, answers: AnswerBook, unscored: UnscoredBook, anchor: str) -> Section:
    standing = run_standing(curve)
    trouble = standing.trouble
    best = curve.highest[0] if curve.highest else None
    extra = _extra_columns(curve)
    rows = _rows(curve, extra, None if trouble is None or trouble.suite != curve.suite else trouble.iteration)
    short = () if len(rows) <= FEW_ROWS else _short(rows)
    return Section(
        anchor=anchor,
        name=curve.name,
        suite=curve.suite,
        base_model=curve.base_model,
        headline=headline(curve),
        resolution=resolution(curve),
        ranked=best is not None or (curve.base is not None and curve.base.accuracy is not None),
        verdict=None if best is None else _run_verdict(curve, best),
        trouble="" if trouble is None else f"{trouble.text[0].upper()}{trouble.text[1:]}.",
        calm=standing.calm,
        limits=tuple(f"{words[0].upper()}{words[1:]}." for words in standing.limits),
        spark=sparkline([accuracy.value if accuracy else None for _, accuracy in curve.course], 24)
        if len(curve.course) > 1
        else "",
        trend=curve.trend,
        base_bar=curve.base.accuracy if curve.base else None,
        best_bar=best.accuracy if best else None,
        best_name="best" if curve.best else "highest",
        checkpoints=len(curve.points),
        plots=tuple(_plots(curve, anchor)),
        heat_map=category_heat_map(curve) if curve.ranked else None,
        headings=tuple(extra),
        rows=rows,
        short_rows=short,
        flips=tuple(answers.flips(curve)),
        unscored=(*_failed(curve), *unscored.groups(curve)),
        provenance=tuple(provenance(scores, curve)),
    )


def _failed(curve: RunCurve) -> Iterator[UnscoredGroup]:
    """Whole checkpoints that failed, those of one reason together."""
    by_reason: dict[str, list[int]] = {}
    for failure in curve.failures:
        by_reason.setdefault(failure.words, []).append(failure.iteration)
    for reason, found in by_reason.items():
        yield UnscoredGroup("whole checkpoint", reason, len(found), some_iterations(sorted(found)))


def _verdict(curve: RunCurve, point: Point) -> Verdict:
    words = verdict_of(curve, point)
    style = {NO_BASE: "none", NOT_SCORED: "none", NO_DIFFERENCE: "same", LIMIT_DECIDES: "none"}.get(words, words)
    return Verdict(words, _SIGNS.get(words, ""), style)


def _run_verdict(curve: RunCurve, best: Point) -> Verdict:
    """That of the best checkpoint; where it proves nothing, that of all checkpoints together."""
    of_best, together = _verdict(curve, best), curve.vs_base
    if of_best.style != "same" or together is None or together.verdict in (NO_DIFFERENCE, LIMIT_DECIDES):
        return of_best
    return Verdict(f"{together.verdict} as a whole", _SIGNS[together.verdict], together.verdict)


def _rows(curve: RunCurve, extra: dict[str, Callable[[Point], str]], trouble: int | None) -> tuple[Row, ...]:
    rows: list[Row] = []
    for point in (curve.base, *curve.points):
        if point is None:
            continue
        is_base, is_best = point is curve.base, point in curve.best
        mark = "best, tied" if is_best and len(curve.best) > 1 else "best" if is_best else ""
        if not mark and point in curve.near_best:
            mark = "near best"
        row = Row(
            iteration="base" if is_base else str(point.iteration),
            label=str(point.identity["label"]),
            mark=mark,
            accuracy=percent_interval(point.accuracy),
            bar=point.accuracy,
            verdict=None if is_base else _verdict(curve, point),
            p_value=_certainty(point),
            cells=tuple(cell(point) for cell in extra.values()),
            notable=is_base or point is (curve.highest[0] if curve.highest else None) or point.iteration == trouble,
        )
        rows.append(row)
    return _with_failures(curve, rows, len(extra))


def _certainty(point: Point) -> str:
    """The p value below a verdict; none where the token limit decides, which no test sees."""
    found = point.vs_base
    return "" if found is None or found.verdict == LIMIT_DECIDES else p_value(found.p_adjusted)


def _with_failures(curve: RunCurve, rows: list[Row], cells: int) -> tuple[Row, ...]:
    """The rows, with the checkpoints that failed in their places; one with older scores is marked."""
    failed = {failure.partition_key: failure for failure in curve.failures}
    points = [point for point in (curve.base, *curve.points) if point is not None]
    placed = []
    for point, row in zip(points, rows, strict=True):
        is_old = failed.pop(point.partition_key, None) is not None
        marks = ", ".join(filter(None, (row.mark, _FAILED_SINCE if is_old else "")))
        placed.append((point.iteration, replace(row, mark=marks, notable=row.notable or is_old)))
    for failure in failed.values():
        verdict = Verdict("failed", "✕", "none")
        cells_of = (NONE,) * cells
        row = Row(str(failure.iteration), failure.label, "", NONE, None, verdict, "", cells_of, notable=True)
        placed.append((failure.iteration, row))
    return tuple(row for _, row in sorted(placed, key=lambda pair: pair[0]))


def _short(rows: tuple[Row, ...]) -> tuple[Row, ...]:
    kept = set(evenly(len(rows), _THINNED_ROWS))
    return tuple(row for index, row in enumerate(rows) if index in kept or row.notable)


def _extra_columns(curve: RunCurve) -> dict[str, Callable[[Point], str]]:
    """The columns after accuracy that have a figure anywhere in the run: heading -> a checkpoint's cell."""
    judged = curve.judge_metrics
    shown = {"judge:avg": "avg"} if "judge:avg" in judged and curve.ranked else judged
    columns: dict[str, Callable[[Point], str]] = {}
    if curve.ranked and curve.base is not None:
        columns["vs base, points"] = lambda point: on_finished(difference(point.vs_base), point.vs_base)
    if curve.ranked and len(curve.points) > 1:
        columns["vs the one before"] = _step
    for metric in curve.sample_metrics:
        columns[metric] = _share_of(metric)
    for metric, dimension in shown.items():
        columns[f"judge: {dimension}"] = _text_mean_of(metric)
    columns["LEK"] = _text_mean_of("lek")
    for metric, name in curve.signal_metrics.items():
        columns[name] = _share_of(metric)
    columns["repetition (0 to 10)"] = _mean_of("degeneration")
    columns["tokens"] = _mean_of("mean_completion_tokens", digits=0)
    columns["unscored"] = lambda point: str(point.unscored)
    return columns


def _step(point: Point) -> str:
    """The difference from the checkpoint before, with a sign where it is more than chance."""
    found = point.vs_previous
    return NONE if found is None else f"{points(found.delta)} {_SIGNS[found.verdict]}"


def _mean_of(metric: str, digits: int = 1) -> Callable[[Point], str]:
    return lambda point: number(point.overall(metric), digits)


def _text_mean_of(metric: str) -> Callable[[Point], str]:
    return lambda point: marked(number(point.overall(metric)), point)


def _share_of(metric: str) -> Callable[[Point], str]:
    def cell(point: Point) -> str:
        found = point.overall(metric)
        return percent(None if found is None else found.value)

    return cell


def _plots(curve: RunCurve, anchor: str) -> list[Plot]:
    drawn = {"curves": curve_panels(curve), "health": health_panels(curve)}
    return [_plot(panels, f"{anchor}-{name}") for name, panels in drawn.items() if panels]


def _plot(panels: Sequence[Panel], name: str) -> Plot:
    """The panels as one figure, told to those who cannot see it in the words of all of them."""
    titles = [panel.title if index == 0 else panel.title.lower() for index, panel in enumerate(panels)]
    told = titles[0] if len(titles) == 1 else f"{', '.join(titles[:-1])} and {titles[-1]}"
    bands = " Bands are 95% intervals." if any(line.low for panel in panels for line in panel.lines) else ""
    best = " A ring marks the best." if any(panel.best for panel in panels) else ""
    if any(panel.unsound for panel in panels):
        best += (
            " A square marks a figure over answers of which a quarter or more are empty, looping, cut or word salad."
        )
    gaps = " A cross marks a checkpoint that failed or has no figure." if any(panel.gaps for panel in panels) else ""
    spoken = "; ".join(panel.spoken for panel in panels)
    return Plot(to_svg(panels_figure(panels), name, spoken), f"{told}.{bands}{best}{gaps}")
