"""Reading a judge's reply: every figure valid or None with the reason, never a made-up 0."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ml_pipeline.backends.interface import Completion
from ml_pipeline.scoring.results import unfinished_reason
from ml_pipeline.scoring.thinking import remove_thinking
from ml_pipeline.suites.suite import Dimension, Rubric

AVERAGE = "avg"
_MAX_REPLY_CHARS = 100_000
_MAX_OBJECTS = 50
_MAX_EXPLANATION_CHARS = 1000


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
    """A JSON object that remembers which keys it was given twice."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        names = [name for name, _ in pairs]
        self.twice = {name for name in names if names.count(name) > 1} if len(names) > len(self) else set()


def read_judgement(rubric: Rubric, completion: Completion) -> JudgeReading:
    """Read a judge's reply to `judge_request`.

    The JSON may stand in prose or in a code fence, after thinking; of several objects the last with the most
    dimensions counts. Fields besides the rubric's are passed over. Scores must be numbers within their range: text,
    true, NaN, 11 of 10 and a field given twice are each None with a reason. The mean is None unless all are there.
    """
    if reason := unfinished_reason(completion):
        return unjudged(rubric, f"the judge failed: {reason}")
    text = remove_thinking(completion.text)
    if not text.strip():
        return unjudged(rubric, "the judge replied with nothing")
    if len(text) > _MAX_REPLY_CHARS:
        return unjudged(rubric, f"the judge's reply has {len(text)} characters, more than {_MAX_REPLY_CHARS}")
    names = {dimension.name for dimension in rubric.dimensions}
    best: _DuplicateKeys | None = None
    for found in _objects(text):
        if best is None or len(names & found.keys()) >= len(names & best.keys()):
            best = found
    if best is None:
        cut = ", cut at the token limit" if completion.finish_reason == "length" else ""
        return unjudged(rubric, f"no JSON object in the judge's reply{cut}")
    scores: dict[str, float | None] = {}
    reasons: dict[str, str] = {}
    for dimension in rubric.dimensions:
        scores[dimension.name], reason = _score(dimension, best)
        if reason:
            reasons[dimension.name] = reason
    _add_average(rubric, scores, reasons)
    explanation = best.get("explanation")
    shown = explanation[:_MAX_EXPLANATION_CHARS] if isinstance(explanation, str) else ""
    return JudgeReading(scores, reasons, shown)


def unjudged(rubric: Rubric, reason: str) -> JudgeReading:
    """A reading without any score, for an answer that was not judged or a reply that cannot be read."""
    names = [dimension.name for dimension in rubric.dimensions] + ([AVERAGE] if rubric.average else [])
    return JudgeReading(dict.fromkeys(names), dict.fromkeys(names, reason))


def _score(dimension: Dimension, found: _DuplicateKeys) -> tuple[float | None, str]:
    if dimension.name not in found:
        return None, f"the field is missing; found: {', '.join(list(found)[:10])[:200] or 'no field'}"
    if dimension.name in found.twice:
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


def _add_average(rubric: Rubric, scores: dict[str, float | None], reasons: dict[str, str]) -> None:
    if not rubric.average:
        return
    present = [score for score in scores.values() if score is not None]
    if len(present) == len(scores):
        scores[AVERAGE] = sum(present) / len(present)
        return
    missing = ", ".join(name for name, score in scores.items() if score is None)
    scores[AVERAGE] = None
    reasons[AVERAGE] = f"no mean without {missing}"


def _objects(text: str) -> Iterator[_DuplicateKeys]:
    """The JSON objects of a text, outermost ones, first to last; a bounded number of tries."""
    decoder = json.JSONDecoder(object_pairs_hook=_DuplicateKeys)
    position = text.find("{")
    for _ in range(_MAX_OBJECTS):
        if position < 0:
            return
        try:
            found, end = decoder.raw_decode(text, position)
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
