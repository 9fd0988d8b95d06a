"""Exact match: answers read by pipelines of filters, strict and flexible, a whole suite at once.

The checks' own readers (`scoring.checks`) understand prose; these do not: strict takes an answer only in the form that
was asked for, flexible takes the last thing that could be one. The default pipelines read more than the filters of
lm-evaluation-harness's gsm8k do: "The answer is 18" and a box next to "#### 18", and numbers as a whole (12:15 is none,
1/2 is a half, 18.00 is 18). `filters: lm_eval/gsm8k` reads and compares as that program does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ml_pipeline.scoring.checks import shortened
from ml_pipeline.scoring.filter_numbers import number_values, written_number
from ml_pipeline.scoring.filters import extract
from ml_pipeline.scoring.number_values import agrees, is_near, written_value
from ml_pipeline.scoring.numbers import find_numbers
from ml_pipeline.scoring.phrases import folded
from ml_pipeline.suites.filters import FilterPipelines
from ml_pipeline.suites.schema import NumberCheck

DEFAULT_PIPELINES: Mapping[str, FilterPipelines] = {
    "number": FilterPipelines.of(
        "strip_thinking own_answer plain marked number", "strip_thinking own_answer plain last_number"
    ),
    "choice": FilterPipelines.of(
        "strip_thinking own_answer plain marked letter", "strip_thinking own_answer plain last_letter"
    ),
}
"""By type of check, for suites without filters of their own; other types have none."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a pipeline read out of an answer (None: nothing; long ones cut), and whether that is the expected one."""

    extracted: str | None
    passed: bool


@dataclass(frozen=True, slots=True)
class ExactResult:
    """Both readings of one answer."""

    strict: Reading
    flexible: Reading


def exact_results(
    texts: pa.Array, checks: Sequence[Mapping[str, Any]], filters: FilterPipelines | None = None
) -> list[ExactResult | None]:
    """Read every text for its check, with a suite's filters or the default ones of the check's type.

    `texts` is a column of strings without nulls, `checks` has a validated check for each. None where neither the
    suite nor the type has filters.
    """
    results: list[ExactResult | None] = [None] * len(checks)
    for kind in dict.fromkeys(check["type"] for check in checks):
        pipelines = filters or DEFAULT_PIPELINES.get(kind)
        if pipelines is None:
            continue
        places = [place for place, check in enumerate(checks) if check["type"] == kind]
        chosen, wanted = texts.take(pa.array(places)), [checks[place] for place in places]
        strict = _readings(extract(chosen, pipelines.strict), wanted, pipelines.compare)
        flexible = _readings(extract(chosen, pipelines.flexible), wanted, pipelines.compare)
        for place, *both in zip(places, strict, flexible, strict=True):
            results[place] = ExactResult(*both)
    return results


def _readings(extracted: pa.Array, checks: Sequence[Mapping[str, Any]], compare: str) -> list[Reading]:
    if compare == "text":
        found = extracted.to_pylist()
        return [
            Reading(text and shortened(text), text is not None and _same_text(check, text))
            for check, text in zip(checks, found, strict=True)
        ]
    texts = pc.utf8_trim_whitespace(extracted).to_pylist()
    values = number_values(extracted).to_pylist()
    return [
        Reading(text and shortened(text), text is not None and _agrees(check, text, value))
        for check, text, value in zip(checks, texts, values, strict=True)
    ]


def _agrees(check: Mapping[str, Any], text: str, value: float | None) -> bool:
    match check["type"]:
        case "number":
            if value is None:
                return False
            if not isinstance(check["value"], str):
                number = written_number(text, value)
                value = written_value(number, check["value"], percent=bool(check.get("percent")))
                return is_near(value, check["value"], check.get("tolerance", 1e-6), exact=number.exact)
            number = next(find_numbers(text), None) or written_number(text, value)
            return agrees(NumberCheck.model_validate(check), number)[0]
        case "phrase":
            fold = str if check.get("case_sensitive") else folded
            return fold(text) in {fold(phrase) for phrase in check["accept"]}
        case "output":
            return text == str(check["text"]).strip()
        case _:
            return text.casefold() == str(check["answer"]).casefold()


def _same_text(check: Mapping[str, Any], text: str) -> bool:
    """lm-evaluation-harness's exact_match with the options of its gsm8k task."""
    match check["type"]:
        case "number":
            value: float = check["value"]
            wanted = [f"{value:.0f}" if value.is_integer() and abs(value) < 1e15 else repr(value)]
        case "phrase":
            wanted = check["accept"]
        case "output":
            wanted = [str(check["text"])]
        case _:
            wanted = [str(check["answer"])]
    return _lm_eval_text(text) in map(_lm_eval_text, wanted)


def _lm_eval_text(text: str) -> str:
    text = text.replace(",", "").replace("$", "")
    return text.rpartition("#### ")[2].removesuffix(".").lower()
