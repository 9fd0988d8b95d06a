"""A JSON schema as a llama.cpp grammar: what the schema does not allow cannot be written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib import import_module
from typing import Any

from ml_pipeline.errors import BackendError

# Keywords that the converter drops without a word. An answer that breaks them would pass for a valid one.
_UNENFORCED = (
    "contains",
    "dependentRequired",
    "dependentSchemas",
    "exclusiveMaximum",
    "exclusiveMinimum",
    "if",
    "maxProperties",
    "minProperties",
    "multipleOf",
    "not",
    "patternProperties",
    "propertyNames",
    "uniqueItems",
)
_LARGEST_RANGE = 1000
_DECIMALS = 2
# JSON forbids bare control characters in strings; the converter's own rule lets them through, and json.loads fails.
_STRICT_CHARACTER = (
    r'[^"\\\x7F\x00-\x1F] | '
    r'"\\" (["\\/bfnrt] | "u" [0-9a-fA-F] [0-9a-fA-F] [0-9a-fA-F] [0-9a-fA-F])'
)


def schema_to_grammar(schema: dict[str, Any]) -> str:
    """Return the GBNF grammar of exactly the JSON documents that `schema` allows, with at most a little white space.

    `minimum` and `maximum` of numbers are kept when both are whole and not negative; numbers so bounded have at most
    two decimals.

    Raises:
        BackendError: the schema asks for something that a grammar cannot hold; every such place is named.
    """
    problems = list(_problems(schema, "$"))
    if problems:
        raise BackendError.from_problems("json_schema", problems, "Leave them out and check the parsed answer instead.")
    try:
        return _convert(schema)
    except BackendError:
        raise
    # The converter signals what it cannot do by assertions, KeyError and others.
    except Exception as error:
        raise BackendError(f"json_schema cannot be turned into a grammar: {type(error).__name__}: {error}") from error


def _convert(schema: dict[str, Any]) -> str:
    converter: Any = import_module("llama_cpp.llama_grammar").SchemaConverter(
        prop_order={}, allow_fetch=False, dotall=False, raw_pattern=False
    )
    general_visit = converter.visit

    def visit(part: dict[str, Any], name: str) -> str:
        if "minimum" in part:
            return str(converter._add_rule(name or "root", _range_rule(part)))
        return str(general_visit(part, name))

    converter.visit = visit
    converter.visit(converter.resolve_refs(json.loads(json.dumps(schema)), "schema"), "")
    if "char" in converter._rules:
        converter._rules["char"] = _STRICT_CHARACTER
    return str(converter.format_grammar())


def _range_rule(part: dict[str, Any]) -> str:
    low, high = int(part["minimum"]), int(part["maximum"])
    whole = [f'"{number}"' for number in range(low, high + 1)]
    if part["type"] == "integer":
        return f"({' | '.join(whole)}) space"
    decimals = f'("." [0-9]{{1,{_DECIMALS}}})?'
    below = f"({' | '.join(whole[:-1])}) {decimals} | " if low < high else ""
    return f'({below}{whole[-1]} ("." "0"{{1,{_DECIMALS}}})?) space'


def _problems(part: Any, where: str) -> Iterator[str]:
    if not isinstance(part, dict):
        return
    yield from (f"{where}: {keyword} cannot be enforced" for keyword in _UNENFORCED if keyword in part)
    if "minimum" in part or "maximum" in part:
        yield from _range_problems(part, where)
    for keyword in ("properties", "$defs", "definitions"):
        for name, child in part.get(keyword, {}).items():
            yield from _problems(child, f"{where}.{name}")
    for keyword in ("items", "additionalProperties"):
        yield from _problems(part.get(keyword), f"{where}.{keyword}")
    for keyword in ("anyOf", "oneOf", "allOf", "prefixItems"):
        for index, child in enumerate(part.get(keyword, ())):
            yield from _problems(child, f"{where}.{keyword}[{index}]")


def _range_problems(part: dict[str, Any], where: str) -> Iterator[str]:
    low, high = part.get("minimum"), part.get("maximum")
    numbers = [bound for bound in (low, high) if isinstance(bound, int | float) and float(bound).is_integer()]
    if part.get("type") not in ("integer", "number"):
        yield f"{where}: minimum and maximum need type integer or number"
    elif len(numbers) < 2 or not 0 <= numbers[0] <= numbers[1] <= numbers[0] + _LARGEST_RANGE:
        yield f"{where}: minimum and maximum must both be whole, 0 or more, and at most {_LARGEST_RANGE} apart"
