"""How the leaderboard is shown: a table of 80 columns for each suite and base."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import ConsoleOptions, Group, RenderableType
from rich.text import Text

from ml_pipeline.cli.view_parts import (
    add_row,
    heading,
    mean_interval_cell,
    p_cell,
    table_of,
    verdict_cell,
)
from ml_pipeline.printable import printable
from ml_pipeline.reports.failures import Failure
from ml_pipeline.reports.leaderboard import verdict_of
from ml_pipeline.reports.runs import Point
from ml_pipeline.reports.standings import Ranking, Standing
from ml_pipeline.reports.terminal import failure_lines, terminal_text
from ml_pipeline.reports.trouble import run_standing
from ml_pipeline.reports.wording import (
    FINISHED_NOTE,
    NO_SCORES,
    NONE,
    UNSOUND_NOTE,
    asked,
    difference,
    headline,
    marked,
    mean_difference,
    on_finished,
    percent_interval,
    points,
    rests_on_finished,
)

_JUDGE = "judge:avg"
_ITERATIONS = 2
_SIGNS = {"better": "▲", "worse": "▼"}
_LEGEND = (
    "accuracy with its 95% interval; vs base, vs prev: points on the same probes; p: McNemar's exact test against the "
    "base; p and the interval beside it allow for all checkpoints and suites of the run; unclear: p is 0.05 or more; "
    "limit: the token limit decides; ▲ ▼: clearly better or worse than the checkpoint before; =: tied; the highest of "
    "a run looks better than it is, by about as many points as `luck`, and its interval allows for the choice."
)


def top_view(
    ranked: Sequence[Ranking], most: int, options: ConsoleOptions, failures: Sequence[Failure] = ()
) -> RenderableType:
    """The rankings, at most `most` places of each, and the checkpoints that failed."""
    shown = [ranking for ranking in ranked if ranking.standings]
    if not shown:
        return Group(Text(NO_SCORES), *failure_lines(failures, options))
    parts: list[RenderableType] = []
    for ranking in shown:
        parts += _block(ranking, most, options)
    parts += failure_lines(failures, options)
    if any(standing.rank for ranking in shown for standing in ranking.standings):
        partly = rests_on_finished(standing.curve for ranking in shown for standing in ranking.standings)
        parts.append(terminal_text(f"\n{_LEGEND}{f' {FINISHED_NOTE}' if partly else ''}", options, "dim"))
    judged = [
        one for ranking in shown if not any(s.rank for s in ranking.standings[:most]) for one in ranking.standings
    ]
    if any(point.is_unsound for standing in judged for point in standing.points):
        parts.append(terminal_text(f"\n{UNSOUND_NOTE}", options, "dim"))
    return Group(*parts)


def _block(ranking: Ranking, most: int, options: ConsoleOptions) -> Iterator[RenderableType]:
    base = ""
    if ranking.base is not None and ranking.base.accuracy is not None:
        base = f" {percent_interval(ranking.base.accuracy)} of {asked(ranking.base)}"
    yield heading(f"{ranking.suite} · base {printable(ranking.base_model, 60)}{base}", options)
    shown = ranking.standings[:most]
    if any(standing.rank for standing in shown):
        yield _ranked(ranking, shown, options)
    else:
        yield _judged(shown, options)
    if len(shown) < len(ranking.standings):
        left = len(ranking.standings) - len(shown)
        yield terminal_text(f"{left} more; `-n {len(ranking.standings)}` shows all", options, "dim")
    curves = dict.fromkeys(standing.curve for standing in ranking.standings)
    for curve in curves:
        if not ranking.each_run and curve.ranked:
            yield terminal_text(headline(curve), options)
        standing = run_standing(curve)
        if (trouble := standing.trouble) is not None:
            sign = "!" if options.ascii_only else "▼"
            yield terminal_text(f"{sign} {curve.name} {trouble.text}.", options, "red")
        for words in standing.limits:
            yield terminal_text(f"! {curve.name}: {words}.", options, "yellow")


def _ranked(ranking: Ranking, standings: Sequence[Standing], options: ConsoleOptions) -> RenderableType:
    runs = len({standing.curve for standing in ranking.standings}) > 1 or ranking.each_run
    luck = ["luck"] if ranking.each_run else []
    columns = ["#", *(["run"] if runs else []), "iter", "accuracy", *luck, "vs base", "p", "verdict", "vs prev"]
    table = table_of(columns, options, right="#|iter|luck|p", folded="run|iter")
    for standing in standings:
        point = standing.points[0]
        place = NONE if standing.rank is None else f"{standing.rank}{'=' if standing.tied else ''}"
        cells: list[str | Text] = [place]
        if runs:
            cells.append(standing.curve.name)
        cells.append(_iterations(standing.points))
        if luck:
            cells += [percent_interval(standing.curve.shown_accuracy(point)), _luck(standing)]
        else:
            cells.append(percent_interval(point.accuracy))
        cells += [
            on_finished(difference(point.vs_base), point.vs_base),
            p_cell(point.vs_base),
            verdict_cell(verdict_of(standing.curve, point), options),
            _step(point),
        ]
        add_row(table, cells, options)
    return table


def _judged(standings: Sequence[Standing], options: ConsoleOptions) -> RenderableType:
    """Suites that are judged alone have no rank: the judge's mean, where there is one, and LEK, against the base."""
    metrics = [(_JUDGE, "judge")] if any(one.points[0].overall(_JUDGE) for one in standings) else []
    metrics.append(("lek", "LEK"))
    columns = ["run", "iter", *(column for _, name in metrics for column in (name, f"{name} vs base"))]
    table = table_of(columns, options, right="iter", folded="run|judge vs base|LEK vs base")
    for standing in standings:
        point = standing.points[0]
        cells = [standing.curve.name, str(point.iteration)]
        for metric, _ in metrics:
            base = standing.curve.base
            against = None if base is None else point.mean_against(base, metric)
            cells += [marked(mean_interval_cell(point.overall(metric)), point), mean_difference(against)]
        add_row(table, cells, options)
    return table


def _iterations(tied: Sequence[Point]) -> str:
    shown = ", ".join(str(point.iteration) for point in tied[:_ITERATIONS])
    return shown if len(tied) <= _ITERATIONS else f"{tied[0].iteration} +{len(tied) - 1}"


def _luck(standing: Standing) -> str:
    return NONE if standing.curve.luck is None else f"{100 * standing.curve.luck:.0f}"


def _step(point: Point) -> str:
    found = point.vs_previous
    return NONE if found is None else f"{points(found.delta)} {_SIGNS.get(found.verdict, '')}".rstrip()
