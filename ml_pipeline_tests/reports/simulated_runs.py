"""Runs by chance whose truth is known, and how often the reports err about them.

    python -m ml_pipeline_tests.reports.simulated_runs [--runs N]

prints the rates that the tests hold, from so many runs each.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from ml_pipeline.reports.intervals import Estimate
from ml_pipeline.reports.runs import Point, RunCurve, RunGroup, build_curve
from ml_pipeline.reports.trouble import run_standing
from ml_pipeline.scoring.means import wilson_interval
from ml_pipeline.scoring.statistics import share_interval

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Kind:
    """What runs are like: the chance that each probe is passed is Beta(a, b) of its template, all probes of which have
    the same; `steps` are added to the chances of each checkpoint (a loss: of passing at all). Of the answers the shares
    `signs` are broken, by the name of the sign, and a judge's figures of a probe have the deviation `judge`."""

    checkpoints: int
    probes: int
    a: float = 0.5
    b: float = 1.0
    of_template: int = 1
    samples: int = 1
    suites: int = 1
    steps: Sequence[float] = ()
    signs: Mapping[str, float] = field(default_factory=dict)
    judge: float = 0.0


@dataclass(frozen=True)
class SimulatedRun:
    """A run on its suites, and the true share that each checkpoint (the base first) passes of each suite's probes."""

    curves: list[RunCurve]
    truths: list[Floats]


