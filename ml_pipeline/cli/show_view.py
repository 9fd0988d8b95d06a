"""How one checkpoint is shown on a terminal and in JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import ConsoleOptions, Group, RenderableType
from rich.text import Text

from ml_pipeline.cli.compare_view import flip_json, flip_view
from ml_pipeline.cli.view_parts import (
    VERDICT_STYLES,
    add_row,
    heading,
    mean_interval_cell,
    table_of,
)
from ml_pipeline.printable import printable
from ml_pipeline.reports.checkpoint_page import CheckpointPage, Loss, SuitePage
from ml_pipeline.reports.comparison import Comparison
from ml_pipeline.reports.conclusions import LIMIT_DECIDES
from ml_pipeline.reports.intervals import Estimate
from ml_pipeline.reports.pairs import pair_table
from ml_pipeline.reports.runs import Point
from ml_pipeline.reports.score_table import JUDGE_PREFIX, SIGNAL_METRICS
from ml_pipeline.reports.terminal import interval_bar, terminal_text
from ml_pipeline.reports.wording import (
    NONE,
    UNSOUND_NOTE,
    difference,
    gain,
    limit_words,
    marked,
    mean_difference,
    mean_name,
    partly,
    percent_interval,
)
from ml_pipeline.scoring.degeneration import SIGNALS
from ml_pipeline.scoring.statistics import OVERALL

_TOKENS = "mean_completion_tokens"


def show_view(page: CheckpointPage, options: ConsoleOptions) -> RenderableType:
    """The page for a terminal."""
    checkpoint = page.checkpoint
    label = f"{printable(checkpoint.label, 80)}, base {printable(checkpoint.base_model, 60)}"
    parts: list[RenderableType] = [terminal_text(checkpoint.key, options, "bold"), terminal_text(label, options)]
    if page.losses:
        parts.append(terminal_text(_losses(page.losses, checkpoint.iteration), options))
    for suite in page.suites:
        parts += _suite(page, suite, options)
    parts += [terminal_text(f"\nNot compared: {reason}.", options, "yellow") for reason in page.left_out]
    parts += _provenance(page, options)
    return Group(*parts)


def show_json(page: CheckpointPage) -> dict[str, Any]:
    """The page for programs; `standing` is the row of the table `leaderboard`."""
    return {
        "checkpoint": page.checkpoint,
        "against": None if page.against is None else page.against.key,
        "training_loss": page.losses,
        "suites": [_suite_json(suite) for suite in page.suites],
        "left_out": list(page.left_out),
    }


def _suite_json(suite: SuitePage) -> dict[str, Any]:
    return {
        "suite": suite.curve.suite,
        "standing": suite.standing,
        "figures": [
            {"metric": metric, "category": category, **_estimate_json(estimate)}
            for metric, by_category in suite.point.figures.items()
            for category, estimate in by_category.items()
        ],
        "comparison": [] if suite.pair is None else pair_table([suite.pair]).to_dict("records"),
        "differs": [] if suite.pair is None else list(suite.pair.differs),
        "flips": [] if suite.pair is None else [flip_json(flip) for flip in suite.pair.flips],
        "unscored": list(suite.unscored),
        "provenance": dict(suite.provenance),
    }


def _suite(page: CheckpointPage, suite: SuitePage, options: ConsoleOptions) -> Iterator[RenderableType]:
    yield heading(f"{suite.curve.suite}{_place(suite)}", options)
    point, pair = suite.point, suite.pair
    if point.accuracy is not None:
        yield _accuracies(page, suite, options)
    if (found := _against(page, suite)) is not None:
        told = f"{found.verdict} than" if found.verdict in VERDICT_STYLES else "no clear difference from"
        words = f"{told[0].upper()}{told[1:]} {_other(page)}: {gain(found)}{partly(found, _other(page))}."
        if found.verdict == LIMIT_DECIDES:
            words = f"The token limit decides the difference from {_other(page)}: {limit_words(found, _other(page))}."
        yield terminal_text(f"\n{words}", options, VERDICT_STYLES.get(found.verdict, ""))
    if pair is not None and pair.differs:
        told = ", ".join(pair.differs)
        yield terminal_text(f"Not scored alike, so that more than the adapter differs: {told}.", options, "yellow")
    if (previous := point.previous) is not None and point.vs_previous is not None:
        before = f"@{previous.iteration}"
        since = f"{gain(point.vs_previous)}{partly(point.vs_previous, before)}"
        if point.vs_previous.verdict == LIMIT_DECIDES:
            since = f"the token limit decides: {limit_words(point.vs_previous, before)}"
        yield terminal_text(f"Since {before}: {since}.", options)
    yield Text("")
    yield _means(suite, options)
    if point.is_unsound:
        yield terminal_text(UNSOUND_NOTE, options, "yellow")
    yield terminal_text(_signals(point), options)
    for group in suite.unscored:
        words = f"Unscored, {group.kind}: {group.count}, {printable(group.reason, 300)}"
        yield terminal_text(words, options, "yellow")
    if pair is not None and pair.categories:
        yield Text("")
        yield from flip_view(pair.flips, _short_other(page), "this", options, answers=False)


def _against(page: CheckpointPage, suite: SuitePage) -> Comparison | None:
    """The comparison with the other checkpoint; with its base that of the leaderboard, which allows for its run."""
    base = suite.curve.base
    if page.against is not None and base is not None and page.against.key == base.partition_key:
        return suite.point.vs_base
    return None if suite.pair is None else suite.pair.overall


def _place(suite: SuitePage) -> str:
    row = suite.standing
    rank = row["rank"]
    if not isinstance(rank, int):
        return ""
    tied = ", tied" if row["tied"] else ""
    near = ", which may be the truly best as well" if row["near_best"] else ""
    return f" · rank {rank} of {suite.ranked} in its run{tied}{near}"


def _accuracies(page: CheckpointPage, suite: SuitePage, options: ConsoleOptions) -> RenderableType:
    by_category = suite.point.figures["accuracy"]
    against = {} if suite.pair is None else {one.category: one for one in suite.pair.categories}
    columns = ["accuracy", "", "right", "95% interval", *([f"vs {_short_other(page)}"] if against else [])]
    table = table_of(columns, options, right="right", folded="accuracy")
    overall = suite.point.accuracy
    of_answers = " answers" if overall is not None and overall.count > len(suite.point.passed) > 0 else ""
    for category in sorted(by_category, key=lambda name: (name != OVERALL, name)):
        estimate = by_category[category]
        right = f"{round(estimate.value * estimate.count)} of {estimate.count}{of_answers}"
        if estimate.unscored:
            right += f", {estimate.unscored} n/a"
        bar = interval_bar(estimate, ascii_only=options.ascii_only)
        cells = [category, percent_interval(estimate), right, bar]
        if against:
            # Over all categories the figures are those of the sentence below, which allow for the whole run.
            found = _against(page, suite) if category == OVERALL else None
            found = found or (against[category].comparison if category in against else None)
            cells.append(difference(found))
        add_row(table, cells, options, "bold" if category == OVERALL else "")
    return table


def _means(suite: SuitePage, options: ConsoleOptions) -> RenderableType:
    compared = {} if suite.pair is None else {mean.metric: mean.comparison for mean in suite.pair.means}
    table = table_of(["mean", "95% interval", "answers", "difference"], options, right="answers", folded="mean")
    for metric in sorted(suite.point.figures):
        estimate = suite.point.overall(metric)
        if estimate is None or not (metric in ("lek", _TOKENS) or metric.startswith(JUDGE_PREFIX)):
            continue
        name = "tokens an answer" if metric == _TOKENS else mean_name(metric)
        count = f"{estimate.count}, {estimate.unscored} n/a" if estimate.unscored else str(estimate.count)
        cell = mean_interval_cell(estimate)
        if metric != _TOKENS:
            cell = marked(cell, suite.point)
        add_row(table, [name, cell, count, mean_difference(compared.get(metric))], options)
    return table


def _signals(point: Point) -> str:
    shares = {SIGNALS[m.removesuffix("_share")]: e for m in SIGNAL_METRICS if (e := point.overall(m)) is not None}
    shown = [f"{percent_interval(estimate)} {words}" for words, estimate in shares.items() if estimate.value]
    if not shares:
        return "Degeneration was not looked at."
    return f"Degeneration: {'; '.join(shown) if shown else 'no sign of it'}."


def _losses(losses: Mapping[str, Loss], iteration: int) -> str:
    parts = []
    for kind, loss in losses.items():
        figure = loss.reason or "unknown" if loss.loss is None else f"{loss.loss:.3f}"
        at = "" if loss.iteration == iteration else f" (at {loss.iteration})"
        parts.append(f"{'training' if kind == 'train' else 'validation'} loss {figure}{at}")
    return ", ".join(parts)


def _provenance(page: CheckpointPage, options: ConsoleOptions) -> Iterator[RenderableType]:
    if not page.suites:
        return
    yield heading("What produced this", options)
    table = table_of(["", " "], options, folded=" ")
    table.show_header = False
    told = [dict(suite.provenance) for suite in page.suites]
    for name in dict.fromkeys(name for lines in told for name in lines):
        values = list(dict.fromkeys(lines[name] for lines in told if name in lines))
        add_row(table, [name, printable("; ".join(values), 400)], options, "dim")
    yield table
    hint = "p against the base and the one before allows for all checkpoints and suites of the run. --answers shows "
    hint += "every answer, --answers PROBE those to one probe."
    yield terminal_text(f"\n{hint}", options, "dim")


def _other(page: CheckpointPage) -> str:
    if page.against is None:
        return NONE
    own = page.against.is_base and page.against.base_model == page.checkpoint.base_model
    return "the base" if own else page.against.key


def _short_other(page: CheckpointPage) -> str:
    if page.against is None:
        return NONE
    return "base" if page.against.is_base else f"@{page.against.iteration}"


def _estimate_json(estimate: Estimate) -> dict[str, Any]:
    return {name: getattr(estimate, name) for name in ("value", "low", "high", "count", "unscored")}
