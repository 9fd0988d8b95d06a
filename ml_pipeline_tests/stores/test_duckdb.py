from __future__ import annotations

import random
import threading
import time
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from ml_pipeline.errors import StoreError, StoreFullError, StoreLockedError
from ml_pipeline.stores.duckdb import DuckDBStore
from ml_pipeline.stores.duckdb_holder import holders
from ml_pipeline.stores.rows import conform
from ml_pipeline.stores.table import described
from ml_pipeline.stores.tables import CHECKPOINT_TABLES, TABLES
from ml_pipeline_tests.stores.processes import background_python, run_python
from ml_pipeline_tests.stores.samples import Row, identity, key, partition, response_rows

HOLDER = """
import sys, duckdb
connected = duckdb.connect(sys.argv[1], read_only=sys.argv[2] == "read")
print("held", flush=True)
sys.stdin.readline()
"""

KILLED = """
import os, signal, sys
from pathlib import Path
import ml_pipeline.stores.duckdb as module
from ml_pipeline.stores.duckdb import DuckDBStore
from ml_pipeline_tests.stores.samples import identity, key
from ml_pipeline_tests.stores.test_duckdb import arrow
from ml_pipeline_tests.stores.samples import partition
insert = module.insert
def die_at(connected, name, rows):
    if name == sys.argv[2]:
        os.kill(os.getpid(), signal.SIGKILL)
    insert(connected, name, rows)
module.insert = die_at
DuckDBStore(Path(sys.argv[1])).write_partition(key(), arrow(partition(identity(version="e2"), a=False)))
"""

WRITER = """
import sys
from pathlib import Path
from ml_pipeline.stores.duckdb import DuckDBStore
from ml_pipeline_tests.stores.samples import identity, key, partition
from ml_pipeline_tests.stores.test_duckdb import arrow
store = DuckDBStore(Path(sys.argv[1]))
versions = [arrow(partition(identity(version=f"e{i}"), a=True, b=False)) for i in range(2)]
print("ready", flush=True)
for i in range(10_000):
    store.write_partition(key(), versions[i % 2])
"""


def arrow(tables: dict[str, list[Row]]) -> dict[str, pa.Table]:
    where = next(rows[0]["partition_key"] for rows in tables.values() if rows)
    return {name: conform(TABLES[name], where, rows) for name, rows in tables.items()}


OLD = arrow(partition(identity(), a=True, b=None))
NEW = arrow(partition(identity(version="e2"), a=False, b=True))


@pytest.fixture
def store(tmp_path: Path) -> DuckDBStore:
    return DuckDBStore(tmp_path / "db" / "scores.duckdb", lock_timeout_s=20)


def contents(store: DuckDBStore) -> dict[str, list[Row]]:
    tables = store.read_together([table.name for table in CHECKPOINT_TABLES])
    return {name: rows.to_pylist() for name, rows in tables.items()}


def as_rows(tables: dict[str, pa.Table]) -> dict[str, list[Row]]:
    return {
        name: rows.sort_by([(k, "ascending") for k in TABLES[name].key]).to_pylist() for name, rows in tables.items()
    }


def test_a_partition_is_replaced_in_every_table_again_and_again(store: DuckDBStore) -> None:
    for tables in (OLD, NEW, NEW, OLD):
        store.write_partition(key(), tables)
        assert contents(store) == as_rows(tables)
    other = arrow(partition(identity(200), a=True))
    store.write_partition(key(200), other)
    assert store.read("probe_results", [key()]).to_pylist() == as_rows(OLD)["probe_results"]
    assert store.read("probe_results", [key(200), "lab.none@1"]).to_pylist() == as_rows(other)["probe_results"]
    assert store.read("probe_results").num_rows == 3


def test_many_partitions_are_replaced_together_or_not_at_all(store: DuckDBStore) -> None:
    store.write_partition(key(), OLD)
    store.write_partition(key(300), arrow(partition(identity(300), a=True)))
    others = {key(i): arrow(partition(identity(i), a=False)) for i in (100, 200)}
    swapped = arrow(partition(identity(400), a=True))
    with pytest.raises(StoreError, match="rows of another partition"):
        store.write_partitions(others | {key(500): swapped})
    assert store.read("evaluations")["iteration"].to_pylist() == [100, 300]
    store.write_partitions({key(100): {"probe_results": others[key()]["probe_results"]}, key(200): others[key(200)]})
    assert store.read("probe_results", [key()]).to_pylist() == as_rows(others[key()])["probe_results"]
    assert store.read("evaluations")["iteration"].to_pylist() == [100, 200, 300]
    assert store.read("probe_results", [key(300)])["passed"].to_pylist() == [True]


