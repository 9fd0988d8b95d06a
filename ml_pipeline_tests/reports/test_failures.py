"""What failed is shown: in the table, the curves, the report and on the terminal, with its reason."""

from __future__ import annotations

import io
import math
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest
from matplotlib.lines import Line2D
from matplotlib.patches import Polygon
from rich.console import Console

from ml_pipeline.reports.failures import current_failures
from ml_pipeline.reports.html_report import report_html
from ml_pipeline.reports.panels import accuracy_panel, health_panels
from ml_pipeline.reports.plots import _unbroken, panels_figure
from ml_pipeline.reports.report_view import sections
from ml_pipeline.reports.runs import run_curves
from ml_pipeline.reports.scores import Scores
from ml_pipeline.reports.terminal import score_table_view
from ml_pipeline_tests.reports.sample_scores import SCORED_AT, Checkpoint, failed, scores_of

RIGHT = {probe: probe != "e" for probe in "abcdefgh"}
BASE = Checkpoint("tiny", 0, RIGHT, source="base")
FIRST, SECOND, LAST = (Checkpoint("lek/a", iteration, RIGHT) for iteration in (100, 200, 400))
WHY = "adapters-lek/a: layer 3 has rank 8\nbut the <b>configuration</b> says 16"


def on_terminal(scores: Scores) -> str:
    console = Console(file=io.StringIO(), width=100)
    console.print(score_table_view(scores))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize(("later_s", "is_shown"), [(60, True), (0, True), (-60, False)])
def test_a_failure_counts_until_the_checkpoint_has_later_scores(later_s: float, is_shown: bool) -> None:
    scores = scores_of(BASE, FIRST, failures=[failed("lek/a", 100, later_s=later_s)])
    assert bool(current_failures(scores)) is is_shown


def test_scores_of_another_checkpoint_do_not_hide_it() -> None:
    later = replace(FIRST, scored_at=SCORED_AT + timedelta(days=1))
    scores = scores_of(BASE, later, failures=[failed("lek/a", 300, "x"), failed("tiny", 0, "y", source="base")])
    assert [(one.name, one.words) for one in current_failures(scores)] == [("base/tiny", "y"), ("mac/lek/a @300", "x")]


def test_a_label_may_be_unknown() -> None:
    rows = [failed("lek/a", 300, label=None, base_model=None), failed("lek/a", 500)]
    assert [one.label for one in current_failures(scores_of(failures=rows))] == ["", "T-lek/a @0000500"]


def test_curves_have_a_gap_where_a_checkpoint_failed() -> None:
    (curve,) = run_curves(scores_of(BASE, FIRST, SECOND, LAST, failures=[failed("lek/a", 300)]))
    panel = accuracy_panel(curve)
    assert panel is not None
    assert panel.gaps == (300,)
    assert panel.lines[0].iterations == (100, 200, 300, 400)
    assert [math.isnan(value) for value in panel.lines[0].values] == [False, False, True, False]
    assert "no figure at 300" in panel.spoken
    assert "nan" not in panel.spoken
    assert [round(accuracy.value, 3) if accuracy else None for _, accuracy in curve.course] == [
        0.875,
        0.875,
        None,
        0.875,
    ]


def test_curves_have_a_gap_where_nothing_could_be_scored() -> None:
    unscored = Checkpoint("lek/a", 300, dict.fromkeys(RIGHT))
    (curve,) = run_curves(scores_of(BASE, FIRST, unscored, LAST))
    panel = accuracy_panel(curve)
    assert panel is not None
    assert panel.gaps == (300,)


def test_a_failure_with_older_scores_is_no_gap_but_marked() -> None:
    scores = scores_of(BASE, FIRST, SECOND, failures=[failed("lek/a", 200, WHY)])
    curves = run_curves(scores)
    panel = accuracy_panel(curves[0])
    assert panel is not None
    assert panel.gaps == ()
    (section,) = sections(scores, curves)
    assert [(row.iteration, "newest attempt failed" in row.mark) for row in section.rows] == [
        ("base", False),
        ("100", False),
        ("200", True),
    ]
    assert [(one.kind, one.count, one.iterations) for one in section.unscored[:1]] == [("whole checkpoint", 1, "200")]


def test_the_figure_draws_a_cross_for_each_gap_and_no_band_through_it() -> None:
    (curve,) = run_curves(scores_of(BASE, FIRST, SECOND, LAST, failures=[failed("lek/a", 300), failed("lek/a", 500)]))
    figure = panels_figure([accuracy_panel(curve), *health_panels(curve)])
    crosses = [line for line in figure.findobj(Line2D) if line.get_label() == "no figure"]
    assert {float(np.asarray(line.get_xdata())[0]) for line in crosses} == {300, 500}
    bands = figure.findobj(Polygon)
    assert {len(band.get_xy()) for band in bands} >= {3, 5}  # of one and of two checkpoints, and closed
    assert not any(np.isnan(band.get_xy()).any() for band in bands)


def test_unbroken_stretches() -> None:
    nan = math.nan
    assert _unbroken([nan, 1, 2, nan, nan, 3]) == [(1, 3), (5, 6)]
    assert _unbroken([1, 2]) == [(0, 2)]
    assert _unbroken([nan]) == []


def test_the_report_lists_what_failed_and_its_row() -> None:
    scores = scores_of(BASE, FIRST, LAST, failures=[failed("lek/a", 200, WHY), failed("other", 5, "no GGUF")])
    html = report_html(scores)
    assert "2 checkpoints failed at the newest attempt" in html
    assert "mac/other @5" in html
    assert "layer 3 has rank 8 but the &lt;b&gt;configuration&lt;/b&gt; says 16" in html
    assert "A cross marks a checkpoint that failed or has no figure." in html
    (section,) = sections(scores, run_curves(scores))
    shown = [(row.iteration, row.verdict.words if row.verdict else "") for row in section.rows]
    assert [words for iteration, words in shown if iteration == "200"] == ["failed"]
    assert [iteration for iteration, _ in shown] == ["base", "100", "200", "400"]
    assert "failed" not in report_html(scores_of(BASE, FIRST)).split("</style>")[1].replace("passed or failed", "")


def test_a_report_of_failures_alone_says_so() -> None:
    html = report_html(scores_of(failures=[failed("lek/a", 200, WHY)]))
    assert "1 checkpoint failed at the newest attempt" in html
    assert "No scores yet" in html


def test_the_terminal_shows_the_row_and_the_reason_once() -> None:
    other = replace(FIRST, suite="content", passed=RIGHT)
    text = on_terminal(scores_of(BASE, FIRST, LAST, other, failures=[failed("lek/a", 200, f"{WHY}\x1b[2J")]))
    assert text.count("mac/lek/a @200 failed: adapters-lek/a: layer 3 has rank 8") == 1
    assert "\x1b" not in text
    lines = [line for line in text.splitlines() if line.split()[:2] == ["✕", "200"]]
    assert lines
    assert "failed" in lines[0]


def test_many_failures_are_counted() -> None:
    rows = [failed("lek/a", iteration) for iteration in range(1000, 1030)]
    text = on_terminal(scores_of(BASE, FIRST, failures=rows))
    assert text.count(" failed: ") == 10
    assert "20 more failed; `ml-pipeline status` lists them" in text
