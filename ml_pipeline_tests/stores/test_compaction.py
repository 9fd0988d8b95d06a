"""Compacted files: the same rows by every way of reading, newer files win, and nothing is lost on the way."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ml_pipeline.errors import StoreError, StoreFullError, StoreLockedError
from ml_pipeline.stores import compaction, locks
from ml_pipeline.stores.compaction import Compaction
from ml_pipeline.stores.duckdb import DuckDBStore
from ml_pipeline.stores.parquet import ParquetStore
from ml_pipeline.stores.rows import conform
from ml_pipeline.stores.tables import CHECKPOINT_SCORES, EVALUATIONS, RESPONSES
from ml_pipeline_tests.stores.samples import Row, evaluation_row, identity, key, response_rows, score_rows

KEYS = [key(i) for i in range(100, 125)]


def scores(iteration: int, correct: int = 1, version: str = "e1") -> list[Row]:
    return score_rows(identity(iteration, version=version), math=(correct, 1000))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "parquet"


@pytest.fixture
def store(folder: Path) -> ParquetStore:
    """25 partitions in files of their own."""
    store = ParquetStore(folder)
    for i, name in enumerate(KEYS, start=100):
        store.write(CHECKPOINT_SCORES, name, scores(i))
    return store


def own(folder: Path) -> list[str]:
    return sorted(path.stem for path in (folder / "checkpoint_scores").glob("*.parquet"))


def together(folder: Path) -> list[Path]:
    return sorted((folder / "_compacted" / "checkpoint_scores").glob("*.parquet"))


def compact(store: ParquetStore, a_file: int = 10) -> compaction.Compacted:
    return Compaction(store, a_file).compact(CHECKPOINT_SCORES)


def figures(store: ParquetStore) -> dict[str, int]:
    """The overall figure of every partition, which must be there once."""
    rows = store.read_all(CHECKPOINT_SCORES).to_pylist()
    overall = [(row["partition_key"], row["correct"]) for row in rows if row["category"] == "overall"]
    assert len(overall) == len(dict(overall))
    assert [name for name, _ in overall] == store.partitions(CHECKPOINT_SCORES)
    return dict(overall)


def test_every_way_of_reading_gives_the_same_rows(store: ParquetStore, folder: Path) -> None:
    before = store.read_all(CHECKPOINT_SCORES)
    hashes = [store.sha256(CHECKPOINT_SCORES, name) for name in KEYS]
    done = compact(store)
    assert (done.partitions, done.files_before, done.files_after) == (25, 25, 3)
    assert own(folder) == []
    assert [pq.read_metadata(path).num_rows for path in together(folder)] == [20, 20, 10]
    for reader in (store, ParquetStore(folder)):
        assert reader.read_all(CHECKPOINT_SCORES).equals(before)
        assert reader.partitions(CHECKPOINT_SCORES) == KEYS
        assert [reader.sha256(CHECKPOINT_SCORES, name) for name in KEYS] == hashes
        assert all(reader.has(CHECKPOINT_SCORES, name) for name in KEYS)
        assert not reader.has(CHECKPOINT_SCORES, key(1))
        for i, name in enumerate(KEYS):
            wanted = before.slice(2 * i, 2)
            assert reader.read(CHECKPOINT_SCORES, name).equals(wanted)
            assert pa.concat_tables(reader.read_batches(CHECKPOINT_SCORES, name)).equals(wanted)
        some = [KEYS[24], "lab.none@1", KEYS[3], KEYS[4]]
        assert reader.read_all(CHECKPOINT_SCORES, some)["partition_key"].unique().to_pylist() == [
            KEYS[24],
            KEYS[3],
            KEYS[4],
        ]
    with pytest.raises(StoreError, match=r"no partition 'lab\.g1-lek@1'"):
        store.read(CHECKPOINT_SCORES, key(1))


def test_files_of_many_row_groups(store: ParquetStore, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "_GROUP_ROWS", 5)
    monkeypatch.setattr(compaction, "_AT_ONCE", 2)
    before = store.read_all(CHECKPOINT_SCORES)
    compact(store, 100)
    (path,) = together(folder)
    assert pq.ParquetFile(path).num_row_groups == 7
    assert store.read_all(CHECKPOINT_SCORES).equals(before)
    for wanted in ([KEYS[0], KEYS[24]], [KEYS[7]], [KEYS[23], KEYS[2], KEYS[3]]):
        rows = store.read_all(CHECKPOINT_SCORES, wanted)
        assert rows["partition_key"].to_pylist() == [name for name in wanted for _ in range(2)]
    for i in random.Random(0).sample(range(25), 25):
        assert store.read(CHECKPOINT_SCORES, KEYS[i]).equals(before.slice(2 * i, 2))


def test_a_partition_written_later_wins_and_the_older_rows_are_kept(store: ParquetStore, folder: Path) -> None:
    first = store.read(CHECKPOINT_SCORES, KEYS[0]).to_pylist()
    digest = store.sha256(CHECKPOINT_SCORES, KEYS[0])
    compact(store)
    same = store.write(CHECKPOINT_SCORES, KEYS[1], scores(101, 7))
    other = store.write(CHECKPOINT_SCORES, KEYS[0], scores(100, 9, "e2"))
    assert same.superseded is None
    (kept,) = store.superseded(CHECKPOINT_SCORES, KEYS[0])
    assert (kept.place, digest is not None and digest[:12] in kept.name) == (other.superseded, True)
    assert store.earlier.read(CHECKPOINT_SCORES, kept).to_pylist() == first
    wanted = {name: {KEYS[0]: 9, KEYS[1]: 7}.get(name, 1) for name in KEYS}
    assert figures(store) == wanted
    for _ in range(2):
        compact(store)
        assert figures(store) == wanted
        assert own(folder) == []
    assert store.write(CHECKPOINT_SCORES, KEYS[0], scores(100, 9, "e2")).superseded is None


def test_files_are_written_again_only_when_little_of_them_counts(store: ParquetStore, folder: Path) -> None:
    compact(store)
    first, second, last = together(folder)
    for i in range(100, 103):
        store.write(CHECKPOINT_SCORES, key(i), scores(i, 2))
    compact(store)
    assert together(folder)[:3] == [first, second, last]
    for i in range(103, 107):
        store.write(CHECKPOINT_SCORES, key(i), scores(i, 3))
    compact(store)
    assert first not in together(folder)
    assert figures(store) == {key(i): 2 if i < 103 else 3 if i < 107 else 1 for i in range(100, 125)}


def test_nothing_to_do_writes_nothing(store: ParquetStore, folder: Path) -> None:
    compact(store)
    before = [(path, path.stat().st_mtime_ns) for path in together(folder)]
    assert compact(store).partitions == 0
    assert [(path, path.stat().st_mtime_ns) for path in together(folder)] == before
    assert Compaction(store).compact(EVALUATIONS).partitions == 0


def test_a_write_during_a_compaction_is_not_lost(
    store: ParquetStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = compaction._check

    def write_first(*arguments: object) -> None:
        store.write(CHECKPOINT_SCORES, KEYS[3], scores(103, 8))
        check(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(compaction, "_check", write_first)
    compact(store, 100)
    assert own(folder) == [KEYS[3]]
    assert figures(store) == {name: 8 if name == KEYS[3] else 1 for name in KEYS}


def test_a_partition_that_was_compacted_is_in_a_compacted_file_ever_after(
    store: ParquetStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a reader who has looked for its own file already would miss it."""
    compact(store)
    check = compaction._check

    def write_first(*arguments: object) -> None:
        for i in range(100, 125):
            store.write(CHECKPOINT_SCORES, key(i), scores(i, 2))
        check(*arguments)  # type: ignore[arg-type]

    for i in range(100, 110):
        store.write(CHECKPOINT_SCORES, key(i), scores(i))
    monkeypatch.setattr(compaction, "_check", write_first)
    monkeypatch.setattr(compaction, "_SMALL_BYTES", 1)
    compact(store, 100)
    assert store.compacted.found(CHECKPOINT_SCORES).keys() == set(KEYS)
    assert figures(store) == dict.fromkeys(KEYS, 2)


