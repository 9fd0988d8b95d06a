"""How much a Parquet file takes when it is read: found out before it is read, since a few kB can become many GB.

Three things multiply. Pages are compressed: 70 kB of zstd can be 2 GB of zeros, whatever the footer says, so the pages'
own headers are read, by which Arrow makes its buffers. A page says how many values it holds, of which a run takes a few
bytes. And a value in a dictionary may be taken by every row: such columns are read as what they are, indices and a
dictionary, and measured before they become texts.

Format: https://github.com/apache/parquet-format (parquet.thrift, Encodings.md); Thrift's compact protocol.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

MOST_UNPACKED_BYTES = 2**31
"""Of one read: all pages of the columns and row groups, and all texts."""
MOST_VALUES = 100_000_000
MOST_PAGE_BYTES = 2**27
MOST_COLUMNS = 10_000
MOST_GROUPS = 100_000
_HEADER_BYTES = 512
_LONGEST_HEADER_BYTES = 1 << 20
_DELTA_BYTE_ARRAY = "DELTA_BYTE_ARRAY"
_BYTES_A_VALUE = 16
"""The widest fixed type but for decimals and levels; texts are counted by their pages and their dictionary."""
_TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _STRUCT = 1, 2, 3, 7, 8, 12
_NUMBERS = (4, 5, 6)
_DEEPEST = 4
_UNPACKED, _PACKED, _DATA, _DICTIONARY, _DATA_V2 = 2, 3, 5, 7, 8

ReadAt = Callable[[int, int], bytes]
"""Up to so many bytes (second) from an offset (first) on."""


class ParquetSizeError(ValueError):
    """A Parquet file that takes too much when it is read."""


def multiplied_texts(
    file: pq.ParquetFile, read_at: ReadAt | None, columns: Sequence[str] | None, groups: Iterable[int]
) -> list[str]:
    """Check what these top-level columns (None: all) of these row groups take, but for texts that a dictionary holds.

    Returns those columns of texts that may take too much by that: to be read with `read_dictionary`, and then through
    `as_texts`. Without `read_at`, where each look at a page would be a request, the footer is believed.

    Raises:
        ParquetSizeError: too much, or the pages' headers cannot be read.
    """
    metadata = file.metadata
    if metadata.num_columns > MOST_COLUMNS or metadata.num_row_groups > MOST_GROUPS:
        raise ParquetSizeError(f"it has {metadata.num_columns:,} columns in {metadata.num_row_groups:,} row groups")
    leaves = [
        (index, path)
        for index in range(metadata.num_columns)
        if (path := file.schema.column(index).path) and (columns is None or path.partition(".")[0] in columns)
    ]
    size = values = 0
    multiplied: dict[str, int] = {}
    for group in groups:
        row_group = metadata.row_group(group)
        for index, path in leaves:
            chunk = row_group.column(index)
            pages = (
                [_Page(chunk.total_uncompressed_size, chunk.num_values)] if read_at is None else _pages(read_at, chunk)
            )
            # Each value of this encoding may repeat what all before it in the page have together.
            repeats = _DELTA_BYTE_ARRAY in chunk.encodings
            for page in pages:
                values += page.values
                size += page.unpacked * max(1, page.values if repeats else 1) + page.values * _BYTES_A_VALUE
                if page.unpacked > MOST_PAGE_BYTES or size > MOST_UNPACKED_BYTES or values > MOST_VALUES:
                    raise ParquetSizeError(
                        f"unpacked, column {path!a:.100} takes more than is read at once ({MOST_PAGE_BYTES:,} bytes a "
                        f"page, {MOST_UNPACKED_BYTES:,} bytes and {MOST_VALUES:,} values in all)"
                    )
            if chunk.has_dictionary_page and chunk.physical_type == "BYTE_ARRAY":
                dictionary = max((page.unpacked for page in pages[:1]), default=0)
                multiplied[path] = multiplied.get(path, 0) + dictionary * chunk.num_values
    large = [path for path, most in multiplied.items() if most > MOST_UNPACKED_BYTES]
    if nested := [path for path in large if "." in path]:
        raise ParquetSizeError(
            f"column {nested[0]!a:.100} holds lists of texts, {MOST_UNPACKED_BYTES:,} bytes or more of them if the "
            "longest text is in each"
        )
    return large


def as_texts(rows: pa.Table | pa.RecordBatch) -> pa.Table:
    """Rows whose columns of texts were read as dictionaries, as texts.

    Raises:
        ParquetSizeError: they would take too much.
    """
    table = rows if isinstance(rows, pa.Table) else pa.Table.from_batches([rows])
    size, fields = 0, []
    for field in table.schema:
        is_texts = pa.types.is_dictionary(field.type)
        size += texts_size(table.column(field.name)) if is_texts else 0
        if size > MOST_UNPACKED_BYTES:
            raise ParquetSizeError(
                f"its texts take more than {MOST_UNPACKED_BYTES:,} bytes, last column {field.name!a}"
            )
        fields.append(field.with_type(field.type.value_type) if is_texts else field)
    return table.cast(pa.schema(fields, table.schema.metadata))


def texts_size(column: pa.ChunkedArray) -> int:
    """The bytes of the texts of a column that was read as a dictionary, once it is texts."""
    total = 0
    for chunk in column.chunks:
        lengths = pc.cast(pc.binary_length(chunk.dictionary), pa.int64())
        total += pc.sum(pc.take(lengths, chunk.indices)).as_py() or 0
    return total


def reader_of(source: Any) -> ReadAt:
    """Reads single ranges of an open file (of `seek` and `read`)."""

    def read_at(offset: int, size: int) -> bytes:
        source.seek(offset)
        return bytes(source.read(size))

    return read_at


@dataclass(frozen=True, slots=True)
class _Page:
    unpacked: int
    """Bytes."""
    values: int


def _pages(read_at: ReadAt, chunk: Any) -> list[_Page]:
    """The pages of a column chunk; a dictionary comes first."""
    found: list[_Page] = []
    start = chunk.data_page_offset
    if chunk.has_dictionary_page and 0 < chunk.dictionary_page_offset < start:
        start = chunk.dictionary_page_offset
    end, seen = start + chunk.total_compressed_size, 0
    while start < end and seen < chunk.num_values:
        header, length = _header(read_at, start)
        unpacked, packed = _count(header, _UNPACKED), _count(header, _PACKED)
        details = _fields(header, _DATA) or _fields(header, _DATA_V2)
        count = _count(details or _fields(header, _DICTIONARY), 1)
        if details:
            seen += count
        found.append(_Page(unpacked, count))
        start += length + packed
    return found


def _count(fields: dict[int, Any], name: int) -> int:
    value = fields.get(name, 0)
    if type(value) is not int or value < 0:
        raise ParquetSizeError("a page's header holds no count where one belongs")
    return value


def _fields(fields: dict[int, Any], name: int) -> dict[int, Any]:
    value = fields.get(name, {})
    if not isinstance(value, dict):
        raise ParquetSizeError("a page's header holds no fields where some belong")
    return value


def _header(read_at: ReadAt, start: int) -> tuple[dict[int, Any], int]:
    """A page's header as Thrift's field numbers to values, and its length."""
    size = _HEADER_BYTES
    while True:
        raw = read_at(start, size)
        try:
            return _struct(raw, 0, 0)
        except IndexError:
            if len(raw) < size or size >= _LONGEST_HEADER_BYTES:
                raise ParquetSizeError("a page without a sound header") from None
            size = _LONGEST_HEADER_BYTES


def _struct(raw: bytes, at: int, depth: int) -> tuple[dict[int, Any], int]:
    """The fields of a struct of Thrift's compact protocol, and the place after it; raises IndexError at the end."""
    found: dict[int, Any] = {}
    number = 0
    while sign := raw[at]:
        at += 1
        if sign >> 4:
            number += sign >> 4
        else:
            number, at = _integer(raw, at)
        found[number], at = _value(raw, at, sign & 15, depth)
    return found, at + 1


def _value(raw: bytes, at: int, kind: int, depth: int) -> tuple[Any, int]:
    if kind in (_TRUE, _FALSE):
        return kind == _TRUE, at
    if kind in _NUMBERS:
        return _integer(raw, at)
    if kind == _BINARY:
        size, at = _varint(raw, at)
        raw[at + size]
        return None, at + size
    if kind == _STRUCT and depth < _DEEPEST:
        return _struct(raw, at, depth + 1)
    if kind in (_BYTE, _DOUBLE):
        return None, at + (1 if kind == _BYTE else 8)
    raise ParquetSizeError("a page's header holds what belongs into none")


def _integer(raw: bytes, at: int) -> tuple[int, int]:
    value, at = _varint(raw, at)
    return (value >> 1) ^ -(value & 1), at


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = raw[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
        if shift > 63:
            raise ParquetSizeError("a page's header holds a number that is too long")
