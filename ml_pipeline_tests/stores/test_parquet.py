from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ml_pipeline.errors import StoreError, StoreFullError
from ml_pipeline.stores import parquet_file
from ml_pipeline.stores.parquet import ParquetStore
from ml_pipeline.stores.rows import conform
from ml_pipeline.stores.tables import CHECKPOINT_SCORES, JUDGEMENTS, RESPONSES, SCHEMA_VERSION
from ml_pipeline_tests.stores.processes import run_python
from ml_pipeline_tests.stores.samples import identity, key, response_rows, score_rows

OLD = score_rows(identity(version="e1"), math=(1, 4))
NEW = score_rows(identity(version="e2"), math=(3, 4))

KILLED = """
import os, signal, sys
from pathlib import Path
import ml_pipeline.{module} as module
{step} = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)
from ml_pipeline.stores.parquet import ParquetStore
from ml_pipeline.stores.tables import CHECKPOINT_SCORES, SCHEMA_VERSION
from ml_pipeline_tests.stores.test_parquet import NEW
ParquetStore(Path(sys.argv[1])).write(CHECKPOINT_SCORES, NEW[0]["partition_key"], NEW)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "parquet"


@pytest.fixture
def store(folder: Path) -> ParquetStore:
    return ParquetStore(folder)


def test_rows_come_back_as_written_with_their_metadata(store: ParquetStore) -> None:
    receipt = store.write(CHECKPOINT_SCORES, key(), OLD)
    assert store.read(CHECKPOINT_SCORES, key()).to_pylist() == OLD
    assert store.read(CHECKPOINT_SCORES, key()).schema.equals(CHECKPOINT_SCORES.schema, check_metadata=True)
    path = store.path(CHECKPOINT_SCORES, key())
    assert receipt.place == str(path)
    assert path.parts[-2:] == ("checkpoint_scores", f"{key()}.parquet")
    data = path.read_bytes()
    assert store.sha256(CHECKPOINT_SCORES, key()) == receipt.sha256
    assert (receipt.rows, receipt.size_bytes, receipt.sha256) == (2, len(data), hashlib.sha256(data).hexdigest())
    footer = pq.read_metadata(path).metadata
    assert footer[b"ml_pipeline.schema_version"] == str(SCHEMA_VERSION).encode()
    assert json.loads(footer[b"ml_pipeline.evaluation_ids"]) == ["e1-g1-lek-100-capability"]


def test_another_reader_reads_the_file(store: ParquetStore) -> None:
    import duckdb

    path = store.write(CHECKPOINT_SCORES, key(), OLD).place
    with duckdb.connect() as connected:
        rows = connected.execute("SELECT category, correct, total FROM read_parquet(?)", [path]).fetchall()
    assert rows == [("overall", 1, 4), ("math", 1, 4)]


def test_rows_of_other_evaluations_are_kept_as_superseded(store: ParquetStore) -> None:
    first = store.write(CHECKPOINT_SCORES, key(), OLD)
    second = store.write(CHECKPOINT_SCORES, key(), NEW)
    third = store.write(CHECKPOINT_SCORES, key(), NEW)
    assert (first.superseded, third.superseded) == (None, None)
    assert second.superseded is not None
    (kept,) = store.superseded(CHECKPOINT_SCORES, key())
    assert kept.place == second.superseded
    assert Path(kept.name).name.startswith("20260301T123225.678901Z-")
    assert hashlib.sha256(Path(kept.place).read_bytes()).hexdigest() == first.sha256
    assert store.earlier.read(CHECKPOINT_SCORES, kept).to_pylist() == OLD
    assert store.read(CHECKPOINT_SCORES, key()).to_pylist() == NEW


def test_a_suite_more_supersedes_nothing_and_a_suite_less_does(store: ParquetStore) -> None:
    more = [*OLD, *score_rows(identity(suite="mine", version="e1"), math=(1, 1))]
    store.write(CHECKPOINT_SCORES, key(), OLD)
    assert store.write(CHECKPOINT_SCORES, key(), more).superseded is None
    assert store.write(CHECKPOINT_SCORES, key(), OLD).superseded is not None
    assert store.write(CHECKPOINT_SCORES, key(), []).superseded is not None


@pytest.mark.parametrize(
    ("where", "step", "current", "kept"),
    [
        ("stores.disk_folder", "module.keep_as", OLD, 0),
        ("stores.disk_folder", "module.write_atomically", OLD, 1),
        ("files", "module.Path.replace", OLD, 1),
        ("files", "module.temporary_beside", OLD, 1),
    ],
)
def test_a_kill_between_steps_loses_nothing(
    store: ParquetStore, folder: Path, where: str, step: str, current: list[dict[str, object]], kept: int
) -> None:
    store.write(CHECKPOINT_SCORES, key(), OLD)
    done = run_python(KILLED.format(module=where, step=step), folder)
    assert done.returncode == -9, done.stderr
    assert store.read(CHECKPOINT_SCORES, key()).to_pylist() == current
    assert len(store.superseded(CHECKPOINT_SCORES, key())) == kept
    assert store.partitions(CHECKPOINT_SCORES) == [key()]
    store.write(CHECKPOINT_SCORES, key(), NEW)
    assert len(store.superseded(CHECKPOINT_SCORES, key())) == 1


def test_read_all_takes_every_partition_and_skips_temporary_files(store: ParquetStore, folder: Path) -> None:
    keys = [key(i) for i in (100, 200, 300)]
    for i, name in zip((100, 200, 300), keys, strict=True):
        store.write(CHECKPOINT_SCORES, name, score_rows(identity(i), math=(i // 100, 4)))
    (folder / "checkpoint_scores" / f".{keys[0]}.parquet.0123.tmp").write_bytes(b"half")
    assert store.partitions(CHECKPOINT_SCORES) == keys
    assert store.read_all(CHECKPOINT_SCORES)["correct"].to_pylist() == [1, 1, 2, 2, 3, 3]
    some = store.read_all(CHECKPOINT_SCORES, [keys[2], "lab.none@1", keys[0]])
    assert some["correct"].to_pylist() == [3, 3, 1, 1]
    assert store.read_all(JUDGEMENTS).equals(JUDGEMENTS.schema.empty_table())


def test_a_partition_that_is_not_there_is_named(store: ParquetStore) -> None:
    with pytest.raises(StoreError, match=r"no partition 'lab\.g1-lek@100'.*Materialise"):
        store.read(CHECKPOINT_SCORES, key())


def flip(data: bytes) -> bytes:
    """One byte of the first pages changed: only a checksum can tell."""
    return data[:200] + bytes([data[200] ^ 0xFF]) + data[201:]


def empty(_: bytes) -> bytes:
    return b""


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def foreign(_: bytes) -> bytes:
    return b"not parquet" * 9


@pytest.mark.parametrize("damage", [empty, cut, foreign, flip])
def test_a_damaged_file_is_named_with_the_remedy(store: ParquetStore, damage: Callable[[bytes], bytes]) -> None:
    store.write(RESPONSES, key(1), response_rows(identity(1), 5))
    path = Path(store.write(RESPONSES, key(2), response_rows(identity(2), 5)).place)
    path.write_bytes(damage(path.read_bytes()))
    remedy = rf"{key(2)}\.parquet.*Restore it from a backup"
    with pytest.raises(StoreError, match=remedy):
        store.read(RESPONSES, key(2))
    with pytest.raises(StoreError, match=remedy):
        store.read_all(RESPONSES)


def test_a_damaged_file_is_kept_aside_and_can_be_replaced(store: ParquetStore) -> None:
    path = Path(store.write(CHECKPOINT_SCORES, key(), OLD).place)
    path.write_bytes(b"junk")
    receipt = store.write(CHECKPOINT_SCORES, key(), NEW)
    assert receipt.superseded is not None
    assert Path(receipt.superseded).read_bytes() == b"junk"
    assert store.read(CHECKPOINT_SCORES, key()).to_pylist() == NEW


def test_a_file_of_a_newer_program_is_refused(store: ParquetStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_file, "SCHEMA_VERSION", SCHEMA_VERSION + 1)
    store.write(CHECKPOINT_SCORES, key(), OLD)
    monkeypatch.undo()
    with pytest.raises(
        StoreError,
        match=rf"newer ml_pipeline \(tables {SCHEMA_VERSION + 1}, this one knows {SCHEMA_VERSION}\).*Upgrade",
    ):
        store.read(CHECKPOINT_SCORES, key())


def test_a_file_of_an_older_program_gets_empty_columns(store: ParquetStore) -> None:
    path = Path(store.write(CHECKPOINT_SCORES, key(), OLD).place)
    pq.write_table(pq.read_table(path).drop_columns(["accuracy_low", "accuracy_high"]), path)
    assert store.read(CHECKPOINT_SCORES, key())["accuracy_low"].to_pylist() == [None, None]
    pq.write_table(pq.read_table(path).drop_columns(["total"]), path)
    with pytest.raises(StoreError, match=r"not of table checkpoint_scores(.|\n)*'total' is missing"):
        store.read(CHECKPOINT_SCORES, key())


def test_columns_that_this_program_does_not_know_are_left_out_and_kept(store: ParquetStore) -> None:
    path = Path(store.write(CHECKPOINT_SCORES, key(), OLD).place)
    pq.write_table(pq.read_table(path).append_column("mine", pa.array([1, 2])), path)
    assert store.read(CHECKPOINT_SCORES, key()).to_pylist() == OLD
    store.write(CHECKPOINT_SCORES, key(), NEW)
    (kept,) = store.superseded(CHECKPOINT_SCORES, key())
    assert pq.read_table(kept.place)["mine"].to_pylist() == [1, 2]


def test_a_file_of_another_key_is_not_overwritten(store: ParquetStore) -> None:
    """As on a file system that does not tell upper from lower case."""
    other = Path(store.write(CHECKPOINT_SCORES, key(200), score_rows(identity(200), math=(1, 1))).place)
    other.rename(store.path(CHECKPOINT_SCORES, key()))
    with pytest.raises(StoreError, match="does not tell upper from lower case"):
        store.write(CHECKPOINT_SCORES, key(), OLD)


def test_rejected_rows_leave_the_old_ones(store: ParquetStore) -> None:
    store.write(CHECKPOINT_SCORES, key(), OLD)
    with pytest.raises(StoreError, match="must not be empty"):
        store.write(CHECKPOINT_SCORES, key(), [NEW[0] | {"label": None}])
    assert store.read(CHECKPOINT_SCORES, key()).to_pylist() == OLD
    assert store.superseded(CHECKPOINT_SCORES, key()) == []


def test_full_disk_leaves_the_old_rows(small_disk: Path) -> None:
    store = ParquetStore(small_disk / "parquet")
    old = response_rows(identity(), 3)
    store.write(RESPONSES, key(), old)
    (small_disk / "filler").write_bytes(b"x" * (900 * 1024))
    new = [row | {"response": hashlib.sha512(str(i).encode()).hexdigest() * 8} for i, row in enumerate(_many())]
    with pytest.raises(StoreFullError, match="Free space"):
        store.write(RESPONSES, key(), new)
    assert store.read(RESPONSES, key()).to_pylist() == old


def _many() -> list[dict[str, object]]:
    return [dict(row) for row in response_rows(identity(version="e2"), 5000)]


def test_whole_tables_of_any_columns(store: ParquetStore, folder: Path) -> None:
    table = pa.table({"x": [1, 2], "nested": [[1], [2, 3]]})
    assert store.write_whole("score_table", table) == str(folder / "score_table.parquet")
    assert store.read_whole("score_table").to_pydict() == table.to_pydict()
    with pytest.raises(StoreError, match="never stored"):
        store.read_whole("other")
    with pytest.raises(StoreError, match="partition key"):
        store.write_whole("../escape", table)


def test_files_from_before_samples_hold_first_answers(store: ParquetStore) -> None:
    written = conform(RESPONSES, key(), response_rows(identity(), 2)).drop_columns(["sample", "template"])
    path = store.path(RESPONSES, key())
    path.parent.mkdir(parents=True)
    pq.write_table(written, path)
    found = store.read(RESPONSES, key())
    assert found["sample"].to_pylist() == [1, 1]
    assert found["template"].to_pylist() == [None, None]
