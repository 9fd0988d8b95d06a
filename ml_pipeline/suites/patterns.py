"""Regular expressions of users, matched by RE2 (through Arrow), which takes time linear in the text.

Python's own engine backtracks: `(a+)+b` on a long answer would hang a run. RE2 knows neither look-around nor
back-references; both are refused when the suite is loaded.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

MAX_PATTERN_CHARS = 1000


def pattern_problem(pattern: str) -> str | None:
    """Say what is wrong with a pattern, or None when RE2 takes it."""
    if len(pattern) > MAX_PATTERN_CHARS:
        return f"the pattern has {len(pattern)} characters, the limit is {MAX_PATTERN_CHARS}"
    try:
        matches_empty = _matches(pattern, "")
    except (pa.ArrowInvalid, UnicodeEncodeError) as error:
        return f"not a regular expression that RE2 takes ({error}); it knows no look-around and no back-reference"
    return "the pattern matches the empty text, so every answer would pass" if matches_empty else None


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
