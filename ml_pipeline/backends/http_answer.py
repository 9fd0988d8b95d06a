"""What a server answers, checked: JSON objects and streams of them (server-sent events), of bounded size."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ml_pipeline.json_streams import ByteLines, EndlessLineError, load_json

_LONGEST_LINE_BYTES = 4 << 20
_DONE = b"[DONE]"


class HttpError(Exception):
    """A request that got no whole answer. `again` when asking once more may help: the connection or server broke.

    `timed_out` when its time was over, so that the server may still be at work on it.
    """

    def __init__(self, message: str, *, again: bool, timed_out: bool = False) -> None:
        super().__init__(message)
        self.timed_out = timed_out
        self.again = again


class EventLines:
    """Cuts a stream of bytes into the JSON objects of its events; `done` once the server says that it is."""

    def __init__(self) -> None:
        self.done = False
        self._lines = ByteLines(_LONGEST_LINE_BYTES)

    def feed(self, piece: bytes) -> Iterator[dict[str, Any]]:
        """Yield the events that this piece completes; raises HttpError for what is no JSON object, or too large."""
        try:
            lines = self._lines.feed(piece)
        except EndlessLineError as error:
            raise HttpError("the server sends a line without end", again=False) from error
        for line in lines:
            field, _, value = line.partition(b":")
            if self.done or field != b"data":
                continue
            if value.strip() == _DONE:
                self.done = True
            else:
                yield json_object(value)


def json_object(raw: bytes) -> dict[str, Any]:
    """Parse one JSON object; raises HttpError for anything else."""
    try:
        value = load_json(raw)
    except ValueError as error:
        raise HttpError(
            "the server answered with something that is not JSON, or too much of it", again=False
        ) from error
    if not isinstance(value, dict):
        raise HttpError("the server answered with JSON that is not an object", again=False)
    return value


def error_text(answer: dict[str, Any]) -> str:
    """The reason in an answer's `error`: a text, or an object with a `message`; empty without one."""
    error = answer.get("error", "")
    return str(error.get("message", error) if isinstance(error, dict) else error)
