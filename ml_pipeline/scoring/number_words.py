"""Numbers written out in English words: "forty-two", "minus five", "twelve thousand", "one in three"."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_UNITS = [
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
]
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_VALUES = {word: index for index, word in enumerate(_UNITS)} | {word: 10 * index for index, word in enumerate(_TENS, 2)}
_VALUES["fourty"] = 40
_POWERS = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_PARTS = {"half": 2, "halves": 2, "third": 3, "thirds": 3, "quarter": 4, "quarters": 4, "fourth": 4, "fourths": 4}
_PARTS |= {"fifth": 5, "fifths": 5, "sixth": 6, "sixths": 6, "seventh": 7, "sevenths": 7, "eighth": 8, "eighths": 8}
_PARTS |= {"ninth": 9, "ninths": 9, "tenth": 10, "tenths": 10, "hundredth": 100, "hundredths": 100}
_PARTS |= {"twelfth": 12, "twelfths": 12, "twentieth": 20, "twentieths": 20}
_ORDINALS = ["first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth"]

_WORD = "(?:" + "|".join(sorted(_VALUES, key=len, reverse=True)) + ")"
_COUNT = "(?:" + "|".join(sorted([*_VALUES, *_POWERS], key=len, reverse=True)) + ")"
_NUMBER = rf"(?:an?[ ](?:{'|'.join(_POWERS)})|{_WORD})(?:(?:[ -]|,[ ]|[ -]and[ -]){_COUNT}){{0,16}}(?![\w]|-{_COUNT})"
_WRITTEN = re.compile(
    rf"(?<![\w-])(?P<minus>(?:minus|negative)[ -]+)?"
    rf"(?:(?:(?P<whole>{_WORD})[ -]and[ -])?(?P<over>{_WORD}|an?)[ -](?P<part>{'|'.join(_PARTS)})"
    rf"|(?P<some>{_WORD})[ -](?:in|out[ -]of)[ -](?:every[ -])?(?P<all>{_WORD})"
    rf"|(?P<number>{_NUMBER}))(?![\w]|-(?!fold))",
    re.IGNORECASE,
)
_ORDINAL = re.compile(rf"(?<![\w-])(?:{'|'.join(_ORDINALS)})(?![\w-])", re.IGNORECASE)
_PRONOUN_BEFORE = re.compile(
    r"\b(?:the|this|that|which|no|each|any|every|only|another|last|first|next|positive|negative|larger|smaller)[ ]\Z",
    re.IGNORECASE,
)
_PRONOUN_AFTER = re.compile(r"[ ](?:of|is|that|who|which|can|has|could|would|should|must|may|does)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class WordNumber:
    """A number in words. `exact`: it is a fraction or a ratio."""

    value: float
    start: int
    end: int
    exact: bool = False


def word_numbers(text: str) -> Iterator[WordNumber]:
    """Every number in words; "one" as a pronoun is passed over. What is no number as a whole is not read."""
    for match in _WRITTEN.finditer(text):
        sign = -1.0 if match["minus"] else 1.0
        start = match.start()
        if match["part"]:
            over = _VALUES.get(match["over"].lower(), 1)
            whole = _VALUES[match["whole"].lower()] if match["whole"] else 0
            part = _PARTS[match["part"].lower()]
            yield WordNumber(sign * (whole + over / part), start, match.end(), exact=True)
        elif match["some"]:
            some, total = _VALUES[match["some"].lower()], _VALUES[match["all"].lower()]
            if total:
                yield WordNumber(some / total, start, match.end(), exact=True)
        elif not (match["number"].lower() == "one" and _is_pronoun(text, match)):
            for value, begin, end in _values(text, *match.span("number")):
                first = begin == match.start("number")
                yield WordNumber(sign * value if first else value, start if first else begin, end)


def word_ordinals(text: str) -> Iterator[WordNumber]:
    """ "first" to "tenth"."""
    for match in _ORDINAL.finditer(text):
        yield WordNumber(float(_ORDINALS.index(match[0].lower()) + 1), *match.span())


def _is_pronoun(text: str, match: re.Match[str]) -> bool:
    before = _PRONOUN_BEFORE.search(text, max(0, match.start() - 12), match.start())
    return bool(before or _PRONOUN_AFTER.match(text, match.end()))


def _values(text: str, start: int, end: int) -> Iterator[tuple[float, int, int]]:
    """The numbers that a run of number words makes: one, or several where "three and five" or "one, two" are two."""
    total, current, begin, last, latest = 0.0, 0.0, -1, "", start
    for match in re.finditer(r"[a-z]+", text[start:end], re.IGNORECASE):
        word = match[0].lower()
        if word in ("and", "a", "an"):
            begin = start + match.start() if begin < 0 else begin
            last = word if word == "and" else last
            continue
        place = start + match.start()
        opens = last == "" and begin >= 0
        joined = opens or (begin >= 0 and _goes_on(word, total, current, last, text[latest:place]))
        if begin >= 0 and not joined:
            yield total + current, begin, latest
            total, current, begin = 0.0, 0.0, place
        begin = place if begin < 0 else begin
        if word in _POWERS:
            power = _POWERS[word]
            if power == 100:
                current = max(current, 1.0) * 100
            else:
                total, current = total + max(current, 1.0) * power, 0.0
        else:
            current += _VALUES[word]
        last, latest = word, start + match.end()
    if begin >= 0:
        yield total + current, begin, latest


def _goes_on(word: str, total: float, current: float, last: str, gap: str) -> bool:
    """Whether a number word belongs to the number before it."""
    if word in _POWERS:
        return bool(current or total)
    if last == "zero":
        return False
    value = _VALUES[word]
    if "and" in gap or "," in gap:
        # "one hundred and five", "two thousand, five hundred"; but "three and five" are two numbers.
        return (current % 100 == 0 and current >= 100) or (current == 0 and total >= 1000)
    if current % 100 == 0:
        return True
    return current % 10 == 0 and current % 100 >= 20 and 0 < value < 10
