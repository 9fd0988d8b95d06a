"""Opens what the original left: finds out what a file is, and gives its records one by one.

JSON lines, CSV with a header, one JSON list (as InfluxDB 3 answers SQL), and DuckDB files. CSV comes from InfluxDB in
several forms: plain (1.x and 3), with all tags in one cell (1.x, GROUP BY), and annotated (2.x, Flux), pivoted or with
one field a row, which are put together again. Whatever it is, a record
that cannot be read is counted and told with its place, and the rest is read.
"""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

import duckdb

from ml_pipeline.errors import ImportFileError
from ml_pipeline.files import bounded_lines
from ml_pipeline.json_lines import JsonLines, json_kind, open_plain, shown_name
from ml_pipeline.json_streams import list_items
from ml_pipeline.stores.duckdb_files import literal, quoted
from ml_pipeline.stores.migrations import HISTORY

_DUCKDB_MAGIC = slice(8, 12)
_LIST_BYTES = 256 * 1024 * 1024
_ROWS_AT_ONCE = 1000
_BYTES_AT_ONCE = 64 * 1024 * 1024
_MOST_ROWS = 5_000_000
_MOST_TEXT_BYTES = 2 * 1024**3
_MOST_COLUMNS = 200
_DUCKDB_LIMITS: dict[str, Any] = {
    "memory_limit": "2GB",
    # Nothing is written beside the file, which may be anywhere.
    "max_temp_directory_size": "0KiB",
    "threads": 2,
    "autoload_known_extensions": False,
    "autoinstall_known_extensions": False,
}
_TEXTS = ("VARCHAR", "JSON")
_SCALAR = re.compile(
    r"VARCHAR|JSON|UUID|BOOLEAN|U?(?:TINY|SMALL|BIG|HUGE)?INT(?:EGER)?|FLOAT|DOUBLE|DECIMAL\(\d+,\d+\)|DATE|TIME"
    r"|TIMESTAMP(?:_S|_MS|_NS)?(?: WITH TIME ZONE)?|ENUM\(.*\)",
    re.DOTALL,
)
_DATABASE_TABLES = ("checkpoint_scores", "probe_results")
_DEFAULT = "#default"
_ANNOTATIONS = (_DEFAULT, "#group", "#datatype")
# Of InfluxDB's annotated CSV: the annotations' column, the name of the result, and the number of the table in it.
_FLUX_HEADER = ["", "result", "table"]
_OF_THE_QUERY = frozenset({"", "result", "table", "_start", "_stop"})
_FLUX_NAMES = {"_time": "time", "_measurement": "name"}
_FIELD, _VALUE = "_field", "_value"
_NO_CHECKPOINT = "its rows name no run and no checkpoint"


