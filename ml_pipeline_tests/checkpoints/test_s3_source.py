"""A source in S3, against a real S3-compatible server: discovered, fetched, overwritten, and gone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ml_pipeline.checkpoints.fsspec_source import FsspecFolder
from ml_pipeline.errors import CheckpointChangedError, CheckpointError
from ml_pipeline_tests.checkpoints.files import write_checkpoint
from ml_pipeline_tests.checkpoints.sources import cache_in, only_checkpoint
from ml_pipeline_tests.s3_server import running_s3

URL = "s3://training/runs"
WEIGHTS = "adapters-1b/0000100_adapters.safetensors"


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    with running_s3(tmp_path, monkeypatch) as found:
        yield found


@pytest.fixture
def bucket(options: dict[str, Any]) -> Any:
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    file_system = s3fs.S3FileSystem(**options)
    file_system.mkdir("training")
    return file_system


@pytest.fixture
def source(options: dict[str, Any]) -> FsspecFolder:
    return FsspecFolder("store", URL, options, timeout_s=30)


def upload(bucket: Any, folder: Path, *, name: str = "0000100_adapters.safetensors") -> bytes:
    weights = write_checkpoint(folder, name)
    bucket.pipe_file(f"training/runs/adapters-1b/{name}", weights.read_bytes())
    bucket.pipe_file(
        "training/runs/adapters-1b/adapter_config.json", weights.with_name("adapter_config.json").read_bytes()
    )
    return weights.read_bytes()


def test_a_checkpoint_is_found_and_fetched(bucket: Any, source: FsspecFolder, tmp_path: Path) -> None:
    content = upload(bucket, tmp_path / "made")
    checkpoint = only_checkpoint(source)
    assert checkpoint.file == WEIGHTS
    files = cache_in(tmp_path / "cache").fetch(source, checkpoint)
    assert files.weights.read_bytes() == content


def test_an_overwritten_checkpoint_is_another_version(bucket: Any, source: FsspecFolder, tmp_path: Path) -> None:
    upload(bucket, tmp_path / "made")
    first = only_checkpoint(source)
    bucket.pipe_file(f"training/runs/{WEIGHTS}", (tmp_path / "made").joinpath(Path(WEIGHTS).name).read_bytes() + b"\0")
    second = only_checkpoint(source)
    assert (first.key, first.mtime_ns) != (second.key, second.mtime_ns)
    with pytest.raises(CheckpointChangedError, match="changed since it was discovered"):
        cache_in(tmp_path / "cache").fetch(source, first)


def test_a_bucket_that_is_not_there_says_so(options: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match="source store: "):
        FsspecFolder("store", "s3://nowhere/runs", options, timeout_s=30).list_folder("")
