from __future__ import annotations

import io

import pytest
from rich.console import Console

from ml_pipeline.reports.scores import Scores
from ml_pipeline.reports.terminal import score_table_view
from ml_pipeline_tests.reports.sample_scores import Checkpoint, sample_scores, scores_of


def shown(scores: Scores, width: int = 80, encoding: str = "utf-8") -> str:
    target = io.BytesIO()
    stream = io.TextIOWrapper(target, encoding=encoding, write_through=True)
    Console(file=stream, width=width, no_color=True).print(score_table_view(scores))
    return target.getvalue().decode(encoding)


@pytest.mark.parametrize("width", [40, 60, 80, 200])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_fits_and_says_it_without_colour(width: int, encoding: str) -> None:
    text = shown(sample_scores(), width, encoding)
    assert max(map(len, text.splitlines())) <= width
    for word in ("mac/lek/improving", "better", "worse", "unclear", "Degenerates from iteration"):
        assert word in " ".join(text.split())
    assert "\x1b" not in text


def test_a_block_in_80_columns() -> None:
    scores = scores_of(
        Checkpoint("tiny", 0, dict.fromkeys("abcdefgh", False), source="base"),
        Checkpoint("r", 10, dict.fromkeys("abcdefgh", True), lek=dict.fromkeys("abcdefgh", 2.5)),
    )
    lines = shown(scores).splitlines()
    assert lines[0] == "mac/r [capability, base tiny]"
    assert lines[1].split()[:3] == ["iter", "accuracy", "95%"]
    assert lines[2].split()[:3] == ["base", "0%", "[0\u201332]"]
    assert lines[3].split() == [
        "*",
        "10",
        "100%",
        "[68\u2013100]",
        "········━━━┿",
        "+100",
        "\u2013",
        "2.5",
        "0%",
        "0",
        "better",
    ]


def test_long_runs_are_thinned_but_keep_best_and_trouble() -> None:
    text = shown(sample_scores(60))
    assert "46 of 60 checkpoints not shown" in text
    assert "\n    20 " in text
    assert len(text.splitlines()) <= 60


def test_markup_in_names_is_text() -> None:
    assert "mac/[red]x[/]" in shown(scores_of(Checkpoint("[red]x[/]", 10, {"a": True})))


def test_judged_suites_show_their_dimensions() -> None:
    scores = scores_of(Checkpoint("r", 10, {"a": False}, suite="content", judge={"a": 7.0}))
    text = shown(scores)
    assert "accuracy" not in text.split("accuracy with its")[0]
    assert "7.0" in text


def test_empty_input_says_what_to_do() -> None:
    assert "No scores yet." in shown(Scores.from_tables({}))
