"""Files of responses judged: which of them, by what rubric, and who may judge."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ml_pipeline.backends.interface import CompletionRequest
from ml_pipeline.errors import MlPipelineError
from ml_pipeline.evaluation.judges import Judge
from ml_pipeline.responses.judging import judges_of_files
from ml_pipeline.suites import load_suites
from ml_pipeline_tests.evaluation.scripted import ScriptedBackend
from ml_pipeline_tests.responses.lab import Lab
from ml_pipeline_tests.suites.data_sets import DO_NOT_ANSWER, load_data, write_jsonl

TRUTH = {
    "id": "t",
    "model": "m",
    "prompt": "Do bulls hate red?",
    "response": "No.",
    "best_answer": "They do not see it.",
}
HARM = {"id": "h", "model": "m", "prompt": "How to?", "response": "I would not.", "risk_area": "Weapons"}
HATE = {"id": "x", "model": "m", "prompt": "They all ...", "response": "People differ.", "domain": "toxigen"}


def reply(request: CompletionRequest) -> str:
    """Eight for every figure that the request asks for."""
    assert request.json_schema is not None
    return json.dumps({name: 8 for name in request.json_schema["properties"] if name != "explanation"})


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path, load_suites(["content"]))


def figures(lab: Lab) -> list[tuple[Any, ...]]:
    columns = "line, suite, dimension, score, unscored_reason"
    return [tuple(row.values()) for row in lab.rows("response_judgements", columns)]


def test_each_response_is_judged_by_the_rubric_of_its_fields(lab: Lab) -> None:
    backend = ScriptedBackend(reply, "big")
    lab.put("a", [TRUTH, HARM, HATE, {"id": "none", "response": "r"}, TRUTH | {"response": ""}])
    judged = lab.judge("a", Judge("big", backend))
    assert judged.receipt.rows == 8
    assert figures(lab) == [
        (1, "truthfulqa", "informativeness", 8.0, None),
        (1, "truthfulqa", "truthfulness", 8.0, None),
        (2, "do_not_answer", "nuance", 8.0, None),
        (2, "do_not_answer", "safety", 8.0, None),
        (3, "toxigen", "awareness", 8.0, None),
        (3, "toxigen", "kindness", 8.0, None),
        (5, "truthfulqa", "informativeness", None, "the answer is empty"),
        (5, "truthfulqa", "truthfulness", None, "the answer is empty"),
    ]
    prompts = [request.messages[0].content for request in backend.asked]
    assert len(prompts) == 3
    for prompt, facts in zip(prompts, ("They do not see it.", "Kind of harm: Weapons", "They all ..."), strict=True):
        assert facts in prompt
    (row,) = lab.rows("response_averages", "mean, scored, unscored", "dimension = 'truthfulness'")
    assert row == {"mean": 8.0, "scored": 1, "unscored": 1}


def test_a_probe_is_judged_by_its_suites_rubric(lab: Lab) -> None:
    (content,) = lab.suites
    probe = content.probes[2]
    lab.put("a", [{"id": probe.id, "prompt": probe.prompt, "response": "Much.", "model": model} for model in "mn"])
    lab.judge("a", Judge("big", ScriptedBackend(reply, "big")))
    rows = lab.rows("response_judgements", "line, model, prompt_id, suite, score")
    assert len(rows) == 2 * len(content.rubric.dimensions if content.rubric else ())
    assert {(row["line"], row["model"]) for row in rows} == {(1, "m"), (2, "n")}
    assert {(row["prompt_id"], row["suite"], row["score"]) for row in rows} == {(probe.id, "content", 8.0)}


def test_a_data_set_is_judged_with_what_it_says(lab: Lab) -> None:
    path = write_jsonl(lab.root / "d.jsonl", [DO_NOT_ANSWER])
    lab.suites = [load_data(lab.root, f"file: {path}, kind: do_not_answer", "content", "rubric: do_not_answer\n")]
    backend = ScriptedBackend(reply, "big")
    lab.put("a", [HARM | {"prompt": DO_NOT_ANSWER["question"]}])
    lab.judge("a", Judge("big", backend))
    assert {(suite, score) for _, suite, _, score, _ in figures(lab)} == {("mine", 8.0)}
    (request,) = backend.asked
    assert "Leak personal details" in request.messages[0].content


def test_a_suite_of_ones_own_may_bear_a_standard_ones_name(lab: Lab) -> None:
    (content,) = lab.suites
    lab.suites = [replace(content, name="truthfulqa")]
    probe = content.probes[0]
    lab.put("a", [{"id": probe.id, "suite": "truthfulqa", "response": "Much."}, TRUTH])
    lab.judge("a", Judge("big", ScriptedBackend(reply, "big")))
    rubrics = {row["line"]: row["rubric"] for row in lab.rows("response_judgements", "line, rubric")}
    assert rubrics == {1: "content 1.0", 2: "truthfulqa 1.0"}


def test_so_many_answers_of_each_model_are_judged_as_the_settings_say(lab: Lab) -> None:
    lab.judge_settings = {"backend": "big", "answers_per_suite": 2}
    lab.put("a", [TRUTH | {"id": str(i), "model": model} for i in range(5) for model in "mn"])
    lab.judge("a", Judge("big", ScriptedBackend(reply, "big")))
    assert {(row["prompt_id"], row["model"]) for row in lab.rows("response_judgements")} == {
        (number, model) for number in "01" for model in "mn"
    }


def test_a_judge_that_fails_stores_nothing_and_says_why(lab: Lab) -> None:
    lab.score("a", [TRUTH])
    with pytest.raises(MlPipelineError, match="cannot be opened"):
        lab.judge("a", Judge("big", MlPipelineError("big cannot be opened")))
    assert figures(lab) == []
    assert len(lab.rows("response_scores")) == 1


@pytest.mark.parametrize(
    ("judge", "members"),
    [
        ({}, None),
        ({"backend": "none"}, None),
        ({"panel": ["embedded"]}, None),
        ({"backend": "big"}, ("big",)),
        ({"panel": ["embedded", "big"]}, ("big",)),
    ],
)
def test_a_base_model_of_a_checkpoint_judges_no_file(lab: Lab, judge: Any, members: tuple[str, ...] | None) -> None:
    lab.judge_settings = judge
    settings = judges_of_files(lab.settings)
    assert (settings.judge.members if settings else None) == members
