"""What is posted: a text that chat services show, and the same as fields for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

from ml_pipeline.alerts.outbox import FailedCheck
from ml_pipeline.monitoring_settings import LinksSettings

_MOST_LINES = 10
_MOST_CHARACTERS = 1900
"""Discord refuses 2,000; nobody reads more."""


def message(failed: Sequence[FailedCheck], links: LinksSettings, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON of one alert: `text` (Slack), the same as `content` (Discord) and `message` (ntfy), `title`, and every
    failed check with all its fields. `fields` are added, and win."""
    count = "1 check failed" if len(failed) == 1 else f"{len(failed)} checks failed"
    lines = [f"{one.severity.upper()} {_place(one)}: {one.description}" for one in failed[:_MOST_LINES]]
    if len(failed) > _MOST_LINES:
        lines.append(f"and {len(failed) - _MOST_LINES} more")
    lines += [f"{name}: {url}" for name, url in (("Report", links.report), ("Dagster", links.dagster)) if url]
    text = _cut("\n".join([f"ml_pipeline: {count}", *lines]))
    return {
        "title": f"ml_pipeline: {count}",
        "text": text,
        "content": text,
        "message": text,
        "allowed_mentions": {"parse": []},  # Discord: a run called @everyone calls nobody
        "report": links.report,
        "failed_checks": [{**one.model_dump(), "url": _url(one, links)} for one in failed],
        **fields,
    }


def _place(one: FailedCheck) -> str:
    return f"{one.partition or one.asset} {one.check}"


def _url(one: FailedCheck, links: LinksSettings) -> str | None:
    if links.dagster is None:
        return None
    query = urlencode({"view": "checks", "checkDetail": one.check})
    return f"{links.dagster.rstrip('/')}/assets/{quote(one.asset)}?{query}"


def _cut(text: str) -> str:
    return text if len(text) <= _MOST_CHARACTERS else f"{text[: _MOST_CHARACTERS - 3]}..."
