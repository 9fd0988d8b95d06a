"""Rows as the pipeline makes them, small enough to work figures out by hand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from ml_pipeline.stores.tables import CHECKPOINT_TABLES, EVALUATIONS, HEURISTIC_FIGURES
from ml_pipeline.suites.suite import Dimension, Probe, Rubric, Suite

SCORED_AT = datetime(2026, 3, 1, 12, 30, 45, 678901, tzinfo=UTC)
MTIME_NS = 1_772_366_400_123_456_789
Row = dict[str, Any]


def identity(iteration: int = 100, *, run: str = "g1-lek", suite: str = "capability", version: str = "e1") -> Row:
    """The identity columns of one checkpoint."""
    return {
        "partition_key": key(iteration, run=run),
        "source": "lab",
        "run": run,
        "run_id": run.replace("/", "-"),
        "label": f"G1-lek @{iteration:07d}",
        "model": "gemma-3-1b",
        "base_model": "gemma-1b",
        "iteration": iteration,
        "suite": suite,
        "evaluation_id": f"{version}-{run}-{iteration}-{suite}",
        "protocol_id": f"p-{suite}",
        "scored_at": SCORED_AT + timedelta(seconds=iteration),
    }


def key(iteration: int = 100, *, run: str = "g1-lek") -> str:
    """The partition key of that checkpoint."""
    return f"lab.{run.replace('/', '+')}@{iteration}"


def base_identity(suite: str = "capability") -> Row:
    """The identity columns of the bare base model."""
    ours = identity(0, suite=suite)
    ours.update(partition_key="base.gemma-1b@0", source="base", run="gemma-1b", run_id="gemma-1b", label="gemma-1b")
    return {**ours, "evaluation_id": f"base-{suite}"}


def score_rows(who: Row, **categories: tuple[int, int]) -> list[Row]:
    """checkpoint_scores of `category=(correct, total)`, and their sum as overall."""
    correct, total = (sum(figures) for figures in zip(*categories.values(), strict=True))
    return [
        {
            **who,
            "category": name,
            "correct": right,
            "total": of,
            "unscored": 0,
            "accuracy": right / of if of else None,
            "accuracy_low": 0.0 if of else None,
            "accuracy_high": 1.0 if of else None,
        }
        for name, (right, of) in {"overall": (correct, total), **categories}.items()
    ]


def probe_rows(who: Row, **passed: bool | None) -> list[Row]:
    """probe_results of `probe_id=passed`; None is unscored."""
    return [
        {
            **who,
            "probe_id": probe_id,
            "category": "math",
            "sample": 1,
            "template": None,
            "passed": verdict,
            "unscored_reason": "the backend was away" if verdict is None else None,
            "expected": "42",
            "extracted": None,
            "response": f"answer to {probe_id}, with 'quotes', ünïcode\nand two lines",
            "finish_reason": "stop",
            "strict_extracted": None,
            "strict_passed": None,
            "flexible_extracted": "42",
            "flexible_passed": verdict,
            "passed_normalised": None,
        }
        for probe_id, verdict in passed.items()
    ]


def judgement_rows(who: Row, probe_id: str, **scores: float | None) -> list[Row]:
    """judgements of one probe, `dimension=score`; None is unscored."""
    return [
        {
            **who,
            "probe_id": probe_id,
            "category": "math",
            "rubric": "r/1",
            "dimension": dimension,
            "score": score,
            "unscored_reason": "no number in the answer" if score is None else None,
            "judge_model": "judge",
            "explanation": None,
            "transcript": "...",
            "rubric_sha256": "r",
            "votes": int(score is not None),
            "votes_asked": 1,
        }
        for dimension, score in scores.items()
    ]


def heuristic_rows(who: Row, **lek: float | None) -> list[Row]:
    """heuristic_scores of `probe_id=lek`."""
    return [
        {
            **who,
            "probe_id": probe_id,
            "category": "math",
            **dict.fromkeys(HEURISTIC_FIGURES, None if figure is None else 0.0),
            "lek": figure,
            "lek_normalised": None if figure is None else 0.5,
            "unscored_reason": "no answer" if figure is None else None,
        }
        for probe_id, figure in lek.items()
    ]


def evaluation_row(who: Row) -> Row:
    """The evaluations row of one checkpoint and suite."""
    row: Row = dict(who)
    for column in EVALUATIONS.columns:
        row.setdefault(column.name, None if column.nullable else "x")
    return row | {"checkpoint_size_bytes": 1, "checkpoint_mtime_ns": MTIME_NS}


def response_rows(who: Row, count: int, size: int = 40) -> list[Row]:
    """`count` responses of about `size` characters."""
    return [
        {
            **who,
            "probe_id": f"p{i:04d}",
            "category": "math",
            "sample": 1,
            "template": None,
            "prompt": "What?",
            "rendered_prompt": "<user>What?",
            "response": f"{i} {who['evaluation_id']} ".ljust(size, "."),
            "prompt_tokens": 5,
            "completion_tokens": size,
            "finish_reason": "stop",
            "seconds": 0.25,
            "error": None,
            "choice_log_probabilities": None,
        }
        for i in range(count)
    ]


def partition(who: Row, **passed: bool | None) -> dict[str, list[Row]]:
    """Every table of one checkpoint, from the verdicts on its probes."""
    verdicts = [v for v in passed.values() if v is not None]
    tables: dict[str, list[Row]] = {table.name: [] for table in CHECKPOINT_TABLES}
    return tables | {
        "evaluations": [evaluation_row(who)],
        "responses": response_rows(who, 2),
        "probe_results": probe_rows(who, **passed),
        "checkpoint_scores": score_rows(who, math=(sum(verdicts), len(verdicts))),
    }


def without(rows: list[Row], name: str) -> list[Row]:
    """The rows without one column."""
    return [{k: v for k, v in row.items() if k != name} for row in rows]


def capability_suite(name: str = "capability") -> Suite:
    """Three probes in two categories."""
    probes = (Probe("sum", "math", "1+1?"), Probe("loop", "code", "loop?"), Probe("root", "math", "root?"))
    return Suite(name, "1", "capability", "", 0.1, 500, _rubric("reasoning", "correctness", "clarity"), probes, "s")


def content_suite(name: str = "content") -> Suite:
    """Two judged probes."""
    probes = (Probe("one", "history", "?"), Probe("two", "history", "?"))
    return Suite(name, "1", "content", "", 0.7, 1000, _rubric("truth_telling", "engagement"), probes, "s")


def _rubric(*dimensions: str) -> Rubric:
    return Rubric("r", "1", "", tuple(Dimension(d, "", 0, 10) for d in dimensions), "s")
