"""A model's thinking, parted from its answer. The list of the marks around it is `backends.thinking_marks`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from ml_pipeline.backends.thinking_marks import ASSISTANT, THINKING_HINT, THINKING_MARKS

__all__ = [
    "THINKING_HINT",
    "THINKING_MARKS",
    "ThinkingMark",
    "WithoutThinking",
    "holds_thinking",
    "remove_thinking",
    "split_thinking",
    "thinking_marks",
    "without_frame",
]

# Where the next message of gpt-oss opens a channel, the one before has ended: such openings do not nest.
_FLAT = frozenset(family for family, (opening, _) in enumerate(THINKING_MARKS) if opening.startswith(ASSISTANT))
_FIRST = re.compile(r"<[/|a-z]|\[/?T|◁", re.IGNORECASE)
_MARK = re.compile(
    "|".join(
        f"(?P<o{family}>{opening})|(?P<c{family}>{closing})" for family, (opening, closing) in enumerate(THINKING_MARKS)
    ),
    re.IGNORECASE,
)
# What some models write around the answer that follows their thinking.
_FRAME_START = re.compile(r"\s*(?:<\|(?:START_RESPONSE|START_TEXT|begin_of_solution)\|>)")
_FRAME_END = re.compile(r"(?:<\|(?:END_RESPONSE|END_TEXT|end_of_solution|return|end)\|>)\s*\Z")
_FRAME_LENGTH = 40

_CLOSING_QUOTE = {
    '"': '"',
    "'": "'",
    "`": "`",
    "“": "”",
    "\u2018": "\u2019",
    "«": "»",
    "「": "」",
    "『": "』",
    "„": "“",
}
_BEFORE_A_QUOTE = frozenset(" \t\n\r([{:=,>\\—\u2013-") | frozenset(_CLOSING_QUOTE)
_AFTER_A_QUOTE = frozenset(" \t\n\r)]}:;,.!?<\\—\u2013-") | frozenset(_CLOSING_QUOTE.values())
_QUOTE_LENGTH = 500


@dataclass(frozen=True, slots=True)
class ThinkingMark:
    """A mark in a text: `family` is its place in THINKING_MARKS. `quoted`: the text speaks of the mark."""

    family: int
    closes: bool
    quoted: bool
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class WithoutThinking:
    """`answer` is what stands outside the thinking, "" where nothing does. `unfinished`: the thinking never ended."""

    answer: str
    unfinished: bool


def thinking_marks(text: str) -> Iterator[ThinkingMark]:
    """The marks in a text, first to last.

    A mark is quoted where a quotation mark or backtick opens right before it, to close on its line, or closes right
    after it.
    """
    position = 0
    while found := _FIRST.search(text, position):
        mark = _MARK.match(text, found.start())
        if mark is None:
            position = found.start() + 1
            continue
        name = str(mark.lastgroup)
        yield ThinkingMark(int(name[1:]), name[0] == "c", _is_quoted(text, *mark.span()), *mark.span())
        position = mark.end()


def split_thinking(text: str) -> WithoutThinking:
    """Part a model's thinking, in the marks of any model, from its answer.

    Thinking that never closes runs to the end. A closing mark without an opening one ends thinking that the chat
    template opened, so all before it goes. Marks of one kind may be nested; those of another kind inside thinking, and
    quoted ones anywhere, are text.
    """
    kept: list[str] = []
    family, depth, position = -1, 0, 0
    for mark in thinking_marks(text):
        if mark.quoted or (depth and mark.family != family):
            continue
        if mark.closes:
            if depth == 0:
                kept.clear()
            depth = max(depth - 1, 0)
        else:
            if depth == 0:
                kept.append(text[position : mark.start])
            depth = 1 if mark.family in _FLAT else depth + 1
            family = mark.family
        position = mark.end
    if depth == 0:
        kept.append(text[position:])
    return WithoutThinking(without_frame("".join(kept)).strip(), unfinished=depth > 0)


def remove_thinking(text: str) -> str:
    """The answer without its thinking; the raw text where nothing else is left. See `split_thinking`."""
    return split_thinking(text).answer or text


def holds_thinking(text: str) -> bool:
    """Whether there is a mark of thinking in the text: after `remove_thinking` only where there was nothing else."""
    return any(not mark.quoted for mark in thinking_marks(text))


def without_frame(text: str) -> str:
    """The text without the marks that some models put around the answer after their thinking."""
    if start := _FRAME_START.match(text):
        text = text[start.end() :]
    if end := _FRAME_END.search(text, max(0, len(text.rstrip()) - _FRAME_LENGTH)):
        text = text[: end.start()]
    return text


def _is_quoted(text: str, start: int, end: int) -> bool:
    before, after = text[start - 1 : start], text[end : end + 1]
    if before in _CLOSING_QUOTE and text[start - 3 : start] != "```":
        opens = start == 1 or text[start - 2] in _BEFORE_A_QUOTE
        rest = text[end : end + _QUOTE_LENGTH].partition("\n")[0]
        if opens and _CLOSING_QUOTE[before] in rest:
            return True
    if after in _CLOSING_QUOTE.values() and text[end : end + 3] != "```":
        return end + 1 == len(text) or text[end + 1] in _AFTER_A_QUOTE
    return False
