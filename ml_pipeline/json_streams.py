"""JSON from machines that may be anyone's: lines out of pieces of any size, and values of bounded number."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

_MOST_VALUES = 4_000_000
_SURELY_FEW_BYTES = 1 << 20
_USUAL_ITEM = 1 << 14
_SPACE = re.compile(r"[ \t\n\r]*")


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


def list_items(text: str, longest: int) -> Iterator[Any]:
    """The items of a JSON list one after the other, so that not all of them are in memory.

    Raises:
        ValueError: it is not a JSON list, or an item has more than `longest` characters.
        RecursionError: an item is nested too deeply.
    """
    decoder = json.JSONDecoder()
    position = expect(text, after_space(text, 0), "[")
    if text.startswith("]", position):
        position = expect(text, position, "]")
    else:
        sign = ","
        while sign == ",":
            value, position = _item(decoder, text, position, longest)
            yield value
            sign = "," if text.startswith(",", position) else "]"
            position = expect(text, position, sign)
    if position < len(text):
        raise ValueError(f"more follows after the list, at character {position}")


def _item(decoder: json.JSONDecoder, text: str, position: int, longest: int) -> tuple[Any, int]:
    for size in (_USUAL_ITEM, longest + 1):
        window = text[position : position + size]
        try:
            value, end = decoder.raw_decode(window)
        except json.JSONDecodeError as error:
            if position + size >= len(text) or size > longest:
                at = position + error.pos
                raise ValueError(
                    f"not JSON, or an item of more than {longest} characters: {error.msg} at {at}"
                ) from None
            continue
        # A number at the end of the window may go on behind it.
        if end < len(window) or position + size >= len(text):
            return value, after_space(text, position + end)
    raise ValueError(f"an item of more than {longest} characters at character {position}")


def expect(text: str, position: int, sign: str) -> int:
    """The place after `sign`, which must be here, and after the white space behind it; raises ValueError."""
    if not text.startswith(sign, position):
        raise ValueError(f"{sign!r} was expected at character {position}")
    return after_space(text, position + len(sign))


def after_space(text: str, position: int) -> int:
    """The place after the white space that may be here."""
    match = _SPACE.match(text, position)
    assert match is not None, "it matches nothing too"
    return match.end()
