"""Accuracy by category and checkpoint, as the rows and columns of a heat map."""

from __future__ import annotations

from dataclasses import dataclass

from ml_pipeline.reports.runs import Point, RunCurve
from ml_pipeline.reports.wording import evenly
from ml_pipeline.scoring.statistics import OVERALL

STEPS = 10
"""Shades of the scale, from 0 (no probe right) to this (all right)."""
_MOST_COLUMNS = 8


@dataclass(frozen=True, slots=True)
class Cell:
    """A category's accuracy in whole percent, its shade 0..`STEPS`, and of how many answers it is made."""

    percent: int
    shade: int
    count: int


@dataclass(frozen=True, slots=True)
class HeatMap:
    """`rows` are the categories' names with a cell for each column; None is a category without a score."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell | None, ...]], ...]


def category_heat_map(curve: RunCurve) -> HeatMap:
    """The base first, then the checkpoints; more than eight are thinned evenly, the best one and the last stay."""
    shown = _columns(curve)
    named = [point.figures.get("accuracy", {}) for point in shown]
    categories = dict.fromkeys(name for by in named for name in by if name != OVERALL)
    return HeatMap(
        tuple(_name(curve, point) for point in shown),
        tuple((category, tuple(_cell(point, category) for point in shown)) for category in categories),
    )


def _columns(curve: RunCurve) -> list[Point]:
    room = _MOST_COLUMNS - 1 if len(curve.points) > _MOST_COLUMNS else len(curve.points)
    kept = {id(curve.points[index]) for index in evenly(len(curve.points), room)}
    kept |= {id(point) for point in curve.highest[:1]}
    shown = [point for point in curve.points if id(point) in kept]
    return [point for point in (curve.base, *shown) if point is not None]


def _name(curve: RunCurve, point: Point) -> str:
    if point is curve.base:
        return "base"
    return f"{point.iteration}{'*' if point in curve.best else ''}"


def _cell(point: Point, category: str) -> Cell | None:
    found = point.figures.get("accuracy", {}).get(category)
    if found is None:
        return None
    return Cell(round(100 * found.value), round(STEPS * found.value), found.count)
