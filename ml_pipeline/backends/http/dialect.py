"""How one model of a server wants its chat requests worded: learned from what it refuses, and kept for the process.

Newer models of OpenAI take `max_completion_tokens` and refuse `max_tokens`; models that reason take no temperature but
their own. Older servers know `max_tokens` alone. All of them say so with a status of 400 or 422 that names the field.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from ml_pipeline.backend_settings import HttpSettings

TokenLimit = Literal["max_tokens", "max_completion_tokens"]
_OTHER: dict[TokenLimit, TokenLimit] = {
    "max_tokens": "max_completion_tokens",
    "max_completion_tokens": "max_tokens",
}
_LOG_PROBABILITIES = frozenset({"logprobs", "top_logprobs"})
# A request without them is still the same question; what is lost is said.
_MAY_GO = ("top_p", "seed", "logprobs", "top_logprobs", "temperature")
_UNKNOWN = re.compile(
    r"unsupported|not\s+(?:be\s+)?(?:supported|allowed|permitted|accepted|recogni[sz]ed|available)|unrecogni[sz]ed|unknown"
    r"|unexpected|does\s?n[o']t\s+(?:support|accept|allow)|do\s+not\s+support|deprecated|extra",
    re.IGNORECASE,
)
# A value out of bounds is the request's own fault: without it, another would be taken in silence.
_OUT_OF_BOUNDS = re.compile(
    r"less than|greater than|at (?:most|least)|too (?:large|high|low|small)|between|range|<=|>=|maximum|minimum",
    re.IGNORECASE,
)
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Dialect:
    """The name of the limit on an answer's tokens, and the fields that are not sent."""

    token_limit: TokenLimit = "max_tokens"
    left_out: frozenset[str] = frozenset()

    def worded(self, body: dict[str, Any]) -> dict[str, Any]:
        """The body of a request that says `max_tokens`, in the server's words."""
        named = {self.token_limit if name == "max_tokens" else name: value for name, value in body.items()}
        return {name: value for name, value in named.items() if name not in self.left_out}

    def after(self, said: str, parameter: str | None, body: dict[str, Any]) -> Dialect | None:
        """How to word `body` after a refusal that says this, or None where no other wording is known to help.

        `parameter` is the field that the refusal names as the one at fault, if it does.
        """
        asked = self.worded(body)
        if self.token_limit in asked and _blames(self.token_limit, said, parameter):
            other = _OTHER[self.token_limit]
            if _named(other, said) or (_UNKNOWN.search(said) and not _OUT_OF_BOUNDS.search(said)):
                return replace(self, token_limit=other)
        if _OUT_OF_BOUNDS.search(said) and not _UNKNOWN.search(said):
            return None
        blamed = [name for name in _MAY_GO if name in asked and _blames(name, said, parameter)]
        # Of two that may not come together, the one that changes nothing goes.
        neutral = [name for name in blamed if name == "top_p" and asked[name] == 1.0]
        if not (gone := frozenset((neutral or blamed)[:1])):
            return None
        return replace(self, left_out=self.left_out | (_LOG_PROBABILITIES if gone & _LOG_PROBABILITIES else gone))

    @property
    def said(self) -> str:
        """What of every request is not as the suites and the judge settings say; empty where all is."""
        gone = sorted(self.left_out & {"temperature", "top_p", "seed"})
        return f"the server's own {' and '.join(gone)}" if gone else ""


class Dialects:
    """The dialects of one server's models. What is learned of a server holds for every backend of the process."""

    _learned: ClassVar[dict[tuple[str, str, Dialect], Dialect]] = {}

    def __init__(self, where: str, settings: HttpSettings) -> None:
        self._where = where
        self._learns_limit = settings.token_limit == "auto"
        self._learns_temperature = settings.fixed_temperature == "auto"
        self._first = Dialect(
            "max_tokens" if settings.token_limit == "auto" else settings.token_limit,
            frozenset({"temperature"}) if settings.fixed_temperature == "yes" else frozenset(),
        )

    def of(self, model: str) -> Dialect:
        """As far as is known."""
        return self._learned.get((self._where, model, self._first), self._first)

    def after(
        self, dialect: Dialect, said: str, parameter: str | None, body: dict[str, Any], tried: Iterable[Dialect]
    ) -> Dialect | None:
        """The next wording to try after a refusal; None where there is none, or the settings forbid it."""
        other = dialect.after(said, parameter, body)
        if other is None or other in tried:
            return None
        if other.token_limit != dialect.token_limit and not self._learns_limit:
            return None
        if "temperature" in other.left_out - dialect.left_out and not self._learns_temperature:
            return None
        return other

    def keep(self, model: str, dialect: Dialect) -> None:
        """Remember the wording that a server took."""
        known = self.of(model)
        if dialect == known:
            return
        self._learned[self._where, model, self._first] = dialect
        changes = [f"{known.token_limit} is sent as {dialect.token_limit}"] * (known.token_limit != dialect.token_limit)
        changes += [f"{name} is not sent" for name in sorted(dialect.left_out - known.left_out)]
        _log.warning("%s refuses what was asked of %s; from now on: %s", self._where, model, ", ".join(changes))


def _named(field: str, said: str) -> bool:
    return re.search(rf"(?<![A-Za-z_]){field}(?![A-Za-z_])", said) is not None


def _blames(field: str, said: str, parameter: str | None) -> bool:
    return parameter == field if parameter else _named(field, said)
