"""A transfer goes on where it broke off, is proved whole, and says what it kept when it gives up."""

from __future__ import annotations

import errno
import hashlib
import os
import time
from io import FileIO
from pathlib import Path
from threading import Event

import pytest

from ml_pipeline.checkpoints import part_file, transfer
from ml_pipeline.checkpoints.source import LocalFolder
from ml_pipeline.checkpoints.transfer import SourceFile, copy_file
from ml_pipeline.errors import CheckpointChangedError, CheckpointError, SourceRefusesError
from ml_pipeline_tests.checkpoints.sources import FaultySource, add_weights, only_checkpoint
from ml_pipeline_tests.stores.processes import run_python

SIZE = 300_000
NO_WAIT = (0.0, 0.0)
RESET = ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")


@pytest.fixture
def content(tmp_path: Path) -> bytes:
    return add_weights(tmp_path / "mac", SIZE)


@pytest.fixture
def source(tmp_path: Path, content: bytes) -> FaultySource:
    return FaultySource("mac", tmp_path / "mac")


def weights_of(source: FaultySource) -> SourceFile:
    checkpoint = only_checkpoint(source)
    return SourceFile(source, checkpoint.file, checkpoint.size_bytes, checkpoint.mtime_ns)


def copy(source: FaultySource, part: Path, file: SourceFile | None = None, stop: Event | None = None) -> str:
    with FileIO(part, "r+" if part.exists() else "w+") as out:
        return copy_file(file or weights_of(source), out, lambda here, total: None, NO_WAIT, stop or Event())


@pytest.mark.parametrize(
    ("breaks", "offsets"),
    [
        ([], [0]),
        ([(100_000, RESET)], [0, 100_000]),
        ([(100_000, EOFError()), (1, TimeoutError("timed out"))], [0, 100_000, 100_001]),
        ([(100_000, None)], [0, 100_000]),
        ([(0, CheckpointError("source mac: no connection")), (250_000, RESET)], [0, 0, 250_000]),
    ],
)
def test_it_goes_on_where_the_connection_broke(
    source: FaultySource, content: bytes, tmp_path: Path, breaks: list[tuple[int, Exception | None]], offsets: list[int]
) -> None:
    source.breaks = breaks
    assert copy(source, tmp_path / "part") == hashlib.sha256(content).hexdigest()
    assert (tmp_path / "part").read_bytes() == content
    assert source.opened == offsets
    assert source.read_bytes == SIZE


def test_it_gives_up_after_a_few_tries_and_the_next_attempt_goes_on(
    source: FaultySource, content: bytes, tmp_path: Path
) -> None:
    source.breaks = [(50_000, RESET)] * 3
    with pytest.raises(CheckpointError, match=r"broke off 3 times, with 150000 of 300000 bytes kept.*reset by peer"):
        copy(source, tmp_path / "part")
    assert copy(source, tmp_path / "part") == hashlib.sha256(content).hexdigest()
    assert source.opened == [0, 50_000, 100_000, 150_000]
    assert source.read_bytes == SIZE


def test_a_machine_that_is_no_longer_trusted_is_not_asked_again(
    source: FaultySource, content: bytes, tmp_path: Path
) -> None:
    source.breaks = [(50_000, SourceRefusesError("its host key changed")), (0, RESET)]
    with pytest.raises(SourceRefusesError, match="its host key changed"):
        copy(source, tmp_path / "part")
    assert source.opened == [0]
    source.breaks.clear()
    assert copy(source, tmp_path / "part") == hashlib.sha256(content).hexdigest()
    assert source.opened == [0, 50_000]


def test_a_bad_line_that_moves_is_not_given_up(
    source: FaultySource, content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "_WORTH_ANOTHER_TRY_BYTES", 30_000)
    source.breaks = [(30_000, RESET)] * 9
    assert copy(source, tmp_path / "part") == hashlib.sha256(content).hexdigest()


def test_what_changes_while_it_is_copied_is_refused(source: FaultySource, content: bytes, tmp_path: Path) -> None:
    file = weights_of(source)
    path = source.root / file.path

    def shrink() -> None:
        os.truncate(path, 10)

    def grow() -> None:
        with path.open("ab") as out:
            out.write(b"more")

    def rewrite() -> None:
        path.write_bytes(bytes(SIZE))

    for number, change in enumerate((shrink, grow, rewrite)):
        path.write_bytes(content)
        os.utime(path, ns=(file.mtime_ns, file.mtime_ns))
        source.breaks, source.read_bytes, source.at_byte = [(100_000, RESET)], 0, {100_000: change}
        with pytest.raises(CheckpointChangedError, match="changed since it was discovered"):
            copy(source, tmp_path / f"part{number}", file)


