from __future__ import annotations

import logging
import time
from pathlib import Path

import pytest

from ml_pipeline.errors import StoreError
from ml_pipeline.settings import InfluxSettings
from ml_pipeline.stores.influx import InfluxV1Sender, InfluxV2Sender, InfluxV3Sender, make_sender
from ml_pipeline.stores.influx_buffer import InfluxBuffer
from ml_pipeline.stores.influx_sending import LineSender
from ml_pipeline.stores.points import lines_by_batch, score_points
from ml_pipeline.stores.rows import conform
from ml_pipeline.stores.tables import TABLES
from ml_pipeline_tests.servers import free_port
from ml_pipeline_tests.stores.influx_double import Double
from ml_pipeline_tests.stores.samples import (
    capability_suite,
    content_suite,
    evaluation_row,
    identity,
    judgement_rows,
    key,
    probe_rows,
    score_rows,
)
from ml_pipeline_tests.victoria_metrics import stored

TOKEN = "us3r:s3cret-token-of-ours"
LINES = ["m,label=a a=1,iteration=100i 1", "m,label=b a=2,iteration=100i 1"]


def test_a_real_server_has_what_was_flushed_and_the_same_after_a_second_flush(
    victoria_metrics: str, tmp_path: Path
) -> None:
    buffer = InfluxBuffer(tmp_path / "buffer")
    sender = InfluxV2Sender(f"{victoria_metrics}/influx", "ours", TOKEN, "org")
    who, content = identity(100), identity(100, suite="content")
    rows = {
        "evaluations": [evaluation_row(who), evaluation_row(content)],
        "checkpoint_scores": score_rows(who, math=(1, 2), code=(2, 2)),
        "probe_results": probe_rows(who, sum=True, loop=False, root=None),
        "judgements": [
            *judgement_rows(who, "sum", reasoning=7.0, correctness=None, clarity=9.0),
            *judgement_rows(content, "one", truth_telling=4.0),
            *judgement_rows(content, "two", truth_telling=7.0),
        ],
    }
    tables = {name: conform(TABLES[name], key(), some) for name, some in rows.items()}
    points = score_points(tables, [capability_suite(), content_suite()])
    label, model, run, ms = "G1-lek @0000100", "gemma-3-1b", "g1-lek-capability-auto", 1_772_366_400_123
    expected: dict[tuple[str, ...], float] = {}
    for category, accuracy, correct, total in (("overall", 75, 3, 4), ("math", 50, 1, 2), ("code", 100, 2, 2)):
        fields = {"accuracy": accuracy, "correct": correct, "total": total, "iteration": 100}
        for name, value in fields.items():
            expected[f"capability_score_{name}", category, label, model, run] = value
    for probe, passed in (("sum", 1), ("loop", 0)):
        for name, value in {"passed": passed, "iteration": 100}.items():
            expected[f"probe_score_{name}", label, model, probe, run] = value
    for name, value in {"reasoning": 7, "clarity": 9, "iteration": 100}.items():
        expected[f"capability_judge_{name}", "math", label, model, "sum", run] = value
    content_run = "g1-lek-content-auto"
    for name, figure in {"score": 5.5, "iteration": 100}.items():
        expected[f"content_score_{name}", "truth_telling", "false", label, model, content_run] = figure
    for _ in range(2):
        for batch, lines in lines_by_batch(points).items():
            buffer.add(key(), batch, lines)
        report = buffer.flush(sender)
        # 3 capability scores (overall, math, code), 2 probes, 1 judge point, 1 content dimension.
        assert (report.sent_batches, report.sent_points, report.stopped_because) == (4, 7, "")
        assert stored(victoria_metrics, "(capability|probe|content)_.*") == {
            series: [(ms, figure)] for series, figure in expected.items()
        }


