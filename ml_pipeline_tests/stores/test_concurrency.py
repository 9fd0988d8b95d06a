"""Many processes that score into the same stores at once, while others read."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from ml_pipeline_tests.influxd import Influxd
from ml_pipeline_tests.stores.processes import forking
from ml_pipeline_tests.stores.rehearsal import Lab, Work, lab_in, points_of, tables_of
from ml_pipeline_tests.stores.rehearsal_checks import assert_on_the_server, assert_stored

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
PROCESSES, PARTITIONS = 8, 100


class Reader(threading.Thread):
    """Asks the database in a loop, as a notebook does, how many rows each partition has of each table."""

    def __init__(self, lab: Lab, whole: dict[str, int]) -> None:
        super().__init__(daemon=True)
        self.problems: list[str] = []
        self.times: list[float] = []
        self.ended = threading.Event()
        self._lab, self._whole = lab, whole

    def run(self) -> None:
        parts = [
            f"SELECT '{name}' AS name, partition_key, count(*) AS rows FROM {name} GROUP BY ALL" for name in self._whole
        ]
        database = self._lab.store().duckdb
        while not self.ended.wait(0.1):
            began = time.monotonic()
            try:
                found = database.query(" UNION ALL ".join(parts)).to_pylist()
            except Exception as error:
                self.problems.append(repr(error))
                return
            self.times.append(time.monotonic() - began)
            self.problems += [f"{row}" for row in found if row["rows"] != self._whole[row["name"]]]


def store_all(lab: Lab, works: Sequence[Work]) -> None:
    """What the process does that scores these."""
    store, influx = lab.store(), lab.influx()
    for work in works:
        store.write_partition(work.key, tables_of(work))
        influx.write_partition(work.key, points_of(work))


def test_eight_processes_score_into_the_same_stores_while_a_reader_asks(
    influxd: Influxd, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lab = lab_in(tmp_path, influxd.url)
    works = [[Work(f"run{number}", i) for i in range(PARTITIONS)] for number in range(PROCESSES)]
    lab.store().duckdb.migrate()
    reader = Reader(lab, {name: rows.num_rows for name, rows in tables_of(works[0][0]).items()})
    processes = [forking().Process(target=store_all, args=(lab, each)) for each in works]
    reader.start()
    began = time.monotonic()
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    seconds = time.monotonic() - began
    reader.ended.set()
    reader.join()
    assert [process.exitcode for process in processes] == [0] * PROCESSES
    assert reader.problems == []
    everything = [work for each in works for work in each]
    lab.influx().flush()
    assert_stored(lab, everything)
    assert_on_the_server(lab, influxd, everything)
    rows = sum(table.num_rows for table in tables_of(everything[0]).values()) * len(everything)
    with capsys.disabled():
        print(
            f"\n{PROCESSES} processes, {len(everything)} partitions, {rows} rows in {seconds:.0f} s: "
            f"{len(everything) / seconds:.1f} partitions/s, {rows / seconds:.0f} rows/s; {len(reader.times)} reads "
            f"meanwhile, the longest {max(reader.times):.2f} s"
        )
