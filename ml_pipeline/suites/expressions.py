"""A small expression language for probe templates: numbers, texts, lists, comparison and logic, and nothing else.

It is written as Python is and parsed by Python's own parser, but never run by Python: only the node types below are
walked, only the functions below exist, there are no attributes, comprehensions or keyword arguments, and every value
on the way is bounded in size and depth. Each operation and function takes a time that its operands' sizes bound, not
their values. So an expression of a stranger's suite ends soon and touches nothing.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ml_pipeline.suites.work import spend

MAX_CHARACTERS = 500
MAX_NODES = 200
MAX_NUMBER = 10**15
MAX_LENGTH = 1000
MAX_DEPTH = 32
_MAX_EXPONENT = 64
# Beyond any number of the language, so that more digits give the same: Python makes 10 to that power first.
_MOST_DIGITS = 400
_ITEMS_A_STEP = 2
_TOO_LONG = f"a text or list of more than {MAX_LENGTH} characters or values"

Value = bool | int | float | str | list[Any]
"""What an expression gives; lists hold values."""


class ExpressionError(ValueError):
    """An expression that is not of the language, or that has no value within its bounds."""


@dataclass(frozen=True, slots=True)
class Expression:
    """A checked expression."""

    source: str
    _body: ast.expr

    def value(self, variables: Mapping[str, Value]) -> Value:
        """Its value; raises ExpressionError where it has none: a division by 0, too large, a variable not given."""
        try:
            return _value(self._body, variables)
        except ExpressionError as error:
            raise ExpressionError(f"{self.source!r}: {error}") from error
        except (ArithmeticError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise ExpressionError(f"{self.source!r}: {error}") from error


def parse_expression(source: str) -> Expression:
    """Check an expression once, so that its value can be had many times; raises ExpressionError."""
    if len(source) > MAX_CHARACTERS:
        raise ExpressionError(f"an expression of {len(source)} characters; the limit is {MAX_CHARACTERS}")
    try:
        body = ast.parse(source.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ExpressionError(f"{source!r} is not an expression: {error}") from error
    for count, node in enumerate(ast.walk(body), 1):
        if count > MAX_NODES:
            raise ExpressionError(f"{source!r} has more than {MAX_NODES} parts; compute some of it in a variable")
        if not isinstance(node, _NODES):
            raise ExpressionError(f"{source!r}: {type(node).__name__} is not of this language")
        if isinstance(node, ast.Call) and not (isinstance(node.func, ast.Name) and node.func.id in _FUNCTIONS):
            raise ExpressionError(
                f"{source!r}: unknown function {ast.unparse(node.func)!r}; known are {', '.join(sorted(_FUNCTIONS))}"
            )
        if isinstance(node, ast.Call) and node.keywords:
            raise ExpressionError(f"{source!r}: arguments have no names here")
        if isinstance(node, ast.Constant) and not isinstance(node.value, bool | int | float | str):
            raise ExpressionError(f"{source!r}: {node.value!r} is no number, text, True or False")
    return Expression(source.strip(), body)


def _value(node: ast.expr, variables: Mapping[str, Value]) -> Value:
    def of(inner: ast.expr) -> Any:
        return _value(inner, variables)

    result: Any
    match node:
        case ast.Constant(value=result):
            pass
        case ast.Name(id=name):
            if name not in variables:
                raise ExpressionError(f"no variable {name!r}; known are {', '.join(sorted(variables)) or 'none'}")
            result = variables[name]
        case ast.List(elts=items) | ast.Tuple(elts=items):
            result = [of(item) for item in items]
        case ast.UnaryOp(op=sign, operand=inner):
            result = _UNARY[type(sign)](of(inner))
        case ast.BinOp(left=left, op=sign, right=right):
            result = _binary(sign, of(left), of(right))
        case ast.BoolOp(op=sign, values=parts):
            decides = isinstance(sign, ast.Or)
            result = next((decides for part in parts if bool(of(part)) is decides), not decides)
        case ast.Compare(left=left, ops=signs, comparators=others):
            values = [of(left), *(of(other) for other in others)]
            result = all(_COMPARISONS[type(sign)](a, b) for sign, a, b in zip(signs, values, values[1:], strict=False))
        case ast.IfExp(test=test, body=yes, orelse=no):
            result = of(yes) if of(test) else of(no)
        case ast.Subscript(value=whole, slice=ast.Slice(lower=lower, upper=upper, step=step)):
            result = of(whole)[slice(*(None if end is None else of(end) for end in (lower, upper, step)))]
        case ast.Subscript(value=whole, slice=place):
            result = of(whole)[of(place)]
        case ast.Call(func=ast.Name(id=name), args=arguments):
            result = _FUNCTIONS[name](*(of(argument) for argument in arguments))
        case _:
            raise ExpressionError(f"{type(node).__name__} is not of this language")
    return _bounded(result)


def _binary(sign: ast.operator, left: Any, right: Any) -> Any:
    if isinstance(sign, ast.Add):
        return left + right
    if isinstance(sign, ast.Mult) and isinstance(left, str | list) and isinstance(right, int):
        if len(left) * right > MAX_LENGTH:
            raise ExpressionError(_TOO_LONG)
        return left * right
    if not (isinstance(left, int | float) and isinstance(right, int | float)):
        raise ExpressionError(f"{type(sign).__name__} takes numbers, not {left!r} and {right!r}")
    if isinstance(sign, ast.Pow) and not (0 <= right <= _MAX_EXPONENT):
        raise ExpressionError(f"an exponent outside 0..{_MAX_EXPONENT}")
    return _ARITHMETIC[type(sign)](left, right)


def _bounded(value: Any) -> Value:
    if isinstance(value, int | float) and not abs(value) <= MAX_NUMBER:
        raise ExpressionError(f"a number beyond {MAX_NUMBER:,}")
    if not isinstance(value, bool | int | float | str | list):
        raise ExpressionError(f"{value!r} is no number, text or list")
    size = _size(value, MAX_DEPTH)
    if size > MAX_LENGTH:
        raise ExpressionError(_TOO_LONG)
    spend(1 + size // _ITEMS_A_STEP)
    return value


def _size(value: Any, depth: int) -> int:
    """Characters and numbers in a value, and a list counts for one at least: empty ones take room as well.

    Counting ends above MAX_LENGTH, for the same list may be in a list many times over.
    """
    if not isinstance(value, list):
        return max(1, len(value)) if isinstance(value, str) else 1
    if depth == 0:
        raise ExpressionError(f"lists in lists, more than {MAX_DEPTH} deep")
    total = 0
    for item in value:
        total += _size(item, depth - 1)
        if total > MAX_LENGTH:
            break
    return max(1, total)


def _range(*ends: int) -> list[int]:
    numbers = range(*ends)
    if len(numbers) > MAX_LENGTH:
        raise ExpressionError(_TOO_LONG)
    return list(numbers)


def _pad(number: int, width: int) -> str:
    return str(number).zfill(min(width, MAX_LENGTH))


def _round(number: float, *digits: int) -> float:
    return round(number, *(max(-_MOST_DIGITS, min(digit, _MOST_DIGITS)) for digit in digits))


def _sum(items: Sequence[Any], start: Any = 0) -> Any:
    if not isinstance(start, list):
        return sum(items, start)
    # `sum` itself copies what there is for every list that it adds.
    total = list(start)
    for item in items:
        if not isinstance(item, list):
            raise ExpressionError(f"sum adds lists to a list, not {item!r}")
        total.extend(item)
    return total


def _join(items: Sequence[Any], between: str) -> str:
    texts = [str(item) for item in items]
    if sum(map(len, texts)) + len(between) * (len(texts) - 1) > MAX_LENGTH:
        raise ExpressionError(_TOO_LONG)
    return between.join(texts)


def _reversed(items: Sequence[Any]) -> Sequence[Any]:
    return items[::-1]


_UNARY: dict[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Not: operator.not_,
}
_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda item, items: item in items,
    ast.NotIn: lambda item, items: item not in items,
}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "abs": abs,
    "difference": lambda a, b: sorted(set(a) - set(b)),
    "gcd": math.gcd,
    "index": lambda items, item: items.index(item),
    "intersection": lambda a, b: sorted(set(a) & set(b)),
    "join": _join,
    "len": len,
    "lower": lambda text: text.lower(),
    "max": max,
    "min": min,
    "pad": _pad,
    "range": _range,
    "reversed": _reversed,
    "round": _round,
    "sorted": sorted,
    "sum": _sum,
    "text": str,
    "texts": lambda items: [str(item) for item in items],
    "union": lambda a, b: sorted(set(a) | set(b)),
    "upper": lambda text: text.upper(),
}
_NODES = (
    *(ast.Constant, ast.Name, ast.Load, ast.List, ast.Tuple, ast.Subscript, ast.Slice, ast.Call, ast.IfExp),
    *(ast.UnaryOp, ast.BinOp, ast.BoolOp, ast.Compare, ast.And, ast.Or, ast.Add),
    *_UNARY,
    *_ARITHMETIC,
    *_COMPARISONS,
)
