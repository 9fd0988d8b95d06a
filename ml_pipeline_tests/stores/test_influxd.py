"""A real InfluxDB 1 through the buffer: nothing lost, nothing doubled, whatever happens to the server."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from ml_pipeline.settings import InfluxSettings
from ml_pipeline.stores.influx import InfluxV1Sender, make_sender
from ml_pipeline.stores.influx_buffer import InfluxBuffer
from ml_pipeline.stores.io_managers import InfluxIOManager
from ml_pipeline.stores.points import ScorePoint, lines_by_batch, score_points
from ml_pipeline.stores.rows import conform
from ml_pipeline.stores.tables import TABLES
from ml_pipeline.stores.training_points import training_points
from ml_pipeline_tests.influxd import DATABASE, LOGIN, PASSWORD, Front, Influxd, front_of
from ml_pipeline_tests.stores import test_training_points
from ml_pipeline_tests.stores.samples import (
    MTIME_NS,
    capability_suite,
    content_suite,
    evaluation_row,
    identity,
    judgement_rows,
    key,
    probe_rows,
    score_rows,
)


@pytest.fixture
def sender(influxd: Influxd) -> InfluxV1Sender:
    return InfluxV1Sender(influxd.url, DATABASE, LOGIN)


@pytest.fixture
def front(influxd: Influxd) -> Iterator[Front]:
    with front_of(influxd.url) as front:
        yield front


def test_the_five_measurements_as_the_original_had_them_and_the_same_when_sent_twice(
    influxd: Influxd, sender: InfluxV1Sender, tmp_path: Path
) -> None:
    buffer = InfluxBuffer(tmp_path)
    who, content = identity(100), identity(100, suite="content")
    rows = {
        "evaluations": [evaluation_row(who), evaluation_row(content)],
        "checkpoint_scores": score_rows(who, math=(1, 2)),
        "probe_results": probe_rows(who, sum=True, loop=False, root=None),
        "judgements": [
            *judgement_rows(who, "sum", reasoning=7.0, correctness=None),
            *judgement_rows(content, "one", truth_telling=4.0),
            *judgement_rows(content, "two", truth_telling=7.0),
        ],
    }
    tables = {name: conform(TABLES[name], key(), some) for name, some in rows.items()}
    points = [
        *score_points(tables, [capability_suite(), content_suite()]),
        *training_points(test_training_points.rows({"kind": "val", "iteration": 2000, "loss": 2.5})),
    ]
    label, model, run = "G1-lek @0000100", "gemma-3-1b", "g1-lek-capability-auto"
    accuracy = {"accuracy": 50.0, "correct": 1, "total": 2, "iteration": 100}
    expected = {
        ("capability_score", MTIME_NS, ("overall", label, model, run)): accuracy,
        ("capability_score", MTIME_NS + 1, ("math", label, model, run)): accuracy,
        ("probe_score", MTIME_NS + 100, (label, model, "sum", run)): {"passed": 1, "iteration": 100},
        ("probe_score", MTIME_NS + 101, (label, model, "loop", run)): {"passed": 0, "iteration": 100},
        ("capability_judge", MTIME_NS + 100, ("math", label, model, "sum", run)): {"reasoning": 7, "iteration": 100},
        ("content_score", MTIME_NS + 1, ("truth_telling", "false", label, model, "g1-lek-content-auto")): {
            "score": 5.5,
            "iteration": 100,
        },
        ("training_loss", test_training_points.START_NS + 2000 * 10**7, ("val", model, "15k-g1")): {
            "loss": 2.5,
            "iteration": 2000,
        },
    }
    for _ in range(2):
        for batch, lines in lines_by_batch(points).items():
            buffer.add(key(), batch, lines)
        report = buffer.flush(sender)
        assert (report.sent_batches, report.sent_points, report.stopped_because) == (5, 7, "")
        assert influxd.points() == expected


@pytest.mark.parametrize("label", ["a b", "a,b=c", 'say "hi"', "it's", "ünï", "100%", "a\\b"])
def test_escaped_tags_are_read_as_they_were(influxd: Influxd, sender: InfluxV1Sender, label: str) -> None:
    who = identity() | {"label": label}
    tables = {
        "evaluations": conform(TABLES["evaluations"], key(), [evaluation_row(who)]),
        "probe_results": conform(TABLES["probe_results"], key(), probe_rows(who, sum=True)),
    }
    (point,) = score_points(tables, [capability_suite()])
    assert sender.send([point.line()]).kind == "written"
    assert [tags[0] for _, _, tags in influxd.points()] == [label]


def test_bad_lines_are_put_aside_with_the_servers_reason_and_sent_again_on_request(
    influxd: Influxd, sender: InfluxV1Sender, tmp_path: Path
) -> None:
    """One line that is none, and one whose field has another type than the server has it as."""
    assert sender.send(["typed,at=first a=1.5 1"]).kind == "written"
    buffer = InfluxBuffer(tmp_path)
    good = [f"m,i={i} a={i} {i}" for i in range(20)]
    buffer.add("a@1", "m", [*good[:7], "no line at all", *good[7:13], "typed,at=second a=2i 2", *good[13:]])
    buffer.add("a@2", "m", ["m,i=other a=1 1"])
    report = buffer.flush(sender)
    assert (report.sent_points, report.remaining.batches, report.stopped_because) == (21, 0, "")
    (rejected,) = report.rejected
    assert (rejected.batch, rejected.lines) == ("a@1~m", 2)
    assert "unable to parse" in rejected.reason
    assert "field type conflict" in rejected.reason
    letter = tmp_path / "rejected" / "a@1~m.lp"
    assert letter.read_text() == "no line at all\ntyped,at=second a=2i 2\n"
    assert letter.with_suffix(".txt").read_text() == f"{rejected.reason}\n"
    assert len(influxd.points("m")) == 21
    assert len(influxd.points("typed")) == 1

    influxd.query("DROP MEASUREMENT typed")
    assert buffer.requeue_rejected() == 1
    again = buffer.flush(sender)
    assert (again.sent_points, [one.lines for one in again.rejected]) == (1, [1])
    assert letter.read_text() == "no line at all\n"
    assert influxd.points("typed") == {("typed", 2, ("second",)): {"a": 2}}


def test_logins_databases_and_policies(influxd: Influxd) -> None:
    answers = {
        "wrong": InfluxV1Sender(influxd.url, DATABASE, "writer:guess").send(["m a=1 1"]),
        "none": InfluxV1Sender(influxd.url, DATABASE).send(["m a=1 1"]),
        "database": InfluxV1Sender(influxd.url, "nowhere", LOGIN).send(["m a=1 1"]),
        "policy": InfluxV1Sender(influxd.url, f"{DATABASE}/short", LOGIN).send(["m a=1 1"]),
    }
    assert {answer.kind for name, answer in answers.items() if name != "policy"} == {"unavailable"}
    assert "user:password" in answers["wrong"].reason
    assert "database not found" in answers["database"].reason
    assert "retention policy not found" in answers["policy"].reason
    assert not any(PASSWORD in answer.reason or "guess" in answer.reason for answer in answers.values())
    influxd.query(f"CREATE RETENTION POLICY short ON {DATABASE} DURATION INF REPLICATION 1")
    assert InfluxV1Sender(influxd.url, f"{DATABASE}/short", LOGIN).send(["m a=1 1"]).kind == "written"
    assert influxd.points(f"{DATABASE}.short.m") == {("m", 1, ()): {"a": 1}}


def test_a_login_comes_from_a_file(influxd: Influxd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("INFLUX_TOKEN", raising=False)
    (tmp_path / "login").write_text(f"{LOGIN}\n")
    sender = make_sender(
        InfluxSettings(url=influxd.url, api="v1", bucket=DATABASE, token_file=tmp_path / "login", timeout_s=5)
    )
    assert sender is not None
    assert sender.send(["m a=1 1"]).kind == "written"
    assert influxd.points() == {("m", 1, ()): {"a": 1}}


def test_whatever_happens_on_the_way_nothing_is_lost_or_doubled(influxd: Influxd, front: Front, tmp_path: Path) -> None:
    """80 batches through a front that fails, hangs, and loses answers of writes that were done, in a random order."""
    chance = random.Random(6)
    fates: list[int | str] = [500, 503, 429, 401, "hang", "lose", "pass", 400]
    sender = InfluxV1Sender(front.url, DATABASE, LOGIN, timeout_s=0.3)
    buffer = InfluxBuffer(tmp_path)
    expected: dict[tuple[str, int, tuple[str, ...]], dict[str, float]] = {}
    for i in range(80):
        buffer.add(f"run@{i}", "m", [f"m,i={i},j={j} a={i} {1000 * i + j}" for j in range(5)])
        expected |= {("m", 1000 * i + j, (f"{i}", f"{j}")): {"a": i} for j in range(5)}
        if i % 2:
            front.plan.append(chance.choice(fates))
            report = buffer.flush(sender)
            # A 400 for several lines at once is looked into; these were all fine.
            assert not report.rejected
            in_server, waiting = influxd.points("m"), set(buffer.lines())
            assert len(waiting) == report.remaining.points
            assert {*in_server, *(_identity(line) for line in waiting)} == set(expected)
    assert set(front.happened) >= set(fates)
    front.plan.clear()
    assert buffer.flush(sender).stopped_because == ""
    assert buffer.pending().batches == 0
    assert influxd.points("m") == expected


def _identity(line: str) -> tuple[str, int, tuple[str, ...]]:
    series, _, time_ns = line.split(" ")
    name, *tags = series.split(",")
    return name, int(time_ns), tuple(tag.partition("=")[2] for tag in tags)


def test_a_server_that_is_stopped_and_comes_back_has_everything_once(tmp_path: Path) -> None:
    folder = tmp_path / "influxd"
    folder.mkdir()
    server, buffer = Influxd(folder), InfluxBuffer(tmp_path / "buffer")
    sender = InfluxV1Sender(server.url, DATABASE, LOGIN, timeout_s=5)
    expected = {}
    for round_ in range(3):
        for i in range(4):
            buffer.add(f"r{round_}@{i}", "m", [f"m,r={round_} a={i} {10 * round_ + i}"])
            expected["m", 10 * round_ + i, (f"{round_}",)] = {"a": i}
        report = buffer.flush(sender)
        assert (report.sent_points, report.remaining.points) == (0, 4)
        assert "not reachable" in report.stopped_because
        with server.up():
            assert buffer.flush(sender).remaining.points == 0
            assert server.points() == expected


def test_a_full_buffer_empties_itself_into_the_server(
    influxd: Influxd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INFLUX_TOKEN", LOGIN)
    limit = 2**20
    manager = InfluxIOManager(
        buffer_folder=str(tmp_path), url=influxd.url, api="v1", bucket=DATABASE, buffer_bytes=limit, buffer_wait_s=5
    )
    line = f"big a=1 {10**18}"
    count = limit // (len(line) + 1)
    manager.buffer().add("a@big", "m", [f"big a=1 {10**18 + i}" for i in range(count)])
    for i in range(6):
        manager.keep(f"a@{i}", [ScorePoint("m", "s", {"i": f"{i}"}, {"a": i}, i)])
    assert manager.buffer().pending().size_bytes < 1000
    report = manager.write_partition("a@6", [ScorePoint("m", "s", {"i": "6"}, {"a": 6}, 6)])
    assert report.remaining.points == 0
    assert influxd.points("m") == {("m", i, (f"{i}",)): {"a": i} for i in range(7)}
    assert influxd.query("SELECT COUNT(a) FROM big")[0]["values"][0][1] == count
