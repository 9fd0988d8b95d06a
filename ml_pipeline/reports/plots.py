"""Draws panels with matplotlib: one figure of panels that stand above each other and share the iterations.

Figures are made with matplotlib's objects alone, so that drawing changes no global state of a notebook or of Dagster's
processes; it is imported by the first drawing, since that takes a second. Margins and ticks are given, not searched
for, which takes longer than all the rest and would make a report of a hundred runs take minutes.

Colours are Okabe and Ito's, told apart by colour-blind readers and legible on white and on near black; the
background is clear, and text and axes take the page's colour (see `render.to_svg`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ml_pipeline.reports.panels import Line, Panel, accuracy_panel, judge_panel
from ml_pipeline.reports.runs import RunCurve

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#0a0b0c"
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#56b4e9", "#7f6fb0")
_STYLES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (1, 1)), (0, (3, 1, 1, 1)))
_WIDTH, _LEFT, _RIGHT = 4.6, 0.5, 0.12
_PLOT, _HEAD, _LEGEND_ROW, _FOOT = 1.5, 0.34, 0.17, 0.42
_IN_TITLE_ROW, _LEGEND_COLUMNS = 2, 3
_MARKED_POINTS = 60
_LABELLED_POINTS = 6
_TICKS = 6


def accuracy_figure(curve: RunCurve) -> Figure:
    """Accuracy over the iterations with its 95% interval as a band, the base as a line of dashes with its own band."""
    return panels_figure([accuracy_panel(curve)])


def judge_figure(curve: RunCurve) -> Figure:
    """The judge's means over the iterations."""
    return panels_figure([judge_panel(curve)])


def panels_figure(panels: Sequence[Panel | None]) -> Figure:
    """Panels above each other; one that is None says that there are no figures."""
    from matplotlib.figure import Figure

    heads = [_HEAD + _LEGEND_ROW * _legend_rows(panel) for panel in panels]
    height = sum(heads) + _PLOT * len(panels) + _FOOT
    figure = Figure(figsize=(_WIDTH, height))
    ticks = _iteration_ticks(panels)
    top = height
    for panel, head in zip(panels, heads, strict=True):
        top -= head + _PLOT
        place = (_LEFT / _WIDTH, top / height, (_WIDTH - _LEFT - _RIGHT) / _WIDTH, _PLOT / height)
        axes = figure.add_axes(place, facecolor="none")
        _frame(axes, ticks, is_last=panel is panels[-1])
        if panel is None:
            axes.text(0.5, 0.5, "no figures", transform=axes.transAxes, ha="center", color=INK, size=8)
        else:
            _draw(axes, panel, (head - 0.16) / _PLOT)
    return figure


def plain(words: str) -> str:
    """Words that matplotlib must not read as mathematics ('$x$') and whose every character has a shape."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in words).replace("$", r"\$")


def _legend_rows(panel: Panel | None) -> int:
    """Rows of the legend below the title; a short one stands beside it."""
    if panel is None or (count := _named(panel)) <= _IN_TITLE_ROW:
        return 0
    return math.ceil(count / _LEGEND_COLUMNS)


def _named(panel: Panel) -> int:
    return len(panel.lines) + (panel.base is not None)


def _iteration_ticks(panels: Sequence[Panel | None]) -> tuple[tuple[float, float], list[int]]:
    """The limits of the shared axis, and where it has ticks: at the checkpoints if they are few."""
    from matplotlib.ticker import MaxNLocator

    marks = [{i for line in panel.lines for i in line.iterations} for panel in panels if panel is not None]
    every = sorted(set().union(*marks))
    if not every:
        return (0, 1), []
    low, high = every[0], every[-1]
    margin = max(1.0, 0.03 * (high - low))
    if len(marks[0]) <= _LABELLED_POINTS:
        return (low - margin, high + margin), sorted(marks[0])
    found = MaxNLocator(nbins=_TICKS, integer=True).tick_values(low, high)
    return (low - margin, high + margin), [int(tick) for tick in found if low - margin <= tick <= high + margin]


def _frame(axes: Axes, ticks: tuple[tuple[float, float], list[int]], *, is_last: bool) -> None:
    limits, at = ticks
    axes.set_xlim(*limits)
    axes.set_xticks(at, [str(tick) for tick in at] if is_last else [""] * len(at))
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(INK)
    axes.tick_params(colors=INK, labelsize=8)
    if is_last:
        axes.set_xlabel("iteration", size=8, color=INK)


def _draw(axes: Axes, panel: Panel, title_at: float) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    for index, line in enumerate(panel.lines):
        _draw_line(axes, line, index)
    if panel.base is not None:
        _draw_base(axes, panel)
    if panel.best:
        axes.plot(*zip(*panel.best, strict=True), "o", markersize=9, fillstyle="none", color=INK, markeredgewidth=1)
    if panel.limits is not None:
        axes.set_ylim(*panel.limits)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
    if panel.shares:
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
    axes.grid(axis="y", color=INK, alpha=0.15, linewidth=0.6)
    axes.text(0, 1 + title_at, plain(panel.title), transform=axes.transAxes, weight="bold", color=INK, size=8.5)
    if _named(panel) > 1:
        beside = _legend_rows(panel) == 0
        axes.legend(
            loc="lower right" if beside else "lower left",
            bbox_to_anchor=(1 if beside else 0, 1),
            ncols=_LEGEND_COLUMNS,
            frameon=False,
            fontsize=8,
            labelcolor=INK,
            borderaxespad=0.2,
            borderpad=0,
            handlelength=2.2,
            columnspacing=1.2,
        )


def _draw_line(axes: Axes, line: Line, index: int) -> None:
    colour, style = PALETTE[index % len(PALETTE)], _STYLES[index % len(_STYLES)]
    marker = "o" if len(line.values) <= _MARKED_POINTS else ""
    axes.plot(
        line.iterations,
        line.values,
        color=colour,
        linestyle=style,
        marker=marker,
        markersize=3.5,
        linewidth=1.5,
        label=plain(line.name),
    )
    if line.low and len(line.values) == 1:
        axes.vlines(line.iterations, line.low, line.high, color=colour, linewidth=1.5)
    elif line.low:
        axes.fill_between(line.iterations, line.low, line.high, color=colour, alpha=0.18, linewidth=0)


def _draw_base(axes: Axes, panel: Panel) -> None:
    base = panel.base
    assert base is not None
    axes.axhline(base.value, color=INK, linestyle=(0, (4, 3)), linewidth=1.2, label="base")
    if base.low is not None and base.high is not None:
        axes.axhspan(base.low, base.high, color=INK, alpha=0.07, linewidth=0)
