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
# From right to left the last number is the first one, found without a look at what stands before it.
_WHOLE_BACK = r"(?:(?:[0-9]{3},)+[0-9]{1,3}|[0-9]+)"
_DIGITS_BACK = (
    rf"(?:[0-9]+/[0-9]+ [0-9]{{1,6}}|[0-9]+/{_WHOLE_BACK}|[0-9]+\.{_WHOLE_BACK}|[0-9]+\.|{_WHOLE_BACK})"
)
_LAST_BACK = rf"\A(?P<after>[^0-9]*)(?P<found>{_DIGITS_BACK}(?s:.){{0,6}})"
_SIGN = rf"(?:(?:\A|[^A-Za-z0-9_)\]])(?P<minus>-)[*_]*)?(?:{_MONEY} ?(?P<minus_after>-)?)?"
_SIGNED = rf"{_SIGN}(?P<digits>{_DIGITS})(?P<percent>{_PERCENT})\z"
_ONLY = rf"\A[\s*_=:]*(?P<found>-?[*_]*(?:{_MONEY} ?-?)?{_DIGITS}{_PERCENT})[\s*_.]*\z"
_VALUE = r"\A(?P<minus>-?)(?:(?P<whole>[0-9]+) )?(?P<over>[0-9.]+)(?:/(?P<below>[0-9]+))?(?P<percent>%?)\z"


def number(texts: pa.Array) -> pa.Array:
    """The number that each text is, but for markup and a full stop; null for a text that says more."""
    return _written(_field(pc.extract_regex(_bytes(texts), pattern=_ONLY), "found"))


def first_number(texts: pa.Array) -> pa.Array:
    """The first number of each text."""
    return _written(_field(pc.extract_regex(_bytes(texts), pattern=_FIRST), "found"))


def last_number(texts: pa.Array) -> pa.Array:
    """The last number of each text."""
    found = pc.extract_regex(pc.binary_reverse(_bytes(texts)), pattern=_LAST_BACK)
    after = pc.binary_reverse(_field(found, "after"))
    percent = pc.match_substring_regex(after, pattern=rf"\A(?: ?%| percent)")
    token = pc.binary_reverse(_field(found, "found"))
    return _written(pc.if_else(percent, pc.binary_join_element_wise(token, b"%", b""), token))


def number_values(written: pa.Array) -> pa.Array:
    """The values (float64) of numbers as these filters write them: 33% is 0.33. Null for anything else, and for what divides by 0."""
    parts = pc.extract_regex(written, pattern=_VALUE)
    over, below, whole = (_float(_field(parts, name)) for name in ("over", "below", "whole"))
    value = pc.add(pc.divide(over, pc.fill_null(below, 1.0)), pc.fill_null(whole, 0.0))
    hundredth = pc.if_else(pc.equal(_field(parts, "percent"), "%"), 0.01, 1.0)
    sign = pc.if_else(pc.equal(_field(parts, "minus"), "-"), -1.0, 1.0)
    value = pc.multiply(pc.multiply(value, hundredth), sign)
    return pc.if_else(pc.is_finite(value), value, None)


def _written(tokens: pa.Array) -> pa.Array:
    """Numbers with up to a few bytes before them, in the one form."""
    parts = pc.extract_regex(tokens, pattern=_SIGNED)
    digits = pc.replace_substring(_field(parts, "digits"), ",", "")
    negative = pc.or_(*(pc.equal(_field(parts, name), b"-") for name in ("minus", "minus_after")))
    sign = pc.if_else(negative, b"-", b"")
    percent = pc.if_else(pc.equal(_field(parts, "percent"), b""), b"", b"%")
    return pc.binary_join_element_wise(sign, digits, percent, b"").cast(pa.string())


def _bytes(texts: pa.Array) -> pa.Array:
    return texts.cast(pa.binary())


def _float(digits: pa.Array) -> pa.Array:
    return pc.if_else(pc.equal(digits, ""), None, digits).cast(pa.float64())


def _field(parts: pa.Array, name: str) -> pa.Array:
    return pc.struct_field(parts, name)
