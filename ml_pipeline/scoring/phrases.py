"""Reading which of several possible answers a text states: names, words, yes or no, letters of a choice."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from ml_pipeline.scoring.plain_text import plain
from ml_pipeline.scoring.statements import repeats, sentences, statements

_FEW_WORDS = r"(?:[ ](?!but\b)[\w'-]{1,20}){0,3}[ ][\"'*(]*$"
_DENIED_BEFORE = re.compile(
    rf"(?:\b(?:not|never|neither|nor|without|cannot|rather than|instead of|opposed to)|n't){_FEW_WORDS}", re.IGNORECASE
)
_DENIED_AFTER = re.compile(
    r"[\"'*)]*(?:[ ][a-z]{1,15})?[ ](?:is|was|are|were|does|did|do|can|could|would|will)(?:[ ]?not\b|n't\b)",
    re.IGNORECASE,
)
_STILL_DENIED = re.compile(r"[\"'*]*(?:[ ][a-z]{1,15})?,?[ ](?:or|nor)[ ](?:in[ ])?(?:the[ ])?[\"'*]*", re.IGNORECASE)
_BECAUSE = re.compile(r"\b(?:because|since|(?<=, )as|given that|if)\b", re.IGNORECASE)
_CLAUSE_END = re.compile(r"[,;:]|\b(?:and|but|while|whereas|making|with)\b", re.IGNORECASE)
_OPENING = re.compile(r"[\s,:*\"'(]*(?:(?:the|in|it is|it's|then|we|know|that|only)[ ]+)*[\"'*]*", re.IGNORECASE)
# "no" counts alone or before a pause or a pronoun: "no doubt" and "no one" are not answers.
_YES_NO = re.compile(
    r"(?<![\w'-])(?<!yes or )(?:(?P<yes>yes(?! or no)|yeah|yep|true(?=\W*$|[.,!]))"
    r"|(?:no|nope|false)(?=\s*$|[^\w\s'-]|\s*\n|[ ]-"
    r"|[ ](?:it|he|she|they|the|this|that|we|you|because|not|there)\b))(?![\w-])",
    re.IGNORECASE,
)
_YES_NO_FIRST = re.compile(r"\W*(?:yes|yeah|yep|true|no|nope|false)\b", re.IGNORECASE)
_SYMBOL = r"<>=!+*/%&|^~-"


@dataclass(frozen=True, slots=True)
class Mention:
    """One of the possible answers, at its place."""

    phrase: str
    start: int
    end: int


def find_mentions(text: str, phrases: Sequence[str], case_sensitive: bool = False) -> list[Mention]:
    """Every affirmed mention of the phrases as whole words, longest phrase first; denied ones ("not in the red box")
    are left out."""
    pattern, names = _pattern(tuple(phrases), case_sensitive)
    mentions: list[Mention] = []
    last_denied: int | None = None
    for match in pattern.finditer(text):
        start, end = match.span()
        denied = (
            _DENIED_BEFORE.search(text, max(0, start - 60), start) is not None
            or _DENIED_AFTER.match(text, end) is not None
            or (last_denied is not None and _STILL_DENIED.fullmatch(text, last_denied, start) is not None)
        )
        last_denied = end if denied else None
        if not denied:
            mentions.append(Mention(names[_fold(match[0], case_sensitive)], start, end))
    return mentions


def stated_phrase(
    text: str,
    phrases: Sequence[str],
    *,
    prompt: str = "",
    about: Sequence[str] = (),
    case_sensitive: bool = False,
) -> str | None:
    """The phrase that the plain text states as its answer, or None.

    `about` are words of what is asked for: where a sentence names several phrases, the one in their clause counts.
    """
    mentions = find_mentions(text, phrases, case_sensitive)
    topic = _pattern(tuple(about), False)[0] if about else None
    for statement in statements(text):
        span = (statement.start, statement.end)
        inside = _inside(mentions, span)
        if inside and statement.firmness == "concluded":
            return _claimed(text, span, inside, topic)
        if inside:
            return inside[-1 if statement.firmness == "bare" else 0].phrase
    spoken = [span for span in sentences(text) if _inside(mentions, span)]
    fresh = [span for span in spoken if not repeats(prompt, text[slice(*span)])] or spoken
    on_topic = [span for span in fresh if topic and topic.search(text, *span)]
    for span in on_topic or fresh:
        clause = _inside(mentions, _without_reason(text, span))
        if len({mention.phrase for mention in clause}) == 1:
            return clause[0].phrase
    for span in (on_topic or fresh)[-1:]:
        return _claimed(text, span, _inside(mentions, span), topic)
    return None


def stated_yes_or_no(text: str) -> str | None:
    """ "yes" or "no" as the plain text states it: by a marker, in a conclusion, as its first word, or at the end."""
    mentions = [
        Mention("yes" if match["yes"] else "no", match.start(), match.end()) for match in _YES_NO.finditer(text)
    ]
    for statement in statements(text):
        if inside := _inside(mentions, (statement.start, statement.end)):
            return inside[0].phrase
    return mentions[0].phrase if mentions and _YES_NO_FIRST.match(text) else mentions[-1].phrase if mentions else None


def _claimed(text: str, span: tuple[int, int], inside: list[Mention], topic: re.Pattern[str] | None) -> str:
    """The phrase that a sentence with at least one mention claims."""
    claim = _without_reason(text, span)
    inside = _inside(inside, claim) or inside
    if topic is not None:
        for clause in _clauses(text, claim):
            named = _inside(inside, clause)
            if len({mention.phrase for mention in named}) == 1 and topic.search(text, *clause):
                return named[0].phrase
    continued = len(inside) > 1 and not re.search(r"[^\W\d_]", text[inside[0].end : inside[1].start])
    opens = not continued and _OPENING.fullmatch(text, claim[0], inside[0].start) is not None
    return (inside[0] if opens else inside[-1]).phrase


def _clauses(text: str, span: tuple[int, int]) -> Iterator[tuple[int, int]]:
    start, end = span
    for match in _CLAUSE_END.finditer(text, start, end):
        yield start, match.start()
        start = match.end()
    yield start, end


def _without_reason(text: str, span: tuple[int, int]) -> tuple[int, int]:
    """The part of a sentence that claims: up to "because ...", or after the comma of "Since ..., "."""
    start, end = span
    reason = _BECAUSE.search(text, start, end)
    if reason is None:
        return span
    if text[start : reason.start()].strip(" \t*-\"'"):
        return start, reason.start()
    comma = text.rfind(",", reason.end(), end)
    return (comma + 1, end) if comma >= 0 else span


def _inside(mentions: Sequence[Mention], span: tuple[int, int]) -> list[Mention]:
    return [mention for mention in mentions if span[0] <= mention.start < span[1]]


def _fold(text: str, case_sensitive: bool) -> str:
    text = " ".join(text.split())
    return text if case_sensitive else text.casefold()


@lru_cache(maxsize=256)
def _pattern(phrases: tuple[str, ...], case_sensitive: bool) -> tuple[re.Pattern[str], dict[str, str]]:
    names = {_fold(plain(phrase), case_sensitive): phrase for phrase in phrases}
    ordered = sorted(names, key=len, reverse=True)
    alternatives = "|".join(
        _edge(name[0], "<") + r"\s+".join(map(re.escape, name.split())) + _edge(name[-1], ">") for name in ordered
    )
    return re.compile(alternatives, 0 if case_sensitive else re.IGNORECASE), names


def _edge(char: str, side: str) -> str:
    """No word may go on beyond a word's edge, and no operator beyond an operator's."""
    kind = r"\w" if char.isalnum() or char == "_" else f"[{_SYMBOL}]"
    return f"(?<!{kind})" if side == "<" else f"(?!{kind})"
