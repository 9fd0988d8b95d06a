from __future__ import annotations

from time import perf_counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_pipeline.suites.expressions import MAX_NUMBER, ExpressionError, Value, parse_expression

VARIABLES: dict[str, Value] = {"a": 7, "b": 2, "word": "lamp", "items": [3, 1, 2], "rows": [["cow", 4], ["ant", 6]]}


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("a + b * 3 - 1", 12),
        ("(a + b) * 3", 27),
        ("a // b", 3),
        ("a % b", 1),
        ("a / b", 3.5),
        ("-a ** b", -49),
        ("a > b and not a == 7 or b <= 2", True),
        ("1 < b < a", True),
        ("1 < b > a", False),
        ("'odd' if a % 2 else 'even'", "odd"),
        ("False and a / 0", False),
        ("word[::-1]", "pmal"),
        ("word[1] + upper(word[0])", "aL"),
        ("rows[1][0]", "ant"),
        ("items[-1]", 2),
        ("items[:2] + [a]", [3, 1, 7]),
        ("'ab' * 2", "abab"),
        ("2 in items and 'am' in word", True),
        ("5 not in items", True),
        ("sum(items) + len(word) + max(items) - min(items)", 12),
        ("sorted(items)", [1, 2, 3]),
        ("reversed(items)", [2, 1, 3]),
        ("index(items, 2)", 2),
        ("texts(items)", ["3", "1", "2"]),
        ("join(items, '-')", "3-1-2"),
        ("pad(5, 2) + text(a)", "057"),
        ("intersection(items, [2, 3, 9])", [2, 3]),
        ("union(items, [9])", [1, 2, 3, 9]),
        ("difference(items, [2])", [1, 3]),
        ("range(1, 8, 3)", [1, 4, 7]),
        ("gcd(12, 18) + abs(-2) + round(2.6)", 11),
    ],
)
def test_values_by_hand(source: str, value: Value) -> None:
    assert parse_expression(source).value(VARIABLES) == value


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("__import__('os').system('id')", "Attribute is not of this language|unknown function"),
        ("word.upper()", "unknown function 'word.upper'"),
        ("word.__class__", "Attribute is not of this language"),
        ("[x for x in items]", "ListComp is not of this language"),
        ("(lambda: 1)()", "unknown function|Lambda"),
        ("eval('1')", "unknown function 'eval'; known are abs, "),
        ("sorted(items, reverse=True)", "arguments have no names|keyword is not of this language"),
        ("max(*items)", "Starred is not of this language"),
        ("f'{a}'", "not of this language"),
        ("{1: 2}", "Dict is not of this language"),
        ("a := 3", "not an expression"),
        ("(a := 3)", "NamedExpr is not of this language"),
        ("a; b", "not an expression"),
        ("", "not an expression"),
        ("a +", "not an expression"),
        ("\0", "not an expression"),
        ("b'bytes'", "no number, text, True or False"),
        ("1j", "no number, text, True or False"),
        ("None", "no number, text, True or False"),
        ("...", "no number, text, True or False"),
        ("1 << 400", "LShift is not of this language"),
        ("+".join("1" * 240), "more than 200 parts"),
        ("1" * 501, "the limit is 500"),
        ("-" * 480 + "1", "more than 200 parts|not an expression"),
        ("(" * 249 + "1" + ")" * 249, "not an expression"),
    ],
)
def test_what_is_not_of_the_language_is_refused_before_it_runs(source: str, message: str) -> None:
    with pytest.raises(ExpressionError, match=message):
        parse_expression(source)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("c + 1", "no variable 'c'; known are a, b, items, rows, word"),
        ("a / 0", "division by zero"),
        ("a % 0", "by zero"),
        ("10 ** 60", "beyond"),
        ("9 ** 9 ** 9", "exponent outside 0..64"),
        ("2 ** -1", "exponent outside"),
        ("1e999", "beyond"),
        ("word * 10 ** 9", "text or list of more than 1000"),
        ("[word * 200] * 200", "text or list of more than 1000"),
        ("[[[items] * 30] * 30] * 30", "text or list of more than 1000"),
        ("range(10 ** 12)", "text or list of more than 1000"),
        ("range(1, 9, 0)", "must not be zero"),
        ("pad(1, 10 ** 12) + pad(1, 10 ** 12)", "text or list of more than 1000"),
        ("'%1000000000d' % 1", "Mod takes numbers"),
        ("word - 1", "Sub takes numbers"),
        ("word + 1", "concatenate"),
        ("word < 1", "not supported"),
        ("items[9]", "out of range"),
        ("max([])", "empty"),
        ("len(1)", "has no len"),
        ("abs(1, 2)", "argument"),
        ("upper(1)", "upper"),
        ("intersection(rows, rows)", "unhashable"),
    ],
)
def test_what_has_no_value_says_why(source: str, message: str) -> None:
    expression = parse_expression(source)
    with pytest.raises(ExpressionError, match=message):
        expression.value(VARIABLES)


@given(st.text(alphabet="ab1290+-*/%<>=()[], 'ifelsnotrd.", max_size=60))
def test_any_text_ends_soon_in_a_value_or_an_error_of_its_own(source: str) -> None:
    started = perf_counter()
    try:
        value = parse_expression(source).value(VARIABLES)
    except ExpressionError:
        value = 0
    assert isinstance(value, bool | int | float | str | list)
    assert not isinstance(value, int) or abs(value) <= MAX_NUMBER
    assert perf_counter() - started < 1
