"""What a table is: its columns with their types and meanings, and what names a row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa


@dataclass(frozen=True)
class Column:
    """A column: its Arrow type, what it means (units included), and whether it may be empty.

    `earlier` is what rows stored before the column came have in it.
    """

    name: str
    type: pa.DataType
    description: str
    nullable: bool = False
    earlier: int | None = None


@dataclass(frozen=True)
class Table:
    """A table, its columns, and the columns that name a row within a partition.

    `version` is the column whose values name what rows were made from: rows of a version that is written no more are
    superseded, and kept. `made_at` is the column that says when a row was made. A partition of a `streamed` table may
    have more rows than fit in memory: it is written and read in batches.
    """

    name: str
    description: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    version: str = "evaluation_id"
    made_at: str = "scored_at"
    streamed: bool = False

    @cached_property
    def schema(self) -> pa.Schema:
        """The Arrow schema, with each column's description as field metadata."""
        return pa.schema(
            [
                pa.field(c.name, c.type, nullable=c.nullable, metadata={"description": c.description})
                for c in self.columns
            ]
        )


def described(rows: pa.Table, meanings: Mapping[str, str]) -> pa.Table:
    """The rows with what their columns mean as field metadata, as `Table.schema` has it."""
    fields = [
        field.with_metadata({"description": meanings[field.name]}) if field.name in meanings else field
        for field in rows.schema
    ]
    return rows.cast(pa.schema(fields))
