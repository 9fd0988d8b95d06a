"""Compacted files: the rows of many partitions of a table in one Parquet file.

<folder>/_compacted/<table>/<number>-<random>.parquet

Such a file is never changed, and its footer says where the rows of each partition lie in it. A partition that is in
several of them is what the one with the highest number says; one that has a file of its own is what that file says.
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from itertools import accumulate
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ml_pipeline.errors import StoreError
from ml_pipeline.stores.parquet_file import SUFFIX, check_version, fitted, own_metadata, reading
from ml_pipeline.stores.store_folder import StoreFolder
from ml_pipeline.stores.table import Table

COMPACTED = "_compacted"


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


class CompactedFiles:
    """The compacted files of a store's folder, as readers see them."""

    def __init__(self, folder: StoreFolder) -> None:
        self._folder = folder
        self._known: dict[str, CompactedFile] = {}

    def files(self, table: Table) -> list[CompactedFile]:
        """The compacted files of a table, by number.

        Raises:
            StoreError: a file is damaged or newer than this program.
        """
        while True:
            try:
                return [self._file(name) for name in self._names(table)]
            except FileNotFoundError:
                continue  # it was compacted again meanwhile: others take its place

    def find(self, table: Table, partition_key: str) -> Found | None:
        """One partition and the file that counts, if it is in one; raises as `files`."""
        holding = (file for file in reversed(self.files(table)) if partition_key in file.entries)
        return next(((file, file.entries[partition_key]) for file in holding), None)

    def found(self, table: Table) -> dict[str, Found]:
        """The partitions that are in compacted files, each with the file that counts; raises as `files`."""
        return {key: (file, entry) for file in self.files(table) for key, entry in file.entries.items()}

    def read(self, table: Table, name: str, entries: Mapping[str, Entry]) -> dict[str, pa.Table]:
        """The rows of some partitions of one file.

        Raises:
            FileNotFoundError: it was compacted again, so that other files have its rows.
            StoreError: it is damaged.
        """
        place = self._folder.place(name)
        with reading(self._folder, name, whole=False) as file:
            groups, starts = _spans(file, entries)
            rows = fitted(table, place, file.read_row_groups(groups))
        return {key: rows.slice(starts.get(key, 0), entry.rows) for key, entry in entries.items()}

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


def _spans(file: pq.ParquetFile, entries: Mapping[str, Entry]) -> tuple[list[int], dict[str, int]]:
    """The row groups that hold the entries, and where each entry starts among the rows of those groups."""
    sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    firsts = list(accumulate(sizes, initial=0))
    groups_of = {
        key: range(bisect_right(firsts, entry.start) - 1, bisect_left(firsts, entry.start + entry.rows))
        for key, entry in entries.items()
        if entry.rows
    }
    groups = sorted({group for span in groups_of.values() for group in span})
    skipped, offsets = 0, {}
    for before, group in zip([-1, *groups], groups, strict=False):
        skipped += firsts[group] - firsts[before + 1]
        offsets[group] = skipped
    return groups, {key: entries[key].start - offsets[span[0]] for key, span in groups_of.items()}
