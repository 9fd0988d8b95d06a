"""Exact match: answers read by pipelines of filters, strict and flexible, a whole suite at once.

The checks' own readers (`scoring.checks`) understand prose; these do not, and are what other harnesses report: strict
takes an answer only in the form that was asked for, flexible takes the last thing that could be one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ml_pipeline.scoring.checks import number_agrees, shortened
from ml_pipeline.scoring.filter_numbers import number_values
from ml_pipeline.scoring.filters import extract
from ml_pipeline.scoring.numbers import find_numbers
from ml_pipeline.suites.filters import FilterPipelines
from ml_pipeline.suites.schema import NumberCheck

DEFAULT_PIPELINES: Mapping[str, FilterPipelines] = {
    "number": FilterPipelines.of("strip_thinking plain marked number", "strip_thinking plain last_number"),
    "choice": FilterPipelines.of("strip_thinking plain marked letter", "strip_thinking plain last_letter"),
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
        strict = _readings(extract(chosen, pipelines.strict), wanted)
        flexible = _readings(extract(chosen, pipelines.flexible), wanted)
        for place, *both in zip(places, strict, flexible, strict=True):
            results[place] = ExactResult(*both)
    return results


def _readings(extracted: pa.Array, checks: Sequence[Mapping[str, Any]]) -> list[Reading]:
    texts = pc.utf8_trim_whitespace(extracted).to_pylist()
    values = number_values(extracted).to_pylist()
    return [
        Reading(text and shortened(text), text is not None and _agrees(check, text, value))
        for check, text, value in zip(checks, texts, values, strict=True)
    ]


def _agrees(check: Mapping[str, Any], text: str, value: float | None) -> bool:
    match check["type"]:
        case "number":
            if isinstance(check["value"], str):
                number = next(find_numbers(text), None)
                return number is not None and number_agrees(NumberCheck.model_validate(check), number)
            return value is not None and _near(check, value * 100 if check.get("percent") and "%" in text else value)
        case "phrase":
            fold = str if check.get("case_sensitive") else str.casefold
            return fold(text) in {fold(phrase) for phrase in check["accept"]}
        case "output":
            return text == str(check["text"]).strip()
        case _:
            return text.casefold() == str(check["answer"]).casefold()


def _near(check: Mapping[str, Any], value: float) -> bool:
    # The margin takes up the rounding of binary fractions, as in `scoring.checks`.
    wanted: float = check["value"]
    tolerance: float = check.get("tolerance", 1e-6)
    return abs(value - wanted) <= tolerance + 1e-12 * max(1.0, abs(wanted))
