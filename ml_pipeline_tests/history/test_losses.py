"""Losses of the original's measurement training_loss are imported once, and stand beneath the imported curves."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ml_pipeline.history.importing import ImportReport, import_file
from ml_pipeline.reports.runs import run_curves
from ml_pipeline.reports.scores import load_scores
from ml_pipeline.stores.score_store import ScoreStore
from ml_pipeline.stores.tables import TRAINING_LOSS
from ml_pipeline.stores.training_points import training_points
from ml_pipeline_tests.history.original import EPOCH_S, database, lines, stores, table

KEY = "imported.1b-lek"


def loss(iteration: int, value: object, kind: str = "train", at: object = None, **more: object) -> dict[str, Any]:
    made_up = (EPOCH_S + iteration * 1000) * 1_000_000_000
    named = {"model": "gemma-3-1b", "run_id": "1b-lek", "loss_type": kind, "iteration": iteration, "loss": value}
    return {**named, "time": made_up if at is None else at, **more}


def bring(store: ScoreStore, path: Path) -> ImportReport:
    return import_file(store, path, line_bytes=100_000)


def rows_of(store: ScoreStore) -> list[dict[str, Any]]:
    return sorted(store.duckdb.read(TRAINING_LOSS.name).to_pylist(), key=lambda row: (row["kind"], row["iteration"]))


def test_losses_are_imported_once_and_drawn_with_the_run(tmp_path: Path) -> None:
    store = stores(tmp_path)
    bring(store, database(tmp_path / "lem.duckdb", {100: [True, False], 200: [True, True]}))
    export = [
        loss(100, 2.5, learning_rate=1e-5, it_per_sec=0.5, tokens_per_sec=300),
        loss(200, 2.0, learning_rate="", it_per_sec="", tokens_per_sec=""),
        loss(200, 2.25, "val", learning_rate="", it_per_sec="", tokens_per_sec=""),
    ]
    path = table(tmp_path / "training_loss.csv", export)
    done = bring(store, path)
    assert (done.kinds, done.new, done.known, done.bad_lines) == ({"training_loss": 3}, 3, 0, 0)
    first = rows_of(store)
    assert [(row["partition_key"], row["kind"], row["iteration"], row["loss"]) for row in first] == [
        (KEY, "train", 100, 2.5),
        (KEY, "train", 200, 2.0),
        (KEY, "val", 200, 2.25),
    ]
    assert (first[0]["learning_rate"], first[0]["iterations_per_s"], first[0]["tokens_per_s"]) == (1e-5, 0.5, 300)
    again = bring(store, path)
    assert (again.new, again.known) == (0, 3)
    assert rows_of(store) == first == store.parquet.read(TRAINING_LOSS, KEY).to_pylist()
    assert training_points(first) == [], "they are on a server already, as the original wrote them"
    (curve,) = run_curves(load_scores(store.duckdb))
    assert list(curve.losses["train"].losses) == [2.5, 2.0]


def test_what_is_no_loss_is_told_with_its_line_and_the_later_record_stays(tmp_path: Path) -> None:
    store = stores(tmp_path)
    early, late = ("2026-02-19T12:00:00Z", "2026-02-20T12:00:00Z")
    broken = [loss(1, "NaN"), loss(2, 1.0, "test"), loss(-3, 1.0), loss(4, 1.0, run_id="../\u202e")]
    done = bring(store, lines(tmp_path / "a.jsonl", [loss(10, 3.0, at=late), loss(10, 4.0, at=early), *broken]))
    assert (done.new, done.known, done.bad_lines) == (1, 1, 4)
    for number, why in ((3, "finite"), (4, "train or val"), (5, "from 0"), (6, "printable")):
        assert any(f"a.jsonl:{number}:" in problem and why in problem for problem in done.problems)
    newer = bring(store, lines(tmp_path / "b.jsonl", [loss(10, 5.0, at="2026-02-21T12:00:00Z")]))
    assert (newer.new, newer.replaced) == (0, 1)
    (row,) = rows_of(store)
    assert (row["loss"], row["read_at"], row["log_file"]) == (5.0, datetime(2026, 2, 21, 12, tzinfo=UTC), "b.jsonl")


def test_a_killed_import_is_finished_by_doing_it_again(tmp_path: Path) -> None:
    store = stores(tmp_path)
    path = lines(tmp_path / "a.jsonl", [loss(10, 3.0), loss(20, 2.0)])
    bring(store, path)
    whole = rows_of(store)
    store.duckdb.write_partition(KEY, {TRAINING_LOSS.name: whole[:1]})  # as if it had come no further
    assert bring(store, path).known == 2
    assert rows_of(store) == whole
