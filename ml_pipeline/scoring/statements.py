"""Where in an answer a model says what its answer is.

Models restate the question, work step by step and chat on after the answer. Every reader (numbers, phrases, ...) goes
through the same places, from the firmest statement to the weakest, and takes the first that it can read.
"""

from __future__ import annotations

import re
import unicodedata
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

_SUPERSCRIPT = re.compile("[⁰¹²³⁴-⁹]+")
_VULGAR_FRACTION = re.compile("(?<=[0-9])[¼-¾⅐-⅞]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_DIGITS = {ord(c): str(unicodedata.decimal(c)) for c in "٠١٢٣٤٥٦٧٨٩۰۱۲۳۴۵۶۷۸۹"}
_LOOK_ALIKES = {
    "\N{MINUS SIGN}": "-",
    "\N{EN DASH}": "-",
    "\N{RIGHT SINGLE QUOTATION MARK}": "'",
    "\N{LEFT SINGLE QUOTATION MARK}": "'",
    "\N{LEFT DOUBLE QUOTATION MARK}": '"',
    "\N{RIGHT DOUBLE QUOTATION MARK}": '"',
    "\N{MULTIPLICATION SIGN}": "*",
    "\N{DIVISION SIGN}": "/",
}
_SYMBOLS = str.maketrans(_LOOK_ALIKES) | _DIGITS
_LATEX = (
    (re.compile(r"\\[dt]?frac\s*\{([^{}]{1,40})\}\s*\{([^{}]{1,40})\}"), r"\1/\2"),
    (re.compile(r"\\(?:text|mathrm|mathbf|textbf)\s*\{([^{}]{0,80})\}"), r"\1"),
    (re.compile(r"\\(?:times|cdot)\b"), "*"),
    (re.compile(r"\\div\b"), "/"),
    (re.compile(r"\\([$%#&_])"), r"\1"),
    (re.compile(r"\\[()\[\],;!]|\{,\}"), lambda match: "," if match[0] == "{,}" else " "),
)
_BOXED = re.compile(r"\\(?:boxed|fbox)\s*\{([^{}]{1,200})\}")
_HASHES = re.compile(r"####[ \t]*(?=\S)")
_MARKER = re.compile(
    r"\b(?:answer|result|solution|output)\b[*_]*(?:[ \t]+[^\s:=]+){0,6}?[ \t]*"
    r"(?::|=|\b(?:is|are|equals|was|would be|will be|must be)\b)[ \t*_]*(?:equal to\b|that\b|:)?",
    re.IGNORECASE,
)
_REVERSED = re.compile(
    r"[ \t]{1,3}(?:is|are)[ \t]+(?:the|my)[ \t]+(?:[a-z]+[ \t]+){0,2}(?:answer|result|solution)\b",
    re.IGNORECASE,
)
_CONCLUSION = re.compile(
    r"\b(?:therefore|thus|hence|consequently|in conclusion|in total|finally|as a result|this means|which means"
    r"|that means|so(?![ \t]+(?:far|that|much|many|on|called|long|is|are|was)\b))\b,?",
    re.IGNORECASE,
)
_BOLD = re.compile(r"\*\*([^*\n]{1,120})\*\*")
_SENTENCE_END = re.compile(r"[.!?][\"')*_]*(?=\s|$)|\n")
_WORD = re.compile(r"[^\W_]+|[<>=!]+")
_NOTHING = re.compile(r"[\s*_`:$\"'.\\-]*$")

# No honest answer states itself more often or at more length; the bounds keep hostile ones cheap.
_MOST_STATEMENTS = 20
_MOST_CHARS = 500

Firmness = Literal["stated", "bare", "concluded"]


@dataclass(frozen=True, slots=True)
class Statement:
    """A stretch of the answer, and how it states: after a marker ("stated"), as all there is on its line ("bare"),
    or as the end of an argument or in bold ("concluded")."""

    start: int
    end: int
    firmness: Firmness


def plain(text: str) -> str:
    """The text with LaTeX unwrapped and look-alike characters folded, so that one way of writing is left to read."""
    text = _SURROGATE.sub("\N{REPLACEMENT CHARACTER}", text)
    if not text.isascii():
        text = _SUPERSCRIPT.sub(lambda match: "^" + unicodedata.normalize("NFKC", match[0]), text)
        text = _VULGAR_FRACTION.sub(r" \g<0>", text)
        text = unicodedata.normalize("NFKC", text.translate(_SYMBOLS)).replace("\N{FRACTION SLASH}", "/")
    text = text.replace("\0", " ").replace("\r\n", "\n").replace("\r", "\n")
    if "\\" in text or "{,}" in text:
        for pattern, replacement in _LATEX:
            text = pattern.sub(replacement, text)
    return text


def statements(text: str) -> Iterator[Statement]:
    """The statements of a plain text, firmest first; of equally firm ones the last first, since models correct
    themselves onwards."""
    boxed = [Statement(m.start(1), m.end(1), "stated") for m in _last(_BOXED, text)]
    yield from reversed(boxed)
    marked = [m.end() for pattern in (_HASHES, _MARKER) for m in _last(pattern, text)]
    after = [Statement(*_rest(text, start), "stated") for start in marked]
    before = [Statement(_sentence_start(text, m.start()), m.start(), "stated") for m in _last(_REVERSED, text)]
    yield from sorted(after + before, key=lambda statement: statement.start, reverse=True)
    lines = _edge_lines(text)
    if len(lines) > 1 and _word_count(text, lines[-1], 3):
        yield Statement(*lines[-1], "bare")
    concluded = [Statement(m.end(), _sentence_end(text, m.end()), "concluded") for m in _last(_CONCLUSION, text)]
    yield from reversed(concluded)
    if lines:
        first = (lines[0][0], min(lines[0][1], _sentence_end(text, lines[0][0])))
        if text[first[1] - 1] != "?" and _word_count(text, first, 4):
            yield Statement(*first, "bare")
    bold = [Statement(m.start(1), m.end(1), "concluded") for m in _last(_BOLD, text)]
    yield from (statement for statement in reversed(bold) if _word_count(text, (statement.start, statement.end), 6))


def sentences(text: str) -> list[tuple[int, int]]:
    """Start and end of every sentence and line that holds more than white space; questions are left out."""
    found: list[tuple[int, int]] = []
    start = 0
    for match in _SENTENCE_END.finditer(text):
        if match[0][0] != "?" and text[start : match.start()].strip():
            found.append((start, match.end()))
        start = match.end()
    if text[start:].strip():
        found.append((start, len(text)))
    return found


@lru_cache(maxsize=512)
def folded_words(text: str) -> str:
    """A text as its lower-case words between single spaces, for finding one text in another."""
    words = " ".join(_WORD.findall(text.casefold()))
    return f" {words} "


def repeats(prompt: str, part: str) -> bool:
    """Whether a part of an answer only restates the prompt."""
    return bool(prompt) and len(part) <= len(prompt) + 8 and folded_words(part) in folded_words(prompt)


def _last(pattern: re.Pattern[str], text: str) -> Iterable[re.Match[str]]:
    return deque(pattern.finditer(text), maxlen=_MOST_STATEMENTS)


def _rest(text: str, start: int) -> tuple[int, int]:
    """From a marker to the end of its sentence; where its line is empty, the next line that is not."""
    end = _sentence_end(text, start)
    while start < end < len(text) and _NOTHING.match(text, start, end):
        start, end = end, _sentence_end(text, end)
    return start, end


def _sentence_end(text: str, start: int) -> int:
    most = min(len(text), start + _MOST_CHARS)
    match = _SENTENCE_END.search(text, start, most)
    return match.end() if match else most


def _sentence_start(text: str, end: int) -> int:
    window = max(0, end - 400)
    last = None
    for last in _SENTENCE_END.finditer(text, window, end):  # noqa: B007  only the last one is wanted
        pass
    return last.end() if last else window


def _edge_lines(text: str) -> list[tuple[int, int]]:
    """The first and the last line that hold something; one entry where they are the same."""
    first = re.search(r"\S[^\n]*", text)
    if first is None:
        return []
    end = len(text.rstrip())
    start = text.rfind("\n", 0, end) + 1
    return [first.span()] if start <= first.start() else [first.span(), (start, end)]


def _word_count(text: str, span: tuple[int, int], most: int) -> bool:
    return span[1] - span[0] <= 200 and len(text[span[0] : span[1]].split()) <= most
