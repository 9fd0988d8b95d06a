"""Reading a judge's reply: every figure valid or None with the reason, never a made-up 0."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ml_pipeline.backends.interface import Completion
from ml_pipeline.scoring.results import unfinished_reason
from ml_pipeline.scoring.thinking import holds_thinking, remove_thinking
from ml_pipeline.suites.suite import Dimension, Rubric

AVERAGE = "avg"
_MAX_REPLY_CHARS = 100_000
_MAX_OBJECTS = 50
_MAX_EXPLANATION_CHARS = 1000
_LAST_COMMA = re.compile(r",\s*[}\]]")
# A string in full, also one that never ends, or a comma that nothing follows: in one pass, whatever the text.
_STRING_OR_LAST_COMMA = re.compile(r'"(?:[^"\\]|\\.)*+"?|,(?=\s*[}\]])', re.DOTALL)


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


class _DuplicateKeys(dict[str, Any]):
    """A JSON object that was given some keys twice, and remembers which."""

    twice: frozenset[str]


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    marked = _DuplicateKeys(found)
    marked.twice = frozenset(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
    return marked


_DECODER = json.JSONDecoder(object_pairs_hook=_object)


def read_judgement(rubric: Rubric, completion: Completion) -> JudgeReading:
    """Read a judge's reply to `judge_request`: only what can be read in one way.

    The JSON may stand in prose or in a code fence, after thinking, and have commas too many; of several objects the
    one with the most dimensions counts, and where those differ none does: a judge may quote the answer that it
    grades. Fields besides the rubric's are passed over. Scores must be numbers within their range: text ("8/10"),
    true, NaN, 11 of 10 and a field given twice are each None with a reason. The mean is None unless all are there.
    """
    if reason := unfinished_reason(completion):
        return unjudged(rubric, f"the judge failed: {reason}")
    text = remove_thinking(completion.text)
    cut = ", cut at the token limit" if completion.finish_reason == "length" else ""
    if not text.strip():
        return unjudged(rubric, "the judge replied with nothing")
    if len(text) > _MAX_REPLY_CHARS:
        return unjudged(rubric, f"the judge's reply has {len(text)} characters, more than {_MAX_REPLY_CHARS}")
    if holds_thinking(text):
        return unjudged(rubric, f"the judge's reply is thinking and nothing else{cut}")
    best, reason = _judgement(text, [dimension.name for dimension in rubric.dimensions])
    if best is None:
        return unjudged(rubric, f"{reason}{cut}")
    scores: dict[str, float | None] = {}
    reasons: dict[str, str] = {}
    for dimension in rubric.dimensions:
        scores[dimension.name], reason = _score(dimension, best)
        if reason:
            reasons[dimension.name] = reason
    if rubric.average:
        scores[AVERAGE], reason = mean_of_dimensions(scores)
        if reason:
            reasons[AVERAGE] = reason
    explanation = best.get("explanation")
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


def _judgement(text: str, names: Sequence[str]) -> tuple[dict[str, Any] | None, str]:
    """The object that has the most of these fields, or why there is none to go by."""
    if _LAST_COMMA.search(text):  # first of all: an object inside one that cannot be parsed is not the judgement
        text = _STRING_OR_LAST_COMMA.sub(lambda match: "" if match[0] == "," else match[0], text)
    objects = [(sum(name in found for name in names), found) for found in _objects(text)]
    if not objects:
        return None, "no JSON object in the judge's reply"
    most = max(count for count, _ in objects)
    best = [found for count, found in objects if count == most]
    if most and len(best) > 1:
        said = [[(type(value), value) for value in map(found.get, names)] for found in best]
        if any(other != said[0] for other in said):
            return None, f"{len(best)} judgements in one reply, which differ"
    return best[-1], ""


def _score(dimension: Dimension, found: dict[str, Any]) -> tuple[float | None, str]:
    if dimension.name not in found:
        return None, f"the field is missing; found: {', '.join(list(found)[:10])[:200] or 'no field'}"
    if isinstance(found, _DuplicateKeys) and dimension.name in found.twice:
        return None, "the field is given twice"
    value = found[dimension.name]
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None, f"must be a number, not {_shown(value)}"
    try:
        score = float(value)
    except OverflowError:
        score = math.inf
    if not math.isfinite(score):
        return None, "must be a finite number"
    if not dimension.minimum <= score <= dimension.maximum:
        return None, f"must be within {dimension.minimum:g} to {dimension.maximum:g}, not {score:g}"
    return score, ""


def _objects(text: str) -> Iterator[dict[str, Any]]:
    """The JSON objects of a text, outermost ones, first to last; a bounded number of tries."""
    position = text.find("{")
    for _ in range(_MAX_OBJECTS):
        if position < 0:
            return
        try:
            found, end = _DECODER.raw_decode(text, position)
        except (ValueError, RecursionError):
            position = text.find("{", position + 1)
            continue
        yield found
        position = text.find("{", end)


def _shown(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, str):
        return f"the text {value[:40]!r}"
    return "a list" if isinstance(value, list) else "an object"
