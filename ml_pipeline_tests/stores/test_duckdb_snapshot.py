"""The analysts' copy: whole, current, and never in anybody's way."""

from __future__ import annotations

import json
import shutil
import stat
import time
from pathlib import Path

import duckdb
import pytest
from click.testing import CliRunner

from ml_pipeline.cli import main
from ml_pipeline.errors import StoreError, StoreFullError, StoreLockedError
from ml_pipeline.stores.duckdb import DuckDBStore
from ml_pipeline_tests.stores.processes import background_python, run_python
from ml_pipeline_tests.stores.samples import identity, key, partition
from ml_pipeline_tests.stores.test_duckdb import HOLDER, arrow

ANALYST = """
import sys, duckdb
print("ready", flush=True)
seen = []
while True:
    with duckdb.connect(sys.argv[1], read_only=True) as connected:
        for _ in range(20):
            rows, whole = connected.execute(
                "SELECT count(*), count(*) = 2 * (SELECT count(*) FROM evaluations) FROM probe_results"
            ).fetchall()[0]
            assert whole, f"{rows} rows, not two of each checkpoint"
        if rows not in seen:
            seen.append(rows)
            print(rows, flush=True)
"""

KILLED = """
import os, signal, sys
from pathlib import Path
from ml_pipeline.stores import duckdb_snapshot
copy = duckdb_snapshot._copy_bytes
def die(source, target, size):
    copy(source, target, size // 2)
    os.kill(os.getpid(), signal.SIGKILL)
duckdb_snapshot._copy_bytes = die
duckdb_snapshot.make_snapshot(Path(sys.argv[1]), 5)
"""


@pytest.fixture
def store(tmp_path: Path) -> DuckDBStore:
    made = DuckDBStore(tmp_path / "scores.duckdb", lock_timeout_s=20)
    put(made, 100)
    return made


def put(store: DuckDBStore, *iterations: int) -> None:
    for iteration in iterations:
        store.write_partition(key(iteration), arrow(partition(identity(iteration), a=True, b=False)))


def iterations(path: Path) -> list[int]:
    with duckdb.connect(str(path), read_only=True) as connected:
        return [row for (row,) in connected.execute("SELECT iteration FROM evaluations ORDER BY 1").fetchall()]


def test_a_copy_has_every_row_and_is_made_again_only_for_newer_ones(store: DuckDBStore, tmp_path: Path) -> None:
    first = store.snapshot()
    assert first.path == tmp_path / "snapshot" / "scores.duckdb"
    assert first.is_new
    assert first.size_bytes == store.path.stat().st_size == first.path.stat().st_size
    assert iterations(first.path) == [100]
    assert not store.snapshot().is_new
    assert store.query("SELECT 1").num_rows == 1
    assert not store.snapshot().is_new, "a reader changes nothing"
    put(store, 200)
    assert iterations(first.path) == [100]
    assert store.snapshot().is_new
    assert iterations(first.path) == [100, 200]
    assert [path.name for path in first.path.parent.iterdir()] == ["scores.duckdb"]


def test_a_copy_cannot_be_written_and_what_was_written_all_the_same_is_dropped(store: DuckDBStore) -> None:
    path = store.snapshot().path
    assert stat.S_IMODE(path.stat().st_mode) == 0o400
    path.with_name("scores.duckdb.wal").write_bytes(b"of somebody who may write anything")
    put(store, 200)
    store.snapshot()
    assert iterations(path) == [100, 200]


def test_analysts_in_a_loop_never_block_scoring_and_see_whole_checkpoints(store: DuckDBStore) -> None:
    path = store.snapshot().path
    store.lock_timeout_s = 0.05
    with background_python(ANALYST, path) as analyst, background_python(HOLDER, path, "read") as shell:
        for iteration in range(1, 13):
            put(store, iteration)
            store.snapshot()
            assert analyst.poll() is None
            assert shell.poll() is None
        assert analyst.stdout is not None
        seen = [int(analyst.stdout.readline()) for _ in range(2)]
        while seen[-1] < 26:  # 13 checkpoints of two probes
            seen.append(int(analyst.stdout.readline()))
    assert seen == sorted(seen)
    assert len(seen) > 2
    assert iterations(path) == [*range(1, 13), 100]


def test_rows_that_a_killed_process_left_in_the_log_are_copied_too(store: DuckDBStore) -> None:
    path = store.snapshot().path
    code = (
        "import os, signal, sys, duckdb\n"
        "connected = duckdb.connect(sys.argv[1])\n"
        'connected.execute("UPDATE evaluations SET iteration = 7")\n'
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert run_python(code, store.path).returncode == -9
    assert store.path.with_name("scores.duckdb.wal").exists()
    assert store.snapshot().is_new
    assert iterations(path) == [7]


def test_a_kill_while_copying_leaves_the_old_copy(store: DuckDBStore) -> None:
    path = store.snapshot().path
    put(store, 200)
    assert run_python(KILLED, store.path).returncode == -9
    assert iterations(path) == [100]
    assert store.snapshot().is_new
    assert iterations(path) == [100, 200]


def test_a_copy_is_made_while_others_read_the_database(store: DuckDBStore) -> None:
    store.lock_timeout_s = 0.3
    with background_python(HOLDER, store.path, "read"):
        assert iterations(store.snapshot().path) == [100]


def test_a_copy_waits_for_the_database_and_says_who_holds_it(store: DuckDBStore) -> None:
    store.lock_timeout_s = 0.3
    with background_python(HOLDER, store.path, "write") as holder:
        started = time.monotonic()
        with pytest.raises(StoreLockedError, match=f"process {holder.pid}"):
            store.snapshot()
        assert time.monotonic() - started < 5
    assert not (store.path.parent / "snapshot" / "scores.duckdb").exists()


def test_without_a_database_or_room_for_a_copy(tmp_path: Path, small_disk: Path) -> None:
    with pytest.raises(StoreError, match="Score a checkpoint first"):
        DuckDBStore(tmp_path / "none.duckdb").snapshot()
    store = DuckDBStore(small_disk / "scores.duckdb")
    store.migrate()
    spare = shutil.disk_usage(small_disk).free - store.path.stat().st_size // 2
    (small_disk / "filler").write_bytes(b"x" * max(0, spare))
    with pytest.raises(StoreFullError, match="Free space"):
        store.snapshot()
    assert list((small_disk / "snapshot").iterdir()) == []


def test_the_command_says_where_the_copy_lies(
    store: DuckDBStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {
        "sources": {"lab": {"type": "local", "path": "runs"}},
        "base_models": {"tiny": {}},
        "stores": {"duckdb": "scores.duckdb"},
    }
    (tmp_path / "pipeline.yaml").write_text(json.dumps(settings))
    monkeypatch.setenv("ML_PIPELINE_CONFIG", str(tmp_path / "pipeline.yaml"))
    first, again = (CliRunner().invoke(main, ["snapshot"]) for _ in range(2))
    assert first.exit_code == again.exit_code == 0, first.output
    assert f"{tmp_path}/snapshot/scores.duckdb: copied in" in first.output
    assert "has all rows already" in again.output
