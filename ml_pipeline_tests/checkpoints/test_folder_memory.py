"""A look costs what changed: which folders are listed again, and which are not."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from ml_pipeline.checkpoints.discovery import Discovery, Memory, discover
from ml_pipeline.checkpoints.source import Entry, LocalFolder
from ml_pipeline.errors import CheckpointError, SourceUnreachableError
from ml_pipeline.settings import Family
from ml_pipeline_tests.checkpoints.files import SECOND_NS, write_checkpoint

NOW = 2_000_000_000 * SECOND_NS
OLD = NOW - 1000 * SECOND_NS


class CountingFolder(LocalFolder):
    """A local folder that says which folders were listed."""

    def __init__(self, root: Path) -> None:
        super().__init__("mac", root)
        self.listed: list[str] = []
        self.is_down = False

    def list_folder(self, path: str) -> list[Entry]:
        if self.is_down:
            raise SourceUnreachableError("source mac: down")
        return super().list_folder(path)

    def list_folders(self, paths: Sequence[str]) -> dict[str, list[Entry] | CheckpointError]:
        self.listed += paths
        return super().list_folders(paths)


class Looks:
    """Looks at a folder, one after another, with one memory."""

    def __init__(self, root: Path) -> None:
        self.source = CountingFolder(root)
        self.memory = Memory()
        self.found = Discovery()

    def again(self, *, full_look_s: float = 3600, pattern: str = "*", families: Sequence[Family] = ()) -> list[str]:
        """Look, and return what was listed for it."""
        self.source.listed = []
        self.found = discover(
            self.source,
            families,
            now_ns=NOW,
            settle_s=60,
            pattern=pattern,
            memory=self.memory,
            full_look_s=full_look_s,
        )
        return self.source.listed

    def found_keys(self) -> list[str]:
        return [checkpoint.key for checkpoint in self.found.checkpoints]


def age(path: Path) -> None:
    """Make a folder, and what lies in it, old."""
    for item in [*path.rglob("*"), path]:
        os.utime(item, ns=(OLD, OLD))


@pytest.fixture
def looks(tmp_path: Path) -> Looks:
    for run in ("adapters-a", "adapters-b/inner"):
        write_checkpoint(tmp_path / run, "1_adapters.safetensors")
    age(tmp_path)
    return Looks(tmp_path)


def test_unchanged_folders_are_not_listed_again_and_what_they_hold_is_known(looks: Looks) -> None:
    assert looks.again() == ["adapters-a", "adapters-b", "adapters-b/inner"]
    first = looks.found
    assert looks.again() == []
    assert looks.found == first
    assert looks.found_keys() == ["mac.a@1", "mac.b+inner@1"]


@pytest.mark.parametrize(
    ("run", "listed"),
    [
        ("adapters-a", ["adapters-a"]),
        ("adapters-b/inner", ["adapters-b", "adapters-b/inner"]),  # the time of adapters-b itself does not change
        ("adapters-b/new", ["adapters-b", "adapters-b/inner", "adapters-b/new"]),
        ("adapters-c", ["adapters-c"]),
    ],
)
def test_a_new_file_has_its_folder_listed(looks: Looks, run: str, listed: list[str]) -> None:
    looks.again()
    write_checkpoint(looks.source.root / run, "2_adapters.safetensors", mtime_ns=OLD)
    assert looks.again() == listed
    key = f"mac.{run.removeprefix('adapters-').replace('/', '+')}@2"
    assert key in looks.found_keys()


def test_a_removed_file_or_folder_is_forgotten(looks: Looks) -> None:
    looks.again()
    (looks.source.root / "adapters-b/inner/1_adapters.safetensors").unlink()
    looks.again()
    assert looks.found_keys() == ["mac.a@1"]
    (looks.source.root / "adapters-a").rename(looks.source.root / "gone")
    looks.again()
    assert looks.found_keys() == []


@pytest.mark.parametrize("change", ["folder", "inner", "file"])
def test_what_changed_just_now_is_looked_at_until_it_has_settled(looks: Looks, change: str) -> None:
    path = {"folder": "adapters-b", "inner": "adapters-b/inner", "file": "adapters-b/inner/1_adapters.safetensors"}
    os.utime(looks.source.root / path[change], ns=(NOW, NOW))
    for _ in range(3):
        looks.again()
        assert looks.source.listed[-2:] == ["adapters-b", "adapters-b/inner"]
    age(looks.source.root)
    looks.again()
    assert looks.again() == []


def test_a_growing_file_is_looked_at_until_it_is_whole(looks: Looks) -> None:
    file = looks.source.root / "adapters-a" / "1_adapters.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-3])
    os.utime(file, ns=(NOW, NOW))
    looks.again()
    assert looks.found.growing == ["adapters-a/1_adapters.safetensors"]
    file.write_bytes(whole)
    os.utime(file, ns=(NOW, NOW))
    assert "adapters-a" in looks.again()
    assert "mac.a@1" in looks.found_keys()


def test_an_overwritten_file_shows_at_the_full_look(looks: Looks) -> None:
    looks.again()
    file = looks.source.root / "adapters-a" / "1_adapters.safetensors"
    file.write_bytes(file.read_bytes() + b"more")
    os.utime(file, ns=(OLD, OLD))
    size_bytes = looks.found.checkpoints[0].size_bytes
    looks.again()
    assert looks.found.checkpoints[0].size_bytes == size_bytes
    looks.again(full_look_s=0)
    assert looks.found.checkpoints[0].size_bytes == size_bytes + 4


def test_a_source_that_was_down_is_remembered_when_it_is_back(looks: Looks) -> None:
    looks.again()
    looks.source.is_down = True
    assert looks.again() == []
    assert (looks.found.checkpoints, looks.found.problems) == ([], ["source mac: down"])
    looks.source.is_down = False
    assert looks.again() == []
    assert looks.found_keys() == ["mac.a@1", "mac.b+inner@1"]


def test_other_settings_forget_everything(looks: Looks) -> None:
    looks.again()
    assert len(looks.again(pattern="a*")) == 3
    assert looks.found_keys() == ["mac.a@1"]
    assert len(looks.again(families=[Family(prefix="a", model="m", short="M")])) == 3
    assert looks.found.checkpoints[0].label == "M @1"


def test_a_full_look_comes_every_so_often() -> None:
    memory = Memory()
    memory.begin("context", 100, clock_s=0)
    for clock_s, kept in ((1, True), (99, True), (100, False), (101, True), (199, True), (200, False)):
        memory.remember("top", {"top": 1}, [], settled_before_ns=2)
        memory.begin("context", 100, clock_s=clock_s)
        assert (memory.recall("top", 1, {}) is not None) == kept
