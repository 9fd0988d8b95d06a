"""What the views of a terminal have in common: tables of 80 columns, figures with their intervals, safe text."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import ConsoleOptions, JustifyMethod
from rich.table import Table
from rich.text import Text

from ml_pipeline.reports.comparison import Comparison
from ml_pipeline.reports.conclusions import LIMIT_DECIDES
from ml_pipeline.reports.intervals import Estimate
from ml_pipeline.reports.terminal import terminal_text
from ml_pipeline.reports.wording import NONE, p_value, signed

VERDICT_STYLES = {"better": "bold green", "worse": "bold red"}
SHORT_VERDICTS = {
    "no clear difference": "unclear",
    "the token limit decides": "limit",
    "no base to compare with": "no base",
    "not scored": "unscored",
}


def table_of(columns: Sequence[str], options: ConsoleOptions, *, right: str = "", folded: str = "") -> Table:
    """An unruled table; `right` and `folded` name the columns, with '|' between them, that stand to the right, and that
    give way where there is little room."""
    to_the_right, giving_way = (set(names.split("|")) - {""} for names in (right, folded))
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False, header_style="bold")
    for name in columns:
        justify: JustifyMethod = "right" if name in to_the_right else "left"
        narrow = name in giving_way
        table.add_column(
            terminal_text(name, options), justify=justify, no_wrap=not narrow, overflow="fold" if narrow else "ellipsis"
        )
    return table


def add_row(table: Table, cells: Sequence[str | Text], options: ConsoleOptions, style: str = "") -> None:
    """Add cells, of which the plain ones are text and never markup."""
    table.add_row(*(cell if isinstance(cell, Text) else terminal_text(cell, options, style) for cell in cells))


def heading(words: str, options: ConsoleOptions) -> Text:
    """The line above a block."""
    return terminal_text(f"\n{words}", options, "bold")


def p_cell(comparison: Comparison | None) -> str:
    """The p value that allows for the other comparisons, without its name: '0.012', '<0.001'; none where the token
    limit decides, which no test sees."""
    if comparison is None or comparison.verdict == LIMIT_DECIDES:
        return NONE
    return p_value(comparison.p_adjusted).replace("\u00a0", "").removeprefix("p").removeprefix("=")


def verdict_cell(words: str, options: ConsoleOptions) -> Text:
    """A verdict in one word, coloured."""
    return terminal_text(SHORT_VERDICTS.get(words, words), options, VERDICT_STYLES.get(words, ""))


def mean_interval_cell(estimate: Estimate | None) -> str:
    """A mean with its interval: '5.2 [4.1 to 6.3]'."""
    if estimate is None:
        return NONE
    if estimate.low is None or estimate.high is None:
        return signed(f"{estimate.value:.1f}")
    return signed(f"{estimate.value:.1f} [{estimate.low:.1f} to {estimate.high:.1f}]")
