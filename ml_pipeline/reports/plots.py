"""Plots of one run each: accuracy, judge, LEK and truncation over the iterations, and accuracy by category.

Figures are made with matplotlib's objects alone, so that importing or drawing changes no global state of a notebook
or of Dagster's processes. Every function takes one `RunCurve`, which holds one protocol by construction: scores of
different bases, quantisations or suite versions cannot meet on one curve.

Colours are Okabe and Ito's, told apart by colour-blind readers and legible on white and on near black; the
background is clear, and text and axes take the page's colour (see `render.to_svg`).
"""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from ml_pipeline.reports.intervals import Estimate
from ml_pipeline.reports.runs import Point, RunCurve
from ml_pipeline.reports.wording import evenly
from ml_pipeline.scoring.statistics import OVERALL

INK = "#0a0b0c"
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#56b4e9")
_LINES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (1, 1)))
_SIZE = (4.6, 2.7)
_MOST_BANDS = 2
_MARKED_POINTS = 60
_LABELLED_POINTS = 6
_CATEGORY_COLUMNS = 10
_ROOMY_LABELS = 36


def accuracy_figure(curve: RunCurve) -> Figure:
    """Accuracy over the iterations with its 95% interval as a band, the base as a line of dashes with its own band."""
    figure, axes = _new(curve, percent=True)
    _draw_series(axes, curve, "accuracy", "accuracy", 0, band=True)
    _draw_base(axes, curve, "accuracy")
    axes.set_ylim(0, 1)
    _finish(axes)
    return figure


def judge_figure(curve: RunCurve) -> Figure:
    """The judge's means over the iterations; where there is an average, that alone, else every dimension."""
    judged = curve.judge_metrics
    chosen = {"judge:avg": "judge, average"} if "judge:avg" in judged else judged
    return metrics_figure(curve, chosen)


def lek_figure(curve: RunCurve) -> Figure:
    """Mean LEK over the iterations."""
    return metrics_figure(curve, {"lek": "LEK"})


def trouble_figure(curve: RunCurve) -> Figure:
    """Shares of answers cut at the token limit and of probes left unscored."""
    figure = metrics_figure(curve, {"truncated_share": "truncated", "unscored_share": "unscored"}, percent=True)
    figure.axes[0].set_ylim(-0.02, 1.02)
    return figure


def metrics_figure(curve: RunCurve, metrics: Mapping[str, str], *, percent: bool = False) -> Figure:
    """Any metrics of the score table (metric -> name in the legend) over the iterations.

    One or two have 95% bands, a single one its base as well: more of either could not be told apart.
    """
    figure, axes = _new(curve, percent=percent)
    for index, (metric, name) in enumerate(metrics.items()):
        _draw_series(axes, curve, metric, plain(name), index, band=len(metrics) <= _MOST_BANDS)
    if len(metrics) == 1:
        _draw_base(axes, curve, next(iter(metrics)))
    _finish(axes)
    return figure


def category_figure(curve: RunCurve) -> Figure:
    """Accuracy by category and checkpoint as a heat map, the base first; white is a category without a score.

    More than ten checkpoints are thinned evenly; the best one and the last stay.
    """
    shown = _heat_columns(curve)
    named = [point.figures.get("accuracy", {}) for point in shown]
    categories = list(dict.fromkeys(name for by in named for name in by if name != OVERALL))
    figure = Figure(figsize=(_SIZE[0], 0.55 + 0.19 * max(1, len(categories))), layout="constrained")
    axes = figure.add_subplot(frameon=False)
    values = [[by[name].value if name in by else float("nan") for by in named] for name in categories]
    if values:
        axes.pcolormesh(values, cmap="cividis", vmin=0, vmax=1, edgecolors="none", shading="flat")
    for row, line in enumerate(values):
        for column, value in enumerate(line):
            if value == value:
                colour = "white" if value < 0.55 else "black"
                axes.text(column + 0.5, row + 0.5, f"{100 * value:.0f}", color=colour, ha="center", va="center", size=7)
    axes.xaxis.tick_top()
    names = [_column_name(curve, point) for point in shown]
    axes.set_xticks([index + 0.5 for index in range(len(shown))], names)
    if len("".join(names)) > _ROOMY_LABELS:
        for label in axes.get_xticklabels():
            label.set(rotation=40, ha="left", rotation_mode="anchor")
    axes.set_yticks([index + 0.5 for index in range(len(categories))], [plain(name) for name in categories])
    axes.invert_yaxis()
    axes.tick_params(colors=INK, labelsize=7, length=0)
    return figure


