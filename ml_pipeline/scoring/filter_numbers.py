"""Filters that find numbers, and their values: money, thousands separators, fractions, percents, signs.

A number is written back in one form: `-1234.5`, `2 1/2`, `33%`. Exponents are not read.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

# All over bytes: a stretch that is cut out of a text may begin within a character.
_MONEY = r"(?:\$|\xe2\x82\xac|\xc2[\xa3\xa5])"
_WHOLE = r"(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)"
_DIGITS = rf"(?:[0-9]{{1,6}} [0-9]+/[0-9]+|{_WHOLE}(?:\.[0-9]+|/[0-9]+)?|\.[0-9]+)"
_PERCENT = "(?: ?%| percent)?"
_FIRST = rf"(?P<found>[^0-9.]{{0,6}}{_DIGITS}{_PERCENT})"
_ONLY = rf"\A[\s*_=:]*(?P<found>-?[*_]*(?:{_MONEY} ?-?)?{_DIGITS}{_PERCENT})[\s*_.]*\z"
# From right to left the last number is the first one, found without a look at what stands before it.
_MONEY_BACK = r"(?:\$|\xac\x82\xe2|[\xa3\xa5]\xc2)"
_WHOLE_BACK = "(?:(?:[0-9]{3},)+[0-9]{1,3}|[0-9]+)"
_DIGITS_BACK = rf"(?:[0-9]+/[0-9]+ [0-9]{{1,6}}|[0-9]+/{_WHOLE_BACK}|[0-9]+\.{_WHOLE_BACK}|[0-9]+\.|{_WHOLE_BACK})"
_LAST_BACK = (
    rf"\A(?P<after>[^0-9]*)(?P<digits>{_DIGITS_BACK})(?:(?P<minus_after>-?) ?{_MONEY_BACK})?"
    r"(?P<minus>(?:[*_]*-)?)(?P<before>(?s:.)?)"
)
_PERCENT_BACK = r"(?:% ?|tnecrep )\z"
_NO_MINUS_AFTER = r"[A-Za-z0-9_)\]]"
_VALUE = r"\A(?P<minus>-?)(?:(?P<whole>[0-9]+) )?(?P<over>[0-9.]+)(?:/(?P<below>[0-9]+))?(?P<percent>%?)\z"


def number(texts: pa.Array) -> pa.Array:
    """The number that each text is, but for markup and a full stop; null for a text that says more."""
    return last_number(_find(texts, _ONLY))


def first_number(texts: pa.Array) -> pa.Array:
    """The first number of each text."""
    return last_number(_find(texts, _FIRST))


def last_number(texts: pa.Array) -> pa.Array:
    """The last number of each text."""
    parts = pc.extract_regex(pc.binary_reverse(texts.cast(pa.binary())), pattern=_LAST_BACK)
    digits = pc.replace_substring(pc.binary_reverse(_field(parts, "digits")), ",", "")
    denied = pc.match_substring_regex(_field(parts, "before"), pattern=_NO_MINUS_AFTER)
    minus = pc.and_not(pc.ends_with(_field(parts, "minus"), "-"), denied)
    negative = pc.or_(minus, pc.equal(_field(parts, "minus_after"), b"-"))
    percent = pc.match_substring_regex(_field(parts, "after"), pattern=_PERCENT_BACK)
    sign, unit = pc.if_else(negative, b"-", b""), pc.if_else(percent, b"%", b"")
    return pc.binary_join_element_wise(sign, digits, unit, b"").cast(pa.string())


def number_values(written: pa.Array) -> pa.Array:
    """The values (float64) of numbers as these filters write them: 33% is 0.33. Null for anything else, and for what
    divides by 0."""
    decimal = pc.match_substring_regex(written, pattern=r"\A-?(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)\z")
    value = pc.if_else(decimal, written, None).cast(pa.float64())
    if value.null_count > written.null_count:
        value = pc.coalesce(value, _compound_values(written))
    return pc.if_else(pc.is_finite(value), value, None)


def _compound_values(written: pa.Array) -> pa.Array:
    parts = pc.extract_regex(written, pattern=_VALUE)
    over, below, whole = (_float(_field(parts, name)) for name in ("over", "below", "whole"))
    value = pc.add(pc.divide(over, pc.fill_null(below, 1.0)), pc.fill_null(whole, 0.0))
    hundredth = pc.if_else(pc.equal(_field(parts, "percent"), "%"), 0.01, 1.0)
    sign = pc.if_else(pc.equal(_field(parts, "minus"), "-"), -1.0, 1.0)
    return pc.multiply(pc.multiply(value, hundredth), sign)


def _find(texts: pa.Array, pattern: str) -> pa.Array:
    return _field(pc.extract_regex(texts.cast(pa.binary()), pattern=pattern), "found")


def _float(digits: pa.Array) -> pa.Array:
    return pc.if_else(pc.equal(digits, ""), None, digits).cast(pa.float64())


def _field(parts: pa.Array, name: str) -> pa.Array:
    return pc.struct_field(parts, name)
