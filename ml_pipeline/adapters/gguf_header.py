"""The header of a GGUF file, hostile until checked: what it says about itself and about its tensors.

The `gguf` package's reader makes a Python object of every token and takes seconds for a vocabulary of 49,152; this one
walks over arrays and takes milliseconds. It also goes on for ever when an array claims 2**60 entries, where this one
stops. Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import mmap
import stat
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from ml_pipeline.adapters.safetensors_header import shown

Scalar = int | float | bool | str

U32, F32, STRING = 4, 6, 8
"""Value types, as the format numbers them."""

_I32, _ARRAY = 5, 9
_TOKENS, _TOKEN_TYPES = "tokenizer.ggml.tokens", "tokenizer.ggml.token_type"
_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
# A header is mostly its vocabulary: 20 MB for the largest known.
_MAX_HEADER_BYTES = 64 * 2**20
_MAX_ENTRIES = 100_000
_MAX_NAME_BYTES = 65_535
_MAX_DIMENSIONS = 4
_MAX_PER_LAYER_ENTRIES = 4096
_SCALARS = {
    0: struct.Struct("<B"),
    1: struct.Struct("<b"),
    2: struct.Struct("<H"),
    3: struct.Struct("<h"),
    U32: struct.Struct("<I"),
    5: struct.Struct("<i"),
    F32: struct.Struct("<f"),
    7: struct.Struct("<?"),
    10: struct.Struct("<Q"),
    11: struct.Struct("<q"),
    12: struct.Struct("<d"),
}
_U32, _U64 = _SCALARS[U32], _SCALARS[10]


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """One tensor: `shape` as numpy counts, (out, in) for a matrix; `type` as ggml numbers them; `offset` in bytes from
    where the data starts."""

    name: str
    shape: tuple[int, ...]
    type: int
    offset: int


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """A header that is whole. `values` are None for arrays, except where all numbers of one are the same; `types` are
    the value types. `end` is where the header ends, in bytes; the data begins at the next aligned place."""

    values: Mapping[str, Scalar | None]
    types: Mapping[str, int]
    tensors: tuple[GgufTensor, ...]
    end: int


def read_gguf_header(path: Path) -> GgufHeader:
    """Read the header of the GGUF file at `path`; no tensor data is read, and at most 64 MiB are looked at.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not a whole GGUF file of version 2 or 3, or names a key or a tensor twice.
    """
    # A FIFO would block open() for ever, so look before opening.
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError("not a regular file")
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _parse(_Cursor(data))
    except struct.error as error:
        raise ValueError(str(error)) from error


def read_token_kinds(path: Path, kinds: frozenset[int]) -> dict[int, dict[int, str]]:
    """The tokens of the vocabulary in the GGUF file at `path` that are of one of these kinds: texts by id, by kind.

    `kinds` are values of `tokenizer.ggml.token_type`: 2 unknown, 3 control, 4 defined by the user. Raises as
    `read_gguf_header`; a file without a vocabulary has none.
    """
    found: dict[int, dict[int, str]] = {kind: {} for kind in kinds}
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        cursor = _Cursor(data)
        places: dict[str, int] = {}
        try:
            types = _parse(cursor, places).types
            if not types.get(_TOKENS) == types.get(_TOKEN_TYPES) == _ARRAY:
                return found
            token_types = _whole_numbers(cursor, places[_TOKEN_TYPES])
            wanted = [token for token, kind in enumerate(token_types) if kind in kinds]
            for token, text in zip(wanted, _strings(cursor, places[_TOKENS], wanted), strict=False):
                found[token_types[token]][token] = text
        except struct.error as error:
            raise ValueError(str(error)) from error
    return found


def _whole_numbers(cursor: _Cursor, place: int) -> tuple[int, ...]:
    """The array of 32-bit numbers that begins at `place`; what signs them does not matter for small ones."""
    cursor.position = place
    if int(cursor.scalar(_U32)) not in (U32, _I32):
        raise ValueError(f"{_TOKEN_TYPES} is no array of whole numbers")
    count = cursor.count(_U64, cursor.size, "array entries")
    start = cursor.position
    # The size is looked at before so much memory is taken.
    cursor.move(4 * count, "an array")
    return struct.unpack_from(f"<{count}i", cursor.data, start)


def _strings(cursor: _Cursor, place: int, wanted: Iterable[int]) -> Iterator[str]:
    """The strings at these places, in ascending order, of the array that begins at `place`."""
    cursor.position = place
    if int(cursor.scalar(_U32)) != STRING:
        raise ValueError(f"{_TOKENS} is no array of strings")
    count = cursor.count(_U64, cursor.size, "array entries")
    passed = 0
    for index in wanted:
        if index >= count:
            return
        cursor.skip_strings(index - passed)
        yield cursor.string(cursor.size)
        passed = index + 1


class _Cursor:
    """A place in the mapped file that moves on as values are read."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data = data
        self.position = 0
        self.size = min(len(data), _MAX_HEADER_BYTES)

    def scalar(self, form: struct.Struct) -> int | float | bool:
        value: int | float | bool = form.unpack_from(self.data, self.position)[0]
        self.move(form.size, "a value")
        return value

    def move(self, size_bytes: int, what: str) -> None:
        self.position += size_bytes
        if self.position > self.size:
            raise ValueError(f"ends inside {what}, or its header is larger than {_MAX_HEADER_BYTES} bytes")

    def count(self, form: struct.Struct, limit: int, what: str) -> int:
        value = int(self.scalar(form))
        if value > limit:
            raise ValueError(f"{value} {what} at byte {self.position}")
        return value

    def string(self, limit: int) -> str:
        length = self.count(_U64, limit, "bytes in a string")
        start = self.position
        self.move(length, "a string")
        return self.data[start : self.position].decode("utf-8", errors="replace")

    def skip_strings(self, count: int) -> None:
        # A vocabulary has half a million of these: the loop is kept bare.
        unpack, data, position, size = _U64.unpack_from, self.data, self.position, self.size
        for _ in range(count):
            position += 8 + unpack(data, position)[0]
            if position > size:
                break
        self.move(position - self.position, "an array of strings")


