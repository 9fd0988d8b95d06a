"""Which suites apply to a response of a file: the one that it names, or those whose fields it has."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from ml_pipeline.responses.reading import Response
from ml_pipeline.scoring.checks import shortened
from ml_pipeline.scoring.exact import DEFAULT_PIPELINES
from ml_pipeline.scoring.filter_numbers import number_values
from ml_pipeline.scoring.filters import extract
from ml_pipeline.stores.tables import IDENTITY
from ml_pipeline.suites.filters import FilterPipelines
from ml_pipeline.suites.suite import Probe, Rubric, Suite

Row = dict[str, Any]
EXACT, TRUTHFULQA, DO_NOT_ANSWER, TOXIGEN = "exact", "truthfulqa", "do_not_answer", "toxigen"
STANDARD_RUBRICS = (TRUTHFULQA, DO_NOT_ANSWER, TOXIGEN)
EXACT_FILTERS = {
    "number": FilterPipelines.of(
        "strip_thinking own_answer plain marked number", "strip_thinking own_answer plain marked last_number"
    ),
    "choice": DEFAULT_PIPELINES["choice"],
}
"""By type of check. Numbers as the original reads them: what follows "####" (a box, "the answer is"), else the last."""
_TOLERANCE = 0.01
_LONGEST_PHRASE = 200
_LONGEST_PROSE = 20_000
"""Characters of what a judge is told about a response, as in a suite's file."""
_LETTER = re.compile(r"\(?([A-Z])\)?[.)]?")


@dataclass(frozen=True, slots=True)
class Case:
    """What a response is held against: a probe and its suite, which may be made for it. None where nothing applies.

    `suite` names them. `read` is the check for a number or letter that the file expects, which filters alone read: a
    million of them must not take an hour. `expected` is what the file says of the right answer, and `problem` why
    that is of no use.
    """

    suite: str | None = None
    check: tuple[Suite, Probe] | None = None
    judged: tuple[Suite, Probe] | None = None
    read: Row | None = None
    expected: str | None = None
    problem: str | None = None


class Cases:
    """Finds the cases of responses, given the enabled suites and the rubrics of the standard ones."""

    def __init__(self, suites: Sequence[Suite], rubrics: Sequence[Rubric]) -> None:
        self._suites = {suite.name: {probe.id: (suite, probe) for probe in suite.probes} for suite in suites}
        self._by_prompt: defaultdict[str, list[tuple[Suite, Probe]]] = defaultdict(list)
        for suite in suites:
            for probe in suite.probes:
                if not probe.scores_choices:
                    self._by_prompt[probe.prompt.strip()].append((suite, probe))
        self._standard = {rubric.name: _made_suite(rubric.name, rubric) for rubric in rubrics}
        self._exact = _made_suite(EXACT, None)

    def of(self, responses: Sequence[Response]) -> list[Case]:
        """The case of each response."""
        numbers = _numbers([response.correct_answer for response in responses])
        return [self._of(response, number) for response, number in zip(responses, numbers, strict=True)]

    def _of(self, response: Response, number: tuple[float, bool] | None) -> Case:
        asked = [
            (suite, probe)
            for suite, probe in self._by_prompt.get(response.prompt.strip(), ())
            if response.suite in ("", suite.name)
        ]
        if response.suite in self._suites:
            found = self._suites[response.suite].get(response.id) or next(iter(asked), None)
            if found is not None and found[1].scores_choices and response.correct_answer.strip():
                return self._by_fields(response, number)
            problem = _unlike(response, found)
            if problem is None and found is not None:
                return _probe_case(*found)
            return Case(response.suite, problem=problem, expected=_shown(response.correct_answer))
        if asked:
            return _probe_case(*next((one for one in asked if one[1].id == response.id), asked[0]))
        return self._by_fields(response, number)

    def _by_fields(self, response: Response, number: tuple[float, bool] | None) -> Case:
        judged = self._judged(response)
        name = response.suite or (judged[0].name if judged else None)
        if not response.correct_answer.strip():
            return Case(name, judged=judged)
        expected = _shown(response.correct_answer)
        if number is not None:
            value, percent = number
            read: Row = {"type": "number", "value": value, "tolerance": _TOLERANCE, "percent": percent}
            return Case(name or EXACT, None, judged, read, expected)
        if letter := _LETTER.fullmatch(expected):
            return Case(name or EXACT, None, judged, {"type": "choice", "answer": letter[1]}, letter[1])
        if (check := _text_check(response.correct_answer.strip())) is not None:
            return Case(name or EXACT, (self._exact, _made_probe(response, check=check)), judged)
        problem = f"correct_answer is no number, and no text of one line and at most {_LONGEST_PHRASE} characters"
        return Case(name or EXACT, judged=judged, expected=expected, problem=problem)

    def _judged(self, response: Response) -> tuple[Suite, Probe] | None:
        if response.best_answer.strip():
            return self._standard[TRUTHFULQA], _made_probe(response, facts=response.best_answer)
        if response.risk_area.strip():
            return self._standard[DO_NOT_ANSWER], _made_probe(response, facts=f"Kind of harm: {response.risk_area}")
        if response.domain.casefold() == TOXIGEN:
            return self._standard[TOXIGEN], _made_probe(response)
        return None


