"""Object storage through fsspec: listings, versions, ranges, hostile names, and what is missing or secret."""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from typing import Any, TypeVar

import pytest

from ml_pipeline.checkpoints.cache_room import CacheRoom
from ml_pipeline.checkpoints.fetch import FetchCache
from ml_pipeline.checkpoints.fsspec_source import FsspecFolder
from ml_pipeline.checkpoints.source import Entry, LocalFolder
from ml_pipeline.errors import CheckpointError
from ml_pipeline_tests.checkpoints.files import write_checkpoint
from ml_pipeline_tests.checkpoints.sources import add_weights, checkpoints_of, only_checkpoint

if os.environ.get("CI", "").lower() == "true":
    import fsspec
else:
    fsspec = pytest.importorskip("fsspec", reason="the optional package fsspec is not installed")

from fsspec.implementations.asyn_wrapper import AsyncFileSystemWrapper
from fsspec.implementations.local import LocalFileSystem

SIZE = 300_000
Result = TypeVar("Result")


@pytest.fixture
def memory() -> Iterator[str]:
    """A folder of its own in fsspec's memory file system."""
    url = f"memory://{uuid.uuid4().hex}/runs"
    yield url
    fsspec.filesystem("memory").rm(url.removeprefix("memory:/").removesuffix("/runs"), recursive=True)


def folder(url: str, **options: Any) -> FsspecFolder:
    return FsspecFolder("cloud", url, options, timeout_s=5)


def good(result: Result | CheckpointError) -> Result:
    assert not isinstance(result, CheckpointError), result
    return result


def put(url: str, path: str, content: bytes) -> None:
    with fsspec.open(f"{url}/{path}", "wb") as out:
        out.write(content)


def test_a_folder_in_memory_is_discovered_and_fetched(memory: str, tmp_path: Path) -> None:
    weights = write_checkpoint(tmp_path, "0000100_adapters.safetensors").read_bytes()
    put(memory, "adapters-1b/0000100_adapters.safetensors", weights)
    put(memory, "adapters-1b/adapter_config.json", b"{}")
    put(memory, "adapters-15k/gemma-3-1b/0000200_adapters.safetensors", weights)
    put(memory, "adapters-15k/gemma-3-1b/adapter_config.json", b"{}")
    put(memory, "notes.txt", b"not a run")
    source = folder(memory)
    assert [c.key for c in checkpoints_of(source)] == ["cloud.15k+gemma-3-1b@200", "cloud.1b@100"]
    files = FetchCache(CacheRoom(tmp_path / "cache", 10**9), 10**7).fetch(source, checkpoints_of(source)[0])
    assert files.weights.read_bytes() == weights


def test_a_folder_of_this_machine_gives_what_the_local_source_gives(tmp_path: Path) -> None:
    add_weights(tmp_path, SIZE)
    source, local = folder(tmp_path.as_uri()), LocalFolder("cloud", tmp_path)
    ours, theirs = only_checkpoint(source), only_checkpoint(local)
    assert (ours.file, ours.size_bytes) == (theirs.file, theirs.size_bytes)
    assert abs(ours.mtime_ns - theirs.mtime_ns) < 1000  # fsspec tells the time as a float
    with source.open(ours.file, 200_000) as file:
        assert file.read(SIZE) == (tmp_path / ours.file).read_bytes()[200_000:]
        assert file.read(10) == b""


@pytest.mark.parametrize("offset", [0, 1, 65_536, 299_999, 300_000, 400_000])
def test_any_part_can_be_read(memory: str, offset: int) -> None:
    content = os.urandom(SIZE)
    put(memory, "a/b", content)
    with folder(memory).open("a/b", offset) as file:
        assert file.read(70_000) == content[offset : offset + 70_000]
        assert file.read(SIZE) == content[offset + 70_000 :]