def test_a_reader_whose_files_go_looks_again(
    store: ParquetStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything is written and compacted again just before each step of a reader that has looked already."""
    reader = ParquetStore(folder)
    before = reader.read_all(CHECKPOINT_SCORES)
    for owner, name in ((reader, "_read_own"), (reader, "_read_compacted"), (reader.compacted, "_file")):
        hits: list[int] = []
        step = getattr(owner, name)

        def compact_first(*arguments: object, step: Callable[..., object] = step, hits: list[int] = hits) -> object:
            if not hits:
                hits.append(1)
                for i in range(100, 125):
                    store.write(CHECKPOINT_SCORES, key(i), scores(i))
                compact(store)
            return step(*arguments)

        monkeypatch.setattr(owner, name, compact_first)
        assert reader.read_all(CHECKPOINT_SCORES).equals(before)
        assert hits
        monkeypatch.undo()


def test_what_cannot_be_compacted_stays_and_is_named(store: ParquetStore, folder: Path) -> None:
    bad, odd = store.path(CHECKPOINT_SCORES, KEYS[4]), store.path(CHECKPOINT_SCORES, KEYS[5])
    good = bad.read_bytes()
    bad.write_bytes(good[:-20])
    pq.write_table(pq.read_table(odd).append_column("mine", pa.array([1, 2])), odd)
    foreign = store.path(CHECKPOINT_SCORES, KEYS[6])
    rows = pq.read_table(store.path(CHECKPOINT_SCORES, KEYS[7]))
    pq.write_table(rows.replace_schema_metadata(None), foreign)
    for _ in range(2):
        with pytest.raises(StoreError, match="3 are not") as caught:
            compact(store)
        assert str(bad) in str(caught.value)
        assert f"{odd} holds columns that this program does not know: mine" in str(caught.value)
        assert f"{foreign} holds rows of another partition: {KEYS[7]}" in str(caught.value)
        assert own(folder) == [KEYS[4], KEYS[5], KEYS[6]]
    bad.write_bytes(good)
    store.write(CHECKPOINT_SCORES, KEYS[6], scores(106))
    assert figures(store) == dict.fromkeys(KEYS, 1)
    assert "mine" in pq.read_table(odd).column_names


def test_older_files_get_newer_columns(store: ParquetStore) -> None:
    path = store.path(CHECKPOINT_SCORES, KEYS[0])
    pq.write_table(pq.read_table(path).drop_columns(["accuracy_low"]), path)
    before = store.read_all(CHECKPOINT_SCORES)
    compact(store)
    assert store.read_all(CHECKPOINT_SCORES).equals(before)
    assert store.write(CHECKPOINT_SCORES, KEYS[0], scores(100, 2)).superseded is None
    old = conform(RESPONSES, key(), response_rows(identity(), 2)).drop_columns(["sample", "template"])
    store.write(RESPONSES, key(2), response_rows(identity(2), 2))
    pq.write_table(old, store.path(RESPONSES, key()))
    Compaction(store).compact(RESPONSES)
    assert store.read(RESPONSES, key())["sample"].to_pylist() == [1, 1]


def test_a_partition_without_rows_stays_one(store: ParquetStore) -> None:
    store.write(CHECKPOINT_SCORES, KEYS[2], [])
    compact(store)
    assert store.partitions(CHECKPOINT_SCORES) == KEYS
    assert store.read(CHECKPOINT_SCORES, KEYS[2]).num_rows == 0
    assert store.read_all(CHECKPOINT_SCORES).num_rows == 48


def test_large_files_stay(store: ParquetStore, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    large = store.path(CHECKPOINT_SCORES, KEYS[2])
    monkeypatch.setattr(compaction, "_SMALL_BYTES", large.stat().st_size + 1)
    store.write(CHECKPOINT_SCORES, KEYS[2], score_rows(identity(102), **{f"c{i}": (1, 1) for i in range(200)}))
    before = store.read_all(CHECKPOINT_SCORES)
    compact(store)
    assert own(folder) == [KEYS[2]]
    assert store.read_all(CHECKPOINT_SCORES).equals(before)


def damage_rows(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:200] + bytes([data[200] ^ 0xFF]) + data[201:])


def damage_index(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data.replace(KEYS[0].encode() + b'": [0, 2', KEYS[0].encode() + b'": [2, 2'))


@pytest.mark.parametrize("damage", [damage_rows, damage_index, lambda path: path.write_bytes(b"PAR1")])
def test_a_damaged_compacted_file_is_named(store: ParquetStore, folder: Path, damage: Callable[[Path], None]) -> None:
    compact(store)
    path = together(folder)[0]
    content = path.read_bytes()
    damage(path)
    assert path.read_bytes() != content
    fresh = ParquetStore(folder)
    remedy = rf"(?s){path.name}.*Restore it from a backup"
    with pytest.raises(StoreError, match=remedy):
        fresh.read(CHECKPOINT_SCORES, KEYS[0])
    with pytest.raises(StoreError, match=remedy):
        fresh.read_all(CHECKPOINT_SCORES)


def test_a_link_to_nowhere_is_named(store: ParquetStore, folder: Path) -> None:
    compact(store)
    path = together(folder)[0]
    path.rename(folder / "away.parquet")
    path.symlink_to(folder / "nowhere")
    with pytest.raises(StoreError, match=rf"lists a file that is not there: .*{path.name}"):
        ParquetStore(folder).partitions(CHECKPOINT_SCORES)


def test_a_full_disk_loses_nothing(small_disk: Path) -> None:
    store = ParquetStore(small_disk / "parquet")
    for i in (1, 2):
        noise = [row | {"response": random.Random(i).randbytes(80_000).hex()} for row in response_rows(identity(i), 1)]
        store.write(RESPONSES, key(i), noise)
    before = store.read_all(RESPONSES)
    filler = small_disk / "filler"
    filler.write_bytes(b"x" * (700 * 1024))
    with pytest.raises(StoreFullError, match="Free space"):
        Compaction(store).compact(RESPONSES)
    assert store.read_all(RESPONSES).equals(before)
    assert not store.compacted.files(RESPONSES)
    filler.unlink()
    assert Compaction(store).compact(RESPONSES).files_after == 1
    assert store.read_all(RESPONSES).equals(before)


def test_one_compaction_of_a_table_at_a_time(
    store: ParquetStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with locks.locked(folder / "_compacted" / "checkpoint_scores" / ".lock", shared=False):
        short = locks.locked
        monkeypatch.setattr(
            "ml_pipeline.stores.disk_folder.locked", lambda path, shared: short(path, shared=shared, timeout_s=0.1)
        )
        with pytest.raises(StoreLockedError, match="held by another process"):
            compact(store)
    assert own(folder) == KEYS


def test_rebuild_reads_compacted_files(store: ParquetStore, tmp_path: Path) -> None:
    for i in range(100, 125):
        store.write(EVALUATIONS, key(i), [evaluation_row(identity(i))])
    database = DuckDBStore(tmp_path / "scores.duckdb")
    before = database.rebuild(store).rows
    rows = database.read("checkpoint_scores")
    compact(store)
    after = database.rebuild(store)
    assert (after.rows, after.partitions) == (before, 25)
    assert database.read("checkpoint_scores").equals(rows)


@pytest.mark.parametrize("seed", range(3))
def test_random_writes_and_compactions_agree_with_a_dictionary(folder: Path, seed: int) -> None:
    rng, store, wanted = random.Random(seed), ParquetStore(folder), {}
    for step in range(80):
        if rng.random() < 0.12:
            compact(store, rng.choice([2, 3, 7]))
            if rng.random() < 0.5:
                store = ParquetStore(folder)
        else:
            i = rng.randrange(100, 112)
            store.write(CHECKPOINT_SCORES, key(i), scores(i, step, rng.choice(["e1", "e2"])))
            wanted[key(i)] = step
        assert figures(store) == wanted
    compact(store, 100)
    assert (own(folder), len(together(folder)), figures(store)) == ([], 1, wanted)
