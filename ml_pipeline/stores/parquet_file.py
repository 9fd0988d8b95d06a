"""One Parquet file: its rows, and the metadata in its footer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ml_pipeline.errors import StoreError
from ml_pipeline.stores.table import Table
from ml_pipeline.stores.tables import SCHEMA_VERSION

_PREFIX = "ml_pipeline."
_BATCH_ROWS = 10_000


def encode(rows: pa.Table, metadata: Mapping[str, str]) -> bytes:
    """The bytes of a Parquet file, with `metadata` in its footer and a checksum on every page."""
    sink = pa.BufferOutputStream()
    write_batches(sink, rows.schema, [rows], metadata)
    return bytes(sink.getvalue())


def write_batches(sink: Any, schema: pa.Schema, batches: Iterable[pa.Table], metadata: Mapping[str, str]) -> int:
    """Write a Parquet file as `encode` makes it, batch by batch, into an open file; return the number of rows."""
    named = schema.with_metadata(
        {**(schema.metadata or {}), **{f"{_PREFIX}{name}": value for name, value in metadata.items()}}
    )
    count = 0
    with pq.ParquetWriter(sink, named, compression="zstd", write_page_checksum=True) as writer:
        for rows in batches:
            writer.write_table(rows.cast(named))
            count += rows.num_rows
    return count


def read_rows(table: Table, path: Path) -> pa.Table:
    """The rows of a file of `table`; columns that came later are filled with what earlier rows have."""
    with reading(path) as file:
        _check_version(file, path)
        return _fitted(table, path, file.read())


def read_batches(table: Table, path: Path) -> Iterator[pa.Table]:
    """The same rows, some thousands at a time."""
    with reading(path) as file:
        _check_version(file, path)
        for batch in file.iter_batches(_BATCH_ROWS):
            yield _fitted(table, path, pa.Table.from_batches([batch]))


def _check_version(file: pq.ParquetFile, path: Path) -> None:
    version = _own_metadata(file).get("schema_version", "")
    if version.isdecimal() and int(version) > SCHEMA_VERSION:
        raise StoreError(
            f"{path} was written by a newer ml_pipeline (tables {version}, this one knows {SCHEMA_VERSION}). "
            "Upgrade this installation."
        )


def _fitted(table: Table, path: Path, rows: pa.Table) -> pa.Table:
    columns, problems = [], []
    for column in table.columns:
        if column.name in rows.column_names:
            columns.append(rows.column(column.name))
            if columns[-1].type != column.type:
                problems.append(f"column {column.name!r} is {columns[-1].type}, not {column.type}")
        elif column.nullable or column.earlier is not None:
            columns.append(pa.repeat(pa.scalar(column.earlier, column.type), rows.num_rows))
        else:
            problems.append(f"column {column.name!r} is missing")
    if problems:
        raise StoreError.from_problems(
            f"{path} is not of table {table.name}",
            problems,
            "Move it away and materialise its partition again, or restore the file from a backup.",
        )
    return pa.Table.from_arrays(columns, schema=table.schema)


def read_metadata(path: Path) -> dict[str, str]:
    """What the store wrote into the file's footer."""
    with reading(path) as file:
        return _own_metadata(file)


def _own_metadata(file: pq.ParquetFile) -> dict[str, str]:
    stored: dict[bytes, bytes] = file.metadata.metadata or {}
    named = {name.decode(): value.decode(errors="replace") for name, value in stored.items()}
    return {name.removeprefix(_PREFIX): value for name, value in named.items() if name.startswith(_PREFIX)}


@contextmanager
def reading(path: Path) -> Iterator[pq.ParquetFile]:
    """Open a Parquet file and turn every failure to read it into a StoreError with the remedy."""
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            yield file
    except (OSError, pa.ArrowException) as error:
        raise StoreError(
            f"cannot read {path}: {error}. The file is damaged or not Parquet. Restore it from a backup, or move it "
            "away and materialise its partition again; then run `ml-pipeline rebuild`."
        ) from error
