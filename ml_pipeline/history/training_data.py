"""Training data, as the original and mlx-lm keep it (JSON lines with `messages`), as Parquet files for notebooks."""

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
        pa.field("response", pa.string(), metadata={"description": "The last message of the assistant."}),
        pa.field("system", pa.string(), metadata={"description": "The system's message; empty without one."}),
        pa.field("messages", pa.string(), metadata={"description": "The whole conversation, as JSON."}),
    ]
)
_ROWS_AT_ONCE = 2000


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
    if not isinstance(messages, list) or not messages:
        raise ValueError("must have `messages`, a list that is not empty")
    said = [_message(message, at) for at, message in enumerate(messages, start=1)]
    by_role: dict[str, list[str]] = {}
    for role, content in said:
        by_role.setdefault(role, []).append(content)
    return {
        "prompt": by_role.get("user", [None])[0],
        "response": by_role.get("assistant", [None])[-1],
        "system": by_role.get("system", [None])[0],
        "messages": json.dumps([{"role": role, "content": content} for role, content in said], ensure_ascii=False),
    }


def _message(message: Any, at: int) -> tuple[str, str]:
    if not isinstance(message, dict):
        raise ValueError(f"message {at} must be an object, not {json_kind(message)}")
    role, content = message.get("role"), message.get("content")
    if not isinstance(role, str) or not isinstance(content, str):
        raise ValueError(f"message {at} must have the texts `role` and `content`")
    try:
        (role + content).encode()
    except UnicodeEncodeError:
        raise ValueError(f"message {at} holds half a character, which no text may") from None
    return role, content
