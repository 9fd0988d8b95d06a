"""The table that the terminal shows: one block a run, readable in 80 columns, without colour and in plain ASCII."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, JustifyMethod, RenderResult
from rich.table import Table
from rich.text import Text

from ml_pipeline.printable import printable
from ml_pipeline.reports.conclusions import LIMIT_DECIDES, NO_DIFFERENCE
from ml_pipeline.reports.intervals import Estimate
from ml_pipeline.reports.leaderboard import NO_BASE, NOT_SCORED, verdict_of
from ml_pipeline.reports.runs import Point, RunCurve, run_curves
from ml_pipeline.reports.score_table import JUDGE_PREFIX
from ml_pipeline.reports.scores import Scores
from ml_pipeline.reports.trouble import first_trouble, run_standing
from ml_pipeline.reports.wording import (
    NO_SCORES,
    NONE,
    evenly,
    headline,
    number,
    percent,
    percent_interval,
    points,
    resolution,
    sparkline,
)

_FULL_WIDTH, _MIDDLE_WIDTH = 78, 56
_BAR_WIDTH = 12
_STYLES = {"better": "bold green", "worse": "bold red"}
_SHORT = {NO_DIFFERENCE: "unclear", LIMIT_DECIDES: "limit", NO_BASE: "no base", NOT_SCORED: "unscored"}
_ASCII = str.maketrans({NONE: "-", "−": "-", "\u00a0": " ", "·": "-", "▲": "^", "▼": "v"})  # noqa: RUF001 - a minus sign
_LEGEND = (
    "accuracy with its 95% interval; vs base in points; cut: answers cut at the token limit; n/a: probes unscored; "
    "unclear: no clear difference from the base (p >= 0.05, all checkpoints of the run allowed for); limit: the token "
    "limit decides the difference."
)


@dataclass(frozen=True)
class ScoreTableView:
    """A rich renderable. It chooses its columns by the width it is given and its signs by the terminal's encoding."""

    curves: tuple[RunCurve, ...]
    max_rows: int

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield one block a run, then the legend."""
        if not self.curves:
            yield Text(NO_SCORES)
            return
        for curve in self.curves:
            yield from self._block(curve, options)
            yield Text("")
        yield terminal_text(_LEGEND, options, "dim")

    def _block(self, curve: RunCurve, options: ConsoleOptions) -> RenderResult:
        plain = options.ascii_only
        line = sparkline([p.accuracy.value if p.accuracy else None for p in curve.points], ascii_only=plain)
        yield terminal_text(f"{curve.name} [{curve.suite}, base {printable(curve.base_model)}]", options, "bold")
        if curve.ranked and len(curve.points) > 1:
            yield terminal_text(f"{line}  {curve.trend}", options)
        yield self._table(curve, options)
        yield terminal_text(headline(curve), options)
        if told := resolution(curve):
            yield terminal_text(told, options, "dim")
        standing = run_standing(curve)
        if (trouble := standing.trouble) is not None:
            yield terminal_text(f"{'!' if plain else '▼'} {trouble.text[0].upper()}{trouble.text[1:]}.", options, "red")
        for words in standing.limits:
            yield terminal_text(f"! {words[0].upper()}{words[1:]}.", options, "yellow")

    def _table(self, curve: RunCurve, options: ConsoleOptions) -> Table:
        table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
        columns = _columns(options.max_width) if curve.ranked else ["", "iter", *curve.judge_metrics, "LEK", "cut"]
        for name in columns:
            justify: JustifyMethod = "left" if name in ("", "95% interval", "verdict") else "right"
            heading = name.removeprefix(JUDGE_PREFIX).replace("_", " ")
            table.add_column(terminal_text(heading, options), justify=justify, no_wrap=curve.ranked)
        if curve.base is not None:
            cells = _cells(curve, curve.base, options) | {"iter": "base", "verdict": "", "vs base": ""}
            table.add_row(*(terminal_text(cells[name], options, "dim") for name in columns))
        shown = self._shown(curve)
        for index, point in enumerate(curve.points):
            if index not in shown:
                continue
            cells = _cells(curve, point, options)
            style = _STYLES.get(verdict_of(curve, point), "")
            table.add_row(
                *(terminal_text(cells[name], options, style if name == "verdict" else "") for name in columns)
            )
        if len(shown) < len(curve.points):
            table.caption = f"{len(curve.points) - len(shown)} of {len(curve.points)} checkpoints not shown"
            table.caption_justify = "left"
        return table

    def _shown(self, curve: RunCurve) -> set[int]:
        trouble = first_trouble(curve)
        kept = {index for index, point in enumerate(curve.points) if curve.highest and point is curve.highest[0]}
        kept |= {i for i, point in enumerate(curve.points) if trouble and point.iteration == trouble.iteration}
        room = max(2, self.max_rows - len(kept)) if len(curve.points) > self.max_rows else len(curve.points)
        return kept | set(evenly(len(curve.points), room))


def score_table_view(scores: Scores, *, max_rows: int = 14) -> ScoreTableView:
    """The scores for `rich.print` or `Console.print`: every run with its base, checkpoints in order, and a verdict.

    A run of more than `max_rows` checkpoints is thinned evenly; its best and the first in trouble always show.
    """
    return ScoreTableView(tuple(run_curves(scores)), max_rows)


def _columns(width: int) -> list[str]:
    if width >= _FULL_WIDTH:
        return ["", "iter", "accuracy", "95% interval", "vs base", "judge", "LEK", "cut", "n/a", "verdict"]
    if width >= _MIDDLE_WIDTH:
        return ["", "iter", "accuracy", "vs base", "judge", "LEK", "cut", "n/a", "verdict"]
    return ["", "iter", "accuracy", "vs base", "verdict"]


def _cells(curve: RunCurve, point: Point, options: ConsoleOptions) -> dict[str, str]:
    verdict, truncated = verdict_of(curve, point), point.overall("truncated_share")
    return {
        "": "*" if point in curve.best else " ",
        "iter": str(point.iteration),
        "accuracy": percent_interval(point.accuracy),
        "95% interval": interval_bar(point.accuracy, ascii_only=options.ascii_only),
        "vs base": NONE if point.vs_base is None or verdict == LIMIT_DECIDES else points(point.vs_base.delta),
        "judge": number(point.overall("judge:avg")),
        "LEK": number(point.overall("lek")),
        "cut": NONE if truncated is None else percent(truncated.value),
        "n/a": str(point.unscored),
        "verdict": _SHORT.get(verdict, verdict),
        **{metric: number(point.overall(metric)) for metric in curve.judge_metrics},
    }


def interval_bar(estimate: Estimate | None, *, ascii_only: bool) -> str:
    """A share on a line from 0 to 100%: the interval heavy, the value a mark."""
    rail, heavy, mark = ".-+" if ascii_only else "·━┿"
    if estimate is None or estimate.low is None or estimate.high is None:
        return ""
    low, middle, high = (
        min(_BAR_WIDTH - 1, int(v * _BAR_WIDTH)) for v in (estimate.low, estimate.value, estimate.high)
    )
    cells = [heavy if low <= index <= high else rail for index in range(_BAR_WIDTH)]
    cells[middle] = mark
    return "".join(cells)


def terminal_text(words: str, options: ConsoleOptions, style: str = "") -> Text:
    """Text, never markup: a run may be called '[red]'. What a terminal's encoding lacks becomes ASCII."""
    if options.ascii_only:
        words = words.translate(_ASCII).encode("ascii", "replace").decode()
    return Text(words, style=style)
