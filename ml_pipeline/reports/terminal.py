"""The table that the terminal shows: one block a run, readable in 80 columns, without colour and in plain ASCII."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, JustifyMethod, RenderResult
from rich.table import Table
from rich.text import Text

from ml_pipeline.printable import printable, without_controls
from ml_pipeline.reports.conclusions import LIMIT_DECIDES, NO_DIFFERENCE
from ml_pipeline.reports.failures import Failure, current_failures
from ml_pipeline.reports.intervals import Estimate
from ml_pipeline.reports.leaderboard import NO_BASE, NOT_SCORED, verdict_of
from ml_pipeline.reports.runs import Point, RunCurve, run_curves
from ml_pipeline.reports.score_table import JUDGE_PREFIX
from ml_pipeline.reports.scores import Scores
from ml_pipeline.reports.trouble import first_trouble, run_standing
from ml_pipeline.reports.wording import (
    FINISHED_MARK,
    NO_SCORES,
    NONE,
    UNSOUND_MARK,
    evenly,
    headline,
    marked,
    number,
    on_finished,
    percent,
    percent_interval,
    points,
    resolution,
    sparkline,
    table_notes,
)

_MOST_FAILURES = 10
_FULL_WIDTH, _MIDDLE_WIDTH = 78, 56
_BAR_WIDTH = 12
_STYLES = {"better": "bold green", "worse": "bold red"}
_SHORT = {NO_DIFFERENCE: "unclear", LIMIT_DECIDES: "limit", NO_BASE: "no base", NOT_SCORED: "unscored"}
_FAILED = "✕"
_SIGNS = {
    NONE: "-",
    "\u2212": "-",
    "\u00a0": " ",
    "·": "-",
    "▲": "^",
    "▼": "v",
    UNSOUND_MARK: "!",
    FINISHED_MARK: "#",
    _FAILED: "x",
}
_ASCII = str.maketrans(_SIGNS)
_LEGEND = (
    "accuracy with its 95% interval; vs base in points; cut: answers cut at the token limit; n/a: probes unscored; "
    "unclear: no clear difference from the base (p >= 0.05, the whole run allowed for); limit: the token limit decides "
    "the difference."
)


@dataclass(frozen=True)
class ScoreTableView:
    """A rich renderable. It chooses its columns by the width it is given and its signs by the terminal's encoding."""

    curves: tuple[RunCurve, ...]
    max_rows: int
    failures: tuple[Failure, ...] = ()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield one block a run, then the legend."""
        if not self.curves:
            yield Text(NO_SCORES)
        for curve in self.curves:
            yield from self._block(curve, options)
            yield Text("")
        yield from failure_lines(self.failures, options)
        if not self.curves:
            return
        yield terminal_text(" ".join([_LEGEND, *table_notes(self.curves)]), options, "dim")

    def _block(self, curve: RunCurve, options: ConsoleOptions) -> RenderResult:
        plain = options.ascii_only
        line = sparkline([accuracy.value if accuracy else None for _, accuracy in curve.course], ascii_only=plain)
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
        kept: list[Point | Failure] = [point for index, point in enumerate(curve.points) if index in shown]
        for one in sorted([*kept, *_failed(curve)[-self.max_rows :]], key=lambda one: one.iteration):
            if isinstance(one, Failure):
                failed = {"": _FAILED, "iter": str(one.iteration), "verdict": "failed"}
                cells, style = dict.fromkeys(columns, NONE) | failed, "red"
            else:
                cells, style = _cells(curve, one, options), _STYLES.get(verdict_of(curve, one), "")
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


def _failed(curve: RunCurve) -> list[Failure]:
    """The checkpoints that failed and have no scores, by iteration."""
    scored = {point.partition_key for point in curve.points}
    return [one for one in curve.failures if one.partition_key not in scored]


def failure_lines(failures: Sequence[Failure], options: ConsoleOptions) -> Iterator[Text]:
    """A line for each checkpoint that failed; of many the first, and how many more."""
    for failure in failures[:_MOST_FAILURES]:
        yield terminal_text(f"{_FAILED} {failure.name} failed: {failure.words}", options, "red")
    if len(failures) > _MOST_FAILURES:
        more = f"{len(failures) - _MOST_FAILURES} more failed; `ml-pipeline status` lists them"
        yield terminal_text(f"{_FAILED} {more}", options, "red")


def score_table_view(scores: Scores, *, max_rows: int = 14) -> ScoreTableView:
    """The scores for `rich.print` or `Console.print`: every run with its base, checkpoints in order, and a verdict.

    A run of more than `max_rows` checkpoints is thinned evenly; its best and the first in trouble always show.
    """
    curves = tuple(run_curves(scores))
    return ScoreTableView(curves, max_rows, current_failures(scores))


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
        "vs base": _against_base(point, verdict),
        "judge": marked(number(point.overall("judge:avg")), point),
        "LEK": marked(number(point.overall("lek")), point),
        "cut": NONE if truncated is None else percent(truncated.value),
        "n/a": str(point.unscored),
        "verdict": _SHORT.get(verdict, verdict),
        **{metric: marked(number(point.overall(metric)), point) for metric in curve.judge_metrics},
    }


def _against_base(point: Point, verdict: str) -> str:
    found = point.vs_base
    if found is None or verdict == LIMIT_DECIDES:
        return NONE
    return on_finished(points(found.delta), found)


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
    """Text, never markup: a run may be called '[red]'. What would move the cursor is a space, and what a terminal's
    encoding lacks becomes ASCII."""
    words = without_controls(words)
    if options.ascii_only:
        words = words.translate(_ASCII).encode("ascii", "replace").decode()
    return Text(words, style=style)
