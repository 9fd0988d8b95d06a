from __future__ import annotations

import math
from datetime import datetime
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from ml_pipeline.errors import StoreError
from ml_pipeline.stores.rows import check_partition_key, conform
from ml_pipeline.stores.tables import CHECKPOINT_SCORES, PROBE_RESULTS
from ml_pipeline_tests.stores.samples import identity, key, probe_rows, score_rows, without

ROWS = score_rows(identity(), math=(3, 4))


@pytest.mark.parametrize("good", ["a", "lab.g1-lek@100", "a+b=c_d@0", "k" * 200, "A.b.c"])
def test_good_keys(good: str) -> None:
    check_partition_key(good)


@pytest.mark.parametrize("bad", ["", ".", "..", ".hidden", "a..b", "a/b", "a b", "a\n", "a\0", "é", "k" * 201, "a~b"])
def test_bad_keys(bad: str) -> None:
    with pytest.raises(StoreError, match="partition key"):
        check_partition_key(bad)


def test_columns_are_put_in_the_tables_order_by_name() -> None:
    shuffled = [dict(reversed(row.items())) for row in ROWS]
    table = conform(CHECKPOINT_SCORES, key(), shuffled)
    assert table.schema.equals(CHECKPOINT_SCORES.schema, check_metadata=True)
    assert table.to_pylist() == ROWS
    assert conform(CHECKPOINT_SCORES, key(), table.select(table.column_names[::-1])).to_pylist() == ROWS


def test_pandas_tables_with_large_strings_and_finer_times_are_cast() -> None:
    frame = pd.DataFrame(probe_rows(identity(), a=True, b=None))
    frame["scored_at"] = frame["scored_at"].astype("datetime64[ns, UTC]")
    table = conform(PROBE_RESULTS, key(), pa.Table.from_pandas(frame, preserve_index=False))
    assert table.to_pylist() == probe_rows(identity(), a=True, b=None)


def test_no_rows_are_an_empty_table() -> None:
    assert conform(CHECKPOINT_SCORES, key(), []).schema == CHECKPOINT_SCORES.schema


def changed(**values: Any) -> list[dict[str, Any]]:
    return [ROWS[0] | values, *ROWS[1:]]


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        (without(ROWS, "total"), "column 'total' is missing in rows 0, 1"),
        ([without(ROWS, "total")[0], ROWS[1]], "column 'total' is missing in row 0"),
        (changed(extra=1), "column 'extra' is unknown, in row 0"),
        (changed(correct="3"), "column 'correct' must be int64"),
        (changed(correct=1.5), "column 'correct' must be int64"),
        (changed(correct=True), "column 'correct' must be int64: a bool in row 0"),
        (changed(label=7), "column 'label' must be string"),
        (changed(accuracy=math.nan), "column 'accuracy' is NaN or infinite in row 0; unscored is None"),
        (changed(label=None), "column 'label' must not be empty, but is in row 0"),
        (changed(scored_at=datetime(2026, 1, 1)), "a time without a time zone in row 0"),
        (changed(partition_key="lab.other@1"), "rows of another partition: 'lab.other@1'"),
        ([*ROWS, ROWS[0]], r"2 rows with the key \('lab.g1-lek@100', 'capability', 'overall'\)"),
        (pa.Table.from_pylist(ROWS).drop_columns("total"), "column 'total' is missing"),
        (pa.Table.from_pylist(ROWS).append_column("extra", pa.array([1, 2])), "column 'extra' is unknown"),
        (
            pa.Table.from_pylist(ROWS).append_column("total", pa.array([1, 2])),
            "column 'total' appears 2 times",
        ),
        (
            pa.Table.from_pylist(changed(scored_at=datetime(2026, 1, 1), correct=1)).drop_columns("scored_at"),
            "'scored_at' is missing",
        ),
    ],
)
def test_a_problem_is_named(rows: Any, complaint: str) -> None:
    with pytest.raises(StoreError, match=complaint):
        conform(CHECKPOINT_SCORES, key(), rows)


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("correct", ["3", "3"]),
        ("correct", [3.0, 3.0]),
        ("label", [1, 2]),
        ("scored_at", [1, 2]),
        ("total", [True, False]),
    ],
)
def test_arrow_columns_of_another_type_are_refused(column: str, values: list[Any]) -> None:
    table = pa.Table.from_pylist(ROWS)
    table = table.set_column(table.column_names.index(column), column, pa.array(values))
    with pytest.raises(StoreError, match=f"column '{column}' must be"):
        conform(CHECKPOINT_SCORES, key(), table)


def test_every_problem_is_reported_at_once() -> None:
    rows = without(changed(correct="x", label=None, extra=1), "total")
    with pytest.raises(StoreError) as caught:
        conform(CHECKPOINT_SCORES, key(), rows)
    text = str(caught.value)
    assert "4 problems" in text
    assert all(word in text for word in ("'total'", "'correct'", "'label'", "'extra'", "tables.py"))
