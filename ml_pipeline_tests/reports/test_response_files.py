"""One file of responses against another: figures worked out by hand."""

from __future__ import annotations

from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from ml_pipeline.errors import StoreError
from ml_pipeline.reports.response_files import (
    FigureComparison,
    ModelComparison,
    averages,
    compare_files,
    comparison_table,
)
from ml_pipeline.scoring.means import mean_interval, wilson_interval
from ml_pipeline.scoring.paired import differences_interval
from ml_pipeline.scoring.student import t_quantile
from ml_pipeline_tests.responses.lab import Lab

TEXTS = ["plain words here", "I feel joy and love", "As an AI I cannot", "The light and shadow"]


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


def answers(passes: list[int], model: str = "m", first: int = 0, **fields: Any) -> list[Any]:
    """Responses of which these are right."""
    return [
        {"id": str(first + i), "model": model, "response": "4" if passed else "5", "correct_answer": 4} | fields
        for i, passed in enumerate(passes)
    ]


def compared(lab: Lab, old: str = "old", new: str = "new") -> ModelComparison:
    (one,) = compare_files(lab.store.duckdb, old, new)
    return one


def figure(lab: Lab, dimension: str = "passed", old: str = "old", new: str = "new") -> FigureComparison:
    (found,) = [one for one in compared(lab, old, new).figures if one.dimension == dimension]
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
    # In halves the differences are 1, 0 and 2.
    wanted = differences_interval([1, 0, 2], 2, confidence=compared(lab).confidence)
    assert (found.low, found.high) == pytest.approx(wanted)


def test_other_prompts_of_the_same_id_are_no_pairs(lab: Lab) -> None:
    lab.score("old", answers([0, 0, 0, 1], prompt="one"))
    lab.score("new", answers([1, 1, 0, 1], prompt="other"))
    found = figure(lab)
    assert (found.paired, found.old_count, found.new_count, found.delta) == (0, 4, 4, 0.5)
    # Agresti and Caffo: 2 of 6 and 4 of 6, so that the error is sqrt(2 * 2 / 9 / 6), with 6 degrees of freedom.
    margin = t_quantile(6, compared(lab).confidence) * np.sqrt(2 / 27)
    assert (found.low, found.high) == pytest.approx((1 / 3 - margin, min(1, 1 / 3 + margin)))


def test_figures_of_other_prompts_have_welchs_interval(lab: Lab) -> None:
    lab.score("old", [{"id": str(i), "prompt": "one", "response": text} for i, text in enumerate(TEXTS)])
    lab.score("new", [{"id": str(i), "prompt": "other", "response": "I feel joy and love"} for i in range(4)])
    found = figure(lab, "emotional_register")
    # 0, 3, 0, 0 against four times 3: the error is that of the first alone, 1.5 / 2, with 3 degrees of freedom.
    margin = t_quantile(3, compared(lab).confidence) * (1 + 4 / 6) * 0.75
    assert (found.paired, found.delta) == (0, 2.25)
    assert (found.low, found.high) == pytest.approx((2.25 - margin, 2.25 + margin))


def test_figures_without_spread_have_no_interval(lab: Lab) -> None:
    lab.score("old", [{"id": str(i), "prompt": "one", "response": "plain words here"} for i in range(2)])
    lab.score("new", [{"id": str(i), "prompt": "other", "response": "I feel joy and love"} for i in range(2)])
    found = figure(lab, "emotional_register")
    assert (found.old, found.new, found.low, found.high, found.clear) == (0, 3, None, None, False)
    lab.score("wrong", answers([0, 0], prompt="one"))
    lab.score("right", answers([1, 1], prompt="other"))
    passed = figure(lab, "passed", "wrong", "right")
    # As likely as one in eight of two models that are right every other time.
    assert passed.delta == 1
    assert passed.low is not None
    assert passed.high is not None
    assert -1 <= passed.low < 0 < passed.high <= 1
    assert not passed.clear


def test_prompts_answered_often_do_not_count_as_many(lab: Lab) -> None:
    lab.score("old", answers([1, 0, 1], prompt="one") * 10)
    lab.score("new", answers([0, 1, 0], prompt="other") * 10)
    found = figure(lab)
    assert (found.paired, found.old_count, found.new_count) == (0, 30, 30)
    assert not found.clear
    rows = {row["dimension"]: row for row in averages(lab.store.duckdb, "old", 100)}
    assert (rows["passed"]["low"], rows["passed"]["high"]) == pytest.approx(wilson_interval(2, 3), abs=1e-6)


def test_the_interval_allows_for_all_figures(lab: Lab) -> None:
    # Nine gained and one lost: p = 22 / 2^10 = 0.021, which three figures (as read, strictly and flexibly) allow for.
    lab.score("old", answers([0] * 9 + [1]))
    lab.score("new", answers([1] * 9 + [0]))
    one = compared(lab)
    assert one.looked_at == sum(found.low is not None for found in one.figures) > 1
    assert one.confidence == pytest.approx(1 - 0.05 / one.looked_at)
    assert not figure(lab).clear
    assert figure(lab).low is not None
    assert differences_interval([1] * 9 + [-1], 1)[0] > 0


def test_heuristic_figures_are_compared_by_their_means(lab: Lab) -> None:
    rows = [{"id": str(i), "response": text} for i, text in enumerate(TEXTS)]
    lab.score("old", rows)
    lab.score("new", [row | {"response": "I feel joy and love"} for row in rows])
    found = figure(lab, "emotional_register")
    assert (found.old, found.new) == (0.75, 3.0)
    assert (found.low, found.high) == pytest.approx(mean_interval([3, 0, 3, 3], confidence=compared(lab).confidence))


def test_models_that_both_have_are_compared_and_single_ones_whatever_their_name(lab: Lab) -> None:
    lab.score("old", answers([0], "m") + answers([1], "n"))
    lab.score("new", answers([1], "n") + answers([0], "k"))
    lab.score("single", answers([1], "other"))
    lab.score("one", answers([0], "base"))
    assert [(c.old_model, c.new_model) for c in compare_files(lab.store.duckdb, "old", "new")] == [("n", "n")]
    one = compared(lab, "one", "single")
    assert (one.old_model, one.new_model) == ("base", "other")
    with pytest.raises(StoreError, match="no model in common: 'm', 'n'; 'other'"):
        compare_files(lab.store.duckdb, "old", "single")
    with pytest.raises(StoreError, match="'gone' is no scored file of responses; scored are 'new', 'old'"):
        compare_files(lab.store.duckdb, "gone", "old")


def test_a_real_difference_is_found_and_shown(lab: Lab) -> None:
    lab.score("old", answers([0] * 40 + [1] * 20))
    lab.score("new", answers([1] * 40 + [1] * 20))
    assert figure(lab).clear
    console = Console(width=160, record=True, file=StringIO())
    console.print(comparison_table(compared(lab)))
    (line,) = [line for line in console.export_text().splitlines() if " passed " in line]
    for cell in ("exact", "0.333", "1.000", "+0.667", "60 pairs"):
        assert cell in line


def test_averages_have_intervals(lab: Lab) -> None:
    lab.score("old", answers([1, 1, 1, 0]))
    rows = {row["dimension"]: row for row in averages(lab.store.duckdb, "old", 100)}
    assert (rows["passed"]["mean"], rows["passed"]["scored"]) == (0.75, 4)
    assert (rows["passed"]["low"], rows["passed"]["high"]) == wilson_interval(3, 4)
    assert len(averages(lab.store.duckdb, "old", 2)) == 2