def _read_value(cursor: _Cursor, kind: int) -> Scalar | None:
    """Read one value; an array counts only when its numbers are all the same, as some per-layer head counts are."""
    if kind == STRING:
        return cursor.string(cursor.size)
    if kind != _ARRAY:
        return cursor.scalar(_scalar_form(kind))
    kind = int(cursor.scalar(_U32))
    count = cursor.count(_U64, cursor.size, "array entries")
    if kind == STRING:
        cursor.skip_strings(count)
        return None
    form = _scalar_form(kind)
    start = cursor.position
    cursor.move(count * form.size, "an array")
    first: bytes = cursor.data[start : start + form.size]
    if 0 < count <= _MAX_PER_LAYER_ENTRIES and cursor.data[start : cursor.position] == first * count:
        value: Scalar = form.unpack(first)[0]
        return value
    return None


def _scalar_form(kind: int) -> struct.Struct:
    if kind not in _SCALARS:
        raise ValueError(f"unknown value type {kind}")
    return _SCALARS[kind]


def _parse(cursor: _Cursor, places: dict[str, int] | None = None) -> GgufHeader:
    """`places` is filled with where the value of each key begins."""
    if cursor.data[:4] != _MAGIC:
        raise ValueError("does not start with 'GGUF'")
    cursor.position = 4
    version = cursor.scalar(_U32)
    if version not in _VERSIONS:
        raise ValueError(f"version {version}")
    tensor_count = cursor.count(_U64, _MAX_ENTRIES, "tensors")
    key_count = cursor.count(_U64, _MAX_ENTRIES, "keys")
    values: dict[str, Scalar | None] = {}
    types: dict[str, int] = {}
    for _ in range(key_count):
        key = _new_name(cursor, values)
        types[key] = int(cursor.scalar(_U32))
        if places is not None:
            places[key] = cursor.position
        values[key] = _read_value(cursor, types[key])
    tensors: dict[str, GgufTensor] = {}
    for _ in range(tensor_count):
        name = _new_name(cursor, tensors)
        n_dimensions = cursor.count(_U32, _MAX_DIMENSIONS, "dimensions")
        # GGUF counts dimensions from the quickest one, numpy from the slowest.
        shape = tuple(int(cursor.scalar(_U64)) for _ in range(n_dimensions))[::-1]
        tensors[name] = GgufTensor(name, shape, int(cursor.scalar(_U32)), int(cursor.scalar(_U64)))
    return GgufHeader(MappingProxyType(values), MappingProxyType(types), tuple(tensors.values()), cursor.position)


def _new_name(cursor: _Cursor, known: Mapping[str, object]) -> str:
    # Which of two holds is anyone's guess, and llama.cpp refuses the file.
    name = cursor.string(_MAX_NAME_BYTES)
    if name in known:
        raise ValueError(f"{shown(name)} is there twice")
    return name
