"""Marks answers without a model: deterministic checks, heuristic figures, and accuracy with its interval."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from ml_pipeline.backends.interface import Completion
from ml_pipeline.scoring import accuracy_by_category, score_probe, unfinished_reason
from ml_pipeline.scoring.checks import shortened
from ml_pipeline.scoring.degeneration import Answer, degeneration_rates
from ml_pipeline.scoring.exact import ExactResult, exact_results
from ml_pipeline.scoring.heuristic import heuristic_columns, text_column
from ml_pipeline.scoring.log_likelihood import score_choices
from ml_pipeline.scoring.results import ProbeResult
from ml_pipeline.stores.tables import IDENTITY
from ml_pipeline.suites.suite import Suite

Row = dict[str, Any]
_IDENTITY_NAMES = tuple(column.name for column in IDENTITY)


def probe_results(suite: Suite, responses: Sequence[Row]) -> list[Row]:
    """Pass, fail or unscored of each of this suite's answers whose probe has a check, and what strict and flexible
    filters make of it. A suite with filters of its own is marked by the flexible ones. Choices that were scored are
    marked by their log-probabilities."""
    probes = {probe.id: probe for probe in suite.probes}
    checked = [
        (response, probe, check)
        for response in responses
        if response["suite"] == suite.name
        and (probe := probes.get(response["probe_id"])) is not None
        and (check := probe.check) is not None
        and not probe.scores_choices
    ]
    texts = text_column(response["response"] for response, _, _ in checked)
    readings = exact_results(texts, [check for _, _, check in checked], suite.filters)
    rows = []
    for (response, probe, _), exact in zip(checked, readings, strict=True):
        result = score_probe(probe, stored_completion(response))
        if result.passed is None:
            exact = None
        elif suite.filters and exact is not None:
            result = replace(result, passed=exact.flexible.passed, extracted=exact.flexible.extracted)
        rows.append(_result_row(response, result, exact))
    return rows + _choice_results(suite, responses)


def _choice_results(suite: Suite, responses: Sequence[Row]) -> list[Row]:
    probes = {probe.id: probe for probe in suite.probes if probe.scores_choices}
    rows = []
    for response in responses:
        if response["suite"] != suite.name or (probe := probes.get(response["probe_id"])) is None:
            continue
        check = probe.check or {}
        expected, scores = str(check["choices"][check["answer"]]), response["choice_log_probabilities"]
        reason, normalised = unfinished_reason(stored_completion(response)), None
        result = ProbeResult(probe.id, probe.category, None, expected, None, reason)
        if reason is None:
            try:
                scored = score_choices(check, json.loads(scores or "[]"))
            except ValueError as error:
                result = replace(result, unscored_reason=f"{error}. Make the responses of this checkpoint anew.")
            else:
                normalised = scored.passed_normalised
                likeliest = shortened(str(check["choices"][scored.likeliest]))
                result = replace(result, passed=scored.passed, extracted=likeliest)
        rows.append(_result_row(response, result, None, normalised))
    return rows


def _result_row(response: Row, result: ProbeResult, exact: ExactResult | None, normalised: bool | None = None) -> Row:
    return {
        **row_identity(response),
        "sample": response["sample"],
        "template": response["template"],
        "passed": result.passed,
        "unscored_reason": result.unscored_reason,
        "expected": result.expected,
        "extracted": result.extracted,
        "response": response["response"],
        "finish_reason": response["finish_reason"],
        "strict_extracted": exact.strict.extracted if exact else None,
        "strict_passed": exact.strict.passed if exact else None,
        "flexible_extracted": exact.flexible.extracted if exact else None,
        "flexible_passed": exact.flexible.passed if exact else None,
        "passed_normalised": normalised,
    }


def heuristic_scores(responses: Sequence[Row]) -> list[Row]:
    """The heuristic figures and LEK of each probe's first written answer; unscored with the reason where an error
    ended it."""
    responses = _written(first_answers(responses))
    reasons = [unfinished_reason(stored_completion(response)) for response in responses]
    texts = text_column(
        response["response"] if reason is None else None for response, reason in zip(responses, reasons, strict=True)
    )
    figures = heuristic_columns(texts).to_pylist()
    return [
        {**row_identity(response), **row, "unscored_reason": reason}
        for response, row, reason in zip(responses, figures, reasons, strict=True)
    ]


def degeneration(responses: Sequence[Row]) -> list[Row]:
    """How many written answers of each suite show each sign of degeneration."""
    rows = []
    responses = _written(responses)
    for suite in dict.fromkeys(response["suite"] for response in responses):
        of_suite = [response for response in responses if response["suite"] == suite]
        identity = {name: of_suite[0][name] for name in _IDENTITY_NAMES}
        finished = [response for response in of_suite if unfinished_reason(stored_completion(response)) is None]
        answers = [
            Answer(r["prompt"], r["response"], r["finish_reason"], r["template"] or r["probe_id"]) for r in finished
        ]
        lost = len(of_suite) - len(finished)
        rows += [{**identity, **asdict(rate), "unscored": lost} for rate in degeneration_rates(answers)]
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


def _written(responses: Sequence[Row]) -> list[Row]:
    """Those that a model wrote: of choices that it scored, the likeliest one is no text of its own."""
    return [response for response in responses if response["choice_log_probabilities"] is None]


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
