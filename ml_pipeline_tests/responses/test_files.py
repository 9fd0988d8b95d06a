"""Files of responses in a real folder: which are taken, which are left, and how their partitions are called."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from ml_pipeline.errors import ResponseFileError
from ml_pipeline.json_lines import open_plain
from ml_pipeline.responses.files import file_name, find_response_files

HOUR_S = 3600


def put(folder: Path, name: str, age_s: float = HOUR_S) -> Path:
    path = folder / name
    path.write_text("{}\n")
    then = time.time() - age_s
    os.utime(path, (then, then))
    return path


def keys(folder: Path) -> list[str]:
    found = find_response_files(folder, now_ns=time.time_ns(), settle_s=60)
    return [file.key for file in found.files]


def test_a_missing_folder_holds_nothing(tmp_path: Path) -> None:
    assert keys(tmp_path / "nowhere") == []


def test_plain_settled_files_are_taken(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a b+c.jsonl", "..up.jsonl", ".hidden.jsonl", "notes.txt", "é.jsonl", "x..y.jsonl"):
        put(tmp_path, name)
    (tmp_path / "folder.jsonl").mkdir()
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "b.jsonl")
    put(tmp_path, "n" * 220 + ".jsonl")
    found = find_response_files(tmp_path, now_ns=time.time_ns(), settle_s=60)
    assert [file.key for file in found.files] == ["a=20b=2Bc", "b", "x.=2Ey", "=C3=A9"]
    assert [file_name(file.key) for file in found.files] == ["a b+c.jsonl", "b.jsonl", "x..y.jsonl", "é.jsonl"]
    problems = "\n".join(found.problems)
    assert len(found.problems) == 4
    for name in ("folder.jsonl", "pipe.jsonl", "link.jsonl", "nnn"):
        assert name in problems


def test_a_name_that_is_no_text_has_a_key_and_comes_back(tmp_path: Path) -> None:
    raw = os.fsdecode(b"\xff\xfe.jsonl")
    put(tmp_path, raw)
    assert keys(tmp_path) == ["=FF=FE"]
    assert file_name("=FF=FE") == raw


@pytest.mark.parametrize(("age_s", "taken"), [(61, True), (30, False), (0, False), (-30, False), (-HOUR_S, True)])
def test_a_file_that_is_still_written_is_left_for_later(tmp_path: Path, age_s: float, taken: bool) -> None:
    put(tmp_path, "a.jsonl", age_s)
    found = find_response_files(tmp_path, now_ns=time.time_ns(), settle_s=60)
    assert (len(found.files), found.growing) == ((1, 0) if taken else (0, 1))


@pytest.mark.parametrize("key", ["..", "a+b", "+etc+passwd", "=2e", "a b", "=00"])
def test_a_key_that_names_no_file_is_refused(key: str) -> None:
    with pytest.raises(ResponseFileError, match="names no file of responses"):
        file_name(key)


def test_only_plain_files_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/etc/hostname")
    for name in ("pipe", "link", "missing"):
        with pytest.raises(ResponseFileError, match=name):
            open_plain(tmp_path / name, ResponseFileError)
