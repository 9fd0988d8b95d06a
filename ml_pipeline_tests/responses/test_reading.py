"""Lines of somebody else's files: read, or told by number."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from ml_pipeline.responses.reading import Response, ResponseReader

LIMIT = 2000


def read(path: Path, content: bytes) -> tuple[list[Response], ResponseReader]:
    path.write_bytes(content)
    reader = ResponseReader(path, LIMIT)
    responses = list(reader)
    assert reader.sha256 == hashlib.sha256(content).hexdigest()
    assert reader.count == len(responses)
    return responses, reader


def line(**fields: Any) -> bytes:
    return json.dumps({"id": "a", "response": "r"} | fields).encode()


def test_all_fields_are_read_and_others_passed_over(tmp_path: Path) -> None:
    fields = {"model": "m", "prompt": "p", "domain": "d", "suite": "s", "correct_answer": 42, "best_answer": "b"}
    content = b"\xef\xbb\xbf" + line(**fields, risk_area="x", elapsed_seconds=2, other=[1]) + b"\r\n\n" + line(id=7)
    (first, second), reader = read(tmp_path / "a.jsonl", content)
    assert first == Response(1, "a", "m", "r", None, "p", "s", "d", 2.0, "42", "b", "x")
    assert second == Response(3, "7", "unknown", "r", None, "", "", "", None, "", "", "")
    assert reader.bad_lines == 0


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (b"junk", "not JSON: Expecting value at character 1"),
        (b"[1]", "must be an object, not a list"),
        (b"\x00\x00", "not JSON"),
        (b'{"id": "\xff"}', "not UTF-8 at byte 9 of the line"),
        (b"[" * 1900, "nested too deep"),
        (b'{"id": NaN}', "NaN is no number"),
        (b'{"id": ' + b"9" * 1900 + b".5e1x}", "not JSON"),
        (b'{"response": "r"}', "the field 'id' is missing or empty"),
        (b'{"id": "a"}', "the field 'response' is missing"),
        (line(id="a\nb"), "the field 'id' must be at most 300 printable characters"),
        (line(model="m" * 301), "the field 'model' must be at most 300"),
        (line(response=["r"]), "the field 'response' must be a text, not a list"),
        (line(model=True), "the field 'model' must be a text, not true or false"),
        (line(elapsed_seconds="1"), "the field 'elapsed_seconds' must be a number, not a text"),
        (line(elapsed_seconds=10**400), "the field 'elapsed_seconds' is too large"),
        (line(response="r" * LIMIT), "longer than 2000 bytes; raise limits.response_line_bytes"),
        (b"x" * (3 * 2**20), "longer than 2000 bytes"),
    ],
)
def test_a_bad_line_is_told_and_the_others_are_read(tmp_path: Path, bad: bytes, why: str) -> None:
    responses, reader = read(tmp_path / "a.jsonl", b"\n".join([line(id="before"), bad, line(id="after")]))
    assert [(response.line, response.id) for response in responses] == [(1, "before"), (3, "after")]
    assert reader.bad_lines == 1
    (problem,) = reader.problems
    assert problem.startswith("a.jsonl:2: ")
    assert why in problem


def test_a_line_of_just_the_limit_is_read(tmp_path: Path) -> None:
    padding = LIMIT - len(line(response=""))
    (response,), _ = read(tmp_path / "a.jsonl", line(response="r" * padding) + b"\n")
    assert response.text == "r" * padding


def test_only_the_first_problems_are_kept_but_all_are_counted(tmp_path: Path) -> None:
    _, reader = read(tmp_path / "a.jsonl", b"junk\n" * 1000)
    assert (reader.bad_lines, len(reader.problems)) == (1000, 20)


@pytest.mark.parametrize(
    ("fields", "text", "error"),
    [
        ({"response": None}, "", "there is no response"),
        ({"response": ""}, "", None),
        ({"response": "half", "error": "time-out"}, "half", "time-out"),
        ({"response": "a\0b \ud83d\ude00 \ud800"}, "a\0b \N{GRINNING FACE} \N{REPLACEMENT CHARACTER}", None),
    ],
)
def test_what_an_answer_is(tmp_path: Path, fields: dict[str, Any], text: str, error: str | None) -> None:
    (response,), _ = read(tmp_path / "a.jsonl", line(**fields))
    assert (response.text, response.error) == (text, error)
