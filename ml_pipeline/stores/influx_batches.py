"""The files of the Influx buffer: what one holds, and which are sent together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ml_pipeline.files import store_errors

_LINES_PER_REQUEST = 5000


@dataclass(frozen=True)
class Batch:
    """A file of line protocol as it was read."""

    path: Path
    content: bytes

    @cached_property
    def lines(self) -> list[str]:
        """Its whole lines, in order."""
        return [line.decode().removesuffix("\n") for line in self._raw if not _is_damaged(line)]

    @cached_property
    def damaged(self) -> list[bytes]:
        """What a failing disk or a power cut made of other lines.

        A line without its end is one of them: what is left of it may still be read as a point, of another time.
        """
        return [line for line in self._raw if _is_damaged(line)]

    @cached_property
    def _raw(self) -> list[bytes]:
        # By line feeds alone: `splitlines` breaks at other characters too.
        pieces = self.content.split(b"\n")
        return [piece + b"\n" for piece in pieces[:-1]] + ([pieces[-1]] if pieces[-1] else [])


def _is_damaged(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return True
    return not line.endswith(b"\n") or b"\0" in line


@dataclass(frozen=True, slots=True)
class Pending:
    """What waits in the buffer."""

    batches: int
    points: int
    size_bytes: int


def load(path: Path) -> Batch | None:
    """Read a file of the buffer; None for one that is gone by now.

    Raises:
        StoreError: it cannot be read.
    """
    with store_errors("read", path):
        try:
            return Batch(path, path.read_bytes())
        except FileNotFoundError:
            return None


def groups(paths: Sequence[Path]) -> Iterator[list[Batch]]:
    """Batches together up to about a request's size: a thousand checkpoints are not four thousand requests."""
    group: list[Batch] = []
    lines = 0
    for path in paths:
        batch = load(path)
        if batch is None:
            continue
        if group and lines + len(batch.lines) > _LINES_PER_REQUEST:
            yield group
            group, lines = [], 0
        group.append(batch)
        lines += len(batch.lines)
    if group:
        yield group


def counted(paths: Sequence[Path]) -> Pending:
    """What these files hold; those that are gone by now do not count."""
    contents = [batch.content for path in paths if (batch := load(path))]
    return Pending(len(contents), sum(content.count(b"\n") for content in contents), sum(map(len, contents)))
