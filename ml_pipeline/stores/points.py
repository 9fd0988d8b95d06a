"""Points for dashboards: the original's four measurements, made from the rows of the tables.

Tags and fields are the original's (the Go system of this name). A point's time is a pure function of the
checkpoint, so sending it again changes nothing. What is unscored makes no point: never a 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

from ml_pipeline.errors import StoreError
from ml_pipeline.settings import IMPORTED_SOURCE
from ml_pipeline.stores.line_protocol import line_of
from ml_pipeline.stores.parquet import ParquetStore
from ml_pipeline.stores.tables import CHECKPOINT_SCORES, EVALUATIONS, JUDGEMENTS, PROBE_RESULTS
from ml_pipeline.suites.suite import Suite

TimeBase = Literal["real", "original"]
Row = Mapping[str, Any]

ORIGINAL_EPOCH_S = 1_739_577_600
"""2025-02-15T00:00Z, compiled into the original."""
_FIRST_CATEGORY, _FIRST_PROBE = 1, 100
_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class ScorePoint:
    """One point: its measurement, tags, fields, and time in ns since 1970. `suite` names what it is sent with."""

    measurement: str
    suite: str
    tags: Mapping[str, str]
    fields: Mapping[str, int | float]
    time_ns: int

    def line(self) -> str:
        """The point as line protocol with nanoseconds, as `line_of` writes it."""
        return line_of(self.measurement, self.tags, self.fields, self.time_ns)


def score_points(
    tables: Mapping[str, pa.Table], suites: Iterable[Suite], time_base: TimeBase = "real"
) -> list[ScorePoint]:
    """Make the points of every checkpoint and suite in `tables` (rows by table name, as stored).

    `evaluations` gives the checkpoints' times; `checkpoint_scores`, `probe_results` and `judgements` may be absent.
    Suites of kind capability make capability_score, probe_score and capability_judge, those of kind content make
    content_score. A run_id ends with `-<suite>-auto`, which for the shipped suites is what the original wrote.
    Rows of a suite that is not given are left out, and so are a probe's further answers after its first and imported
    rows, whose points are what the original wrote.

    With `time_base` "real" a point's time is the checkpoint file's mtime plus its ordinal in ns (a base model whose
    file is on another machine has no mtime: it starts at ORIGINAL_EPOCH_S); with "original" it is
    ORIGINAL_EPOCH_S + 1000 * iteration + ordinal, in s. Ordinals: 0 overall, 1.. categories (for content_score:
    dimensions) in the suite's order, 100.. probes.

    Raises:
        StoreError: rows have no evaluation, whose checkpoint would give them their time.
    """
    by_name = {suite.name: suite for suite in suites}
    clock = _Clock(tables.get(EVALUATIONS.name), time_base)
    points: list[ScorePoint] = []
    for name, maker in (
        (CHECKPOINT_SCORES.name, _capability_scores),
        (PROBE_RESULTS.name, _probe_scores),
        (JUDGEMENTS.name, _judgements),
    ):
        for (partition_key, suite_name), rows in _groups(tables.get(name)).items():
            suite = by_name.get(suite_name)
            if suite is not None:
                points += maker(suite, rows, clock.origin(partition_key, suite_name))
    return points


def stored_point_tables(parquet: ParquetStore, partition_key: str) -> dict[str, pa.Table]:
    """The stored rows of one checkpoint that points are made of, by table name; a table without any is left out.

    Raises:
        StoreError: a file is damaged or newer than this program.
    """
    tables = (EVALUATIONS, CHECKPOINT_SCORES, PROBE_RESULTS, JUDGEMENTS)
    return {t.name: parquet.read(t, partition_key) for t in tables if parquet.has(t, partition_key)}


def lines_by_batch(points: Iterable[ScorePoint]) -> dict[str, list[str]]:
    """Line protocol by the name of the batch that it goes into: one batch a measurement and suite."""
    batches: dict[str, list[str]] = {}
    for point in points:
        batches.setdefault(batch_name(point.measurement, point.suite), []).append(point.line())
    return batches


def batch_name(measurement: str, suite: str) -> str:
    """The name of the batch that a measurement's points of one suite go into."""
    return f"{measurement}~{suite}"


@dataclass(frozen=True, slots=True)
class _Origin:
    """Where the time of one checkpoint starts, and how far apart its ordinals are, in ns."""

    start_ns: int
    step_ns: int

    def at(self, ordinal: int) -> int:
        return self.start_ns + ordinal * self.step_ns


class _Clock:
    def __init__(self, evaluations: pa.Table | None, time_base: TimeBase) -> None:
        self._origins: dict[tuple[str, str], _Origin] = {}
        for row in evaluations.to_pylist() if evaluations is not None else []:
            self._origins[row["partition_key"], row["suite"]] = (
                _Origin(row["checkpoint_mtime_ns"] or ORIGINAL_EPOCH_S * _NS, 1)
                if time_base == "real"
                else _Origin((ORIGINAL_EPOCH_S + row["iteration"] * 1000) * _NS, _NS)
            )

    def origin(self, partition_key: str, suite: str) -> _Origin:
        try:
            return self._origins[partition_key, suite]
        except KeyError:
            raise StoreError(
                f"no points for {partition_key}, suite {suite}: table {EVALUATIONS.name} has no row for it, so its "
                "checkpoint's time is unknown. Materialise the partition again."
            ) from None


