from __future__ import annotations

import pyarrow as pa
import pytest

from ml_pipeline.errors import StoreError
from ml_pipeline.reports.scores import Scores
from ml_pipeline_tests.reports.sample_scores import Checkpoint, tables_of


def test_every_missing_column_of_every_table_is_named() -> None:
    tables = tables_of([Checkpoint("a", 1, {"p": True})])
    tables["responses"] = tables["responses"].drop_columns(["response", "run"])
    tables["judgements"] = tables["judgements"].drop_columns(["score"])
    with pytest.raises(StoreError) as caught:
        Scores.from_tables(tables)
    message = str(caught.value)
    assert "3 problems" in message
    for problem in ("responses: no column response", "responses: no column run", "judgements: no column score"):
        assert problem in message


def test_absent_tables_count_as_empty_and_others_are_ignored() -> None:
    scores = Scores.from_tables({"imports": pa.table({"x": [1]})})
    assert scores.is_empty
    assert list(scores.judgements.columns)[:2] == ["partition_key", "source"]


def test_unscored_stays_apart_from_failed() -> None:
    scores = Scores.from_tables(tables_of([Checkpoint("a", 1, {"p": True, "q": False, "r": None})]))
    assert scores.probe_results["passed"].tolist()[:2] == [True, False]
    assert scores.probe_results["passed"].isna().tolist() == [False, False, True]


def test_a_checkpoint_with_answers_only_is_not_forgotten() -> None:
    tables = tables_of([Checkpoint("a", 1, {"p": True})])
    scores = Scores.from_tables({"responses": tables["responses"]})
    assert scores.identities()["partition_key"].tolist() == ["mac.a@1"]
