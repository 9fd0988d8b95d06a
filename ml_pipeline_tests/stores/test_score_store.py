from __future__ import annotations

from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from ml_pipeline.errors import StoreError, StoreLockedError
from ml_pipeline.stores.duckdb import DuckDBStore
from ml_pipeline.stores.parquet import ParquetStore
from ml_pipeline.stores.score_store import ScoreStore
from ml_pipeline.stores.table import described
from ml_pipeline.stores.tables import TABLES
from ml_pipeline_tests.stores.processes import background_python
from ml_pipeline_tests.stores.samples import identity, key, partition
from ml_pipeline_tests.stores.test_duckdb import contents


@pytest.fixture
def scores(tmp_path: Path) -> ScoreStore:
    database = DuckDBStore(tmp_path / "db" / "scores.duckdb", lock_timeout_s=20)
    return ScoreStore(ParquetStore(tmp_path / "parquet"), database)


def test_rebuild_makes_the_same_database_from_parquet(scores: ScoreStore) -> None:
    for i in (100, 200):
        scores.write_partition(key(i), partition(identity(i), a=True, b=None))
    before = contents(scores.duckdb)
    scores.duckdb.write_whole("mine", described(pa.table({"a": [1]}), {"a": "What a is."}))
    with duckdb.connect(str(scores.duckdb.path)) as connected:
        connected.execute("DELETE FROM probe_results; UPDATE evaluations SET model = 'wrong'")
    report = scores.duckdb.rebuild(scores.parquet)
    assert contents(scores.duckdb) == before
    assert (report.partitions, report.carried_over, report.rows["probe_results"]) == (2, ("mine",), 4)
    assert scores.duckdb.read("mine").to_pydict() == {"a": [1]}
    told = scores.duckdb.query("SELECT comment FROM duckdb_columns() WHERE table_name = 'mine'")
    assert told["comment"].to_pylist() == ["What a is."]
    assert sorted(p.name for p in scores.duckdb.path.parent.iterdir()) == ["scores.duckdb", "scores.duckdb.lock"]
    scores.duckdb.path.unlink()
    scores.duckdb.rebuild(scores.parquet)
    assert contents(scores.duckdb) == before


def test_a_rebuild_that_fails_leaves_the_old_database(scores: ScoreStore) -> None:
    scores.write_partition(key(), partition(identity(), a=True))
    before = contents(scores.duckdb)
    scores.parquet.path(TABLES["probe_results"], key()).write_bytes(b"junk")
    with pytest.raises(StoreError, match="Restore it from a backup"):
        scores.duckdb.rebuild(scores.parquet)
    assert contents(scores.duckdb) == before
    assert sorted(p.name for p in scores.duckdb.path.parent.iterdir()) == ["scores.duckdb", "scores.duckdb.lock"]


def test_writers_during_rebuilds_lose_nothing(scores: ScoreStore) -> None:
    code = (
        "import sys, time; from pathlib import Path\n"
        "from ml_pipeline.stores.duckdb import DuckDBStore\n"
        "from ml_pipeline.stores.parquet import ParquetStore\n"
        "store = DuckDBStore(Path(sys.argv[1])); store.migrate(); print('ready', flush=True)\n"
        "while True:\n"
        "    store.rebuild(ParquetStore(Path(sys.argv[2]))); time.sleep(0.02)\n"
    )
    # Rebuilds hold the file most of the time, and a busy machine makes each of them long.
    scores.duckdb.lock_timeout_s = 120
    with background_python(code, scores.duckdb.path, scores.parquet.files.place("")) as rebuilder:
        for i in range(1, 25):
            scores.write_partition(key(i), partition(identity(i), a=True))
        assert rebuilder.poll() is None
    assert scores.duckdb.read("evaluations")["iteration"].to_pylist() == sorted(range(1, 25), key=lambda i: key(i))


def test_what_killed_rebuilds_left_is_removed(scores: ScoreStore) -> None:
    scores.write_partition(key(), partition(identity(), a=True))
    folder = scores.duckdb.path.parent
    for name in (".scores.duckdb.0123.tmp", ".scores.duckdb.0123.tmp.wal"):
        (folder / name).write_bytes(b"half")
    scores.duckdb.rebuild(scores.parquet)
    assert sorted(p.name for p in folder.iterdir()) == ["scores.duckdb", "scores.duckdb.lock"]


def test_a_process_of_ours_that_holds_the_queue_is_named(scores: ScoreStore) -> None:
    scores.duckdb.migrate()
    code = (
        "import sys; from pathlib import Path\n"
        "from ml_pipeline.stores.duckdb_files import queued\n"
        "with queued(Path(sys.argv[1]), 1):\n"
        "    print('held', flush=True); sys.stdin.readline()\n"
    )
    scores.duckdb.lock_timeout_s = 0.3
    with background_python(code, scores.duckdb.path) as holder:
        for use in (scores.duckdb.migrate, lambda: scores.duckdb.read("responses")):
            with pytest.raises(StoreLockedError, match=rf"scores\.duckdb is held by process {holder.pid} "):
                use()


def test_score_store_checks_every_table_before_it_writes_any(scores: ScoreStore) -> None:
    tables = partition(identity(), a=True)
    tables["responses"][0] = tables["responses"][0] | {"error": 5}
    del tables["checkpoint_scores"][0]["total"]
    with pytest.raises(StoreError, match=r"table responses(.|\n)*'error'(.|\n)*table checkpoint_scores(.|\n)*'total'"):
        scores.write_partition(key(), tables | {"typo": []})
    assert not Path(scores.parquet.files.place("")).exists()
    assert not scores.duckdb.path.exists()
