"""Files and links that another user of the machine plants where the program is about to write, and what it leaves to
be read by others.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from ml_pipeline.automation.run_locks import run_lock
from ml_pipeline.checkpoints.cache_room import CacheRoom
from ml_pipeline.cli.dev import _alone
from ml_pipeline.errors import MlPipelineError, StoreError
from ml_pipeline.files import locked_within, own_cache, write_atomically
from ml_pipeline.stores.duckdb import DuckDBStore
from ml_pipeline.stores.locks import locked
from ml_pipeline.stores.store_folders import folder_at
from ml_pipeline_tests.cli.lab import Lab, eight

PRECIOUS = b"something of the user's own"


@pytest.fixture
def precious(tmp_path: Path) -> Path:
    path = tmp_path / "precious"
    path.write_bytes(PRECIOUS)
    return path


def in_dev(path: Path) -> None:
    with _alone(path):
        pass


def in_run_lock(path: Path) -> None:
    with run_lock(path.parent, path.stem):
        pass


def in_store_lock(path: Path) -> None:
    with locked(path, shared=False):
        pass


def in_files(path: Path) -> None:
    with locked_within(path, 0):
        pass


def in_duckdb(path: Path) -> None:
    DuckDBStore(path.with_name(path.name.removesuffix(".lock"))).query("SELECT 1")


def in_cache(path: Path) -> None:
    with CacheRoom(path.parent, 10**9).changing():
        pass


@pytest.mark.parametrize(
    ("name", "take"),
    [
        ("dev.lock", in_dev),
        ("run.lock", in_run_lock),
        ("store.lock", in_store_lock),
        ("sending.lock", in_files),
        ("scores.duckdb.lock", in_duckdb),
        (".room.lock", in_cache),
    ],
)
@pytest.mark.parametrize("target", ["precious", "nowhere"])
def test_a_link_in_the_place_of_a_lock_is_not_followed(
    tmp_path: Path, precious: Path, name: str, take: Callable[[Path], None], target: str
) -> None:
    (tmp_path / "data").mkdir()
    link = tmp_path / "data" / name
    link.symlink_to(tmp_path / target)
    with pytest.raises((MlPipelineError, OSError)):
        take(link)
    assert precious.read_bytes() == PRECIOUS
    assert not (tmp_path / "nowhere").exists()


def test_a_link_in_the_place_of_a_file_is_replaced(tmp_path: Path, precious: Path) -> None:
    link = tmp_path / "report.html"
    link.symlink_to(precious)
    write_atomically(link, b"ours")
    assert (link.read_bytes(), link.is_symlink(), precious.read_bytes()) == (b"ours", False, PRECIOUS)


def test_the_lock_of_an_object_store_lies_where_nobody_else_can_lay_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = tmp_path / "tmp"
    shared.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(shared))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with folder_at("memory://bucket/x").locked("partitions", shared=False):
        assert list(shared.iterdir()) == []
        (lock,) = (tmp_path / "cache" / "ml_pipeline" / "locks").glob("*.lock")
    for path in (lock.parent.parent, lock.parent):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert stat.S_IMODE(lock.stat().st_mode) == 0o600


def test_without_a_home_a_folder_that_somebody_laid_there_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precious: Path
) -> None:
    shared, no_folder = tmp_path / "tmp", tmp_path / "file"
    shared.mkdir()
    no_folder.write_bytes(b"")
    monkeypatch.setattr(tempfile, "tempdir", str(shared))
    monkeypatch.setenv("XDG_CACHE_HOME", str(no_folder / "cache"))
    made = own_cache()
    assert made == shared / f"ml_pipeline-{os.getuid()}"
    assert stat.S_IMODE(made.stat().st_mode) == 0o700
    made.chmod(0o777)
    assert stat.S_IMODE(own_cache().stat().st_mode) == 0o700
    made.rmdir()
    made.symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(StoreError, match="is a link"):
        own_cache()
    made.unlink()
    made.mkdir()
    monkeypatch.setattr(os, "getuid", lambda: made.stat().st_uid + 1)
    (shared / f"ml_pipeline-{os.getuid()}").mkdir()
    with pytest.raises(StoreError, match="belongs to another user"):
        own_cache()


def test_what_commands_leave_is_the_users_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = Lab(tmp_path, monkeypatch)
    (tmp_path / "dagster.yaml").unlink()
    before = os.umask(0o022)
    try:
        lab.put(eight("a"), eight("b", iteration=10))
        for command in (("status",), ("report",), ("snapshot",), ("show", "lek/a@10"), ("rebuild",)):
            done = lab.run(*command, width=200)
            assert done.exit_code == 0, done.output
        done = lab.run("export", str(tmp_path / "out"), "--format", "csv")
        assert done.exit_code == 0, done.output
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(before)
    made = [path for path in (tmp_path / "data").rglob("*") if not path.is_symlink()]
    assert {"report.html", "scores.duckdb", "dagster.yaml"} <= {path.name for path in made}
    assert [path for path in [tmp_path / "data", *made] if stat.S_IMODE(path.stat().st_mode) & 0o077] == []
    exported = list((tmp_path / "out").rglob("*.csv"))
    assert exported
    assert {stat.S_IMODE(path.stat().st_mode) for path in exported} == {0o644}, "where the user named the folder"