def runs_of(kind: Kind, count: int, seed: int) -> Iterator[SimulatedRun]:
    """So many runs of a kind."""
    generator = np.random.default_rng([seed, kind.checkpoints, kind.probes])
    for _ in range(count):
        group, truths = RunGroup(), []
        for suite in range(kind.suites):
            ability = np.repeat(generator.beta(kind.a, kind.b, -(-kind.probes // kind.of_template)), kind.of_template)[
                : kind.probes
            ]
            chances = np.tile(ability, (kind.checkpoints + 1, 1))
            for row, step in enumerate(kind.steps, 1):
                chances[row] = _moved(ability, step, generator)
            passed = generator.binomial(kind.samples, chances)
            points = [_point(kind, f"suite-{suite}", row, passed[row], generator) for row in range(len(passed))]
            names = (f"suite-{suite}", "tiny", "mac", "r", "protocol")
            beside: dict[str, Any] = {"losses": {}, "judge_scale": None, "group": group}
            curve = build_curve(names, points[1:], points[0], kind.suites, **beside)
            group.append(curve)
            truths.append(chances.mean(axis=1))
        yield SimulatedRun(list(group), truths)


def grown(run: SimulatedRun) -> Iterator[list[RunCurve]]:
    """The run as it was seen after each of its checkpoints."""
    for count in range(1, len(run.curves[0].points) + 1):
        group = RunGroup()
        for curve in run.curves:
            names = (curve.suite, "tiny", "mac", "r", "protocol")
            seen = curve.points[:count]
            beside: dict[str, Any] = {"losses": {}, "judge_scale": None, "group": group}
            group.append(build_curve(names, seen, curve.base, len(run.curves), **beside))
        yield list(group)


def _moved(ability: Floats, step: float, generator: np.random.Generator) -> Floats:
    """Chances whose mean lies by `step` higher or lower: what was lost or learnt was so wholly, on some probes."""
    room = ability.mean() if step < 0 else 1 - ability.mean()
    turned = generator.random(len(ability)) < abs(step) / room
    moved: Floats = np.where(turned, float(step > 0), ability)
    return moved


def _point(kind: Kind, suite: str, row: int, passed: npt.NDArray[np.int64], generator: np.random.Generator) -> Point:
    identity = {
        "partition_key": f"mac.r@{10 * row}" if row else "base.tiny@0",
        "suite": suite,
        "evaluation_id": "e",
        "iteration": 10 * row,
        "protocol_id": "protocol",
        "source": "mac" if row else "base",
    }
    names = [f"p{index}" for index in range(kind.probes)]
    share: Any = bool if kind.samples == 1 else lambda count: Fraction(int(count), kind.samples)
    templates = {} if kind.of_template == 1 else {n: f"t{i // kind.of_template}" for i, n in enumerate(names)}
    answers = [index < count for count in passed.tolist() for index in range(kind.samples)]
    clusters = [templates.get(name, name) for name in names for _ in range(kind.samples)]
    value, total = sum(answers) / len(answers), len(answers)
    low, high = share_interval(answers, clusters) or (None, None)
    figures = {"accuracy": {"overall": Estimate(value, low, high, total)}}
    for sign, chance in kind.signs.items():
        hits = int(generator.binomial(total, chance))
        figures[f"{sign}_share"] = {"overall": Estimate(hits / total, *wilson_interval(hits, total), total)}
    means: dict[str, dict[str, float]] = {}
    if kind.judge:
        scores = np.clip(generator.normal(5, kind.judge, kind.probes).round(1), 0, 10)
        means["judge:avg"] = dict(zip(names, scores.tolist(), strict=True))
        figures["judge:avg"] = {"overall": Estimate(float(scores.mean()), None, None, kind.probes)}
    given = {name: share(count) for name, count in zip(names, passed.tolist(), strict=True)}
    return Point(identity, figures, given, templates, means, samples=kind.samples)


def called_bad(run: SimulatedRun) -> bool:
    """Whether the run's card says trouble."""
    return run_standing(run.curves[0]).trouble is not None


def said_to_fall(run: SimulatedRun) -> bool:
    """Whether any of its curves is called falling, or peaked and fallen."""
    return any("fall" in curve.trend or "fell" in curve.trend for curve in run.curves)


def wrong_verdict(run: SimulatedRun) -> bool:
    """Whether any suite's table calls any of the checkpoints, which are the base's equals, better or worse."""
    every = [point.vs_base for curve in run.curves for point in curve.points]
    return any(found is not None and found.verdict in ("better", "worse") for found in every)


def wrong_together(run: SimulatedRun) -> bool:
    """Whether on any suite all checkpoints together are called better or worse than the base."""
    every = [curve.vs_base for curve in run.curves]
    return any(found is not None and found.verdict != "no clear difference" for found in every)


def best_is_named(run: SimulatedRun) -> bool:
    """Whether the truly best checkpoint (of equals the first) is called best or near best."""
    curve = run.curves[0]
    true_best = curve.points[int(np.argmax(run.truths[0][1:]))]
    return true_best in (*curve.best, *curve.near_best)


def best_is_covered(run: SimulatedRun) -> bool:
    """Whether the headline's interval of the best checkpoint's accuracy holds its true share."""
    curve = run.curves[0]
    if not curve.best:
        return True
    low, high = curve.chosen_interval(curve.best[0]) or (0.0, 1.0)
    truth = run.truths[0][1 + curve.points.index(curve.best[0])]
    return bool(low <= truth <= high)


def best_gain_is_covered(run: SimulatedRun) -> bool:
    """Whether the headline's interval of what the best checkpoint gained over the base holds the truth."""
    curve = run.curves[0]
    if not curve.best or curve.best[0].vs_base is None:
        return True
    found, truths = curve.best[0].vs_base, run.truths[0]
    return bool(found.low <= truths[1 + curve.points.index(curve.best[0])] - truths[0] <= found.high)


def rate(kind: Kind, count: int, event: Any, seed: int = 1) -> float:
    """In what share of so many runs the event happens."""
    return sum(bool(event(run)) for run in runs_of(kind, count, seed)) / count


ALL_SIGNS = {"truncated": 0.3, "looping": 0.25, "repetitive": 0.25, "empty": 0.05, "unscored": 0.25}


def main() -> None:
    """Print the rates."""
    parser = argparse.ArgumentParser(description="how often reports err about runs whose truth is known")
    parser.add_argument("--runs", type=int, default=1000)
    runs = parser.parse_args().runs
    for checkpoints in (1, 5, 20, 50):
        for probes in (41, 610):
            count = max(20, runs // (1 if probes == 41 else 10) // (1 if checkpoints < 50 else 4))
            equal = Kind(checkpoints, probes)
            everything = Kind(checkpoints, probes, suites=3, of_template=5, signs=ALL_SIGNS, judge=2.0)
            spread = Kind(checkpoints, probes, steps=np.linspace(-0.1, 0.1, checkpoints).tolist())
            seen = {
                "in trouble": rate(equal, count, called_bad),
                "in trouble, 3 suites, all signs": rate(everything, max(20, count // 3), called_bad),
                "falling": rate(equal, count, said_to_fall),
                "better or worse": rate(equal, count, wrong_verdict),
                "together": rate(equal, count, wrong_together),
                "true best named, equals": rate(equal, count, best_is_named),
                "true best named, spread": rate(spread, count, best_is_named),
                "best covered": rate(equal, count, best_is_covered),
                "best gain covered": rate(equal, count, best_gain_is_covered),
            }
            told = "; ".join(f"{name} {share:.1%}" for name, share in seen.items())
            print(f"{checkpoints} checkpoints, {probes} probes, {count} runs: {told}", flush=True)


if __name__ == "__main__":
    main()
