"""Turning pydantic's findings into sentences with line, field, allowed values and the likeliest correction."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from ml_pipeline.suites.schema import Check
from ml_pipeline.suites.template_schema import Variable
from ml_pipeline.yaml_file import YamlFile


def _by_type(union: Any) -> dict[str, type[BaseModel]]:
    return {get_args(model.model_fields["type"].annotation)[0]: model for model in get_args(get_args(union)[0])}


_CHECKS, _VARIABLES = _by_type(Check), _by_type(Variable)


def describe(error: ValidationError, model: type[BaseModel], file: YamlFile) -> list[str]:
    """One sentence for each finding, in the order of the file."""
    found = [(file.line(details["loc"]), _sentence(details, model, file)) for details in error.errors()]
    return [f"line {line}: {sentence}" for line, sentence in sorted(found, key=lambda pair: pair[0])]


def _sentence(details: ErrorDetails, model: type[BaseModel], file: YamlFile) -> str:
    location = list(_written(details["loc"], file.content))
    kind, value, context = details["type"], details["input"], details.get("ctx", {})
    path = _path(location)
    if kind == "extra_forbidden":
        fields = _fields_beside(location, model, file.content)
        near = get_close_matches(str(location[-1]), fields, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known fields: {', '.join(fields)}."
        return f"unknown field {path}; {hint}"
    if kind == "missing":
        return f"the field {path} is missing."
    if kind == "union_tag_not_found":
        return f"{path} needs a 'type', one of: {', '.join(_types(location))}."
    if kind == "union_tag_invalid":
        what = "variable" if "variables" in location else "check"
        return f"{path}.type: unknown {what} type {context['tag']!r}; {_one_of(str(context['tag']), _types(location))}"
    if kind == "literal_error":
        allowed = [part.strip("' ") for part in str(context["expected"]).replace(" or ", ", ").split(",")]
        return f"{path}: {value!r} is not allowed; {_one_of(str(value), allowed)}"
    if kind == "string_type":
        return f"{path}: expected text, found {_found(value)}; put it in quotes."
    if kind == "value_error":
        return f"{path}: {context['error']}."
    return f"{path}: {details['msg']}, found {_found(value)}."


def _written(location: tuple[int | str, ...], content: Any) -> Iterator[str | int]:
    """The steps of a location that the file holds; the last is kept, for it may be a missing field. Pydantic puts
    the type of a check or variable in between, and that of a number at the end, which are no steps of the file."""
    for index, step in enumerate(location):
        holds = (isinstance(content, dict) and step in content) or (
            isinstance(content, list) and isinstance(step, int) and step < len(content)
        )
        if holds:
            content = content[step]
            yield step
        elif index == len(location) - 1 and not (
            not isinstance(content, dict | list)
            or (step in _CHECKS and location[index - 1] == "check")
            or (step in _VARIABLES and location[index - 2] == "variables")
        ):
            yield step


def _types(location: list[str | int]) -> dict[str, type[BaseModel]]:
    """What may stand as 'type' at a place of the file, with its model."""
    return _VARIABLES if "variables" in location else _CHECKS


def _path(location: list[str | int]) -> str:
    text = ""
    for step in location:
        text += f"[{step}]" if isinstance(step, int) else f".{step}"
    return text.lstrip(".") or "the file"


def _fields_beside(location: list[str | int], model: type[BaseModel], content: Any) -> list[str]:
    """Names of the fields that may stand where an unknown one stood."""
    current: type[BaseModel] | None = model
    for index, step in enumerate(location[:-1]):
        content = content[step]
        if isinstance(step, int) or current is None:
            continue
        if step == "check" or location[index - 1 : index] == ["variables"]:
            current = _types(location).get(content.get("type", "")) if isinstance(content, dict) else None
        else:
            current = _model_in(current.model_fields[step].annotation) if step in current.model_fields else None
    return list(current.model_fields) if current else []


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_in(part))), None)


def _one_of(value: str, allowed: Iterable[str]) -> str:
    near = get_close_matches(value, allowed, n=1)
    return f"use one of: {', '.join(allowed)}." + (f" Did you mean {near[0]!r}?" if near else "")


def _found(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."
