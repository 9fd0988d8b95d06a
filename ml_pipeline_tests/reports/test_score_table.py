from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from ml_pipeline.reports.score_table import SCORE_TABLE_COLUMNS, score_table
from ml_pipeline.reports.scores import Scores
from ml_pipeline_tests.reports.sample_scores import Checkpoint, sample_scores, scores_of

ONE = Checkpoint(
    "a",
    10,
    {"p": True, "q": False, "r": False, "s": None},
    categories={"p": "math", "q": "math", "r": "logic", "s": "logic"},
    finish_reasons={"q": "length"},
    tokens={"p": 10, "q": 20, "r": 30, "s": 999},
    judge={"p": 9.0, "q": 3.0, "r": None},
    lek={"p": 1.0, "q": 2.0, "r": 3.0},
)


def figure(scores: Scores, metric: str, category: str = "overall") -> dict[str, Any]:
    table = score_table(scores)
    rows = table[(table["metric"] == metric) & (table["category"] == category)]
    assert len(rows) == 1
    return dict(rows.iloc[0])


@pytest.mark.parametrize(
    ("metric", "category", "value", "low", "high", "count", "unscored"),
    [
        # Wilson of 1/3, 1/2, 1/4 and 0/3; Student's t of (1,2,3), (9,3) and (10,20,30).
        ("accuracy", "overall", 1 / 3, 0.0615, 0.7923, 3, 1),
        ("accuracy", "math", 1 / 2, 0.0945, 0.9055, 2, 0),
        ("unscored_share", "overall", 1 / 4, 0.0456, 0.6994, 4, 0),
        ("truncated_share", "overall", 1 / 3, 0.0615, 0.7923, 3, 1),
        ("truncated_share", "logic", 0, 0, 0.7935, 1, 1),
        ("lek", "overall", 2, -0.4841, 4.4841, 3, 1),
        ("judge:avg", "overall", 6, 6 - 12.706 * 3, 6 + 12.706 * 3, 2, 1),
        ("mean_completion_tokens", "overall", 20, -4.841, 44.841, 3, 0),
        ("degeneration", "overall", 0, 0, 0, 4, 0),
    ],
)
def test_figures_by_hand(
    metric: str, category: str, value: float, low: float, high: float, count: int, unscored: int
) -> None:
    found = figure(scores_of(ONE), metric, category)
    assert [found["value"], found["low"], found["high"]] == pytest.approx([value, low, high], abs=2e-3)
    assert (found["count"], found["unscored"]) == (count, unscored)


def test_one_answer_has_a_mean_but_no_interval() -> None:
    found = figure(scores_of(ONE), "lek", "logic")
    assert found["value"] == 3.0
    assert math.isnan(found["low"])
    assert math.isnan(found["high"])


def test_nothing_scored_is_empty_not_zero() -> None:
    scores = scores_of(Checkpoint("a", 10, {"p": None, "q": None}))
    accuracy = figure(scores, "accuracy")
    assert math.isnan(accuracy["value"])
    assert (accuracy["count"], accuracy["unscored"]) == (0, 2)
    assert figure(scores, "unscored_share")["value"] == 1.0


def test_rows_carry_identity_and_provenance() -> None:
    found = figure(scores_of(ONE), "accuracy")
    assert found["partition_key"] == "mac.a@10"
    assert (found["backend"], found["quantisation"], found["base_sha256"]) == ("llama_cpp", "Q8_0", "ab12" * 16)


def test_one_row_per_checkpoint_metric_and_category() -> None:
    table = score_table(sample_scores(3))
    assert list(table.columns) == SCORE_TABLE_COLUMNS
    assert not table.duplicated(["evaluation_id", "suite", "metric", "category"]).any()
    assert table[table["metric"] == "accuracy"].groupby("partition_key").size().tolist() == [17] * 7


def test_row_order_does_not_depend_on_the_order_of_the_input() -> None:
    other = replace(ONE, iteration=20)
    assert score_table(scores_of(ONE, other)).equals(score_table(scores_of(other, ONE)))


def test_empty_input_gives_an_empty_table() -> None:
    table = score_table(Scores.from_tables({}))
    assert table.empty
    assert list(table.columns) == SCORE_TABLE_COLUMNS


def test_without_categories_all_else_is_the_same() -> None:
    scores = sample_scores(2)
    full, short = score_table(scores), score_table(scores, by_category=False)
    kept = full[full["category"].eq("overall") | full["metric"].isin(["accuracy", "unscored_share"])]
    assert len(short) < len(full)
    assert short.equals(kept.reset_index(drop=True))
