"""What is posted: a text that chat services show, and the same as fields for programs."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

from ml_pipeline.alerts.outbox import FailedCheck
from ml_pipeline.markdown import GAP, without_links
from ml_pipeline.monitoring_settings import LinksSettings
from ml_pipeline.printable import printable_line

_MOST_LINES = 10
_MOST_CHARACTERS = 1900
"""Discord refuses 2,000; nobody reads more."""
_CALL = re.compile(r"(?<!\w)@(?=\w)")
_DISCORD_SIGNS = re.compile(r"[\\`*~|\[\]<>#]")


def message(failed: Sequence[FailedCheck], links: LinksSettings, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON of one alert: `text` (Slack), the same as `content` (Discord) and `message` (ntfy), `title`, and every
    failed check with all its fields. `fields` are added, and win.

    A description may hold words of a host, a server or a model. Each of the three texts shows them as the text that
    they are, by the rules of who reads it: nobody is called, and no link is made. Programs get them as they are.
    """
    count = "1 check failed" if len(failed) == 1 else f"{len(failed)} checks failed"

    def words(shown: Callable[[str], str]) -> str:
        lines = [
            f"{one.severity.upper()} {shown(_place(one))}: {shown(one.description)}" for one in failed[:_MOST_LINES]
        ]
        if len(failed) > _MOST_LINES:
            lines.append(f"and {len(failed) - _MOST_LINES} more")
        lines += [f"{name}: {url}" for name, url in (("Report", links.report), ("Dagster", links.dagster)) if url]
        return _cut("\n".join([f"ml_pipeline: {count}", *lines]))

    return {
        "title": f"ml_pipeline: {count}",
        "text": words(_for_slack),
        "content": words(_for_discord),
        "message": words(_plain),
        "allowed_mentions": {"parse": []},  # Discord: a run called @everyone calls nobody
        "report": links.report,
        "failed_checks": [{**one.model_dump(), "url": _url(one, links)} for one in failed],
        **fields,
    }


def _for_slack(text: str) -> str:
    """Slack's three characters (https://docs.slack.dev/messaging/formatting-message-text), and what Mattermost,
    Rocket.Chat and Teams, which take the same field, would make of it: links in Markdown, and calls of people."""
    text = _CALL.sub(f"@{GAP}", _plain(text).replace("](", f"]{GAP}("))
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _for_discord(text: str) -> str:
    """Discord has Markdown, links with other words among it; `allowed_mentions` keeps it from calling anybody."""
    return _DISCORD_SIGNS.sub(r"\\\g<0>", _plain(text))


def _plain(text: str) -> str:
    """One line in which no address is made a link: a line of its own would look like one of ours."""
    return without_links(printable_line(text, _MOST_CHARACTERS))


def _place(one: FailedCheck) -> str:
    return f"{one.partition or one.asset} {one.check}"


def _url(one: FailedCheck, links: LinksSettings) -> str | None:
    if links.dagster is None:
        return None
    query = urlencode({"view": "checks", "checkDetail": one.check})
    return f"{links.dagster.rstrip('/')}/assets/{quote(one.asset)}?{query}"


def _cut(text: str) -> str:
    return text if len(text) <= _MOST_CHARACTERS else f"{text[: _MOST_CHARACTERS - 3]}..."
