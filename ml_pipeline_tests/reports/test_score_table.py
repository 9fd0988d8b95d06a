from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest

from ml_pipeline.reports.score_table import SCORE_TABLE_COLUMNS, score_table
from ml_pipeline.reports.scores import Scores
from ml_pipeline.scoring.means import wilson_interval
from ml_pipeline_tests.reports.sample_scores import Checkpoint, sample_scores, scores_of, tables_of

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
        # Wilson of 1/3, 1/2, 1/4 and 0/3; Student's t of (1,2,3), (9,3) and (10,20,30), widened by 1.8, 2 and 1.8.
        ("accuracy", "overall", 1 / 3, 0.0615, 0.7923, 3, 1),
        ("accuracy", "math", 1 / 2, 0.0945, 0.9055, 2, 0),
        ("unscored_share", "overall", 1 / 4, 0.0456, 0.6994, 4, 0),
        ("truncated_share", "overall", 1 / 3, 0.0615, 0.7923, 3, 1),
        ("truncated_share", "logic", 0, 0, 0.7935, 1, 1),
        ("lek", "overall", 2, 2 - 2.4841 * 1.8, 2 + 2.4841 * 1.8, 3, 1),
        ("judge:avg", "overall", 6, 6 - 12.706 * 3 * 2, 6 + 12.706 * 3 * 2, 2, 1),
        ("mean_completion_tokens", "overall", 20, 20 - 24.841 * 1.8, 20 + 24.841 * 1.8, 3, 0),
        ("degeneration", "overall", 0, math.nan, math.nan, 4, 0),
    ],
)
def test_figures_by_hand(
    metric: str, category: str, value: float, low: float, high: float, count: int, unscored: int
) -> None:
    found = figure(scores_of(ONE), metric, category)
    assert [found["value"], found["low"], found["high"]] == pytest.approx([value, low, high], abs=2e-3, nan_ok=True)
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


def test_unscored_shares_allow_for_repeated_answers_and_templates() -> None:
    tables = tables_of([ONE])
    five = {name: pa.concat_tables([tables[name]] * 5) for name in ("responses", "probe_results")}
    found = figure(Scores.from_tables({**tables, **five}), "unscored_share")
    # One probe of four has no score, in none of its five answers: as good as one of four.
    assert (found["value"], found["count"]) == (0.25, 20)
    assert [found["low"], found["high"]] == pytest.approx(wilson_interval(1, 4), abs=1e-6)
    responses = tables["responses"].to_pandas().assign(template="t")
    made = pa.Table.from_pandas(responses, schema=tables["responses"].schema, preserve_index=False)
    together = figure(Scores.from_tables({**tables, "responses": made}), "unscored_share")
    # All are of one template: one answer, a quarter of which has no score.
    assert [together["low"], together["high"]] == pytest.approx(wilson_interval(0.25, 1), abs=1e-6)


def test_unscored_share_of_what_was_only_counted() -> None:
    tables = tables_of([ONE])
    counted = {name: table.slice(0, 0) for name, table in tables.items() if name != "checkpoint_scores"}
    found = figure(Scores.from_tables({**tables, **counted}), "unscored_share")
    assert [found["low"], found["high"]] == pytest.approx(wilson_interval(1, 4))


def test_without_categories_all_else_is_the_same() -> None:
    scores = sample_scores(2)
    full, short = score_table(scores), score_table(scores, by_category=False)
    kept = full[full["category"].eq("overall") | full["metric"].eq("accuracy")]
    assert len(short) < len(full)
    assert short.equals(kept.reset_index(drop=True))
