"""The text of a chat answer out of every form in which servers send it."""

from __future__ import annotations

from typing import Any

import pytest

from ml_pipeline.backends.delta_text import DeltaText, message_text
from ml_pipeline.backends.http_answer import HttpError


def text(value: str) -> dict[str, Any]:
    return {"type": "text", "text": value}


@pytest.mark.parametrize(
    ("deltas", "whole", "content"),
    [
        ([{"role": "assistant", "content": ""}, {"content": "Oslo"}], "Oslo", "Oslo"),
        ([{"content": [text("Os"), text("lo")]}], "Oslo", "Oslo"),
        ([{"content": [{"text": "Oslo"}]}], "Oslo", "Oslo"),
        ([{"content": ["Os", "lo"]}], "Oslo", "Oslo"),
        ([{"content": text("Oslo")}], "Oslo", "Oslo"),
        ([{"content": [{"type": "output_text", "text": "Oslo"}]}], "Oslo", "Oslo"),
        ([{"content": []}], "", ""),
        # Mistral's thinking, whole and in a stream.
        (
            [{"content": [{"type": "thinking", "thinking": [text("Hm"), text("m")]}, text("Oslo")]}],
            "<think>Hmm</think>Oslo",
            "Oslo",
        ),
        (
            [
                {"content": [{"type": "thinking", "thinking": [text("H")]}]},
                {"content": [{"type": "thinking", "thinking": [text("m")]}]},
                {"content": "Oslo"},
            ],
            "<think>Hm</think>Oslo",
            "Oslo",
        ),
        ([{"reasoning_content": "Hm", "content": None}, {"content": '{"a": 1}'}], '<think>Hm</think>{"a": 1}',
         '{"a": 1}'),
        ([{"reasoning": "", "reasoning_content": "Hm", "content": "Oslo"}], "<think>Hm</think>Oslo", "Oslo"),
        ([{"reasoning": "Hm"}, {"content": "a"}, {"reasoning": "Well"}, {"content": "b"}],
         "<think>Hm</think>a<think>Well</think>b", "ab"),
        # A refusal is an answer, and no empty one.
        ([{"content": None, "refusal": "I cannot help."}], "I cannot help.", "I cannot help."),
        ([{"content": [{"type": "refusal", "refusal": "No."}]}], "No.", "No."),
        ([{"content": None, "tool_calls": [{"id": "1"}]}], '<tool_call>[{"id": "1"}]</tool_call>', ""),
        ([{"content": None}, "x", None, 3], "", ""),
    ],
)  # fmt: skip
def test_every_form_of_text_is_read(deltas: list[Any], whole: str, content: str) -> None:
    read = DeltaText()
    assert "".join(read.text_of(delta) for delta in deltas) == whole
    assert read.content == content


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ([text("See:"), {"type": "image_url", "image_url": {"url": "data:"}}], "a part of type image_url"),
        ([{"type": "text", "text": 7}], "a part of type text"),
        ([["Oslo"]], "list"),
        (7, "int"),
        ({"answer": "Oslo"}, "a part of type text"),
    ],
)
def test_what_is_no_text_is_an_error(content: Any, what: str) -> None:
    with pytest.raises(HttpError, match=f"the server's content holds {what}, which is no text"):
        DeltaText().text_of({"content": content})


def test_a_whole_message_says_its_content_without_thoughts() -> None:
    message = {"role": "assistant", "reasoning_content": "Hm", "content": [text("Oslo")]}
    assert message_text({"choices": [{"message": message}]}) == "Oslo"
    with pytest.raises(HttpError, match="holds no text"):
        message_text({"choices": []})
