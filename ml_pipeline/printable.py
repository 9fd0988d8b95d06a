"""Text from another machine, made fit for a terminal, a log and a table."""

from __future__ import annotations

import re
import unicodedata

_PLAIN = re.compile(r"[ -~\n]*")


def printable(value: object, longest: int = 400) -> str:
    """Replace what would move a cursor by spaces, drop white space at the end, and cut to so many characters."""
    text = "".join(character if character.isprintable() else " " for character in str(value).rstrip())
    return text if len(text) <= longest else f"{text[: longest - 3]}..."


def printable_line(text: str, longest: int = 400) -> str:
    """The same for a text of several lines, which become one, with single spaces in place of its white space."""
    return printable(" ".join(text.split()), longest)


def printable_lines(text: str, longest: int = 4000) -> str:
    """The same for a text of several lines, which stay lines; says how much of it was cut."""
    lines = "\n".join(printable(line, longest) for line in text[:longest].splitlines())
    return lines if len(text) <= longest else f"{lines}\n[{len(text) - longest} more characters]"


def without_controls(text: str) -> str:
    """The text with a space for whatever moves a cursor, turns the direction of what follows or is not seen at all;
    line breaks and every kind of space stay, and nothing is cut."""
    if text.isprintable() or _PLAIN.fullmatch(text):
        return text
    return "".join(one if _stays(one) else " " for one in text)


def _stays(character: str) -> bool:
    return character.isprintable() or character == "\n" or unicodedata.category(character) == "Zs"
