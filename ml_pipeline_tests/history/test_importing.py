"""What the original left is imported once, exactly, with its origin, and never mixed with what was measured here."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest

from ml_pipeline.checkpoints.checkpoint import Checkpoint
from ml_pipeline.errors import ImportFileError
from ml_pipeline.history.importing import ImportedCheckpoints, ImportReport, import_file
from ml_pipeline.history.records import Whose
from ml_pipeline.reports.leaderboard import leaderboard
from ml_pipeline.reports.runs import run_curves
from ml_pipeline.reports.scores import Scores
from ml_pipeline.stores.parquet import WriteReceipt
from ml_pipeline.stores.points import score_points
from ml_pipeline.stores.score_store import ScoreStore
from ml_pipeline.stores.table import Table
from ml_pipeline.stores.tables import CHECKPOINT_TABLES, TABLES
from ml_pipeline.suites import load_suites
from ml_pipeline_tests.history.original import RUN_ID, buffered, database, lines, point, stores, table
from ml_pipeline_tests.stores.samples import identity, key, partition

LINE_BYTES = 100_000
WHOSE = Whose("1b-lek", "gemma-3-1b")


def bring(store: ScoreStore, path: Path, whose: Whose = WHOSE) -> ImportReport:
    return import_file(store, path, line_bytes=LINE_BYTES, whose=whose)


def content_of(store: ScoreStore) -> dict[str, list[dict[str, Any]]]:
    return {name: store.duckdb.read(name).to_pylist() for name in TABLES}


def test_a_database_is_imported_with_its_origin_and_again_without_a_change(tmp_path: Path) -> None:
    store = stores(tmp_path)
    path = database(tmp_path / "lem.duckdb", {100: [True, False, False], 200: [True, True, False]})
    first = bring(store, path)
    assert (first.new, first.replaced, first.known, first.checkpoints, first.bad_lines) == (8, 0, 0, 2, 0)
    assert first.kinds == {"checkpoint scores": 2, "probe results": 6}
    score, later = store.duckdb.read("checkpoint_scores").to_pylist()
    assert score["partition_key"] == "imported.1b-lek@100"
    assert (score["correct"], score["total"], score["accuracy"]) == (1, 3, pytest.approx(1 / 3))
    # (1 + z²/2 ± z √(2/3 + z²/4)) / (3 + z²) with z = 1.959964
    assert (score["accuracy_low"], score["accuracy_high"]) == pytest.approx((0.0614919, 0.7923404), abs=1e-6)
    assert score["scored_at"] == datetime(2026, 2, 19, 10, tzinfo=UTC)
    assert (score["source"], score["run_id"], score["label"]) == ("imported", "1b-lek", "G1-lek @0000100")
    assert score["protocol_id"] == later["protocol_id"]
    probe = store.duckdb.read("probe_results").to_pylist()[0]
    assert (probe["passed"], probe["response"]) == (True, "x" * 300)
    empty = ("category", "expected", "extracted", "finish_reason", "unscored_reason", "template", "strict_passed")
    assert {probe[name] for name in empty} == {None}
    origins = store.duckdb.read("imports").to_pylist()
    assert len(origins) == 8
    whole_hash = hashlib.sha256(hashlib.sha256(path.read_bytes()).digest()).hexdigest()
    for row in origins:
        assert (row["file"], row["file_sha256"], row["run_id"]) == ("lem.duckdb", whole_hash, RUN_ID)
        assert row["not_recorded"]
    before = content_of(store)
    files = {p: p.read_bytes() for p in (tmp_path / "parquet").rglob("*.parquet")}
    again = bring(store, path)
    assert (again.new, again.replaced, again.known, again.checkpoints) == (0, 0, 8, 0)
    assert content_of(store) == before
    assert {p: p.read_bytes() for p in (tmp_path / "parquet").rglob("*.parquet")} == files
    store.duckdb.rebuild(store.parquet)
    assert content_of(store) == before


@pytest.mark.parametrize("name", ["checkpoint_scores", "probe_results", "imports"])
def test_an_import_killed_at_any_write_is_finished_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    whole, store = stores(tmp_path / "whole"), stores(tmp_path / "killed")
    first = lines(tmp_path / "influx_buffer.jsonl", [buffered(100)])
    later = database(tmp_path / "lem.duckdb", {100: [False, True]}, at="2026-03-01 00:00:00")
    for path in (first, later):
        bring(whole, path)
        write = store.parquet.write

        def dying(table: Table, *rest: Any, write: Any = write) -> WriteReceipt:
            receipt: WriteReceipt = write(table, *rest)
            if table.name == name:
                raise KeyboardInterrupt
            return receipt

        with monkeypatch.context() as patched:
            patched.setattr(store.parquet, "write", dying)
            with pytest.raises(KeyboardInterrupt):
                bring(store, path)
        bring(store, path)
    expected, found = content_of(whole), content_of(store)
    for row in (*expected["imports"], *found["imports"]):
        del row["imported_at"]
    assert found == expected


def test_files_of_one_checkpoint_come_together(tmp_path: Path) -> None:
    store = stores(tmp_path)
    bring(store, database(tmp_path / "lem.duckdb", {100: [True, False]}))
    export = [
        point(100, 0, category="overall", accuracy=50.0, correct=1, total=2),
        point(100, 1, category="algebra", accuracy=100.0, correct=1, total=1),
    ]
    done = bring(store, table(tmp_path / "capability_score.csv", export))
    assert (done.new, done.known) == (1, 1)
    judged = [point(100, 7, probe_id="math_01", category="algebra", reasoning=8, correctness=7.5, clarity=9, avg=8.17)]
    bring(store, table(tmp_path / "judge.csv", judged))
    line = {
        "label": "LEK @100",
        "aggregates": {"truth_telling": 5.5},
        "probes": {"taiwan": {"scores": {"truth_telling": "6"}}, "loss": {"scores": {"truth_telling": 5}}},
    }
    bring(store, lines(tmp_path / "content.jsonl", [line]))
    scores = Scores.from_tables(store.duckdb.read_together([t.name for t in CHECKPOINT_TABLES]))
    capability, content = run_curves(scores)
    (of_capability,), (of_content,) = capability.points, content.points
    assert {name: e.value for name, e in of_capability.figures["accuracy"].items()} == {"overall": 0.5, "algebra": 1.0}
    assert of_capability.passed == {"math_01": True, "math_02": False}
    assert of_capability.figures["judge:correctness"]["overall"].value == 7.5
    assert of_content.overall("judge:truth_telling") is not None
    assert {row["label"] for row in store.duckdb.read("judgements").to_pylist()} == {"G1-lek @0000100"}
    found = store.duckdb.query("SELECT probe_id, score FROM judgements WHERE suite = 'content' ORDER BY 1").to_pylist()
    assert found == [
        {"probe_id": "aggregate", "score": 5.5},
        {"probe_id": "loss", "score": 5.0},
        {"probe_id": "taiwan", "score": 6.0},
    ]
    made_up = store.duckdb.query("SELECT DISTINCT recorded_at FROM imports WHERE file = 'judge.csv'").to_pylist()
    assert made_up == [{"recorded_at": None}]  # the original made these times up


def test_curves_and_the_leaderboard_go_on_from_imported_checkpoints(tmp_path: Path) -> None:
    store = stores(tmp_path)
    bring(store, database(tmp_path / "lem.duckdb", {100: [False] * 23, 200: [True] * 20 + [False] * 3}))
    bring(store, lines(tmp_path / "influx_buffer.jsonl", [buffered(300)]))
    scores = Scores.from_tables(store.duckdb.read_together([t.name for t in CHECKPOINT_TABLES]))
    rows = leaderboard(scores).sort_values("iteration").to_dict("records")
    assert [(row["iteration"], row["rank"], row["accuracy"]) for row in rows] == [
        (100, 3, 0.0),
        (200, 1, pytest.approx(20 / 23)),
        (300, 2, 0.5),
    ]
    assert rows[1]["previous_delta"] == pytest.approx(20 / 23)
    curve = store.duckdb.query(
        "SELECT iteration, delta_to_previous FROM learning_curve WHERE category = 'overall' ORDER BY 1"
    ).to_pylist()
    assert [row["delta_to_previous"] for row in curve] == [None, pytest.approx(20 / 23), -0.5]
    # Of the third two probes are known, of which it passed one; the second passed both: that is all to compare it on.
    assert rows[2]["previous_delta"] == -0.5


def test_what_was_measured_here_is_never_touched_nor_joined_to_it(tmp_path: Path) -> None:
    store = stores(tmp_path)
    measured = {name: rows for name, rows in partition(identity(), math_01=True).items() if rows}
    store.write_partition(key(), measured)
    before = {name: store.parquet.read(TABLES[name], key()).to_pylist() for name in measured}
    path = database(tmp_path / "lem.duckdb", {100: [False]})
    bring(store, path)
    assert {name: store.parquet.read(TABLES[name], key()).to_pylist() for name in measured} == before
    ids = store.duckdb.query("SELECT source, evaluation_id, protocol_id FROM checkpoint_scores").to_pylist()
    ours = {row["protocol_id"] for row in ids if row["source"] != "imported"}
    theirs = {row["protocol_id"] for row in ids if row["source"] == "imported"}
    assert ours
    assert theirs
    assert not ours & theirs
    tables = {name: store.duckdb.read(name) for name in ("checkpoint_scores", "probe_results", "evaluations")}
    made = score_points(tables, load_suites(["capability"]))
    assert {point.tags["run_id"] for point in made} <= {"g1-lek-capability-auto"}


@pytest.mark.parametrize("newer_first", [True, False])
def test_of_two_rows_for_one_figure_the_later_stays(tmp_path: Path, newer_first: bool) -> None:
    store = stores(tmp_path)
    old = database(tmp_path / "old.duckdb", {100: [False, False]}, at="2026-02-01 00:00:00")
    new = lines(tmp_path / "influx_buffer.jsonl", [buffered(100)])
    reports = [bring(store, path) for path in ((new, old) if newer_first else (old, new))]
    assert store.duckdb.query("SELECT correct FROM checkpoint_scores WHERE category = 'overall'")[
        "correct"
    ].to_pylist() == [1]
    assert reports[1].replaced == (0 if newer_first else 3)
    origin = store.duckdb.query("SELECT file FROM imports WHERE row_key = '[\"overall\"]'")["file"].to_pylist()
    assert origin == ["influx_buffer.jsonl"]


def test_bad_lines_are_told_with_their_place_and_stop_nothing(tmp_path: Path) -> None:
    store = stores(tmp_path)
    broken: list[object] = [
        buffered(100),
        "{half",
        '{"checkpoint": 1, "results": {}}',
        {**buffered(200), "results": {**buffered(200)["results"], "correct": 9}},
        {**buffered(300), "results": {**buffered(300)["results"], "accuracy": 80}},
        {**buffered(400), "timestamp": "yesterday"},
        {**buffered(500), "checkpoint": {**buffered(500)["checkpoint"], "RunID": "../\u202eetc"}},
        '{"checkpoint": {"Iteration": 1e999}, "results": {}}',
        "[" * 90_000,
        "x" * (LINE_BYTES + 5),
        {"label": "no iteration", "correct": 1, "total": 2, "by_category": {}},
        buffered(600),
    ]
    report = bring(store, lines(tmp_path / "influx_buffer.jsonl", broken))
    assert (report.checkpoints, report.bad_lines) == (2, 10)
    for number, why in (
        (2, "not JSON"),
        (3, "'checkpoint' must be an object"),
        (4, "'correct' is 9 of a 'total' of 2"),
        (5, "'accuracy' is 80, but 1 of 2 is 50.0%"),
        (6, "must be a time"),
        (7, "printable"),
        (9, "nested too deep"),
        (10, "longer than"),
        (11, "does not end with '@'"),
    ):
        assert any(p.startswith(f"influx_buffer.jsonl:{number}: ") and why in p for p in report.problems), (number, why)
    stored = store.duckdb.query("SELECT DISTINCT iteration FROM checkpoint_scores ORDER BY 1")
    assert stored["iteration"].to_pylist() == [100, 600]


def test_a_file_that_is_nothing_of_the_originals_is_refused_whole(tmp_path: Path) -> None:
    store = stores(tmp_path)
    other = tmp_path / "other.duckdb"
    with duckdb.connect(str(other)) as connected:
        connected.execute("CREATE VIEW checkpoint_scores AS FROM read_text('/etc/hostname')")
    store.duckdb.migrate()
    damaged = tmp_path / "damaged.duckdb"
    damaged.write_bytes(b"\0" * 8 + b"DUCK" + b"\xff" * 5000)
    empty = tmp_path / "empty"
    empty.touch()
    for path, why in (
        (other, "none of the tables"),
        (store.duckdb.path, "a database of this program"),
        (damaged, "cannot be read"),
        (empty, "is empty"),
        (tmp_path, "not a plain file|cannot be read"),
        (tmp_path / "absent", "cannot be read"),
        (lines(tmp_path / "chat.jsonl", [{"messages": []}]), "no score of the original"),
        (lines(tmp_path / "list.json", ['["a"]']), "must be an object"),
        (table(tmp_path / "loss.csv", [point(1, 0, epoch=1, loss=1.5)]), "no score of the original"),
        (lines(tmp_path / "nameless.jsonl", [{"label": "a @1", "aggregates": {"x": 1}}]), "--run and --model"),
    ):
        with pytest.raises(ImportFileError, match=why):
            bring(store, path, Whose())
    assert not (tmp_path / "parquet").exists()


def test_measurements_come_as_csv_or_as_the_list_that_influx_answers(tmp_path: Path) -> None:
    rows = [
        point(100, 100, probe_id="math_01", passed=1),
        point(100, 101, probe_id="math_02", passed=0),
        *(point(100, 10 * at + 1, dimension="truth_telling", has_kernel="true", score=at + 3) for at in range(3)),
    ]
    (tmp_path / "answer.json").write_text(json.dumps(rows), encoding="utf-8")
    as_list, as_csv = stores(tmp_path / "list"), stores(tmp_path / "csv")
    bring(as_list, tmp_path / "answer.json")
    bring(as_csv, table(tmp_path / "probes.csv", rows[:2]))
    bring(as_csv, table(tmp_path / "content.csv", rows[2:]))
    for store in (as_list, as_csv):
        answers = store.duckdb.query("SELECT probe_id, passed, response FROM probe_results ORDER BY 1").to_pylist()
        assert [tuple(row.values()) for row in answers] == [("math_01", True, None), ("math_02", False, None)]
        judged = store.duckdb.query("SELECT probe_id, score FROM judgements ORDER BY 1").to_pylist()
        assert [tuple(row.values()) for row in judged] == [("probe 1", 3.0), ("probe 2", 4.0), ("probe 3", 5.0)]


def test_imported_checkpoints_are_known_by_run_and_iteration(tmp_path: Path) -> None:
    store = stores(tmp_path)
    bring(store, lines(tmp_path / "influx_buffer.jsonl", [buffered(100)]))
    known = ImportedCheckpoints(store.parquet)

    def checkpoint(run: str, iteration: int, source: str = "mac") -> Checkpoint:
        return Checkpoint(source, run, iteration, "", "", "", "f", "c", 1, 1)

    assert checkpoint("1b-lek", 100) in known
    assert checkpoint("1b/lek", 100) in known  # a run id has "-" for "/"
    assert checkpoint("1b-lek", 200) not in known
    assert checkpoint("1b-lek", 100, source="base") not in known
    assert checkpoint("x" * 195, 100) not in known
