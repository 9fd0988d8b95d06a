"""What must hold of all stores: at any moment for a reader, and after a run that came to its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from ml_pipeline.assets.specs import POINT_ASSETS
from ml_pipeline.stores.tables import TABLES
from ml_pipeline_tests.influxd import Influxd, StoredPoints, as_stored
from ml_pipeline_tests.stores.rehearsal import Lab, Work, ordered, points_of, results_of, tables_of


def assert_whole(lab: Lab, versions: Mapping[str, Sequence[Work]], influxd: Influxd | None = None) -> None:
    """What a reader finds at any moment, by partition key and the works it may be of: never half of one.

    Every table has all rows of one version or none, in DuckDB the tables of one stage have the same, and whatever was
    recorded is there; its points are on the server or wait for it.
    """
    in_duckdb, recorded = lab.in_duckdb(versions), lab.recorded()
    for key, works in versions.items():
        expected = {work.version: tables_of(work) for work in works}
        ours = {name: rows.filter(pc.equal(rows["partition_key"], key)) for name, rows in in_duckdb.items()}
        for where, found in (("Parquet", lab.in_parquet(key)), ("DuckDB", ours)):
            seen = {name: _version(where, key, name, found.get(name), expected) for name in expected[works[0].version]}
            for result in results_of(works[0]):
                together = [seen[name] for name in result.tables]
                assert where == "Parquet" or len(set(together)) <= 1, f"{where} {key}: versions {seen}"
                done = _recorded(recorded, key, works, result.stage)
                assert all(version >= done for version in together), (
                    f"{where} {key}: {result.stage} {done} not in {seen}"
                )
        if influxd is not None and (done := _recorded(recorded, key, works, POINT_ASSETS[0])):
            _assert_points_kept(lab, influxd, [work for work in works if work.version >= done])


def _version(
    where: str, key: str, name: str, rows: pa.Table | None, expected: Mapping[int, Mapping[str, pa.Table]]
) -> int:
    """Which version a table's rows are of; 0 for none."""
    if rows is None or not rows.num_rows:
        return 0
    for version, tables in expected.items():
        if rows.equals(tables[name]):
            return version
    raise AssertionError(f"{where} {key}: {name} has {rows.num_rows} rows that are of no version")


def _recorded(recorded: set[tuple[str, int, str]], key: str, works: Sequence[Work], asset: str) -> int:
    return max((work.version for work in works if (key, work.version, asset) in recorded), default=0)


def assert_stored(lab: Lab, works: Sequence[Work]) -> None:
    """Parquet and DuckDB have the rows of exactly these works, each of them once."""
    store = lab.store()
    expected = [tables_of(work) for work in works]
    for name in expected[0]:
        rows = ordered(name, pa.concat_tables([tables[name] for tables in expected]))
        assert ordered(name, store.parquet.read_all(TABLES[name])).equals(rows), f"Parquet: {name}"
        assert store.duckdb.read(name).equals(rows), f"DuckDB: {name}"


def assert_on_the_server(lab: Lab, influxd: Influxd, works: Sequence[Work]) -> None:
    """The server has the points of these works, each of them once, and nothing waits."""
    assert lab.influx().buffer().is_empty()
    assert _points(influxd, works) == as_stored(point for work in works for point in points_of(work))


def _assert_points_kept(lab: Lab, influxd: Influxd, works: Sequence[Work]) -> None:
    """Every point of a checkpoint is on the server or waits for it, as one of these works made it."""
    allowed = [as_stored(points_of(work)) for work in works]
    waiting = set(lab.influx().buffer().lines())
    found = _points(influxd, works)
    found |= as_stored(point for work in works for point in points_of(work) if point.line() in waiting)
    assert found.keys() == allowed[0].keys()
    assert all(any(fields == points[name] for points in allowed) for name, fields in found.items())


def _points(influxd: Influxd, works: Sequence[Work]) -> StoredPoints:
    labels = "|".join(sorted({work.checkpoint.label for work in works}))
    return influxd.points(where=f"label =~ /^({labels})$/")
