"""Reads a file of responses line by line, and tells what is wrong with the lines that are none.

The fields are the original's: id, domain, prompt, response, model, elapsed_seconds, correct_answer, best_answer,
risk_area. Ours besides: `suite`, the suite that `id` is a probe of, and `error`, which ended the answer. Others are
passed over.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml_pipeline.errors import ResponseFileError
from ml_pipeline.json_lines import JsonLines, json_kind
from ml_pipeline.scoring.checks import shortened
from ml_pipeline.scoring.heuristic import well_formed

UNKNOWN_MODEL = "unknown"
_MAX_NAME_CHARS = 300


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
        self.count = 0
        self._lines = JsonLines(path, line_bytes, ResponseFileError)

    def __iter__(self) -> Iterator[Response]:
        for number, fields in self._lines:
            try:
                response = _response(number, fields)
            except ValueError as error:
                self._lines.refuse(number, error)
                continue
            self.count += 1
            yield response

    @property
    def bad_lines(self) -> int:
        """Lines that are no response."""
        return self._lines.bad_lines

    @property
    def problems(self) -> list[str]:
        """Why, of the first twenty of them."""
        return self._lines.problems

    @property
    def sha256(self) -> str:
        """The hash of the file's content, once all of it was read."""
        return self._lines.sha256


def _response(number: int, fields: dict[str, Any]) -> Response:
    """Read one line; raises ValueError with what is wrong."""
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
        raise ValueError(f"the field {name!r} must be a text, not {json_kind(value)}")
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
        raise ValueError(f"the field 'elapsed_seconds' must be a number, not {json_kind(value)}")
    try:
        seconds = float(value)
    except OverflowError:
        seconds = math.inf
    if not math.isfinite(seconds):
        raise ValueError("the field 'elapsed_seconds' is too large")
    return seconds


def _missing(name: str) -> str:
    raise ValueError(f"the field {name!r} is missing or empty")