@pytest.mark.parametrize("length", [0, 1, 299_999, 300_000])
def test_a_part_of_any_length_is_continued(source: FaultySource, content: bytes, tmp_path: Path, length: int) -> None:
    (tmp_path / "part").write_bytes(content[:length])
    assert copy(source, tmp_path / "part") == hashlib.sha256(content).hexdigest()
    assert source.read_bytes == SIZE - length


def test_a_part_longer_than_the_file_is_begun_anew(source: FaultySource, content: bytes, tmp_path: Path) -> None:
    (tmp_path / "part").write_bytes(bytes(SIZE + 1))
    assert copy(source, tmp_path / "part") == hashlib.sha256(content).hexdigest()
    assert (tmp_path / "part").read_bytes() == content


def test_of_a_part_from_before_the_machine_went_down_only_what_was_synced_counts(
    source: FaultySource, content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(part_file, "SYNCED_EVERY_BYTES", 100_000)
    part = tmp_path / "part"
    part.write_bytes(content[:100_000] + bytes(150_000))  # zeros, as a power cut leaves them
    before = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) - 60
    os.utime(part, (before, before))
    assert copy(source, part) == hashlib.sha256(content).hexdigest()
    assert source.opened == [100_000]


def test_it_can_be_stopped_and_keeps_what_came(source: FaultySource, tmp_path: Path) -> None:
    stop = Event()
    source.breaks, source.at_byte = [(120_000, RESET)], {120_000: stop.set}
    with pytest.raises(CheckpointError, match="was stopped, with 120000 of 300000 bytes kept"):
        copy(source, tmp_path / "part", stop=stop)
    assert (tmp_path / "part").stat().st_size == 120_000


def test_the_back_off_grows_and_ends_when_stopped(source: FaultySource, tmp_path: Path) -> None:
    waits: list[float] = []

    class Impatient(Event):
        def wait(self, timeout: float | None = None) -> bool:
            waits.append(timeout or 0)
            if timeout == 4:
                self.set()
            return self.is_set()

    source.breaks = [(0, RESET)] * 9
    with pytest.raises(CheckpointError, match="was stopped, with 0 of"), FileIO(tmp_path / "part", "w+") as out:
        copy_file(weights_of(source), out, lambda here, total: None, (1, 2, 4, 8), Impatient())
    assert waits == [1, 2, 4]


FILE_SIZE_LIMIT = """
import resource, signal, sys
from io import FileIO
from pathlib import Path
from threading import Event
from ml_pipeline.checkpoints.source import LocalFolder
from ml_pipeline.checkpoints.transfer import SourceFile, copy_file
from ml_pipeline.errors import StoreFullError
from ml_pipeline_tests.checkpoints.sources import only_checkpoint
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
source = LocalFolder("mac", Path(sys.argv[1]))
checkpoint = only_checkpoint(source)
file = SourceFile(source, checkpoint.file, checkpoint.size_bytes, checkpoint.mtime_ns)
with FileIO(sys.argv[2], "w+") as out:
    try:
        copy_file(file, out, lambda here, total: None, (), Event())
    except StoreFullError as error:
        print(error)
"""


def test_a_disk_that_fills_up_meanwhile_keeps_what_came(source: FaultySource, content: bytes, tmp_path: Path) -> None:
    done = run_python(FILE_SIZE_LIMIT, source.root, tmp_path / "part")
    assert "Free space on that disk" in done.stdout, done.stderr
    assert (tmp_path / "part").read_bytes() == content[:100_000]
    assert copy(source, tmp_path / "part") == hashlib.sha256(content).hexdigest()
    assert source.opened == [100_000]


def test_a_version_has_an_id_of_its_own(source: FaultySource) -> None:
    file = weights_of(source)
    others = [
        SourceFile(LocalFolder("other", source.root), file.path, file.size_bytes, file.mtime_ns),
        SourceFile(source, file.path + "x", file.size_bytes, file.mtime_ns),
        SourceFile(source, file.path, file.size_bytes + 1, file.mtime_ns),
        SourceFile(source, file.path, file.size_bytes, file.mtime_ns + 1),
    ]
    assert len({file.id, *(other.id for other in others)}) == 5
    assert file.id == SourceFile(source, file.path, file.size_bytes, file.mtime_ns).id
