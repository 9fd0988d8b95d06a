"""Regular expressions of users, matched by RE2 (through Arrow), which takes time linear in the text.

Python's own engine backtracks: `(a+)+b` on a long answer would hang a run. RE2 knows neither look-around nor
back-references; both are refused when the suite is loaded. `(\\pL{90}){90}` is a program of a million steps to RE2
as well, which takes seconds to be made and more to be run: so how large a pattern becomes is counted before.
"""

from __future__ import annotations

import re

import pyarrow as pa
import pyarrow.compute as pc

from ml_pipeline.suites.work import WorkError, spend

MAX_PATTERN_CHARS = 1000
MAX_PATTERN_SIZE = 100_000
_TOKEN = re.compile(
    r"""(?P<property>\\[pP](?:\{[^}]*\}|.)?)
    | (?P<escape>\\(?:x\{[^}]*\}|.)?)
    | (?P<set>\[\^?\]?(?:\[:\^?\w+:\]|\\.|[^\]\\])*\]?)
    | (?P<open>\((?:\?(?:P?<\w*>|[imsU-]*:?))?)
    | (?P<close>\))
    | (?P<times>\{(?P<least>\d{1,9})(?:,(?P<most>\d{0,9}))?\})
    | (?P<any>[^\x00-\x7f]|\.)
    | (?P<other>.)""",
    re.VERBOSE | re.DOTALL,
)
# About what RE2 makes of it, in instructions, where a letter may be of either case: a property is of many ranges.
_SIZES = {"property": 400, "escape": 8, "any": 12, "other": 2}
_GROUP_SIZE = 2
_STEPS_OF_SIZE = 4


def pattern_problem(pattern: str) -> str | None:
    """Say what is wrong with a pattern, or None when RE2 takes it."""
    if len(pattern) > MAX_PATTERN_CHARS:
        return f"the pattern has {len(pattern)} characters, the limit is {MAX_PATTERN_CHARS}"
    if (size := _size(pattern)) > MAX_PATTERN_SIZE:
        return (
            f"the pattern repeats too much: written out it is about {size:,} parts, the limit is {MAX_PATTERN_SIZE:,}"
        )
    try:
        spend(_STEPS_OF_SIZE * size)
    except WorkError as error:
        return str(error)
    try:
        matches_empty = _matches(pattern, "")
    except (pa.ArrowInvalid, UnicodeEncodeError) as error:
        return f"not a regular expression that RE2 takes ({error}); it knows no look-around and no back-reference"
    return "the pattern matches the empty text, so every answer would pass" if matches_empty else None


def _size(pattern: str) -> int:
    """How large the pattern is with all its repetitions written out. What RE2 refuses may have any size."""
    groups, last = [0], 0
    for token in _TOKEN.finditer(pattern):
        kind = token.lastgroup
        if kind == "times":
            # `last` is counted once already.
            times = max(int(token["least"]), int(token["most"] or 0), 1)
            groups[-1] += last * (times - 1)
            last *= times
            continue
        if kind == "open":
            groups.append(_GROUP_SIZE)
            continue
        if kind == "close":
            last = groups.pop()
            groups = groups or [0]
        elif kind == "set":
            last = _SIZES["any"] + len(token[0]) + _SIZES["property"] * len(re.findall(r"\\[pP]", token[0]))
        else:
            last = _SIZES[str(kind)]
        groups[-1] += last
    return sum(groups)


def find_first(pattern: str, text: str) -> str | None:
    """The leftmost match of the pattern, or None. The text must hold no lone surrogates."""
    found: str | None = _leftmost(pattern, pa.array([text]), 1)[0].as_py()
    return found


def first_matches(pattern: str, texts: pa.Array) -> pa.Array:
    """In each text, the first group of the pattern's leftmost match, or the whole match where the pattern has no
    group; null where it does not match or the group took no part."""
    try:
        found = _leftmost(pattern, texts, 2)
    except pa.ArrowInvalid:  # there is no second group, counting the one around the whole
        return _leftmost(pattern, texts, 1)
    return pc.if_else(pc.equal(found, ""), None, found)


def _leftmost(pattern: str, texts: pa.Array, group: int) -> pa.Array:
    whole = rf"(?s:\A.*?)({pattern})(?s:.*\z)"
    found = pc.replace_substring_regex(texts, pattern=whole, replacement=rf"\{group}")
    return pc.if_else(pc.match_substring_regex(texts, pattern=pattern), found, None)


def _matches(pattern: str, text: str) -> bool:
    return bool(pc.match_substring_regex(pa.array([text]), pattern=pattern)[0].as_py())
