"""Figures over answers that are empty, looping, cut or word salad are marked wherever they are drawn."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from matplotlib.lines import Line2D
from rich.console import Console

import ml_pipeline
from ml_pipeline.evaluation.facts import soundness_facts
from ml_pipeline.evaluation.mark import degeneration
from ml_pipeline.reports.html_report import report_html
from ml_pipeline.reports.panels import accuracy_panel, judge_panel, metrics_panel
from ml_pipeline.reports.plots import panels_figure
from ml_pipeline.reports.report_view import sections
from ml_pipeline.reports.runs import run_curves
from ml_pipeline.reports.score_table import score_table
from ml_pipeline.reports.scores import Scores
from ml_pipeline.reports.terminal import score_table_view
from ml_pipeline.reports.wording import UNSOUND_NOTE
from ml_pipeline_tests.cli.lab import Lab, words
from ml_pipeline_tests.reports.sample_scores import Checkpoint, scores_of, tables_of

SALAD = "Answer: = Answer: = = Answer = = 4 = Answer: 4 = = 4 Answer = 4 = Answer"
PROBES = dict.fromkeys("abcdefgh", True)
LEK, JUDGE = dict.fromkeys(PROBES, 7.0), dict.fromkeys(PROBES, 10.0)


def checkpoint(iteration: int, bad: str = "", *, suite: str = "capability", cut: str = "") -> Checkpoint:
    """A checkpoint whose answers to these probes are word salad, or cut."""
    return Checkpoint(
        "lek/a" if iteration else "tiny",
        iteration,
        PROBES,
        source="mac" if iteration else "base",
        suite=suite,
        responses=dict.fromkeys(bad, SALAD),
        finish_reasons=dict.fromkeys(cut, "length"),
        lek=LEK,
        judge=JUDGE,
    )


SCORES = scores_of(checkpoint(0), checkpoint(100, "a"), checkpoint(200, "ab"), checkpoint(300, "a", cut="b"))


def on_terminal(scores: Scores, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(score_table_view(scores))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_quarter_of_the_answers_is_many() -> None:
    (curve,) = run_curves(SCORES)
    assert [(point.iteration, point.unsound, point.is_unsound) for point in curve.points] == [
        (100, 1 / 8, False),
        (200, 2 / 8, True),
        (300, 2 / 8, True),
    ]


def test_scores_from_before_it_was_counted_have_the_largest_share_of_one_sign() -> None:
    tables = tables_of([checkpoint(100, cut="abc"), checkpoint(0)])
    signals = tables["degeneration"]
    old = signals.filter([name not in ("unsound", "word_salad") for name in signals["signal"].to_pylist()])
    (curve,) = run_curves(Scores.from_tables({**tables, "degeneration": old}))
    assert curve.points[0].unsound == 3 / 8
    assert curve.base is not None
    assert curve.base.unsound == 0


def test_the_terminal_marks_judge_and_lek_and_says_what_that_means() -> None:
    text = on_terminal(SCORES)
    marked = [line for line in text.splitlines() if "†" in line and "10.0" in line]
    assert [line.split()[1 if line.startswith("*") else 0] for line in marked] == ["200", "300"]
    assert all(line.count("†") == 2 for line in marked)
    assert words(UNSOUND_NOTE) in words(text)
    assert "†" not in on_terminal(scores_of(checkpoint(0), checkpoint(100, "a")))


def test_the_report_marks_cells_and_curves() -> None:
    curves = run_curves(SCORES)
    (section,) = sections(SCORES, curves)
    at = [index for index, heading in enumerate(section.headings) if heading in ("judge: clarity", "judge: avg", "LEK")]
    assert len(at) == 2
    shown = {row.iteration: [row.cells[index] for index in at] for row in section.rows}
    assert shown["100"] == ["10.0", "7.0"]
    assert shown["200"] == shown["300"] == ["10.0†", "7.0†"]
    assert any("A square marks a figure over answers" in plot.caption for plot in section.plots)
    assert UNSOUND_NOTE in report_html(SCORES)


def test_panels_of_texts_alone_have_squares() -> None:
    (curve,) = run_curves(SCORES)
    lek, judge, accuracy = metrics_panel(curve, "LEK", {"lek": "LEK"}), judge_panel(curve), accuracy_panel(curve)
    assert lek is not None
    assert judge is not None
    assert accuracy is not None
    assert lek.unsound == ((200, 7.0), (300, 7.0))
    assert judge.unsound == ((200, 10.0), (300, 10.0))
    assert accuracy.unsound == ()
    assert "many answers unsound at 200, 300" in lek.spoken
    squares = [line for line in panels_figure([lek]).findobj(Line2D) if line.get_label() == "unsound"]
    assert [np.asarray(line.get_xdata()).tolist() for line in squares] == [[200, 300]]


def test_the_table_of_a_notebook_has_the_share_beside_such_figures() -> None:
    table = score_table(SCORES, by_category=False)
    of_200 = table[table["iteration"].eq(200)].set_index("metric")["unsound"]
    texts = {name for name in of_200.index if name in ("lek", "degeneration") or name.startswith("judge:")}
    assert len(texts) >= 3
    assert {of_200[name] for name in texts} == {0.25}
    assert of_200[[name for name in of_200.index if name not in texts]].isna().all()


def test_the_headline_of_a_suite_without_checks_says_so() -> None:
    scores = scores_of(*(checkpoint(iteration, bad, suite="content") for iteration, bad in ((0, ""), (100, "abc"))))
    (section,) = sections(scores, run_curves(scores))
    assert "But 38% of its answers are empty, looping, cut or word salad" in section.headline


@pytest.mark.parametrize(("bad", "note"), [("abc", "3 of 8 answers are empty, looping, cut or word salad"), ("a", "")])
def test_the_metadata_of_the_ui_says_so(bad: str, note: str) -> None:
    rows = tables_of([checkpoint(100, bad)])["responses"].to_pylist()
    facts = soundness_facts(degeneration(rows))
    assert facts["capability_unsound_answers"] == len(bad) / 8
    assert str(facts.get("capability_note", "")).startswith(note)
    assert ("capability_note" in facts) is bool(note)


def test_commands_mark_what_they_print(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = Lab(tmp_path, monkeypatch)
    lab.put(*(checkpoint(iteration, bad, suite="content") for iteration, bad in ((0, ""), (100, "abc"))))
    for command in (("top",), ("show", "a@100"), ("compare", "base", "a@100")):
        text = lab.shown(*command, width=100)
        assert "†" in text, command
        assert words(UNSOUND_NOTE) in words(text), command
    answers = lab.shown("show", "a@100", "--answers", width=100)
    assert "word salad, " in answers
    frame = ml_pipeline.load_scores("a@100", config=tmp_path / "pipeline.yaml")
    assert frame.loc[frame["metric"].eq("lek"), "unsound"].tolist()[0] == 3 / 8
