"""Probes whose outcome changed between the base and the best checkpoint, with both answers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import pandas as pd

from ml_pipeline.reports.runs import Point, RunCurve
from ml_pipeline.reports.scores import EVALUATION_KEY, Scores

_COLUMNS = ["response", "extracted", "expected", "category", "finish_reason"]
MOST_CHARACTERS = 3000


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer to a probe: its text (cut to `MOST_CHARACTERS`), how many characters were cut, what was read."""

    text: str
    cut_characters: int
    extracted: str
    finish_reason: str


@dataclass(frozen=True, slots=True)
class Flip:
    """A probe that only one of the two passed; of several answers to one, that only one passed mostly."""

    probe_id: str
    category: str
    gained: bool
    prompt: str
    expected: str
    base: Answer
    best: Answer


class AnswerBook:
    """Looks up answers by checkpoint and probe; made once a report."""

    def __init__(self, scores: Scores) -> None:
        self._results: dict[tuple[str, ...], dict[bool, dict[str, Any]]] = defaultdict(dict)
        scored = scores.probe_results.dropna(subset="passed")
        for key, row in _by_probe(scored, ["passed", *_COLUMNS]):
            self._results[key].setdefault(bool(row["passed"]), row)
        self._prompts = dict(_by_probe(scores.responses, ["prompt"]))

    def flips(self, curve: RunCurve) -> list[Flip]:
        """The flips of a run, the lost ones first: they are what an average hides."""
        if curve.base is None or not curve.best:
            return []
        return self.between(curve.base, curve.best[0])

    def between(self, reference: Point, candidate: Point) -> list[Flip]:
        """The flips from any checkpoint, in the place of the base, to another, in that of the best."""
        shared = reference.passed.keys() & candidate.passed.keys()
        flipped = [probe for probe in shared if _mostly(reference, probe) != _mostly(candidate, probe)]
        found = [self._flip(reference, candidate, probe) for probe in flipped]
        return sorted(found, key=lambda flip: (flip.gained, flip.category, flip.probe_id))

    def _flip(self, base: Point, best: Point, probe: str) -> Flip:
        before, after = (self._results[(*point.key, probe)][_mostly(point, probe)] for point in (base, best))
        prompts = self._prompts.get((*best.key, probe)) or self._prompts.get((*base.key, probe)) or {}
        return Flip(
            probe_id=probe,
            category=str(after["category"]),
            gained=_mostly(best, probe),
            prompt=str(prompts.get("prompt", "")),
            expected=str(after["expected"]),
            base=_answer(before),
            best=_answer(after),
        )


def _mostly(point: Point, probe: str) -> bool:
    return point.passed[probe] > Fraction(1, 2)


def _by_probe(table: pd.DataFrame, columns: list[str]) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    rows = table[[*EVALUATION_KEY, "probe_id", *columns]].itertuples(index=False, name=None)
    return ((tuple(row[:4]), dict(zip(columns, row[4:], strict=True))) for row in rows)


def _answer(row: Mapping[str, Any]) -> Answer:
    text, extracted = str(row["response"]), row["extracted"]
    return Answer(
        text=text[:MOST_CHARACTERS],
        cut_characters=max(0, len(text) - MOST_CHARACTERS),
        extracted=extracted if isinstance(extracted, str) else "",
        finish_reason=str(row["finish_reason"]),
    )
