from __future__ import annotations

from pathlib import Path

import pytest

from ml_pipeline.stores.duckdb import DuckDBStore
from ml_pipeline_tests.stores.samples import (
    Row,
    base_identity,
    heuristic_rows,
    identity,
    judgement_rows,
    partition,
    score_rows,
)
from ml_pipeline_tests.stores.test_duckdb import arrow


@pytest.fixture
def store(tmp_path: Path) -> DuckDBStore:
    """A base at 2/4; one run at 1/4, 3/4, 3/4; another at 4/4; one checkpoint of another protocol; one unscored."""
    store = DuckDBStore(tmp_path / "scores.duckdb")
    for who, right in (
        (base_identity(), 2),
        (identity(100), 1),
        (identity(200), 3),
        (identity(300), 3),
        (identity(50, run="g1/b"), 4),
        (identity(60, run="other") | {"protocol_id": "p-other"}, 4),
    ):
        put(store, who, partition(who, a=right >= 3, b=True) | {"checkpoint_scores": score_rows(who, math=(right, 4))})
    gone = identity(400)
    put(
        store,
        gone,
        partition(gone, a=None)
        | {
            "checkpoint_scores": score_rows(gone, math=(0, 0)),
            "judgements": judgement_rows(gone, "a", clarity=None, reasoning=3.0),
            "heuristic_scores": heuristic_rows(gone, a=None, b=1.0),
        },
    )
    return store


def put(store: DuckDBStore, who: Row, tables: dict[str, list[Row]]) -> None:
    store.write_partition(who["partition_key"], arrow(tables))


def test_latest_leaderboard(store: DuckDBStore) -> None:
    rows = store.query("SELECT protocol_id, rank, label, iteration, accuracy, delta_to_base FROM latest_leaderboard")
    assert [tuple(r.values()) for r in rows.to_pylist()] == [
        ("p-capability", 1, "G1-lek @0000050", 50, 1.0, 0.5),
        ("p-capability", 2, "G1-lek @0000200", 200, 0.75, 0.25),
        ("p-capability", 2, "G1-lek @0000300", 300, 0.75, 0.25),
        ("p-capability", 4, "gemma-1b", 0, 0.5, 0.0),
        ("p-capability", 5, "G1-lek @0000100", 100, 0.25, -0.25),
        ("p-capability", 6, "G1-lek @0000400", 400, None, None),
        ("p-other", 1, "G1-lek @0000060", 60, 1.0, None),
    ]


def test_best_checkpoint_takes_the_earliest_of_equals_and_no_base(store: DuckDBStore) -> None:
    rows = store.query("SELECT run, iteration, accuracy FROM best_checkpoint ORDER BY run").to_pylist()
    assert [tuple(r.values()) for r in rows] == [("g1-lek", 200, 0.75), ("g1/b", 50, 1.0), ("other", 60, 1.0)]


def test_latest_score_is_of_the_last_checkpoint_that_has_one(store: DuckDBStore) -> None:
    rows = store.query(
        "SELECT run, protocol_id, iteration, accuracy, delta_to_base, previous_iteration, delta_to_previous "
        "FROM latest_score"
    ).to_pylist()
    assert [tuple(r.values()) for r in rows] == [
        ("g1-lek", "p-capability", 300, 0.75, 0.25, 200, 0.0),
        ("g1/b", "p-capability", 50, 1.0, 0.5, None, None),
        ("other", "p-other", 60, 1.0, None, None, None),
    ]


def test_deltas_skip_checkpoints_without_a_score(store: DuckDBStore) -> None:
    last = identity(500)
    put(store, last, partition(last, a=True) | {"checkpoint_scores": score_rows(last, math=(1, 4))})
    for category in ("overall", "math"):
        rows = store.query(
            "SELECT iteration, accuracy, delta_to_base, previous_iteration, previous_accuracy, delta_to_previous "
            "FROM deltas WHERE run = 'g1-lek' AND category = ?",
            [category],
        ).to_pylist()
        assert [tuple(r.values()) for r in rows] == [
            (100, 0.25, -0.25, None, None, None),
            (200, 0.75, 0.25, 100, 0.25, 0.5),
            (300, 0.75, 0.25, 200, 0.75, 0.0),
            (400, None, None, 300, 0.75, None),
            (500, 0.25, -0.25, 300, 0.75, -0.5),
        ]


def test_coverage_tells_what_is_missing(store: DuckDBStore) -> None:
    content = identity(500, suite="content")
    put(store, content, {"judgements": judgement_rows(content, "a", clarity=None, reasoning=3.0, avg=3.0)})
    rows = store.query(
        "SELECT iteration, suite, missing, answers, broken, checked, unchecked, judged, unjudged, accuracy "
        "FROM coverage WHERE run = 'g1-lek' AND iteration IN (300, 400, 500)"
    ).to_pylist()
    assert [tuple(r.values()) for r in rows] == [
        (300, "capability", False, 2, 0, 2, 0, 0, 0, 0.75),
        (300, "content", True, 0, 0, 0, 0, 0, 0, None),
        (400, "capability", False, 2, 0, 0, 1, 1, 1, None),
        (400, "content", True, 0, 0, 0, 0, 0, 0, None),
        (500, "capability", True, 0, 0, 0, 0, 0, 0, None),
        (500, "content", False, 0, 0, 0, 0, 2, 1, None),
    ]
    assert store.query("SELECT count(*) AS n FROM coverage")["n"].to_pylist() == [2 * 8]


def test_learning_curve(store: DuckDBStore) -> None:
    rows = store.query(
        "SELECT iteration, accuracy, delta_to_previous FROM learning_curve "
        "WHERE run = 'g1-lek' AND category = 'overall'"
    ).to_pylist()
    assert [tuple(r.values()) for r in rows] == [
        (100, 0.25, None),
        (200, 0.75, 0.5),
        (300, 0.75, 0.0),
        (400, None, None),
    ]


def test_probe_changes(store: DuckDBStore) -> None:
    rows = store.query("SELECT run, iteration, probe_id, change FROM probe_changes").to_pylist()
    assert [tuple(r.values()) for r in rows] == [
        ("g1-lek", 200, "a", "gained"),
        ("g1-lek", 300, "a", "gained"),
        ("g1/b", 50, "a", "gained"),
    ]


def test_unscored(store: DuckDBStore) -> None:
    rows = store.query("SELECT table_name, probe_id, dimension, unscored_reason FROM unscored ORDER BY 1").to_pylist()
    assert [tuple(r.values()) for r in rows] == [
        ("heuristic_scores", "a", None, "no answer"),
        ("judgements", "a", "clarity", "no number in the answer"),
        ("probe_results", "a", None, "the backend was away"),
    ]
