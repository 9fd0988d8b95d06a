"""The figures of a batch of responses that need no model, as rows of table response_scores."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa

from ml_pipeline.evaluation.mark import probe_results
from ml_pipeline.responses.cases import EXACT_FILTERS, Case, answer_row, by_suite, with_probes
from ml_pipeline.responses.reading import Response
from ml_pipeline.scoring.exact import ExactResult, exact_results
from ml_pipeline.scoring.heuristic import heuristic_columns, text_column
from ml_pipeline.stores.response_tables import RESPONSE_SCORES

Row = dict[str, Any]
_BATCH_RESPONSES, _BATCH_CHARS = 5000, 2**22
_MARKS = ("passed", "expected", "extracted", "strict_passed", "flexible_passed", "unscored_reason")
_TYPES = {column.name: column.type for column in RESPONSE_SCORES.columns}


def in_batches(responses: Iterable[Response]) -> Iterator[list[Response]]:
    """Responses some thousands at a time, fewer where they are long: what bounds the memory."""
    batch: list[Response] = []
    chars = 0
    for response in responses:
        batch.append(response)
        chars += response.chars
        if len(batch) == _BATCH_RESPONSES or chars >= _BATCH_CHARS:
            yield batch
            batch, chars = [], 0
    if batch:
        yield batch


def response_columns(responses: Sequence[Response]) -> Row:
    """The columns by which responses are known in every table of theirs."""
    return {
        "line": [response.line for response in responses],
        "prompt_id": [response.id for response in responses],
        "model": [response.model for response in responses],
        "prompt_sha256": [
            hashlib.sha256(response.prompt.encode()).hexdigest() if response.prompt else None for response in responses
        ],
    }


def score_responses(responses: Sequence[Response], cases: Sequence[Case], version: Row) -> pa.Table:
    """Score a batch. `version` holds the values of the columns that all rows of a file share."""
    texts = text_column(None if response.error else response.text for response in responses)
    marks = _marks(responses, cases)
    columns: Row = {
        **{name: [value] * len(responses) for name, value in version.items()},
        **response_columns(responses),
        "suite": [case.suite for case in cases],
        "domain": [response.domain or None for response in responses],
        "elapsed_s": [response.elapsed_s for response in responses],
        **{name: [mark.get(name) for mark in marks] for name in _MARKS},
    }
    arrays = {name: pa.array(values, _TYPES[name]) for name, values in columns.items()}
    figures = heuristic_columns(texts)
    return pa.table({**arrays, **{name: figures[name] for name in figures.column_names}})


def _marks(responses: Sequence[Response], cases: Sequence[Case]) -> list[Row]:
    """Right or wrong of each response, where something says what is right; else why that cannot be told."""
    marks: list[Row] = [
        {"unscored_reason": case.problem or _error(response), "expected": case.expected or None}
        for response, case in zip(responses, cases, strict=True)
    ]
    for kind, filters in EXACT_FILTERS.items():
        read = [
            (place, case.read)
            for place, case in enumerate(cases)
            if case.read and case.read["type"] == kind and not responses[place].error
        ]
        texts = text_column(responses[place].text for place, _ in read)
        readings = exact_results(texts, [check for _, check in read], filters)
        for (place, _), reading in zip(read, readings, strict=True):
            marks[place] |= _mark(reading)
    for suite, places in by_suite([case.check for case in cases]):
        probes = [probe for _, probe in places]
        rows = [answer_row(responses[place], suite.name, probe) for place, probe in places]
        results = probe_results(with_probes(suite, probes), rows)
        for (place, _), result in zip(places, results, strict=True):
            marks[place] = result
    return marks


def _mark(reading: ExactResult | None) -> Row:
    assert reading is not None, "there are filters"
    return {
        "passed": reading.flexible.passed,
        "extracted": reading.flexible.extracted,
        "strict_passed": reading.strict.passed,
        "flexible_passed": reading.flexible.passed,
    }


def _error(response: Response) -> str | None:
    return None if response.error is None else f"the answer ended with an error: {response.error}"
