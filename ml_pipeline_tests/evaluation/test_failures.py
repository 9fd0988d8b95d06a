"""Failures are stored, replaced by newer ones, and forgotten once what failed was made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ml_pipeline.checkpoints.checkpoint import Checkpoint
from ml_pipeline.errors import CheckpointError
from ml_pipeline.evaluation.failures import LONGEST_REASON, FailureBook
from ml_pipeline.stores.duckdb import DuckDBStore
from ml_pipeline.stores.parquet import ParquetStore
from ml_pipeline.stores.score_store import ScoreStore
from ml_pipeline.stores.tables import FAILURES

KEY = "mac.lek+a=20b@100"
ALL = ("adapter", "responses", "judgements")


@pytest.fixture
def store(tmp_path: Path) -> ScoreStore:
    return ScoreStore(ParquetStore(tmp_path / "parquet"), DuckDBStore(tmp_path / "scores.duckdb"))


def rows(store: ScoreStore) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = store.duckdb.read(FAILURES.name).to_pylist()
    assert found == store.parquet.read_all(FAILURES).to_pylist()
    return found


def fail(store: ScoreStore, attempt: str, stage: str = "responses", reason: str = "the server is away") -> None:
    FailureBook(store, attempt).failed(KEY, None, stage, CheckpointError(reason))


def test_a_failure_is_stored_with_what_its_key_says(store: ScoreStore) -> None:
    fail(store, "run-1", reason="two\nlines \x1b[2J" + "x" * 2 * LONGEST_REASON)
    (row,) = rows(store)
    assert (row["source"], row["run"], row["iteration"]) == ("mac", "lek/a b", 100)
    assert (row["stage"], row["attempt"], row["label"], row["base_model"]) == ("responses", "run-1", None, None)
    assert row["reason"].startswith("two\nlines  [2J")
    assert len(row["reason"]) < LONGEST_REASON + 100


def test_only_the_newest_attempt_counts(store: ScoreStore) -> None:
    fail(store, "run-1")
    fail(store, "run-2", "judgements", "the judge failed")
    assert [(row["attempt"], row["stage"], row["reason"]) for row in rows(store)] == [
        ("run-2", "judgements", "the judge failed")
    ]


def test_it_is_forgotten_once_the_stage_was_made_and_not_before(store: ScoreStore) -> None:
    FailureBook(store, "run-0").done(KEY, ALL)
    assert not store.parquet.partitions(FAILURES)
    fail(store, "run-1", "judgements")
    FailureBook(store, "run-2").done(KEY, ("adapter", "responses"))
    assert len(rows(store)) == 1
    FailureBook(store, "run-3").done(KEY, ALL)
    assert rows(store) == []
    assert not store.parquet.read(FAILURES, KEY).num_rows
    fail(store, "run-4")
    assert [row["attempt"] for row in rows(store)] == ["run-4"]


def test_a_database_made_again_has_them(store: ScoreStore) -> None:
    fail(store, "run-1")
    before = rows(store)
    store.duckdb.path.unlink()
    store.duckdb.rebuild(store.parquet)
    assert rows(store) == before


def test_a_key_that_is_no_checkpoints_has_no_row(store: ScoreStore) -> None:
    FailureBook(store, "run-1").failed("nonsense", None, "adapter", CheckpointError("no checkpoint"))
    assert not store.parquet.partitions(FAILURES)


def test_a_known_checkpoint_has_its_label(store: ScoreStore) -> None:
    checkpoint = Checkpoint(
        source="mac",
        run="lek/a b",
        iteration=100,
        file="adapters-lek/a b/0000100_adapters.safetensors",
        config_file="adapters-lek/a b/adapter_config.json",
        size_bytes=1,
        mtime_ns=1,
        label="L-a @0000100",
        model="lek",
        base_model="tiny",
    )
    FailureBook(store, "run-1").failed(KEY, checkpoint, "adapter", CheckpointError("rank"))
    (row,) = rows(store)
    assert (row["label"], row["base_model"], row["run"]) == ("L-a @0000100", "tiny", "lek/a b")
