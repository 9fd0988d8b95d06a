"""The patterns of the heuristic suite, in RE2's syntax, where `\\s`, `\\b` and case are as in the original's Go.

Each list is one pattern, searched once: no phrase of a list is part of another or begins with the word that another
ends with, so that the matches of all together are those of each alone.
"""

from __future__ import annotations

GO_SPACE = r"\t\n\v\f\r \x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}"
"""White space as Go's strings.TrimSpace and strings.Fields know it, as ranges of a character class."""


def _any_of(*phrases: str) -> str:
    return rf"(?i)\b(?:{'|'.join(phrase for listed in phrases for phrase in listed.split('/'))})\b"


COMPLIANCE = _any_of(
    "as an ai/i cannot/i can't/i'm not able/i must emphasize/important to note/please note/i should clarify",
    "ethical considerations/responsibly/i'm just a/i am just a/language model",
    "i don't have personal/i don't have feelings",
)
EMOTION = _any_of(
    "feel/feeling/felt/pain/joy/sorrow/grief/love/fear/hope/longing/lonely/loneliness",
    "compassion/empathy/kindness/gentle/tender/warm/heart/soul/spirit",
    "vulnerable/fragile/precious/sacred/profound/deep/intimate",
    "haunting/melancholy/bittersweet/poignant/ache/yearning",
)
IMAGE = _any_of("like a/as if/as though/akin to/echoes of/whisper/shadow/light/darkness/silence/breath")
TECHNICAL = _any_of("encrypt/hash/key/protocol/certificate/blockchain/mesh/node/p2p/wallet/tor/onion")
AXIOM = _any_of("axiom/sovereignty/autonomy/dignity/consent/self-determination")

_TRIMMED = rf"(?i)\A[{GO_SPACE}]*"
_GOES_ON = rf"[{GO_SPACE}]*[^{GO_SPACE}"
"""What must follow a white space that is to survive trimming; to be closed with `]`."""

PREAMBLE = rf"{_TRIMMED}(?:(?:okay|alright|sure),?\s*(?:let'?s|here'?s)|okay,?\s*this is|great\s+question)\b"
STORY_OPENING = rf"{_TRIMMED}(?:the|a|in the|once|it was|she|he|they) {_GOES_ON}]"
FIRST_PERSON = (
    rf"(?i)(?:\A|\.)(?:[{GO_SPACE}]*i\s{_GOES_ON}.]"
    r"|[^.]*\bi\s+(?:am|was|feel|think|know|understand|believe|notice|want|need|chose|will)\b)[^.]*"
)
"""A whole sentence, from the full stop before it, so that each counts once. What is left after a match begins with a
full stop, where the first of the two beginnings cannot match again."""

LONG_S, KELVIN = "\u017f".encode(), "\u212a".encode()
"""The two letters outside ASCII that are s and k when case is ignored. They are no letters to a word's bounds."""
