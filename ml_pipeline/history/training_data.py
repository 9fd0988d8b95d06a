"""Training data, as the original and mlx-lm keep it, as Parquet files for notebooks.

JSON lines with `messages`, which may call tools and have content in parts, or with `prompt` and `completion`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from ml_pipeline.errors import ImportFileError
from ml_pipeline.files import replacing
from ml_pipeline.history.fields import Fields
from ml_pipeline.json_lines import JsonLines, json_kind, shown_name
from ml_pipeline.stores.parquet_file import write_batches

SCHEMA = pa.schema(
    [
        pa.field("prompt", pa.string(), metadata={"description": "The first message of the user."}),
        pa.field(
            "response",
            pa.string(),
            metadata={"description": "The last message of the assistant; a call of tools as <tool_call>."},
        ),
        pa.field("system", pa.string(), metadata={"description": "The system's message; empty without one."}),
        pa.field("messages", pa.string(), metadata={"description": "The whole conversation, as JSON."}),
        pa.field("tools", pa.string(), metadata={"description": "The tools that it may call, as JSON; empty without."}),
    ]
)
_ROWS_AT_ONCE = 2000
_CALLS = ("tool_calls", "function_call")
_KEPT = (*_CALLS, "tool_call_id", "name", "reasoning_content")
_OTHER_FORMATS = {
    "conversations": "ShareGPT's: write `from` as `role` and `value` as `content`",
    "instruction": "Alpaca's: write it as the user's message and `output` as the assistant's",
    "text": "a text without turns, of which no prompt is known",
}


@dataclass(frozen=True, slots=True)
class TrainingData:
    """What was made of one file: the Parquet file, its rows, and the lines that are no conversation."""

    path: Path
    rows: int
    bad_lines: int
    problems: list[str]


def import_training_data(path: Path, folder: Path, line_bytes: int) -> TrainingData:
    """Make `<folder>/<name>.parquet` of a file of conversations, anew each time: the same file gives the same rows.

    The columns are those of SCHEMA; where a conversation has no message of the user or none of the assistant, prompt
    or response is empty.

    Raises:
        ImportFileError: the file cannot be read, or holds no conversation. What was there before stays.
        StoreError, StoreFullError: the Parquet file cannot be written.
    """
    lines = JsonLines(path.resolve(), line_bytes, ImportFileError)
    target = folder / f"{path.name.removesuffix('.jsonl')}.parquet"
    rows = _rows(lines)
    with replacing(target) as temporary, temporary.open("wb") as sink:
        pieces = iter(lambda: list(islice(rows, _ROWS_AT_ONCE)), [])
        batches = (pa.Table.from_pylist(piece, schema=SCHEMA) for piece in pieces)
        count = write_batches(sink, SCHEMA, batches, {"table": "training_data", "file": shown_name(path)})
        if not count:
            raise ImportFileError.from_problems(
                str(path), lines.problems or ["it is empty"], "Each line must be an object with `messages`."
            )
    return TrainingData(target, count, lines.bad_lines, lines.problems)


def _rows(lines: JsonLines) -> Iterator[dict[str, str | None]]:
    for number, fields in lines:
        try:
            row = _row(fields)
        except ValueError as error:
            lines.refuse(number, error)
            continue
        yield row


def _row(fields: Fields) -> dict[str, str | None]:
    messages = fields.get("messages")
    if messages is None and "prompt" in fields and "completion" in fields:
        messages = [
            {"role": role, "content": fields[name]} for role, name in (("user", "prompt"), ("assistant", "completion"))
        ]
    if not isinstance(messages, list) or not messages:
        other = next((f"; `{name}` is {what}" for name, what in _OTHER_FORMATS.items() if name in fields), "")
        raise ValueError(f"must have `messages`, a list that is not empty{other}")
    said = [_message(message, at) for at, message in enumerate(messages, start=1)]

    def said_by(role: str) -> list[str | None]:
        return [text for message, text in said if message["role"] == role] or [None]

    return {
        "prompt": said_by("user")[0],
        "response": said_by("assistant")[-1],
        "system": said_by("system")[0] or said_by("developer")[0],
        "messages": _as_json([message for message, _ in said], "the conversation"),
        "tools": _as_json(fields["tools"], "`tools`") if fields.get("tools") else None,
    }


def _message(message: Any, at: int) -> tuple[dict[str, Any], str]:
    """A message as it is to be kept, and its text."""
    if not isinstance(message, dict):
        raise ValueError(f"message {at} must be an object, not {json_kind(message)}")
    role, content = message.get("role"), message.get("content")
    calls = next((message[name] for name in _CALLS if message.get(name)), None)
    if not isinstance(role, str) or (content is None and not calls):
        raise ValueError(f"message {at} must have the texts `role` and `content`")
    text = _text(content, at)
    if calls:
        text += f"<tool_call>{json.dumps(calls, ensure_ascii=False)}</tool_call>"
    kept = {name: message[name] for name in ("role", "content", *_KEPT) if message.get(name) is not None}
    _as_json(kept, f"message {at}")
    return kept, text


def _text(content: Any, at: int) -> str:
    """The text of a content: null beside a call, a text, or parts, of which images and the like have none."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise ValueError(f"message {at} has a `content` that is {json_kind(content)}, not a text or a list of parts")
    texts = []
    for part in content:
        found = part if isinstance(part, str) else part.get("text", "") if isinstance(part, dict) else None
        if not isinstance(found, str):
            raise ValueError(f"message {at} has a part of `content` that is no text and no object with `type`")
        texts.append(found)
    return "".join(texts)


def _as_json(value: Any, where: str) -> str:
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{where} holds half a character, which no text may") from None
    return text
