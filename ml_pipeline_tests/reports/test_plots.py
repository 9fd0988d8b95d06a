from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from functools import lru_cache

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text

from ml_pipeline.reports import plots
from ml_pipeline.reports.intervals import Estimate
from ml_pipeline.reports.panels import Line, Panel, curve_panels, health_panels
from ml_pipeline.reports.render import to_png, to_svg
from ml_pipeline.reports.runs import RunCurve, run_curves
from ml_pipeline_tests.reports.sample_scores import Checkpoint, sample_scores, scores_of

Draw = Callable[[RunCurve], Figure]
FIGURES: list[Draw] = [
    plots.accuracy_figure,
    plots.judge_figure,
    lambda curve: plots.panels_figure(curve_panels(curve)),
    lambda curve: plots.panels_figure(health_panels(curve)),
]


@lru_cache
def sample_curve(checkpoints: int) -> RunCurve:
    return run_curves(sample_scores(checkpoints))[0]


@pytest.mark.parametrize("draw", FIGURES)
@pytest.mark.parametrize("checkpoints", [1, 80])
def test_svg_is_well_formed_and_the_same_each_time(draw: Draw, checkpoints: int) -> None:
    curve = sample_curve(checkpoints)
    first, second = (to_svg(draw(curve), "run-1", 'a "curve" & more') for _ in range(2))
    assert first == second
    root = ElementTree.fromstring(first)
    assert root.get("role") == "img"
    assert root.get("aria-label") == 'a "curve" & more'
    assert root.get("width") is None
    assert plots.INK not in first


@pytest.mark.parametrize("draw", FIGURES)
def test_a_run_without_any_figure_still_draws(draw: Draw) -> None:
    (curve,) = run_curves(scores_of(Checkpoint("r", 10, {"a": None})))
    assert to_png(draw(curve)).startswith(b"\x89PNG")


def test_the_curve_goes_through_the_accuracies_and_the_base_is_level() -> None:
    (curve,) = run_curves(
        scores_of(
            Checkpoint("tiny", 0, {"a": True, "b": False, "c": False, "d": False}, source="base"),
            Checkpoint("r", 10, {"a": True, "b": True, "c": False, "d": False}),
            Checkpoint("r", 20, {"a": True, "b": True, "c": True, "d": False}),
        )
    )
    lines = {str(line.get_label()): line for line in plots.accuracy_figure(curve).findobj(Line2D)}
    assert np.asarray(lines["accuracy"].get_xydata()).tolist() == [[10.0, 0.5], [20.0, 0.75]]
    assert np.asarray(lines["base"].get_ydata()).tolist() == [0.25, 0.25]
    assert np.asarray(lines["best"].get_xydata()).tolist() == [[20.0, 0.75]]


def test_the_scale_says_where_a_value_stands() -> None:
    # Half way between the labels of 40% and 60% lies 50%.
    panel = Panel("Share", (Line("share", (1, 2), (0.5, 1.0)),), limits=(0.0, 1.0), shares=True)
    figure = plots.panels_figure([panel])
    (line,) = (line for line in figure.findobj(Line2D) if line.get_label() == "share")
    drawn = line.get_transform().transform(line.get_xydata()) / figure.dpi
    heights = {text.get_text(): text.get_position()[1] for text in figure.findobj(Text)}
    assert drawn[0][1] == pytest.approx((heights["40%"] + heights["60%"]) / 2)
    assert drawn[1][1] == pytest.approx(heights["100%"])
    places = {text.get_text(): text.get_position()[0] for text in figure.findobj(Text)}
    assert [drawn[0][0], drawn[1][0]] == pytest.approx([places["1"], places["2"]])


@pytest.mark.parametrize(
    ("checkpoints", "losses", "ticks"),
    [
        ([100], [], [100]),
        ([100, 250, 400], [], [100, 250, 400]),
        ([100, 101, 400], [], [100, 200, 300, 400]),  # no room for 101
        ([100], [10, 50, 100], [20, 40, 60, 80, 100]),  # one label would not say how long the axis is
        ([80, 160], [1, 160], [80, 160]),
    ],
)
def test_the_axis_names_the_checkpoints_where_it_can(
    checkpoints: list[int], losses: list[int], ticks: list[int]
) -> None:
    panels = [Panel("p", (Line("l", tuple(at), tuple(1.0 for _ in at)),)) for at in (checkpoints, losses) if at]
    figure = plots.panels_figure(panels)
    below = [
        text
        for text in figure.findobj(Text)
        if text.get_verticalalignment() == "top" and text.get_text() != "iteration"
    ]
    assert [int(text.get_text()) for text in below] == ticks


def test_protocols_have_curves_of_their_own() -> None:
    first, second = run_curves(
        scores_of(Checkpoint("r", 10, {"a": True}), Checkpoint("r", 20, {"a": True}, protocol_id="protocol-2"))
    )
    assert [[point.iteration for point in curve.points] for curve in (first, second)] == [[10], [20]]


def test_words_are_escaped_and_never_read_as_mathematics() -> None:
    hostile = "$\\frac{<script>$"
    panel = Panel(hostile, (Line(hostile, (1, 2), (0.5, 1.0)), Line("other", (1, 2), (0.5, 1.0))))
    svg = to_svg(plots.panels_figure([panel]), "x", "<script>")
    assert "<script" not in svg
    texts = [element.text for element in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]
    assert texts.count(hostile) == 2


def test_panels_share_their_iterations() -> None:
    figure = plots.panels_figure(curve_panels(sample_curve(8)))
    assert [text.get_text() for text in figure.findobj(Text)].count("iteration") == 1
    lines = {str(line.get_label()): line for line in figure.findobj(Line2D)}
    first = {
        name: lines[name].get_transform().transform((100.0, 0.0))[0]
        for name in ("accuracy", "judge, average", "training loss")
    }
    assert len(set(first.values())) == 1


@pytest.mark.parametrize("name", ["judged", "validation loss", "sovereignty reasoning"])
def test_words_stay_within_the_figure_and_apart(name: str) -> None:
    lines = tuple(Line(name, (1, 2), (0.5, 1.0)) for _ in range(7))
    base = Estimate(0.7, 0.6, 0.8, 9)
    figure = plots.panels_figure([Panel("Judge", lines), Panel("Accuracy", lines[:1], base=base)])
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in figure.findobj(Text) if text.get_text()]
    for index, box in enumerate(boxes):
        assert 0 <= box.x0 < box.x1 <= figure.bbox.width
        assert 0 <= box.y0 < box.y1 <= figure.bbox.height
        assert not any(box.overlaps(other) for other in boxes[index + 1 :])


def test_drawing_leaves_matplotlib_settings_alone() -> None:
    before = dict(mpl.rcParams)
    to_svg(plots.accuracy_figure(sample_curve(1)), "x", "y")
    assert dict(mpl.rcParams) == before
