"""Putting the many small files of a table together into few large ones, while others read and write.

The order of the steps is what loses no row and doubles none, wherever a kill falls between them:

1. A compacted file is written whole, read back and compared. From here on its rows are there twice, but a partition's
   own file counts before compacted ones, and both say the same.
2. The own files in it are removed, those that were not replaced since they were read, under the table's lock.
3. When all are written, compacted files whose partitions all are in newer ones go.

A partition that is in a compacted file once is in one ever after. So readers, who look for own files first and for
compacted ones after that, find every partition, and look again only when a file has gone before they opened it.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ml_pipeline.errors import StoreError
from ml_pipeline.stores.compacted import COMPACTED, CompactedFile, Entry, index_of, new_name
from ml_pipeline.stores.parquet import ParquetStore
from ml_pipeline.stores.parquet_file import (
    SUFFIX,
    check_version,
    fitted,
    lock_of,
    own_metadata,
    own_name,
    reading,
    whole_table,
    write_batches,
)
from ml_pipeline.stores.store_folder import StoredFile
from ml_pipeline.stores.table import Table
from ml_pipeline.stores.tables import SCHEMA_VERSION

PARTITIONS_A_FILE = 1000
_SMALL_BYTES = 8 * 2**20
"""A larger file of one partition is no burden, and stays, if its partition is in no compacted file yet."""
_GROUP_ROWS = 10_000
_AT_ONCE = 50
"""Partitions read, and own files removed, at a time: writers of the table wait for the latter."""
_READERS = 8
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Compacted:
    """What a compaction did to one table: partitions put together, and how many files there were and are."""

    table: str
    partitions: int
    files_before: int
    files_after: int


@dataclass(frozen=True, slots=True)
class _Source:
    """A partition's rows as they were read, what is to be said of them, and the mark of its own file, if it has one."""

    rows: pa.Table
    entry: Entry
    mark: Hashable = None


class _NothingReadError(Exception):
    """None of a file's partitions could be read."""


