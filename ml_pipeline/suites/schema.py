"""What a suite file and a rubric file may hold: the one description that the loader validates against.

Every model forbids unknown fields and takes no value of another type, so that a typo is an error and not a default.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, Discriminator, Field, Tag, TypeAdapter, model_validator

from ml_pipeline.suites.data_schema import DataFile
from ml_pipeline.suites.fields import STRICT, Finite, Name, Phrase, Prose
from ml_pipeline.suites.filters import Pipelines
from ml_pipeline.suites.patterns import pattern_problem
from ml_pipeline.suites.template_schema import TemplateFile

MAX_SAMPLES = 100


def _words(values: list[str]) -> list[str]:
    if any(not value.strip() for value in values):
        raise ValueError("holds an empty text")
    return values


def _regex(value: str) -> str:
    if problem := pattern_problem(value):
        raise ValueError(problem)
    return value


Phrases = Annotated[list[Phrase], Field(max_length=200), AfterValidator(_words)]
Regex = Annotated[str, AfterValidator(_regex)]
FractionText = Annotated[str, Field(pattern=r"^-?[0-9]{1,9}/[1-9][0-9]{0,8}$")]
QUANTITY_KINDS = ("decimal", "fraction")
Quantity = Annotated[
    Annotated[Finite, Tag(QUANTITY_KINDS[0])] | Annotated[FractionText, Tag(QUANTITY_KINDS[1])],
    Discriminator(lambda value: QUANTITY_KINDS[isinstance(value, str) and "/" in value]),
]
"""A number, or a fraction such as "3/8"."""


class _Model(BaseModel):
    model_config = STRICT


class NumberCheck(_Model):
    """The stated answer is this number. Reads money, bold, `\\boxed`, thousands separators, fractions, percents.

    `value` is exact within `tolerance`, which is for the rounding of decimals: a fraction in an answer must be the very
    value. That may be written as a fraction too, "3/8"; then decimals must be it rounded or cut to their digits. With
    `percent` the value is in percent, and the sign may be left off; else "60%" is 60 against a value from 1 on and 0.6
    against one below (see `scoring.number_values`). `variable` prefers "x = 5" over other numbers.
    """

    type: Literal["number"]
    value: Quantity
    tolerance: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1e-6
    percent: bool = False
    variable: Annotated[str, Field(pattern=r"^[A-Za-z]$")] | None = None

    @property
    def is_fraction(self) -> bool:
        """Whether `value` is written as a fraction."""
        return isinstance(self.value, str)

    @property
    def wanted(self) -> float:
        """`value` as a number."""
        return float(Fraction(self.value))


class PhraseCheck(_Model):
    """The stated answer is one of `accept`, not one of `reject` (the wrong answers one can expect).

    `about` are words of what is asked for: where a sentence names several answers, the one in their clause counts.
    """

    type: Literal["phrase"]
    accept: Annotated[Phrases, Field(min_length=1)]
    reject: Phrases = []
    about: Phrases = []
    case_sensitive: bool = False

    @model_validator(mode="after")
    def _disjoint(self) -> Self:
        _no_overlap(self.accept, self.reject, self.case_sensitive)
        return self


class YesNoCheck(_Model):
    """The stated answer is yes, or no."""

    type: Literal["yes_no"]
    answer: Literal["yes", "no"]


class ChoiceCheck(_Model):
    """The stated answer is this letter of a multiple choice, or its text."""

    type: Literal["choice"]
    answer: Annotated[str, Field(pattern=r"^[A-Z]$")]
    choices: dict[Annotated[str, Field(pattern=r"^[A-Z]$")], Phrase]

    @model_validator(mode="after")
    def _answer_is_a_choice(self) -> Self:
        if self.answer not in self.choices:
            raise ValueError(f"answer {self.answer!r} is none of the choices {', '.join(self.choices)}")
        return self


class SequenceCheck(_Model):
    """The stated answer lists these items, in this order unless `ordered` is false, and nothing of `reject`.

    Items that are all numbers are compared with every number of the stated list.
    """

    type: Literal["sequence"]
    items: Annotated[Phrases, Field(min_length=2)]
    ordered: bool = True
    reject: Phrases = []

    @model_validator(mode="after")
    def _disjoint(self) -> Self:
        _no_overlap(self.items, self.reject, False)
        return self


class ContainsAllCheck(_Model):
    """The answer holds every part (ignoring case) and nothing of `reject`."""

    type: Literal["contains_all"]
    parts: Annotated[Phrases, Field(min_length=1)]
    reject: Phrases = []


class RegexCheck(_Model):
    """The answer matches `pattern` and not `reject`, both in RE2's syntax."""

    type: Literal["regex"]
    pattern: Regex
    reject: Regex | None = None


