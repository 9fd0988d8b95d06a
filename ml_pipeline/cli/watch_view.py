"""How one look of `watch` is shown: a page on a terminal, lines of what changed, JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rich.console import ConsoleOptions, Group, RenderableType

from ml_pipeline.automation.activity import ActiveRun, Activity
from ml_pipeline.cli.view_parts import add_row, heading, table_of
from ml_pipeline.printable import printable
from ml_pipeline.reports.latest import LatestScore
from ml_pipeline.reports.terminal import interval_bar, terminal_text
from ml_pipeline.reports.wording import NONE, percent_interval, points

_NEXT = 3
_FAILURES = 4
_REASON = 150
_WIDE = 96


@dataclass(frozen=True)
class Moment:
    """What there was to see at one moment; `trouble` says why the scores could not be read."""

    at: datetime
    activity: Activity
    latest: tuple[LatestScore, ...]
    trouble: str

    @property
    def seen(self) -> tuple[object, ...]:
        """All but the time."""
        return self.activity, self.latest, self.trouble


def watch_view(moment: Moment, options: ConsoleOptions) -> RenderableType:
    """The page for a terminal."""
    title = f"{_clock(moment.at)}  {_summary(moment.activity)}"
    parts: list[RenderableType] = [terminal_text(title, options, "bold")]
    for run in moment.activity.active:
        parts += _run(run, moment.at, options)
    if moment.latest:
        parts.append(heading("Latest scores", options))
        parts.append(_scores(moment, options))
    if moment.trouble:
        parts.append(terminal_text(printable(moment.trouble), options, "yellow"))
    failures = moment.activity.failures
    if failures:
        parts.append(heading(f"Failed: {len(failures)}", options))
        for key, reason in list(failures.items())[:_FAILURES]:
            parts.append(terminal_text(f"{key}: {printable(reason, _REASON)}", options, "red"))
    return Group(*parts)


def watch_json(moment: Moment) -> dict[str, Any]:
    """The moment for programs."""
    return {
        "at": moment.at,
        "active": moment.activity.active,
        "queued_runs": moment.activity.queued_runs,
        "failures": moment.activity.failures,
        "latest": moment.latest,
        "trouble": moment.trouble or None,
    }


def changes(moment: Moment, before: Moment | None) -> Iterator[str]:
    """A line for everything that came since the moment before; of the first moment all that there is."""
    at, now = _clock(moment.at), moment.activity
    old = None if before is None else before.activity
    if old is None or bool(old.active) != bool(now.active) or old.queued_runs != now.queued_runs:
        yield f"{at} {_summary(now)}"
    known = set() if before is None else {score.key for score in before.latest}
    for score in reversed(moment.latest):
        if score.key not in known:
            delta = "" if score.delta_to_base is None else f", {points(score.delta_to_base)} against the base"
            told = f"{score.suite} {percent_interval(score.accuracy)} of {score.accuracy.count} answers{delta}"
            yield f"{_clock(score.scored_at)} scored {score.partition_key}: {told}"
    was = set() if old is None else {run.current for run in old.active}
    for run in now.active:
        if run.current is not None and run.current not in was:
            yield f"{at} scoring {run.current}, {_progress(run)}"
    for key, reason in now.failures.items():
        if old is None or key not in old.failures:
            yield f"{at} failed {key}: {printable(reason)}"
    if moment.trouble and (before is None or before.trouble != moment.trouble):
        yield f"{at} {printable(moment.trouble)}"


def _summary(activity: Activity) -> str:
    count = sum((run.current is not None) + len(run.waiting) for run in activity.active)
    told = f"{count} checkpoint{'' if count == 1 else 's'} left to score" if count else "nothing is being scored"
    if activity.active and not count:
        told = "a run is starting or ending"
    waits = activity.queued_runs
    return f"{told}, {waits} run{'' if waits == 1 else 's'} waiting" if waits else told


def _run(run: ActiveRun, now: datetime, options: ConsoleOptions) -> Iterator[RenderableType]:
    since = "" if run.started_at is None else f", for {_duration((now - run.started_at).total_seconds())}"
    yield heading(f"Run {run.run_id[:8]}, {_progress(run)}{since}", options)
    if run.current is not None:
        yield terminal_text(f"  {run.current}", options, "cyan")
    if run.said:
        yield terminal_text(f"  {printable(run.said, _REASON)}", options, "dim")
    if run.waiting:
        more = f" and {len(run.waiting) - _NEXT} more" if len(run.waiting) > _NEXT else ""
        yield terminal_text(f"  then {', '.join(run.waiting[:_NEXT])}{more}", options, "dim")


def _scores(moment: Moment, options: ConsoleOptions) -> RenderableType:
    wide = options.max_width >= _WIDE
    columns = ["at", "checkpoint", "suite", "accuracy", *([""] if wide else []), "vs base"]
    table = table_of(columns, options, right="vs base", folded="checkpoint|suite")
    for score in moment.latest:
        cells = [_clock(score.scored_at), score.partition_key, printable(score.suite, 40)]
        cells.append(percent_interval(score.accuracy))
        if wide:
            cells.append(interval_bar(score.accuracy, ascii_only=options.ascii_only))
        cells.append(NONE if score.delta_to_base is None else points(score.delta_to_base))
        add_row(table, cells, options)
    return table


def _progress(run: ActiveRun) -> str:
    total = len(run.done) + (run.current is not None) + len(run.waiting)
    return f"{len(run.done)} of {total} checkpoints done"


def _clock(moment: datetime) -> str:
    return f"{moment.astimezone():%H:%M:%S}"


def _duration(seconds: float) -> str:
    minutes, left = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {left} s" if minutes else f"{left} s"