class Compaction:
    """Compacts the tables of a store; `partitions_a_file` bounds how many one file takes."""

    def __init__(self, parquet: ParquetStore, partitions_a_file: int = PARTITIONS_A_FILE) -> None:
        self._parquet = parquet
        self._folder = parquet.files
        self._bound = partitions_a_file

    def compact(self, table: Table, progress: Progress = lambda done, of: None) -> Compacted:
        """Put the small files of a table together; `progress` hears of partitions done and in all.

        A file that cannot be read, or holds columns that this program does not know, stays as it is.

        Raises:
            StoreError: files were left alone (all of them are named; the others are compacted), or one cannot be
                written. Nothing is lost then, and the same call goes on.
            StoreFullError: the disk is full. There must be room for one more file of `partitions_a_file` partitions.
            StoreLockedError: another compaction of the table goes on, or a writer does not let go.
        """
        with self._folder.locked(f"{COMPACTED}/{table.name}/.lock", shared=False):
            return self._compact(table, progress)

    def _compact(self, table: Table, progress: Progress) -> Compacted:
        own = self._parquet.own_keys(table)
        files = self._parquet.compacted.files(table)
        newest = {key: file for file in files for key in file.entries}
        small = {_key(file) for file in self._folder.below(table.name) if file.size_bytes <= _SMALL_BYTES}
        taken = own & (small | newest.keys())
        live = {f.name: {key for key in f.entries if newest[key] is f and key not in own} for f in files}
        # Small ones, and those of which little counts any more, are written again together with what is new.
        again = [file for file in files if 2 * len(live[file.name]) < self._bound]
        before = len(own) + len(files)
        if not taken and len(again) < 2 and all(live[file.name] for file in again):
            return Compacted(table.name, 0, before, before)
        keys = sorted(taken.union(*(live[file.name] for file in again)))
        problems: dict[str, str] = {}
        number = max((file.number for file in files), default=0)
        for start in range(0, len(keys), self._bound):
            number += 1
            chunk = keys[start : start + self._bound]
            self._write_file(table, number, {key: None if key in taken else newest[key] for key in chunk}, problems)
            progress(start + len(chunk), len(keys))
        self._remove_superfluous(table, again)
        if problems:
            raise StoreError.from_problems(
                f"table {table.name}: {len(keys) - len(problems)} partitions are compacted, {len(problems)} are not",
                list(problems.values()),
                "Mend these files or restore them from a backup, and run the same command again.",
            )
        after = len(self._parquet.own_keys(table)) + len(self._parquet.compacted.files(table))
        return Compacted(table.name, len(keys), before, after)

    def _write_file(
        self, table: Table, number: int, places: Mapping[str, CompactedFile | None], problems: dict[str, str]
    ) -> None:
        """Make a compacted file of partitions, given with the file that has each; None is its own, which then goes."""
        entries: dict[str, Entry] = {}
        marks: dict[str, Hashable] = {}
        footer = {"schema_version": str(SCHEMA_VERSION), "table": table.name}

        def groups() -> Iterator[pa.Table]:
            start, waiting, keys = 0, table.schema.empty_table(), list(places)
            for first in range(0, len(keys), _AT_ONCE):
                for key, source in self._read(table, keys[first : first + _AT_ONCE], places, problems):
                    entries[key] = replace(source.entry, start=start)
                    start += source.rows.num_rows
                    waiting = pa.concat_tables([waiting, source.rows])
                    if source.mark is not None:
                        marks[key] = source.mark
                if waiting.num_rows >= _GROUP_ROWS:
                    yield waiting
                    waiting = waiting.slice(waiting.num_rows)
            if waiting.num_rows:
                yield waiting
            footer.update(index_of(entries))

        name = new_name(table, number, secrets.token_hex(4))
        with suppress(_NothingReadError), self._folder.replacing(name) as temporary:
            with temporary.open("wb") as sink:
                write_batches(sink, table.schema, groups(), footer)
            if not entries:
                raise _NothingReadError
            _check(temporary, entries)
        names = {own_name(table, key): mark for key, mark in marks.items()}
        for first in range(0, len(names), _AT_ONCE):
            with self._folder.locked(lock_of(table), shared=False):
                some = list(names)[first : first + _AT_ONCE]
                self._folder.remove(name for name in some if self._folder.mark(name) == names[name])

    def _read(
        self, table: Table, keys: Sequence[str], places: Mapping[str, CompactedFile | None], problems: dict[str, str]
    ) -> Iterator[tuple[str, _Source]]:
        """Read the partitions that can be read."""
        sources: dict[str, _Source] = {}
        by_file: dict[str, dict[str, Entry]] = {}
        own = [key for key in keys if places[key] is None]
        with ThreadPoolExecutor(_READERS) as pool:
            for key, source in zip(own, pool.map(lambda key: self._read_own(table, key), own), strict=True):
                if isinstance(source, _Source):
                    sources[key] = source
                else:
                    problems[key] = source
        for key in keys:
            if (file := places[key]) is not None:
                by_file.setdefault(file.name, {})[key] = file.entries[key]
        for name, entries in by_file.items():
            rows = self._parquet.compacted.read(table, name, entries)
            sources |= {key: _Source(rows[key], entries[key]) for key in entries}
        return ((key, sources[key]) for key in keys if key in sources)

    def _read_own(self, table: Table, key: str) -> _Source | str:
        """One partition's own file, or why it is left alone."""
        name = own_name(table, key)
        place = self._folder.place(name)
        try:
            mark, sha256 = self._folder.mark(name), self._folder.sha256(name)
            with reading(self._folder, name) as file:
                check_version(file, place)
                metadata, unknown = own_metadata(file), set(file.schema_arrow.names) - set(table.schema.names)
                rows = fitted(table, place, whole_table(self._folder, name, file))
        except FileNotFoundError:
            return f"{place} was removed meanwhile"
        except StoreError as error:
            return str(error)
        if unknown:
            return f"{place} holds columns that this program does not know: {', '.join(sorted(unknown))}"
        if others := set(rows["partition_key"].unique().to_pylist()) - {key}:
            return f"{place} holds rows of another partition: {', '.join(sorted(others))}"
        ids = json.loads(metadata.get("evaluation_ids", "null")) or rows[table.version].unique().to_pylist()
        times = metadata.get("scored_at") or _newest(rows[table.made_at]), metadata.get("written_at", "")
        return _Source(rows, Entry(0, rows.num_rows, sha256, tuple(ids), *times), mark)

    def _remove_superfluous(self, table: Table, files: Sequence[CompactedFile]) -> None:
        """Remove those of the files whose partitions all are in newer ones."""
        with self._folder.locked(lock_of(table), shared=False):
            found = self._parquet.compacted.found(table)
            self._folder.remove(
                file.name for file in files if all(found[key][0].name != file.name for key in file.entries)
            )


def _check(path: Path, entries: Mapping[str, Entry]) -> None:
    """Read a file that was just written: every page's checksum, and that each row is where its entry says."""
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            groups = (file.read_row_group(i) for i in range(file.num_row_groups))
            keys = [key for rows in groups for key in rows["partition_key"].to_pylist()]
    except pa.ArrowException as error:
        raise StoreError(
            f"{path} does not read back as it was written: {error}. Check the disk; nothing is lost."
        ) from error
    if keys != [key for key, entry in entries.items() for _ in range(entry.rows)]:
        raise StoreError(f"{path} does not hold the rows that were written to it. Check the disk; nothing is lost.")


def _key(file: StoredFile) -> str:
    return file.name.rpartition("/")[2].removesuffix(SUFFIX)


def _newest(times: pa.ChunkedArray) -> str:
    newest = pc.max(times).as_py()
    return newest.isoformat() if newest else ""
