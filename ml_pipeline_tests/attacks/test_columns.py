"""Columnar files of some kB that are gigabytes when they are read: data sets, imported databases, our own store."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ml_pipeline.errors import ImportFileError, StoreError
from ml_pipeline.history.files import open_records
from ml_pipeline.stores.parquet import ParquetStore
from ml_pipeline.stores.tables import TABLES
from ml_pipeline.suites.data_files import DataError, read_rows
from ml_pipeline_tests.attacks.bounded import run_bounded
from ml_pipeline_tests.attacks.conftest import Held

MB = 1 << 20
GROWN_MB = 1000


def one_text_for_all(path: Path, rows: int = 20_000, size: int = MB) -> None:
    """A dictionary of one long text, which every row names: 20 GB."""
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array(["x" * size]))
    write(path, pa.table({"question": texts, "answer": pa.array(["#### 42"] * rows)}))


def one_long_text_of_short_ones(path: Path) -> None:
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * 99 + [1], pa.int32()), pa.array(["q", "x" * 100 * MB]))
    write(path, pa.table({"question": texts, "answer": pa.array(["#### 42"] * 100)}))


def plain_zeros(path: Path) -> None:
    """4 GB of the same character, as zstd packs it."""
    schema = pa.schema({"question": pa.large_string(), "answer": pa.string()})
    with pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=False) as writer:
        for _ in range(16):
            batch = pa.table({"question": ["x" * 60 * MB] * 4, "answer": ["#### 42"] * 4}, schema=schema)
            writer.write_table(batch)


def lists_of_lists(path: Path) -> None:
    """Rows of many values, each a run of some bytes."""
    rows = pa.ListArray.from_arrays(
        pa.array(range(0, 60_000_001, 20_000_000), pa.int32()), pa.nulls(60_000_000, pa.int8())
    )
    write(path, pa.table({"question": rows, "answer": ["#### 42"] * 3}))


def texts_in_lists(path: Path) -> None:
    inner = pa.DictionaryArray.from_arrays(pa.array([0] * 20_000, pa.int32()), pa.array(["x" * MB]))
    rows = pa.ListArray.from_arrays(pa.array([0, 10_000, 20_000], pa.int32()), inner)
    write(path, pa.table({"question": rows, "answer": ["#### 42"] * 2}))


def prefixes(path: Path) -> None:
    """Each text is all of the one before it, by an encoding that says so."""
    texts = pa.table({"question": ["x" * 10_000] * 500_000, "answer": ["#### 42"] * 500_000})
    pq.write_table(
        texts, path, use_dictionary=False, column_encoding={"question": "DELTA_BYTE_ARRAY"}, compression="zstd"
    )


def varint(value: int, size: int = 1) -> bytes:
    """A number as Thrift's compact protocol has it, of at least so many bytes."""
    left = value << 1
    found: list[int] = []
    while left or len(found) < size:
        found.append(left & 127)
        left >>= 7
    return bytes(part | 128 for part in found[:-1]) + bytes(found[-1:])


def lying_footer(path: Path) -> None:
    """A page of 900 MB, where the footer says 1 kB: only the page's own header tells."""
    plain = pa.table({"question": ["x" * 900 * MB], "answer": ["#### 42"]})
    pq.write_table(plain, path, compression="zstd", use_dictionary=False, write_statistics=False)
    raw = path.read_bytes()
    start = len(raw) - 8 - int.from_bytes(raw[-8:-4], "little")
    group = pq.read_metadata(path).row_group(0)
    footer = raw[start:]
    for size in (group.total_byte_size, group.column(0).total_uncompressed_size):
        assert varint(size) in footer
        footer = footer.replace(varint(size), varint(1000, len(varint(size))))
    path.write_bytes(raw[:start] + footer)
    assert pq.read_metadata(path).row_group(0).column(0).total_uncompressed_size == 1000


FILES: dict[str, tuple[Callable[[Path], None], str]] = {
    "one text in 20,000 rows": (one_text_for_all, "longer than 1,000,000 bytes"),
    "one text of 100 MB": (one_long_text_of_short_ones, "longer than|takes more than|too large"),
    "4 GB of zeros": (plain_zeros, "too large|takes more than|more than .* characters"),
    "lists of 20 million": (lists_of_lists, "lists of more than 1,000,000 values"),
    "a text of 1 MB in lists of 10,000": (texts_in_lists, "holds lists of texts"),
    "prefixes": (prefixes, "too large|takes more than"),
    "a page of 900 MB that the footer keeps silent about": (lying_footer, "takes more than"),
}


def write(path: Path, table: pa.Table) -> None:
    pq.write_table(
        table, path, compression="zstd", use_dictionary=True, store_schema=False, dictionary_pagesize_limit=1 << 30
    )


def make(name: str, path: str) -> None:
    FILES[name][0](Path(path))


def data_set(path: str) -> str:
    """The first problem, or the number of rows."""
    count = 0
    try:
        for row in read_rows([Path(path)], ["question", "answer"]):
            if row.problem:
                return row.problem
            count += 1
    except DataError as error:
        return str(error)
    return f"{count} rows"


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_a_data_set_that_unpacks_to_gigabytes(name: str, tmp_path: Path, held: Held) -> None:
    path = tmp_path / "bomb.parquet"
    # Made in a child, whose memory is given back.
    assert run_bounded(make, name, str(path), memory_mb=12_000, cpu_s=200, wall_s=300).error is None
    outcome = run_bounded(data_set, str(path), memory_mb=3000, cpu_s=60)
    assert outcome.error is None
    assert re.search(FILES[name][1], outcome.value), outcome.value
    size = f"{path.stat().st_size >> 10} kB"
    held(outcome, attack=f"Parquet data set of {size}: {name}", by="page headers", seconds=20, grown_mb=GROWN_MB)


