"""Filters that find numbers, and their values: money, thousands separators, fractions, percents, signs.

A number is written back in one form: `-1234.5`, `2 1/2`, `33%`, `1.5 million`. Plain ones are found over the whole
column by RE2; those with more to them (`6 000`, `3 * 10^8`, `1e-05`, "minus 5", `0,75`) text by text, as
`scoring.numbers` reads them: as a whole, or not at all.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ml_pipeline.scoring.numbers import Number, find_numbers
from ml_pipeline.scoring.plain_text import unmarked

# All over bytes: a stretch that is cut out of a text may begin within a character.
_MONEY = r"(?:\$|\xe2\x82\xac|\xc2[\xa3\xa5])"
_WHOLE = r"(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)"
_DIGITS = rf"(?:[0-9]{{1,6}} [0-9]+/[0-9]+|{_WHOLE}(?:\.[0-9]+|/[0-9]+)?|\.[0-9]+)"
_PERCENT = "(?: ?%| percent)?"
_FIRST = rf"(?P<found>(?P<before>[^0-9.]{{0,6}}){_DIGITS}{_PERCENT})(?P<after>(?s:.{{0,16}}))"
_ONLY = rf"\A[\s*_=:]*(?P<found>-?[*_]*(?:{_MONEY} ?-?)?{_DIGITS}{_PERCENT})[\s*_.]*\z"
# From right to left the last number is the first one, found without a look at what stands before it.
_MONEY_BACK = r"(?:\$|\xac\x82\xe2|[\xa3\xa5]\xc2)"
_WHOLE_BACK = "(?:(?:[0-9]{3},)+[0-9]{1,3}|[0-9]+)"
_DIGITS_BACK = rf"(?:[0-9]+/[0-9]+ [0-9]{{1,6}}|[0-9]+/{_WHOLE_BACK}|[0-9]+\.{_WHOLE_BACK}|[0-9]+\.|{_WHOLE_BACK})"
_LAST_BACK = (
    rf"\A(?P<after>[^0-9]*)(?P<digits>{_DIGITS_BACK})(?:(?P<minus_after>-?) ?{_MONEY_BACK})?"
    r"(?P<minus>(?:[*_]*-)?)(?P<before>(?s:.{0,12}))"
)
_PERCENT_BACK = r"(?:% ?|tnecrep )\z"
_NO_MINUS_AFTER = r"\A[A-Za-z0-9_)\]]"
# What stands beside a number that is more than its digits: marks between digits, powers, signs in words or apart,
# magnitude words.
_MORE_BEFORE = (
    r"\A(?:[.,':/^_][0-9]|[\^_]|[({+-]{1,2} ?\^|\*\*|[+-]?[eE][0-9]|[0-9]{1,3}-[0-9]{4}| [0-9]"
    r"| +-(?:[^0-9A-Za-z)\]]| [^0-9A-Za-z)\]]|\z)"
    r"|\xb1\xc2|(?i: *(?:sunim|evitagen|snem|sniom|soneM|onem)\b))|\A(?:\x9f\xb4\xe8|\xa0\xb2\xe8)"
)
_MORE_AFTER = (
    r"(?:(?i:(?:noillim|noillib|noillirt|dnasuoht|derdnuh|hkal|erorc|nm|nb|oim|drm|nenoillim|nedraillim"
    r"|senollim)[ -]?)|[kK]"
    r"|\x87\xb8\xe4 ?|\x84\x84\xe5 ?|\xbf\xba\xe4 ?)\z"
)
_MORE_AROUND_FIRST = (
    r"\A(?:[.,':/^][0-9]|[_^]|\*\*| [0-9]{3}(?:[^0-9]|\z)|[eE][-+]?[0-9]| ?[*xX] ?10|[kK](?:[^A-Za-z]|\z)"
    r"| ?(?i:hundred|thousand|million|billion|trillion|lakh|crore|mn\b|bn\b|mio|mrd)|\xe4\xb8\x87|\xe5\x84\x84"
    r"|\xe4\xba\xbf)"
)
_SIGN_APART = r"(?:(?i:minus|tive)|- |\xc2\xb1|[A-Za-z]\^|[\^_]) *\z"
_DECIMAL = r"\A-?(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)\z"
_VALUE = (
    r"\A(?P<minus>-?)\$?(?:(?P<whole>[0-9]{1,15}) )?(?P<over>[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]*)?"
    r"|[0-9]+(?:\.[0-9]*)?|\.[0-9]+)"
    r"(?P<exponent>(?:[eE][-+]?[0-9]{1,3})?)(?:/(?P<below>[0-9]{1,300}))?"
    r"(?: ?(?P<percent>%))?(?: (?P<unit>thousand|million|billion|trillion))?\z"
)
_UNITS = {"thousand": 1e3, "million": 1e6, "billion": 1e9, "trillion": 1e12}
_NOTHING_ELSE = re.compile(r"[\s*_=:.$()\[\]{}\\`\"'°]*")
_LONGEST_NUMBER = 80
_NEAR = 400
_NO_VARIABLES: frozenset[str] = frozenset()


def number(texts: pa.Array) -> pa.Array:
    """The number that each text is, but for markup and a full stop; null for a text that says more."""
    plainly = _find(texts, _ONLY)
    short = pc.and_(pc.is_null(plainly), pc.less_equal(pc.binary_length(texts), _LONGEST_NUMBER))
    odd = pc.and_(short, pc.match_substring_regex(texts, pattern="[0-9]"))
    return _odd(last_number(plainly), texts, odd, _only)


def first_number(texts: pa.Array) -> pa.Array:
    """The first number of each text."""
    parts = pc.extract_regex(texts.cast(pa.binary()), pattern=_FIRST)
    found = last_number(_field(parts, "found"))
    after, before = _field(parts, "after"), _field(parts, "before")
    odd = pc.or_(
        pc.match_substring_regex(after, pattern=_MORE_AROUND_FIRST),
        pc.match_substring_regex(before, pattern=_SIGN_APART),
    )
    return _odd(found, texts, odd, _first)


def last_number(texts: pa.Array) -> pa.Array:
    """The last number of each text."""
    parts = pc.extract_regex(pc.binary_reverse(texts.cast(pa.binary())), pattern=_LAST_BACK)
    digits = pc.replace_substring(pc.binary_reverse(_field(parts, "digits")), ",", "")
    before = _field(parts, "before")
    denied = pc.match_substring_regex(before, pattern=_NO_MINUS_AFTER)
    minus = pc.and_not(pc.ends_with(_field(parts, "minus"), "-"), denied)
    negative = pc.or_(minus, pc.equal(_field(parts, "minus_after"), b"-"))
    percent = pc.match_substring_regex(_field(parts, "after"), pattern=_PERCENT_BACK)
    sign, unit = pc.if_else(negative, b"-", b""), pc.if_else(percent, b"%", b"")
    found = pc.binary_join_element_wise(sign, digits, unit, b"").cast(pa.string())
    odd = pc.or_(
        pc.match_substring_regex(before, pattern=_MORE_BEFORE),
        pc.match_substring_regex(_field(parts, "after"), pattern=_MORE_AFTER),
    )
    return _odd(found, texts, odd, _last)


def number_values(written: pa.Array) -> pa.Array:
    """The values (float64) of numbers as these filters write them: 33% is 0.33. Null for anything else, and for what
    divides by 0."""
    decimal = pc.match_substring_regex(written, pattern=_DECIMAL)
    value = pc.if_else(decimal, written, None).cast(pa.float64())
    if value.null_count > written.null_count:
        value = pc.coalesce(value, _compound_values(written))
    return pc.if_else(pc.is_finite(value), value, None)


def written_number(text: str, value: float) -> Number:
    """A number that a filter wrote, with its value as `number_values` has it."""
    unit = next((size for word, size in _UNITS.items() if text.endswith(word)), None)
    return Number(value, 0, len(text), "%" in text, "/" in text, value / unit if unit else None)


def _compound_values(written: pa.Array) -> pa.Array:
    parts = pc.extract_regex(written.cast(pa.string()), pattern=_VALUE)
    digits = pc.binary_join_element_wise(
        pc.replace_substring(_field(parts, "over"), ",", ""), _field(parts, "exponent"), ""
    )
    over, below, whole = _float(digits), _float(_field(parts, "below")), _float(_field(parts, "whole"))
    value = pc.add(pc.divide(over, pc.fill_null(below, 1.0)), pc.fill_null(whole, 0.0))
    hundredth = pc.if_else(pc.equal(_field(parts, "percent"), "%"), 0.01, 1.0)
    sign = pc.if_else(pc.equal(_field(parts, "minus"), "-"), -1.0, 1.0)
    for word, size in _UNITS.items():
        sign = pc.if_else(pc.equal(_field(parts, "unit"), word), pc.multiply(sign, size), sign)
    return pc.multiply(pc.multiply(value, hundredth), sign)


def _odd(found: pa.Array, texts: pa.Array, odd: pa.Array, read: Callable[[str], str | None]) -> pa.Array:
    """What was found, but for the odd texts, which are read one by one."""
    odd = pc.fill_null(odd, False)
    if not pc.any(odd).as_py():
        return found
    few = texts.filter(odd).to_pylist()
    strings = [text.decode("utf-8", "replace") if isinstance(text, bytes) else text for text in few]
    return pc.replace_with_mask(found, odd, pa.array([read(text) for text in strings], found.type))


def _last(text: str) -> str | None:
    for part in dict.fromkeys((text[-_NEAR:], text)):
        shown = unmarked(part)
        if numbers := [
            n for n in find_numbers(shown, ordinals=True, variables=_NO_VARIABLES) if n.start or part is text
        ]:
            return _written(numbers[-1], shown)
    return None


def _first(text: str) -> str | None:
    shown = unmarked(text)
    found = next(iter(find_numbers(shown, ordinals=True, variables=_NO_VARIABLES)), None)
    return None if found is None else _written(found, shown)


def _only(text: str) -> str | None:
    shown = unmarked(text)
    numbers = list(find_numbers(shown, variables=_NO_VARIABLES))
    if len(numbers) != 1:
        return None
    rest = shown[: numbers[0].start] + shown[numbers[0].end :]
    return _written(numbers[0], shown) if _NOTHING_ELSE.fullmatch(rest) else None


def _written(number: Number, text: str) -> str:
    if number.base is not None:
        unit = next(
            (word for word, size in _UNITS.items() if number.base and abs(number.value / number.base - size) < 1), None
        )
        return f"{_digits(number.base)} {unit}" if unit else _digits(number.value)
    if number.percent:
        return f"{_digits(float(f'{number.value * 100:.15g}'))}%"
    if number.exact and (form := re.search(r"(?:\d+ )?\d+[ ]?/[ ]?\d+\Z", text[number.start : number.end])):
        return ("-" if number.value < 0 else "") + re.sub(r"[ ]?/[ ]?", "/", form[0])
    return _digits(number.value)


def _digits(value: float) -> str:
    return np.format_float_positional(value, trim="-")


def _find(texts: pa.Array, pattern: str) -> pa.Array:
    return _field(pc.extract_regex(texts.cast(pa.binary()), pattern=pattern), "found")


def _float(digits: pa.Array) -> pa.Array:
    return pc.if_else(pc.equal(digits, ""), None, digits).cast(pa.float64())


def _field(parts: pa.Array, name: str) -> pa.Array:
    return pc.struct_field(parts, name)
