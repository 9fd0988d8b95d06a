from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from pathlib import Path

import pytest

from ml_pipeline.errors import StoreError, StoreFullError
from ml_pipeline.files import (
    keep_as,
    locked_within,
    named_by_user,
    remove_leftovers,
    replacing,
    share_files,
    sharing_within,
    store_errors,
    write_atomically,
    write_temporary,
)
from ml_pipeline.settings import Sharing
from ml_pipeline_tests.stores.processes import run_python

LIMITED = """
import resource, sys
from pathlib import Path
from ml_pipeline.errors import StoreFullError
from ml_pipeline.files import write_atomically
resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
try:
    write_atomically(Path(sys.argv[1]), b"x" * 1_000_000)
except StoreFullError as error:
    print(error)
"""

KILLED = """
import os, signal, sys
from pathlib import Path
import ml_pipeline.files as files
kill = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)
{step}
files.write_atomically(Path(sys.argv[1]), b"new")
"""


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_write_replaces_content_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "a.bin"
    write_atomically(path, b"one")
    write_atomically(path, b"two")
    assert path.read_bytes() == b"two"
    assert names(path.parent) == ["a.bin"]


@pytest.mark.parametrize(("umask", "file", "folder"), [(0o000, 0o600, 0o700), (0o022, 0o600, 0o700)])
def test_written_files_are_the_users_alone_whatever_the_umask(
    tmp_path: Path, umask: int, file: int, folder: int
) -> None:
    before = os.umask(umask)
    try:
        write_atomically(tmp_path / "f" / "a", b"")
        with replacing(tmp_path / "f" / "b") as temporary:
            temporary.write_bytes(b"")
        write_temporary(tmp_path / "f" / "c", b"").rename(tmp_path / "f" / "c")
        with locked_within(tmp_path / "f" / "d", 0):
            pass
    finally:
        os.umask(before)
    assert {stat.S_IMODE((tmp_path / "f" / name).stat().st_mode) for name in "abcd"} == {file}
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == folder


@pytest.mark.parametrize(
    ("sharing", "file", "folder"), [("none", 0o600, 0o700), ("group", 0o660, 0o770), ("all", 0o644, 0o755)]
)
def test_files_are_shared_as_the_setting_says_and_those_that_the_user_named_as_the_umask_does(
    tmp_path: Path, sharing: Sharing, file: int, folder: int
) -> None:
    before = os.umask(0o027)
    try:
        with sharing_within():
            share_files(sharing)
            write_atomically(tmp_path / "ours" / "a", b"")
            (tmp_path / "ours" / "of_a_library").write_bytes(b"")
            with named_by_user():
                write_atomically(tmp_path / "named" / "a", b"")
        write_atomically(tmp_path / "later", b"")
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "ours" / "a").stat().st_mode) == file
    assert stat.S_IMODE((tmp_path / "ours" / "of_a_library").stat().st_mode) == file
    assert stat.S_IMODE((tmp_path / "ours").stat().st_mode) == folder
    assert stat.S_IMODE((tmp_path / "named" / "a").stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "named").stat().st_mode) == 0o750
    assert stat.S_IMODE((tmp_path / "later").stat().st_mode) == 0o600


def test_a_name_of_the_greatest_length_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / ("k" * 200 + ".parquet")
    write_atomically(path, b"x")
    assert path.read_bytes() == b"x"


def test_full_disk_keeps_the_old_file_and_says_so(small_disk: Path) -> None:
    path = small_disk / "a"
    write_atomically(path, b"old")
    with pytest.raises(StoreFullError, match=r"No space left on device.*Free space"):
        write_atomically(path, b"x" * 2_000_000)
    assert path.read_bytes() == b"old"
    assert names(small_disk) == ["a"]


def test_file_size_limit_keeps_the_old_file_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    done = run_python(LIMITED, path)
    assert "File too large" in done.stdout, done.stderr
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a"]


def test_dev_full_is_a_full_disk() -> None:
    with pytest.raises(StoreFullError, match="/dev/full"), store_errors("write", Path("/dev/full")):
        Path("/dev/full").write_bytes(b"x")


def test_read_only_folder_names_the_folder_and_the_setting(read_only_folder: Path) -> None:
    with pytest.raises(StoreError, match=r"readonly writable for this user.*pipeline\.yaml"):
        write_atomically(read_only_folder / "a", b"x")


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (errno.ENOSPC, StoreFullError),
        (errno.EDQUOT, StoreFullError),
        (errno.EROFS, StoreError),
        (errno.EIO, StoreError),
    ],
)
def test_every_os_error_becomes_a_store_error(code: int, kind: type[StoreError]) -> None:
    with pytest.raises(StoreError) as caught, store_errors("write", Path("/there/a")):
        raise OSError(code, os.strerror(code))
    assert type(caught.value) is kind
    assert "/there/a" in str(caught.value)


@pytest.mark.parametrize(
    ("step", "content"),
    [
        ("files.os.fsync = kill", b"old"),
        ("files.Path.replace = kill", b"old"),
        ("files.fsync = lambda path: path.is_dir() and kill()", b"new"),
    ],
)
def test_a_kill_at_any_step_leaves_old_or_new(tmp_path: Path, step: str, content: bytes) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    assert run_python(KILLED.format(step=step), path).returncode == -9
    assert path.read_bytes() == content


def test_leftovers_are_removed_once_they_are_old(tmp_path: Path) -> None:
    old, young, other = (tmp_path / n for n in (".a.123.tmp", ".b.456.tmp", "c.tmp"))
    for path in (old, young, other):
        path.write_bytes(b"x")
    os.utime(old, (time.time() - 7200,) * 2)
    os.utime(other, (time.time() - 7200,) * 2)
    assert remove_leftovers(tmp_path) == 1
    assert names(tmp_path) == [".b.456.tmp", "c.tmp"]


@pytest.mark.parametrize("hard_links", [True, False])
def test_keep_as_keeps_the_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hard_links: bool) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "no hard links")

    if not hard_links:
        monkeypatch.setattr(os, "link", refuse)
    source, target = tmp_path / "a", tmp_path / "kept" / "a1"
    source.write_bytes(b"one")
    keep_as(source, target)
    write_atomically(source, b"two")
    keep_as(tmp_path / "a", tmp_path / "kept" / "a2")
    assert target.read_bytes() == b"one"
    assert (tmp_path / "kept" / "a2").read_bytes() == b"two"


def test_a_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    out = tmp_path / "a"
    out.write_text("old")
    with contextlib.suppress(RuntimeError), replacing(out) as temporary:
        temporary.write_text("new")
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert out.read_text() == "old"


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot write"), replacing(tmp_path / "file" / "a") as temporary:
        temporary.write_text("new")
