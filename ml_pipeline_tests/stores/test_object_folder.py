"""The Parquet store in object storage: on a real S3-compatible server, and in fsspec's memory."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pytest
from click.testing import CliRunner

from ml_pipeline.cli import main
from ml_pipeline.errors import StoreError
from ml_pipeline.stores.compaction import Compaction
from ml_pipeline.stores.io_managers import ParquetIOManager
from ml_pipeline.stores.parquet import ParquetStore
from ml_pipeline.stores.tables import CHECKPOINT_SCORES, RESPONSES
from ml_pipeline_tests.s3_server import running_s3
from ml_pipeline_tests.stores.processes import run_python
from ml_pipeline_tests.stores.samples import identity, key, response_rows, score_rows
from ml_pipeline_tests.stores.test_compaction import figures, scores
from ml_pipeline_tests.stores.test_compaction_crashes import KILLED

fsspec = pytest.importorskip("fsspec", reason="the optional package fsspec is not installed")


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A bucket on a server that runs as long as this file's tests."""
    with pytest.MonkeyPatch.context() as patch, running_s3(tmp_path_factory.mktemp("s3"), patch) as options:
        patch.setenv("AWS_ENDPOINT_URL", options["endpoint_url"])
        fsspec.filesystem("s3", skip_instance_cache=True).mkdir("scores")
        yield "s3://scores"


@pytest.fixture(params=["memory", "s3"])
def place(request: pytest.FixtureRequest) -> str:
    """A folder of its own in object storage."""
    root = request.getfixturevalue("s3") if request.param == "s3" else "memory://scores"
    return f"{root}/{uuid.uuid4().hex}/parquet"


def test_a_store_there_does_what_one_on_a_disk_does(place: str) -> None:
    store, keys = ParquetStore(place), [key(i) for i in range(100, 112)]
    assert store.partitions(CHECKPOINT_SCORES) == []
    assert not store.has(CHECKPOINT_SCORES, keys[0])
    assert store.superseded(CHECKPOINT_SCORES, keys[0]) == []
    for i, name in enumerate(keys, start=100):
        receipt = store.write(CHECKPOINT_SCORES, name, scores(i))
        assert receipt.place == f"{place}/checkpoint_scores/{name}.parquet"
        assert store.sha256(CHECKPOINT_SCORES, name) == receipt.sha256
    again = store.write(CHECKPOINT_SCORES, keys[0], scores(100, 5, "e2"))
    (kept,) = store.superseded(CHECKPOINT_SCORES, keys[0])
    assert (kept.place, kept.size_bytes > 0, kept.modified_s > 1.7e9) == (again.superseded, True, True)
    assert store.earlier.read(CHECKPOINT_SCORES, kept).to_pylist() == scores(100)
    before = store.read_all(CHECKPOINT_SCORES)
    assert before.num_rows == 24
    assert Compaction(store, 5).compact(CHECKPOINT_SCORES).files_after == 3
    for reader in (store, ParquetStore(place)):
        assert reader.read_all(CHECKPOINT_SCORES).equals(before)
        assert reader.read(CHECKPOINT_SCORES, keys[7]).to_pylist() == scores(107)
        assert reader.partitions(CHECKPOINT_SCORES) == keys
        assert reader.sha256(CHECKPOINT_SCORES, keys[1]) is not None
    assert store.write(CHECKPOINT_SCORES, keys[1], scores(101, 6, "e2")).superseded is not None
    Compaction(store, 50).compact(CHECKPOINT_SCORES)
    assert figures(ParquetStore(place)) == {**dict.fromkeys(keys, 1), keys[0]: 5, keys[1]: 6}
    store.files.remove([kept.name, kept.name])
    assert store.superseded(CHECKPOINT_SCORES, keys[0]) == []
    with pytest.raises(StoreError, match=r"has no partition.*://.*Materialise"):
        store.read(CHECKPOINT_SCORES, key(1))


def test_rows_in_batches_and_whole_tables(place: str) -> None:
    store, rows = ParquetStore(place), response_rows(identity(), 30)
    receipt = store.write_batches(RESPONSES, key(), [rows[:20], rows[20:]], "e1", rows[0]["scored_at"])
    assert (receipt.rows, store.sha256(RESPONSES, key())) == (30, receipt.sha256)
    assert pa.concat_tables(store.read_batches(RESPONSES, key())).to_pylist() == rows
    assert store.write_whole("score_table", pa.table({"x": [1]})) == f"{place}/score_table.parquet"
    assert store.read_whole("score_table").to_pylist() == [{"x": 1}]
    with pytest.raises(StoreError, match="never stored"):
        store.read_whole("other")

    def failing() -> Iterator[list[dict[str, object]]]:
        yield rows[:1]
        raise StoreError("no more")

    with pytest.raises(StoreError, match="no more"):
        store.write_batches(RESPONSES, key(), failing(), "e1", rows[0]["scored_at"])
    assert store.read(RESPONSES, key()).num_rows == 30


def test_a_damaged_object_is_named(place: str) -> None:
    store = ParquetStore(place)
    receipt = store.write(RESPONSES, key(), response_rows(identity(), 5))
    data = store.files.read(f"responses/{key()}.parquet")
    store.files.write(f"responses/{key()}.parquet", data[:200] + bytes([data[200] ^ 0xFF]) + data[201:])
    with pytest.raises(StoreError, match=rf"cannot read {receipt.place}.*damaged"):
        store.read(RESPONSES, key())


