"""The Grafana dashboard: every panel's query, on a real InfluxDB that the program filled, gives the stored scores."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from math import fsum
from pathlib import Path
from typing import Any

import pytest

from ml_pipeline.stores.influx import InfluxV1Sender
from ml_pipeline.stores.influx_buffer import InfluxBuffer
from ml_pipeline.stores.parquet import ParquetStore
from ml_pipeline.stores.points import lines_by_batch, score_points, stored_point_tables
from ml_pipeline.stores.tables import CHECKPOINT_TABLES, TABLES
from ml_pipeline.stores.training_points import training_points
from ml_pipeline_tests.influxd import DATABASE, LOGIN, Influxd
from ml_pipeline_tests.stores import test_training_points
from ml_pipeline_tests.stores.samples import (
    MTIME_NS,
    Row,
    capability_suite,
    content_suite,
    evaluation_row,
    identity,
    judgement_rows,
    key,
    probe_rows,
    score_rows,
)

DASHBOARD = json.loads((Path(__file__).parents[1] / "grafana" / "ml_pipeline.json").read_text())
RUNS = {"g1-lek": (100, 200), "15k/a.b+c": (100,)}
LOSSES = [
    {"kind": kind, "iteration": iteration, "loss": loss}
    for kind, iteration, loss in (("train", 10, 2.25), ("val", 10, 2.5), ("train", 20, 1.75), ("val", 20, 2.0))
]
MINUTE_NS = 60 * 10**9


def rows_of(run: str, iteration: int) -> dict[str, list[Row]]:
    who, content = identity(iteration, run=run), identity(iteration, run=run, suite="content")
    right = iteration // 100
    tables: dict[str, list[Row]] = {table.name: [] for table in CHECKPOINT_TABLES}
    time = {"checkpoint_mtime_ns": MTIME_NS + iteration * MINUTE_NS}
    return tables | {
        "evaluations": [evaluation_row(who) | time, evaluation_row(content) | time],
        "checkpoint_scores": score_rows(who, math=(right - 1, 2), code=(1, 1)),
        "probe_results": probe_rows(who, sum=right > 1, loop=True, root=None),
        "judgements": [
            *judgement_rows(who, "sum", reasoning=7.0, avg=5.0 + right),
            *judgement_rows(who, "loop", reasoning=None, avg=2.5),
            *judgement_rows(content, "one", truth_telling=float(right), engagement=3.0),
            *judgement_rows(content, "two", truth_telling=6.0, engagement=None),
        ],
    }


@pytest.fixture
def stored(influxd: Influxd, tmp_path: Path) -> list[dict[str, Any]]:
    """Fill the server as a scoring run does; the stored rows of every table, with the name of their table."""
    parquet, buffer = ParquetStore(tmp_path / "parquet"), InfluxBuffer(tmp_path / "buffer")
    everything = []
    suites = [capability_suite(), content_suite()]
    for run, iterations in RUNS.items():
        for iteration in iterations:
            name = key(iteration, run=run)
            for table, rows in rows_of(run, iteration).items():
                parquet.write(TABLES[table], name, rows)
            tables = stored_point_tables(parquet, name)
            everything += [{"table": table, **row} for table, rows in tables.items() for row in rows.to_pylist()]
            for batch, lines in lines_by_batch(score_points(tables, suites)).items():
                buffer.add(name, batch, lines)
    losses = test_training_points.rows(*LOSSES)
    for batch, lines in lines_by_batch(training_points(losses)).items():
        buffer.add("lab.15k+g1", batch, lines)
    report = buffer.flush(InfluxV1Sender(influxd.url, DATABASE, LOGIN))
    assert (report.remaining.points, report.rejected) == (0, ())
    return everything


class Grafana:
    """Does with the dashboard's queries what Grafana does before it sends them."""

    def __init__(self, server: Influxd) -> None:
        self._server = server
        self.values: dict[str, list[str]] = {}
        for variable in DASHBOARD["templating"]["list"]:
            if variable["type"] == "query":
                series = server.query(self.filled(variable["query"]))
                self.values[variable["name"]] = sorted({value for one in series for _, value in one["values"]})

    def filled(self, query: str) -> str:
        query = query.replace("$timeFilter", f"time >= 0ms and time <= {2 * MTIME_NS // 10**6}ms")
        for name, values in sorted(self.values.items(), reverse=True):
            escaped = [re.sub(r"[\\^$*+?.()|[\]{}/]", r"\\\g<0>", value) for value in values]
            query = query.replace(f"${name}", f"({'|'.join(escaped)})")
        assert "$" not in query.replace("$/", ""), query
        return query

    def rows(self, title: str) -> list[dict[str, Any]]:
        (panel,) = [panel for panel in DASHBOARD["panels"] if panel["title"] == title]
        (target,) = panel["targets"]
        return [
            {**series.get("tags", {}), **dict(zip(series["columns"], values, strict=True))}
            for series in self._server.query(self.filled(target["query"]))
            for values in series["values"]
        ]


@pytest.fixture
def grafana(influxd: Influxd, stored: list[dict[str, Any]]) -> Grafana:
    return Grafana(influxd)


def run_id(row: Row) -> str:
    return f"{row['run_id']}-{row['suite']}-auto"


