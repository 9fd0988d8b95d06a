from __future__ import annotations

import pandas as pd

from ml_pipeline.reports.response_table import RESPONSE_COLUMNS, response_table
from ml_pipeline.reports.scores import Scores
from ml_pipeline_tests.reports.sample_scores import Checkpoint, scores_of, tables_of

CHECKPOINT = Checkpoint("lek/a", 10, {"a": True, "b": None}, judge={"a": 7.0}, lek={"b": 2.5})


def test_an_answer_stands_beside_its_mark() -> None:
    table = response_table(scores_of(CHECKPOINT))
    assert list(table.columns) == RESPONSE_COLUMNS
    right, unscored = table.to_dict("records")
    assert (right["prompt"], right["response"], right["passed"]) == ("Question a?", "The answer is right.", True)
    assert (right["judge"], right["label"], right["category"]) == (7.0, "T-lek/a @0000010", "logic")
    assert pd.isna(unscored["passed"])
    assert "timed out" in unscored["unscored_reason"]
    assert (unscored["lek"], pd.isna(unscored["judge"])) == (2.5, True)


def test_an_imported_answer_has_its_beginning() -> None:
    tables = tables_of([CHECKPOINT])
    imported = Scores.from_tables({name: rows for name, rows in tables.items() if name != "responses"})
    table = response_table(imported)
    assert list(table["response"]) == ["The answer is right.", ""]
    assert table["prompt"].isna().all()
    assert list(table["iteration"]) == [10, 10]


def test_nothing_gives_an_empty_table() -> None:
    assert list(response_table(Scores.from_tables({})).columns) == RESPONSE_COLUMNS
