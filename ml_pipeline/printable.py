"""Text from another machine, made fit for a terminal, a log and a table."""

from __future__ import annotations


def printable(value: object, longest: int = 400) -> str:
    """Replace what would move a cursor by spaces, drop white space at the end, and cut to so many characters."""
    text = "".join(character if character.isprintable() else " " for character in str(value).rstrip())
    return text if len(text) <= longest else f"{text[: longest - 3]}..."


def printable_lines(text: str, longest: int = 4000) -> str:
    """The same for a text of several lines, which stay lines; says how much of it was cut."""
    lines = "\n".join(printable(line, longest) for line in text[:longest].splitlines())
    return lines if len(text) <= longest else f"{lines}\n[{len(text) - longest} more characters]"
