"""One file of responses against another: figures worked out by hand."""

from __future__ import annotations

from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from ml_pipeline.errors import StoreError
from ml_pipeline.reports.response_files import FigureComparison, averages, compare_files, comparison_table
from ml_pipeline.scoring.means import mean_interval
from ml_pipeline.scoring.statistics import wilson_interval
from ml_pipeline_tests.responses.lab import Lab


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


def answers(passes: list[int], model: str = "m", first: int = 0, **fields: Any) -> list[Any]:
    """Responses of which these are right."""
    return [
        {"id": str(first + i), "model": model, "response": "4" if passed else "5", "correct_answer": 4} | fields
        for i, passed in enumerate(passes)
    ]


def figure(lab: Lab, dimension: str = "passed", old: str = "old", new: str = "new") -> FigureComparison:
    (compared,) = compare_files(lab.store.duckdb, old, new)
    (found,) = [one for one in compared.figures if one.dimension == dimension]
    return found


def test_prompts_that_both_have_are_paired(lab: Lab) -> None:
    lab.score("old", answers([1, 1, 0, 0, 0, 0, 1]))
    lab.score("new", answers([1, 0, 1, 1, 1, 0]) + answers([1], first=99))
    found = figure(lab)
    assert (found.paired, found.old, found.new) == (6, 2 / 6, 4 / 6)
    assert found.delta == pytest.approx(2 / 6)
    assert not found.clear


def test_a_prompt_answered_twice_counts_once_with_its_mean(lab: Lab) -> None:
    lab.score("old", answers([0, 0, 0]) + answers([1]))
    lab.score("new", answers([1, 0, 1]))
    found = figure(lab)
    assert found.paired == 3
    assert (found.old, found.new) == pytest.approx((0.5 / 3, 2 / 3))
    assert (found.low, found.high) == pytest.approx(mean_interval([0.5, 0, 1]))


def test_other_prompts_of_the_same_id_are_no_pairs(lab: Lab) -> None:
    lab.score("old", answers([0, 0, 0, 1], prompt="one"))
    lab.score("new", answers([1, 1, 0, 1], prompt="other"))
    found = figure(lab)
    assert (found.paired, found.old_count, found.new_count, found.delta) == (0, 4, 4, 0.5)
    # Welch: both variances are 1/4, so that the error is sqrt(1/8), with 6 degrees of freedom: t is 2.446912.
    assert (found.low, found.high) == pytest.approx((0.5 - 2.446912 * np.sqrt(1 / 8), 0.5 + 2.446912 * np.sqrt(1 / 8)))


def test_heuristic_figures_are_compared_by_their_means(lab: Lab) -> None:
    texts = ["plain words here", "I feel joy and love", "As an AI I cannot", "The light and shadow"]
    rows = [{"id": str(i), "response": text} for i, text in enumerate(texts)]
    lab.score("old", rows)
    lab.score("new", [row | {"response": "I feel joy and love"} for row in rows])
    found = figure(lab, "emotional_register")
    assert (found.old, found.new) == (0.75, 3.0)
    assert (found.low, found.high) == pytest.approx(mean_interval([3, 0, 3, 3]))


def test_models_that_both_have_are_compared_and_single_ones_whatever_their_name(lab: Lab) -> None:
    lab.score("old", answers([0], "m") + answers([1], "n"))
    lab.score("new", answers([1], "n") + answers([0], "k"))
    lab.score("single", answers([1], "other"))
    lab.score("one", answers([0], "base"))
    assert [(c.old_model, c.new_model) for c in compare_files(lab.store.duckdb, "old", "new")] == [("n", "n")]
    (compared,) = compare_files(lab.store.duckdb, "one", "single")
    assert (compared.old_model, compared.new_model) == ("base", "other")
    with pytest.raises(StoreError, match="no model in common: 'm', 'n'; 'other'"):
        compare_files(lab.store.duckdb, "old", "single")
    with pytest.raises(StoreError, match="'gone' is no scored file of responses; scored are 'new', 'old'"):
        compare_files(lab.store.duckdb, "gone", "old")


def test_a_real_difference_is_found_and_shown(lab: Lab) -> None:
    lab.score("old", answers([0] * 40 + [1] * 20))
    lab.score("new", answers([1] * 40 + [1] * 20))
    assert figure(lab).clear
    (compared,) = compare_files(lab.store.duckdb, "old", "new")
    console = Console(width=160, record=True, file=StringIO())
    console.print(comparison_table(compared))
    (line,) = [line for line in console.export_text().splitlines() if " passed " in line]
    for cell in ("exact", "0.333", "1.000", "+0.667", "60 pairs"):
        assert cell in line


def test_averages_have_intervals(lab: Lab) -> None:
    lab.score("old", answers([1, 1, 1, 0]))
    rows = {row["dimension"]: row for row in averages(lab.store.duckdb, "old", 100)}
    assert (rows["passed"]["mean"], rows["passed"]["scored"]) == (0.75, 4)
    assert (rows["passed"]["low"], rows["passed"]["high"]) == wilson_interval(3, 4)
    assert len(averages(lab.store.duckdb, "old", 2)) == 2
