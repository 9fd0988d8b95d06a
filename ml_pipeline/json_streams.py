"""JSON from machines that may be anyone's: lines out of pieces of any size, and values of bounded number."""

from __future__ import annotations

import json
from typing import Any

_MOST_VALUES = 4_000_000
_SURELY_FEW_BYTES = 1 << 20


class EndlessLineError(ValueError):
    """A line longer than any sound one."""


class ByteLines:
    """Cuts pieces of bytes into lines, in a time that grows with the bytes, however small the pieces are."""

    def __init__(self, longest_bytes: int) -> None:
        self._longest_bytes = longest_bytes
        self._pending: list[bytes] = []
        self._pending_bytes = 0

    def feed(self, piece: bytes) -> list[bytes]:
        """The lines that this piece completes, without their line feeds; raises EndlessLineError."""
        first, *others = piece.split(b"\n")
        self._pending.append(first)
        self._pending_bytes += len(first)
        lines = []
        if others:
            lines = [b"".join(self._pending), *others[:-1]]
            self._pending, self._pending_bytes = [others[-1]], len(others[-1])
        if self._pending_bytes > self._longest_bytes:
            raise EndlessLineError(f"a line of more than {self._longest_bytes} bytes")
        return lines


def load_json(raw: bytes) -> Any:
    """Parse JSON of a bounded size.

    A value may take two characters there and 64 bytes here: 64 MB of `[[],[],...]` would be 1.4 GB of lists. What
    separates values is counted first, that in texts as well.

    Raises:
        ValueError: it is not JSON, or has more values than any sound answer.
    """
    if len(raw) > _SURELY_FEW_BYTES and sum(raw.count(sign) for sign in (b",", b":", b"[", b"{")) > _MOST_VALUES:
        raise ValueError(f"JSON of more than {_MOST_VALUES:,} values")
    try:
        return json.loads(raw)
    except RecursionError as error:
        raise ValueError("JSON that is nested too deeply") from error