def stored(folder: str, name: str) -> str:
    store = ParquetStore(Path(folder))
    table = TABLES["probe_results"]
    try:
        rows = store.read(table, name).num_rows
    except StoreError as error:
        return str(error)
    return f"{rows} rows"


@pytest.mark.slow
def test_a_hostile_file_in_our_store(tmp_path: Path, held: Held) -> None:
    folder = tmp_path / "probe_results"
    folder.mkdir()
    assert run_bounded(make, "one text in 20,000 rows", str(folder / "a@1.parquet"), memory_mb=8000).error is None
    assert (
        run_bounded(
            make, "a page of 900 MB that the footer keeps silent about", str(folder / "a@2.parquet"), memory_mb=8000
        ).error
        is None
    )
    for name, why in (("a@1", "its texts take more than"), ("a@2", "takes more than is read at once")):
        outcome = run_bounded(stored, str(tmp_path), name, memory_mb=3000, cpu_s=60)
        assert outcome.error is None
        assert why in outcome.value
        assert "move it away" in outcome.value
        held(
            outcome,
            attack=f"stored Parquet {name}",
            by="page headers and measured texts",
            seconds=20,
            grown_mb=GROWN_MB,
        )


TEXTS = "CREATE TABLE checkpoint_scores AS SELECT repeat('x', {size}) AS model, 'r' AS run_id FROM range({rows})"
DATABASES: dict[str, tuple[list[str], str]] = {
    "2.4 GB of texts": ([TEXTS.format(size=350_000, rows=7000)], "bytes of text|of memory"),
    "one text of 1 GB": ([TEXTS.format(size=1_000_000_000, rows=1)], "of memory|longer than"),
    "rows without end": (
        ["CREATE TABLE checkpoint_scores AS SELECT 1 AS model, 2 AS run_id FROM range(100_000_000)"],
        "100,000,000 rows",
    ),
    "a view": (["CREATE VIEW checkpoint_scores AS FROM range(1_000_000_000_000_000)"], "none of the tables"),
    "a generated column": (
        [
            "CREATE TABLE checkpoint_scores (model INTEGER, x VARCHAR GENERATED ALWAYS AS (repeat('x', model)))",
            "INSERT INTO checkpoint_scores VALUES (2_000_000_000)",
        ],
        r"1 rows: \{'model': 2000000000\}",
    ),
    "macros in place of DuckDB's functions": (
        [
            "CREATE TABLE checkpoint_scores AS SELECT 1 AS model",
            "CREATE MACRO duckdb_tables() AS TABLE SELECT 'x' AS table_name FROM range(1_000_000_000_000_000)",
            "CREATE MACRO strlen(x) AS (SELECT count(*) FROM range(1_000_000_000_000_000))",
            "CREATE MACRO coalesce(x, y) AS (SELECT count(*) FROM range(1_000_000_000_000_000))",
        ],
        r"1 rows: \{'model': 1\}",
    ),
    "nested columns": (
        ["CREATE TABLE checkpoint_scores AS SELECT 1 AS model, range(50_000_000) AS x, {'a': [1]} AS y"],
        r"1 rows: \{'model': 1\}",
    ),
    "a thousand columns": (
        ["CREATE TABLE checkpoint_scores AS SELECT " + ", ".join(f"1 AS c{n}" for n in range(1000))],
        "1000 columns",
    ),
}


def make_database(statements: list[str], path: str) -> None:
    with duckdb.connect(path, config={"threads": 1}) as connected:
        for statement in statements:
            try:
                connected.execute(statement)
            except duckdb.ParserException:
                continue


def records(path: str) -> str:
    first, count = None, 0
    try:
        found = open_records(Path(path), 16 << 20)
        for _, row in found:
            first, count = first or row, count + 1
    except ImportFileError as error:
        return str(error)
    return f"{count} rows: {first}{''.join(f'; {problem}' for problem in found.problems[:1])}"


@pytest.mark.slow
@pytest.mark.parametrize("name", DATABASES)
def test_a_hostile_database(name: str, tmp_path: Path, held: Held) -> None:
    statements, why = DATABASES[name]
    path = tmp_path / "bomb.duckdb"
    made = run_bounded(make_database, statements, str(path), memory_mb=16_000, cpu_s=200, wall_s=300)
    assert made.error is None
    outcome = run_bounded(records, str(path), memory_mb=6000, cpu_s=100, wall_s=200)
    assert outcome.error is None
    assert re.search(why, outcome.value), outcome.value
    held(outcome, attack=f"DuckDB file: {name}", by="limits on memory, rows, columns", seconds=60, grown_mb=2200)


@pytest.mark.slow
def test_a_json_list_of_lists(tmp_path: Path, held: Held) -> None:
    path = tmp_path / "list.json"
    path.write_bytes(b"[" + b"[]," * 3_000_000 + b"[]]")
    outcome = run_bounded(records, str(path), memory_mb=2000, cpu_s=100, wall_s=200)
    assert outcome.value.startswith("0 rows"), outcome.value
    held(outcome, attack="JSON list of 3 million lists", by="one item at a time", seconds=100, grown_mb=300)


def test_a_file_that_only_looks_like_parquet(tmp_path: Path) -> None:
    sound = io.BytesIO()
    pq.write_table(pa.table({"question": ["q"], "answer": ["#### 42"]}), sound)
    raw = sound.getvalue()
    path = tmp_path / "cut.parquet"
    for end in range(0, len(raw), 7):
        path.write_bytes(raw[:end])
        assert "not a sound Parquet file" in data_set(str(path))
    for place in range(4, len(raw) - 8, 3):
        path.write_bytes(raw[:place] + bytes([raw[place] ^ 0xFF]) + raw[place + 1 :])
        data_set(str(path))
