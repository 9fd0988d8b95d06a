"""How two checkpoints are compared on a terminal and in JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import ConsoleOptions, Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from ml_pipeline.cli.view_parts import (
    add_row,
    heading,
    mean_interval_cell,
    p_cell,
    table_of,
    verdict_cell,
)
from ml_pipeline.printable import printable, printable_lines
from ml_pipeline.reports.comparison import Comparison
from ml_pipeline.reports.flips import Answer, Flip
from ml_pipeline.reports.pairs import Pairing, SuitePair, pair_table
from ml_pipeline.reports.terminal import terminal_text
from ml_pipeline.reports.wording import (
    NONE,
    UNSOUND_NOTE,
    difference,
    limit_words,
    marked,
    mean_difference,
    mean_name,
    percent,
    percent_interval,
)

_READ = 20
_LEGEND = (
    "B - A: points on the probes scored for both, with the 95% interval; p: McNemar's exact test; both allow for the "
    "other categories; unclear: p is 0.05 or more; limit: the token limit decides."
)


def compare_view(
    pairing: Pairing, a_key: str, b_key: str, options: ConsoleOptions, *, answers: bool = False
) -> RenderableType:
    """The comparison for a terminal; with `answers` both answers to each flipped probe in full."""
    parts: list[RenderableType] = [
        terminal_text(f"A  {a_key}", options, "bold"),
        terminal_text(f"B  {b_key}", options, "bold"),
    ]
    for suite in pairing.suites:
        parts += _suite(suite, options, answers=answers)
    parts += [terminal_text(f"\nNot compared: {reason}.", options, "yellow") for reason in pairing.left_out]
    if any(suite.categories for suite in pairing.suites):
        parts.append(terminal_text(f"\n{_LEGEND}", options, "dim"))
    return Group(*parts)


def compare_json(pairing: Pairing, a_key: str, b_key: str) -> dict[str, Any]:
    """The comparison for programs: `figures` has a row a metric and category, `flips` one a flipped probe."""
    return {
        "a": a_key,
        "b": b_key,
        "figures": pair_table(pairing.suites).to_dict("records"),
        "differs": {suite.suite: list(suite.differs) for suite in pairing.suites},
        "flips": [{"suite": suite.suite, **flip_json(flip)} for suite in pairing.suites for flip in suite.flips],
        "left_out": list(pairing.left_out),
    }


def flip_json(flip: Flip) -> dict[str, Any]:
    """A flipped probe for programs: what was answered `before` and `after`."""
    return {
        "probe_id": flip.probe_id,
        "category": flip.category,
        "change": "gained" if flip.gained else "lost",
        "prompt": flip.prompt,
        "expected": flip.expected,
        "before": flip.before,
        "after": flip.after,
    }


def flip_view(
    flips: Sequence[Flip], before: str, after: str, options: ConsoleOptions, *, answers: bool
) -> Iterator[RenderableType]:
    """The flipped probes: a line each, or with `answers` the question and both answers."""
    gained = sum(flip.gained for flip in flips)
    if not flips:
        yield terminal_text("No probe was gained or lost.", options)
        return
    yield terminal_text(f"Probes gained {gained}, lost {len(flips) - gained}", options, "bold")
    if answers:
        for flip in flips:
            yield from _answers(flip, before, after, options)
        return
    table = table_of(["", "probe", "wanted", f"read: {before}", after], options, folded="probe")
    for flip in flips:
        read = [printable(text, _READ) for text in (flip.expected, *map(_read, (flip.before, flip.after)))]
        add_row(table, [_change(flip, options), printable(flip.probe_id, 60), *read], options)
    yield table


def _suite(suite: SuitePair, options: ConsoleOptions, *, answers: bool) -> Iterator[RenderableType]:
    yield heading(_heading(suite), options)
    if suite.differs:
        told = ", ".join(suite.differs)
        yield terminal_text(f"Not scored alike, so that more than the adapter differs: {told}.", options, "yellow")
    if suite.categories:
        yield _categories(suite, options)
    if suite.overall is not None and suite.overall.limit is not None:
        yield terminal_text(f"The token limit: {limit_words(suite.overall, 'A')}.", options, "yellow")
    if suite.means:
        table = table_of(["mean", "A", "B", "B - A", "probes"], options, right="probes", folded="mean")
        for mean in suite.means:
            a, b = (marked(mean_interval_cell(one), of) for one, of in ((mean.a, suite.a), (mean.b, suite.b)))
            figures = [a, b, mean_difference(mean.comparison), str(mean.comparison.paired)]
            add_row(table, [mean_name(mean.metric), *figures], options)
        yield Text("")
        yield table
        if suite.a.is_unsound or suite.b.is_unsound:
            yield terminal_text(UNSOUND_NOTE, options, "dim")
    if suite.categories:
        yield Text("")
        yield from flip_view(suite.flips, "A", "B", options, answers=answers)


def _categories(suite: SuitePair, options: ConsoleOptions) -> RenderableType:
    columns = ["accuracy", "probes", "A", "B", "B - A", "p", "verdict", "flips"]
    table = table_of(columns, options, right="probes|A|B|p", folded="accuracy")
    for index, one in enumerate(suite.categories):
        found = one.comparison
        ends = [percent(end.value if end else None) for end in (one.a, one.b)]
        verdict = verdict_cell(NONE if found is None else found.verdict, options)
        cells: list[str | Text] = [printable(one.category, 60), str(found.paired) if found else NONE, *ends]
        cells += [difference(found), p_cell(found), verdict, _flips(found)]
        add_row(table, cells, options, "" if index else "bold")
    return table


def _heading(suite: SuitePair) -> str:
    """The suite, and the accuracy of both with its interval, each on all its probes."""
    if not suite.categories:
        return suite.suite
    overall = suite.categories[0]
    return f"{suite.suite} · A {percent_interval(overall.a)} · B {percent_interval(overall.b)}"


def _answers(flip: Flip, before: str, after: str, options: ConsoleOptions) -> Iterator[RenderableType]:
    title = terminal_text(f"\n{printable(flip.probe_id, 100)} ", options, "bold")
    yield title + _change(flip, options)
    yield Padding(terminal_text(printable_lines(flip.prompt), options, "dim"), (0, 0, 0, 2))
    yield terminal_text(f"  wanted: {printable(flip.expected)}", options)
    for name, answer in ((before, flip.before), (after, flip.after)):
        read = f", read {printable(answer.extracted, 100)!r}" if answer.extracted else ""
        yield terminal_text(f"  {name} ({printable(answer.finish_reason, 20)}{read}):", options, "bold")
        cut = f"\n[{answer.cut_characters} more characters]" if answer.cut_characters else ""
        yield Padding(terminal_text(printable_lines(answer.text) + cut, options), (0, 0, 0, 4))


def _flips(found: Comparison | None) -> str:
    """How many probes were gained, with a plus, and how many lost."""
    counts = [] if found is None else [("+", found.better), ("−", found.worse)]  # noqa: RUF001 - a minus sign
    return " ".join(f"{sign}{count}" for sign, count in counts if count)


def _change(flip: Flip, options: ConsoleOptions) -> Text:
    return terminal_text("gained" if flip.gained else "lost", options, "green" if flip.gained else "red")


def _read(answer: Answer) -> str:
    return answer.extracted or NONE
