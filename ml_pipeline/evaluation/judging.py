"""Has a judge mark answers and turns what it says into rows of the table `judgements`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ml_pipeline.backends.interface import Backend, CompletionRequest, GenerationOptions
from ml_pipeline.evaluation.mark import unscored_reason
from ml_pipeline.scoring import JudgeReading, judge_request, read_judgement, reask_request
from ml_pipeline.stores.tables import IDENTITY
from ml_pipeline.suites.suite import Probe, Rubric, Suite

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Judge:
    """Who judges, under which name it is recorded, and how it is asked."""

    backend: Backend
    name: str
    options: GenerationOptions


@dataclass(frozen=True, slots=True)
class _Case:
    response: Row
    rubric: Rubric
    request: CompletionRequest


def judge(
    judge: Judge, suites: Sequence[Suite], responses: Sequence[Row], progress: Callable[[int, int], None]
) -> list[Row]:
    """Judge every answer whose suite has a rubric.

    A judge that answers what cannot be read is asked once more with the error shown; what is still missing then
    stays unscored, with the reason. An answer that ended in an error, or is empty, is not put to the judge.
    """
    by_name = {suite.name: suite for suite in suites}
    cases: dict[str, _Case] = {}
    rows: dict[str, list[Row]] = {}
    for response in responses:
        suite = by_name.get(response["suite"])
        if suite is None or suite.rubric is None:
            continue
        name = f"{suite.name}/{response['probe_id']}"
        reason = unscored_reason(response) or ("the answer is empty" if not response["response"].strip() else None)
        if reason:
            rows[name] = _rows(response, suite.rubric, judge.name, None, reason, "")
            continue
        rows[name] = []
        probe = _probe(suite, response["probe_id"])
        request = judge_request(suite.rubric, probe, response["response"], name, judge.options)
        cases[name] = _Case(response, suite.rubric, request)
    unread = _judge_round(judge, cases, rows, progress, 0, len(cases))
    again = {
        name: _Case(c.response, c.rubric, reask_request(c.request, *unread[name]))
        for name, c in cases.items()
        if name in unread
    }
    _judge_round(judge, again, rows, progress, len(cases) - len(again), len(cases))
    return [row for group in rows.values() for row in group]
