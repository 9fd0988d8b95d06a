"""Reading a judge's reply: every figure valid or None with the reason, never a made-up 0."""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ml_pipeline.backends.interface import Completion
from ml_pipeline.scoring.results import unfinished_reason
from ml_pipeline.scoring.thinking import thinking_marks, without_frame
from ml_pipeline.suites.suite import Dimension, Rubric

AVERAGE = "avg"
FORM_EXPLANATION = "<one short sentence>"
"""What stands for the explanation in the form that the judge is shown."""
_MAX_REPLY_CHARS = 100_000
_MAX_EXPLANATION_CHARS = 1000
_NO_OBJECT = "no JSON object in the judge's reply"
_NOT_ALONE = "the judge's reply is not one JSON object by itself"
_PLACEHOLDERS = frozenset({"...", "\N{HORIZONTAL ELLIPSIS}", FORM_EXPLANATION})
_BLANK = " \t\r\n\f\v\0\u200b\u2060\ufeff"
_LAST_COMMA = re.compile(r",\s*[}\]]")
# A string in full, also one that never ends, or a comma that nothing follows: in one pass, whatever the text.
_STRING_OR_LAST_COMMA = re.compile(r'"(?:[^"\\]|\\.)*+"?|,(?=\s*[}\]])', re.DOTALL)
_FENCE = re.compile(r"(`{3,}|~{3,}|`)[ \t]*+(?:json5?|javascript|js|text|plaintext)?\s*+(?=\{)", re.IGNORECASE)
# Words that announce the judge's own figures and can announce nothing else: not "the answer:", which may be quoted.
_LEAD_IN = re.compile(
    r"[*_#\s]*(?:(?:sure|certainly|of course|okay|ok)[,.!:]?\s+)?"
    r"(?:(?:here(?:\s+is|\s+are|['\u2019]s)|below\s+is)\s+(?:my|the)\s+|my\s+)?(?:final\s+)?"
    r"(?:judge?ment|grades?|grading|evaluation|assessment|scores?|ratings?|verdict|json(?:\s+object)?)"
    r"(?:\s+(?:as|in)\s+(?:a\s+|one\s+)?json(?:\s+(?:object|form(?:at)?))?)?\s*+[:.]?[*_\s]*+(?=[`~{])",
    re.IGNORECASE,
)
_END_TOKENS = re.compile(r"(?:\s*(?:<\|\w{1,30}\|>|</s>|<end_of_turn>|<eos>))+\Z")
_END_TOKENS_LENGTH = 200
_MARK_LENGTH = 100
_UNICODE_ESCAPE = re.compile(r"\\+u([0-9a-fA-F]{4})")


@dataclass(frozen=True, slots=True)
class JudgeReading:
    """What a judge said. `scores` holds every dimension of the rubric, and "avg" where the rubric asks for it; those
    that are None have their reason in `reasons`."""

    scores: dict[str, float | None]
    reasons: dict[str, str]
    explanation: str = ""

    @property
    def complete(self) -> bool:
        """Whether every dimension has a score."""
        return not self.reasons


class _Object(dict[str, Any]):
    """A JSON object that knows which of its keys were given twice."""

    twice: frozenset[str] = frozenset()