def plain(words: str) -> str:
    """Words that matplotlib must not read as mathematics ('$x$') and whose every character has a shape."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in words).replace("$", r"\$")


def _new(curve: RunCurve, *, percent: bool) -> tuple[Figure, Axes]:
    figure = Figure(figsize=_SIZE)
    # Fixed margins: matplotlib's own search for them takes longer than the drawing, and reports hold many figures.
    figure.subplots_adjust(left=0.11, right=0.98, top=0.88, bottom=0.16)
    axes = figure.add_subplot(facecolor="none")
    axes.set_xlabel("iteration", size=8, color=INK)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    if percent:
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(INK)
    axes.tick_params(colors=INK, labelsize=8)
    axes.grid(axis="y", color=INK, alpha=0.15, linewidth=0.6)
    marks = sorted({point.iteration for point in curve.points})
    if len(marks) <= _LABELLED_POINTS:
        axes.set_xticks(marks)
    if len(marks) == 1:
        axes.set_xlim(marks[0] - 1, marks[0] + 1)
    return figure, axes


def _draw_series(axes: Axes, curve: RunCurve, metric: str, name: str, index: int, *, band: bool) -> None:
    found = [(point.iteration, estimate) for point in curve.points if (estimate := point.overall(metric))]
    if not found:
        return
    at = [float(iteration) for iteration, _ in found]
    colour, line = PALETTE[index % len(PALETTE)], _LINES[index % len(_LINES)]
    marker = "o" if len(found) <= _MARKED_POINTS else ""
    values = [estimate.value for _, estimate in found]
    axes.plot(at, values, color=colour, linestyle=line, marker=marker, markersize=4, linewidth=1.6, label=name)
    if not band:
        return
    low, high = _ends([estimate for _, estimate in found])
    if len(found) == 1:
        axes.vlines(at, low, high, color=colour, linewidth=1.6)
    else:
        axes.fill_between(at, low, high, color=colour, alpha=0.18, linewidth=0)


def _draw_base(axes: Axes, curve: RunCurve, metric: str) -> None:
    estimate = curve.base.overall(metric) if curve.base is not None else None
    if estimate is None:
        return
    axes.axhline(estimate.value, color=INK, linestyle=(0, (4, 3)), linewidth=1.2, label="base")
    (low,), (high,) = _ends([estimate])
    axes.axhspan(low, high, color=INK, alpha=0.07, linewidth=0)


def _finish(axes: Axes) -> None:
    handles, _ = axes.get_legend_handles_labels()
    if not handles:
        axes.text(0.5, 0.5, "no figures", transform=axes.transAxes, ha="center", color=INK, size=8)
        return
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=3,
        frameon=False,
        fontsize=8,
        labelcolor=INK,
        borderaxespad=0.2,
        handlelength=2.2,
    )


def _ends(estimates: list[Estimate]) -> tuple[list[float], list[float]]:
    low = [estimate.value if estimate.low is None else estimate.low for estimate in estimates]
    high = [estimate.value if estimate.high is None else estimate.high for estimate in estimates]
    return low, high


def _heat_columns(curve: RunCurve) -> list[Point]:
    room = _CATEGORY_COLUMNS - 1 if len(curve.points) > _CATEGORY_COLUMNS else len(curve.points)
    kept = {id(curve.points[index]) for index in evenly(len(curve.points), room)}
    kept |= {id(point) for point in curve.best[:1]}
    shown = [point for point in curve.points if id(point) in kept]
    return [point for point in (curve.base, *shown) if point is not None]


def _column_name(curve: RunCurve, point: Point) -> str:
    if point is curve.base:
        return "base"
    return f"{point.iteration}{'*' if point in curve.best else ''}"
