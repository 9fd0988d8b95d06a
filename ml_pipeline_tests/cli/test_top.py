from __future__ import annotations

import io
from pathlib import Path

import pyarrow as pa
import pytest
from rich.console import Console

from ml_pipeline.cli.top_view import top_view
from ml_pipeline.reports.runs import run_curves
from ml_pipeline.reports.standings import rankings
from ml_pipeline.stores.tables import FAILURES
from ml_pipeline_tests.cli.lab import Lab, eight, fits, words
from ml_pipeline_tests.reports.sample_scores import Checkpoint, failed, sample_checkpoints, scores_of


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    return Lab(tmp_path, monkeypatch)


def test_the_best_of_every_run_in_80_columns(lab: Lab) -> None:
    lab.put(*sample_checkpoints(2))
    text = lab.shown("top")
    assert fits(text)
    lines = text.splitlines()
    assert lines[1].startswith("capability · base smollm2-135m ")
    assert lines[3].split()[:3] == ["1", "mac/lek/improving", "200"]
    assert "better" in lines[3]
    assert "mac/lek/too-hot degenerates at iteration 20" in words(text)


def test_the_best_of_a_run_has_the_interval_that_allows_for_the_choice_and_its_luck_beside_it(lab: Lab) -> None:
    lab.put(eight("a"), *(eight("abcdefgh"[index], "h", iteration=10 * index) for index in range(1, 7)))
    (row,) = lab.json("top")["rankings"][0]["checkpoints"][:1]
    low, high, luck = (f"{100 * row[name]:.0f}" for name in ("best_low", "best_high", "best_luck"))
    assert int(low) < round(100 * row["accuracy_low"])
    text = lab.shown("top")
    assert fits(text)
    assert f"25% [{low}\u2013{high}] {luck:>4} " in text.splitlines()[3]
    # Of one run every checkpoint has its own interval, and the sentence below that of the best.
    text = lab.shown("top", "--run", "lek/a")
    assert "luck" not in text.splitlines()[2]
    assert f"Best: iterations 10, 20, 30 and 3 more, equal, 25% [{low}\u2013{high}] of 8 probes right" in words(text)


def test_one_suite_shown_alone_says_what_is_said_of_it_beside_the_others(lab: Lab) -> None:
    # Six of six gained are 2 / 2**6 = 0.031: clear on one suite, but not on one of two.
    probes, suites = "abcdef", ("capability", "more")
    lab.put(
        *(Checkpoint("tiny", 0, dict.fromkeys(probes, False), source="base", suite=suite) for suite in suites),
        *(Checkpoint("lek/a", 10, dict.fromkeys(probes, True), suite=suite) for suite in suites),
    )
    together, alone = lab.json("top"), lab.json("top", "--suite", "capability")
    assert alone["rankings"] == [one for one in together["rankings"] if one["suite"] == "capability"]
    (row,) = alone["rankings"][0]["checkpoints"]
    assert (row["p_value"], row["p_adjusted"], row["verdict"]) == (2 / 2**6, 4 / 2**6, "no clear difference")


def test_ties_are_shown_as_ties(lab: Lab) -> None:
    lab.put(eight("a"), eight("a", "b", iteration=10), eight("a", "c", iteration=20))
    lab.put(eight("d", "e", run="lek/b", iteration=30))
    lines = lab.shown("top").splitlines()
    assert lines[3].split()[:4] == ["1=", "mac/lek/a", "10,", "20"]
    assert lines[4].split()[:3] == ["1=", "mac/lek/b", "30"]


def test_one_run_is_ranked_checkpoint_by_checkpoint(lab: Lab) -> None:
    every = "abcdefgh"
    lab.put(eight(), eight(*every, iteration=10), eight("a", iteration=20), eight(iteration=10, run="other"))
    text = lab.shown("top", "--run", "lek", "-n", "1")
    first = text.splitlines()[3].split()
    # 8 of 8 gained: the exact test gives 2 / 2**8, doubled for the second checkpoint.
    assert first[:2] == ["1", "10"]
    assert "+100" in first
    assert "0.016" in first
    assert "1 more; `-n 2` shows all" in text
    second = lab.shown("top", "--run", "lek/a").splitlines()[4]
    assert second.split()[:2] == ["2", "20"]
    assert "−88 ▼" in second  # noqa: RUF001 - a minus sign
    unknown = lab.run("top", "--run", "nothing")
    assert (unknown.exit_code, "no scored run is called 'nothing'" in unknown.output) == (2, True)


def test_a_suite_alone(lab: Lab) -> None:
    figures = dict.fromkeys("ab", 4.0)
    lab.put(
        eight("a"),
        eight("a", "b", iteration=10),
        Checkpoint("tiny", 0, {"a": False, "b": False}, source="base", suite="content", judge=figures),
        Checkpoint("lek/a", 10, {"a": False, "b": False}, suite="content", judge=dict.fromkeys("ab", 6.5)),
    )
    content = lab.shown("top", "--suite", "content")
    assert fits(content)
    assert "capability" not in content
    # Equal figures have no interval.
    assert "6.5   +2.5 " in content
    assert "[6.5" not in content
    assert "+2.5" in content
    missing = lab.run("top", "--suite", "contents")
    assert (missing.exit_code, "did you mean 'content'?" in missing.output) == (2, True)


def test_json(lab: Lab) -> None:
    lab.put(eight("a"), eight("a", "b", iteration=10))
    (ranking,) = lab.json("top")["rankings"]
    (row,) = ranking["checkpoints"]
    assert (row["place"], row["delta"], row["previous_delta"]) == (1, 1 / 8, None)


def test_names_move_no_cursor(lab: Lab) -> None:
    lab.put(eight("a", "b", iteration=10, run="lek\x1b[2J\u202e[red]"))
    text = lab.shown("top")
    assert fits(text)
    assert "[red]" in text


def test_without_a_database_it_says_what_to_do(lab: Lab) -> None:
    done = lab.run("top")
    assert done.exit_code == 1
    assert "Score a checkpoint first" in words(done.output)


def test_what_failed_is_listed_with_its_reason(lab: Lab) -> None:
    lab.put(eight(), eight("a", iteration=10), eight("b", iteration=10, run="lek/other"))
    rows = [failed("lek/a", 20, "rank 8, not [red]16"), failed("lek/none", 5, "no GGUF")]
    for row in rows:
        table = pa.Table.from_pylist([row], schema=FAILURES.schema)
        lab.store.write_partition(row["partition_key"], {FAILURES.name: table})
    text = lab.shown("top", width=100)
    assert "✕ mac/lek/a @20 failed: rank 8, not [red]16" in text
    assert "✕ mac/lek/none @5 failed: no GGUF" in text
    assert "failed" not in lab.shown("top", "--run", "lek/other")
    assert "no GGUF" not in lab.shown("top", "--run", "lek/a")
    assert "rank 8" in lab.shown("top", "--run", "lek/a")
    told = {one["partition_key"]: (one["stage"], one["reason"]) for one in lab.json("top")["failures"]}
    assert told == {row["partition_key"]: ("adapter", row["reason"]) for row in rows}


def test_a_terminal_without_unicode_gets_ascii(lab: Lab) -> None:
    every = "abcdefgh"
    curves = run_curves(scores_of(eight(), eight(*every, iteration=10), eight("a", iteration=20)))
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    console = Console(file=stream, width=80)
    console.print(top_view(rankings(curves, each_run=False), 10, console.options))
    stream.seek(0)
    text = stream.read()
    assert "-88 v" in text
    assert "?" not in text