def test_many_are_asked_for_at_once(memory: str) -> None:
    for number in range(20):
        put(memory, f"adapters-{number}/1_adapters.safetensors", bytes([number]) * (number + 1))
    put(memory, "empty", b"")
    source = folder(memory)
    folders = [f"adapters-{number}" for number in range(20)]
    files = [f"{path}/1_adapters.safetensors" for path in folders]
    listed = source.list_folders([*folders, "nowhere"])
    assert [[entry.name for entry in good(listed[path])] for path in folders] == [["1_adapters.safetensors"]] * 20
    assert isinstance(listed["nowhere"], CheckpointError)
    stats = source.stats([*files, "empty", "adapters-3/none", "nowhere/none"])
    assert [good(stats[path]).size_bytes for path in files] == list(range(1, 21))
    assert isinstance(stats["adapters-3/none"], CheckpointError)
    assert isinstance(stats["nowhere/none"], CheckpointError)
    starts = source.read_starts({**dict.fromkeys(files, 5), "empty": 5, "none": 5})
    assert [starts[path] for path in files[:6]] == [bytes([n]) * min(n + 1, 5) for n in range(6)]
    assert starts["empty"] == b""
    assert isinstance(starts["none"], CheckpointError)
    assert source.list_folders([]) == source.stats([]) == source.read_starts({}) == {}


def test_an_overwritten_object_shows_as_changed(memory: str) -> None:
    put(memory, "adapters-1b/1_adapters.safetensors", b"12345678")
    source = folder(memory)
    before = only_checkpoint(source)
    put(memory, "adapters-1b/1_adapters.safetensors", b"87654321")
    assert only_checkpoint(source) != before
    assert only_checkpoint(source).key == before.key


class Listing:
    """Stands in for a file system that answers with these listings; object stores are not on this machine."""

    async_impl = True

    def __init__(self, *infos: dict[str, Any]) -> None:
        self.infos = [{"name": "bucket/runs/w", "type": "file", "size": 8, **info} for info in infos]
        self.timeouts: list[float] = []

    def invalidate_cache(self) -> None:
        """Nothing is kept."""

    def ls(self, path: str, *, detail: bool, timeout: float) -> list[dict[str, Any]]:
        assert detail
        self.timeouts.append(timeout)
        return self.infos


def listed(*infos: dict[str, Any]) -> list[Entry]:
    source = folder("s3://bucket/runs")
    source._opened = (Listing(*infos), "bucket/runs")
    return source.list_folder("")


NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
NOON_NS = 1767355200 * 10**9


@pytest.mark.parametrize(
    "info",
    [
        {"LastModified": NOON},
        {"mtime": NOON_NS / 10**9},
        {"mtime": NOON.replace(tzinfo=None)},
        {"updated": "2026-01-02T12:00:00Z"},
        {"last_modified": NOON, "created": 5.0},
        {"last_commit": {"date": NOON}},
        {"created": NOON},
    ],
)
def test_the_time_is_found_under_any_of_its_names(info: dict[str, Any]) -> None:
    assert [entry.mtime_ns for entry in listed(info)] == [NOON_NS]


@pytest.mark.parametrize("mark", ["ETag", "etag", "md5Hash", "generation", "blob_id", "VersionId"])
@pytest.mark.parametrize("time", [{}, {"LastModified": NOON}])
def test_a_mark_of_the_content_changes_the_version_within_one_millisecond(mark: str, time: dict[str, Any]) -> None:
    ((one,), (two,), (again,)) = (listed({**time, mark: value}) for value in ('"aa"', "bb", "aa"))
    assert one.mtime_ns == again.mtime_ns
    assert one.mtime_ns != two.mtime_ns
    expected, spread = (NOON_NS, 10**6) if time else (0, 2**48)
    assert all(expected <= entry.mtime_ns < expected + spread for entry in (one, two))


def test_without_time_and_mark_the_time_is_zero() -> None:
    assert [entry.mtime_ns for entry in listed({}, {"mtime": "noon"}, {"mtime": -5}, {"mtime": 1e300})] == [0]


@pytest.mark.parametrize(
    "info",
    [
        {"name": "bucket/runs/.."},
        {"name": "bucket/runs/."},
        {"name": "bucket/runs/"},
        {"name": "bucket/runs"},
        {"name": "bucket/runs//x"},
        {"name": "bucket/runs/a/b"},
        {"name": "bucket/other/x"},
        {"name": "../../etc/passwd"},
        {"name": "bucket/runs/a\0b"},
        {"size": None},
        {"size": -1},
        {"size": "8"},
        {"type": "other"},
        {"islink": True},
    ],
)
def test_what_has_no_proper_name_or_size_is_left_out(info: dict[str, Any]) -> None:
    assert listed(info) == []


@pytest.mark.parametrize("name", ["with space", "quo'te\"", "new\nline", "ünï", "a" * 300, "-rf", "%2e%2e"])
def test_any_other_name_is_data(name: str) -> None:
    assert [entry.name for entry in listed({"name": f"bucket/runs/{name}"})] == [name]