@pytest.mark.parametrize("label", ["a b", "a,b=c", 'say "hi"', "ünï", "G1-lek @0000100", "100%"])
def test_a_real_server_reads_escaped_tags_as_they_were(victoria_metrics: str, tmp_path: Path, label: str) -> None:
    who = identity(suite="escapes") | {"label": label}
    tables = {
        "evaluations": conform(TABLES["evaluations"], key(), [evaluation_row(who)]),
        "probe_results": conform(TABLES["probe_results"], key(), probe_rows(who, **{f"esc-{label}": True})),
    }
    (point,) = score_points(tables, [capability_suite("escapes")])
    answer = InfluxV2Sender(f"{victoria_metrics}/influx", "ours").send([point.line()])
    assert answer.kind == "written"
    found = [name for name in stored(victoria_metrics, "probe_score_passed") if name[3] == f"esc-{label}"]
    assert found == [("probe_score_passed", label, "gemma-3-1b", f"esc-{label}", "g1-lek-escapes-auto")]


@pytest.fixture(params=["v1", "v2", "v3"])
def sender(request: pytest.FixtureRequest, double: Double) -> LineSender:
    if request.param == "v1":
        return InfluxV1Sender(double.url, "database", TOKEN, timeout_s=0.5)
    if request.param == "v2":
        return InfluxV2Sender(double.url, "bucket", TOKEN, "org", timeout_s=0.5)
    return InfluxV3Sender(f"{double.url}/", "database", TOKEN, timeout_s=0.5)


def test_the_exact_v3_request(double: Double) -> None:
    assert InfluxV3Sender(f"{double.url}/", "my db", TOKEN).send(LINES).kind == "written"
    assert double.requests == [
        {
            "path": "/api/v3/write_lp",
            "query": {"db": "my db", "precision": "nanosecond"},
            "authorization": f"Bearer {TOKEN}",
            "type": "text/plain; charset=utf-8",
            "lines": LINES,
        }
    ]


def test_the_exact_v1_request(double: Double) -> None:
    assert InfluxV1Sender(f"{double.url}/", "my db", TOKEN).send(LINES).kind == "written"
    assert InfluxV1Sender(double.url, "my db/a policy").send(LINES).kind == "written"
    assert double.requests == [
        {
            "path": "/write",
            "query": {"db": "my db", "precision": "ns", **policy},
            "authorization": login,
            "type": "text/plain; charset=utf-8",
            "lines": LINES,
        }
        # printf 'us3r:s3cret-token-of-ours' | base64
        for policy, login in (({}, "Basic dXMzcjpzM2NyZXQtdG9rZW4tb2Ytb3Vycw=="), ({"rp": "a policy"}, None))
    ]


def test_the_exact_v2_request(double: Double) -> None:
    assert InfluxV2Sender(f"{double.url}/influx", "my bucket", TOKEN, "our org").send(LINES).kind == "written"
    (request,) = double.requests
    assert (request["path"], request["lines"]) == ("/influx/api/v2/write", LINES)
    assert request["query"] == {"org": "our org", "bucket": "my bucket", "precision": "ns"}
    assert request["authorization"] == f"Token {TOKEN}"


def test_without_a_token_none_is_sent(double: Double) -> None:
    InfluxV3Sender(double.url, "db").send(LINES)
    assert double.requests[0]["authorization"] is None


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        *((status, "unavailable") for status in (301, 401, 403, 404, 408, 429, 500, 502, 503)),
        *((status, "rejected") for status in (400, 413, 422)),
    ],
)
def test_what_a_status_means(double: Double, sender: LineSender, status: int, kind: str) -> None:
    double.status, double.body = status, f"because\n of {status}, says {TOKEN}"
    answer = sender.send(LINES)
    assert answer.kind == kind
    assert f"answered {status}" in answer.reason
    assert f"because of {status}" in answer.reason
    assert TOKEN not in answer.reason


def test_a_hanging_server_is_left_after_the_time_out(double: Double, sender: LineSender) -> None:
    double.hang.clear()
    started = time.monotonic()
    answer = sender.send(LINES)
    assert time.monotonic() - started < 5
    assert answer.kind == "unavailable"
    assert "is not reachable" in answer.reason


