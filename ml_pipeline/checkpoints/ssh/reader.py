"""Reads one remote file from start to end as fast as the connection goes, by asking ahead."""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import BinaryIO, cast

from ml_pipeline.checkpoints.ssh import protocol
from ml_pipeline.checkpoints.ssh.listing import data_of
from ml_pipeline.checkpoints.ssh.protocol import Reply
from ml_pipeline.checkpoints.ssh.session import SftpSession

_WANTED_BYTES_S = 250e6
_LEAST_AHEAD_BYTES, _MOST_AHEAD_BYTES = 2**20, 2**24


def bytes_ahead(round_trip_s: float) -> int:
    """How much to ask for ahead of the reader: what a fast network carries in a round trip, and no more.

    More than that only fills buffers outside the processor's caches; over loopback 8 MiB cost twice the CPU time of 1.
    """
    return int(min(_MOST_AHEAD_BYTES, max(_LEAST_AHEAD_BYTES, round_trip_s * _WANTED_BYTES_S)))


class RemoteFile(io.BufferedIOBase):
    """A file of a remote machine, read once from an offset to the end that it had when it was opened.

    Requests ahead start with one and double with each that is used, so that a short look at a large file's header
    does not fetch megabytes. `on_close` is told whether the session can be used again.
    """

    def __init__(
        self,
        session: SftpSession,
        handle: bytes,
        size_bytes: int,
        offset: int,
        *,
        ahead_bytes: int,
        guard: Callable[[], AbstractContextManager[None]],
        on_close: Callable[[bool], None],
    ) -> None:
        self._session = session
        self._handle = handle
        self._end = size_bytes
        self._offset = offset
        self._asked = offset
        self._pieces: deque[_Piece] = deque()
        self._spare = memoryview(b"")
        self._pieces_ahead = 1
        self._most_pieces = max(2, ahead_bytes // session.read_bytes)
        self._guard = guard
        self._on_close = on_close
        self._healthy = True

    def readable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """How far the reader is, in bytes from the start of the file."""
        return self._offset

    def read(self, size: int | None = -1, /) -> bytes:
        """Up to `size` bytes, fewer only at the end.

        Raises:
            CheckpointError: the file cannot be read, or the connection is gone.
        """
        if self.closed:
            raise ValueError("the file is closed")
        wanted = self._end - self._offset if size is None or size < 0 else size
        parts: list[memoryview] = []
        with self._guard():
            self._healthy = False
            while wanted > 0 and (self._spare or self._take_piece()):
                part, self._spare = self._spare[:wanted], self._spare[wanted:]
                parts.append(part)
                wanted -= len(part)
                self._offset += len(part)
            self._healthy = True
        return bytes(parts[0]) if len(parts) == 1 else b"".join(parts)

    def read1(self, size: int = -1, /) -> bytes:
        """As `read`."""
        return self.read(size)

    def close(self) -> None:
        """Close the file; what was asked ahead is dropped."""
        if self.closed:
            return
        super().close()
        reusable = self._healthy and not self._pieces
        if reusable:
            self._session.send(protocol.close(self._handle), _ignore)
        self._on_close(reusable)

    def _take_piece(self) -> bool:
        """Make the next piece the spare one; False at the end."""
        self._ask_ahead()
        if not self._pieces:
            return False
        piece = self._pieces[0]
        while not piece.is_whole:
            self._session.receive()
        self._pieces.popleft()
        self._spare = memoryview(piece.content())
        if len(self._spare) < piece.length:  # the file has shrunk since it was opened: here is its end now
            self._end = self._asked = self._offset + len(self._spare)
            while any(not later.is_whole for later in self._pieces):
                self._session.receive()
            self._pieces.clear()
        self._pieces_ahead = min(2 * self._pieces_ahead, self._most_pieces)
        return bool(self._spare)

    def _ask_ahead(self) -> None:
        while self._asked < self._end and len(self._pieces) < self._pieces_ahead:
            length = min(self._session.read_bytes, self._end - self._asked)
            piece = _Piece(self._session, self._handle, self._asked, length)
            self._pieces.append(piece)
            self._asked += length
        self._session.flush()


class _Piece:
    """A part of the file that was asked for; a shorter answer is followed by asking for the rest."""

    def __init__(self, session: SftpSession, handle: bytes, offset: int, length: int) -> None:
        self.length = length
        self.is_whole = False
        self._session = session
        self._handle = handle
        self._offset = offset
        self._parts: list[bytes] = []
        self._error: Exception | None = None
        self._ask(0)

    def content(self) -> bytes:
        """The bytes; raises what the peer refused."""
        if self._error:
            raise self._error
        return self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)

    def _ask(self, done: int) -> None:
        rest = self.length - done
        self._session.send(
            protocol.read(self._handle, self._offset + done, rest), partial(self._took, done=done, rest=rest)
        )

    def _took(self, reply: Reply, *, done: int, rest: int) -> None:
        try:
            part = data_of(reply, rest)
        except protocol.SftpRefusalError as error:
            self._error, self.is_whole = error, True
            return
        self._parts.append(part)
        if not part or len(part) == rest:
            self.is_whole = True
        else:
            self._ask(done + len(part))


def _ignore(reply: Reply) -> None:
    """Take the reply to closing the file."""


def as_binary_io(file: RemoteFile) -> BinaryIO:
    """The same object under the type that `open` promises."""
    return cast(BinaryIO, file)
