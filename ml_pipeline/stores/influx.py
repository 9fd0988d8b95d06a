"""Senders of line protocol: InfluxDB 1's API, the v2 API (also VictoriaMetrics and others) and InfluxDB 3's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import httpx

from ml_pipeline.addresses import shown_text, shown_url
from ml_pipeline.errors import StoreError
from ml_pipeline.http_bodies import ask
from ml_pipeline.printable import without_controls
from ml_pipeline.settings import InfluxSettings
from ml_pipeline.stores.influx_sending import Answer, LineSender

_LATER = frozenset({401, 403, 404, 407, 408, 425, 429})
_HINTS = {
    401: "check the token; with `api: v1` it is `user:password`",
    403: "the token may not write here",
    404: "check the URL, and that the bucket or database exists",
    407: "the proxy wants a login",
    429: "the server is limiting writes",
}
_SHOWN = 500


class InfluxV2Sender:
    """Writes through `<url>/api/v2/write` to a bucket of an organisation.

    A server behind a path, as VictoriaMetrics has it, is given with the path: `http://host:8428/influx`.
    """

    def __init__(self, url: str, bucket: str, token: str = "", org: str = "", timeout_s: float = 10) -> None:
        self.url, self.bucket, self.org, self.timeout_s = url, bucket, org, timeout_s
        self._token = checked_token(token)

    def __repr__(self) -> str:
        return f"InfluxV2Sender(url={shown_url(self.url)!r}, bucket={self.bucket!r}, org={self.org!r})"

    def send(self, lines: Sequence[str]) -> Answer:
        """Send the lines in one request of at most `timeout_s`, and say what came of it."""
        params = {"org": self.org, "bucket": self.bucket, "precision": "ns"}
        headers = {"Authorization": f"Token {self._token}"} if self._token else {}
        return _posted(self.url, "/api/v2/write", params, lines, self.timeout_s, self._token, headers)


class InfluxV1Sender:
    """Writes through `<url>/write` to a database of InfluxDB 1, given as `database` or `database/retention-policy`."""

    def __init__(self, url: str, database: str, token: str = "", timeout_s: float = 10) -> None:
        self.url, self.database, self.timeout_s = url, database, timeout_s
        self._token = checked_token(token)
        self._login = v1_login(self._token)

    def __repr__(self) -> str:
        return f"InfluxV1Sender(url={shown_url(self.url)!r}, database={self.database!r})"

    def send(self, lines: Sequence[str]) -> Answer:
        """Send the lines in one request of at most `timeout_s`, and say what came of it."""
        database, _, policy = self.database.partition("/")
        params = {"db": database, "precision": "ns"} | ({"rp": policy} if policy else {})
        return _posted(self.url, "/write", params, lines, self.timeout_s, self._token, auth=self._login)


class InfluxV3Sender:
    """Writes through `<url>/api/v3/write_lp` to a database of InfluxDB 3."""

    def __init__(self, url: str, database: str, token: str = "", timeout_s: float = 10) -> None:
        self.url, self.database, self.timeout_s = url, database, timeout_s
        self._token = checked_token(token)

    def __repr__(self) -> str:
        return f"InfluxV3Sender(url={shown_url(self.url)!r}, database={self.database!r})"

    def send(self, lines: Sequence[str]) -> Answer:
        """Send the lines in one request of at most `timeout_s`, and say what came of it."""
        params = {"db": self.database, "precision": "nanosecond"}
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        return _posted(self.url, "/api/v3/write_lp", params, lines, self.timeout_s, self._token, headers)


def make_sender(settings: InfluxSettings) -> LineSender | None:
    """The sender that pipeline.yaml asks for; None without a URL, and then points wait in the buffer.

    Raises:
        StoreError: the token holds characters that no header can carry, or with `api: v1` is not `user:password`.
    """
    if settings.url is None:
        return None
    if settings.api == "v1":
        return InfluxV1Sender(settings.url, settings.bucket, settings.token(), settings.timeout_s)
    if settings.api == "v3":
        return InfluxV3Sender(settings.url, settings.bucket, settings.token(), settings.timeout_s)
    return InfluxV2Sender(settings.url, settings.bucket, settings.token(), settings.org, settings.timeout_s)


def v1_login(token: str) -> httpx.BasicAuth | None:
    """The login that a token of the form `user:password` gives to InfluxDB 1; None for no token.

    Raises:
        StoreError: the token has another form.
    """
    user, colon, password = token.partition(":")
    if token and not (user and colon):
        raise StoreError(
            "InfluxDB 1 knows no tokens but users: with `stores.influx.api: v1` the token's environment variable or "
            "file must hold `user:password`, or nothing for a server without logins."
        )
    return httpx.BasicAuth(user, password) if token else None


def _posted(
    url: str,
    path: str,
    params: Mapping[str, str],
    lines: Sequence[str],
    timeout_s: float,
    token: str,
    headers: Mapping[str, str] = MappingProxyType({}),
    auth: httpx.BasicAuth | None = None,
) -> Answer:
    try:
        answer = ask(
            "POST",
            f"{url.rstrip('/')}{path}",
            timeout_s=timeout_s,
            limit_bytes=0,
            params=params,
            content="\n".join(lines).encode(),
            headers={"Content-Type": "text/plain; charset=utf-8", **headers},
            auth=auth,
        )
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        return _unreachable(url, error, token)
    if answer.is_success:
        return Answer("written")
    return _answer(url, answer.status, answer.text, token)


def checked_token(token: str) -> str:
    """Refuse a token that an HTTP library would refuse with a message that quotes it."""
    token = token.strip()
    if not token.isascii() or not token.isprintable():
        raise StoreError(
            "the Influx token holds a line break or another character that no header can carry. "
            "Check the token's environment variable or file: it must be the token alone."
        )
    return token


def _answer(url: str, status: int, body: str, token: str) -> Answer:
    """What a response without success means: a 4xx is about the lines, except where it is about us or the moment."""
    hint = f" ({_HINTS[status]})" if status in _HINTS else ""
    reason = without(token, f"{url} answered {status}{hint}: {' '.join(body.split())[:_SHOWN]}")
    rejected = 400 <= status < 500 and status not in _LATER
    return Answer("rejected" if rejected else "unavailable", reason)


def _unreachable(url: str, error: Exception, token: str) -> Answer:
    reason = f"{type(error).__name__}: {error}".rstrip(": ")
    return Answer("unavailable", without(token, f"{url} is not reachable: {reason}"[:_SHOWN]))


def without(token: str, text: str) -> str:
    """The text without the token, without the password of a `user:password`, without logins in addresses, and without
    what moves a cursor."""
    for secret in (token, token.partition(":")[2]):
        text = text.replace(secret, "***") if secret else text
    return without_controls(shown_text(text))
