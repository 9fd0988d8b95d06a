"""Reading a large JSON object one entry after the other, so that no text can take many times its size in memory.

`json.loads` turns 16 MB of `{"":{"":...}}` into 650 MB of objects before anybody can look at them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from ml_pipeline.json_streams import after_space, expect


def object_entries(text: str, longest: Callable[[str | None], int]) -> Iterator[tuple[str, Any]]:
    """Yield the keys and values of the JSON object that `text` is, in their order, duplicates too.

    `longest` says how many characters a key may have (called with None), and the value of this key. Stricter than
    `json.loads`: NaN and Infinity are no numbers, -0 is a fraction, as readers in other languages take it, and an
    object inside a value has each key once, since nobody could tell which of two counts.

    Raises:
        ValueError: the text is not one JSON object, or something in it is too long.
        RecursionError: a value is nested too deeply.
    """
    position = expect(text, 0, "{")
    if text.startswith("}", position):
        position = expect(text, position, "}")
    else:
        separator = ","
        while separator == ",":
            key, position = _decode(text, position, longest(None))
            if not isinstance(key, str):
                raise ValueError(f"a key was expected before character {position}")
            value, position = _decode(text, expect(text, position, ":"), longest(key))
            yield key, value
            separator = text[position : position + 1]
            position = expect(text, position, "," if separator == "," else "}")
    if position < len(text):
        raise ValueError(f"more follows after the object, at character {position}")


def _decode(text: str, position: int, longest: int) -> tuple[Any, int]:
    """Decode the value that begins here, within `longest` characters; also the place after it and its white space."""
    try:
        value, length = _DECODER.raw_decode(text[position : position + longest])
    except json.JSONDecodeError as error:
        where = position + error.pos
        raise ValueError(f"{error.msg} at character {where}, or longer than {longest} characters") from error
    return value, after_space(text, position + length)


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        (key, times), *_ = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"the key {key!a:.40} appears {times} times")
    return content


def _integer(digits: str) -> int | float:
    return -0.0 if digits == "-0" else int(digits)


def _no_number(word: str) -> NoReturn:
    raise ValueError(f"{word} is no JSON number")


_DECODER = json.JSONDecoder(object_pairs_hook=_distinct, parse_int=_integer, parse_constant=_no_number)
