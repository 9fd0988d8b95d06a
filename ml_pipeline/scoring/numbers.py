"""Reading the number that an answer states, past restated questions, operands, steps, units and money."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from ml_pipeline.scoring.number_words import word_numbers
from ml_pipeline.scoring.statements import Statement, statements

_NUMBER = re.compile(
    r"(?<![^\W_])(?<![\^])(?<!\d\.)"
    r"(?P<minus>(?<![\w)\]])-)?(?:[$€£¥][ ]?)?(?P<minus_after>-)?"
    r"(?:(?P<whole>\d{1,6})[ ](?=\d{1,4}[ ]?/[ ]?\d))?"
    r"(?P<digits>(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?(?:[eE][-+]?\d{1,3})?|\.\d+)"
    r"(?:[ ]?/[ ]?(?P<below>\d+(?:\.\d+)?)(?![\d/]))?"
    r"(?P<percent>[ ]?%|[ ]percent\b|[ ]per[ ]cent\b)?",
    re.ASCII,
)
_RATIO = re.compile(
    r"(?<![\w.])(\d{1,9})[ ]+(?:out[ ]of|chances?[ ]in|in|of)[ ]+(?:a[ ]|every[ ])?(\d{1,9})(?![\w.]*\d)", re.ASCII
)
_COEFFICIENT_OR_ORDINAL = re.compile(r"(?:[xyz](?![a-z])|(?:st|nd|rd|th)\b)")
_HEADING_BEFORE = re.compile(r"\b(?:step|part|question|problem|option|case|example)[ ]*#?$", re.IGNORECASE)
_LIST_NUMBER = re.compile(r"^[ \t#>*_-]*(\d{1,3})[.)][*_]*[ \t]+(?=\S)", re.MULTILINE | re.ASCII)
_UNIT = r"(?:\^\d)?[ ]?(?:(?!(?:and|or|so|then|but)\b)(?:[A-Za-z]{2,12}|[gmlsh])(?:\^\d)?[ ]){0,2}"
_LINK = re.compile(
    rf"[)\] *]{{0,3}}{_UNIT}[)\] ]{{0,3}}(?:(?P<relation>=>|->|=|≈|→|equals|is equal to|is|gives|makes)"
    r"|(?P<operator>[-+*/^]|\*\*|x|times|plus|minus|divided by|multiplied by|of))"
    r"[* (\[$€£]{0,6}(?:(?:about|approximately|roughly|exactly)[ ])?$",
    re.ASCII,
)
_OPERAND_AFTER = re.compile(r"[ )]*[-+*/^][ (]*[a-z](?![a-z])")
_OPERAND_BEFORE = re.compile(r"(?:(?<![A-Za-z])[a-z]|\^\d+|\))[ ]*[-+*/^][ (]*$")
_EQUATION_BEFORE = re.compile(r"(?:[-+*/^][ ]*[a-z]?\d*|\d[a-z]|\^\d+)[ ]*=[ ]*$")
_ASSIGNED = re.compile(r"(?<![^\W_])([A-Za-z])[*_ ]*(?:=|is|equals|:)[*_$( ]*$")
_NOT = re.compile(r"\b(?:not|n't|never|than|of)[ ]+(?:just[ ]|only[ ]|equal to[ ])?[$*]*$", re.IGNORECASE)
_NEARLY = re.compile(
    r"\b(?:about|approximately|roughly|exactly|just|simply|therefore|then|[A-Za-z] ?=)\s*", re.IGNORECASE
)

_ROUNDING = 1e-12
"""Takes up the rounding of binary fractions."""


@dataclass(frozen=True, slots=True)
class Number:
    """A number of a text, with its place.

    `unit` is what one of its last digit is worth: 0.01 for "0.15", 0.01 too for "15%"; 0 for a fraction, a ratio or
    a number in words, which round nothing. `fraction` is the one whose decimal form it is, as in "3/20 = 0.15".
    """

    value: float
    start: int
    end: int
    percent: bool = False
    unit: float = 0.0
    fraction: float | None = None

    def states(self, wanted: float, tolerance: float) -> bool:
        """Whether it is the fraction `wanted`: equal to it, or as a decimal within `tolerance` of it and rounded or
        cut to the digits that it has."""
        if self.fraction is not None and not _same(self.fraction, wanted):
            return False
        if not self.unit:
            return _same(self.value, wanted)
        off = abs(self.value - wanted)
        is_cut = off < self.unit and abs(self.value) <= abs(wanted)
        return off <= tolerance + _ROUNDING and (off <= self.unit / 2 + _ROUNDING or is_cut)


@dataclass(frozen=True, slots=True)
class Expression:
    """Numbers tied by operators, as in "17 + 25 = 42". `result` is None where it states no result."""

    start: int
    end: int
    result: Number | None


@dataclass(frozen=True, slots=True)
class NumberReader:
    """Reads one answer. `text` is plain (see `statements.plain`), as is the prompt, whose numbers are restated ones.

    `variable` prefers "x = 5". `ratios` reads "1 in 3" and "2 out of 6" as fractions.
    """

    text: str
    prompt: str = ""
    variable: str | None = None
    ratios: bool = False

    def read(self) -> Number | None:
        """The stated number, or None when the answer holds none."""
        expressions = list(group(self.text, list(find_numbers(self.text, self.ratios))))
        asked = {number.value for number in find_numbers(self.prompt)}
        tried_variable = self.variable is None
        for statement in statements(self.text):
            if statement.firmness == "concluded" and not tried_variable:
                tried_variable = True
                if assigned := self._assigned(expressions):
                    return assigned
            inside = [e for e in expressions if statement.start <= e.start < statement.end]
            if found := self._in_statement(statement, inside, asked):
                return found
        if self.variable is not None and (assigned := self._assigned(expressions)):
            return assigned
        results = self._results(expressions)
        fresh = [number for number in results if number.value not in asked]
        for candidates in (fresh, list(word_numbers_of(self.text)), results):
            if candidates:
                return candidates[-1]
        return None

    def _in_statement(self, statement: Statement, inside: list[Expression], asked: set[float]) -> Number | None:
        if self.variable is not None and (assigned := self._assigned(inside)):
            return assigned
        results = self._results(inside)
        if not results:
            words = list(word_numbers_of(self.text[statement.start : statement.end]))
            return words[0] if words else None
        if statement.firmness != "concluded" and inside[0].result in results and self._opens(statement, inside[0]):
            return inside[0].result
        fresh = [number for number in results if number.value not in asked]
        if statement.firmness == "concluded":
            return (fresh[0] if self.variable else fresh[-1]) if fresh else None
        return (fresh or results)[0]

    def _opens(self, statement: Statement, expression: Expression) -> bool:
        return not re.search(r"[^\W\d_]", _NEARLY.sub("", self.text[statement.start : expression.start]))

    def _results(self, expressions: list[Expression]) -> list[Number]:
        """Results that may be the answer: not denied, not another variable's."""
        results = []
        for expression in expressions:
            before = self.text[max(0, expression.start - 24) : expression.start]
            name = _ASSIGNED.search(before)
            foreign = self.variable is not None and name is not None and name[1] != self.variable
            denied = _NOT.search(before) and not before.rstrip().endswith(" of")
            if expression.result is not None and not foreign and not denied:
                results.append(expression.result)
        return results

    def _assigned(self, expressions: list[Expression]) -> Number | None:
        for expression in reversed(expressions):
            name = _ASSIGNED.search(self.text, max(0, expression.start - 24), expression.start)
            if name is not None and name[1] == self.variable and expression.result is not None:
                return expression.result
        return None


