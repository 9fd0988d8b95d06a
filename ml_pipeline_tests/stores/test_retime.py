"""Rewriting history to another time base, read back from real servers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import httpx
import pytest

from ml_pipeline.errors import StoreError
from ml_pipeline.settings import InfluxSettings
from ml_pipeline.stores.influx import InfluxV1Sender, InfluxV2Sender
from ml_pipeline.stores.influx_buffer import InfluxBuffer
from ml_pipeline.stores.influx_delete import Span, make_deleter, spans_of
from ml_pipeline.stores.influx_sending import Answer
from ml_pipeline.stores.parquet import ParquetStore
from ml_pipeline.stores.points import ScorePoint, TimeBase, lines_by_batch, score_points, stored_point_tables
from ml_pipeline.stores.retime import Retimer
from ml_pipeline.stores.tables import TABLES
from ml_pipeline.stores.training_points import training_points
from ml_pipeline_tests.influxd import DATABASE, LOGIN, Influxd, front_of
from ml_pipeline_tests.servers import free_port
from ml_pipeline_tests.stores import test_training_points
from ml_pipeline_tests.stores.influx_double import Double
from ml_pipeline_tests.stores.samples import (
    base_identity,
    capability_suite,
    evaluation_row,
    identity,
    judgement_rows,
    probe_rows,
    score_rows,
)
from ml_pipeline_tests.victoria_metrics import stored

RUN_IDS = {"g1-lek": "g1-lek", "quoted": 'it\'s "b"', "one/two": "one-two"}
SUITES = (capability_suite(),)


class Lab:
    """Three runs of two checkpoints each, a base model, and the losses of one run, in Parquet."""

    def __init__(self, root: Path) -> None:
        self.parquet = ParquetStore(root / "parquet")
        self.buffer = InfluxBuffer(root / "buffer")
        self.notes = root / "notes.json"
        self.keys = []
        runs = [identity(i, run=run) | {"run_id": run_id} for run, run_id in RUN_IDS.items() for i in (100, 200)]
        for one in [base_identity(), *runs]:
            evaluation = evaluation_row(one)
            if one["iteration"] == 0:
                # A base model on another machine: its real times begin where those of the original do.
                evaluation["checkpoint_mtime_ns"] = 0
            tables = {
                "evaluations": [evaluation],
                "checkpoint_scores": score_rows(one, math=(1, 2)),
                "probe_results": probe_rows(one, sum=True, loop=False),
                "judgements": judgement_rows(one, "sum", reasoning=7.0),
            }
            self.keys.append(one["partition_key"])
            for name, rows in tables.items():
                self.parquet.write(TABLES[name], one["partition_key"], rows)
        self.losses = test_training_points.rows(
            {"kind": "train", "iteration": 10, "loss": 2.0}, {"kind": "val", "iteration": 1200, "loss": 2.5}
        )
        self.parquet.write(TABLES["training_loss"], "lab.15k+g1", self.losses)

    def batches(self, time_base: TimeBase) -> dict[tuple[str, str], list[str]]:
        found = {
            (key, batch): lines
            for key in self.keys
            for batch, lines in lines_by_batch(
                score_points(stored_point_tables(self.parquet, key), SUITES, time_base)
            ).items()
        }
        losses = lines_by_batch(training_points(self.losses, time_base))
        return found | {("lab.15k+g1", batch): lines for batch, lines in losses.items()}

    def lines(self, time_base: TimeBase) -> list[str]:
        return sorted(line for lines in self.batches(time_base).values() for line in lines)

    def keep(self, time_base: TimeBase) -> None:
        for (key, batch), lines in self.batches(time_base).items():
            self.buffer.add(key, batch, lines)

    def retimer(self, to: TimeBase, target: str = "here") -> Retimer:
        return Retimer(self.parquet, SUITES, to, self.notes, target)


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


@pytest.fixture
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFLUX_TOKEN", LOGIN)


def v1(url: str) -> tuple[InfluxSettings, InfluxV1Sender]:
    return InfluxSettings(url=url, api="v1", bucket=DATABASE), InfluxV1Sender(url, DATABASE, LOGIN)


def times(found: Sequence[tuple[str, int, tuple[str, ...]]]) -> list[int]:
    return sorted(time_ns for _, time_ns, _ in found)


@pytest.mark.usefixtures("token")
def test_there_and_back_on_influxdb_1_leaves_what_was_there(lab: Lab, influxd: Influxd) -> None:
    settings, sender = v1(influxd.url)
    # Another run at our times, and our series at a time that is not of our making.
    strangers = [
        "capability_score,label=G1-lek\\ @0000100,run_id=another-capability-auto accuracy=1 1772366400123456789",
        "capability_score,label=G1-lek\\ @0000100,run_id=g1-lek-capability-auto accuracy=1 1772366400123456000",
    ]
    assert sender.send(strangers).kind == "written"
    lab.keep("real")
    assert lab.buffer.flush(sender).stopped_because == ""
    before = influxd.points()
    seen: list[tuple[int, int]] = []
    moved = lab.retimer("original").rewrite(
        lab.buffer, sender, make_deleter(settings), lambda done, of: seen.append((done, of))
    )
    assert seen == [(i, 5) for i in range(1, 6)]
    # 7 checkpoints of 2 scores, 2 probes and 1 judgement; 2 losses.
    assert (moved.runs, moved.partitions, moved.points.total(), moved.rejected) == (5, 8, 37, ())
    assert moved.points["training_loss"] == 2
    after = influxd.points()
    assert times([*after]) == sorted([*(int(line.rsplit(" ", 1)[1]) for line in [*lab.lines("original"), *strangers])])
    assert sorted(map(str, after.values())) == sorted(map(str, before.values()))
    assert not lab.notes.exists()
    lab.retimer("real").rewrite(lab.buffer, sender, make_deleter(settings))
    assert influxd.points() == before


def test_there_and_back_on_victoria_metrics(lab: Lab, victoria_metrics: str) -> None:
    url = f"{victoria_metrics}/influx"
    settings, sender = InfluxSettings(url=url), InfluxV2Sender(url, "ours")
    match = "(capability|probe|training)_.*"
    root = victoria_metrics

    def ours() -> dict[tuple[str, ...], list[tuple[int, float]]]:
        return {name: samples for name, samples in stored(root, match).items() if "retimed" in str(name)}

    for name in ("checkpoint_scores", "probe_results", "judgements", "evaluations", "training_loss"):
        for key in lab.parquet.partitions(TABLES[name]):
            rows = lab.parquet.read(TABLES[name], key).to_pylist()
            lab.parquet.write(TABLES[name], key, [row | {"model": "retimed"} for row in rows])
    lab.losses = [row | {"model": "retimed"} for row in lab.losses]
    lab.keep("real")
    assert lab.buffer.flush(sender).stopped_because == ""
    before = ours()
    assert len(before) == 7 * (2 * 4 + 2 * 2 + 2) + 2 * 2
    lab.retimer("original").rewrite(lab.buffer, sender, make_deleter(settings))
    after = ours()
    assert after.keys() == before.keys()
    assert all(len(samples) == 1 for samples in after.values())
    expected = {int(line.rsplit(" ", 1)[1]) // 10**6 for line in lab.lines("original")}
    assert {ms for samples in after.values() for ms, _ in samples} == expected
    lab.retimer("real").rewrite(lab.buffer, sender, make_deleter(settings))
    assert ours() == before
    deleter = make_deleter(settings)
    assert deleter is not None
    tables = [stored_point_tables(lab.parquet, key) for key in lab.keys]
    points = [point for some in tables for point in score_points(some, SUITES)]
    deleter.delete(spans_of([*points, *training_points(lab.losses)]))
    assert ours() == {}


@pytest.mark.usefixtures("token")
def test_the_exact_requests_of_the_v2_api(double: Double) -> None:
    deleter = make_deleter(InfluxSettings(url=double.url, bucket="b", org="o"))
    assert deleter is not None
    deleter.delete(
        [Span("m", {"run_id": 'say "hi"\\', "label": "G1 @1"}, 1_772_366_400_123_456_789, 1_772_366_400_999_999_999)]
    )
    (request,) = double.requests
    assert request["path"] == "/api/v2/delete"
    assert request["query"] == {"bucket": "b", "org": "o"}
    assert request["authorization"] == f"Token {LOGIN}"
    assert httpx.Response(200, text="\n".join(request["lines"])).json() == {
        "start": "2026-03-01T12:00:00.123456789Z",
        "stop": "2026-03-01T12:00:01.000000000Z",
        "predicate": '_measurement="m" AND run_id="say \\"hi\\"\\\\" AND label="G1 @1"',
    }


def test_spans_cover_each_measurement_of_each_run_and_label() -> None:
    def point(measurement: str, time_ns: int, **tags: str) -> ScorePoint:
        return ScorePoint(measurement, "s", {"model": "x", **tags}, {"a": 1}, time_ns)

    assert spans_of(
        [
            point("m", 5, run_id="r", label="l", category="a"),
            point("m", 3, run_id="r", label="l", category="b"),
            point("n", 9, run_id="r", label="l"),
            point("m", 7, run_id="r"),
        ]
    ) == [
        Span("m", {"run_id": "r", "label": "l"}, 3, 5),
        Span("n", {"run_id": "r", "label": "l"}, 9, 9),
        Span("m", {"run_id": "r"}, 7, 7),
    ]


def test_a_preview_changes_nothing(lab: Lab) -> None:
    moved = lab.retimer("original").preview()
    assert (moved.runs, moved.partitions, moved.points.total()) == (5, 8, 37)
    # Iteration 0 of the base model is the original's epoch; the last is the loss of iteration 1200.
    assert (moved.first_ns, moved.last_ns) == (1_739_577_600 * 10**9, (1_739_577_600 + 1200 * 1000) * 10**9)
    assert lab.buffer.is_empty()
    assert not lab.notes.exists()


def test_without_a_server_what_waits_is_rewritten(lab: Lab) -> None:
    lab.keep("real")
    lab.retimer("original").rewrite(lab.buffer, None, None)
    assert sorted(lab.buffer.lines()) == lab.lines("original")


@pytest.mark.usefixtures("token")
@pytest.mark.parametrize("failing_at", [1, 2, 5, 10])
def test_an_interrupted_rewrite_goes_on_and_ends_as_one_that_was_not(
    lab: Lab, influxd: Influxd, failing_at: int
) -> None:
    """The server fails at one of its ten requests: a deletion and a write for each of five runs."""
    lab.keep("real")
    assert lab.buffer.flush(v1(influxd.url)[1]).stopped_because == ""
    with front_of(influxd.url) as front:
        settings, sender = v1(front.url)
        front.plan.extend([*["pass"] * (failing_at - 1), 503])
        with pytest.raises(StoreError, match=r"goes on from here") as caught:
            lab.retimer("original").rewrite(lab.buffer, sender, make_deleter(settings))
        assert LOGIN not in str(caught.value)
        assert "503 on purpose" in str(caught.value)
        moved = lab.retimer("original").rewrite(lab.buffer, sender, make_deleter(settings))
        assert moved.skipped_runs == (failing_at - 1) // 2
        assert moved.runs == 5 - moved.skipped_runs
    assert times([*influxd.points()]) == sorted(int(line.rsplit(" ", 1)[1]) for line in lab.lines("original"))
    assert not lab.notes.exists()


def test_notes_of_another_base_or_server_and_damaged_ones_count_for_nothing(lab: Lab) -> None:
    lab.notes.write_text('{"to": "original", "target": "here", "runs": ["g1-lek", "gone"]}')
    assert lab.retimer("original").preview().skipped_runs == 1
    assert lab.retimer("real").preview().skipped_runs == 0
    assert lab.retimer("original", "there").preview().skipped_runs == 0
    for damaged in ("{", "[]", '{"to": "original", "target": "here"}'):
        lab.notes.write_text(damaged)
        assert lab.retimer("original").preview().skipped_runs == 0


def test_what_waits_is_sent_before_anything_is_deleted(lab: Lab) -> None:
    happened: list[str] = []

    class Server:
        how = "recorded"

        def send(self, lines: Sequence[str]) -> Answer:
            happened.append("sent")
            return Answer("written")

        def delete(self, spans: Sequence[Span]) -> None:
            happened.append("deleted")

    server = Server()
    lab.keep("real")
    lab.retimer("original").rewrite(lab.buffer, server, server)
    assert happened == ["sent", *["deleted", "sent"] * 5]


@pytest.mark.usefixtures("token")
@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (lambda url: InfluxSettings(url=url, api="v1", bucket="nowhere"), "database not found: nowhere"),
        (lambda url: InfluxSettings(url=url, api="v1", bucket=DATABASE, token_env="OTHER"), "it answered 401"),
        (lambda url: InfluxSettings(url=f"http://127.0.0.1:{free_port()}", api="v1"), "ConnectError"),
        (lambda url: InfluxSettings(url=url, api="v2"), "it answered 404"),
    ],
)
def test_a_server_that_does_not_delete_is_an_error(
    influxd: Influxd, settings: Callable[[str], InfluxSettings], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTHER", "writer:guess")
    deleter = make_deleter(settings(influxd.url))
    assert deleter is not None
    with pytest.raises(StoreError, match=reason) as caught:
        deleter.delete([Span("m", {"run_id": "r"}, 1, 2)])
    assert "guess" not in str(caught.value)


def test_influxdb_3_says_how_to_delete_by_hand() -> None:
    with pytest.raises(StoreError, match=r"influxdb3 delete table --database ours.*--keep-old"):
        make_deleter(InfluxSettings(url="http://h:1", api="v3", bucket="ours"))
