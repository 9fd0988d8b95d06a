"""Compacted files: the rows of many partitions of a table in one Parquet file.

<folder>/_compacted/<table>/<number>-<random>.parquet

Such a file is never changed, and its footer says where the rows of each partition lie in it. A partition that is in
several of them is what the one with the highest number says; one that has a file of its own is what that file says.
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Mapping, Sequence
from dataclasses import astuple, dataclass
from itertools import accumulate
from typing import Any

import pyarrow as pa

from ml_pipeline.errors import StoreError
from ml_pipeline.stores.parquet_file import SUFFIX, check_version, fitted, own_metadata, reading, whole_table
from ml_pipeline.stores.store_folder import StoreFolder
from ml_pipeline.stores.table import Table

COMPACTED = "_compacted"
_KEPT_ROWS = 30_000
"""So many rows that were read last are kept: who goes through the partitions one by one asks for the next of them."""


@dataclass(frozen=True, slots=True)
class Entry:
    """Where one partition's rows lie in a compacted file, the SHA-256 of its own file, and what that said of itself."""

    start: int
    rows: int
    sha256: str
    evaluation_ids: tuple[str, ...]
    scored_at: str
    written_at: str

    @property
    def times(self) -> dict[str, str]:
        """The times in the footer of its own file."""
        return {"scored_at": self.scored_at, "written_at": self.written_at}


@dataclass(frozen=True, slots=True)
class CompactedFile:
    """A compacted file and what is in it, by partition key."""

    name: str
    entries: Mapping[str, Entry]

    @property
    def number(self) -> int:
        """Files of later compactions have higher ones."""
        return _number(self.name)


Found = tuple[CompactedFile, Entry]


@dataclass(frozen=True, slots=True)
class _Rows:
    """Rows of some row groups of a file, given by their first row in the file and their number of rows."""

    name: str
    groups: tuple[tuple[int, int], ...]
    rows: pa.Table

    def holds(self, entry: Entry) -> bool:
        """Whether all rows of a partition are here."""
        end = entry.start + entry.rows
        here = sum(max(0, min(first + size, end) - max(first, entry.start)) for first, size in self.groups)
        return here == entry.rows

    def start_of(self, entry: Entry) -> int:
        """Where the rows of a partition that is here start."""
        return sum(max(0, min(size, entry.start - first)) for first, size in self.groups)


class CompactedFiles:
    """The compacted files of a store's folder, as readers see them."""

    def __init__(self, folder: StoreFolder) -> None:
        self._folder = folder
        self._known: dict[str, CompactedFile] = {}
        self._last: dict[str, _Rows] = {}

    def files(self, table: Table) -> list[CompactedFile]:
        """The compacted files of a table, by number.

        Raises:
            StoreError: a file is damaged or newer than this program.
        """
        before: list[str] = []
        while True:
            names = self._names(table)
            try:
                return [self._file(name) for name in names]
            except FileNotFoundError as error:
                # One that was compacted again meanwhile is listed no more: others take its place.
                if names == before:
                    raise StoreError(
                        f"{self._folder.place(names[0].rpartition('/')[0])} lists a file that is not there: {error}. "
                        "Restore it from a backup, or remove what is left of it."
                    ) from error
                before = names

    def find(self, table: Table, partition_key: str) -> Found | None:
        """One partition and the file that counts, if it is in one; raises as `files`."""
        return self.found(table, [partition_key]).get(partition_key)

    def found(self, table: Table, keys: Collection[str] | None = None) -> dict[str, Found]:
        """Those of the partitions (default: all) that are in compacted files, each with the file that counts.

        Raises:
            StoreError: as `files`.
        """
        found: dict[str, Found] = {}
        for file in self.files(table):
            there = file.entries if keys is None else [key for key in keys if key in file.entries]
            found |= {key: (file, file.entries[key]) for key in there}
        return found

    def read(self, table: Table, name: str, entries: Mapping[str, Entry]) -> dict[str, pa.Table]:
        """The rows of some partitions of one file.

        Raises:
            FileNotFoundError: it was compacted again, so that other files have its rows.
            StoreError: it is damaged.
        """
        last = self._last.get(table.name)
        if last is None or last.name != name or not all(last.holds(entry) for entry in entries.values()):
            last = self._read(table, name, entries)
            if last.rows.num_rows <= _KEPT_ROWS:
                self._last[table.name] = last
        return {key: last.rows.slice(last.start_of(entry), entry.rows) for key, entry in entries.items()}

    def _read(self, table: Table, name: str, entries: Mapping[str, Entry]) -> _Rows:
        """The row groups that hold the entries."""
        with reading(self._folder, name, whole=False) as file:
            sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
            firsts = list(accumulate(sizes, initial=0))
            groups = sorted({group for entry in entries.values() for group in _groups(firsts, entry)})
            rows = fitted(table, self._folder.place(name), whole_table(self._folder, name, file, groups, whole=False))
        return _Rows(name, tuple((firsts[group], sizes[group]) for group in groups), rows)

    def _names(self, table: Table) -> list[str]:
        """The files' names by number.

        A listing that is made while one file takes the place of others may have neither, so it must be found twice.
        """
        before: list[str] | None = None
        while True:
            listed = [n for n in self._folder.names(f"{COMPACTED}/{table.name}") if n.endswith(SUFFIX)]
            names = sorted((f"{COMPACTED}/{table.name}/{name}" for name in listed), key=lambda n: (_number(n), n))
            if names == before:
                return names
            before = names

    def _file(self, name: str) -> CompactedFile:
        if name not in self._known:
            place = self._folder.place(name)
            with reading(self._folder, name, whole=False) as file:
                check_version(file, place)
                self._known[name] = CompactedFile(name, _entries(own_metadata(file), place))
        return self._known[name]


def index_of(entries: Mapping[str, Entry]) -> dict[str, str]:
    """What a compacted file's footer says of its partitions, with a checksum: Parquet has none for footers."""
    index = json.dumps({key: astuple(entry) for key, entry in entries.items()})
    return {"partitions": index, "partitions_sha256": hashlib.sha256(index.encode()).hexdigest()}


def new_name(table: Table, number: int, random: str) -> str:
    """The name of a compacted file; `random` keeps two machines from taking the same."""
    return f"{COMPACTED}/{table.name}/{number:08d}-{random}{SUFFIX}"


def _number(name: str) -> int:
    number = name.rpartition("/")[2].partition("-")[0]
    return int(number) if number.isdecimal() else 0


def _entries(metadata: Mapping[str, str], place: str) -> dict[str, Entry]:
    index = metadata.get("partitions", "")
    if hashlib.sha256(index.encode()).hexdigest() != metadata.get("partitions_sha256"):
        raise StoreError(
            f"{place}: what it says of its partitions is damaged. Restore it from a backup, or move it away and "
            "materialise its partitions again; then run `ml-pipeline rebuild`."
        )
    found: dict[str, list[Any]] = json.loads(index)
    return {
        key: Entry(start, rows, sha256, tuple(ids), *times) for key, (start, rows, sha256, ids, *times) in found.items()
    }


def _groups(firsts: Sequence[int], entry: Entry) -> range:
    """The row groups that hold a partition's rows; `firsts` has the first row of each, and the number of all rows."""
    if not entry.rows:
        return range(0)
    return range(bisect_right(firsts, entry.start) - 1, bisect_left(firsts, entry.start + entry.rows))
