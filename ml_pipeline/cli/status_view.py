"""How the state of everything is shown on a terminal and in JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import ConsoleOptions, Group, RenderableType
from rich.padding import Padding

from ml_pipeline.addresses import shown_url
from ml_pipeline.automation.local_runs import State
from ml_pipeline.checkpoints.discovery import Discovery
from ml_pipeline.cli.view_parts import add_row, heading, table_of
from ml_pipeline.printable import printable, printable_lines
from ml_pipeline.reports.terminal import terminal_text
from ml_pipeline.settings import Settings
from ml_pipeline.source_settings import described
from ml_pipeline.stores.influx_batches import Pending

_NO_REASON = "see its run in the Dagster UI"
_SETTLED = (State.SCORED, State.IMPORTED)
_STYLES = {
    State.SCORED: "green",
    State.SCORING: "cyan",
    State.CHANGED: "yellow",
    State.INCOMPLETE: "yellow",
    State.FAILED: "red",
}
_MOST = 20


@dataclass(frozen=True)
class Status:
    """What one look found, where each checkpoint stands, why some failed, and what waits for Influx."""

    settings: Settings
    found: Discovery
    states: Mapping[str, State]
    reasons: Mapping[str, str]
    waiting: Pending
    rejected: Pending

    @property
    def counts(self) -> dict[str, int]:
        """How many checkpoints are in each state, all states named."""
        counted = Counter(self.states.values())
        return {str(state): counted[state] for state in State}


def status_view(now: Status, options: ConsoleOptions, *, every: bool) -> RenderableType:
    """The state for a terminal; with `every` scored checkpoints are listed too."""
    return Group(*_sources(now, options), *_checkpoints(now, options, every=every), *_influx(now, options))


def status_json(now: Status) -> dict[str, Any]:
    """The state for programs."""
    influx = now.settings.stores.influx
    return {
        "sources": [
            {
                "name": name,
                "place": described(source, now.settings.path),
                "reachable": name not in now.found.failed,
                "reason": now.found.failed.get(name),
                "checkpoints": _count(now, name),
            }
            for name, source in now.settings.sources.items()
        ],
        "counts": now.counts,
        "checkpoints": [
            {
                "key": checkpoint.key,
                "label": checkpoint.label,
                "base_model": checkpoint.base_model,
                "size_bytes": checkpoint.size_bytes,
                "state": now.states[checkpoint.key],
                "reason": _reason(now, checkpoint.key),
            }
            for checkpoint in now.found.checkpoints
        ],
        "growing": now.found.growing,
        "problems": now.found.problems,
        "influx": {
            "url": shown_url(influx.url) if influx.url else None,
            "waiting": now.waiting,
            "rejected": now.rejected,
        },
    }


def _sources(now: Status, options: ConsoleOptions) -> Iterator[RenderableType]:
    table = table_of(["source", "", "checkpoints", "where"], options, right="checkpoints", folded="source|where")
    for name, source in now.settings.sources.items():
        failed = name in now.found.failed
        sign = terminal_text("unreachable" if failed else "reachable", options, "red" if failed else "green")
        where = printable(described(source, now.settings.path), 200)
        add_row(table, [name, sign, str(_count(now, name)), where], options)
    yield table
    for problem in now.found.problems:
        yield Padding(terminal_text(printable_lines(problem), options, "yellow"), (0, 0, 0, 2))
    for path in now.found.growing:
        words = f"still being written, left for the next look: {printable(path)}"
        yield Padding(terminal_text(words, options), (0, 0, 0, 2))


def _checkpoints(now: Status, options: ConsoleOptions, *, every: bool) -> Iterator[RenderableType]:
    told = ", ".join(f"{count} {state}" for state, count in now.counts.items() if count)
    yield heading(f"{len(now.states)} checkpoints{f': {told}' if told else ''}", options)
    listed = [c for c in now.found.checkpoints if every or now.states[c.key] not in _SETTLED]
    failed = [checkpoint for checkpoint in listed if now.states[checkpoint.key] == State.FAILED]
    shown = listed if every else [c for c in listed if now.states[c.key] != State.FAILED][:_MOST] + failed
    if shown:
        table = table_of(["checkpoint", "label", "state"], options, folded="checkpoint|label")
        for checkpoint in shown:
            state = now.states[checkpoint.key]
            styled = terminal_text(state, options, _STYLES.get(state, ""))
            add_row(table, [checkpoint.key, printable(checkpoint.label, 80), styled], options)
        yield table
    if len(shown) < len(listed):
        yield terminal_text(f"{len(listed) - len(shown)} more; --all lists them", options, "dim")
    for checkpoint in failed:
        yield terminal_text(f"{checkpoint.key}:", options, "red")
        reason = printable_lines(_reason(now, checkpoint.key) or "")
        yield Padding(terminal_text(reason, options, "red"), (0, 0, 0, 2))


def _influx(now: Status, options: ConsoleOptions) -> Iterator[RenderableType]:
    waiting, rejected = now.waiting, now.rejected
    url = now.settings.stores.influx.url
    server = f"for {printable(shown_url(url), 100)}" if url else "no server is set"
    words = f"Influx buffer: {waiting.points} points wait in {waiting.batches} batches, {server}."
    yield terminal_text(f"\n{words}", options)
    if rejected.batches:
        folder = now.settings.influx_buffer_path / "rejected"
        words = f"{rejected.points} points were rejected by the server; why stands in {folder}."
        yield terminal_text(words, options, "yellow")


def _count(now: Status, source: str) -> int:
    return sum(checkpoint.source == source for checkpoint in now.found.checkpoints)


def _reason(now: Status, key: str) -> str | None:
    return now.reasons.get(key, _NO_REASON) if now.states[key] == State.FAILED else None
