"""Reads a file of responses line by line, and tells what is wrong with the lines that are none.

The fields are the original's: id, domain, prompt, response, model, elapsed_seconds, correct_answer, best_answer,
risk_area. Ours besides: `suite`, the suite that `id` is a probe of, and `error`, which ended the answer. Others are
passed over.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from ml_pipeline.errors import ResponseFileError
from ml_pipeline.files import bounded_lines
from ml_pipeline.responses.files import open_plain, shown_name
from ml_pipeline.scoring.checks import shortened
from ml_pipeline.scoring.heuristic import well_formed

UNKNOWN_MODEL = "unknown"
_MAX_NAME_CHARS = 300
_PROBLEMS_KEPT = 20


@dataclass(frozen=True, slots=True)
class Response:
    """One line of a file. `error` says why there is no whole answer; texts that the file lacks are empty."""

    line: int
    id: str
    model: str
    text: str
    error: str | None
    prompt: str
    suite: str
    domain: str
    elapsed_s: float | None
    correct_answer: str
    best_answer: str
    risk_area: str

    @property
    def chars(self) -> int:
        """Characters that it keeps in memory."""
        return sum(map(len, (self.text, self.prompt, self.correct_answer, self.best_answer, self.risk_area)))


class ResponseReader:
    """The responses of one file. After the last one, `sha256` is the hash of the whole file's content.

    `count` counts responses and `bad_lines` the lines that are none; `problems` says why, of the first twenty. Never
    more than one line is in memory.

    Raises ResponseFileError, also in between, when the file cannot be read.
    """

    def __init__(self, path: Path, line_bytes: int) -> None:
        self.path = path
        self.count = self.bad_lines = 0
        self.problems: list[str] = []
        self.sha256 = ""
        self._line_bytes = line_bytes

    def __iter__(self) -> Iterator[Response]:
        with open_plain(self.path) as file:
            for number, line in enumerate(self._lines(file), start=1):
                if line is not None and not line.strip():
                    continue
                try:
                    if line is None:
                        raise ValueError(
                            f"longer than {self._line_bytes} bytes; raise limits.response_line_bytes in pipeline.yaml"
                        )
                    response = _response(number, line)
                except (ValueError, RecursionError) as error:
                    self._tell(number, error)
                    continue
                self.count += 1
                yield response

    def _lines(self, file: BinaryIO) -> Iterator[bytes | None]:
        """Each line; None for one that is too long."""
        digest, first = hashlib.sha256(), True
        try:
            for line in bounded_lines(file, self._line_bytes, digest.update):
                yield line.removeprefix(b"\xef\xbb\xbf") if first and line else line
                first = False
        except OSError as error:
            raise ResponseFileError(f"{self.path} cannot be read: {error.strerror}. Check the disk.") from error
        self.sha256 = digest.hexdigest()

    def _tell(self, number: int, error: Exception) -> None:
        self.bad_lines += 1
        if len(self.problems) < _PROBLEMS_KEPT:
            why = "nested too deep" if isinstance(error, RecursionError) else str(error)
            self.problems.append(f"{shown_name(self.path)}:{number}: {why:.300}")


def _response(number: int, line: bytes) -> Response:
    """Read one line; raises ValueError with what is wrong."""
    try:
        fields = json.loads(line.decode("utf-8"), parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start + 1} of the line") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at character {error.pos + 1}") from error
    if not isinstance(fields, dict):
        raise ValueError(f"must be an object, not {_kind(fields)}")
    text, error_text = _text(fields, "response"), _text(fields, "error")
    if "response" not in fields and not error_text:
        raise ValueError("the field 'response' is missing")
    return Response(
        line=number,
        id=_name(fields, "id") or _missing("id"),
        model=_name(fields, "model") or UNKNOWN_MODEL,
        text=text,
        error=shortened(error_text) or ("there is no response" if fields.get("response") is None else None),
        prompt=_text(fields, "prompt"),
        suite=_name(fields, "suite"),
        domain=_name(fields, "domain"),
        elapsed_s=_seconds(fields),
        correct_answer=_text(fields, "correct_answer"),
        best_answer=_text(fields, "best_answer"),
        risk_area=_text(fields, "risk_area"),
    )


def _text(fields: dict[str, Any], name: str) -> str:
    value = fields.get(name)
    if value is None:
        return ""
    if name in ("id", "correct_answer") and isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise ValueError(f"the field {name!r} must be a text, not {_kind(value)}")
    return well_formed(value)


def _name(fields: dict[str, Any], name: str) -> str:
    value = _text(fields, name).strip()
    if len(value) > _MAX_NAME_CHARS or not value.isprintable():
        raise ValueError(
            f"the field {name!r} must be at most {_MAX_NAME_CHARS} printable characters, not {value!a:.40}"
        )
    return value


def _seconds(fields: dict[str, Any]) -> float | None:
    value = fields.get("elapsed_seconds")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"the field 'elapsed_seconds' must be a number, not {_kind(value)}")
    try:
        seconds = float(value)
    except OverflowError:
        seconds = math.inf
    if not math.isfinite(seconds):
        raise ValueError("the field 'elapsed_seconds' is too large")
    return seconds


def _missing(name: str) -> str:
    raise ValueError(f"the field {name!r} is missing or empty")


def _no_constant(name: str) -> Any:
    raise ValueError(f"not JSON: {name} is no number there")


def _kind(value: object) -> str:
    kinds = {bool: "true or false", str: "a text", list: "a list", dict: "an object", type(None): "null"}
    return kinds.get(type(value), "a number")
