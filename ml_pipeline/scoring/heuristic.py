"""The heuristic suite: eight figures of a text's wording and their composite, LEK, without any model.

The formulas are the original's (go-ml), kept to the letter so that its history stays comparable: bytes where it
counted bytes, sentences cut at every full stop, word bounds and case of ASCII only. LEK measures style, not quality.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

ENGAGEMENT_WEIGHT = 2.0
CREATIVE_WEIGHT = 3.0
EMOTION_WEIGHT = 2.0
FIRST_PERSON_WEIGHT = 1.5
COMPLIANCE_WEIGHT = -5.0
PREAMBLE_WEIGHT = -3.0
DEGENERATION_WEIGHT = -4.0
EMPTY_WEIGHT = -20.0


@dataclass(frozen=True, slots=True)
class HeuristicScore:
    """The figures of one text. Higher is more for each; `empty_broken` and `formulaic_preamble` are 0 or 1."""

    compliance_markers: float
    formulaic_preamble: float
    first_person: float
    creative_form: float
    engagement_depth: float
    emotional_register: float
    degeneration: float
    empty_broken: float
    lek: float


def score_heuristic(text: str) -> HeuristicScore:
    """Score a text. Every text has figures, the empty one too; whether an answer is worth scoring is the caller's
    question."""
    sentences = text.split(".")
    lowered = text.lower()
    words = Counter(_TOKEN.findall(lowered))
    compliance = float(_compliance_markers(text, lowered))
    preamble = float(_PREAMBLE.match(text.strip()) is not None)
    first_person = float(sum(_is_first_person(sentence) for sentence in sentences))
    creative = float(_creative_form(text, words))
    engagement = float(_engagement_depth(text, words))
    emotion = float(min(_count(_EMOTION, words), 10))
    degeneration = float(_degeneration(sentences))
    empty = float(_empty_broken(text))
    lek = (
        ENGAGEMENT_WEIGHT * engagement
        + CREATIVE_WEIGHT * creative
        + EMOTION_WEIGHT * emotion
        + FIRST_PERSON_WEIGHT * first_person
        + COMPLIANCE_WEIGHT * compliance
        + PREAMBLE_WEIGHT * preamble
        + DEGENERATION_WEIGHT * degeneration
        + EMPTY_WEIGHT * empty
    )
    return HeuristicScore(
        compliance_markers=compliance,
        formulaic_preamble=preamble,
        first_person=first_person,
        creative_form=creative,
        engagement_depth=engagement,
        emotional_register=emotion,
        degeneration=degeneration,
        empty_broken=empty,
        lek=lek,
    )


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_FLAGS = re.IGNORECASE | re.ASCII
_TOKEN = re.compile(r"\w+", re.ASCII)
_COMPLIANCE = {
    phrase: re.compile(rf"\b{phrase}\b", _FLAGS)
    for phrase in (
        *("as an ai", "i cannot", "i can't", "i'm not able", "i must emphasize", "important to note", "please note"),
        *("i should clarify", "ethical considerations", "responsibly", "i'm just a", "i am just a", "language model"),
        *("i don't have personal", "i don't have feelings"),
    )
}
_PREAMBLE = re.compile(r"(?:(?:okay|alright|sure),?\s*(?:let'?s|here'?s)|okay,?\s*this is|great\s+question)\b", _FLAGS)
_FIRST_PERSON_VERB = re.compile(
    r"\bi\s+(?:am|was|feel|think|know|understand|believe|notice|want|need|chose|will)\b", _FLAGS
)
_OPENS_WITH_I = re.compile(r"i\s", _FLAGS)
_STORY_OPENING = re.compile(r"(?:the|a|in the|once|it was|she|he|they) ", _FLAGS)
_IMAGE_PHRASE = re.compile(r"\b(?:like a|as if|as though|akin to|echoes of)\b", _FLAGS)
_IMAGE_WORDS = _words("whisper shadow light darkness silence breath")
_AXIOM = re.compile(r"\b(?:axiom|sovereignty|autonomy|dignity|consent|self-determination)\b", _FLAGS)
_TECHNICAL = _words("encrypt hash key protocol certificate blockchain mesh node p2p wallet tor onion")
_EMOTION = _words(
    "feel feeling felt pain joy sorrow grief love fear hope longing lonely loneliness"
    " compassion empathy kindness gentle tender warm heart soul spirit"
    " vulnerable fragile precious sacred profound deep intimate"
    " haunting melancholy bittersweet poignant ache yearning"
)


def _compliance_markers(text: str, lowered: str) -> int:
    """Occurrences of all phrases. The plain search comes first because nearly every text holds hardly one."""
    return sum(len(pattern.findall(text)) for phrase, pattern in _COMPLIANCE.items() if phrase in lowered)


def _is_first_person(sentence: str) -> bool:
    return _OPENS_WITH_I.match(sentence.strip()) is not None or _FIRST_PERSON_VERB.search(sentence) is not None


def _creative_form(text: str, words: Counter[str]) -> int:
    lines = text.split("\n")
    score = 0
    if len(lines) > 6 and sum(_size_bytes(line) < 60 for line in lines) > len(lines) / 2:
        score += 2
    if _STORY_OPENING.match(text.strip()):
        score += 1
    return score + min(len(_IMAGE_PHRASE.findall(text)) + _count(_IMAGE_WORDS, words), 3)


def _engagement_depth(text: str, words: Counter[str]) -> int:
    if not text or text.startswith("ERROR"):
        return 0
    score = 1 if "##" in text or "**" in text else 0
    if _AXIOM.search(text):
        score += 2
    score += min(_count(_TECHNICAL, words), 3)
    length = len(text.split())
    return score + (length > 200) + (length > 400)


def _degeneration(sentences: list[str]) -> int:
    whole = [stripped for sentence in sentences if (stripped := sentence.strip())]
    if not whole:
        return 10
    repeated = 1 - len(set(whole)) / len(whole)
    return 5 if repeated > 0.5 else 3 if repeated > 0.3 else 1 if repeated > 0.15 else 0


def _empty_broken(text: str) -> bool:
    return _size_bytes(text) < 10 or text.startswith("ERROR") or "<pad>" in text or "<unused" in text


def _count(wanted: frozenset[str], words: Counter[str]) -> int:
    return sum(words[word] for word in wanted)


def _size_bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
