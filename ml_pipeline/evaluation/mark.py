"""Marks answers without a model: deterministic checks, heuristic figures, and accuracy with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ml_pipeline.backends.interface import Completion
from ml_pipeline.scoring import accuracy_by_category, score_heuristic, score_probe, unfinished_reason
from ml_pipeline.scoring.results import ProbeResult
from ml_pipeline.stores.tables import HEURISTIC_FIGURES, IDENTITY
from ml_pipeline.suites.suite import Suite

Row = dict[str, Any]
_IDENTITY_NAMES = tuple(column.name for column in IDENTITY)


def probe_results(suite: Suite, responses: Sequence[Row]) -> list[Row]:
    """Pass, fail or unscored of each of this suite's answers whose probe has a check."""
    probes = {probe.id: probe for probe in suite.probes if probe.check is not None}
    rows = []
    for response in responses:
        if response["suite"] == suite.name and response["probe_id"] in probes:
            result = score_probe(probes[response["probe_id"]], stored_completion(response))
            rows.append(
                {
                    **row_identity(response),
                    "sample": response["sample"],
                    "template": response["template"],
                    "passed": result.passed,
                    "unscored_reason": result.unscored_reason,
                    "expected": result.expected,
                    "extracted": result.extracted,
                    "response": response["response"],
                    "finish_reason": response["finish_reason"],
                }
            )
    return rows


def heuristic_scores(responses: Sequence[Row]) -> list[Row]:
    """The heuristic figures and LEK of each probe's first answer; unscored with the reason where an error ended it."""
    rows = []
    for response in first_answers(responses):
        reason = unfinished_reason(stored_completion(response))
        figures: Row = dict.fromkeys((*HEURISTIC_FIGURES, "lek"))
        if reason is None:
            figures = {name: float(value) for name, value in asdict(score_heuristic(response["response"])).items()}
        rows.append({**row_identity(response), **figures, "unscored_reason": reason})
    return rows


def checkpoint_scores(results: Sequence[Row]) -> list[Row]:
    """Accuracy overall and by category, out of one suite's probe results."""
    if not results:
        return []
    identity = {name: results[0][name] for name in _IDENTITY_NAMES}
    scores = accuracy_by_category(
        ProbeResult(row["probe_id"], row["category"], row["passed"], row["expected"], template=row["template"] or "")
        for row in results
    )
    return [{**identity, **asdict(score)} for score in scores]


def first_answers(responses: Sequence[Row]) -> list[Row]:
    """The first answer to each probe: what is judged and measured where a probe is asked several times."""
    return [response for response in responses if response["sample"] == 1]


def stored_completion(response: Row) -> Completion:
    """The completion that a row of `responses` was made from."""
    return Completion(
        request_id=response["probe_id"],
        prompt=response["rendered_prompt"],
        text=response["response"],
        prompt_tokens=response["prompt_tokens"],
        completion_tokens=response["completion_tokens"],
        finish_reason=response["finish_reason"],
        seconds=response["seconds"],
        error=response["error"],
    )


def row_identity(response: Row) -> Row:
    """The columns by which an answer is known in every table."""
    return {name: response[name] for name in (*_IDENTITY_NAMES, "probe_id", "category")}