def of(stored: list[dict[str, Any]], table: str) -> list[dict[str, Any]]:
    return [row for row in stored if row["table"] == table]


def taken(rows: list[dict[str, Any]], *names: str) -> list[tuple[Any, ...]]:
    return sorted(tuple(row[name] for name in names) for row in rows)


def test_the_variables_list_models_and_runs(grafana: Grafana) -> None:
    assert grafana.values == {
        "model": ["gemma-3-1b"],
        "run": ["15k-a.b+c-capability-auto", "g1-lek-capability-auto"],
        "content_run": ["15k-a.b+c-content-auto", "g1-lek-content-auto"],
        "training_run": ["15k-g1"],
    }


@pytest.mark.parametrize("title", ["Accuracy by iteration", "Accuracy over time"])
def test_accuracy_of_each_run(grafana: Grafana, stored: list[dict[str, Any]], title: str) -> None:
    by_iteration = title == "Accuracy by iteration"
    expected = sorted(
        (run_id(row), row["iteration"] if by_iteration else MTIME_NS + row["iteration"] * MINUTE_NS, row["accuracy"])
        for row in of(stored, "checkpoint_scores")
        if row["category"] == "overall"
    )
    found = taken(grafana.rows(title), "run_id", "iteration" if by_iteration else "time", "accuracy")
    assert [(run, at, pytest.approx(accuracy * 100)) for run, at, accuracy in expected] == found
    assert len(found) == 3


def test_the_best_checkpoint_of_each_run(grafana: Grafana) -> None:
    found = taken(
        grafana.rows("Best checkpoint of each run"), "run_id", "label", "iteration", "correct", "total", "accuracy"
    )
    assert found == [
        ("15k-a.b+c-capability-auto", "G1-lek @0000100", 100, 1, 3, pytest.approx(100 / 3)),
        ("g1-lek-capability-auto", "G1-lek @0000200", 200, 2, 3, pytest.approx(200 / 3)),
    ]


def test_accuracy_by_category(grafana: Grafana, stored: list[dict[str, Any]]) -> None:
    expected = sorted(
        (run_id(row), row["category"], row["iteration"], row["accuracy"] * 100)
        for row in of(stored, "checkpoint_scores")
        if row["category"] != "overall"
    )
    assert taken(grafana.rows("Accuracy by category"), "run_id", "category", "iteration", "accuracy") == expected
    assert len(expected) == 6


def test_every_scored_probe_of_every_checkpoint(grafana: Grafana, stored: list[dict[str, Any]]) -> None:
    expected = sorted(
        (run_id(row), row["probe_id"], (MTIME_NS + row["iteration"] * MINUTE_NS) // 10**6, int(row["passed"]))
        for row in of(stored, "probe_results")
        if row["passed"] is not None
    )
    # Grafana asks for milliseconds: in these all probes of a checkpoint stand in one column.
    rows = [{**row, "ms": row["time"] // 10**6} for row in grafana.rows("Probes passed")]
    assert taken(rows, "run_id", "probe_id", "ms", "passed") == expected
    assert len(expected) == 6


def test_the_judge_on_capability_answers(grafana: Grafana, stored: list[dict[str, Any]]) -> None:
    figures = defaultdict(list)
    for row in of(stored, "judgements"):
        if row["suite"] == "capability" and row["dimension"] == "avg":
            figures[run_id(row), row["iteration"]].append(row["score"])
    expected = sorted((*name, fsum(scores) / len(scores)) for name, scores in figures.items())
    assert taken(grafana.rows("Judge on capability answers"), "run_id", "iteration", "judge") == expected
    assert expected[-1] == ("g1-lek-capability-auto", 200, (7.0 + 2.5) / 2)


def test_the_judge_on_content_answers(grafana: Grafana, stored: list[dict[str, Any]]) -> None:
    figures = defaultdict(list)
    for row in of(stored, "judgements"):
        if row["suite"] == "content" and row["score"] is not None:
            figures[run_id(row), row["dimension"], row["iteration"]].append(row["score"])
    expected = sorted((*name, fsum(scores) / len(scores)) for name, scores in figures.items())
    assert taken(grafana.rows("Judge on content answers"), "run_id", "dimension", "iteration", "score") == expected
    assert len(expected) == 6


def test_training_losses(grafana: Grafana) -> None:
    expected = sorted(("15k-g1", row["kind"], row["iteration"], row["loss"]) for row in LOSSES)
    assert taken(grafana.rows("Training loss"), "run_id", "loss_type", "iteration", "loss") == expected


def test_every_panel_is_checked_and_names_what_it_asks_for() -> None:
    checked = set(re.findall(r'rows\(\s*"([^"]+)"', Path(__file__).read_text())) | {"Accuracy by iteration"}
    titles = [panel["title"] for panel in DASHBOARD["panels"]]
    assert set(titles) <= checked | {"Accuracy over time"}
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(titles)
    for panel in DASHBOARD["panels"]:
        assert panel["datasource"]["uid"] == panel["targets"][0]["datasource"]["uid"] == "${datasource}"
        for transformation in panel["transformations"]:
            fields = transformation["options"].get("fields", [])
            assert all(f'"{field}"' in panel["targets"][0]["query"] for field in fields)
