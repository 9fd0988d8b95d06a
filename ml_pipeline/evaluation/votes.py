"""What judges said about an answer, as rows of the tables `judgements` and `judge_votes`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ml_pipeline.evaluation.mark import row_identity
from ml_pipeline.scoring import JudgeReading, judge_sha256, median_reading, unjudged
from ml_pipeline.suites.suite import Rubric

Row = dict[str, Any]


@dataclass(slots=True)
class Vote:
    """What one judge said in one of its repeats, which count from 1; `transcript` holds all of its replies."""

    judge: str
    repeat: int
    reading: JudgeReading
    transcript: str = ""


@dataclass(slots=True)
class Judged:
    """Rows of `judgements`, and of `judge_votes` where there are several votes on an answer."""

    judgements: list[Row] = field(default_factory=list)
    votes: list[Row] = field(default_factory=list)


def judgement_rows(
    response: Row, rubric: Rubric, judge_model: str, votes: Sequence[Vote], unjudgeable: str | None
) -> list[Row]:
    """One row a dimension: what the one vote says, or the median of several. `unjudgeable` says why there is none."""
    if unjudgeable is None:
        by_judge: dict[str, list[JudgeReading]] = {}
        for vote in votes:
            by_judge.setdefault(vote.judge, []).append(vote.reading)
        reading = median_reading(rubric, by_judge)
    else:
        reading = unjudged(rubric, unjudgeable)
    rows = _rows(response, rubric, reading, judge_model, votes[0].transcript if len(votes) == 1 else "")
    for row in rows:
        row["votes"] = sum(vote.reading.scores[row["dimension"]] is not None for vote in votes)
        row["votes_asked"] = len(votes)
    return rows


def vote_rows(response: Row, rubric: Rubric, vote: Vote) -> list[Row]:
    """One row a dimension of one vote."""
    rows = _rows(response, rubric, vote.reading, vote.judge, vote.transcript)
    for row in rows:
        row["repeat"] = vote.repeat
    return rows


def _rows(response: Row, rubric: Rubric, reading: JudgeReading, judge_model: str, transcript: str) -> list[Row]:
    same = {
        **row_identity(response),
        "rubric": f"{rubric.name} {rubric.version}",
        "rubric_sha256": judge_sha256(rubric),
        "judge_model": judge_model,
        "explanation": reading.explanation or None,
        "transcript": transcript,
    }
    return [
        {**same, "dimension": dimension, "score": score, "unscored_reason": reading.reasons.get(dimension)}
        for dimension, score in reading.scores.items()
    ]