def test_types_and_times_survive_in_any_time_zone(store: DuckDBStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    time.tzset()
    try:
        store.write_partition(key(), OLD)
        assert store.read("evaluations").schema == TABLES["evaluations"].schema
        assert contents(store) == as_rows(OLD)
        assert str(store.query("SELECT scored_at FROM evaluations").schema.field(0).type) == "timestamp[us, tz=UTC]"
    finally:
        monkeypatch.undo()
        time.tzset()


def test_rows_that_do_not_fit_leave_the_old_ones(store: DuckDBStore) -> None:
    store.write_partition(key(), OLD)
    swapped = OLD["evaluations"].rename_columns(["source", "partition_key", *OLD["evaluations"].column_names[2:]])
    with pytest.raises(StoreError, match="rows of another partition: 'lab'"):
        store.write_partition(key(), {"evaluations": swapped})
    with pytest.raises(StoreError, match="table 'nonsense' is unknown"):
        store.write_partition(key(), {"nonsense": swapped})
    assert contents(store) == as_rows(OLD)


def test_an_insert_that_the_database_rejects_leaves_the_old_rows(store: DuckDBStore) -> None:
    store.write_partition(key(), OLD)
    with duckdb.connect(str(store.path)) as connected:
        connected.execute("CREATE UNIQUE INDEX one_answer ON responses (response)")
    same = [row | {"response": "same"} for row in NEW["responses"].to_pylist()]
    with pytest.raises(StoreError, match=r"responses|unique|duplicate(.|\n)*old rows are unharmed"):
        store.write_partition(key(), NEW | {"responses": conform(TABLES["responses"], key(), same)})
    assert contents(store) == as_rows(OLD)


@pytest.mark.parametrize("mode", ["read", "write"])
def test_a_held_file_is_waited_for_and_then_the_holder_is_named(store: DuckDBStore, mode: str) -> None:
    store.write_partition(key(), OLD)
    store.lock_timeout_s = 1.0
    with background_python(HOLDER, store.path, mode) as holder:
        started = time.monotonic()
        with pytest.raises(StoreLockedError) as caught:
            store.write_partition(key(), NEW)
        assert 0.9 < time.monotonic() - started < 5
    text = str(caught.value)
    assert f"process {holder.pid}" in text
    assert "import sys, duckdb" in text, "the command is shown"
    assert all(word in text for word in ("scores.duckdb", "Close that program", "duckdb_lock_timeout_s", "rebuild"))
    assert f"open {store.path.parent}/snapshot/scores.duckdb instead" in text
    assert contents(store) == as_rows(OLD)


def test_a_reader_waits_for_a_writer_too(store: DuckDBStore) -> None:
    store.write_partition(key(), OLD)
    store.lock_timeout_s = 0.3
    with background_python(HOLDER, store.path, "write"), pytest.raises(StoreLockedError, match="process"):
        store.read("evaluations")


def test_a_file_that_is_freed_in_time_is_written(store: DuckDBStore) -> None:
    store.write_partition(key(), OLD)
    with background_python(HOLDER, store.path, "write") as holder:
        assert holder.stdin is not None
        threading.Timer(1.0, lambda: holder.communicate("\n")).start()
        started = time.monotonic()
        store.write_partition(key(), NEW)
        assert 0.8 < time.monotonic() - started < 15
    assert contents(store) == as_rows(NEW)


def test_every_holder_is_named_where_the_system_knows_them(store: DuckDBStore) -> None:
    store.write_partition(key(), OLD)
    store.lock_timeout_s = 0.3
    with (
        background_python(HOLDER, store.path, "read") as one,
        background_python(HOLDER, store.path, "read") as other,
        pytest.raises(StoreLockedError) as caught,
    ):
        store.write_partition(key(), NEW)
    found = [pid for pid in (one.pid, other.pid) if f"process {pid} (" in str(caught.value)]
    assert found == ([one.pid, other.pid] if Path("/proc/locks").exists() else found[:1] or [one.pid])


def test_what_duckdb_says_of_the_holder_is_used_where_the_system_tells_nothing(tmp_path: Path) -> None:
    said = 'IO Error: Could not set lock on file "x": Conflicting lock is held in /usr/bin/duckdb (PID 999999999).'
    assert holders(tmp_path / "absent", said) == "process 999999999 (/usr/bin/duckdb)"
    assert holders(tmp_path / "absent") == "another process"


def test_another_connection_of_this_process_is_named(store: DuckDBStore) -> None:
    store.write_partition(key(), OLD)
    store.lock_timeout_s = 0.2
    with duckdb.connect(str(store.path), read_only=True), pytest.raises(StoreLockedError, match="this same process"):
        store.write_partition(key(), NEW)


def test_threads_take_turns(store: DuckDBStore) -> None:
    tables = {i: arrow(partition(identity(i), a=True)) for i in range(1, 9)}
    threads = [threading.Thread(target=store.write_partition, args=(key(i), t)) for i, t in tables.items()]
    readers = [threading.Thread(target=lambda: store.query("SELECT 1")) for _ in range(8)]
    store.migrate()
    for thread in (*threads, *readers):
        thread.start()
    for thread in (*threads, *readers):
        thread.join()
    assert store.read("evaluations").num_rows == 8


@pytest.mark.parametrize("step", ["evaluations", "probe_results", "checkpoint_scores"])
def test_a_kill_between_delete_and_insert_leaves_the_old_rows(store: DuckDBStore, step: str) -> None:
    store.write_partition(key(), OLD)
    done = run_python(KILLED, store.path, step)
    assert done.returncode == -9, done.stderr
    assert contents(store) == as_rows(OLD)
    store.write_partition(key(), NEW)
    assert contents(store) == as_rows(NEW)


def test_kills_at_any_moment_leave_one_whole_version(store: DuckDBStore) -> None:
    rng = random.Random(7)
    versions = [as_rows(arrow(partition(identity(version=f"e{i}"), a=True, b=False))) for i in range(2)]
    store.write_partition(key(), arrow(partition(identity(version="e0"), a=True, b=False)))
    for _ in range(4):
        with background_python(WRITER, store.path):
            time.sleep(rng.uniform(0.02, 0.25))
        assert contents(store) in versions


def test_full_disk_leaves_the_old_rows(small_disk: Path) -> None:
    store = DuckDBStore(small_disk / "scores.duckdb")
    # Only as much as the schema takes: DuckDB's smallest file with these tables is under half a megabyte.
    store.migrate()
    big = conform(TABLES["responses"], key(), [r | {"response": random.randbytes(2000).hex()} for r in answers(1000)])
    with pytest.raises(StoreFullError, match=r"No space left.*Free space"):
        store.write_partition(key(), {"responses": big})
    assert store.read("responses").num_rows == 0


def answers(count: int) -> list[Row]:
    return response_rows(identity(), count)


LIMITED = """
import random, resource, sys
from pathlib import Path
from ml_pipeline.errors import StoreFullError
from ml_pipeline.stores.duckdb import DuckDBStore
from ml_pipeline.stores.rows import conform
from ml_pipeline.stores.table import described
from ml_pipeline.stores.tables import TABLES
from ml_pipeline_tests.stores.samples import key
from ml_pipeline_tests.stores.test_duckdb import answers
store = DuckDBStore(Path(sys.argv[1]))
big = conform(TABLES["responses"], key(), [r | {"response": random.randbytes(2000).hex()} for r in answers(1000)])
size = store.path.stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 65536, size + 65536))
try:
    store.write_partition(key(), {"responses": big})
except StoreFullError as error:
    print(error)
"""


def test_file_size_limit_leaves_the_old_rows(store: DuckDBStore) -> None:
    store.write_partition(key(), OLD)
    done = run_python(LIMITED, store.path)
    assert "raise the quota or limit" in done.stdout, done.stderr
    assert contents(store) == as_rows(OLD)


def test_read_only_folder(read_only_folder: Path) -> None:
    with pytest.raises(StoreError, match="writable for this user"):
        DuckDBStore(read_only_folder / "scores.duckdb").migrate()


def test_no_database_yet(store: DuckDBStore) -> None:
    with pytest.raises(StoreError, match="Score a checkpoint first"):
        store.query("SELECT 1")


def test_a_damaged_database_says_how_to_mend_it(store: DuckDBStore) -> None:
    store.migrate()
    store.path.write_bytes(b"junk" * 4096)
    with pytest.raises(StoreError, match="move it away and run `ml-pipeline rebuild`"):
        store.query("SELECT 1")


def test_queries_take_parameters_and_cannot_write(store: DuckDBStore) -> None:
    store.write_partition(key(), OLD)
    answer = store.query("SELECT probe_id FROM probe_results WHERE passed = ? ORDER BY 1", [True])
    assert answer.to_pydict() == {"probe_id": ["a"]}
    with pytest.raises(StoreError, match="read-only"):
        store.query("DELETE FROM probe_results")
    with pytest.raises(StoreError, match="Check the SQL"):
        store.query("SELECT nonsense FROM probe_results")
    assert contents(store) == as_rows(OLD)


def test_whole_tables_are_replaced_with_any_columns(store: DuckDBStore) -> None:
    store.write_whole("leaderboard", pa.table({"a": [1, 2]}))
    store.write_whole("leaderboard", pa.table({"b": ["x"], "c": [[1.5]]}))
    assert store.read("leaderboard").to_pydict() == {"b": ["x"], "c": [[1.5]]}
    store.write_whole("leaderboard", described(pa.table({"a": [1], "b": [2]}), {"b": "It's a column."}))
    told = store.query("SELECT column_name, comment FROM duckdb_columns() WHERE table_name = 'leaderboard'")
    assert told.to_pylist() == [
        {"column_name": "a", "comment": None},
        {"column_name": "b", "comment": "It's a column."},
    ]
    for taken in ("probe_results", "latest_leaderboard", "schema_migrations", 'x"; DROP TABLE responses', ""):
        with pytest.raises(StoreError, match="cannot be the name of a free table"):
            store.write_whole(taken, pa.table({"a": [1]}))
