"""The pipelines of small named filters with which a suite reads answers, as lm-evaluation-harness has them.

    filters:
      strict: [strip_thinking, after_hashes, number]
      flexible: [strip_thinking, plain, last_number]

Each filter takes what the one before it left. `regex: <pattern>` is the filter that takes the pattern's first group,
or its whole match where it has none. What the names do is `scoring.filters`' matter. `filters: lm_eval/gsm8k` stands
for the very filters of that task of lm-evaluation-harness.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from ml_pipeline.suites.patterns import pattern_problem

FILTER_NAMES: tuple[str, ...] = (
    *("strip_thinking", "plain", "strip", "lowercase", "first_line", "last_line", "own_answer"),
    *("marked", "after_hashes", "boxed", "after_answer", "bold"),
    *("number", "first_number", "last_number", "letter", "last_letter", "lm_eval_last_number"),
)
FILTERED_CHECKS: tuple[str, ...] = ("number", "choice", "phrase", "yes_no", "output")
"""Types of checks whose one answer can be compared with what a pipeline leaves."""


class RegexFilter(BaseModel):
    """Take what a pattern (RE2's syntax) finds first."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    regex: str


def _filter(value: Any) -> Any:
    if isinstance(value, RegexFilter):
        return value
    if isinstance(value, dict) and set(value) == {"regex"} and isinstance(value["regex"], str):
        if problem := pattern_problem(value["regex"]):
            raise ValueError(f"regex: {problem}")
        return RegexFilter(regex=value["regex"])
    if isinstance(value, str) and value in FILTER_NAMES:
        return value
    near = get_close_matches(str(value), FILTER_NAMES, n=1)
    hint = f"did you mean {near[0]!r}? Use" if near else "use"
    raise ValueError(f"unknown filter {value!r}; {hint} one of: {', '.join(FILTER_NAMES)}, regex: <pattern>")


Filter = Annotated[str | RegexFilter, BeforeValidator(_filter)]
Filters = Annotated[list[Filter], Field(min_length=1, max_length=20)]


class FilterPipelines(BaseModel):
    """How a suite's answers are read: `strict` only in the form that was asked for, `flexible` wherever they are.

    A suite that has these is marked by the flexible one; strict is reported beside it. `compare`: what is left must
    have the check's "value", or be the same "text" but for commas, dollar signs, case and a full stop at its end, as
    lm-evaluation-harness compares: 18.00 is not 18 to it.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    strict: Filters
    flexible: Filters
    compare: Literal["value", "text"] = "value"

    @classmethod
    def of(cls, strict: str, flexible: str) -> Self:
        """Pipelines of names between white space."""
        return cls(strict=list(strict.split()), flexible=list(flexible.split()))


NAMED_PIPELINES: Mapping[str, FilterPipelines] = MappingProxyType(
    {
        "lm_eval/gsm8k": FilterPipelines(
            strict=[RegexFilter(regex=r"#### (\-?[0-9\.\,]+)")], flexible=["lm_eval_last_number"], compare="text"
        )
    }
)
"""Filters of other programs' tasks by name. lm_eval/gsm8k: the filters strict-match and flexible-extract and the
comparison of lm_eval/tasks/gsm8k/gsm8k.yaml, version 3."""


def _pipelines(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if value not in NAMED_PIPELINES:
        raise ValueError(
            f"unknown filters {value!r}; use {', '.join(NAMED_PIPELINES)}, or a mapping of strict and flexible"
        )
    return NAMED_PIPELINES[value]


Pipelines = Annotated[FilterPipelines, BeforeValidator(_pipelines)]
"""Two pipelines, or the name of some."""