def test_an_asset_is_stored_there(place: str) -> None:
    @dg.asset(partitions_def=dg.StaticPartitionsDefinition([key()]))
    def checkpoint_scores() -> pa.Table:
        return pa.Table.from_pylist(scores(100), schema=CHECKPOINT_SCORES.schema)

    done = dg.materialize(
        [checkpoint_scores], partition_key=key(), resources={"io_manager": ParquetIOManager(folder=place)}
    )
    (event,) = done.asset_materializations_for_node("checkpoint_scores")
    assert event.metadata["dagster/uri"].value == f"{place}/checkpoint_scores/{key()}.parquet"
    assert ParquetStore(place).read(CHECKPOINT_SCORES, key()).to_pylist() == scores(100)


def test_the_commands_work_there(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {
        "sources": {"lab": {"type": "local", "path": "runs"}},
        "base_models": {"gemma-1b": {}},
        "stores": {"parquet": place, "duckdb": "scores.duckdb"},
    }
    (tmp_path / "pipeline.yaml").write_text(json.dumps(settings))
    monkeypatch.setenv("ML_PIPELINE_CONFIG", str(tmp_path / "pipeline.yaml"))

    def command(*arguments: str) -> str:
        done = CliRunner().invoke(main, arguments)
        assert done.exit_code == 0, done.output
        return done.output

    store = ParquetStore(place)
    for version in ("e1", "e2"):
        for i in (1, 2):
            store.write(CHECKPOINT_SCORES, key(i), score_rows(identity(i, version=version), math=(1, 2)))
            store.write(RESPONSES, key(i), response_rows(identity(i, version=version), 3))
    assert "checkpoint_scores: 2 partitions, 2 files before, 1 after" in command("compact")
    assert "nothing to put together" in command("compact")
    assert "responses 6" in command("rebuild")
    listed = command("clean", "--older-than", "0")
    assert all(file.place in listed for i in (1, 2) for file in store.superseded(RESPONSES, key(i)))
    assert "Deleted: 2 files" in command("clean", "--older-than", "0", "--delete")
    assert len(store.superseded(CHECKPOINT_SCORES, key(1))) == 1
    assert store.superseded(RESPONSES, key(1)) == []


@pytest.mark.slow
@pytest.mark.parametrize(("step", "calls"), [("ObjectFolder.mark", 9), ("ObjectFolder.remove", 1)])
def test_a_kill_loses_and_doubles_nothing(s3: str, step: str, calls: int) -> None:
    place = f"{s3}/{uuid.uuid4().hex}"
    store = ParquetStore(place)
    for i in range(100, 112):
        store.write(CHECKPOINT_SCORES, key(i), scores(i))
    Compaction(store, 20).compact(CHECKPOINT_SCORES)
    for i in range(104, 116):
        store.write(CHECKPOINT_SCORES, key(i), scores(i, 2))
    wanted = {key(i): 1 if i < 104 else 2 for i in range(100, 116)}
    done = run_python(KILLED.format(module="stores.object_folder", step=step, calls=calls), place)
    assert done.returncode == -9, done.stderr
    assert figures(ParquetStore(place)) == wanted
    Compaction(store, 40).compact(CHECKPOINT_SCORES)
    assert figures(ParquetStore(place)) == wanted
    assert (store.own_keys(CHECKPOINT_SCORES), len(store.compacted.files(CHECKPOINT_SCORES))) == (set(), 1)


def test_a_bucket_that_is_not_there_is_named(s3: str) -> None:
    store = ParquetStore(s3.replace("scores", "nowhere"))
    with pytest.raises(StoreError, match=r"cannot write s3://nowhere/checkpoint_scores/.*stores\.parquet"):
        store.write(CHECKPOINT_SCORES, key(), scores(100))


def test_a_server_that_is_away_is_an_error_without_secrets(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush-hush")
    store = ParquetStore(f"{s3}/x")
    attempts: list[Callable[[], object]] = [
        lambda: store.write(CHECKPOINT_SCORES, key(), scores(100)),
        lambda: store.read(CHECKPOINT_SCORES, key()),
        lambda: store.partitions(CHECKPOINT_SCORES),
    ]
    for attempt in attempts:
        with pytest.raises(StoreError, match=r"s3://scores/x.*Check the connection") as caught:
            attempt()
        assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("sftp://host/folder", "cannot be replaced in one step"),
        ("https://host/folder", "cannot be replaced in one step"),
        ("s3://user:hush@bucket/folder", r"s3://\.\.\.@bucket/folder holds a password"),
    ],
)
def test_addresses_that_will_not_do(url: str, said: str) -> None:
    with pytest.raises(StoreError, match=said) as caught:
        ParquetStore(url)
    assert "hush" not in str(caught.value)


def test_a_file_address_is_a_folder(tmp_path: Path) -> None:
    store = ParquetStore(f"file://{tmp_path}/parquet")
    store.write(CHECKPOINT_SCORES, key(), scores(100))
    assert store.path(CHECKPOINT_SCORES, key()) == tmp_path / "parquet" / "checkpoint_scores" / f"{key()}.parquet"
    assert store.path(CHECKPOINT_SCORES, key()).is_file()
