"""Draws panels with matplotlib: one figure of panels that stand above each other and share the iterations.

Lines, bands and words are matplotlib's artists, set straight into a figure. Its axes are left out: their ticks, spines
and margins took nine tenths of the time, and made a report of a hundred runs take minutes. It is imported by the first
drawing, since that alone takes a second, and no global state of a notebook or of Dagster's processes is changed.

Colours are Okabe and Ito's, told apart by colour-blind readers and legible on white and on near black; the
background is clear, and text and rules take the page's colour (see `render.to_svg`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from ml_pipeline.reports.panels import Line, Panel, accuracy_panel, judge_panel
from ml_pipeline.reports.runs import RunCurve

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure

INK = "#0a0b0c"
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#56b4e9", "#7f6fb0")
_STYLES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (1, 1)), (0, (3, 1, 1, 1)))
_BASE_STYLE = (0, (4, 3))

# Inches.
_WIDTH, _LEFT, _RIGHT = 4.6, 0.5, 0.14
_PLOT, _HEAD, _LEGEND_ROW, _FOOT = 1.5, 0.34, 0.17, 0.42
_TITLE_ABOVE, _LABEL_GAP, _HANDLE = 0.1, 0.06, 0.26

_IN_TITLE_ROW, _SHORT_NAME = 2, 15
_MARKED_POINTS, _LABELLED_POINTS, _LABEL_ROOM = 60, 10, 0.026
_ITERATION_TICKS, _VALUE_TICKS, _ROUND_STEPS = 6, 5, [1, 2, 2.5, 5, 10]
_SMALL, _TITLE_SIZE = 8.0, 8.5

Range = tuple[float, float]


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
    across = _across(_iterations(panels))
    top = height
    for panel, head in zip(panels, heads, strict=True):
        top -= head + _PLOT
        if panel is None:
            middle = (_WIDTH / 2, top + _PLOT / 2)
            figure.text(*middle, "no figures", transform=figure.dpi_scale_trans, ha="center", color=INK, size=_SMALL)
            continue
        drawing = _Drawing(figure, top, across, _values(panel))
        drawing.rules(_value_ticks(drawing.up, shares=panel.shares))
        drawing.contents(panel)
        drawing.title(panel)
        if panel is panels[-1]:
            drawing.foot(_iteration_ticks(_iterations(panels[:1]), across))
    return figure


def plain(words: str) -> str:
    """Words that matplotlib must not read as mathematics ('$x$') and whose every character has a shape."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in words).replace("$", r"\$")


