"""Reading what an answer says that a program prints. Nothing that a model wrote is ever run."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ml_pipeline.scoring.statements import statements

_FENCE = re.compile(r"```[^\n`]*\n(.*?)(?:\n[ \t]*```|\Z)", re.DOTALL)
_PRINTS = re.compile(
    r"\b(?:prints?|printed|outputs|displays?|shows?)\b[ ]*(?:the[ ]+(?:word|text|string|line)[ ]*)?:?[ \t]*"
    r"(?P<text>[^\n]{1,400})",
    re.IGNORECASE,
)
_ARROW = re.compile(r"→|->|=>")
_QUOTED = re.compile(r"`([^`\n]{1,400})`|\"([^\"\n]{1,400})\"|\*\*([^*\n]{1,400})\*\*|(?<!\w)'([^'\n]{1,400})'(?!\w)")


def stated_output(text: str, expected: str, prompt: str = "") -> str | None:
    """The output that a plain text states, or None. `expected` only tells how many lines are wanted."""
    known = prompt.casefold()
    blocks = [block for block in _FENCE.findall(text) if _normal(block) and _normal(block).casefold() not in known]
    if blocks:
        return _normal(blocks[-1])
    if "\n" in _normal(expected):
        return _normal(text) or None
    stated = [text[statement.start : statement.end] for statement in statements(text)]
    for piece in stated:
        if quoted := list(_quotations(piece)):
            return next((part for part in reversed(quoted) if part.casefold() not in known), quoted[-1])
        if len(_bare(piece).split()) == 1:
            return _bare(piece)
    shown = _ARROW.split(text)
    if len(shown) > 1 and len(_bare(shown[-1]).split()) == 1:
        return _bare(shown[-1])
    for match in reversed(list(_PRINTS.finditer(text))):
        piece = match["text"]
        if quoted := list(_quotations(piece)):
            return quoted[0]
        words = _bare(piece.rpartition(": ")[2] or piece).split()
        if words:
            return words[0].rstrip(".,;:") if len(_normal(expected).split()) == 1 else _bare(piece)
    fresh = [quoted for quoted in _quotations(text) if quoted.casefold() not in known]
    return fresh[-1] if fresh else _bare(text) or None


def same_output(stated: str, expected: str) -> bool:
    """Whether two outputs agree, line ends and trailing white space aside."""
    return _normal(stated) == _normal(expected)


def _quotations(text: str) -> Iterator[str]:
    for match in _QUOTED.finditer(text):
        content = next(part for part in match.groups() if part is not None)
        yield content.strip().strip("\"'`")


def _normal(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.strip("\n \t").splitlines())


def _bare(text: str) -> str:
    return text.strip().lstrip(":").strip().strip("`\"'*").strip().rstrip(".").strip("`\"'*")