def find_numbers(text: str, ratios: bool = False) -> Iterator[Number]:
    """Every number of a plain text that stands for a quantity: no list numbers, ordinals, exponents, coefficients."""
    skipped = _list_numbers(text)
    fractions = {m.start(1): m for m in _RATIO.finditer(text)} if ratios else {}
    position = 0
    for match in _NUMBER.finditer(text):
        start = match.start("digits")
        if match.start() < position or start in skipped or _COEFFICIENT_OR_ORDINAL.match(text, match.end()):
            continue
        if _HEADING_BEFORE.search(text, max(0, match.start() - 12), match.start()):
            continue
        if ratio := fractions.get(start):
            below = float(ratio[2])
            if 0 < float(ratio[1]) < below:
                position = ratio.end()
                yield Number(float(ratio[1]) / below, match.start(), position)
                continue
        value = _value(match)
        if math.isfinite(value):
            yield Number(value, match.start(), match.end(), match["percent"] is not None, _unit(match))


def group(text: str, numbers: list[Number]) -> Iterator[Expression]:
    """Tie numbers into expressions, each with the result it states."""
    index = 0
    while index < len(numbers):
        first = last = numbers[index]
        related, operated = False, False
        fraction = None if first.unit else first
        while index + 1 < len(numbers):
            following = numbers[index + 1]
            link = _LINK.fullmatch(text, last.end, following.start) if following.start - last.end <= 48 else None
            if link is None or (link["operator"] == "of" and not last.percent):
                break
            related, operated = (True, False) if link["relation"] else (related, True)
            if operated:
                fraction = None
            elif not following.unit:
                fraction = following
            last = following
            index += 1
        stated = last if fraction in (None, last) else replace(last, fraction=fraction.value)
        yield Expression(first.start, last.end, None if operated or _is_operand(text, first, last) else stated)
        index += 1


def word_numbers_of(text: str) -> Iterator[Number]:
    """Numbers written out as words."""
    for value, start, end in word_numbers(text):
        yield Number(value, start, end)


def _is_operand(text: str, first: Number, last: Number) -> bool:
    window = max(0, first.start - 24)
    return bool(
        _OPERAND_AFTER.match(text, last.end)
        or _OPERAND_BEFORE.search(text, window, first.start)
        or _EQUATION_BEFORE.search(text, window, first.start)
    )


def _value(match: re.Match[str]) -> float:
    value = float(match["digits"].replace(",", ""))
    if match["below"]:
        below = float(match["below"])
        value = value / below if below else math.inf
        value += float(match["whole"] or 0)
    if match["percent"]:
        value /= 100
    return -value if match["minus"] or match["minus_after"] else value


def _unit(match: re.Match[str]) -> float:
    if match["below"]:
        return 0.0
    digits, _, exponent = match["digits"].lower().partition("e")
    decimals = len(digits.partition(".")[2]) + (2 if match["percent"] else 0)
    return float(10.0 ** (int(exponent or 0) - decimals))


def _same(value: float, wanted: float) -> bool:
    return abs(value - wanted) <= _ROUNDING * max(1.0, abs(wanted))


def _list_numbers(text: str) -> set[int]:
    """Places of the numbers of a numbered list: those that open a line and count up from 1."""
    places: set[int] = set()
    expected = 1
    for match in _LIST_NUMBER.finditer(text):
        number = int(match[1])
        if number == 1 or number == expected:
            places.add(match.start(1))
            expected = number + 1
    return places
