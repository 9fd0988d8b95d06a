"""The parts of the llama.cpp backend that need no model."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from ml_pipeline.backends.answer_text import AnswerText
from ml_pipeline.backends.json_grammar import schema_to_grammar
from ml_pipeline.backends.seeds import request_seed
from ml_pipeline.backends.token_prefixes import shared_prefix
from ml_pipeline.errors import BackendError


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [([], [1], 0), ([1, 2, 3], [1, 2, 3], 3), ([1, 2, 3], [1, 2], 2), ([1, 2, 3], [1, 9, 3], 1), ([5], [6], 0)],
)
def test_shared_prefix(first: list[int], second: list[int], expected: int) -> None:
    assert shared_prefix(np.array(first, dtype=np.int32), np.array(second, dtype=np.int32)) == expected


def test_characters_wait_for_all_their_bytes() -> None:
    answer = AnswerText(())
    whole = "naïve 🙂!".encode()
    for byte in whole:
        answer.add(bytes([byte]))
    assert answer.text == "naïve 🙂!"


def test_an_unfinished_character_is_left_out_and_a_wrong_byte_marked() -> None:
    answer = AnswerText(())
    answer.add(b"a\xff")
    answer.add("🙂".encode()[:2])
    assert answer.text == "a\ufffd"


@pytest.mark.parametrize(
    ("pieces", "stop", "text", "taken"),
    [
        (["one ", "EN", "D two"], ("END",), "one ", ["one ", "", "", ""]),
        (["one ", "EN", "SURE"], ("END",), "one ENSURE", ["one ", "", "ENSUR", "E"]),
        (["a", "b", "c"], ("abc", "b"), "a", ["", "a", ""]),
        (["aaab"], ("aab",), "a", ["a", ""]),
        (["xyz"], ("", "q"), "xyz", ["xyz", ""]),
    ],
)
def test_stop_strings(pieces: list[str], stop: tuple[str, ...], text: str, taken: list[str]) -> None:
    answer = AnswerText(stop)
    got = []
    for piece in pieces:
        stopped = answer.add(piece.encode())
        got.append(answer.take(ended=stopped))
        if stopped:
            break
    got.append(answer.take(ended=True))
    assert answer.text == text == "".join(got)
    assert got == taken


def test_request_seeds_are_stable_and_differ() -> None:
    assert request_seed(7, "a") == int.from_bytes(hashlib.sha256(b"7\x00a").digest()[:4], "little")
    assert len({request_seed(seed, name) for seed in range(20) for name in "abc"}) == 60


def test_a_grammar_forbids_control_characters_in_strings() -> None:
    grammar = schema_to_grammar({"type": "object", "properties": {"x": {"type": "string"}}, "required": ["x"]})
    assert re.search(r"^char ::= \[\^.*\\x00-\\x1F\]", grammar, re.MULTILINE)


@pytest.mark.parametrize(
    ("part", "rule"),
    [
        ({"type": "integer", "minimum": 1, "maximum": 3}, '("1" | "2" | "3") space'),
        (
            {"type": "number", "minimum": 0, "maximum": 2},
            '(("0" | "1") ("." [0-9]{1,2})? | "2" ("." "0"{1,2})?) space',
        ),
        ({"type": "number", "minimum": 4, "maximum": 4}, '("4" ("." "0"{1,2})?) space'),
    ],
)
def test_bounds_become_alternatives(part: dict[str, Any], rule: str) -> None:
    grammar = schema_to_grammar({"type": "object", "properties": {"x": part}, "required": ["x"]})
    assert f"x ::= {rule}" in grammar.splitlines()


def test_all_that_cannot_be_enforced_is_named() -> None:
    schema = {
        "type": "object",
        "minProperties": 1,
        "properties": {
            "a": {"type": "number", "minimum": 0.5, "maximum": 2},
            "b": {"type": "array", "items": {"type": "integer", "multipleOf": 2}},
            "not": {"type": "string"},
        },
    }
    with pytest.raises(BackendError) as caught:
        schema_to_grammar(schema)
    message = str(caught.value)
    assert "3 problems" in message
    for place in ("$: minProperties", "$.a: minimum and maximum", "$.b.items: multipleOf"):
        assert place in message


def test_an_unknown_type_is_an_error_of_the_schema() -> None:
    with pytest.raises(BackendError, match="cannot be turned into a grammar"):
        schema_to_grammar({"type": "colour"})


def test_a_process_gives_way_once_and_so_does_what_it_starts() -> None:
    code = (
        "import os, subprocess, sys\n"
        "from ml_pipeline.backends.cpu_threads import give_way\n"
        "give_way(); give_way()\n"
        "print(os.getpriority(os.PRIO_PROCESS, 0), flush=True)\n"
        "subprocess.run([sys.executable, '-c', 'import os; print(os.getpriority(os.PRIO_PROCESS, 0))'])\n"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert said == ["10", "10"] if os.getpriority(os.PRIO_PROCESS, 0) < 10 else said[0] == said[1]
