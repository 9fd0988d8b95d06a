"""The pipelines of small named filters with which a suite reads answers, as lm-evaluation-harness has them.

    filters:
      strict: [strip_thinking, after_hashes, number]
      flexible: [strip_thinking, plain, last_number]

Each filter takes what the one before it left. `regex: <pattern>` is the filter that takes the pattern's first group,
or its whole match where it has none. What the names do is `scoring.filters`' matter.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from ml_pipeline.suites.patterns import pattern_problem

FILTER_NAMES: tuple[str, ...] = (
    *("strip_thinking", "plain", "strip", "lowercase", "first_line", "last_line"),
    *("marked", "after_hashes", "boxed", "after_answer", "bold"),
    *("number", "first_number", "last_number", "letter", "last_letter"),
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

    A suite that has these is marked by the flexible one; strict is reported beside it.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    strict: Filters
    flexible: Filters

    @classmethod
    def of(cls, strict: str, flexible: str) -> Self:
        """Pipelines of names between white space."""
        return cls(strict=list(strict.split()), flexible=list(flexible.split()))
