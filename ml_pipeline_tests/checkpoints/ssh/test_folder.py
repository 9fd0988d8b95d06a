"""A folder behind a real SSH server: what it lists, what it reads, and what hostile names and links do."""

from __future__ import annotations

import getpass
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ml_pipeline.checkpoints.cache_room import CacheRoom
from ml_pipeline.checkpoints.catalogue import Catalogue
from ml_pipeline.checkpoints.discovery import discover
from ml_pipeline.checkpoints.fetch import FetchCache
from ml_pipeline.checkpoints.source import Entry, LocalFolder, Source
from ml_pipeline.checkpoints.ssh import SshFolder
from ml_pipeline.checkpoints.ssh.connection import SESSIONS_AT_ONCE, ConnectionPool
from ml_pipeline.errors import CheckpointError, SourceUnreachableError
from ml_pipeline.settings_file import load_settings
from ml_pipeline_tests.checkpoints.files import SECOND_NS, write_checkpoint
from ml_pipeline_tests.sshd import Sshd, running_sshd

NOW = 2_000_000_000 * SECOND_NS
OLD = NOW - 1000 * SECOND_NS
HOSTILE_NAMES = (
    b"new\nline",
    b"'quotes\" $(touch x) `y`",
    b"  spaces  ",
    "ümläut-日本".encode(),
    b"\xff\xfe",
    b"-rf",
    b"*",
)


@pytest.fixture
def folder(sshd: Sshd, root: Path, pool: ConnectionPool) -> SshFolder:
    return SshFolder("mac", sshd.settings(root), pool)


def by_name(entries: list[Entry]) -> dict[str, Entry]:
    return {entry.name: entry for entry in entries}


def test_it_lists_what_the_local_folder_lists(folder: SshFolder, root: Path) -> None:
    for number in range(250):  # more than a server sends at once
        (root / f"file-{number}").write_bytes(b"x" * number)
        os.utime(root / f"file-{number}", (number, number))
    (root / "inner").mkdir()
    local = LocalFolder("mac", root)
    ours, theirs = by_name(folder.list_folder("")), by_name(local.list_folder(""))
    assert len(ours) == 251
    assert ours.keys() == theirs.keys()
    for name, entry in ours.items():
        other = theirs[name]
        assert (entry.is_folder, entry.size_bytes) == (other.is_folder, other.size_bytes)
        assert entry.mtime_ns == other.mtime_ns // SECOND_NS * SECOND_NS


def test_many_folders_are_listed_over_one_connection(folder: SshFolder, root: Path, sshd: Sshd) -> None:
    for number in range(600):  # more than are under way at once
        (root / f"run-{number}").mkdir()
        (root / f"run-{number}" / f"{number}.txt").touch()
    before = sshd.log().count("Accepted publickey")
    paths = [f"run-{number}" for number in range(600)]
    found = folder.list_folders([*paths, "missing"])
    listed = {path: [entry.name for entry in result] for path, result in found.items() if isinstance(result, list)}
    assert listed == {f"run-{number}": [f"{number}.txt"] for number in range(600)}
    assert isinstance(found["missing"], CheckpointError)
    assert "no such file or folder" in str(found["missing"])
    assert sshd.log().count("Accepted publickey") == before + 1


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_names_are_data(folder: SshFolder, root: Path, name: bytes) -> None:
    inner = os.fsencode(root) + b"/" + name
    os.mkdir(inner)  # noqa: PTH102 (bytes)
    Path(os.fsdecode(inner), "file").write_bytes(b"content")
    (entry,) = folder.list_folder("")
    assert entry.name.encode("utf-8", "surrogateescape") == name
    assert [e.name for e in folder.list_folder(entry.name)] == ["file"]
    with folder.open(f"{entry.name}/file") as file:
        assert file.read() == b"content"


def test_links_are_followed_inside_the_folder_only(folder: SshFolder, root: Path) -> None:
    outside = root.parent / "runs-outside"  # its name begins as the folder's does
    outside.mkdir()
    (outside / "secret").write_text("secret")
    (root / "inner").mkdir()
    (root / "inner" / "file").write_bytes(b"12345")
    for name, target in {
        "good": "inner/file",
        "good-folder": "inner",
        "out": "../runs-outside/secret",
        "out-folder": str(outside),
        "loop": "loop",
        "nothing": "inner/no",
    }.items():
        (root / name).symlink_to(target)
    entries = by_name(folder.list_folder(""))
    assert (entries["good"].size_bytes, entries["good"].trouble) == (5, "")
    assert (entries["good-folder"].is_folder, entries["good-folder"].trouble) == (True, "")
    assert {name for name, entry in entries.items() if entry.trouble} == {"out", "out-folder", "loop", "nothing"}
    for path in ("out", "out-folder/secret", "../runs-outside/secret", "inner/../../runs-outside/secret"):
        for read in (folder.open, folder.stat, folder.list_folder):
            with pytest.raises(CheckpointError, match=r"leads out of|not"):
                read(path)
    assert isinstance(folder.list_folders(["out-folder"])["out-folder"], CheckpointError)