def _groups(rows: pa.Table | None) -> dict[tuple[str, str], list[Row]]:
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows.to_pylist() if rows is not None else []:
        if row["source"] != IMPORTED_SOURCE:
            groups.setdefault((row["partition_key"], row["suite"]), []).append(row)
    return groups


def _ordinals(known: Iterable[str], found: Iterable[str], first: int) -> dict[str, int]:
    """Ordinals in the suite's order; names of an older version of the suite follow in alphabetical order."""
    names = list(known)
    return {name: first + i for i, name in enumerate([*names, *sorted(set(found) - set(names))])}


def _tags(suite: Suite, row: Row, **more: str) -> dict[str, str]:
    return {"model": row["model"], "run_id": f"{row['run_id']}-{suite.name}-auto", "label": row["label"], **more}


def _capability_scores(suite: Suite, rows: list[Row], origin: _Origin) -> Iterator[ScorePoint]:
    if suite.kind != "capability":
        return
    categories = [c for c in suite.categories if c != "overall"]
    found = {row["category"] for row in rows} - {"overall"}
    ordinals = {"overall": 0, **_ordinals(categories, found, _FIRST_CATEGORY)}
    for row in sorted(rows, key=lambda r: ordinals[r["category"]]):
        if row["total"]:
            yield ScorePoint(
                "capability_score",
                suite.name,
                _tags(suite, row, category=row["category"]),
                {
                    "accuracy": row["correct"] / row["total"] * 100,
                    "correct": row["correct"],
                    "total": row["total"],
                    "iteration": row["iteration"],
                },
                origin.at(ordinals[row["category"]]),
            )


def _probe_ordinals(suite: Suite, rows: list[Row]) -> dict[str, int]:
    return _ordinals((probe.id for probe in suite.probes), (row["probe_id"] for row in rows), _FIRST_PROBE)


def _probe_scores(suite: Suite, rows: list[Row], origin: _Origin) -> Iterator[ScorePoint]:
    if suite.kind != "capability":
        return
    ordinals = _probe_ordinals(suite, rows)
    for row in sorted(rows, key=lambda r: ordinals[r["probe_id"]]):
        if row["passed"] is not None and row["sample"] == 1:
            yield ScorePoint(
                "probe_score",
                suite.name,
                _tags(suite, row, probe_id=row["probe_id"]),
                {"passed": int(row["passed"]), "iteration": row["iteration"]},
                origin.at(ordinals[row["probe_id"]]),
            )


def _judgements(suite: Suite, rows: list[Row], origin: _Origin) -> Iterator[ScorePoint]:
    scored = [row for row in rows if row["score"] is not None and math.isfinite(row["score"])]
    yield from (_content_scores if suite.kind == "content" else _capability_judge)(suite, scored, origin)


def _capability_judge(suite: Suite, rows: list[Row], origin: _Origin) -> Iterator[ScorePoint]:
    ordinals = _probe_ordinals(suite, rows)
    by_probe: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda r: ordinals[r["probe_id"]]):
        by_probe.setdefault(row["probe_id"], []).append(row)
    for probe_id, judged in by_probe.items():
        yield ScorePoint(
            "capability_judge",
            suite.name,
            _tags(suite, judged[0], probe_id=probe_id, category=judged[0]["category"]),
            {**{row["dimension"]: float(row["score"]) for row in judged}, "iteration": judged[0]["iteration"]},
            origin.at(ordinals[probe_id]),
        )


def _content_scores(suite: Suite, rows: list[Row], origin: _Origin) -> Iterator[ScorePoint]:
    """One point a dimension: the mean over the probes that were scored in it. 'avg' is no dimension of its own."""
    by_dimension: dict[str, list[Row]] = {}
    for row in rows:
        if row["dimension"] != "avg":
            by_dimension.setdefault(row["dimension"], []).append(row)
    known = [dimension.name for dimension in suite.rubric.dimensions] if suite.rubric else []
    ordinals = _ordinals(known, by_dimension, _FIRST_CATEGORY)
    for dimension, judged in sorted(by_dimension.items(), key=lambda item: ordinals[item[0]]):
        yield ScorePoint(
            "content_score",
            suite.name,
            # The original tagged prompts that carried its "kernel"; here none does, and old dashboards filter on it.
            _tags(suite, judged[0], dimension=dimension, has_kernel="false"),
            {
                "score": math.fsum(row["score"] for row in judged) / len(judged),
                "iteration": judged[0]["iteration"],
            },
            origin.at(ordinals[dimension]),
        )
