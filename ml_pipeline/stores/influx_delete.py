"""Deleting points that were sent: InfluxDB 1's DELETE, the v2 API's delete, and VictoriaMetrics' of whole series."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

import httpx

from ml_pipeline.addresses import shown_url
from ml_pipeline.errors import StoreError
from ml_pipeline.http_bodies import Answer, ask
from ml_pipeline.json_streams import load_json
from ml_pipeline.settings import InfluxSettings
from ml_pipeline.stores.influx import v1_login, without
from ml_pipeline.stores.points import ScorePoint

_SPANS_A_REQUEST = 100
_SHOWN = 500
_LARGEST_ANSWER_BYTES = 1 << 20
_NS = 1_000_000_000
_SELECTING_TAGS = ("run_id", "label")


@dataclass(frozen=True, slots=True)
class Span:
    """Points to delete: those of a measurement that have these tags, from `first_ns` to `last_ns`, both included."""

    measurement: str
    tags: Mapping[str, str]
    first_ns: int
    last_ns: int


def spans_of(points: Iterable[ScorePoint]) -> list[Span]:
    """The spans that cover these points: one a measurement, run and label."""
    found: dict[tuple[str, tuple[tuple[str, str], ...]], list[int]] = {}
    for point in points:
        tags = tuple((name, point.tags[name]) for name in _SELECTING_TAGS if name in point.tags)
        found.setdefault((point.measurement, tags), []).append(point.time_ns)
    return [Span(name, dict(tags), min(times), max(times)) for (name, tags), times in found.items()]


class PointDeleter(Protocol):
    """Deletes points on a server."""

    how: str
    """What it asks the server for."""

    def delete(self, spans: Sequence[Span]) -> None:
        """Delete what lies in the spans; points that are not there are no error.

        Raises:
            StoreError: the server does not do it. Some of the spans may be deleted by then.
        """


class V1Deleter:
    """Deletes by InfluxQL."""

    def __init__(self, settings: InfluxSettings) -> None:
        self._server = _Server(settings)
        self._database = settings.bucket.partition("/")[0]
        self._login = v1_login(settings.token())
        self.how = f"DELETE in database {self._database} of {shown_url(self._server.root)} (all its retention policies)"

    def delete(self, spans: Sequence[Span]) -> None:
        """See PointDeleter."""
        for start in range(0, len(spans), _SPANS_A_REQUEST):
            query = ";".join(map(_influxql, spans[start : start + _SPANS_A_REQUEST]))
            answer = self._server.post("/query", params={"db": self._database}, data={"q": query}, auth=self._login)
            self._server.check(answer)
            # Faults of single statements come with status 200.
            if errors := self._server.statement_errors(answer):
                raise self._server.error("; ".join(dict.fromkeys(errors))[:_SHOWN])


class V2Deleter:
    """Deletes through `/api/v2/delete`, and on VictoriaMetrics, which has none, whole series.

    Whole series: that is all points of a checkpoint (of a training run's losses), whatever their time. Who deletes
    to write again loses nothing by it.
    """

    def __init__(self, settings: InfluxSettings) -> None:
        self._server = _Server(settings)
        self._where = {"bucket": settings.bucket, "org": settings.org}
        token = settings.token()
        self._headers = {"Authorization": f"Token {token}"} if token else {}
        self._victoria_metrics = False
        self.how = (
            f"/api/v2/delete of {shown_url(self._server.root)}, or /api/v1/admin/tsdb/delete_series if VictoriaMetrics"
        )

    def delete(self, spans: Sequence[Span]) -> None:
        """See PointDeleter."""
        for start in range(0, len(spans), _SPANS_A_REQUEST):
            part = spans[start : start + _SPANS_A_REQUEST]
            if not self._victoria_metrics:
                self._victoria_metrics = not self._delete_points(part)
            if self._victoria_metrics:
                self._delete_series(part)

    def _delete_points(self, spans: Sequence[Span]) -> bool:
        """Whether the server can delete points."""
        for span in spans:
            wanted = {
                "start": _rfc3339(span.first_ns),
                "stop": _rfc3339(span.last_ns + 1),
                "predicate": " AND ".join(
                    f"{name}={_quoted(value)}"
                    for name, value in {"_measurement": span.measurement, **span.tags}.items()
                ),
            }
            answer = self._server.post("/api/v2/delete", params=self._where, json=wanted, headers=self._headers)
            if answer.status == 400 and "unsupported path requested" in answer.text:
                return False
            self._server.check(answer)
        return True

    def _delete_series(self, spans: Sequence[Span]) -> None:
        series = [
            f"{{__name__=~{_quoted(span.measurement + '_.+')},"
            + ",".join(f"{name}={_quoted(value)}" for name, value in span.tags.items())
            + "}"
            for span in spans
        ]
        self._server.check(
            self._server.post("/api/v1/admin/tsdb/delete_series", data={"match[]": series}, headers=self._headers)
        )


def make_deleter(settings: InfluxSettings) -> PointDeleter | None:
    """The deleter for the server that pipeline.yaml names; None without a URL.

    Raises:
        StoreError: the server has no way to delete points, or the token cannot be used.
    """
    if settings.url is None:
        return None
    if settings.api == "v3":
        raise StoreError(
            "InfluxDB 3 cannot delete single points. Either let the old points stay beside the new ones (--keep-old), "
            f"or first drop the tables by hand, `influxdb3 delete table --database {settings.bucket} TABLE` for "
            "capability_score, probe_score, capability_judge, content_score and training_loss, and then use --keep-old."
        )
    return V1Deleter(settings) if settings.api == "v1" else V2Deleter(settings)


class _Server:
    """Posting to the server, with its errors."""

    def __init__(self, settings: InfluxSettings) -> None:
        self.root = (settings.url or "").rstrip("/")
        self._token, self._timeout_s = settings.token(), settings.timeout_s

    def post(self, path: str, **request: Any) -> Answer:
        # VictoriaMetrics has the v2 API behind a path and its own beside that.
        root = self.root.removesuffix("/influx") if path.startswith("/api/v1/") else self.root
        try:
            return ask("POST", f"{root}{path}", timeout_s=self._timeout_s, limit_bytes=_LARGEST_ANSWER_BYTES, **request)
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise self.error(f"{type(error).__name__}: {error}".rstrip(": ")) from error

    def check(self, answer: Answer) -> None:
        if not answer.is_success:
            raise self.error(f"it answered {answer.status}: {' '.join(answer.text.split())[:_SHOWN]}")

    def statement_errors(self, answer: Answer) -> list[str]:
        """What InfluxDB 1 says of single statements."""
        try:
            results = load_json(answer.body).get("results", [])
            return [str(result["error"]) for result in results if "error" in result]
        except (ValueError, TypeError, AttributeError) as error:
            raise self.error("its answer is not that of InfluxDB 1. Check `stores.influx.url` and `api`") from error

    def error(self, reason: str) -> StoreError:
        return StoreError(
            f"old points cannot be deleted on {shown_url(self.root)}: {without(self._token, reason)}. Mend that (the "
            "token must be allowed to delete) and run the same command again: it goes on from here."
        )


def _influxql(span: Span) -> str:
    tags = [f"{_quoted(name)} = '{_escaped(value, chr(39))}'" for name, value in span.tags.items()]
    limits = [f"time >= {span.first_ns}", f"time <= {span.last_ns}"]
    return f"DELETE FROM {_quoted(span.measurement)} WHERE {' AND '.join([*tags, *limits])}"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _escaped(text: str, quote: str) -> str:
    return text.replace("\\", "\\\\").replace(quote, f"\\{quote}").replace("\n", "\\n")


def _rfc3339(time_ns: int) -> str:
    seconds, rest = divmod(time_ns, _NS)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"