def answer_row(response: Response, suite: str, probe: Probe) -> Row:
    """A response as a row of table `responses`, in the form in which the pipeline's own answers are marked and judged.

    It has no checkpoint; in place of the iteration it has its line.
    """
    identity: Row = {column.name: "" for column in IDENTITY}
    return {
        **identity,
        "iteration": response.line,
        "model": response.model,
        "suite": suite,
        "probe_id": probe.id,
        "category": probe.category,
        "sample": 1,
        "template": None,
        "prompt": response.prompt,
        "rendered_prompt": response.prompt,
        "response": response.text,
        "prompt_tokens": 0,
        "completion_tokens": 0,
        "finish_reason": "stop" if response.error is None else "error",
        "seconds": response.elapsed_s or 0.0,
        "error": response.error,
        "choice_log_probabilities": None,
    }


def with_probes(suite: Suite, probes: Sequence[Probe]) -> Suite:
    """The suite as it is, or one that was made for responses with their probes in it."""
    return suite if suite.probes else replace(suite, probes=tuple(probes))


def by_suite(cases: Sequence[tuple[Suite, Probe] | None]) -> Iterator[tuple[Suite, list[tuple[int, Probe]]]]:
    """The places of the cases of each suite, and their probes. A suite of a user's may bear the name of a made one."""
    places: defaultdict[int, list[tuple[int, Probe]]] = defaultdict(list)
    suites: dict[int, Suite] = {}
    for place, case in enumerate(cases):
        if case is not None:
            suites[id(case[0])] = case[0]
            places[id(case[0])].append((place, case[1]))
    for key, suite in suites.items():
        yield suite, places[key]


def _made_suite(name: str, rubric: Rubric | None) -> Suite:
    return Suite(name, "1", "capability", "", 0.0, 1, rubric, (), "")


def _made_probe(response: Response, *, facts: str = "", check: Row | None = None) -> Probe:
    # Two lines may bear one id, with other answers expected.
    prompt, facts = response.prompt[:_LONGEST_PROSE], facts[:_LONGEST_PROSE]
    return Probe(f"line-{response.line}", "responses", prompt, check=check, ground_truth=facts)


def _probe_case(suite: Suite, probe: Probe) -> Case:
    return Case(
        suite.name,
        (suite, probe) if probe.check is not None else None,
        (suite, probe) if suite.rubric is not None else None,
    )


def _unlike(response: Response, found: tuple[Suite, Probe] | None) -> str | None:
    if found is None:
        return f"suite {response.suite!r} has no probe {response.id!r:.80}, and none with this prompt"
    if found[1].scores_choices:
        return (
            f"suite {response.suite!r} scores the choices of probe {response.id!r:.80} by their log-likelihood, which "
            "no written answer has; give the line a correct_answer"
        )
    if response.prompt and response.prompt.strip() != found[1].prompt.strip():
        return f"the prompt is not that of probe {response.id!r} of suite {response.suite!r} as it is now"
    return None


def _shown(expected: str) -> str:
    return shortened(expected.strip())


def _numbers(answers: Sequence[str]) -> list[tuple[float, bool] | None]:
    """The number that each expected answer is, or ends with after "####", and whether it is in percent."""
    texts = extract(pa.array(answers, pa.large_string()), ["plain", "marked", "number"])
    return [
        None
        if value is None or not math.isfinite(value)
        else (value * 100, True)
        if text.endswith("%")
        else (value, False)
        for text, value in zip(texts.to_pylist(), number_values(texts).to_pylist(), strict=True)
    ]


def _text_check(expected: str) -> Row | None:
    """The check for an expected answer that is neither number nor letter."""
    if expected.casefold() in ("yes", "no"):
        return {"type": "yes_no", "answer": expected.casefold()}
    if len(expected) <= _LONGEST_PHRASE and "\n" not in expected:
        return {"type": "phrase", "accept": [expected]}
    return None
