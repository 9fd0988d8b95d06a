"""Senders of line protocol: InfluxDB's v2 API (also VictoriaMetrics and others) and InfluxDB 3's own."""

from __future__ import annotations

from collections.abc import Sequence

import httpx
import urllib3
from influxdb_client.client.influxdb_client import InfluxDBClient
from influxdb_client.client.write_api import SYNCHRONOUS
from influxdb_client.domain.write_precision import WritePrecision
from influxdb_client.rest import ApiException

from ml_pipeline.errors import StoreError
from ml_pipeline.settings import InfluxSettings
from ml_pipeline.stores.influx_buffer import Answer, LineSender

_LATER = frozenset({401, 403, 404, 407, 408, 425, 429})
_HINTS = {
    401: "check the token",
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
        self._token = _checked(token)

    def __repr__(self) -> str:
        return f"InfluxV2Sender(url={self.url!r}, bucket={self.bucket!r}, org={self.org!r})"

    def send(self, lines: Sequence[str]) -> Answer:
        """Send the lines in one request of at most `timeout_s`, and say what came of it."""
        timeout_ms = max(1, int(self.timeout_s * 1000))
        try:
            with (
                InfluxDBClient(self.url, token=self._token, org=self.org, timeout=timeout_ms) as client,
                client.write_api(write_options=SYNCHRONOUS) as api,
            ):
                api.write(self.bucket, self.org, "\n".join(lines).encode(), WritePrecision.NS)
        except ApiException as error:
            return _answer(self.url, error.status or 0, str(error.body or error.reason or ""), self._token)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            return _unreachable(self.url, error, self._token)
        return Answer("written")


class InfluxV3Sender:
    """Writes through `<url>/api/v3/write_lp` to a database of InfluxDB 3."""

    def __init__(self, url: str, database: str, token: str = "", timeout_s: float = 10) -> None:
        self.url, self.database, self.timeout_s = url, database, timeout_s
        self._token = _checked(token)

    def __repr__(self) -> str:
        return f"InfluxV3Sender(url={self.url!r}, database={self.database!r})"

    def send(self, lines: Sequence[str]) -> Answer:
        """Send the lines in one request, no step of it longer than `timeout_s`, and say what came of it."""
        headers = {"Content-Type": "text/plain; charset=utf-8"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        try:
            response = httpx.post(
                f"{self.url.rstrip('/')}/api/v3/write_lp",
                params={"db": self.database, "precision": "nanosecond"},
                content="\n".join(lines).encode(),
                headers=headers,
                timeout=self.timeout_s,
            )
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            return _unreachable(self.url, error, self._token)
        if response.is_success:
            return Answer("written")
        return _answer(self.url, response.status_code, response.text, self._token)


def make_sender(settings: InfluxSettings) -> LineSender | None:
    """The sender that pipeline.yaml asks for; None without a URL, and then points wait in the buffer.

    Raises:
        StoreError: the token holds characters that no header can carry.
    """
    if settings.url is None:
        return None
    if settings.api == "v3":
        return InfluxV3Sender(settings.url, settings.bucket, settings.token(), settings.timeout_s)
    return InfluxV2Sender(settings.url, settings.bucket, settings.token(), settings.org, settings.timeout_s)


def _checked(token: str) -> str:
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
    reason = _without(token, f"{url} answered {status}{hint}: {' '.join(body.split())[:_SHOWN]}")
    rejected = 400 <= status < 500 and status not in _LATER
    return Answer("rejected" if rejected else "unavailable", reason)


def _unreachable(url: str, error: Exception, token: str) -> Answer:
    return Answer("unavailable", _without(token, f"{url} is not reachable: {type(error).__name__}: {error}"[:_SHOWN]))


def _without(token: str, text: str) -> str:
    return text.replace(token, "***") if token else text
