"""Ten thousand checkpoints of 223 probes in Parquet and DuckDB: seconds of what is done with them.

    python -m ml_pipeline_tests.benchmarks.duckdb [--json] [--checkpoints N] [--repeats N]

- upsert: the probe results of one checkpoint are replaced. Ours writes the Parquet file durably, then DuckDB;
  duckdb_alone leaves out the Parquet file; stock is dagster-duckdb-pandas' IO manager, which has neither the file nor
  a key, on a database with the same rows.
- publish: a hundred checkpoints in one opening of the database; one_by_one opens it for each.
- leaderboard: the view latest_leaderboard; stock answers the same SQL over its tables.
- rebuild: the database made again from the Parquet files; read_parquet is DuckDB's own reader filling tables without
  keys, checks and comments.
- snapshot: the analysts' copy; copyfile is the copy of such a file alone.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any

import duckdb

from ml_pipeline.files import fsync
from ml_pipeline.stores.duckdb import DuckDBStore
from ml_pipeline.stores.parquet import ParquetStore
from ml_pipeline.stores.score_store import ScoreStore
from ml_pipeline.stores.tables import PROBE_RESULTS
from ml_pipeline.stores.views import LATEST_LEADERBOARD
from ml_pipeline_tests.benchmarks.many_checkpoints import Checkpoints
from ml_pipeline_tests.benchmarks.result import compare, interleaved, medians, print_result
from ml_pipeline_tests.benchmarks.stock_duckdb import MISSING, StockDuckDB

TABLES = ("evaluations", "checkpoint_scores", "probe_results")
AT_ONCE = 100


class Subject:
    """So many checkpoints in our stores, and in the stock IO manager's database where that is installed."""

    def __init__(self, folder: Path, checkpoints: int) -> None:
        self.folder = folder
        self.checkpoints = Checkpoints(checkpoints)
        self.store = ScoreStore(ParquetStore(folder / "parquet"), DuckDBStore(folder / "scores.duckdb"))
        self._next = count()
        started = time.perf_counter()
        self.checkpoints.write(self.store.parquet)
        self.context: dict[str, Any] = {
            "checkpoints": checkpoints,
            "probes": self.checkpoints.probes,
            "parquet_write_ms": round((time.perf_counter() - started) / checkpoints * 1000, 2),
        }
        self.first_rebuild_s = self.rebuild()
        self.context["database_mb"] = round(self.store.duckdb.path.stat().st_size / 1e6)
        self.stock: StockDuckDB | None = None
        if find_spec("dagster_duckdb_pandas"):
            self.stock = StockDuckDB(folder / "stock.duckdb")
            self.stock.fill(self.store.duckdb.path, list(TABLES))
        else:
            self.context["stock"] = MISSING

    def upserts(self) -> dict[str, Callable[[], float]]:
        """Ways to replace one checkpoint's probe results, another checkpoint each time."""
        name = PROBE_RESULTS.name

        def with_parquet() -> float:
            key, rows = self._another()
            with clock() as seconds:
                self.store.write_partition(key, {name: rows})
            return seconds()

        def alone() -> float:
            key, rows = self._another()
            with clock() as seconds:
                self.store.duckdb.write_partition(key, {name: rows})
            return seconds()

        def stock() -> float:
            assert self.stock is not None
            key, rows = self._another()
            frame = rows.to_pandas()
            with clock() as seconds:
                self.stock.write(name, key, frame)
            return seconds()

        return {"ours": with_parquet, "duckdb_alone": alone, **({"stock": stock} if self.stock else {})}

    def publishing(self) -> dict[str, Callable[[], float]]:
        """Ways to replace a hundred checkpoints, in all tables; seconds a checkpoint."""

        def together() -> float:
            partitions = dict(self._whole() for _ in range(AT_ONCE))
            with clock() as seconds:
                self.store.write_partitions(partitions)
            return seconds() / AT_ONCE

        def one_by_one() -> float:
            partitions = dict(self._whole() for _ in range(AT_ONCE // 10))
            with clock() as seconds:
                for key, tables in partitions.items():
                    self.store.write_partition(key, tables)
            return seconds() / len(partitions)

        return {"ours": together, "one_by_one": one_by_one}

    def leaderboards(self) -> dict[str, Callable[[], float]]:
        """Ways to ask for the leaderboard."""

        def ours() -> float:
            with clock() as seconds:
                rows = self.store.duckdb.query(f"FROM {LATEST_LEADERBOARD.name}").num_rows
            assert rows == self.checkpoints.count
            return seconds()

        def stock() -> float:
            assert self.stock is not None
            with clock() as seconds:
                rows = self.stock.query(LATEST_LEADERBOARD.query)
            assert rows == self.checkpoints.count
            return seconds()

        def by_hand() -> float:
            sql = "SELECT partition_key, suite, avg(passed::INT) FROM probe_results GROUP BY ALL ORDER BY 3 DESC"
            with clock() as seconds:
                rows = self.store.duckdb.query(sql).num_rows
            assert rows == self.checkpoints.count
            return seconds()

        return {"ours": ours, "out_of_probe_results": by_hand, **({"stock": stock} if self.stock else {})}

    def rebuild(self) -> float:
        """Seconds of a rebuild."""
        with clock() as seconds:
            report = self.store.duckdb.rebuild(self.store.parquet)
        assert report.rows[PROBE_RESULTS.name] == self.checkpoints.count * self.checkpoints.probes
        return seconds()

    def read_parquet(self) -> float:
        """Seconds that DuckDB's own reader takes for the same files."""
        path = self.folder / "plain.duckdb"
        path.unlink(missing_ok=True)
        with clock() as seconds, duckdb.connect(str(path)) as connected:
            for name in TABLES:
                files = f"{self.store.parquet.files.place(name)}/*.parquet"
                connected.execute(f"CREATE TABLE {name} AS FROM read_parquet('{files}')")
        return seconds()

    def snapshots(self) -> dict[str, Callable[[], float]]:
        """Ways to copy the database after a change."""

        def ours() -> float:
            key, rows = self._another()
            self.store.duckdb.write_partition(key, {PROBE_RESULTS.name: rows})
            with clock() as seconds:
                made = self.store.duckdb.snapshot()
            assert made.is_new
            self.context["snapshot_holds_writers_s"] = round(made.held_s, 3)
            return seconds()

        def copyfile() -> float:
            target = self.folder / "copy.duckdb"
            with clock() as seconds:
                shutil.copyfile(self.store.duckdb.path, target)
                fsync(target)
            target.unlink()
            return seconds()

        return {"ours": ours, "copyfile": copyfile}

    def _whole(self) -> tuple[str, Any]:
        # Spread over the runs, and over the files' order.
        number = next(self._next) * 7919 % self.checkpoints.count
        return self.checkpoints.key(number), self.checkpoints.tables(number)

    def _another(self) -> tuple[str, Any]:
        key, tables = self._whole()
        return key, tables[PROBE_RESULTS.name]


@contextmanager
def clock() -> Iterator[Callable[[], float]]:
    """What it gives returns the seconds of the body, once that has ended."""
    started = time.perf_counter()
    ended: list[float] = []
    yield lambda: ended[0] - started
    ended.append(time.perf_counter())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="ten thousand checkpoints in Parquet and DuckDB")
    parser.add_argument("--json", action="store_true", help="print JSON objects, one a line")
    parser.add_argument("--checkpoints", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        subject = Subject(Path(folder), arguments.checkpoints)
        rebuilds = {"ours": subject.rebuild, "read_parquet": subject.read_parquet}
        for name, subjects, repeats in (
            ("upsert", subject.upserts(), 3 * arguments.repeats),
            ("publish", subject.publishing(), arguments.repeats),
            ("leaderboard", subject.leaderboards(), arguments.repeats),
            ("rebuild", rebuilds, 1),
            ("snapshot", subject.snapshots(), arguments.repeats),
        ):
            figures = interleaved(subjects, repeats)
            result = compare(
                f"duckdb {name}",
                "s",
                medians(figures),
                more_is_better=False,
                context=subject.context | {"worst": {key: round(max(values), 3) for key, values in figures.items()}},
            )
            print_result(result, as_json=arguments.json)


if __name__ == "__main__":
    main()
