"""A real model scores choices: rows to store, marks out of them, and what cannot be scored kept apart."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest

from ml_pipeline.backends.interface import Classification
from ml_pipeline.backends.llama_cpp import LlamaCppBackend
from ml_pipeline.errors import BackendError, RunCancelledError
from ml_pipeline.evaluation.ask import ask
from ml_pipeline.evaluation.choose import choose
from ml_pipeline.evaluation.mark import checkpoint_scores, degeneration, heuristic_scores, probe_results
from ml_pipeline.stores.rows import conform
from ml_pipeline.stores.tables import PROBE_RESULTS, RESPONSES
from ml_pipeline.suites.suite import Probe
from ml_pipeline_tests.evaluation.rows import CHECKPOINT, SUITE, evaluation
from ml_pipeline_tests.evaluation.scripted import ScriptedBackend
from ml_pipeline_tests.evaluation.test_ask import backend

__all__ = ["backend"]


def probe(name: str, prompt: str, choices: Sequence[str], answer: int) -> Probe:
    return Probe(name, "c", prompt, check={"type": "log_likelihood", "choices": list(choices), "answer": answer})


LETTERS = ("A", "B")
CHOICES = replace(
    SUITE,
    probes=(
        probe("letter", "Which is a fruit?\nA. stone\nB. apple\nAnswer:", LETTERS, 1),
        *SUITE.probes[:1],
        probe("france", "The capital of France is", ("Paris", "a wet blue cow"), 0),
        probe("other-letter", "Which is a stone?\nA. granite\nB. apple\nAnswer:", LETTERS, 0),
        probe("wrong", "The capital of France is", ("Paris", "a wet blue cow"), 1),
        probe("too-long", "word " * 400, LETTERS, 0),
    ),
)
SCORED = ["letter", "france", "other-letter", "wrong", "too-long"]


class Picking(ScriptedBackend):
    """A server that cannot score: it picks a label."""

    def __init__(self) -> None:
        super().__init__(lambda request: "4")
        self.classified = 0

    def classify(self, texts: Sequence[str], labels: Sequence[str]) -> Classification:
        self.classified += 1
        return Classification([[0.0, float("-inf")] for _ in texts], "chosen")


class Refusing(ScriptedBackend):
    """A server that cannot classify at all."""

    def classify(self, texts: Sequence[str], labels: Sequence[str]) -> Classification:
        raise BackendError("this server cannot classify")


@pytest.fixture
def nothing() -> Iterator[Refusing]:
    made = Refusing(lambda request: "4")
    yield made
    made.close()


def test_choices_are_scored_stored_and_marked(backend: LlamaCppBackend) -> None:
    told: list[tuple[int, int]] = []
    asked = [evaluation(suite=CHOICES)]
    rows = choose(backend, asked, lambda *done: told.append(done))
    assert [row["probe_id"] for row in rows] == SCORED
    assert (told[0], told[-1]) == ((0, 5), (5, 5))
    written = ask(backend, asked, lambda *done: None)
    assert [row["probe_id"] for row in written] == ["sum"]
    conform(RESPONSES, CHECKPOINT.key, [*written, *rows])

    # The same figures as when each is scored by itself.
    alone = backend.classify([CHOICES.probes[2].prompt], [" Paris", " a wet blue cow"]).log_probabilities[0]
    assert json.loads(rows[1]["choice_log_probabilities"]) == pytest.approx(alone, abs=1e-3)
    assert rows[1]["response"] == "Paris"

    results = {row["probe_id"]: row for row in probe_results(CHOICES, [*written, *rows])}
    conform(PROBE_RESULTS, CHECKPOINT.key, list(results.values()))
    assert (results["france"]["passed"], results["france"]["extracted"]) == (True, "Paris")
    assert (results["wrong"]["passed"], results["wrong"]["expected"]) == (False, "a wet blue cow")
    for name in ("letter", "other-letter"):
        scores = json.loads(next(row for row in rows if row["probe_id"] == name)["choice_log_probabilities"])
        assert results[name]["passed"] is ((scores[1] > scores[0]) is (name == "letter"))
        assert results[name]["passed_normalised"] == results[name]["passed"], "letters are all of one length"
    assert results["too-long"]["passed"] is None
    assert "the context holds 256" in results["too-long"]["unscored_reason"]
    assert results["sum"]["passed_normalised"] is None
    (overall, *_) = checkpoint_scores(list(results.values()))
    assert (overall["total"], overall["unscored"]) == (5, 1)

    assert [row["probe_id"] for row in heuristic_scores([*written, *rows])] == ["sum"]
    assert {row["answers"] for row in degeneration([*written, *rows])} == {1}
    assert degeneration(rows) == []


def test_a_choice_that_was_only_picked_is_unscored_and_asked_for_once() -> None:
    picking = Picking()
    rows = choose(picking, [evaluation(suite=CHOICES)], lambda *done: None)
    results = probe_results(CHOICES, rows)
    assert [row["passed"] for row in results] == [None] * 5
    assert all("it only picks one" in row["unscored_reason"] for row in results)
    assert picking.classified == 1


def test_a_backend_that_cannot_classify_says_so_for_every_probe(nothing: Refusing) -> None:
    results = probe_results(CHOICES, choose(nothing, [evaluation(suite=CHOICES)], lambda *done: None))
    assert [row["unscored_reason"] for row in results] == [
        "the answer ended with an error: this server cannot classify"
    ] * 5


def test_a_cancelled_scoring_stores_nothing(nothing: Refusing) -> None:
    with pytest.raises(RunCancelledError, match="5 of 5 multiple-choice probes"):
        choose(nothing, [evaluation(suite=CHOICES)], lambda *done: None, lambda: True)
    assert choose(nothing, [evaluation()], lambda *done: None, lambda: True) == [], (
        "nothing to score, nothing to cancel"
    )


def test_stored_scores_that_do_not_fit_the_probe_are_no_scores(backend: LlamaCppBackend) -> None:
    rows = choose(backend, [evaluation(suite=replace(CHOICES, probes=CHOICES.probes[2:3]))], lambda *done: None)
    changed = replace(CHOICES, probes=(probe("france", "The capital of France is", ("Paris", "Rome", "Bonn"), 0),))
    (result,) = probe_results(changed, rows)
    assert result["passed"] is None
    assert "3 choices need as many finite log-probabilities" in result["unscored_reason"]
