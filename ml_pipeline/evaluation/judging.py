"""Has a judge mark answers and turns what it says into rows of the table `judgements`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ml_pipeline.backends.interface import Backend, Completion, CompletionRequest, GenerationOptions
from ml_pipeline.evaluation.mark import first_answers, row_identity, stored_completion
from ml_pipeline.scoring import JudgeReading, judge_request, read_judgement, reask_request, unjudgeable_reason, unjudged
from ml_pipeline.suites.suite import Rubric, Suite

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Judge:
    """Who judges, under which name it is recorded, and how it is asked.

    `answers_per_suite` None judges every answer; a number judges so many, of the same probes every time, spread evenly
    over the suite. With `explain` the judge gives a sentence beside its figures.
    """

    backend: Backend
    name: str
    options: GenerationOptions
    answers_per_suite: int | None = None
    explain: bool = True


@dataclass(slots=True)
class _Case:
    """One answer before the judge: what is asked, and the replies and their reading so far."""

    response: Row
    rubric: Rubric
    request: CompletionRequest | None
    reading: JudgeReading
    transcript: str = ""


def judge_answers(
    judge: Judge, suites: Sequence[Suite], responses: Sequence[Row], progress: Callable[[int, int], None]
) -> list[Row]:
    """Judge the first answer to every probe whose suite has a rubric.

    A judge whose reply cannot be read in full is asked once more with the error shown; what is missing then stays
    unscored, with the reason. An answer that an error ended, or that is empty, is not put to the judge.
    """
    cases = _cases(judge, {suite.name: suite for suite in suites}, responses)
    asked = [case for case in cases if case.request is not None]
    progress(0, len(asked))
    first = _hear(judge, asked, lambda done: progress(min(done, len(asked) - 1), len(asked)))
    again = []
    for case, completion in first:
        assert case.request is not None
        case.request = reask_request(case.request, completion, case.reading)
        if case.request is not None:
            again.append(case)
    _hear(judge, again, lambda done: None)
    if asked:
        progress(len(asked), len(asked))
    return [row for case in cases for row in _rows(case, judge.name)]


def _cases(judge: Judge, suites: Mapping[str, Suite], responses: Sequence[Row]) -> list[_Case]:
    cases = []
    chosen = {name: _chosen_probes(suite, judge.answers_per_suite) for name, suite in suites.items()}
    for response in first_answers(responses):
        suite = suites.get(response["suite"])
        if suite is None or suite.rubric is None or response["probe_id"] not in chosen[suite.name]:
            continue
        if reason := unjudgeable_reason(stored_completion(response)):
            cases.append(_Case(response, suite.rubric, None, unjudged(suite.rubric, reason)))
            continue
        probe = next(probe for probe in suite.probes if probe.id == response["probe_id"])
        request = judge_request(
            suite.rubric,
            probe,
            response["response"],
            request_id=f"judge/{suite.name}/{probe.id}",
            options=judge.options,
            explain=judge.explain,
        )
        cases.append(_Case(response, suite.rubric, request, unjudged(suite.rubric, "the judge did not answer")))
    return cases


def _chosen_probes(suite: Suite, count: int | None) -> set[str]:
    total = len(suite.probes)
    if count is None or count >= total:
        return {probe.id for probe in suite.probes}
    return {suite.probes[index * total // count].id for index in range(count)}


def _hear(judge: Judge, cases: Sequence[_Case], progress: Callable[[int], None]) -> list[tuple[_Case, Completion]]:
    """Put each case's request to the judge and read its reply; a second reading only ever adds to the first."""
    by_id = {case.request.id: case for case in cases if case.request is not None}
    requests = [case.request for case in cases if case.request is not None]
    if not judge.backend.constrains_json:  # the prompt names the form, and the reply is checked either way
        requests = [replace(request, json_schema=None) for request in requests]
    heard = []
    for completion in judge.backend.complete(requests):
        case = by_id[completion.request_id]
        reading = read_judgement(case.rubric, completion)
        if case.transcript == "" or len(reading.reasons) < len(case.reading.reasons):
            case.reading = reading
        case.transcript = f"{case.transcript}\n---\n{completion.text}" if case.transcript else completion.text
        heard.append((case, completion))
        progress(len(heard))
    return heard


def _rows(case: _Case, judge_name: str) -> list[Row]:
    return [
        {
            **row_identity(case.response),
            "rubric": f"{case.rubric.name} {case.rubric.version}",
            "dimension": dimension,
            "score": score,
            "unscored_reason": case.reading.reasons.get(dimension),
            "judge_model": judge_name,
            "explanation": case.reading.explanation or None,
            "transcript": case.transcript,
        }
        for dimension, score in case.reading.scores.items()
    ]
