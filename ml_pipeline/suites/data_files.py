"""Reading the rows of a data set: JSONL and Parquet files of the user's, single or as the Hugging Face Hub lays them
out. Every row comes with its place, sizes are bounded, and what cannot be read is told and not guessed."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ml_pipeline.files import bounded_lines
from ml_pipeline.parquet_sizes import ParquetSizeError, as_texts, multiplied_texts, reader_of

MAX_FILE_BYTES = 2**30
MAX_LINE_BYTES = 1_000_000
MAX_ROWS = 1_000_000
MAX_CHARACTERS = 2**30
"""Of all rows of a data set together, unpacked."""
MAX_VALUES = 1_000_000
"""In lists of as many rows as are read together."""
_LONG_ROW_BYTES = 2**18
"""Rows with longer texts are unpacked one at a time."""
_BATCH_ROWS = 256
_SUFFIXES = (".jsonl", ".parquet")
_PART = re.compile(r"(?P<split>.+?)(?:-\d+-of-\d+(?:-[0-9a-f]+)?)?\.(?:jsonl|parquet)")


class DataError(ValueError):
    """A data set that cannot be read: what, where, and how to mend it."""


@dataclass(frozen=True, slots=True)
class DataRow:
    """One row and its place, `file:line` or `file: row n`, from 1; without `fields`, the `problem` says why."""

    place: str
    fields: Mapping[str, Any] | None
    problem: str = ""


def data_files(path: Path, split: str | None) -> list[Path]:
    """The file itself, or the files of one split in a folder or its folder `data`, in order.

    The split of `test-00000-of-00001.parquet` and of `test.jsonl` is `test`; it need not be named where there is only
    one. Raises DataError where there is no such file.
    """
    if not path.exists():
        raise DataError(f"{path}: there is no such file or folder; paths start at the suite's own folder")
    if path.is_file():
        if path.suffix not in _SUFFIXES:
            raise DataError(f"{path}: must be a .jsonl or .parquet file; convert it, or unpack it")
        if split is not None:
            raise DataError(f"{path}: 'split' chooses among the files of a folder; drop it")
        return [path]
    splits: dict[str, list[Path]] = {}
    for place in (path, path / "data"):
        for file in sorted(place.iterdir()) if place.is_dir() else ():
            if file.is_file() and (match := _PART.fullmatch(file.name)):
                splits.setdefault(match["split"], []).append(file)
    if not splits:
        raise DataError(f"{path}: neither this folder nor its folder 'data' holds .jsonl or .parquet files")
    known = ", ".join(sorted(splits))
    if split is None and len(splits) > 1:
        raise DataError(f"{path}: holds several splits; add 'split', one of: {known}")
    chosen = next(iter(splits)) if split is None else split
    if chosen not in splits:
        raise DataError(f"{path}: there is no split {chosen!r}; use one of: {known}")
    return splits[chosen]


def read_rows(files: Collection[Path], columns: Collection[str]) -> Iterator[DataRow]:
    """Every row, of Parquet files these columns only. A line that is no JSON object is a row with a problem.

    Raises DataError for files that are too large, too many rows, and Parquet files that are damaged.
    """
    count = characters = 0
    for file in files:
        try:
            if (size := file.stat().st_size) > MAX_FILE_BYTES:
                raise DataError(f"{file}: {size:,} bytes; the limit is {MAX_FILE_BYTES:,}: cut it into a smaller one")
            for row in _parquet(file, columns) if file.suffix == ".parquet" else _lines(file):
                count += 1
                if count > MAX_ROWS:
                    raise DataError(f"{file}: more than {MAX_ROWS:,} rows; cut it into a smaller one")
                characters += _characters(row.fields)
                if characters > MAX_CHARACTERS:
                    raise DataError(f"{file}: more than {MAX_CHARACTERS:,} characters; cut it into a smaller one")
                yield row
        except OSError as error:
            raise DataError(f"{file}: cannot be read: {error.strerror or error}") from error


def _lines(path: Path) -> Iterator[DataRow]:
    with path.open("rb") as file:
        if file.read(2) in (b"\xff\xfe", b"\xfe\xff"):
            raise DataError(f"{path}: is UTF-16; save it as UTF-8")
        file.seek(0)
        for number, line in enumerate(bounded_lines(file, MAX_LINE_BYTES), start=1):
            place = f"{path}:{number}"
            if line is None:
                yield DataRow(place, None, f"longer than {MAX_LINE_BYTES:,} bytes")
            elif line.strip():
                yield _parsed(place, line)


def _parsed(place: str, line: bytes) -> DataRow:
    try:
        fields = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        return DataRow(place, None, f"not UTF-8 ({error.reason})")
    except RecursionError:
        return DataRow(place, None, "nested too deep")
    except ValueError:
        return DataRow(place, None, "not JSON")
    if not isinstance(fields, dict):
        return DataRow(place, None, "not a JSON object")
    return DataRow(place, fields)


def _parquet(path: Path, columns: Collection[str]) -> Iterator[DataRow]:
    try:
        with pq.ParquetFile(path) as file:
            groups = range(file.num_row_groups)
            sizes = [file.metadata.row_group(index).total_byte_size for index in groups]
            if max(sizes, default=0) > MAX_FILE_BYTES or file.metadata.num_rows > MAX_ROWS:
                raise DataError(f"{path}: unpacked it is too large; cut it into a smaller one")
            present = [name for name in file.schema_arrow.names if name in columns]
            with path.open("rb", buffering=0) as pages:
                # All of a file are far more than are in memory at a time, so each group is held to the bounds.
                texts = {
                    name for group in groups for name in multiplied_texts(file, reader_of(pages), present, [group])
                }
        with pq.ParquetFile(path, read_dictionary=sorted(texts) or None) as file:
            number = 0
            for batch in file.iter_batches(_BATCH_ROWS, columns=present):
                batch.validate(full=True)
                if max(map(_values, batch.columns), default=0) > MAX_VALUES:
                    raise DataError(f"{path}: lists of more than {MAX_VALUES:,} values within {_BATCH_ROWS} rows")
                for fields in _unpacked(batch):
                    number += 1
                    yield (
                        DataRow(f"{path}: row {number}", fields)
                        if fields is not None
                        else DataRow(f"{path}: row {number}", None, f"longer than {MAX_LINE_BYTES:,} bytes")
                    )
    except ParquetSizeError as error:
        raise DataError(f"{path}: {error}; cut it into a smaller one") from error
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a sound Parquet file: {error}; fetch it again") from error


def _unpacked(batch: pa.RecordBatch) -> Iterator[dict[str, Any] | None]:
    """The rows, None for one with a text that is too long; texts may be in dictionaries, and are not all at once."""
    dictionaries = [column for column in batch.columns if pa.types.is_dictionary(column.type)]
    longest = [0] * batch.num_rows
    for column in dictionaries:
        lengths = pc.take(pc.binary_length(column.dictionary), column.indices).to_pylist()
        longest = [max(most, length or 0) for most, length in zip(longest, lengths, strict=True)]
    if max(longest, default=0) <= _LONG_ROW_BYTES:
        yield from as_texts(batch).to_pylist()
        return
    for number, length in enumerate(longest):
        yield None if length > MAX_LINE_BYTES else as_texts(batch.slice(number, 1)).to_pylist()[0]


def _values(column: pa.Array) -> int:
    """How many values are in the lists of a column, those in lists of lists and in fields among them."""
    if pa.types.is_struct(column.type):
        return sum(map(_values, column.flatten()))
    if pa.types.is_nested(column.type):
        inner = column.values if pa.types.is_map(column.type) else column.flatten()
        return len(inner) + _values(inner)
    return 0


def _characters(value: Any) -> int:
    """Of all texts in a value."""
    if isinstance(value, str | bytes):
        return len(value)
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return sum(map(_characters, inner))
