"""Reading a log that grows, is cut or replaced, from a real folder; and finding it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from ml_pipeline.checkpoints import log_reader
from ml_pipeline.checkpoints.log_files import MOST_LOGS, LogFile, find_logs, logs_of_run, looks_like_log
from ml_pipeline.checkpoints.log_reader import LogPosition, LogReading, read_log, read_logs
from ml_pipeline.checkpoints.source import LocalFolder
from ml_pipeline.checkpoints.training_log import LossRecord
from ml_pipeline.errors import CheckpointError

FOLDER = "adapters-1b"
LIMIT = 10**6


class CountingFolder(LocalFolder):
    """A local folder that notes where files were opened."""

    def __init__(self, name: str, root: Path) -> None:
        super().__init__(name, root)
        self.opened: list[tuple[str, int]] = []

    def open(self, path: str, offset: int = 0) -> BinaryIO:
        self.opened.append((path, offset))
        return super().open(path, offset)


@pytest.fixture
def source(tmp_path: Path) -> CountingFolder:
    (tmp_path / FOLDER).mkdir()
    return CountingFolder("mac", tmp_path)


def write(source: LocalFolder, content: bytes, name: str = "training.log", folder: str = FOLDER) -> Path:
    path = source.root / folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def line(iteration: int, loss: float = 2.5) -> bytes:
    return f"Iter {iteration}: Train loss {loss}\n".encode()


def lines(*iterations: int, loss: float = 2.5) -> bytes:
    return b"".join(line(iteration, loss) for iteration in iterations)


def the_log(source: LocalFolder) -> LogFile:
    (log,) = find_logs(source).logs
    return log


def read(source: LocalFolder, position: LogPosition | None = None, limit: int = LIMIT) -> LogReading:
    reading = read_log(source, the_log(source), position, limit)
    assert reading is not None
    return reading


def iterations(reading: LogReading) -> list[int]:
    return [record.iteration for record in reading.records]


def test_only_what_was_added_is_read(source: CountingFolder) -> None:
    long_ago = lines(*range(1, 1001))
    path = write(source, long_ago)
    first = read(source)
    assert (iterations(first), first.from_start) == (list(range(1, 1001)), True)
    assert first.position.offset == len(long_ago)
    source.opened.clear()
    assert iterations(read(source, first.position)) == []
    path.write_bytes(long_ago + lines(1001, 1002) + b"Iter 1003: Train loss 2.")
    second = read(source, first.position)
    assert (iterations(second), second.from_start) == ([1001, 1002], False)
    assert second.position.offset == len(long_ago + lines(1001, 1002))
    assert source.opened == [("adapters-1b/training.log", len(long_ago) - 4096)] * 2
    path.write_bytes(long_ago + lines(1001, 1002) + b"Iter 1003: Train loss 2.5\n")
    assert iterations(read(source, second.position)) == [1003]


@pytest.mark.parametrize(
    ("step", "encoding"), [(1, "latin-1"), (7, "latin-1"), (64, "latin-1"), (13, "utf-16"), (64, "utf-16")]
)
def test_a_log_looked_at_all_the_time_gives_what_one_look_gives(
    source: CountingFolder, step: int, encoding: str
) -> None:
    content = b"header\r\n" + lines(1, 10, 20) + b"noise \xff\xfe\r" + b"x" * 5000 + b"\n" + lines(1, 10)
    content = content.decode("latin-1").encode(encoding)
    found: list[LossRecord] = []
    position = None
    for end in [*range(1, len(content), step), len(content)]:
        write(source, content[:end])
        reading = read_log(source, the_log(source), position, LIMIT)
        if reading is not None:
            assert reading.from_start == (position is None)
            found += reading.records
            position = reading.position
    write(source, content)
    whole = read(source)
    assert tuple(found) == whole.records
    assert [r.attempt for r in whole.records] == [1, 1, 1, 2, 2]
    assert position is not None
    assert (position.offset, position.state) == (whole.position.offset, whole.position.state)


@pytest.mark.parametrize(
    "replaced",
    [
        lines(1, 10),
        lines(1, 10, 20, 30, 40, loss=1.5),
        lines(1, 10, 20, loss=1.5),
        lines(*range(1, 900), loss=1.5),
        b"\n" + lines(1, 10, 20),
    ],
    ids=["truncated", "other and longer", "other of the same length", "other and much longer", "shifted"],
)
def test_a_log_that_is_another_one_is_read_from_its_start(source: CountingFolder, replaced: bytes) -> None:
    write(source, lines(1, 10, 20))
    first = read(source)
    write(source, replaced)
    again = read(source, first.position)
    assert again.from_start
    assert again.records == read(source).records
    assert {record.attempt for record in again.records} == {1}


def test_when_one_of_two_logs_is_replaced_the_other_counts_again(source: CountingFolder) -> None:
    os.utime(write(source, lines(10, 20, 30), "a.log"), ns=(1, 1))
    write(source, lines(10, loss=1.0), "b.log")
    first = read_logs(source, find_logs(source).logs, {}, LIMIT)
    assert [reading.log.path for reading in first] == ["adapters-1b/a.log", "adapters-1b/b.log"]
    positions = {reading.log.path: reading.position for reading in first}
    assert [iterations(r) for r in read_logs(source, find_logs(source).logs, positions, LIMIT)] == [[], []]
    write(source, lines(20, loss=0.5), "b.log")
    again = read_logs(source, find_logs(source).logs, positions, LIMIT)
    assert [(iterations(r), r.from_start) for r in again] == [([10, 20, 30], True), ([20], True)]


def test_a_log_without_a_loss_is_left_for_later(source: CountingFolder) -> None:
    write(source, b"Loading pretrained model\n")
    assert read_log(source, the_log(source), None, LIMIT) is None
    assert not looks_like_log(source, the_log(source))
    assert read_logs(source, find_logs(source).logs, {}, LIMIT) == []


def test_no_more_than_the_limit_is_read(source: CountingFolder) -> None:
    write(source, lines(1, 2, 3))
    reading = read(source, limit=len(line(1)) + 5)
    assert iterations(reading) == [1]
    assert reading.position.offset == len(line(1))
    assert reading.unread_bytes == len(lines(1, 2, 3)) - len(line(1)) - 5
    assert iterations(read(source, reading.position)) == [2, 3]


def test_more_losses_than_any_training_prints_are_refused(
    source: CountingFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_reader, "MOST_LOSSES", 3)
    write(source, lines(1, 2, 3))
    assert iterations(read(source)) == [1, 2, 3]
    write(source, lines(1, 2, 3, 4))
    with pytest.raises(CheckpointError, match=r"training\.log' holds more than 3 losses"):
        read(source)


def test_a_file_that_shrinks_while_it_is_read_gives_what_is_there(source: CountingFolder) -> None:
    path = write(source, lines(1, 2, 3))
    log = the_log(source)
    path.write_bytes(lines(1))
    reading = read_log(source, log, None, LIMIT)
    assert reading is not None
    assert (iterations(reading), reading.position.offset) == ([1], len(line(1)))


def test_a_log_that_is_gone_is_told(source: CountingFolder) -> None:
    path = write(source, lines(1))
    log = the_log(source)
    path.unlink()
    for use in (lambda: read_log(source, log, None, LIMIT), lambda: looks_like_log(source, log)):
        with pytest.raises(CheckpointError, match=r"source mac: .*training\.log"):
            use()


def found(source: LocalFolder, **options: Any) -> list[tuple[str, str]]:
    return [(log.run, log.path.rpartition("/")[2]) for log in find_logs(source, **options).logs]


def test_logs_are_looked_for_beside_the_adapters_only(source: CountingFolder) -> None:
    for name in ("training.log", "OUT.TXT", "0000100_adapters.safetensors", "adapter_config.json", "log", "x.log.gz"):
        write(source, b"x", name)
    write(source, b"", "empty.log")
    write(source, b"x", "training.log", "adapters-15k/gemma-3-1b")
    write(source, b"x", "training.log", "adapters-15k/gemma-3-1b/deeper")
    write(source, b"x", "training.log", "elsewhere")
    assert sorted(found(source)) == [("15k/gemma-3-1b", "training.log"), ("1b", "OUT.TXT"), ("1b", "training.log")]
    assert found(source, pattern="15k*") == [("15k/gemma-3-1b", "training.log")]
    (nested,) = logs_of_run(source, "15k/gemma-3-1b").logs
    assert nested == find_logs(source, "15k*").logs[0]


def test_training_began_when_its_configuration_was_written(source: CountingFolder) -> None:
    os.utime(write(source, b"x"), ns=(9 * 10**9, 9 * 10**9))
    assert the_log(source).started_ns == 9 * 10**9
    os.utime(write(source, b"{}", "adapter_config.json"), ns=(5 * 10**9, 5 * 10**9))
    assert the_log(source).started_ns == 5 * 10**9


def test_of_too_many_logs_the_newest_are_read(source: CountingFolder) -> None:
    for age in range(MOST_LOGS + 2):
        os.utime(write(source, b"x", f"{age}.log"), ns=(age, age))
    search = find_logs(source)
    assert [log.mtime_ns for log in search.logs] == list(range(2, MOST_LOGS + 2))
    assert "22 files that may be logs" in search.problems[0]


def test_a_source_that_is_not_there_is_a_problem(tmp_path: Path) -> None:
    search = find_logs(LocalFolder("mac", tmp_path / "nowhere"))
    assert (search.logs, len(search.problems)) == ([], 1)


def test_a_link_out_of_the_source_is_not_followed(source: CountingFolder, tmp_path: Path) -> None:
    outside = tmp_path.parent / f"{tmp_path.name}.log"
    outside.write_bytes(lines(1))
    (source.root / FOLDER / "training.log").symlink_to(outside)
    assert find_logs(source).logs == []
