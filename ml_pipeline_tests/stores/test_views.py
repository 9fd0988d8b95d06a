from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ml_pipeline.evaluation.mark import checkpoint_scores
from ml_pipeline.reports.leaderboard import leaderboard
from ml_pipeline.reports.scores import Scores
from ml_pipeline.stores.duckdb import DuckDBStore
from ml_pipeline.stores.tables import CHECKPOINT_TABLES
from ml_pipeline_tests.stores.samples import (
    Row,
    base_identity,
    heuristic_rows,
    identity,
    judgement_rows,
    partition,
    probe_rows,
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
        put(store, who, partition(who, a=right >= 3, b=True, c=right >= 2, d=right >= 4))
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


def test_differences_are_on_the_probes_that_both_have_a_score_for(tmp_path: Path) -> None:
    store = DuckDBStore(tmp_path / "scores.duckdb")
    for who, passed in (
        (base_identity(), {"a": True, "b": True, "c": False, "d": None}),
        (identity(100), {"a": True, "b": None, "c": True, "d": True}),
        (identity(200), {"a": False, "b": True, "c": None, "d": None}),
    ):
        put(store, who, partition(who, **passed))
    rows = store.query(
        "SELECT iteration, accuracy, base_accuracy, delta_to_base, paired, delta_to_previous FROM deltas "
        "WHERE category = 'overall' ORDER BY iteration"
    ).to_pylist()
    # Of all its probes the first has 3 of 3 right, a third more than its base; on a and c it gains one of two.
    assert [tuple(row.values()) for row in rows] == [
        (100, 1.0, pytest.approx(2 / 3), 0.5, 2, None),
        (200, 0.5, pytest.approx(2 / 3), -0.5, 2, -1.0),
    ]


def _sampled(who: Row, generator: np.random.Generator) -> dict[str, list[Row]]:
    """Up to four answers to each of thirty probes in two categories; some have no score, some probes have none."""
    rows = []
    for index in range(30):
        scored, ability = generator.random() < 0.8, generator.random()
        for sample in range(1, 5):
            passed = bool(generator.random() < ability) if scored and generator.random() < 0.8 else None
            (row,) = probe_rows(who, **{f"p{index}": passed})
            rows.append(row | {"sample": sample, "category": "math" if index % 3 else "logic"})
    return partition(who) | {"probe_results": rows, "checkpoint_scores": checkpoint_scores(rows)}


def test_views_and_the_leaderboard_have_one_definition_of_a_difference(tmp_path: Path) -> None:
    store, generator = DuckDBStore(tmp_path / "scores.duckdb"), np.random.default_rng(8)
    for who in (base_identity(), *(identity(step, run=run) for run in ("g1-lek", "g1/b") for step in (50, 100, 150))):
        put(store, who, _sampled(who, generator))
    board = leaderboard(Scores.from_tables(store.read_together([table.name for table in CHECKPOINT_TABLES])))
    wanted = {
        row["partition_key"]: (row["delta"], row["paired"], row["previous_delta"], row["base_accuracy"])
        for row in board[board["source"].ne("base")].to_dict("records")
    }
    found = store.query(
        "SELECT d.partition_key, d.delta_to_base, d.paired, d.delta_to_previous, d.base_accuracy, "
        "l.delta_to_base AS of_board, l.paired AS paired_of_board "
        "FROM deltas AS d JOIN latest_leaderboard AS l USING (partition_key, suite) WHERE d.category = 'overall'"
    ).to_pylist()
    assert len(found) == len(wanted) == 6
    for row in found:
        delta, paired, previous, base = wanted[row["partition_key"]]
        assert (row["delta_to_base"], row["paired"]) == (pytest.approx(delta, abs=1e-12), paired)
        assert (row["of_board"], row["paired_of_board"]) == (row["delta_to_base"], paired)
        assert row["base_accuracy"] == pytest.approx(base)
        if pd.isna(previous):
            assert row["delta_to_previous"] is None
        else:
            assert row["delta_to_previous"] == pytest.approx(previous, abs=1e-12)
    # Of a category, on its own probes.
    a, b = "lab.g1-lek@100", "base.gemma-1b@0"
    shares = {
        key: {
            row["probe_id"]: row["passed_share"]
            for row in store.query(
                "SELECT probe_id, passed_share FROM probe_shares WHERE partition_key = ? AND category = 'logic'", [key]
            ).to_pylist()
        }
        for key in (a, b)
    }
    both = shares[a].keys() & shares[b].keys()
    (logic,) = store.query(
        "SELECT delta_to_base, paired FROM deltas WHERE partition_key = ? AND category = 'logic'", [a]
    ).to_pylist()
    assert logic["paired"] == len(both) < 10
    assert logic["delta_to_base"] == pytest.approx(sum(shares[a][p] - shares[b][p] for p in both) / len(both))


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
    put(store, last, partition(last, a=False, b=True, c=False, d=False))
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
        (300, "capability", False, 2, 0, 4, 0, 0, 0, 0.75),
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
        ("g1-lek", 100, "c", "lost"),
        ("g1-lek", 200, "a", "gained"),
        ("g1-lek", 300, "a", "gained"),
        ("g1/b", 50, "a", "gained"),
        ("g1/b", 50, "d", "gained"),
    ]


def test_unscored(store: DuckDBStore) -> None:
    rows = store.query("SELECT table_name, probe_id, dimension, unscored_reason FROM unscored ORDER BY 1").to_pylist()
    assert [tuple(r.values()) for r in rows] == [
        ("heuristic_scores", "a", None, "no answer"),
        ("judgements", "a", "clarity", "no number in the answer"),
        ("probe_results", "a", None, "the backend was away"),
    ]
