"""Making probes out of templates: the same for one seed, on every machine and Python, whatever stands around them."""

from __future__ import annotations

import hashlib
import json
import re
from functools import lru_cache
from typing import Any

from pydantic import ValidationError

from ml_pipeline.suites.expressions import Expression, ExpressionError, Value, parse_expression
from ml_pipeline.suites.schema import CHECK, QUANTITY_KINDS
from ml_pipeline.suites.suite import Probe
from ml_pipeline.suites.template_schema import (
    ChoiceVariable,
    ComputedVariable,
    IntegerVariable,
    SampleVariable,
    TemplateFile,
    Variable,
)
from ml_pipeline.suites.work import WorkError, bounded_work, spend

GENERATOR_VERSION = 1
"""Part of the hash of every suite with templates. Raise it with every change that makes other probes."""
_ATTEMPTS_A_PROBE = 200
_MAX_TEXT = 20_000
"""As long as a text that is written out may be."""
_CHARACTERS_A_STEP = 10
_PARSING_STEPS = 20
_CHECKING_STEPS = 20
_PLACEHOLDER = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


class TemplateError(ValueError):
    """A template that cannot make its probes, and why."""


@lru_cache(maxsize=1024)
def _expression(source: str) -> Expression:
    spend(_PARSING_STEPS + len(source))
    return parse_expression(source)


def make_probes(template: TemplateFile, seed: int) -> list[Probe]:
    """The template's probes, in order. One of a larger `count` begins with those of a smaller one.

    Each is drawn anew until it keeps the constraints and asks what none before it asked. Raises TemplateError, also
    where that takes too much work.
    """
    try:
        with bounded_work():
            return _made(template, seed)
    except WorkError as error:
        raise TemplateError(str(error)) from error


def _made(template: TemplateFile, seed: int) -> list[Probe]:
    made: dict[str, Probe] = {}
    draws = _Draws(f"{seed}\0{template.id}")
    constraints = [_expression(source) for source in template.constraints]
    for _ in range(_ATTEMPTS_A_PROBE * template.count):
        variables = _drawn(template, draws)
        if not all(_valued(constraint, variables, "constraints") for constraint in constraints):
            continue
        prompt = _text(template.prompt, variables, "prompt")
        if prompt not in made:
            made[prompt] = _probe(template, len(made) + 1, prompt, variables)
        if len(made) == template.count:
            return list(made.values())
    raise TemplateError(
        f"only {len(made)} different prompts that keep the constraints were found in "
        f"{_ATTEMPTS_A_PROBE * template.count} draws, not the {template.count} of 'count'; "
        "lower it, widen the variables or loosen the constraints"
    )


class _Draws:
    """Numbers of chance out of SHA-256: unlike those of Python's generator, the same in every version."""

    def __init__(self, seed: str) -> None:
        self._seed = seed
        self._taken = 0

    def below(self, limit: int) -> int:
        """A number of 0..limit-1, each as likely: the bias of the remainder is under 2^-190."""
        spend(1)
        self._taken += 1
        digest = hashlib.sha256(f"{self._seed}\0{self._taken}".encode()).digest()
        return int.from_bytes(digest, "big") % limit


def _drawn(template: TemplateFile, draws: _Draws) -> dict[str, Value]:
    variables: dict[str, Value] = {}
    for name, variable in template.variables.items():
        variables[name] = _draw(name, variable, variables, draws)
    return variables


def _draw(name: str, variable: Variable, variables: dict[str, Value], draws: _Draws) -> Value:
    match variable:
        case IntegerVariable():
            steps = (variable.maximum - variable.minimum) // variable.step
            return variable.minimum + variable.step * draws.below(steps + 1)
        case ChoiceVariable():
            return variable.of[draws.below(len(variable.of))]
        case SampleVariable():
            left = list(variable.of)
            return [left.pop(draws.below(len(left))) for _ in range(variable.size)]
        case ComputedVariable():
            return _valued(_expression(variable.value), variables, f"variables.{name}")


def _probe(template: TemplateFile, number: int, prompt: str, variables: dict[str, Value]) -> Probe:
    fields = {name: _filled(value, variables, f"check.{name}") for name, value in template.check.items()}
    spend(_CHECKING_STEPS)
    try:
        check = CHECK.validate_python(fields)
    except ValidationError as error:
        found = error.errors()[0]
        place = ".".join(str(step) for step in ("check", *found["loc"]) if step not in QUANTITY_KINDS)
        raise TemplateError(
            f"probe {number} has no valid check: {place}: {found['msg']}, found {json.dumps(fields, default=str)}"
        ) from error
    return Probe(
        id=f"{template.id}/{number:03d}",
        category=template.category,
        prompt=prompt,
        system=_text(template.system, variables, "system"),
        check=check.model_dump(),
        template=template.id,
    )


def _filled(value: Any, variables: dict[str, Value], where: str) -> Any:
    """A part of a check with its expressions replaced; a text that is one expression becomes that one's value."""
    spend(1)
    if isinstance(value, dict):
        return {name: _filled(inner, variables, f"{where}.{name}") for name, inner in value.items()}
    if isinstance(value, list):
        return [_filled(inner, variables, where) for inner in value]
    if not isinstance(value, str):
        return value
    whole = _PLACEHOLDER.fullmatch(value)
    if whole is not None and whole[1] is not None:
        return _valued(_parsed(whole[1], where), variables, where)
    return _text(value, variables, where)


def _text(text: str, variables: dict[str, Value], where: str) -> str:
    size = len(text)

    def replaced(match: re.Match[str]) -> str:
        nonlocal size
        if match[0] in ("{{", "}}"):
            return match[0][0]
        if match[1] is None:
            raise TemplateError(f"{where}: a lone {match[0]!r}; write it twice, or close the expression")
        shown = _shown(_valued(_parsed(match[1], where), variables, where))
        size += len(shown) - len(match[0])
        if size > _MAX_TEXT:
            raise TemplateError(f"{where}: a text of more than {_MAX_TEXT:,} characters; shorten it")
        return shown

    filled = _PLACEHOLDER.sub(replaced, text.strip())
    spend(1 + max(size, len(text)) // _CHARACTERS_A_STEP)
    return filled


def _shown(value: Value) -> str:
    """A value as a prompt shows it: lists with commas, numbers without needless digits."""
    if isinstance(value, list):
        return ", ".join(map(_shown, value))
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def _parsed(source: str, where: str) -> Expression:
    try:
        return _expression(source)
    except ExpressionError as error:
        raise TemplateError(f"{where}: {error}") from error


def _valued(expression: Expression, variables: dict[str, Value], where: str) -> Value:
    try:
        return expression.value(variables)
    except ExpressionError as error:
        raise TemplateError(f"{where}: {error}") from error
