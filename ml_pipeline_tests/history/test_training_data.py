"""Training data becomes Parquet with the columns people ask for."""

from __future__ import annotations

import json
from pathlib import Path

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


def test_a_file_without_any_leaves_what_was_there(tmp_path: Path) -> None:
    path = lines(tmp_path / "train.jsonl", [{"messages": [{"role": "user", "content": "a"}]}])
    target = import_training_data(path, tmp_path, 10_000).path
    before = target.read_bytes()
    lines(path, [{"prompt": "a"}])
    with pytest.raises(ImportFileError, match="must have `messages`"):
        import_training_data(path, tmp_path, 10_000)
    assert target.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []
