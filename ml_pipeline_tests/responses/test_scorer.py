"""Files of responses scored into real stores: figures worked out by hand, hostile files, and memory that stays."""

from __future__ import annotations

import os
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ml_pipeline.errors import ResponseFileError, StoreError
from ml_pipeline.responses import scoring
from ml_pipeline.scoring.heuristic import score_heuristic
from ml_pipeline.stores.duckdb import DuckDBStore
from ml_pipeline.stores.response_tables import RESPONSE_SCORES, RESPONSE_TABLES
from ml_pipeline.suites.data_kinds import KINDS
from ml_pipeline.suites.filters import FilterPipelines
from ml_pipeline.suites.suite import Probe
from ml_pipeline_tests.evaluation.rows import SUITE
from ml_pipeline_tests.responses.lab import Lab
from ml_pipeline_tests.suites.data_sets import load_data, write_jsonl

Row = dict[str, Any]


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path, [SUITE])


def response(number: int, text: str = "The answer is 4.", **fields: Any) -> Row:
    return {"id": f"p{number}", "model": "m", "response": text} | fields


def test_every_response_has_its_heuristic_figures(lab: Lab) -> None:
    texts = ["As an AI I cannot feel joy.", "", "The light. The light.", "ERROR: no", "a\0b \N{GRINNING FACE}" * 9]
    scored = lab.score("a", [response(i, text) for i, text in enumerate(texts)])
    assert (scored.responses, scored.bad_lines) == (5, 0)
    rows = lab.rows("response_scores")
    for row, text in zip(rows, texts, strict=True):
        figures = score_heuristic(text)
        assert {name: row[name] for name in figures.__dataclass_fields__} == {
            name: getattr(figures, name) for name in figures.__dataclass_fields__
        }
        assert (row["passed"], row["unscored_reason"], row["suite"]) == (None, None, None)


@pytest.mark.parametrize(
    ("expected", "text", "passed", "extracted"),
    [
        ("42", "It was 7, so #### 42", True, "42"),
        ("Seven and more: 1 + 41 = 42.\n#### 42", "so 42 it is", True, "42"),
        (42, "the answer is $42.005 in all", True, None),
        (42, "41", False, "41"),
        ("1,250", "**1250**", True, "1250"),
        ("50%", "It is 50%.", True, None),
        ("B", "The answer is (B).", True, "B"),
        ("B", "C", False, "C"),
        ("(B)", "B is wrong, so the answer is A.", False, "A"),
        (1e20, "The answer is 100000000000000000000.", True, None),
        (1e-05, "It is 0.00001", True, "0.00001"),
        (1e-05, "It is 1e-05", True, "0.00001"),
        (1e20, "#### 10^20", True, None),
        (18.0, "The answer is 18.", True, "18"),
        (-5, "The answer is minus 5.", True, "-5"),
        (1500000, "In all $1.5 million", True, "1.5 million"),
        (1.5, "In all $1.5 million", True, "1.5 million"),
        (60, "It sold 60% of them.", True, "60%"),
        (0.6, "It sold 60% of them.", True, "60%"),
        ("18", "#### 18\n\nQuestion: Tom has 7 pens. How many?\nAnswer: #### 7", True, "18"),
        ("B", "The answer is b.", True, "b"),
        ("yes", "No, it is not.", False, "no"),
        ("yes", "It is not true.", False, "no"),
        ("Paris", "The capital is Paris.", True, "Paris"),
        ("Paris", "The capital is Rome.", False, None),
    ],
)
def test_an_expected_answer_is_looked_for(
    lab: Lab, expected: Any, text: str, passed: bool, extracted: str | None
) -> None:
    lab.score("a", [response(1, text, correct_answer=expected)])
    (row,) = lab.rows("response_scores")
    assert (row["passed"], row["suite"], row["unscored_reason"]) == (passed, "exact", None)
    if extracted is not None or not passed:
        assert row["extracted"] == extracted


@pytest.mark.parametrize(
    ("fields", "passed", "suite", "reason"),
    [
        ({"id": "sum", "suite": "short"}, True, "short", None),
        ({"id": "sum", "suite": "short", "prompt": "2 + 2?"}, True, "short", None),
        ({"id": "sum", "prompt": " 2 + 2?\n"}, True, "short", None),
        ({"id": "product", "prompt": "3 * 3?"}, False, "short", None),
        ({"id": "other", "prompt": "2 + 2?"}, True, "short", None),
        ({"id": "other", "prompt": "2 + 2?", "suite": "short"}, True, "short", None),
        ({"id": "other", "prompt": "2 + 2?", "suite": "other"}, None, "other", None),
        ({"id": "product", "prompt": "2 + 2?", "suite": "short"}, None, "short", "not that of probe 'product'"),
        ({"id": "sum"}, None, None, None),
        ({"id": "sum", "prompt": "3 + 3?"}, None, None, None),
        ({"id": "sum", "suite": "short", "prompt": "3 + 3?"}, None, "short", "the prompt is not that of probe 'sum'"),
        ({"id": "some", "suite": "short"}, None, "short", "suite 'short' has no probe 'some'"),
        ({"id": "essay", "suite": "short"}, None, "short", None),
        ({"suite": "other"}, None, "other", None),
        ({"suite": "other", "correct_answer": 4}, True, "other", None),
        ({"correct_answer": "a\nb"}, None, "exact", "correct_answer is no number, and no text of one line"),
        ({"best_answer": "b"}, None, "truthfulqa", None),
        ({"risk_area": "r"}, None, "do_not_answer", None),
        ({"domain": "ToxiGen"}, None, "toxigen", None),
        ({"correct_answer": 4, "error": "time-out"}, None, "exact", "the answer ended with an error: time-out"),
        ({"id": "sum", "suite": "short", "error": "time-out"}, None, "short", "ended with an error: time-out"),
    ],
)
def test_which_suite_applies(lab: Lab, fields: Row, passed: bool | None, suite: str | None, reason: str | None) -> None:
    lab.score("a", [response(1) | fields])
    (row,) = lab.rows("response_scores")
    assert (row["passed"], row["suite"]) == (passed, suite)
    assert (reason in row["unscored_reason"]) if reason else row["unscored_reason"] is None
    assert (row["lek"] is None) == ("error" in fields)


def test_a_data_set_marks_its_answers_whatever_their_ids(lab: Lab) -> None:
    rows = [{"question": f"What is {n} and {n}?", "answer": f"It is {2 * n}.\n#### {2 * n}"} for n in (2, 3)]
    lab.suites = [load_data(lab.root, f"file: {write_jsonl(lab.root / 'd.jsonl', rows)}, kind: gsm8k")]
    four, six = (f"{row['question']}\n\n{KINDS['gsm8k'].instruction}" for row in rows)
    lab.score("a", [response(4, "So be it.\n#### 4", prompt=four), response(7, "#### 7", prompt=six)])
    found = lab.rows("response_scores", "prompt_id, suite, passed, expected, extracted")
    assert [tuple(row.values()) for row in found] == [("p4", "mine", True, "4", "4"), ("p7", "mine", False, "6", "7")]


def test_choices_that_a_model_scores_are_no_written_answers(lab: Lab) -> None:
    check = {"type": "log_likelihood", "choices": ["A", "B"], "answer": 1}
    lab.suites = [replace(SUITE, probes=(Probe("letter", "arithmetic", "A. 3\nB. 4\nAnswer:", check=check),))]
    known = {"id": "letter", "suite": "short", "response": "B"}
    lab.score("a", [response(1) | known, response(2) | known | {"correct_answer": "B"}])
    untold, told = lab.rows("response_scores")
    assert (untold["passed"], untold["suite"]) == (None, "short")
    assert "log-likelihood, which no written answer has" in untold["unscored_reason"]
    assert (told["passed"], told["suite"], told["extracted"]) == (True, "short", "B")


def test_a_suites_filters_read_its_responses(lab: Lab) -> None:
    lab.suites = [replace(SUITE, filters=FilterPipelines.of("number", "last_number"))]
    lab.score("a", [response(1, "2 and 2 make 4") | {"id": "sum", "suite": "short"}])
    (row,) = lab.rows("response_scores")
    assert (row["passed"], row["strict_passed"], row["flexible_passed"]) == (True, False, True)


def test_averages_count_what_has_a_figure(lab: Lab) -> None:
    rows = [response(i, "4" if i < 3 else "5", correct_answer=4) for i in range(4)]
    lab.score("a", [*rows, response(5, correct_answer=4, error="x"), response(6, model="other"), "junk"])
    found = lab.rows("response_averages", "model, suite, mean, scored, unscored", "dimension = 'passed'")
    assert found == [{"model": "m", "suite": "exact", "mean": 0.75, "scored": 4, "unscored": 1}]
    broken = lab.rows("response_averages", "model, suite, scored, unscored", "dimension = 'empty_broken'")
    assert broken == [
        {"model": "m", "suite": "exact", "scored": 4, "unscored": 1},
        {"model": "other", "suite": None, "scored": 1, "unscored": 0},
    ]
    (file,) = lab.rows("response_files", "responses, bad_lines, problems")
    assert (file["responses"], file["bad_lines"]) == (6, 1)
    assert file["problems"].startswith("a.jsonl:7: not JSON")


def test_a_changed_file_is_a_new_version_and_the_old_scores_are_kept(lab: Lab) -> None:
    first = lab.score("a", [response(1), response(1)])
    assert lab.scorer.score("a").receipt.superseded is None
    second = lab.score("a", [response(1)])
    assert second.receipt.superseded is not None
    assert first.receipt.evaluation_ids != second.receipt.evaluation_ids
    (kept,) = lab.store.parquet.superseded(RESPONSE_SCORES, "a")
    assert kept.place == second.receipt.superseded
    assert len(lab.rows("response_scores")) == 1
    lab.suites = []
    assert lab.scorer.score("a").receipt.superseded is not None


@pytest.mark.parametrize(
    ("lines", "told"),
    [([], "holds no response, and 0 bad lines"), (["junk", "{"], "a.jsonl:2: not JSON"), (["\0" * 99], "a.jsonl:1")],
)
def test_a_file_without_a_response_fails_and_what_was_scored_stays(lab: Lab, lines: list[str], told: str) -> None:
    lab.score("a", [response(1)])
    with pytest.raises(ResponseFileError, match="Each line must be a JSON object") as caught:
        lab.score("a", lines)
    assert told in str(caught.value)
    assert len(lab.rows("response_scores")) == 1
    assert not list(Path(lab.settings.parquet_path).rglob("*.tmp"))


def test_a_file_that_is_written_while_it_is_read_is_not_stored(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    path = lab.put("a", [response(i) for i in range(50)])
    score = scoring.score_responses

    def slowly(*arguments: Any) -> Any:
        with path.open("a") as file:
            file.write("more\n")
        return score(*arguments)

    monkeypatch.setattr("ml_pipeline.responses.scorer.score_responses", slowly)
    monkeypatch.setattr(scoring, "_BATCH_RESPONSES", 10)
    with pytest.raises(ResponseFileError, match="was written while it was read"):
        lab.scorer.score("a")
    with pytest.raises(StoreError):
        lab.rows("response_scores")


def test_a_missing_file_and_a_link_are_refused(lab: Lab) -> None:
    with pytest.raises(ResponseFileError, match=r"gone\.jsonl cannot be read"):
        lab.scorer.score("gone")
    os.link(lab.put("a", [response(1)]), lab.root / "elsewhere")
    (lab.settings.responses_path / "b.jsonl").symlink_to(lab.root / "elsewhere")
    with pytest.raises(ResponseFileError, match=r"b\.jsonl cannot be read"):
        lab.scorer.score("b")


def test_memory_does_not_grow_with_the_file(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "_BATCH_RESPONSES", 500)
    peaks = []
    for count in (1000, 10_000):
        lab.put("a", [response(i, f"The light of number {i}. " * 20) for i in range(count)])
        scorer = lab.scorer
        tracemalloc.start()
        assert scorer.score("a").receipt.rows == count
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]


def test_the_database_can_be_made_again_from_parquet(lab: Lab) -> None:
    lab.score("a", [response(i) for i in range(30)])
    lab.score("b", [response(i, correct_answer=4) for i in range(20)])
    before = {table.name: lab.rows(table.name) for table in RESPONSE_TABLES}
    lab.settings.duckdb_path.unlink()
    DuckDBStore(lab.settings.duckdb_path).rebuild(lab.store.parquet)
    assert {table.name: lab.rows(table.name) for table in RESPONSE_TABLES} == before
    assert len(before["response_scores"]) == 50