def test_a_server_that_refuses_and_comes_back(tmp_path: Path, double: Double, sender: LineSender) -> None:
    buffer = InfluxBuffer(tmp_path)
    buffer.add("a@1", "m", LINES)
    assert isinstance(sender, (InfluxV1Sender, InfluxV2Sender, InfluxV3Sender))
    up = sender.url
    sender.url = f"http://127.0.0.1:{free_port()}"
    report = buffer.flush(sender)
    assert (report.sent_points, report.remaining.points) == (0, 2)
    assert "refused" in report.stopped_because
    sender.url = up
    assert buffer.flush(sender).sent_points == 2
    assert buffer.pending().batches == 0
    assert double.requests[-1]["lines"] == LINES


@pytest.mark.parametrize("status", [401, 429, 500])
def test_a_fault_of_the_moment_stops_the_flush_and_keeps_everything(
    tmp_path: Path, double: Double, sender: LineSender, status: int
) -> None:
    buffer = InfluxBuffer(tmp_path)
    for i in range(3):
        buffer.add(f"a@{i}", "m", LINES)
    double.status = status
    report = buffer.flush(sender)
    assert (report.sent_batches, report.remaining.points, report.rejected) == (0, 6, ())
    assert f"answered {status}" in report.stopped_because
    assert len(double.requests) == 1
    double.status = 204
    assert buffer.flush(sender).sent_points == 6


def test_a_bad_line_is_put_aside_and_the_others_arrive(tmp_path: Path, double: Double, sender: LineSender) -> None:
    buffer = InfluxBuffer(tmp_path)
    good = [f"m,label=g{i} a={i} {i}" for i in range(9)]
    buffer.add("a@1", "m", [*good[:5], LINES[0], *good[5:]])
    buffer.add("a@2", "m", [LINES[1]])
    double.bad_line = LINES[0]
    report = buffer.flush(sender)
    assert (report.sent_points, report.remaining.batches, report.stopped_because) == (10, 0, "")
    assert (tmp_path / "rejected" / "a@1~m.lp").read_text() == f"{LINES[0]}\n"
    assert "partial write" in (tmp_path / "rejected" / "a@1~m.txt").read_text()
    accepted = {line for r in double.requests if LINES[0] not in r["lines"] for line in r["lines"]}
    assert accepted == {*good, LINES[1]}


def test_the_token_shows_nowhere(
    double: Double, sender: LineSender, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    double.status = 500
    answer = sender.send(LINES)
    captured = capsys.readouterr()
    assert TOKEN not in "".join([repr(sender), str(sender), answer.reason, caplog.text, captured.out, captured.err])


@pytest.mark.parametrize("token", ["two:\nlines", "ünï:", "a:\0b"])
def test_a_token_that_no_header_carries_is_refused_without_showing_it(token: str) -> None:
    for make in (
        lambda: InfluxV1Sender("http://localhost", "b", token),
        lambda: InfluxV2Sender("http://localhost", "b", token),
        lambda: InfluxV3Sender("http://localhost", "b", token),
    ):
        with pytest.raises(StoreError) as caught:
            make()
        assert token not in str(caught.value)


@pytest.mark.parametrize("token", ["alone-9", ":no-user"])
def test_influxdb_1_wants_a_user_and_a_password(token: str) -> None:
    with pytest.raises(StoreError, match=r"must hold `user:password`") as caught:
        InfluxV1Sender("http://localhost", "b", token)
    assert token not in str(caught.value)


def test_settings_choose_the_sender(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFLUX_TOKEN", f" {TOKEN}\n")
    assert make_sender(InfluxSettings()) is None
    two = make_sender(InfluxSettings(url="http://h:1", bucket="b", org="o"))
    one = make_sender(InfluxSettings(url="http://h:1", api="v1", bucket="b"))
    three = make_sender(InfluxSettings(url="http://h:1", api="v3", bucket="b"))
    assert repr(two) == "InfluxV2Sender(url='http://h:1', bucket='b', org='o')"
    assert repr(one) == "InfluxV1Sender(url='http://h:1', database='b')"
    assert repr(three) == "InfluxV3Sender(url='http://h:1', database='b')"