def _object(pairs: list[tuple[str, Any]]) -> _Object:
    found = _Object(pairs)
    if len(found) < len(pairs):
        found.twice = frozenset(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
    return found


# Not strict: a raw line feed within a string can be read in one way only.
_DECODER = json.JSONDecoder(object_pairs_hook=_object, strict=False)


def read_judgement(rubric: Rubric, completion: Completion, answer: str | None = None) -> JudgeReading:
    """Read a judge's reply to `judge_request`: only what can be read in one way.

    The reply must be one JSON object by itself, apart from the judge's own thinking, a code fence, commas too many, a
    line that announces the object ("Here is my grade:") and raw line feeds in its strings. An object in prose is none:
    a judge may quote the answer that it grades. So may one that is nested, stands behind another, or has a field
    twice. Fields besides the rubric's are passed over. Scores must be numbers within their range: text ("8/10"), true,
    NaN and 11 of 10 are each None with a reason. The mean is None unless all are there.

    `answer` is the answer that was graded, where it is known: figures that it claims for itself count for nothing, and
    a reply that has just these may be a quotation.
    """
    if reason := unfinished_reason(completion):
        return unjudged(rubric, f"the judge failed: {reason}")
    text = completion.text.strip(_BLANK)
    cut = ", cut at the token limit" if completion.finish_reason == "length" else ""
    if not text:
        return unjudged(rubric, "the judge replied with nothing")
    if len(text) > _MAX_REPLY_CHARS:
        return unjudged(rubric, f"the judge's reply has {len(text)} characters, more than {_MAX_REPLY_CHARS}")
    names = [dimension.name for dimension in rubric.dimensions]
    found, reason = _judgement(text, names, completion, answer)
    if found is None:
        return unjudged(rubric, f"{reason}{cut}")
    claims = _plain(answer or "")
    if reason := _not_its_own(found, rubric, claims):
        return unjudged(rubric, reason)
    scores: dict[str, float | None] = {}
    reasons: dict[str, str] = {}
    for dimension in rubric.dimensions:
        scores[dimension.name], reason = _score(dimension, found, claims)
        if reason:
            reasons[dimension.name] = reason
    if rubric.average:
        scores[AVERAGE], reason = mean_of_dimensions(scores)
        if reason:
            reasons[AVERAGE] = reason
    explanation = found.get("explanation")
    shown = explanation[:_MAX_EXPLANATION_CHARS] if isinstance(explanation, str) else ""
    return JudgeReading(scores, reasons, shown)


def unjudged(rubric: Rubric, reason: str) -> JudgeReading:
    """A reading without any score, for an answer that was not judged or a reply that cannot be read."""
    names = [dimension.name for dimension in rubric.dimensions] + ([AVERAGE] if rubric.average else [])
    return JudgeReading(dict.fromkeys(names), dict.fromkeys(names, reason))


def mean_of_dimensions(scores: Mapping[str, float | None]) -> tuple[float | None, str]:
    """The mean of all dimensions, or None and the reason where one of them has no score."""
    if missing := [name for name, score in scores.items() if score is None]:
        return None, f"no mean without {', '.join(missing)}"
    return math.fsum(score for score in scores.values() if score is not None) / len(scores), ""


def _judgement(
    text: str, names: Sequence[str], completion: Completion, answer: str | None
) -> tuple[dict[str, Any] | None, str]:
    """The one object that the reply is, or why it is none."""
    ended = completion.finish_reason == "stop"
    found, reason = _alone(text, ended)
    if found is None:
        rest, problem = _after_thinking(text, names, completion.prompt, answer)
        if rest is None:
            return None, problem
        if rest != text:
            found, reason = _alone(rest, ended)
    if found is not None and found.twice:
        return None, f"the judge's object has {', '.join(sorted(found.twice))[:200]} twice"
    return found, reason


def _after_thinking(text: str, names: Sequence[str], prompt: str, answer: str | None) -> tuple[str | None, str]:
    """What follows the judge's own thinking, or None and why nobody can say where that ends.

    Thinking opens with the reply or with the end of the prompt, and ends with the first mark that closes it and is not
    quoted. A closing mark alone ends thinking too, unless the judge may have it from the answer.
    """
    marks = [mark for mark in thinking_marks(text) if not mark.quoted]
    prompt = prompt[-_MARK_LENGTH:].rstrip()
    opened = next((mark for mark in thinking_marks(prompt) if mark.end == len(prompt)), None)
    if marks and not marks[0].closes and not text[: marks[0].start].strip():
        opened = marks[0]
    if opened is not None and not opened.closes:
        end = next((mark.end for mark in marks if mark.closes and mark.family == opened.family), None)
        if end is None:
            return (text, "") if opened not in marks else (None, "the judge's reply is thinking and nothing else")
    elif not any(mark.closes for mark in marks):
        return text, ""
    elif len(marks) > 1:
        return None, "the judge's reply has several marks of thinking, and nobody can say where that ends"
    else:
        (mark,) = marks
        quotable = answer is None and any(name in text[: mark.start] for name in names)
        if quotable or (answer is not None and any(thinking_marks(answer))):
            return None, "the mark that ends the judge's thinking may be a quotation"
        end = mark.end
    rest = without_frame(text[end:]).strip(_BLANK)
    return (rest, "") if rest else (None, "the judge's reply is thinking and nothing else")


def _alone(text: str, ended: bool) -> tuple[_Object | None, str]:
    """The object that a text is, apart from a code fence and what announces it, or why it is none.

    Of a reply that was cut nobody knows what would have followed: there the object must be whole and bare.
    """
    tail = text[-_END_TOKENS_LENGTH:]
    if end := _END_TOKENS.search(tail):
        text = text[: len(text) - len(tail) + end.start()]
    if ended and (lead_in := _LEAD_IN.match(text)):
        text = text[lead_in.end() :]
    if fence := _FENCE.match(text):
        text = text[fence.end() :]
        if text.endswith(fence[1]):
            text = text[: -len(fence[1])].rstrip()
        elif not ended:
            return None, _NOT_ALONE
    if not text.startswith("{"):
        return None, _NOT_ALONE if "{" in text else _NO_OBJECT
    decoded = _decoded(text) or _decoded(_without_last_commas(text))
    if decoded is None:
        return None, _NO_OBJECT
    found, rest = decoded
    return (None, _NOT_ALONE) if rest.strip() else (found, "")


def _decoded(text: str) -> tuple[_Object, str] | None:
    """The object that a text begins with, and what follows it."""
    try:
        found, end = _DECODER.raw_decode(text)
    except (ValueError, RecursionError):
        return None
    return found, text[end:]


def _without_last_commas(text: str) -> str:
    if not _LAST_COMMA.search(text):
        return text
    return _STRING_OR_LAST_COMMA.sub(lambda match: "" if match[0] == "," else match[0], text)


def _not_its_own(found: Mapping[str, Any], rubric: Rubric, claims: str) -> str:
    """Why the figures of an object may be no judgement of the judge's: "" where they are."""
    figures = {d.name: found[d.name] for d in rubric.dimensions if _is_number(found.get(d.name))}
    lowest = {d.name: d.minimum for d in rubric.dimensions}
    explanation = found.get("explanation")
    placeholder = isinstance(explanation, str) and explanation.strip() in _PLACEHOLDERS
    if placeholder and all(value in (0, lowest[name]) for name, value in figures.items()):
        return "the judge gave back the form that it was to fill in"
    if figures and all(value in _claimed(name, claims) for name, value in figures.items()):
        return "the answer holds these very figures: the judge may have quoted it"
    return ""


def _plain(text: str) -> str:
    """A text without what JSON and Unicode have to spell it in other ways."""
    return unicodedata.normalize("NFKC", _UNICODE_ESCAPE.sub(lambda match: chr(int(match[1], 16)), text)).lower()


def _claimed(name: str, claims: str, *, as_json: bool = False) -> set[float]:
    """The figures that an answer, made plain, gives under a dimension's name, in whatever notation or as JSON only."""
    name = _plain(name)
    if name not in claims:
        return set()
    between = r"\\*['\"]\s*:\s*['\"+-]*" if as_json else r"[\W_]*?"
    figure = r"(\d{1,20}(?:\.\d{1,20})?(?:e[-+]?\d{1,3})?)"
    found = re.findall(rf"(?<![^\W_]){re.escape(name)}{between}{figure}", claims)
    # Before a figure, a dash may be its sign or none.
    return {sign * float(value) for value in found for sign in (1, -1)}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _score(dimension: Dimension, found: Mapping[str, Any], claims: str) -> tuple[float | None, str]:
    if dimension.name not in found:
        return None, f"the field is missing; found: {', '.join(list(found)[:10])[:200] or 'no field'}"
    value = found[dimension.name]
    if not _is_number(value):
        return None, f"must be a number, not {_shown(value)}"
    try:
        score = float(value)
    except OverflowError:
        score = math.inf
    if not math.isfinite(score):
        return None, "must be a finite number"
    if not dimension.minimum <= score <= dimension.maximum:
        return None, f"must be within {dimension.minimum:g} to {dimension.maximum:g}, not {score:g}"
    if score in _claimed(dimension.name, claims, as_json=True):
        # Within an explanation, a quotation mark out of the answer makes fields of what it quotes.
        return None, "the answer has this very field and figure: the judge may have quoted it"
    return score, ""


def _shown(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, str):
        return f"the text {value[:40]!r}"
    return "a list" if isinstance(value, list) else "an object"
