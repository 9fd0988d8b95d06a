"""Training data becomes Parquet with the columns people ask for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from ml_pipeline.errors import ImportFileError
from ml_pipeline.history.training_data import import_training_data
from ml_pipeline_tests.history.original import lines


def test_conversations_become_rows(tmp_path: Path) -> None:
    system = {"role": "system", "content": "Be brief."}
    said = [{"role": "user", "content": "Höflich?"}, {"role": "assistant", "content": "Ja."}]
    more = [{"role": "user", "content": "Sure?"}, {"role": "assistant", "content": "Yes."}]
    bad = [
        "{",
        {"messages": []},
        {"messages": [{"role": "user"}]},
        {"messages": [{"role": "user", "content": "\ud800"}]},
    ]
    path = lines(tmp_path / "train.jsonl", [{"messages": [system, *said, *more]}, *bad, {"messages": said[:1]}])
    made = import_training_data(path, tmp_path / "out", 10_000)
    assert (made.rows, made.bad_lines) == (2, 4)
    assert made.problems[3] == "train.jsonl:5: message 1 holds half a character, which no text may"
    assert made.path == tmp_path / "out" / "train.parquet"
    rows = pq.read_table(made.path).to_pylist()
    assert [(row["prompt"], row["response"], row["system"]) for row in rows] == [
        ("Höflich?", "Yes.", "Be brief."),
        ("Höflich?", None, None),
    ]
    assert json.loads(rows[0]["messages"]) == [system, *said, *more]
    assert import_training_data(path, tmp_path / "out", 10_000).rows == 2


CALL = [{"id": "c1", "type": "function", "function": {"name": "tide", "arguments": '{"port": "Brest"}'}}]
TOOLS = [{"type": "function", "function": {"name": "tide", "parameters": {"type": "object"}}}]


def test_calls_of_tools_and_content_in_parts_are_kept(tmp_path: Path) -> None:
    ask: dict[str, Any] = {"role": "user", "content": "High water in Brest?"}
    only_a_call = [ask, {"role": "assistant", "tool_calls": CALL}]
    with_null: list[dict[str, Any]] = [
        {"role": "developer", "content": "Use metres."},
        ask,
        {"role": "assistant", "content": None, "tool_calls": CALL},
        {"role": "tool", "tool_call_id": "c1", "content": "6.9"},
        {"role": "assistant", "content": "6.9 m."},
    ]
    said_and_called = [ask, {"role": "assistant", "content": "I look.", "tool_calls": CALL}]
    image = {"type": "image_url", "image_url": {"url": "file:chart.png"}}
    in_parts = [
        {"role": "user", "content": [{"type": "text", "text": "Read "}, image, {"type": "text", "text": "this."}]},
        {"role": "assistant", "content": ["Low ", {"type": "text", "text": "tide."}]},
    ]
    path = lines(
        tmp_path / "train.jsonl",
        [
            {"messages": only_a_call, "tools": TOOLS},
            {"messages": with_null},
            {"messages": said_and_called},
            {"messages": in_parts},
            {"prompt": "Ebb?", "completion": "Yes."},
        ],
    )
    made = import_training_data(path, tmp_path / "out", 10_000)
    assert (made.rows, made.problems) == (5, [])
    rows = pq.read_table(made.path).to_pylist()
    called = f"<tool_call>{json.dumps(CALL)}</tool_call>"
    assert [(row["prompt"], row["response"], row["system"]) for row in rows] == [
        ("High water in Brest?", called, None),
        ("High water in Brest?", "6.9 m.", "Use metres."),
        ("High water in Brest?", f"I look.{called}", None),
        ("Read this.", "Low tide.", None),
        ("Ebb?", "Yes.", None),
    ]
    assert [json.loads(row["messages"]) for row in rows[:4:3]] == [only_a_call, in_parts]
    without_null = [{name: value for name, value in message.items() if value is not None} for message in with_null]
    assert json.loads(rows[1]["messages"]) == without_null
    assert [row["tools"] and json.loads(row["tools"]) for row in rows] == [TOOLS, None, None, None, None]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ({"messages": [{"role": "assistant", "content": None}]}, "message 1 must have the texts"),
        ({"messages": [{"role": "assistant", "tool_calls": []}]}, "message 1 must have the texts"),
        ({"messages": [{"role": "user", "content": 7}]}, "message 1 has a `content` that is a number"),
        ({"messages": [{"role": "user", "content": [7]}]}, "a part of `content` that is no text"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": 7}]}]}, "a part of `content`"),
        ({"messages": [{"role": "a", "tool_calls": ["\ud800"]}]}, "message 1 holds half a character"),
        ({"messages": [{"role": "a", "content": "x"}], "tools": ["\ud800"]}, "`tools` holds half a character"),
        ({"conversations": [{"from": "human", "value": "x"}]}, "`conversations` is ShareGPT's: write `from` as `role`"),
        ({"instruction": "x", "output": "y"}, "`instruction` is Alpaca's"),
        ({"text": "x"}, "`text` is a text without turns"),
    ],
)
def test_what_is_no_conversation_says_why(tmp_path: Path, line: dict[str, object], why: str) -> None:
    path = lines(tmp_path / "train.jsonl", [line])
    with pytest.raises(ImportFileError) as caught:
        import_training_data(path, tmp_path, 10_000)
    assert "train.jsonl:1: " in str(caught.value)
    assert why in str(caught.value)


def test_a_file_without_any_leaves_what_was_there(tmp_path: Path) -> None:
    path = lines(tmp_path / "train.jsonl", [{"messages": [{"role": "user", "content": "a"}]}])
    target = import_training_data(path, tmp_path, 10_000).path
    before = target.read_bytes()
    lines(path, [{"prompt": "a"}])
    with pytest.raises(ImportFileError, match="must have `messages`"):
        import_training_data(path, tmp_path, 10_000)
    assert target.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []
