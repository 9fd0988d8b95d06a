"""Several answers to a probe, from the stored rows to the tables that people read."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from ml_pipeline.reports.leaderboard import leaderboard
from ml_pipeline.reports.runs import run_curves
from ml_pipeline.reports.score_table import score_table
from ml_pipeline.reports.scores import Scores
from ml_pipeline_tests.reports.sample_scores import Checkpoint, scores_of

# Four answers to each of three probes of two templates, and what was read out of them.
PASSED = {"x": [True, True, False, True], "y": [False, False, True, False], "z": [False, False, False, False]}
READ = {"x": ["4", "4", "5", "4"], "y": ["1", "2", "7", "3"], "z": ["8", "8", "8", "8"]}


def several(run: str, source: str, passed: dict[str, list[bool]]) -> Scores:
    """Scores of a checkpoint that was asked each probe four times."""
    one = Checkpoint(run, 0 if source == "base" else 10, dict.fromkeys(passed, True), source=source)
    scores = scores_of(one)
    templates = {"x": "t", "y": "t", "z": None}
    for frame in (scores.responses, scores.probe_results):
        rows = pd.concat([frame.assign(sample=sample) for sample in range(1, 5)], ignore_index=True)
        rows["template"] = rows["probe_id"].map(templates)
        if "passed" in rows:
            pairs = list(zip(rows["probe_id"], rows["sample"], strict=True))
            rows["passed"] = pd.array([passed[probe][sample - 1] for probe, sample in pairs], dtype="boolean")
            rows["extracted"] = [READ[probe][sample - 1] for probe, sample in pairs]
        object.__setattr__(scores, "probe_results" if "passed" in rows else "responses", rows)
    return scores


def figures(scores: Scores) -> dict[str, Any]:
    table = score_table(scores)
    overall = table[table["category"].eq("overall")]
    return {str(row["metric"]): (row["value"], row["count"], row["unscored"]) for _, row in overall.iterrows()}


def test_majority_and_pass_at_k_by_hand() -> None:
    found = figures(several("r", "mac", PASSED))
    assert found["majority"] == (pytest.approx(1 / 3), 3, 0)
    # pass@2: 1 - C(1,2)/C(4,2) = 1, 1 - C(3,2)/C(4,2) = 1/2, 0. pass@4: 1, 1, 0.
    assert found["pass@2"] == (pytest.approx(0.5), 3, 0)
    assert found["pass@4"] == (pytest.approx(2 / 3), 3, 0)


def test_a_probe_with_too_few_scored_answers_has_no_pass_at_k() -> None:
    scores = several("r", "mac", PASSED)
    lost = scores.probe_results["probe_id"].eq("x") & scores.probe_results["sample"].gt(1)
    scores.probe_results.loc[lost, "passed"] = pd.NA
    found = figures(scores)
    assert found["pass@2"] == (pytest.approx(0.25), 2, 1)
    assert found["majority"] == (pytest.approx(1 / 3), 3, 0)


def test_probes_asked_once_have_neither() -> None:
    assert not {"majority", "pass@2"} & figures(scores_of(Checkpoint("r", 10, {"x": True, "y": False}))).keys()


def test_checkpoints_are_compared_by_shares_and_told_beyond_their_templates() -> None:
    base, best = several("tiny", "base", dict.fromkeys("xyz", [False] * 4)), several("r", "mac", PASSED)
    both = Scores(*(pd.concat([getattr(base, name), getattr(best, name)]) for name in Scores.__dataclass_fields__))
    found = leaderboard(both).set_index("partition_key").loc["mac.r@10"]
    assert found["delta"] == pytest.approx((3 / 4 + 1 / 4 + 0) / 3)
    assert (found["better"], found["worse"], found["paired"], found["templates"]) == (2, 0, 3, 2)
    (curve,) = run_curves(both)
    assert curve.sample_metrics == ("pass@2", "pass@4", "majority")
