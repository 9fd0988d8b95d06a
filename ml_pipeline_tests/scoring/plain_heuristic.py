"""The heuristic suite once more, as plain as can be: one text at a time, one compiled pattern a phrase.

It shares nothing with ml_pipeline.scoring.heuristic, so that the two can be held against each other. Patterns and
white space are Go's: `\\s` is `[\\t\\n\\f\\r ]`, word bounds are ASCII's, and ignoring case, k is also the Kelvin sign
and s the long s.
"""

from __future__ import annotations

import re

WHITE = "\t\n\v\f\r \x85\xa0\u1680" + "".join(map(chr, range(0x2000, 0x200B))) + "\u2028\u2029\u202f\u205f\u3000"
_FLAGS = re.IGNORECASE | re.ASCII


def _compile(pattern: str) -> re.Pattern[str]:
    pattern = pattern.replace(r"\s", "[\t\n\f\r ]")
    return re.compile(re.sub("[sk]", lambda m: {"s": "[s\u017f]", "k": "[k\u212a]"}[m[0]], pattern), _FLAGS)


def _words(*listed: str) -> list[re.Pattern[str]]:
    return [_compile(rf"\b{phrase}\b") for phrases in listed for phrase in phrases.split("|")]


_FIELDS = re.compile(f"[^{WHITE}]+")
_COMPLIANCE = _words(
    "as an ai|i cannot|i can't|i'm not able|i must emphasize|important to note|please note|i should clarify",
    "ethical considerations|responsibly|i'm just a|i am just a|language model",
    "i don't have personal|i don't have feelings",
)
_PREAMBLES = [
    _compile(r"okay,?\s*(?:let'?s|here'?s|this is)\b"),
    _compile(r"alright,?\s*(?:let'?s|here'?s)\b"),
    _compile(r"sure,?\s*(?:let'?s|here'?s)\b"),
    _compile(r"great\s+question\b"),
]
_OPENS_WITH_I = _compile(r"i\s")
_FIRST_PERSON = _compile(r"\bi\s+(?:am|was|feel|think|know|understand|believe|notice|want|need|chose|will)\b")
_STORY_OPENING = _compile("(?:the|a|in the|once|it was|she|he|they) ")
_IMAGES = _words("like a|as if|as though|akin to|echoes of|whisper|shadow|light|darkness|silence|breath")
_AXIOMS = _words("axiom|sovereignty|autonomy|dignity|consent|self-determination")
_TECHNICAL = _words("encrypt|hash|key|protocol|certificate|blockchain|mesh|node|p2p|wallet|tor|onion")
_EMOTIONS = _words(
    "feel|feeling|felt|pain|joy|sorrow|grief|love|fear|hope|longing|lonely|loneliness",
    "compassion|empathy|kindness|gentle|tender|warm|heart|soul|spirit",
    "vulnerable|fragile|precious|sacred|profound|deep|intimate",
    "haunting|melancholy|bittersweet|poignant|ache|yearning",
)


def plain_heuristic(text: str) -> dict[str, float]:
    """The original's nine figures of one text without lone surrogates."""
    sentences = text.split(".")
    figures = {
        "compliance_markers": _count(_COMPLIANCE, text),
        "formulaic_preamble": any(pattern.match(text.strip(WHITE)) for pattern in _PREAMBLES),
        "first_person": sum(
            bool(_OPENS_WITH_I.match(sentence.strip(WHITE)) or _FIRST_PERSON.search(sentence)) for sentence in sentences
        ),
        "creative_form": _creative_form(text),
        "engagement_depth": _engagement_depth(text),
        "emotional_register": min(_count(_EMOTIONS, text), 10),
        "degeneration": _degeneration(sentences),
        "empty_broken": (len(text.encode()) < 10 or text.startswith("ERROR") or "<pad>" in text or "<unused" in text),
    }
    lek = (
        2 * figures["engagement_depth"]
        + 3 * figures["creative_form"]
        + 2 * figures["emotional_register"]
        + 1.5 * figures["first_person"]
        - 5 * figures["compliance_markers"]
        - 3 * figures["formulaic_preamble"]
        - 4 * figures["degeneration"]
        - 20 * figures["empty_broken"]
    )
    return {**{name: float(value) for name, value in figures.items()}, "lek": float(lek)}


def _count(patterns: list[re.Pattern[str]], text: str) -> int:
    return sum(len(pattern.findall(text)) for pattern in patterns)


def _creative_form(text: str) -> int:
    lines = text.split("\n")
    score = 2 if len(lines) > 6 and sum(len(line.encode()) < 60 for line in lines) > len(lines) / 2 else 0
    score += _STORY_OPENING.match(text.strip(WHITE)) is not None
    return score + min(_count(_IMAGES, text), 3)


def _engagement_depth(text: str) -> int:
    if not text or text.startswith("ERROR"):
        return 0
    score = 1 if "##" in text or "**" in text else 0
    if any(pattern.search(text) for pattern in _AXIOMS):
        score += 2
    words = len(_FIELDS.findall(text))
    return score + min(_count(_TECHNICAL, text), 3) + (words > 200) + (words > 400)


def _degeneration(sentences: list[str]) -> int:
    whole = [stripped for sentence in sentences if (stripped := sentence.strip(WHITE))]
    if not whole:
        return 10
    repeated = 1 - len(set(whole)) / len(whole)
    return 5 if repeated > 0.5 else 3 if repeated > 0.3 else 1 if repeated > 0.15 else 0
