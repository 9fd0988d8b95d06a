"""What every benchmark reports, and how it is printed: a small table, or one JSON object."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class BenchmarkResult:
    """Our figure beside others', measured in the same run. A ratio above 1 means that ours is better."""

    name: str
    unit: str
    ours: float
    others: dict[str, float]
    ratio: dict[str, float]
    context: dict[str, Any] = field(default_factory=dict)


def compare(
    name: str,
    unit: str,
    figures: Mapping[str, float],
    *,
    more_is_better: bool,
    context: Mapping[str, Any] | None = None,
) -> BenchmarkResult:
    """Build the result out of `figures`, one of which is called "ours"."""
    ours = figures["ours"]
    others = {key: value for key, value in figures.items() if key != "ours"}
    ratio = {key: ours / value if more_is_better else value / ours for key, value in others.items()}
    return BenchmarkResult(name, unit, ours, others, ratio, dict(context or {}))


def interleaved(subjects: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    """Measure all subjects in turn, `repeats` times over, so that a disturbance of the machine meets them all."""
    figures: dict[str, list[float]] = {name: [] for name in subjects}
    for _ in range(repeats):
        for name, measure in subjects.items():
            figures[name].append(measure())
    return figures


def medians(figures: Mapping[str, list[float]]) -> dict[str, float]:
    """The median of each subject's figures."""
    return {name: statistics.median(values) for name, values in figures.items()}


def print_result(result: BenchmarkResult, *, as_json: bool) -> None:
    """Print the table for people or the object for programs."""
    if as_json:
        print(json.dumps(asdict(result)))
        return
    print(f"{result.name} [{result.unit}]")
    print(f"  {'ours':<24}{result.ours:>12.4g}")
    for name, value in result.others.items():
        print(f"  {name:<24}{value:>12.4g}   ratio {result.ratio[name]:.2f}")
    for key, value in result.context.items():
        print(f"  {key}: {value}")
