"""Checkpoints of several runs in one order: which to keep, run by run or within one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from ml_pipeline.reports.conclusions import ranks
from ml_pipeline.reports.failures import Failure
from ml_pipeline.reports.leaderboard import leaderboard_of
from ml_pipeline.reports.runs import Point, RunCurve


@dataclass(frozen=True, eq=False)
class Standing:
    """A place: `rank` 1 is the highest accuracy, equal ones share a rank and are `tied`; None where nothing was passed
    or failed. `points` are the checkpoints that hold it: of one run those of equal accuracy, earliest first."""

    rank: int | None
    tied: bool
    curve: RunCurve
    points: tuple[Point, ...]


@dataclass(frozen=True, eq=False)
class Ranking:
    """The places on one suite, base and protocol, best first; those without rank come last. `each_run`: one place a
    run, its best; else every checkpoint has its own."""

    suite: str
    base_model: str
    protocol_id: str
    base: Point | None
    each_run: bool
    standings: tuple[Standing, ...]


def rankings(curves: Iterable[RunCurve], *, each_run: bool) -> list[Ranking]:
    """Rank the best checkpoint of each run, or all checkpoints, within what may be compared."""
    groups: dict[tuple[str, str, str], list[RunCurve]] = defaultdict(list)
    for curve in curves:
        groups[curve.suite, curve.base_model, curve.protocol_id].append(curve)
    made = []
    for (suite, base_model, protocol_id), together in groups.items():
        places = _ranked([place for curve in together for place in _places(curve, each_run=each_run)])
        base = next((curve.base for curve in together if curve.base is not None), None)
        made.append(Ranking(suite, base_model, protocol_id, base, each_run, tuple(places)))
    return made


def rankings_json(ranked: Sequence[Ranking], most: int, failures: Sequence[Failure] = ()) -> dict[str, Any]:
    """The rankings for programs: rows of the table `leaderboard`, with their `place` and `place_tied` here; and what
    failed."""
    shown = []
    for ranking in ranked:
        table = leaderboard_of(dict.fromkeys(standing.curve for standing in ranking.standings))
        rows = {row["partition_key"]: row for row in table.to_dict("records")}
        shown.append(
            {
                "suite": ranking.suite,
                "base_model": ranking.base_model,
                "protocol_id": ranking.protocol_id,
                "base": None if ranking.base is None else rows.get(ranking.base.partition_key),
                "places": len(ranking.standings),
                "checkpoints": [
                    {"place": standing.rank, "place_tied": standing.tied, **rows[point.partition_key]}
                    for standing in ranking.standings[:most]
                    for point in standing.points
                ],
            }
        )
    return {"rankings": shown, "failures": [asdict(failure) for failure in failures]}


def _places(curve: RunCurve, *, each_run: bool) -> list[Standing]:
    if not each_run:
        return [Standing(None, False, curve, (point,)) for point in curve.points]
    points = curve.highest or curve.points[-1:]
    return [Standing(None, False, curve, points)] if points else []


def _ranked(places: Sequence[Standing]) -> list[Standing]:
    found = ranks([_accuracy(place) for place in places])
    placed = [replace(place, rank=rank, tied=tied) for place, (rank, tied) in zip(places, found, strict=True)]
    return sorted(placed, key=lambda place: place.rank or len(places) + 1)


def _accuracy(place: Standing) -> float | None:
    estimate = place.points[0].accuracy
    return None if estimate is None else estimate.value
