"""Marking stored answers: values worked out by hand, and errors kept apart from wrong answers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ml_pipeline.evaluation.mark import checkpoint_scores, degeneration, heuristic_scores, probe_results
from ml_pipeline.stores.rows import conform
from ml_pipeline.stores.tables import CHECKPOINT_SCORES, DEGENERATION, HEURISTIC_SCORES, PROBE_RESULTS
from ml_pipeline.suites.filters import FilterPipelines
from ml_pipeline_tests.evaluation.rows import CHECKPOINT, SUITE, response

ANSWERS = [
    response("sum", "The answer is 4."),
    response("product", "", finish_reason="error", error="the context is full"),
    response("opposite", "warm", finish_reason="length"),
    response("essay", "I feel joy."),
]


def test_an_error_is_unscored_and_a_cut_answer_is_marked_as_it_stands() -> None:
    rows = probe_results(SUITE, ANSWERS)
    assert [(row["probe_id"], row["passed"]) for row in rows] == [("sum", True), ("product", None), ("opposite", False)]
    assert "the context is full" in rows[1]["unscored_reason"]
    conform(PROBE_RESULTS, CHECKPOINT.key, rows)


def test_strict_and_flexible_readings_stand_beside_the_verdict() -> None:
    rows = probe_results(
        SUITE, [response("sum", "4 apples"), response("product", "#### 9"), response("opposite", "cold")]
    )
    assert [(row["passed"], row["strict_passed"], row["flexible_passed"]) for row in rows] == [
        (True, False, True),
        (True, True, True),
        (True, None, None),
    ]
    assert [row["flexible_extracted"] for row in rows] == ["4", "9", None]


def test_a_suite_with_filters_is_marked_by_the_flexible_ones() -> None:
    filters = FilterPipelines.of("strip_thinking after_hashes number", "strip_thinking first_number")
    rows = probe_results(replace(SUITE, filters=filters), [response("sum", "4 is less than 5, so: 5")])
    assert [(row["passed"], row["extracted"], row["strict_passed"]) for row in rows] == [(True, "4", False)]
    lost = [response("sum", "4", finish_reason="error", error="gone")]
    assert [(row["passed"], row["flexible_passed"]) for row in probe_results(SUITE, lost)] == [(None, None)]


def test_degeneration_is_counted_by_suite_over_finished_answers() -> None:
    rows = degeneration([*ANSWERS, response("sum", "", suite="other")])
    conform(DEGENERATION, CHECKPOINT.key, rows)
    shown = {(row["suite"], row["signal"]): (row["hits"], row["answers"], row["unscored"]) for row in rows}
    assert shown["short", "truncated"] == (1, 3, 1)
    assert shown["short", "empty"] == (0, 3, 1)
    assert shown["other", "empty"] == (1, 1, 0)


def test_answers_of_other_suites_are_left_alone() -> None:
    assert probe_results(SUITE, [response("sum", "4", suite="other")]) == []


def test_accuracy_counts_scored_probes_only() -> None:
    rows = checkpoint_scores(probe_results(SUITE, ANSWERS))
    conform(CHECKPOINT_SCORES, CHECKPOINT.key, rows)
    shown = {row["category"]: (row["correct"], row["total"], row["unscored"], row["accuracy"]) for row in rows}
    assert shown == {"overall": (1, 2, 1, 0.5), "arithmetic": (1, 1, 1, 1.0), "analogy": (0, 1, 0, 0.0)}
    # Wilson at 1 of 2 with z = 1.959964: centre 0.5, half width z * sqrt(1/8 + z²/16) / (1 + z²/2) = 0.40547
    assert (rows[0]["accuracy_low"], rows[0]["accuracy_high"]) == pytest.approx((0.09453, 0.90547), abs=1e-5)


def test_a_suite_with_nothing_scored_has_no_accuracy() -> None:
    rows = checkpoint_scores(probe_results(SUITE, ANSWERS[1:2]))
    assert [(row["category"], row["accuracy"], row["unscored"]) for row in rows] == [
        ("overall", None, 1),
        ("arithmetic", None, 1),
    ]
    assert checkpoint_scores([]) == []


def test_heuristic_figures_are_made_for_every_answer_but_a_broken_one() -> None:
    rows = heuristic_scores(ANSWERS)
    conform(HEURISTIC_SCORES, CHECKPOINT.key, rows)
    assert [row["lek"] is None for row in rows] == [False, True, False, False]
    # "I feel joy.": 2 register words and 1 first-person sentence: 2*2 + 1.5*1
    assert rows[3]["lek"] == 5.5
