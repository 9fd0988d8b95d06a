"""Reading the list that an answer states: things in an order, or the members of a set."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ml_pipeline.scoring.number_words import word_numbers
from ml_pipeline.scoring.numbers import find_numbers
from ml_pipeline.scoring.phrases import Mention, find_mentions, folded
from ml_pipeline.scoring.plain_text import unmarked
from ml_pipeline.scoring.statements import repeats, sentences, statements

_SEPARATOR = re.compile(r"[\s,;:>=*&→|(){}\[\]\"'-]*(?:(?:and|then)\b)?[\s*\"'({\[-]*(?:(?:the|a)[ ])?", re.IGNORECASE)

_REMARK = re.compile(r"\((?=[^()\n]*[^\W\d_]{3})[^()\n]{1,300}\)")
_ORDER = re.compile(r"\b([^\W\d_]{3,})[ ]+to[ ]+(?:the[ ]+)?([^\W\d_]{3,})")


@dataclass(frozen=True, slots=True)
class ListReader:
    """Reads the list that a plain text states. `items` and `reject` are what may be on it; items that are all
    numbers stand for every number."""

    text: str
    items: Sequence[str]
    reject: Sequence[str] = ()
    prompt: str = ""

    @classmethod
    def of(cls, text: str, items: Sequence[str], reject: Sequence[str] = (), prompt: str = "") -> ListReader:
        """A reader of plain texts as they are."""
        return cls(folded(text), items, reject, folded(prompt))

    def read(self) -> list[str] | None:
        """The stated items, each once, in the order that the prompt asks for; None when the answer names none."""
        stated = self._read()
        return stated[::-1] if stated and self._is_reversed() else stated

    def _is_reversed(self) -> bool:
        """Whether the answer names the other end first: "right to left" where the prompt says "left to right"."""
        wanted = set(_ORDER.findall(self.prompt))
        given = _ORDER.findall(self.text)
        return any((last, first) in wanted for first, last in given) and not wanted & set(given)

    def _read(self) -> list[str] | None:
        mentions = self._mentions(self.text)
        runs = self._runs(self.text, mentions)
        for statement in statements(self.text):
            inside = [m for m in mentions if statement.start <= m.start < statement.end]
            within = [run for run in runs if statement.start <= run[0].start < statement.end]
            if found := self._pick(within) or (inside if _covers(inside, self.items) else None):
                return _names(found)
        if found := self._pick(runs):
            return _names(found)
        for start, end in reversed(sentences(self.text)):
            inside = [m for m in mentions if start <= m.start < end]
            if _covers(inside, self.items):
                return _names(inside)
        restated = [span for span in sentences(self.text) if repeats(self.prompt, self.text[slice(*span)])]
        own = [m for m in mentions if not any(start <= m.start < end for start, end in restated)]
        return _names(own) or None

    def _mentions(self, text: str) -> list[Mention]:
        shown = unmarked(text)
        if all(_is_number(item) for item in self.items):
            numbers = [
                Mention(f"{number.value:g}", number.start, number.end) for number in find_numbers(shown, lists=True)
            ]
            return numbers or [Mention(f"{word.value:g}", word.start, word.end) for word in word_numbers(shown)]
        return find_mentions(shown, [*self.items, *self.reject])

    def _runs(self, text: str, mentions: list[Mention]) -> list[list[Mention]]:
        """Mentions with nothing but commas, arrows, line ends or "and" between them: two at least."""
        runs: list[list[Mention]] = []
        for mention in mentions:
            gap_start = runs[-1][-1].end if runs else -1
            near = runs and mention.start - gap_start <= 24
            if near and _SEPARATOR.fullmatch(_without_numbering(text[gap_start : mention.start])):
                runs[-1].append(mention)
            else:
                runs.append([mention])
        return [run for run in runs if len(run) > 1]

    def _pick(self, runs: list[list[Mention]]) -> list[Mention] | None:
        """The last run that is long enough and that the prompt does not hold; the longest where none is."""
        asked = {tuple(_names(run)) for run in self._runs(self.prompt, self._mentions(self.prompt))}
        fresh = [run for run in runs if tuple(_names(run)) not in asked]
        fresh = self._outside_asides(fresh) or fresh
        long_enough = [run for run in fresh if len(_names(run)) >= len(self.items)]
        return long_enough[-1] if long_enough else max(fresh, key=len, default=None)

    def _outside_asides(self, runs: list[list[Mention]]) -> list[list[Mention]]:
        """The runs that are not in a bracketed remark: "3 and 5 (1 and 7 are only in P)"."""
        asides = [m.span() for m in _REMARK.finditer(self.text)]
        return [run for run in runs if not any(start < run[0].start < end for start, end in asides)]


def canonical_items(items: Sequence[str]) -> list[str]:
    """The items as `ListReader.read` names them."""
    return [f"{float(item):g}" if _is_number(item) else item for item in items]


def _names(mentions: Sequence[Mention]) -> list[str]:
    return list(dict.fromkeys(mention.phrase for mention in mentions))


def _covers(mentions: Sequence[Mention], items: Sequence[str]) -> bool:
    return set(canonical_items(items)) <= {mention.phrase for mention in mentions}


def _is_number(item: str) -> bool:
    return re.fullmatch(r"-?\d{1,15}(?:\.\d{1,15})?", item, re.ASCII) is not None


def _without_numbering(gap: str) -> str:
    return re.sub(r"\n[ ]*\d{1,2}[.)]", "\n", gap)