class Records(Protocol):
    """The records of one file with their places, from 1; `sha256` is the hash of the whole file after the last one.

    `bad_lines` counts those that cannot be read or that `refuse` was told of, and `problems` says why.
    """

    bad_lines: int
    problems: list[str]
    sha256: str

    def __iter__(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Read the file; raises ImportFileError when that is not possible."""

    def refuse(self, number: int, error: Exception) -> None:
        """Count a record as bad, and say why."""


def open_records(path: Path, line_bytes: int) -> Records:
    """The records of a file, whatever format it has; a link is followed.

    Raises:
        ImportFileError: it cannot be read, or is empty.
    """
    path = path.resolve()
    with open_plain(path, ImportFileError) as file:
        start = file.read(4096)
    if start[_DUCKDB_MAGIC] == b"DUCK":
        return _Database(path, line_bytes)
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    if not text:
        raise ImportFileError(f"{path} is empty.")
    if text.startswith(b"["):
        return _List(path, line_bytes)
    return JsonLines(path, line_bytes, ImportFileError) if text.startswith(b"{") else _Csv(path, line_bytes)


class _Csv(JsonLines):
    """The rows of a CSV file by its header; an empty cell is no field. A record's place is the line it ends on."""

    def __init__(self, path: Path, line_bytes: int) -> None:
        super().__init__(path, line_bytes, ImportFileError)
        self._is_long = False

    def refuse(self, number: int, error: Exception) -> None:
        if self._is_long:
            error = ValueError(f"a point of Flux, put together out of rows of one field each: {error!s:.180}")
        super().refuse(number, error)

    def __iter__(self) -> Iterator[tuple[int, dict[str, Any]]]:
        table = _CsvTable()
        points: dict[tuple[tuple[str, str], ...], tuple[int, dict[str, Any]]] = {}
        digest = hashlib.sha256()
        with open_plain(self.path, ImportFileError) as file:
            reader = csv.reader(self._texts(bounded_lines(file, self._line_bytes, digest.update)), strict=True)
            while True:
                try:
                    cells = next(reader)
                except StopIteration:
                    break
                except csv.Error as error:
                    self.refuse(reader.line_num, ValueError(f"not CSV: {error}"))
                    continue
                try:
                    fields = table.fields(cells)
                except ValueError as error:
                    self.refuse(reader.line_num, error)
                    continue
                if fields is None:
                    continue
                if _FIELD in fields and _VALUE in fields:
                    self._is_long = True
                    self._add_to_point(points, reader.line_num, fields)
                else:
                    yield reader.line_num, fields
        yield from points.values()
        self.sha256 = digest.hexdigest()

    def _add_to_point(
        self, points: dict[tuple[tuple[str, str], ...], tuple[int, dict[str, Any]]], number: int, fields: dict[str, Any]
    ) -> None:
        name, value = fields.pop(_FIELD), fields.pop(_VALUE)
        _, point = points.setdefault(tuple(sorted(fields.items())), (number, fields))
        if point.setdefault(name, value) != value:
            self.refuse(number, ValueError(f"{name!a:.40} of this point is also {point[name]!a:.40}"))

    def _texts(self, lines: Iterable[bytes | None]) -> Iterator[str]:
        for number, line in enumerate(lines, start=1):
            if line is None:
                self.refuse(number, ValueError(f"longer than {self._line_bytes} bytes"))
            # What is no UTF-8 becomes characters that no name may hold.
            yield "\n" if line is None else line.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")


class _CsvTable:
    """Tells header, annotations and records of CSV apart. A file of Flux holds tables one after another."""

    def __init__(self) -> None:
        self._header: list[str] | None = None
        self._defaults: list[str] = []

    def fields(self, cells: list[str]) -> dict[str, Any] | None:
        """The fields of a record; None for a row that is none. Raises ValueError for one that does not fit."""
        if not cells or not any(cells):
            return None
        if cells[0] in _ANNOTATIONS:
            self._header = None
            if cells[0] == _DEFAULT:
                self._defaults = cells[1:]
            return None
        names = [cell.strip() for cell in cells]
        if self._header is None or names == self._header or names[:3] == _FLUX_HEADER:
            self._header = names
            return None
        if len(cells) != len(self._header):
            raise ValueError(f"{len(cells)} cells under a header of {len(self._header)} columns")
        is_flux = self._header[:3] == _FLUX_HEADER
        defaults = ["", *self._defaults] if is_flux and len(self._defaults) == len(cells) - 1 else [""] * len(cells)
        row = zip(self._header, cells, defaults, strict=True)
        found = {name: cell or default for name, cell, default in row if cell or default}
        return _of_flux(found) if is_flux else _with_tags(found)


def _of_flux(fields: dict[str, Any]) -> dict[str, Any]:
    """A record under the names that the other exports have for the same."""
    return {_FLUX_NAMES.get(name, name): value for name, value in fields.items() if name not in _OF_THE_QUERY}


def _with_tags(fields: dict[str, Any]) -> dict[str, Any]:
    """A record of InfluxDB 1.x whose tags stand in one cell, `label=G1-x @0000100,model=gemma`, as columns.

    A comma within a tag's value is its own, since what follows it names no tag.
    """
    grouped = fields.get("tags")
    if not isinstance(grouped, str) or not {"name", "time"} <= fields.keys() or "=" not in grouped:
        return fields
    tags: dict[str, str] = {}
    last = ""
    for part in grouped.split(","):
        name, equals, value = part.partition("=")
        if equals and name.isidentifier():
            last = name
            if name in tags or name in fields:
                raise ValueError(f"the tag {name!a:.40} of GROUP BY is there twice")
            tags[name] = value
        elif last:
            tags[last] += f",{part}"
        else:
            raise ValueError(f"the tags of GROUP BY cannot be read: {grouped!a:.60}. Export without GROUP BY")
    return {name: value for name, value in fields.items() if name != "tags"} | {
        name: value for name, value in tags.items() if value
    }


class _List(JsonLines):
    """The objects of a file that is one JSON list."""

    def __init__(self, path: Path, line_bytes: int) -> None:
        super().__init__(path, line_bytes, ImportFileError)

    def __iter__(self) -> Iterator[tuple[int, dict[str, Any]]]:
        with open_plain(self.path, ImportFileError) as file:
            data = file.read(_LIST_BYTES + 1)
        if len(data) > _LIST_BYTES:
            raise ImportFileError(
                f"{self.path} is one JSON list of over {_LIST_BYTES} bytes. Export it as CSV instead."
            )
        try:
            text = data.decode("utf-8-sig")
            # Read once to see that all of it is a list, for nothing of another file is to be imported.
            for _ in list_items(text, self._line_bytes):
                pass
        except (ValueError, RecursionError) as error:
            raise ImportFileError(f"{self.path} is no JSON list: {error}. Export it again, as CSV.") from error
        for number, item in enumerate(list_items(text, self._line_bytes), start=1):
            if isinstance(item, dict):
                yield number, item
            else:
                self.refuse(number, ValueError(f"must be an object, not {json_kind(item)}"))
        self.sha256 = hashlib.sha256(data).hexdigest()


class _Database(JsonLines):
    """The rows of the original's tables in a DuckDB file, which is attached to an empty database: so no name in it
    takes the place of one of DuckDB's own, and nothing of it is read but columns that its tables store. Other files and
    extensions are out of reach, and memory is bounded, for a table of a few kB can hold gigabytes."""

    def __init__(self, path: Path, line_bytes: int) -> None:
        super().__init__(path, line_bytes, ImportFileError)
        self._table = ""

    def refuse(self, number: int, error: Exception) -> None:
        super().refuse(number, ValueError(f"row of {self._table}: {error}"))

    def __iter__(self) -> Iterator[tuple[int, dict[str, Any]]]:
        digest = hashlib.sha256()
        # What was written last may lie in the write-ahead log beside the file, and is read with it.
        for part in (self.path, self.path.with_name(f"{self.path.name}.wal")):
            if part.exists():
                with open_plain(part, ImportFileError) as file:
                    digest.update(hashlib.file_digest(file, "sha256").digest())
        try:
            with duckdb.connect(config=_DUCKDB_LIMITS) as connected:
                connected.execute(f"ATTACH {literal(str(self.path))} AS past (READ_ONLY)")
                connected.execute(
                    "SET enable_progress_bar = false; SET enable_external_access = false; SET lock_configuration = true"
                )
                yield from self._rows(connected)
        except duckdb.OutOfMemoryException as error:
            raise ImportFileError(
                f"{self.path} takes more than {_DUCKDB_LIMITS['memory_limit']} of memory when it is read. "
                "If it should, export its tables as CSV and import those."
            ) from error
        except duckdb.Error as error:
            raise ImportFileError(
                f"{self.path} cannot be read: {error!s:.300}. Close the program that has it open; if the file is "
                "damaged, export its tables as CSV and import those."
            ) from error
        self.sha256 = digest.hexdigest()

    def _rows(self, connected: duckdb.DuckDBPyConnection) -> Iterator[tuple[int, dict[str, Any]]]:
        found = {
            name
            for (name,) in connected.execute(
                "SELECT table_name FROM duckdb_tables() "
                "WHERE database_name = 'past' AND NOT internal AND schema_name = 'main'"
            ).fetchall()
        }
        if HISTORY in found:
            raise ImportFileError(f"{self.path} is a database of this program, not of the original.")
        if not found & set(_DATABASE_TABLES):
            raise ImportFileError(f"{self.path} has none of the tables {', '.join(_DATABASE_TABLES)}.")
        if "scoring_results" in found:
            ((count,),) = connected.execute("SELECT count(*) FROM past.main.scoring_results").fetchall()
            if count:
                self.problems.append(f"{shown_name(self.path)}: {count} rows of scoring_results left: {_NO_CHECKPOINT}")
        for table in (name for name in _DATABASE_TABLES if name in found):
            self._table = table
            yield from self._rows_of(connected, table)

    def _rows_of(self, connected: duckdb.DuckDBPyConnection, table: str) -> Iterator[tuple[int, dict[str, Any]]]:
        # Generated columns are programs: what they are is worked out when they are read.
        columns = connected.execute(
            "SELECT column_name, data_type FROM information_schema.columns WHERE table_catalog = 'past' "
            "AND table_schema = 'main' AND table_name = ? AND is_generated = 'NEVER' ORDER BY ordinal_position",
            [table],
        ).fetchall()
        names = {name: quoted(name) for name, kind in columns if _SCALAR.fullmatch(kind)}
        if len(names) > _MOST_COLUMNS or not names:
            raise ImportFileError(f"{self.path}: table {table} has {len(names)} columns of numbers, texts and times.")
        texts = [quoted(name) for name, kind in columns if name in names and kind in _TEXTS]
        size = " + ".join(["0", *(f"coalesce(strlen({name}), 0)" for name in texts)])
        ((rows, total, longest),) = connected.execute(
            f"SELECT count(*), coalesce(sum({size}), 0), coalesce(max({size}), 0) FROM past.main.{table}"
        ).fetchall()
        if rows > _MOST_ROWS or total > _MOST_TEXT_BYTES:
            raise ImportFileError(
                f"{self.path}: table {table} has {rows:,} rows with {total:,} bytes of text, and at most "
                f"{_MOST_ROWS:,} and {_MOST_TEXT_BYTES:,} are read. Export what you need of it as CSV and import that."
            )
        chosen = ", ".join(f"CASE WHEN {size} <= {self._line_bytes} THEN {name} END" for name in names.values())
        answer = connected.execute(f"SELECT {chosen}, {size} FROM past.main.{table} ORDER BY ALL")
        number, at_once = 0, max(1, min(_ROWS_AT_ONCE, _BYTES_AT_ONCE // max(1, longest)))
        while found := answer.fetchmany(at_once):
            for *row, row_bytes in found:
                number += 1
                if row_bytes > self._line_bytes:
                    self.refuse(number, ValueError(f"longer than {self._line_bytes} bytes"))
                else:
                    yield number, dict(zip(names, row, strict=True))