def test_calls_are_bounded_where_the_file_system_can() -> None:
    source, system = folder("s3://bucket/runs"), Listing({})
    source._opened = (system, "bucket/runs")
    source.list_folder("")
    assert system.timeouts == [5]


def test_a_file_system_that_does_not_answer_is_given_up(tmp_path: Path) -> None:
    def stall(path: str, detail: bool = False, **kwargs: Any) -> list[Any]:
        asked.set()
        go_on.wait(20)
        return []

    asked, go_on = Event(), Event()
    stalling = LocalFileSystem(skip_instance_cache=True)
    stalling.ls = stall
    source = FsspecFolder("cloud", "stalling://x", {}, timeout_s=0.2)
    source._opened = (AsyncFileSystemWrapper(stalling), str(tmp_path))
    with pytest.raises(CheckpointError, match=r"cannot list '\.'.*FSTimeoutError"):
        source.list_folder("")
    assert asked.is_set()
    go_on.set()


def test_an_asynchronous_file_system_is_read_within_its_bounds(tmp_path: Path) -> None:
    content = add_weights(tmp_path, SIZE)
    source = folder(tmp_path.as_uri())
    source._opened = (AsyncFileSystemWrapper(LocalFileSystem()), str(tmp_path))
    checkpoint = only_checkpoint(source)
    with source.open(checkpoint.file, 100_000) as file:
        assert file.read(SIZE) == content[100_000:]


@pytest.mark.parametrize("path", ["..", "../x", "a/../../x", "/etc/passwd", "a//b", "a/./b", "a/", "a\0b"])
def test_no_path_leads_out(tmp_path: Path, path: str) -> None:
    source = folder((tmp_path / "inside").as_uri())
    for use in (source.open, source.stat, source.list_folder):
        with pytest.raises(CheckpointError, match=r"no path inside the source|there is no|cannot list"):
            use(path)


def test_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "1_adapters.safetensors").write_text("secret")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "adapters-x").symlink_to(tmp_path / "outside")
    assert folder((tmp_path / "runs").as_uri()).list_folder("") == []


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    for use in (folder((tmp_path / "none").as_uri()).list_folder, folder("memory://none/at/all").list_folder):
        with pytest.raises(CheckpointError, match=r"source cloud: cannot list '\.' in .*sources\.cloud in pipeline"):
            use("")


@pytest.mark.parametrize(
    ("url", "options", "message"),
    [
        ("nonsense://x", {}, "Protocol not known: nonsense.*Mend sources.cloud"),
        ("s3://bucket", {"secret": "hunter2"}, r"looks like a secret \(options: secret\)"),
        ("s3://bucket", {"client_kwargs": {"aws_secret_access_key": "hunter2"}}, "options: aws_secret_access_key"),
        ("abfs://c@account.x", {"account_key": "hunter2", "sas_token": "hunter2"}, "account_key, options: sas_token"),
        ("sftp://me:hunter2@host/x", {}, "a password in url"),
    ],
)
def test_bad_settings_say_what_to_mend_and_tell_no_secret(url: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        folder(url, **options).list_folder("")
    assert "hunter2" not in str(caught.value)


def test_what_is_not_installed_is_named_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    from fsspec.registry import known_implementations

    missing = {"class": "no_such_package.FileSystem", "err": "Install no-such-package to use it"}
    monkeypatch.setitem(known_implementations, "nosuch", missing)
    with pytest.raises(CheckpointError, match="needs one more Python package: Install no-such-package to use it"):
        folder("nosuch://x").list_folder("")
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(CheckpointError, match=r"pip install 'ml_pipeline\[remote\]'"):
        folder("memory://x").list_folder("")


def test_an_answer_that_carries_a_signed_address_is_shortened() -> None:
    class Refusing(Listing):
        def ls(self, path: str, *, detail: bool, timeout: float) -> list[dict[str, Any]]:
            raise OSError("403 for https://host/x?X-Amz-Signature=hunter2&y=1 \n" + "z" * 1000)

    source = folder("s3://bucket/runs")
    source._opened = (Refusing(), "bucket/runs")
    with pytest.raises(CheckpointError, match=r"OSError: 403 for https://host/x\?\.\.\. z+") as caught:
        source.list_folder("")
    assert "hunter2" not in str(caught.value)
    assert len(str(caught.value)) < 600
