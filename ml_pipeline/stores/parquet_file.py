"""One Parquet file: its rows, and the metadata in its footer."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ml_pipeline.errors import StoreError
from ml_pipeline.parquet_sizes import ParquetSizeError, ReadAt, as_texts, multiplied_texts, reader_of
from ml_pipeline.stores.rows import check_partition_key
from ml_pipeline.stores.store_folder import StoreFolder
from ml_pipeline.stores.table import Table
from ml_pipeline.stores.tables import SCHEMA_VERSION

SUFFIX = ".parquet"
_PREFIX = "ml_pipeline."
_BATCH_ROWS = 10_000


def own_name(table: Table, partition_key: str) -> str:
    """The name of the file of one table and partition; raises StoreError where the key cannot be a file's name."""
    check_partition_key(partition_key)
    return f"{table.name}/{partition_key}{SUFFIX}"


def lock_of(table: Table) -> str:
    """The lock that writers of a table share, and that who removes files of it holds alone."""
    return f"{table.name}/.lock"


def footer_of(table: Table, partition_key: str, ids: Sequence[str], scored_at: datetime | None) -> dict[str, str]:
    """What the file of one table and partition says of itself."""
    return {
        "schema_version": str(SCHEMA_VERSION),
        "table": table.name,
        "partition_key": partition_key,
        "evaluation_ids": json.dumps(ids),
        "scored_at": scored_at.isoformat() if scored_at else "",
        "written_at": datetime.now(UTC).isoformat(),
    }


def encode(rows: pa.Table, metadata: Mapping[str, str]) -> bytes:
    """The bytes of a Parquet file, with `metadata` in its footer and a checksum on every page."""
    sink = pa.BufferOutputStream()
    write_batches(sink, rows.schema, [rows], metadata)
    return bytes(sink.getvalue())


def write_batches(sink: Any, schema: pa.Schema, batches: Iterable[pa.Table], metadata: Mapping[str, str]) -> int:
    """Write a Parquet file as `encode` makes it, batch by batch, into an open file; return the number of rows.

    `metadata` is looked at when all batches are written: what they turn out to hold may still be put into it.
    """
    count = 0
    with pq.ParquetWriter(sink, schema, compression="zstd", write_page_checksum=True) as writer:
        for rows in batches:
            writer.write_table(rows.cast(schema))
            count += rows.num_rows
        writer.add_key_value_metadata({f"{_PREFIX}{name}": value for name, value in metadata.items()})
    return count


def read_rows(table: Table, folder: StoreFolder, name: str) -> pa.Table:
    """The rows of a file of `table`; columns that came later are filled with what earlier rows have."""
    with reading(folder, name) as file:
        check_version(file, folder.place(name))
        return fitted(table, folder.place(name), whole_table(folder, name, file))


def read_batches(table: Table, folder: StoreFolder, name: str) -> Iterator[pa.Table]:
    """The same rows, some thousands at a time."""
    with reading(folder, name) as file:
        check_version(file, folder.place(name))
        with _bounded(folder, name, file) as bounded:
            for batch in bounded.iter_batches(_BATCH_ROWS):
                yield fitted(table, folder.place(name), as_texts(batch))


def whole_table(
    folder: StoreFolder, name: str, file: StoredFile, groups: Sequence[int] | None = None, *, whole: bool = True
) -> pa.Table:
    """All rows of a file that `reading` has opened, or those of some row groups, if memory has room for them.

    Raises StoreError inside the body of `reading`.
    """
    with _bounded(folder, name, file, groups, whole=whole) as bounded:
        return as_texts(bounded.read() if groups is None else bounded.read_row_groups(list(groups)))


@contextmanager
def _bounded(
    folder: StoreFolder, name: str, file: StoredFile, groups: Sequence[int] | None = None, *, whole: bool = True
) -> Iterator[StoredFile]:
    """The file, or the same with texts as dictionaries where each row might take a long one."""
    wanted = range(file.num_row_groups) if groups is None else groups
    with file.ranges() as read_at:
        texts = multiplied_texts(file, read_at, None, wanted)
    if not texts:
        yield file
        return
    with reading(folder, name, whole=whole, texts_as_dictionaries=texts) as again:
        yield again


class StoredFile(pq.ParquetFile):  # type: ignore[misc]  # pyarrow has no types
    """An open file of a store."""

    def __init__(self, source: Any, **options: Any) -> None:
        super().__init__(source, page_checksum_verification=True, **options)
        self._stored = source

    @contextmanager
    def ranges(self) -> Iterator[ReadAt | None]:
        """Reads single ranges of it; None where each would be a request to a server."""
        if isinstance(self._stored, str):
            with Path(self._stored).open("rb", buffering=0) as opened:
                yield reader_of(opened)
        else:
            yield reader_of(self._stored) if isinstance(self._stored, pa.BufferReader) else None


def check_version(file: pq.ParquetFile, place: str) -> None:
    """Refuse a file that a newer program wrote, by StoreError."""
    version = own_metadata(file).get("schema_version", "")
    if version.isdecimal() and int(version) > SCHEMA_VERSION:
        raise StoreError(
            f"{place} was written by a newer ml_pipeline (tables {version}, this one knows {SCHEMA_VERSION}). "
            "Upgrade this installation."
        )


def fitted(table: Table, place: str, rows: pa.Table) -> pa.Table:
    """The rows with the table's columns as they are now, or a StoreError with every column that does not fit."""
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
            f"{place} is not of table {table.name}",
            problems,
            "Move it away and materialise its partition again, or restore the file from a backup.",
        )
    return pa.Table.from_arrays(columns, schema=table.schema)


def read_metadata(folder: StoreFolder, name: str) -> dict[str, str]:
    """What the store wrote into the file's footer."""
    with reading(folder, name, whole=False) as file:
        return own_metadata(file)


def own_metadata(file: pq.ParquetFile) -> dict[str, str]:
    """The same of an open file."""
    stored: dict[bytes, bytes] = file.metadata.metadata or {}
    named = {name.decode(): value.decode(errors="replace") for name, value in stored.items()}
    return {name.removeprefix(_PREFIX): value for name, value in named.items() if name.startswith(_PREFIX)}


@contextmanager
def reading(
    folder: StoreFolder, name: str, *, whole: bool = True, texts_as_dictionaries: Sequence[str] = ()
) -> Iterator[StoredFile]:
    """Open a Parquet file and turn every failure to read it into a StoreError with the remedy.

    Raises:
        FileNotFoundError: it is not there.
    """
    try:
        source = folder.opened(name, whole=whole)
        with StoredFile(source, read_dictionary=list(texts_as_dictionaries) or None) as file:
            yield file
    except FileNotFoundError:
        raise
    except ParquetSizeError as error:
        raise StoreError(
            f"cannot read {folder.place(name)}: {error}. No such file is written here. Restore it from a backup, or "
            "move it away and materialise its partition again; then run `ml-pipeline rebuild`."
        ) from error
    except (OSError, pa.ArrowException) as error:
        raise StoreError(
            f"cannot read {folder.place(name)}: {error}. The file is damaged or not Parquet. Restore it from a backup, "
            "or move it away and materialise its partition again; then run `ml-pipeline rebuild`."
        ) from error
