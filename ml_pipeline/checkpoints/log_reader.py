"""Reads from a growing log only what was added since the last look, and notices when it is another log."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from ml_pipeline.checkpoints.log_files import LogFile, reading
from ml_pipeline.checkpoints.source import Source
from ml_pipeline.checkpoints.training_log import LossRecord, ParserState, TrainingLogParser
from ml_pipeline.errors import CheckpointError

MOST_LOSSES = 200_000
"""Losses of one run that are taken: far more than training prints, and few enough to be held in memory."""
_CHUNK_BYTES = 2**20
_ANCHOR_BYTES = 4096


@dataclass(frozen=True, slots=True)
class LogPosition:
    """How far a log was read: the bytes of its whole lines, a hash of the last of them, and the parser's state.

    The hash is what tells a log that has grown from one that was truncated or replaced, however long it is.
    """

    offset: int
    anchor: str
    state: ParserState


@dataclass(frozen=True, slots=True)
class LogReading:
    """What was read of one log: new records, where to go on, and whether that was from its start.

    `unread_bytes` lie beyond the longest log that is read.
    """

    log: LogFile
    records: tuple[LossRecord, ...]
    position: LogPosition
    from_start: bool
    unread_bytes: int


def read_logs(
    source: Source, logs: Sequence[LogFile], positions: Mapping[str, LogPosition], largest_bytes: int
) -> list[LogReading]:
    """Read every log of one run from its position (by path) on; files without a loss are left out.

    When one of them turns out to be truncated or replaced, all are read from their start: what it had overwritten of
    the others' losses counts again.

    Raises:
        CheckpointError: a log cannot be read.
    """
    readings = [read_log(source, log, positions.get(log.path), largest_bytes) for log in logs]
    if any(r is not None and r.from_start and r.log.path in positions for r in readings):
        readings = [read_log(source, log, None, largest_bytes) for log in logs]
    return [r for r in readings if r is not None]


def read_log(source: Source, log: LogFile, position: LogPosition | None, largest_bytes: int) -> LogReading | None:
    """Read a log from `position` on, or from its start if that no longer fits; None while it holds no loss.

    At most its first `largest_bytes` are read, and nothing that was added after it was found.

    Raises:
        CheckpointError: it cannot be read, or holds too many losses.
    """
    with reading(log):
        if position is not None and position.offset <= log.size_bytes:
            start = max(0, position.offset - _ANCHOR_BYTES)
            with source.open(log.path, start) as file:
                before = _read_exactly(file, position.offset - start)
                if _hash(before) == position.anchor:
                    return _read_on(file, log, position, before, largest_bytes)
        with source.open(log.path) as file:
            return _read_on(file, log, None, b"", largest_bytes)


def _read_on(
    file: BinaryIO, log: LogFile, position: LogPosition | None, before: bytes, largest_bytes: int
) -> LogReading | None:
    """Read from where `file` stands; `before` are the bytes before that, as many as the hash takes."""
    parser = TrainingLogParser(position.state if position else None)
    start = position.offset if position else 0
    end = min(log.size_bytes, largest_bytes)
    records: list[LossRecord] = []
    whole_lines, unfinished, fed = before, b"", 0
    for chunk in _chunks(file, end - start):
        whole_before, fed = parser.read_bytes, fed + len(chunk)
        records += parser.feed(chunk)
        check_count(len(records), log.path)
        unfinished += chunk
        if parser.read_bytes > whole_before:
            length = len(unfinished) - (fed - parser.read_bytes)
            whole_lines, unfinished = (whole_lines + unfinished[:length])[-_ANCHOR_BYTES:], unfinished[length:]
        unfinished = unfinished[-_ANCHOR_BYTES:]
    if not parser.state.log_id:
        return None
    return LogReading(
        log,
        tuple(records),
        LogPosition(start + parser.read_bytes, _hash(whole_lines), parser.state),
        position is None,
        log.size_bytes - end,
    )


def check_count(losses: int, where: str) -> None:
    """Refuse more losses than a training prints.

    Raises:
        CheckpointError: there are more than MOST_LOSSES.
    """
    if losses > MOST_LOSSES:
        raise CheckpointError(
            f"{where!r} holds more than {MOST_LOSSES:,} losses, which no training prints. Nothing of it is read; move "
            "it out of the run's folder, or report every tenth iteration only."
        )


def _chunks(file: BinaryIO, size_bytes: int) -> Iterator[bytes]:
    while size_bytes > 0 and (chunk := file.read(min(_CHUNK_BYTES, size_bytes))):
        size_bytes -= len(chunk)
        yield chunk


def _read_exactly(file: BinaryIO, size_bytes: int) -> bytes:
    return b"".join(_chunks(file, size_bytes))


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
