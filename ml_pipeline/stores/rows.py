"""Checking rows against a table's definition before any store sees them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from ml_pipeline.errors import StoreError
from ml_pipeline.stores.table import Column, Table

_PARTITION_KEY = re.compile(r"[A-Za-z0-9_=@+-][A-Za-z0-9._=@+-]*")
_MAX_KEY_LENGTH = 200
_SHOWN = 3

Rows: TypeAlias = pa.Table | Sequence[Mapping[str, Any]]


def check_partition_key(partition_key: str) -> None:
    """Refuse a key that cannot be a file's name.

    Raises:
        StoreError: it is empty, too long, or holds something other than letters, digits and `._=@+-`.
    """
    if _PARTITION_KEY.fullmatch(partition_key) and ".." not in partition_key and len(partition_key) <= _MAX_KEY_LENGTH:
        return
    raise StoreError(
        f"partition key {partition_key!r} cannot be stored: it must be 1 to {_MAX_KEY_LENGTH} of the characters "
        "A-Z a-z 0-9 . _ = @ + -, not start with a dot and not hold '..'. Rename the source or the run."
    )


def conform(table: Table, partition_key: str, rows: Rows) -> pa.Table:
    """Return `rows` as an Arrow table with exactly the table's columns, in its order and types.

    Columns are matched by name. A cast that cannot lose anything (int to float, large_string to string, finer
    timestamps that are whole in ours) is made; everything else is a problem.

    Raises:
        StoreError: with every missing or unknown column, wrong type, empty value where one is required, NaN, row of
            another partition and repeated key, all at once.
    """
    check_partition_key(partition_key)
    given, problems = _columns(table, rows)
    arrays: dict[str, pa.Array] = {}
    for column in table.columns:
        if column.name in given:
            array, complaint = _convert(column, given[column.name])
            problems += complaint
            if array is not None:
                arrays[column.name] = array
    problems += _foreign_rows(partition_key, arrays)
    problems += _repeated_keys(table, arrays)
    if problems:
        raise StoreError.from_problems(
            f"rows for table {table.name}, partition {partition_key}",
            problems,
            "Nothing was written. ml_pipeline/stores/tables.py defines the table.",
        )
    return pa.Table.from_arrays([arrays[c.name] for c in table.columns], schema=table.schema)


def _columns(table: Table, rows: Rows) -> tuple[dict[str, Any], list[str]]:
    """The given values by column name, and what is wrong with the set of columns."""
    wanted = [c.name for c in table.columns]
    problems: list[str] = []
    if isinstance(rows, pa.Table):
        counts = Counter(rows.column_names)
        problems += [f"column {name!r} appears {n} times" for name, n in counts.items() if n > 1]
        problems += [f"column {name!r} is missing" for name in wanted if name not in counts]
        problems += [f"column {name!r} is unknown" for name in counts if name not in wanted]
        return {name: rows.column(name) for name in wanted if counts[name] == 1}, problems
    for name in wanted:
        absent = [i for i, row in enumerate(rows) if name not in row]
        if absent:
            problems.append(f"column {name!r} is missing in {_some('row', absent)}")
    unknown: dict[str, list[int]] = {}
    for i, row in enumerate(rows):
        for name in row.keys() - set(wanted):
            unknown.setdefault(name, []).append(i)
    problems += [f"column {name!r} is unknown, in {_some('row', at)}" for name, at in sorted(unknown.items())]
    present = [name for name in wanted if all(name in row for row in rows)]
    return {name: [row[name] for row in rows] for name in present}, problems


def _convert(column: Column, values: Any) -> tuple[pa.Array | None, list[str]]:
    """The column as one Arrow array, or None and why not."""
    try:
        array = _cast(column, values) if isinstance(values, pa.ChunkedArray) else _build(column, values)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        return None, [f"column {column.name!r} must be {column.type}: {error}"]
    problems = []
    if array.null_count and not column.nullable:
        at = pc.indices_nonzero(pc.is_null(array)).to_pylist()
        problems.append(f"column {column.name!r} must not be empty, but is in {_some('row', at)}")
    if pa.types.is_floating(array.type):
        at = pc.indices_nonzero(pc.invert(pc.is_finite(array))).to_pylist()
        if at:
            problems.append(f"column {column.name!r} is NaN or infinite in {_some('row', at)}; unscored is None")
    return array, problems


def _cast(column: Column, values: pa.ChunkedArray) -> pa.Array:
    array = values.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], values.type)
    if array.type == column.type:
        return array
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if not _harmless(array.type, column.type):
        raise TypeError(f"got {array.type}")
    return array.cast(column.type)


def _harmless(given: pa.DataType, wanted: pa.DataType) -> bool:
    """Whether Arrow's checked cast from `given` means the same values."""
    kinds = pa.types
    if kinds.is_null(given):
        return True
    if kinds.is_string(wanted):
        return bool(kinds.is_string(given) or kinds.is_large_string(given) or kinds.is_string_view(given))
    if kinds.is_timestamp(wanted):
        return bool(kinds.is_timestamp(given) and given.tz is not None)
    if kinds.is_integer(wanted):
        return bool(kinds.is_integer(given))
    if kinds.is_floating(wanted):
        return bool(kinds.is_integer(given) or kinds.is_floating(given))
    return bool(given == wanted)


def _build(column: Column, values: Sequence[Any]) -> pa.Array:
    naive = [i for i, v in enumerate(values) if isinstance(v, datetime) and v.tzinfo is None]
    if naive:
        # Arrow would take it for UTC in silence, and be hours off.
        raise ValueError(f"a time without a time zone in {_some('row', naive)}")
    if not pa.types.is_boolean(column.type):
        booleans = [i for i, v in enumerate(values) if isinstance(v, bool)]
        if booleans:
            raise ValueError(f"a bool in {_some('row', booleans)}")
    # Not `pa.array(values, column.type)`: that cuts 1.5 down to 1 in silence.
    return _cast(column, pa.chunked_array([pa.array(values)]))


def _foreign_rows(partition_key: str, arrays: Mapping[str, pa.Array]) -> list[str]:
    if "partition_key" not in arrays:
        return []
    found = arrays["partition_key"].unique().drop_null().to_pylist()
    return [f"rows of another partition: {key!r}" for key in found if key != partition_key][:_SHOWN]


def _repeated_keys(table: Table, arrays: Mapping[str, pa.Array]) -> list[str]:
    if not all(name in arrays for name in table.key):
        return []
    # A set tells faster that there are none; Arrow tells faster which ones there are.
    if len(set(zip(*(arrays[name].to_pylist() for name in table.key), strict=True))) == len(arrays[table.key[0]]):
        return []
    keys = pa.table({name: arrays[name] for name in table.key})
    counted = keys.group_by(list(table.key)).aggregate([([], "count_all")])
    repeated = counted.filter(pc.greater(counted["count_all"], 1)).to_pylist()
    problems = [f"{row['count_all']} rows with the key {tuple(row[name] for name in table.key)}" for row in repeated]
    more = len(problems) - _SHOWN
    return problems if more <= 0 else [*problems[:_SHOWN], f"and {more} more repeated keys"]


def _some(noun: str, at: Sequence[int]) -> str:
    """`row 3`, `rows 1, 2`, `rows 0, 1, 2 and 7 more`; rows count from 0."""
    shown = ", ".join(map(str, at[:_SHOWN]))
    more = f" and {len(at) - _SHOWN} more" if len(at) > _SHOWN else ""
    return f"{noun}{'' if len(at) == 1 else 's'} {shown}{more}"
