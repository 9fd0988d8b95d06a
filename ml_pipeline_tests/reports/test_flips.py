from __future__ import annotations

import string

import pytest

from ml_pipeline.reports.flips import AnswerBook, FlipSet
from ml_pipeline.reports.runs import run_curves
from ml_pipeline_tests.reports.sample_scores import Checkpoint, scores_of

PROBES = string.ascii_lowercase


def checkpoint(run: str, iteration: int, right: str, source: str = "mac") -> Checkpoint:
    return Checkpoint(run, iteration, {probe: probe in right for probe in PROBES}, source=source)


def flips_of(*checkpoints: Checkpoint, runs: int = 1) -> list[FlipSet]:
    scores = scores_of(*checkpoints)
    (curve,) = run_curves(scores)
    return AnswerBook(scores, runs).flips(curve)


def test_from_the_base_to_the_best_and_from_there_to_the_last() -> None:
    first, second = flips_of(
        checkpoint("tiny", 0, "abc", source="base"), checkpoint("r", 10, "bcdef"), checkpoint("r", 20, "bc")
    )
    assert (first.before, first.after, first.lost, first.gained) == ("the base", "iteration 10", 1, 3)
    assert [(flip.probe_id, flip.gained) for flip in first.shown] == [
        ("a", False), ("d", True), ("e", True), ("f", True),
    ]  # fmt: skip
    assert (second.before, second.after, second.lost, second.gained) == ("iteration 10", "iteration 20", 3, 0)


def test_both_answers_and_the_question() -> None:
    ((only,),) = [flips_of(checkpoint("tiny", 0, "a", source="base"), checkpoint("r", 10, "ab"))]
    (flip,) = only.shown
    assert (flip.probe_id, flip.prompt, flip.expected) == ("b", "Question b?", "right (b)")
    assert (flip.before.text, flip.after.text) == ("The answer is wrong.", "The answer is right.")


def test_without_a_base_the_first_checkpoint_stands_for_it() -> None:
    (found,) = flips_of(checkpoint("r", 10, "a"), checkpoint("r", 20, "ab"))
    assert (found.before, found.after, found.gained) == ("iteration 10", "iteration 20", 1)
    assert flips_of(checkpoint("r", 10, "a")) == []


def test_what_most_checkpoints_share_comes_first() -> None:
    found = flips_of(
        checkpoint("tiny", 0, "", source="base"),
        checkpoint("r", 10, "xyz"),
        checkpoint("r", 20, "yz"),
        checkpoint("r", 30, "z"),
    )[0]
    assert [(flip.probe_id, flip.alike, flip.checkpoints) for flip in found.shown] == [
        ("z", 3, 3), ("y", 2, 3), ("x", 1, 3),
    ]  # fmt: skip


@pytest.mark.parametrize(("runs", "shown"), [(1, 12), (10, 12), (30, 4), (1000, 2)])
def test_a_report_of_many_runs_shows_fewer_in_full_and_names_the_rest(runs: int, shown: int) -> None:
    base = checkpoint("tiny", 0, "yz", source="base")
    (found,) = flips_of(base, checkpoint("r", 10, PROBES[:20]), runs=runs)
    assert (found.lost, found.gained) == (2, 20)
    assert sum(flip.gained for flip in found.shown) == shown
    assert sum(not flip.gained for flip in found.shown) == 2
    assert len(found.other_gained) == 20 - shown
    assert found.other_lost == ()
