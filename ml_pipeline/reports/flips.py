"""Probes whose outcome changed between two checkpoints of a run, with both answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ml_pipeline.reports.runs import EvaluationKey, Point, RunCurve
from ml_pipeline.reports.scores import EVALUATION_KEY, Scores

MOST_CHARACTERS = 3000
"""Of an answer's text, the rest is told as a number."""
_MOST_SHOWN, _FEWEST_SHOWN = 12, 2
_SHOWN_IN_ALL = 120
_RESULT_COLUMNS = ["passed", "response", "extracted", "expected", "category", "finish_reason"]


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer to a probe: its text (cut to `MOST_CHARACTERS`), how many characters were cut, what was read."""

    text: str
    cut_characters: int
    extracted: str
    finish_reason: str


@dataclass(frozen=True, slots=True)
class Flip:
    """A probe that only one of the two passed; of several answers to one, that only one passed mostly.

    `alike` of the run's `checkpoints` that have a score for it do as the second of the two does: where most do, the
    flip is what training did, and where few do it may be chance.
    """

    probe_id: str
    category: str
    gained: bool
    alike: int
    checkpoints: int
    prompt: str
    expected: str
    before: Answer
    after: Answer


@dataclass(frozen=True, slots=True)
class FlipSet:
    """What flipped between two checkpoints: the most telling ones in full, lost before gained; the others by name."""

    before: str
    after: str
    lost: int
    gained: int
    shown: tuple[Flip, ...]
    other_lost: tuple[str, ...]
    other_gained: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Found:
    probe: str
    gained: bool
    alike: int
    checkpoints: int


class AnswerBook:
    """Looks up answers by checkpoint and probe; made once a report, for so many runs.

    A report of many runs shows fewer flips of each in full, so that its size stays bounded.
    """

    def __init__(self, scores: Scores, runs: int = 1) -> None:
        self._results = _RowsOf(scores.probe_results, _RESULT_COLUMNS)
        self._prompts = _RowsOf(scores.responses, ["prompt"])
        self._most = max(_FEWEST_SHOWN, min(_MOST_SHOWN, _SHOWN_IN_ALL // max(1, runs)))

    def flips(self, curve: RunCurve) -> list[FlipSet]:
        """From the base (without one: the first checkpoint) to the best checkpoint, and from there to the last."""
        if not curve.highest:
            return []
        best, last = curve.highest[0], curve.points[-1]
        pairs = [(curve.base or curve.points[0], best), (best, last)]
        return [self._of_pair(curve, before, after) for before, after in pairs if before is not after]

    def between(self, before: Point, after: Point) -> list[Flip]:
        """All flips between any two checkpoints, the lost ones first, then by category."""
        found = [_found((before, after), after, probe) for probe in _flipped(before, after)]
        return sorted(self._in_full(before, after, found), key=lambda flip: (flip.gained, flip.category, flip.probe_id))

    def _of_pair(self, curve: RunCurve, before: Point, after: Point) -> FlipSet:
        found = [_found(curve.points, after, probe) for probe in _flipped(before, after)]
        # The lost ones first, since an average hides them; of each kind those first that most checkpoints share.
        ordered = sorted(found, key=lambda one: (one.gained, -one.alike, one.probe))
        lost, gained = ([one for one in ordered if one.gained is kind] for kind in (False, True))
        chosen = [*lost[: self._most], *gained[: self._most]]
        return FlipSet(
            before="the base" if before is curve.base else f"iteration {before.iteration}",
            after=f"iteration {after.iteration}",
            lost=len(lost),
            gained=len(gained),
            shown=tuple(self._in_full(before, after, chosen)),
            other_lost=tuple(one.probe for one in lost[self._most :]),
            other_gained=tuple(one.probe for one in gained[self._most :]),
        )

    def _in_full(self, before: Point, after: Point, chosen: Sequence[_Found]) -> list[Flip]:
        if not chosen:
            return []
        probes = {one.probe for one in chosen}
        earlier, later = (self._results.of(point.key, probes) for point in (before, after))
        prompts = [self._prompts.of(point.key, probes) for point in (after, before)]
        flips = []
        for one in chosen:
            then, now = _answered(earlier[one.probe], not one.gained), _answered(later[one.probe], one.gained)
            asked = next((rows[one.probe][0] for rows in prompts if one.probe in rows), {})
            flips.append(
                Flip(
                    probe_id=one.probe,
                    category=str(now["category"]),
                    gained=one.gained,
                    alike=one.alike,
                    checkpoints=one.checkpoints,
                    prompt=str(asked.get("prompt", "")),
                    expected=str(now["expected"]),
                    before=_answer(then),
                    after=_answer(now),
                )
            )
        return flips


class _RowsOf:
    """The rows of a table by what they are of: found once for all, read only where they are asked for."""

    def __init__(self, table: pd.DataFrame, columns: list[str]) -> None:
        self._rows = table[columns]
        self._probes = table["probe_id"].to_numpy(dtype=object)
        self._places = table.groupby(EVALUATION_KEY).indices

    def of(self, key: EvaluationKey, probes: Set[str]) -> dict[str, list[dict[str, Any]]]:
        """The rows of an evaluation by probe, of these probes."""
        found: dict[str, list[dict[str, Any]]] = {}
        places = [place for place in self._places.get(key, ()) if self._probes[place] in probes]
        for place, row in zip(places, self._rows.iloc[places].to_dict("records"), strict=True):
            found.setdefault(self._probes[place], []).append({str(name): value for name, value in row.items()})
        return found


def _flipped(before: Point, after: Point) -> list[str]:
    shared = before.passed.keys() & after.passed.keys()
    return [probe for probe in shared if _mostly(before, probe) != _mostly(after, probe)]


def _found(points: Sequence[Point], after: Point, probe: str) -> _Found:
    gained = _mostly(after, probe)
    outcomes = [_mostly(point, probe) for point in points if probe in point.passed]
    return _Found(probe, gained, outcomes.count(gained), len(outcomes))


def _mostly(point: Point, probe: str) -> bool:
    return 2 * point.passed[probe] > 1


def _answered(rows: Sequence[Mapping[str, Any]], passed: bool) -> Mapping[str, Any]:
    """The first of a probe's answers that did as most of them did."""
    return next(row for row in rows if not pd.isna(row["passed"]) and bool(row["passed"]) is passed)


def _answer(row: Mapping[str, Any]) -> Answer:
    text, extracted = str(row["response"]), row["extracted"]
    return Answer(
        text=text[:MOST_CHARACTERS],
        cut_characters=max(0, len(text) - MOST_CHARACTERS),
        extracted=extracted if isinstance(extracted, str) else "",
        finish_reason=str(row["finish_reason"]),
    )
