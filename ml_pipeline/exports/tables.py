"""The tables as one file each, Parquet or CSV, for notebooks and spreadsheets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Literal

import pandas as pd
import pyarrow as pa
from pyarrow import csv

from ml_pipeline.exports.spreadsheet import guarded
from ml_pipeline.files import replacing
from ml_pipeline.reports.leaderboard import leaderboard
from ml_pipeline.reports.score_table import score_table
from ml_pipeline.reports.scores import Scores
from ml_pipeline.stores.parquet import ParquetStore
from ml_pipeline.stores.parquet_file import write_batches
from ml_pipeline.stores.table import Table
from ml_pipeline.stores.tables import TABLES

TableFormat = Literal["parquet", "csv"]
Wanted = Callable[[str], bool]
"""Whether a partition is to be exported."""


def write_tables(folder: Path, kind: TableFormat, parquet: ParquetStore, scores: Scores, wanted: Wanted) -> list[Path]:
    """Write every table that has rows, the tidy score table and the leaderboard; return the files' paths.

    Each file holds the rows of the wanted partitions, by partition. An empty CSV cell is an empty value; a text that a
    spreadsheet may run has a `'` in front there (see `spreadsheet`).

    Raises:
        StoreError, StoreFullError: a Parquet file is damaged, or a file cannot be written. What was there stays.
    """
    written = []
    for table in TABLES.values():
        keys = [key for key in parquet.partitions(table) if wanted(key)]
        if keys:
            written.append(_write(folder, kind, table.name, table.schema, _rows(parquet, table, keys)))
    for name, frame in (("score_table", score_table(scores)), ("leaderboard", leaderboard(scores))):
        chosen: pd.DataFrame = frame[[wanted(key) for key in frame["partition_key"]]]
        rows = pa.Table.from_pandas(chosen, preserve_index=False)
        written.append(_write(folder, kind, name, rows.schema, [rows]))
    return written


def _rows(parquet: ParquetStore, table: Table, keys: Iterable[str]) -> Iterator[pa.Table]:
    for key in keys:
        yield from parquet.read_batches(table, key)


def _write(folder: Path, kind: TableFormat, name: str, schema: pa.Schema, batches: Iterable[pa.Table]) -> Path:
    path = folder / f"{name}.{kind}"
    with replacing(path) as temporary, temporary.open("wb") as sink:
        if kind == "parquet":
            write_batches(sink, schema, batches, {"table": name})
        else:
            with csv.CSVWriter(sink, guarded(schema.empty_table()).schema) as writer:
                for rows in batches:
                    writer.write_table(guarded(rows))
    return path