@pytest.mark.parametrize("path", ["x\0y", "a/" * 3000, "missing", "inner", "pipe"])
def test_what_is_no_file_is_refused_and_the_connection_goes_on(folder: SshFolder, root: Path, path: str) -> None:
    (root / "inner").mkdir()
    os.mkfifo(root / "pipe")
    with pytest.raises(CheckpointError, match="source mac: cannot read"):
        folder.open(path)
    assert {entry.name for entry in folder.list_folder("")} == {"inner"}


def test_a_base_folder_that_is_not_there_says_how_to_mend_it(sshd: Sshd, root: Path, pool: ConnectionPool) -> None:
    folder = SshFolder("mac", sshd.settings(root / "nowhere"), pool)
    with pytest.raises(CheckpointError, match=r"no such file or folder.*sources in pipeline\.yaml"):
        folder.list_folder("")


def test_a_folder_without_permission_is_a_problem_of_its_own(pool: ConnectionPool) -> None:
    # a server of root is asked as another user, since root may read everything
    user = "nobody" if os.geteuid() == 0 else getpass.getuser()
    with tempfile.TemporaryDirectory() as place, running_sshd(Path(place) / "sshd") as server:
        root = Path(place) / "runs"
        (root / "closed").mkdir(parents=True)
        (root / "open").mkdir()
        (root / "open" / "file").touch(mode=0)
        (root / "closed").chmod(0)
        Path(place).chmod(0o755)
        folder = SshFolder("mac", server.settings(root, user=user), pool)
        found = folder.list_folders(["closed", "open"])
        assert "permission denied" in str(found["closed"])
        assert "Mend the path or the permissions" in str(found["closed"])
        assert isinstance(found["open"], list)
        with pytest.raises(CheckpointError, match="permission denied"):
            folder.open("open/file")
        (root / "closed").chmod(0o700)