@dataclass(frozen=True)
class _Drawing:
    """A panel's place in the figure: its lower edge in inches, and the iterations and values that it spans."""

    figure: Figure
    bottom: float
    across: Range
    up: Range

    def rules(self, ticks: Sequence[tuple[float, str]]) -> None:
        """A faint line and a figure at each of these values, and the two edges of the panel."""
        from matplotlib.collections import LineCollection
        from matplotlib.lines import Line2D

        low, high = self.up
        heights = [self.bottom + _PLOT * (value - low) / (high - low) for value, _ in ticks]
        right = _WIDTH - _RIGHT
        segments = [[(_LEFT, at), (right, at)] for at in heights]
        self._add(LineCollection(segments, colors=INK, alpha=0.15, linewidths=0.6), in_inches=True)
        corner = ([_LEFT, _LEFT, right], [self.bottom + _PLOT, self.bottom, self.bottom])
        self._add(Line2D(*corner, color=INK, linewidth=0.8), in_inches=True)
        for at, (_, words) in zip(heights, ticks, strict=True):
            self._write(_LEFT - _LABEL_GAP, at, words, ha="right", va="center")

    def contents(self, panel: Panel) -> None:
        """The lines, the base and the rings around the best."""
        from matplotlib.lines import Line2D

        if (base := panel.base) is not None:
            if base.low is not None and base.high is not None:
                self._band(self.across, (base.low, base.low), (base.high, base.high), INK, 0.07)
            level = Line2D(self.across, [base.value] * 2, color=INK, linestyle=_BASE_STYLE, linewidth=1.2)
            self._add(level, label="base")
        for index, line in enumerate(panel.lines):
            self._line(line, index)
        for iteration, value in panel.best:
            ring = Line2D([iteration], [value], marker="o", markersize=9, fillstyle="none", color=INK)
            self._add(ring, label="best")
        if panel.unsound:
            squares = Line2D(*zip(*panel.unsound, strict=True), marker="s", markersize=7, fillstyle="none", color=INK)
            squares.set_linestyle("none")
            self._add(squares, label="unsound")
        for iteration in panel.gaps:
            # Its lower edge, whatever the values: a checkpoint that failed has none.
            height = self.up[0] + 0.06 * (self.up[1] - self.up[0])
            cross = Line2D([iteration], [height], marker="x", markersize=5, color=INK, alpha=0.75, linestyle="none")
            self._add(cross, label="no figure")

    def title(self, panel: Panel) -> None:
        """The panel's title, and a legend where it has more than one line or a base."""
        from matplotlib.lines import Line2D

        above = self.bottom + _PLOT + _TITLE_ABOVE
        rows, columns = _legend_rows(panel), _legend_columns(panel)
        self._write(_LEFT, above + _LEGEND_ROW * rows, plain(panel.title), weight="bold", size=_TITLE_SIZE)
        entries = [(plain(line.name), *_look(index)) for index, line in enumerate(panel.lines)]
        if panel.base is not None:
            entries.append(("base", INK, _BASE_STYLE))
        width = (_WIDTH - _LEFT - _RIGHT) / columns
        for place, (words, colour, style) in enumerate(entries if len(entries) > 1 else ()):
            # Beside the title a short legend fills the columns from the right, below it from the left.
            column = place % columns if rows else columns - len(entries) + place
            left, at = _LEFT + width * column, above + _LEGEND_ROW * (max(rows, 1) - 1 - place // columns)
            handle = ([left, left + _HANDLE], [at + 0.035] * 2)
            self._add(Line2D(*handle, color=colour, linestyle=style, linewidth=1.5), in_inches=True)
            self._write(left + _HANDLE + _LABEL_GAP, at, words)

    def foot(self, ticks: Sequence[int]) -> None:
        """The iterations, below the panel."""
        first, last = self.across
        for tick in ticks:
            at = _LEFT + (_WIDTH - _LEFT - _RIGHT) * (tick - first) / (last - first)
            self._write(at, self.bottom - _LABEL_GAP, str(tick), ha="center", va="top")
        middle = (_LEFT + _WIDTH - _RIGHT) / 2
        self._write(middle, self.bottom - 0.22, "iteration", ha="center", va="top")

    def _line(self, line: Line, index: int) -> None:
        from matplotlib.lines import Line2D

        colour, style = _look(index)
        if line.low and len(line.values) == 1:
            self._add(Line2D(line.iterations * 2, (*line.low, *line.high), color=colour, linewidth=1.5))
        elif line.low:
            for first, last in _unbroken(line.values):
                part = slice(first, last)
                self._band(line.iterations[part], line.low[part], line.high[part], colour, 0.18)
        marker = "o" if len(line.values) <= _MARKED_POINTS else ""
        drawn = Line2D(line.iterations, line.values, color=colour, linestyle=style, marker=marker, markersize=3.5)
        drawn.set_linewidth(1.5)
        self._add(drawn, label=line.name)

    def _band(
        self, at: Sequence[float], low: Sequence[float], high: Sequence[float], colour: str, alpha: float
    ) -> None:
        from matplotlib.patches import Polygon

        edge = [*zip(at, low, strict=True), *reversed(list(zip(at, high, strict=True)))]
        self._add(Polygon(edge, closed=True, facecolor=colour, alpha=alpha, linewidth=0))

    def _add(self, artist: Artist, *, in_inches: bool = False, label: str = "") -> None:
        from matplotlib.transforms import Affine2D

        inches = self.figure.dpi_scale_trans
        (first, last), (low, high) = self.across, self.up
        data = (
            Affine2D().translate(-first, -low).scale((_WIDTH - _LEFT - _RIGHT) / (last - first), _PLOT / (high - low))
        )
        artist.set_transform(inches if in_inches else data.translate(_LEFT, self.bottom) + inches)
        artist.set_label(label)
        self.figure.add_artist(artist)

    def _write(self, x: float, y: float, words: str, **style: Any) -> None:
        self.figure.text(x, y, words, transform=self.figure.dpi_scale_trans, color=INK, **{"size": _SMALL, **style})


def _unbroken(values: Sequence[float]) -> list[tuple[int, int]]:
    """The stretches of a line that no NaN breaks, as first index and the one after the last."""
    breaks = [-1, *(index for index, value in enumerate(values) if math.isnan(value)), len(values)]
    return [(before + 1, after) for before, after in pairwise(breaks) if after > before + 1]


def _look(index: int) -> tuple[str, Any]:
    """Colour and dashes of a panel's lines, told apart without colours too."""
    return PALETTE[index % len(PALETTE)], _STYLES[index % len(_STYLES)]


def _legend_columns(panel: Panel) -> int:
    return 3 if max(len(line.name) for line in panel.lines) <= _SHORT_NAME else 2


def _legend_rows(panel: Panel | None) -> int:
    """Rows of the legend below the title; a short one stands beside it."""
    if panel is None or (count := len(panel.lines) + (panel.base is not None)) == 1:
        return 0
    columns = _legend_columns(panel)
    return 0 if count <= _IN_TITLE_ROW < columns else math.ceil(count / columns)


def _iterations(panels: Sequence[Panel | None]) -> list[int]:
    lines = {at for panel in panels if panel for line in panel.lines for at in line.iterations}
    return sorted(lines.union(*(panel.gaps for panel in panels if panel)))


def _across(iterations: Sequence[int]) -> Range:
    first, last = (iterations[0], iterations[-1]) if iterations else (0, 0)
    margin = max(1.0, 0.03 * (last - first))
    return first - margin, last + margin


def _iteration_ticks(marks: Sequence[int], across: Range) -> list[int]:
    """The checkpoints if they are few, spread over the axis and have room for their names; else round numbers."""
    from matplotlib.ticker import MaxNLocator

    span = across[1] - across[0]
    room = min((after - before for before, after in pairwise(marks)), default=span) / span
    spread = marks[-1] - marks[0] + 2 if marks else 0
    if 0 < len(marks) <= _LABELLED_POINTS and room >= _LABEL_ROOM * len(str(marks[-1])) and 3 * spread >= span:
        return list(marks)
    found = MaxNLocator(nbins=_ITERATION_TICKS, steps=_ROUND_STEPS, integer=True).tick_values(*across)
    return [int(tick) for tick in found if across[0] <= tick <= across[1]]


def _values(panel: Panel) -> Range:
    """The fixed limits, or all that is drawn and a little more."""
    if panel.limits is not None:
        return panel.limits
    found = [value for line in panel.lines for value in (*line.values, *line.low, *line.high) if not math.isnan(value)]
    if (base := panel.base) is not None:
        found += [value for value in (base.value, base.low, base.high) if value is not None]
    low, high = min(found, default=0.0), max(found, default=0.0)
    margin = 0.05 * (high - low) or max(0.5, 0.05 * abs(high))
    return low - margin, high + margin


def _value_ticks(up: Range, *, shares: bool) -> list[tuple[float, str]]:
    from matplotlib.ticker import MaxNLocator

    low, high = up
    found = MaxNLocator(nbins=_VALUE_TICKS, steps=_ROUND_STEPS).tick_values(low, high)
    within = [float(tick) for tick in found if low <= tick <= high]
    return [(tick, f"{tick:.0%}" if shares else f"{round(tick, 9):g}") for tick in within]
