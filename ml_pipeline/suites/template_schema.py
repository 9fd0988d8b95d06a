"""The fields of a probe template: prompt and check with `{expression}` in them, and the variables that fill those in.

    - id: sum-of-two
      category: arithmetic
      prompt: Add {a} to {b}.
      variables:
        a: {type: integer, minimum: 3, maximum: 40}
        b: {type: integer, minimum: 3, maximum: 40}
      constraints: [a != b]
      check: {type: number, value: "{a + b}"}
      count: 5

Variables are drawn in the order of the file; later ones, constraints and every text may use those before them.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, Field, model_validator

from ml_pipeline.suites.expressions import MAX_NUMBER, Value, parse_expression
from ml_pipeline.suites.fields import STRICT, Name, Prose

MAX_COUNT = 1000


def _expression(source: str) -> str:
    parse_expression(source)
    return source


Source = Annotated[str, AfterValidator(_expression)]
Whole = Annotated[int, Field(ge=-MAX_NUMBER, le=MAX_NUMBER)]
Choices = Annotated[list[Value], Field(min_length=1, max_length=1000)]


class _Model(BaseModel):
    model_config = STRICT


class IntegerVariable(_Model):
    """A whole number: `minimum`, `minimum + step` and so on up to `maximum`, each as likely."""

    type: Literal["integer"]
    minimum: Whole
    maximum: Whole
    step: Annotated[int, Field(ge=1)] = 1

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if self.minimum > self.maximum:
            raise ValueError(f"minimum {self.minimum} is above maximum {self.maximum}")
        return self


class ChoiceVariable(_Model):
    """One of these values, each as likely; a value may be a list whose parts belong together."""

    type: Literal["choice"]
    of: Choices


class SampleVariable(_Model):
    """A list of `size` of these values in an order of chance, none taken twice."""

    type: Literal["sample"]
    of: Choices
    size: Annotated[int, Field(ge=1, le=1000)]

    @model_validator(mode="after")
    def _enough(self) -> Self:
        if self.size > len(self.of):
            raise ValueError(f"size {self.size} is more than the {len(self.of)} values to take from")
        return self


class ComputedVariable(_Model):
    """The value of an expression of the variables before it."""

    type: Literal["computed"]
    value: Source


Variable = Annotated[
    IntegerVariable | ChoiceVariable | SampleVariable | ComputedVariable,
    Field(discriminator="type"),
]


class TemplateFile(_Model):
    """A template: `count` probes with ids `<id>/001` and so on.

    `check` has the fields of a probe's check. A text in it that is one `{expression}` and nothing else takes that
    expression's value, a number or a list too.
    """

    id: Name
    category: Name
    prompt: Prose
    system: Annotated[str, Field(max_length=20_000)] = ""
    variables: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=64)], Variable]
    constraints: Annotated[list[Source], Field(max_length=20)] = []
    check: dict[str, Any]
    count: Annotated[int, Field(ge=1, le=MAX_COUNT)]
