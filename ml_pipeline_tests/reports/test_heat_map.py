from __future__ import annotations

from ml_pipeline.reports.heat_map import Cell, category_heat_map
from ml_pipeline.reports.runs import run_curves
from ml_pipeline_tests.reports.sample_scores import Checkpoint, sample_scores, scores_of


def test_figures_by_hand() -> None:
    categories = {"a": "math", "b": "math", "c": "logic"}
    (curve,) = run_curves(
        scores_of(
            Checkpoint("tiny", 0, {"a": True, "b": False, "c": None}, source="base", categories=categories),
            Checkpoint("r", 10, {"a": True, "b": True, "c": False}, categories=categories),
        )
    )
    found = category_heat_map(curve)
    assert found.columns == ("base", "10*")
    assert found.rows == (("math", (Cell(50, 5, 2), Cell(100, 10, 2))), ("logic", (None, Cell(0, 0, 1))))


def test_many_checkpoints_are_thinned_the_best_and_the_last_stay() -> None:
    curve = run_curves(sample_scores(80))[0]
    found = category_heat_map(curve)
    assert found.columns[0] == "base"
    assert f"{curve.best[0].iteration}*" in found.columns
    assert found.columns[-1].rstrip("*") == "8000"
    assert len(found.columns) <= 9
    assert {len(cells) for _, cells in found.rows} == {len(found.columns)}