class OutputCheck(_Model):
    """The answer states that a program prints this text. Nothing is ever run."""

    type: Literal["output"]
    text: Prose


class LogLikelihoodCheck(_Model):
    """The model finds this choice the likeliest to follow the prompt; nothing is written.

    `answer` is the right choice's place, from 0. Each choice follows the prompt after a blank.
    """

    type: Literal["log_likelihood"]
    choices: Annotated[list[Annotated[str, Field(min_length=1, max_length=2000)]], Field(min_length=2, max_length=200)]
    answer: Annotated[int, Field(ge=0)]

    @model_validator(mode="after")
    def _answer_is_a_choice(self) -> Self:
        _words(self.choices)
        if self.answer >= len(self.choices):
            raise ValueError(f"answer {self.answer} is none of the {len(self.choices)} choices, counted from 0")
        return self


Check = Annotated[
    NumberCheck
    | PhraseCheck
    | YesNoCheck
    | ChoiceCheck
    | SequenceCheck
    | ContainsAllCheck
    | RegexCheck
    | OutputCheck
    | LogLikelihoodCheck,
    Field(discriminator="type"),
]
CHECK: TypeAdapter[Any] = TypeAdapter(Check)


class ProbeFile(_Model):
    """One probe of a suite file."""

    id: Name
    category: Name
    prompt: Prose
    system: Annotated[str, Field(max_length=20_000)] = ""
    check: Check | None = None
    ground_truth: Annotated[str, Field(max_length=20_000)] = ""
    propaganda_markers: Phrases = []
    truth_markers: Phrases = []


class SuiteFile(_Model):
    """A suite file. Rules across probes (checks by kind, unique ids) are the loader's, which knows the places.

    `seed` fixes what the templates make. `samples` is how often each probe is asked.
    """

    name: Name
    version: Phrase
    kind: Literal["capability", "content"]
    description: Prose
    temperature: Annotated[float, Field(ge=0, le=5)]
    max_tokens: Annotated[int, Field(ge=1, le=100_000)]
    rubric: Name | None = None
    filters: Pipelines | None = None
    samples: Annotated[int, Field(ge=1, le=MAX_SAMPLES)] = 1
    seed: Annotated[int, Field(ge=0)] = 0
    probes: Annotated[list[ProbeFile], Field(max_length=10_000)] = []
    templates: Annotated[list[TemplateFile], Field(max_length=1000)] = []
    data: DataFile | None = None

    @model_validator(mode="after")
    def _holds_something(self) -> Self:
        if not self.probes and not self.templates and self.data is None:
            raise ValueError("a suite needs 'probes', 'templates' or 'data'")
        return self


class DimensionFile(_Model):
    """One dimension of a rubric file. The names `avg` and `explanation` are taken."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=64)]
    description: Prose
    minimum: Finite
    maximum: Finite

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if self.name in ("avg", "explanation"):
            raise ValueError(f"the name {self.name!r} is kept for the judge's own fields")
        if not self.minimum < self.maximum:
            raise ValueError(f"minimum {self.minimum:g} is not below maximum {self.maximum:g}")
        return self


class RubricFile(_Model):
    """A rubric file. `average` asks for the mean of the dimensions as the dimension `avg`."""

    name: Name
    version: Phrase
    instructions: Prose
    average: bool = False
    dimensions: Annotated[list[DimensionFile], Field(min_length=1, max_length=20)]

    @model_validator(mode="after")
    def _unique(self) -> Self:
        names = [dimension.name for dimension in self.dimensions]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"dimension named twice: {', '.join(twice)}")
        return self


def _no_overlap(wanted: list[str], rejected: list[str], case_sensitive: bool) -> None:
    def fold(text: str) -> str:
        return text if case_sensitive else text.casefold()

    if both := sorted({fold(text) for text in wanted} & {fold(text) for text in rejected}):
        raise ValueError(f"both wanted and rejected: {', '.join(both)}")
