"""Marks answers without a model: deterministic checks, heuristic figures, and accuracy with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ml_pipeline.scoring import accuracy_by_category, check_answer, score_heuristic
from ml_pipeline.stores.tables import HEURISTIC_FIGURES, IDENTITY
from ml_pipeline.suites.suite import Suite

Row = dict[str, Any]
_IDENTITY_NAMES = tuple(column.name for column in IDENTITY)


def probe_results(suite: Suite, responses: Sequence[Row]) -> list[Row]:
    """Pass or fail of each answer to a probe that has a check.

    An answer that ended in an error is unscored, with the reason; it never counts as wrong. One that was cut off at
    its token limit is marked as it stands.
    """
    probes = {probe.id: probe for probe in suite.probes if probe.check is not None}
    rows = []
    for response in responses:
        probe = probes.get(response["probe_id"])
        if response["suite"] != suite.name or probe is None or probe.check is None:
            continue
        result = check_answer(probe.check, response["response"])
        reason = unscored_reason(response)
        rows.append(
            {
                **_identity(response),
                "passed": None if reason else result.passed,
                "unscored_reason": reason,
                "expected": result.expected,
                "extracted": None if reason else result.extracted,
                "response": response["response"],
                "finish_reason": response["finish_reason"],
            }
        )
    return rows


def heuristic_scores(responses: Sequence[Row]) -> list[Row]:
    """The heuristic figures and LEK of each answer; an answer that ended in an error is unscored."""
    rows = []
    for response in responses:
        reason = unscored_reason(response)
        figures: Row = dict.fromkeys((*HEURISTIC_FIGURES, "lek"))
        if reason is None:
            figures = {name: float(value) for name, value in asdict(score_heuristic(response["response"])).items()}
        rows.append({**_identity(response), **figures, "unscored_reason": reason})
    return rows


def checkpoint_scores(results: Sequence[Row]) -> list[Row]:
    """Accuracy overall and by category, out of one suite's probe results."""
    if not results:
        return []
    identity = {name: results[0][name] for name in _IDENTITY_NAMES}
    return [
        {**identity, **asdict(score)}
        for score in accuracy_by_category((row["category"], row["passed"]) for row in results)
    ]


def unscored_reason(response: Row) -> str | None:
    """Why an answer cannot be scored, or None when it can."""
    if response["finish_reason"] in ("error", "cancelled"):
        return f"no complete answer: {response['error'] or response['finish_reason']}"
    return None


def _identity(response: Row) -> Row:
    return {name: response[name] for name in (*_IDENTITY_NAMES, "probe_id", "category")}
