from __future__ import annotations

import math

import pytest

from ml_pipeline.reports.judge_scale import judge_scales
from ml_pipeline.reports.panels import Panel, curve_panels, health_panels, judge_panel, loss_panel, trouble_panel
from ml_pipeline.reports.runs import RunCurve, run_curves
from ml_pipeline_tests.reports.sample_scores import Checkpoint, losses_of, sample_scores, scores_of


def curve_of(*checkpoints: Checkpoint, losses: dict[int, float | None] | None = None) -> RunCurve:
    (curve,) = run_curves(scores_of(*checkpoints, losses=losses_of("r", losses or {})))
    return curve


def titles(panels: list[Panel]) -> list[str]:
    return [panel.title for panel in panels]


def test_losses_stand_beneath_accuracy_and_judge() -> None:
    curve = curve_of(Checkpoint("r", 10, {"a": True}, judge={"a": 7.0}, lek={"a": 1.0}), losses={10: 2.0})
    assert titles(curve_panels(curve)) == ["Accuracy", "Judge (average)", "Loss"]
    assert titles(health_panels(curve)) == ["LEK", "Signs of trouble"]


def test_panels_without_figures_are_left_out() -> None:
    curve = curve_of(Checkpoint("r", 10, {"a": None}))
    assert titles(curve_panels(curve)) == []
    assert titles(health_panels(curve)) == ["Signs of trouble"]


def test_a_diverged_loss_breaks_the_line() -> None:
    panel = loss_panel(curve_of(Checkpoint("r", 10, {"a": True}), losses={10: 2.0, 20: None, 30: 1.5}))
    assert panel is not None
    (line,) = panel.lines
    assert line.iterations == (10, 20, 30)
    assert [value if value == value else None for value in line.values] == [2.0, None, 1.5]


def test_a_long_log_is_thinned_and_keeps_its_ends() -> None:
    panel = loss_panel(curve_of(Checkpoint("r", 10, {"a": True}), losses=dict.fromkeys(range(1, 5001), 1.0)))
    assert panel is not None
    at = panel.lines[0].iterations
    assert (at[0], at[-1]) == (1, 5000)
    assert len(at) <= 400


def test_a_judges_band_stays_within_the_scale_of_the_rubric() -> None:
    # Student's t on two figures, 9 and 3, reaches from -32 to 44.
    panel = judge_panel(curve_of(Checkpoint("r", 10, {"a": True, "b": True}, judge={"a": 9.0, "b": 3.0})))
    assert panel is not None
    assert panel.limits == (0.0, 10.0)
    assert (panel.lines[0].low, panel.lines[0].values, panel.lines[0].high) == ((0.0,), (6.0,), (10.0,))


@pytest.mark.parametrize(
    ("rubrics", "scale"),
    [
        (["capability 1.0"], (0.0, 10.0)),
        (["toxigen 1.0"], (1.0, 10.0)),
        (["toxigen 1.0", "capability 1.0"], (0.0, 10.0)),
        (["capability 0.1"], (2.0, 6.0)),  # not a version that is known
        (["my own 1.0"], (2.0, 6.0)),
        (["capability 1.0", "my own 1.0"], (2.0, 6.0)),
        ([None], (2.0, 6.0)),  # imported
    ],
)
def test_the_scale_is_the_rubrics_or_that_of_the_figures(rubrics: list[str | None], scale: tuple[float, float]) -> None:
    scores = scores_of(Checkpoint("r", 10, {"a": True, "b": True, "c": True}, judge={"a": 2.0, "b": 6.0, "c": None}))
    rows = scores.judgements.astype({"rubric": "object"})
    rows["rubric"] = [rubrics[0], rubrics[-1], rubrics[0]]
    assert judge_scales(rows) == {"capability": scale}


def test_the_best_is_marked_and_the_base_is_told() -> None:
    base = Checkpoint("tiny", 0, {"a": True, "b": False, "c": False, "d": False}, source="base")
    better = Checkpoint("r", 20, {"a": True, "b": True, "c": True, "d": False})
    panel = curve_panels(curve_of(base, Checkpoint("r", 10, {"a": True, "b": True, "c": False, "d": False}), better))[0]
    assert panel.best == ((20, 0.75),)
    assert panel.base is not None
    assert panel.base.value == 0.25
    assert panel.spoken == "Accuracy: base 25%, iteration 10 50%, iteration 20 75%"


def test_only_signs_that_occur_are_lines_and_truncation_always() -> None:
    looping = "the sun the sun. " * 60
    clean = trouble_panel(curve_of(Checkpoint("r", 10, {"a": True})))
    broken = trouble_panel(curve_of(Checkpoint("r", 10, {"a": True}, responses={"a": looping})))
    assert clean is not None
    assert broken is not None
    assert [line.name for line in clean.lines] == ["truncated", "unscored"]
    assert {line.name for line in broken.lines} == {"truncated", "repetitive", "looping", "unscored"}
    assert not any(line.low for line in broken.lines), "bands of many lines cannot be told apart"


def test_every_line_has_a_value_for_each_iteration() -> None:
    for curve in run_curves(sample_scores(8)):
        for panel in (*curve_panels(curve), *health_panels(curve)):
            for line in panel.lines:
                assert len(line.iterations) == len(line.values)
                assert len(line.low) == len(line.high) in (0, len(line.values))
                assert all(math.isnan(value) or math.isfinite(value) for value in line.values)
