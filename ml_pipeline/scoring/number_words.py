"""Numbers written out in English words: "forty-two", "one hundred and fifty", "three quarters", "one in three"."""

from __future__ import annotations

import re
from collections.abc import Iterator

_UNITS = [
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
]
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_VALUES = {word: index for index, word in enumerate(_UNITS)} | {word: 10 * index for index, word in enumerate(_TENS, 2)}
_PARTS = {"half": 2, "halves": 2, "third": 3, "thirds": 3, "quarter": 4, "quarters": 4, "fourth": 4, "fourths": 4}
_PARTS |= {"fifth": 5, "fifths": 5, "sixth": 6, "sixths": 6}

_WORD = "(?:" + "|".join(sorted(_VALUES, key=len, reverse=True)) + ")"
_NUMBER = rf"{_WORD}(?:[ -]{_WORD})?(?:[ ]hundred(?:(?:[ ]and)?[ ]{_WORD}(?:[ -]{_WORD})?)?)?"
_WRITTEN = re.compile(
    rf"(?<![\w-])(?:(?P<over>one|two|three|four|five|an?)[ -](?P<part>{'|'.join(_PARTS)})"
    rf"|(?P<some>{_WORD})[ ](?:in|out of)[ ](?P<all>{_WORD})"
    rf"|(?P<number>{_NUMBER}))(?![\w-])",
    re.IGNORECASE,
)
_PRONOUN_BEFORE = re.compile(
    r"\b(?:the|this|that|which|no|each|any|every|only|another|last|first|next)[ ]$", re.IGNORECASE
)
_PRONOUN_AFTER = re.compile(r"[ ](?:of|is|that|who|which|can|has)\b", re.IGNORECASE)


def word_numbers(text: str) -> Iterator[tuple[float, int, int]]:
    """Value, start and end of every number in words; "one" as a pronoun is passed over."""
    for match in _WRITTEN.finditer(text):
        if match["part"]:
            over = _VALUES.get(match["over"].lower(), 1)
            yield over / _PARTS[match["part"].lower()], match.start(), match.end()
        elif match["some"]:
            some, total = _VALUES[match["some"].lower()], _VALUES[match["all"].lower()]
            if total:
                yield some / total, match.start(), match.end()
        elif not (match["number"].lower() == "one" and _is_pronoun(text, match)):
            yield _value(match["number"].lower()), match.start(), match.end()


def _is_pronoun(text: str, match: re.Match[str]) -> bool:
    before = _PRONOUN_BEFORE.search(text, max(0, match.start() - 12), match.start())
    return bool(before or _PRONOUN_AFTER.match(text, match.end()))


def _value(words: str) -> float:
    total = 0
    for word in re.split(r"[ -]", words):
        if word == "hundred":
            total *= 100
        elif word != "and":
            total += _VALUES[word]
    return float(total)