@pytest.mark.parametrize("size_bytes", [0, 1, 2**15, 2**15 + 1, 3_000_001])
@pytest.mark.parametrize("piece_bytes", [-1, 1000, 2**20])
def test_files_are_read_whole_and_from_an_offset(
    folder: SshFolder, root: Path, size_bytes: int, piece_bytes: int
) -> None:
    content = os.urandom(size_bytes)
    (root / "file").write_bytes(content)
    for offset in {0, 1, size_bytes // 2, size_bytes, size_bytes + 5}:
        with folder.open("file", offset) as file:
            parts = list(iter(lambda file=file: file.read(piece_bytes), b""))  # type: ignore[misc]
        assert b"".join(parts) == content[offset:]
        assert all(len(part) == piece_bytes for part in parts[:-1])


def test_a_file_that_shrinks_ends_early_and_one_that_grows_ends_where_it_did(folder: SshFolder, root: Path) -> None:
    (root / "file").write_bytes(bytes(2_000_000))
    with folder.open("file") as file:
        assert len(file.read(10)) == 10
        os.truncate(root / "file", 1_000_000)
        assert len(file.read()) == 1_000_000 - 10
        assert file.read() == b""
    with folder.open("file") as file, (root / "file").open("ab") as writer:
        writer.write(b"more")
        writer.flush()
        assert len(file.read()) == 1_000_000


def test_sessions_are_used_again_and_files_left_open_are_bounded(sshd: Sshd, root: Path, pool: ConnectionPool) -> None:
    folder = SshFolder("mac", sshd.settings(root, timeout_s=0.5), pool)
    (root / "file").write_bytes(bytes(5_000_000))
    for _ in range(3 * SESSIONS_AT_ONCE):
        with folder.open("file") as file:
            file.read(100_000)  # more was asked for than is taken
    files = [folder.open("file") for _ in range(SESSIONS_AT_ONCE)]
    with pytest.raises(SourceUnreachableError, match="Close files"):
        folder.open("file")
    for file in files:
        file.close()
    assert folder.stat("file").size_bytes == 5_000_000


def test_several_threads_share_the_connection(folder: SshFolder, root: Path, sshd: Sshd) -> None:
    contents = {f"file-{number}": os.urandom(3_000_000) for number in range(2 * SESSIONS_AT_ONCE)}
    for name, content in contents.items():
        (root / name).write_bytes(content)
    before = sshd.log().count("Accepted publickey")

    def read(name: str) -> bytes:
        assert len(folder.list_folder("")) == len(contents)
        with folder.open(name) as file:
            return file.read(1_000_000) + file.read()

    with ThreadPoolExecutor(SESSIONS_AT_ONCE) as threads:
        assert dict(zip(contents, threads.map(read, contents), strict=True)) == contents
    assert sshd.log().count("Accepted publickey") == before + 1


def test_the_starts_of_files_come_together(folder: SshFolder, root: Path) -> None:
    (root / "long").write_bytes(bytes(range(256)) * 1000)
    (root / "short").write_bytes(b"short")
    starts = folder.read_starts({"long": 100_000, "short": 10, "missing": 10})
    assert starts["long"] == (bytes(range(256)) * 1000)[:100_000]
    assert starts["short"] == b"short"
    assert isinstance(starts["missing"], CheckpointError)


def test_discovery_finds_the_same_as_on_the_local_disk(folder: SshFolder, root: Path) -> None:
    for run in ("adapters-1b-a", "adapters-1b-b/gemma-3-1b", "adapters-1b 'c'\n"):
        for iteration in (100, 200, 1000):
            write_checkpoint(root / run, f"{iteration:07}_adapters.safetensors", mtime_ns=OLD)
    young = write_checkpoint(root / "adapters-1b-a", "0000300_adapters.safetensors", mtime_ns=NOW)
    growing = write_checkpoint(root / "adapters-1b-a", "0000400_adapters.safetensors")
    growing.write_bytes(growing.read_bytes()[:-5])
    os.utime(growing, ns=(NOW, NOW))
    os.mkdir(os.fsencode(root) + b"/adapters-\xff")  # noqa: PTH102 (bytes)
    write_checkpoint(Path(os.fsdecode(os.fsencode(root) + b"/adapters-\xff")), "1_adapters.safetensors")

    def look(source: Source) -> tuple[list[object], ...]:
        found = discover(source, (), now_ns=NOW, settle_s=60)
        return list(found.checkpoints), list(found.growing), list(found.problems)

    ours = look(folder)
    assert ours == look(LocalFolder("mac", root))
    assert len(ours[0]) == 10
    assert young.name in str(ours[0])
    assert ours[1] == ["adapters-1b-a/0000400_adapters.safetensors"]
    assert len(ours[2]) == 1
    assert "no UTF-8" in str(ours[2][0])


def test_a_checkpoint_is_fetched_into_the_cache(folder: SshFolder, root: Path, tmp_path: Path) -> None:
    file = write_checkpoint(root / "adapters-1b-a", "0000100_adapters.safetensors", mtime_ns=OLD)
    (checkpoint,) = discover(folder, (), now_ns=NOW, settle_s=60).checkpoints
    fetched = FetchCache(CacheRoom(tmp_path / "cache", 10**9), 10**6).fetch(folder, checkpoint)
    assert fetched.weights.read_bytes() == file.read_bytes()
    assert fetched.config.read_bytes() == (file.parent / "adapter_config.json").read_bytes()


def test_several_machines_are_looked_at_and_one_that_is_down_is_its_own_problem(tmp_path: Path, sshd: Sshd) -> None:
    with running_sshd(tmp_path / "second") as second:
        for name in ("a", "b"):
            write_checkpoint(tmp_path / name / "adapters-1b", "1_adapters.safetensors", mtime_ns=SECOND_NS)
        sources = {
            "a": sshd.settings(tmp_path / "a"),
            "b": second.settings(tmp_path / "b"),
            "down": second.settings(tmp_path, port=1),
        }
        lines = [f"  {name}: {source.model_dump_json()}" for name, source in sources.items()]
        config = tmp_path / "pipeline.yaml"
        config.write_text("\n".join(["base_models: {tiny: {}}", "sources:", *lines]))
        catalogue = Catalogue(load_settings(config, environ={}))
        for _ in range(2):
            found = catalogue.look()
            assert [c.key for c in found.checkpoints] == ["a.1b@1", "b.1b@1"]
            assert any("source down: cannot connect" in problem for problem in found.problems)
        for name in ("a", "b"):
            source = catalogue.source(name)
            assert isinstance(source, SshFolder)
            source.close()
