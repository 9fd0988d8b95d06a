"""A run as a curve: its checkpoints in order, the base that they may be compared with, and what follows from them."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from ml_pipeline.printable import printable
from ml_pipeline.reports.comparison import (
    Comparison,
    MeanComparison,
    Passes,
    RunComparison,
    Templates,
    adjusted,
    compare,
    compare_means,
    compare_run,
)
from ml_pipeline.reports.failures import Failure, current_failures, failures_by_run
from ml_pipeline.reports.intervals import Estimate
from ml_pipeline.reports.judge_scale import Scale, judge_scales
from ml_pipeline.reports.losses import RunLosses, losses_by_run
from ml_pipeline.reports.sample_metrics import is_sample_metric
from ml_pipeline.reports.score_table import FIGURE_COLUMNS, JUDGE_PREFIX, UNSOUND_METRIC, score_table
from ml_pipeline.reports.scores import EVALUATION_KEY, Scores
from ml_pipeline.scoring.degeneration import NOTABLE_SHARE, SIGNALS, UNSOUND_SIGNALS
from ml_pipeline.scoring.statistics import OVERALL
from ml_pipeline.settings import BASE_SOURCE

EvaluationKey = tuple[str, str, str]
_SAME = 1e-9


@dataclass(frozen=True, eq=False)
class Point:
    """One checkpoint on one suite: its figures by metric and category (of accuracy; of all others 'overall' alone), and
    its passes by probe id.

    `means` are the figures of single probes whose means are compared, each the mean of the probe's samples: by metric
    ("lek", "judge:<dimension>"), then by probe id.
    """

    identity: Mapping[str, Any]
    figures: Mapping[str, Mapping[str, Estimate]]
    passed: Passes
    templates: Templates
    means: Mapping[str, Mapping[str, float]]
    vs_base: Comparison | None = None
    vs_previous: Comparison | None = None
    previous: Point | None = None

    @property
    def key(self) -> EvaluationKey:
        """Partition key, suite and evaluation id."""
        partition_key, suite, evaluation_id = (str(self.identity[name]) for name in EVALUATION_KEY)
        return partition_key, suite, evaluation_id

    @property
    def partition_key(self) -> str:
        """The checkpoint's key."""
        return str(self.identity["partition_key"])

    @property
    def iteration(self) -> int:
        """The training iteration; 0 for a bare base."""
        return int(self.identity["iteration"])

    @property
    def accuracy(self) -> Estimate | None:
        """Overall accuracy; None when no probe was scored."""
        return self.overall("accuracy")

    def overall(self, metric: str) -> Estimate | None:
        """A metric's figure over all categories; None when there is none."""
        return self.figures.get(metric, {}).get(OVERALL)

    @property
    def unsound(self) -> float | None:
        """The share of its answers that are empty, looping, cut or word salad; of scores from before that was counted,
        the largest share of one of these. None where nothing was looked at."""
        found = self.overall(UNSOUND_METRIC)
        if found is not None:
            return found.value
        parts = [one.value for name in UNSOUND_SIGNALS if (one := self.overall(f"{name}_share")) is not None]
        return max(parts, default=None)

    @property
    def is_unsound(self) -> bool:
        """Whether so many of its answers are unsound that figures of their wording, and a judge's, say nothing."""
        return (self.unsound or 0.0) >= NOTABLE_SHARE

    def mean_against(self, reference: Point, metric: str) -> MeanComparison | None:
        """A figure of `means` against the reference's; None with fewer than two probes in common."""
        return compare_means(reference.means.get(metric, {}), self.means.get(metric, {}), self.templates)

    @property
    def unscored(self) -> int:
        """Probes of the suite that have no accuracy."""
        share = self.overall("unscored_share")
        return 0 if share is None else round(share.value * share.count)


@dataclass(frozen=True, eq=False)
class RunCurve:
    """The checkpoints of one run on one suite under one protocol, by iteration, and the base of that protocol.

    Points of different protocols (another base, quantisation, backend, suite version) are in different curves.
    `losses` are those of the run's training, whatever was scored; `judge_scale` is None where it is not known.
    `failures` are the run's checkpoints whose newest attempt failed; one of them may be a point too, by older scores.
    """

    source: str
    run: str
    base_model: str
    suite: str
    protocol_id: str
    base: Point | None
    points: tuple[Point, ...]
    losses: RunLosses
    judge_scale: Scale | None
    failures: tuple[Failure, ...] = ()

    @property
    def name(self) -> str:
        """The run as a reader knows it: <source>/<run>."""
        return printable(f"{self.source}/{self.run}")

    @cached_property
    def course(self) -> tuple[tuple[int, Estimate | None], ...]:
        """Accuracy by iteration; None for a checkpoint that failed or has none."""
        scored = {point.partition_key for point in self.points}
        failed = [(one.iteration, None) for one in self.failures if one.partition_key not in scored]
        return tuple(sorted([*((p.iteration, p.accuracy) for p in self.points), *failed], key=lambda pair: pair[0]))

    @cached_property
    def judge_metrics(self) -> dict[str, str]:
        """What was judged anywhere in the run: metric of the score table -> the dimension's name."""
        every = [point for point in (self.base, *self.points) if point is not None]
        names = {metric for point in every for metric in point.figures if metric.startswith(JUDGE_PREFIX)}
        return {name: name.removeprefix(JUDGE_PREFIX) for name in sorted(names)}

    @cached_property
    def sample_metrics(self) -> tuple[str, ...]:
        """What several answers to a probe add: majority and pass@k, where any checkpoint has them."""
        names = {metric for point in self.points for metric in point.figures if is_sample_metric(metric)}
        return tuple(sorted(names, key=lambda name: (len(name), name)))

    @cached_property
    def signal_metrics(self) -> dict[str, str]:
        """Signs of degeneration that any checkpoint shows, and truncation in any case: metric -> the sign's name."""
        names = {f"{signal}_share": signal.replace("_", " ") for signal in SIGNALS}
        return {
            metric: name
            for metric, name in names.items()
            if name == "truncated" or any((f := p.overall(metric)) is not None and f.value > 0 for p in self.points)
        }

    @cached_property
    def best(self) -> tuple[Point, ...]:
        """The checkpoints of the highest accuracy, earliest first: several when they tie, none when none was scored."""
        scored = [(point, point.accuracy.value) for point in self.points if point.accuracy is not None]
        top = max((value for _, value in scored), default=math.nan)
        return tuple(point for point, value in scored if abs(value - top) < _SAME)

    @cached_property
    def near_best(self) -> tuple[Point, ...]:
        """Checkpoints below the best that the probes cannot tell apart from it (McNemar's test at 5%)."""
        if not self.best:
            return ()
        top = self.best[0]
        return tuple(
            point
            for point in self.points
            if point not in self.best
            and (comparison := compare(top.passed, point.passed)) is not None
            and comparison.verdict == "no clear difference"
        )

    @cached_property
    def vs_base(self) -> RunComparison | None:
        """All checkpoints together against the base; None without a base or with fewer than two scored checkpoints."""
        scored = [point.passed for point in self.points if point.passed]
        return compare_run(self.base.passed, scored) if self.base is not None and len(scored) > 1 else None

    @cached_property
    def detectable(self) -> float | None:
        """The difference from the base that its probes find 4 times in 5: the median over the checkpoints."""
        found = [point.vs_base.detectable for point in self.points if point.vs_base is not None]
        return statistics.median(found) if found else None

    @cached_property
    def trend(self) -> str:
        """The course from the base (without one: from the first checkpoint) to the last, in words."""
        path = [p for p in (self.base, *self.points) if p is not None and p.passed]
        if len(path) < 2:
            return "too few checkpoints"
        peak = max(path, key=lambda point: point.accuracy.value if point.accuracy else -1.0)
        since_start, since_peak = (_verdict(path[0], path[-1]), _verdict(peak, path[-1]))
        if since_peak == "worse" and _verdict(path[0], peak) == "better":
            return f"peaked at {peak.iteration}, then fell"
        if since_start == "worse" or since_peak == "worse":
            return "falling"
        return "rising" if since_start == "better" else "no clear change"


def run_curves(scores: Scores) -> list[RunCurve]:
    """Every run's curves, by suite, base model, source and run; a base without any run is a curve with no points."""
    points = scored_points(scores)
    bases: dict[tuple[str, str], Point] = {}
    curves: dict[tuple[str, ...], dict[str, Point]] = defaultdict(dict)
    for point in sorted(points, key=lambda point: (point.identity["scored_at"], point.key)):
        names = tuple(str(point.identity[name]) for name in ("suite", "base_model", "source", "run", "protocol_id"))
        if point.identity["source"] == BASE_SOURCE:
            bases[names[0], names[-1]] = point
        else:
            # A checkpoint scored twice under one protocol (its adapter changed on disk) counts by its newest scores.
            curves[names][str(point.identity["partition_key"])] = point
    used = {(names[0], names[-1]) for names in curves}
    for (suite, protocol_id), base in bases.items():
        if (suite, protocol_id) not in used:
            identity = base.identity
            curves[suite, str(identity["base_model"]), BASE_SOURCE, str(identity["run"]), protocol_id] = {}
    losses, scales = losses_by_run(scores.training_loss), judge_scales(scores.judgements)
    failures = failures_by_run(current_failures(scores))
    return [
        _curve(
            names,
            curves[names].values(),
            bases.get((names[0], names[-1])),
            losses=losses.get((names[2], names[3]), {}),
            judge_scale=scales.get(names[0]),
            failures=failures.get((names[2], names[3]), ()),
        )
        for names in sorted(curves)
    ]


def _curve(names: tuple[str, ...], points: Iterable[Point], base: Point | None, **beside: Any) -> RunCurve:
    suite, base_model, source, run, protocol_id = names
    ordered = sorted(points, key=lambda point: (point.iteration, point.key))
    before: list[Point | None] = [None, *ordered][: len(ordered)]
    compared = [
        replace(point, vs_base=vs_base, previous=previous, vs_previous=vs_previous)
        for point, vs_base, previous, vs_previous in zip(
            ordered, _against([base] * len(ordered), ordered), before, _against(before, ordered), strict=True
        )
    ]
    return RunCurve(source, run, base_model, suite, protocol_id, base, tuple(compared), **beside)


def _against(references: Sequence[Point | None], points: Sequence[Point]) -> list[Comparison | None]:
    pairs = zip(references, points, strict=True)
    return adjusted([None if r is None else compare(r.passed, point.passed, point.templates) for r, point in pairs])


def _verdict(reference: Point, candidate: Point) -> str:
    comparison = compare(reference.passed, candidate.passed)
    return "no clear difference" if comparison is None else comparison.verdict


def scored_points(scores: Scores) -> list[Point]:
    """Every checkpoint on every suite, bases among them, none of them compared with another."""
    figures: dict[EvaluationKey, dict[str, dict[str, Estimate]]] = defaultdict(lambda: defaultdict(dict))
    for row in _records(score_table(scores, by_category=False)[[*EVALUATION_KEY, *FIGURE_COLUMNS]]):
        if not math.isnan(row["value"]):
            figures[_key(row)][row["metric"]][row["category"]] = _estimate(row)
    answers: dict[EvaluationKey, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for key, probe, passed in _figures_of(scores.probe_results, "passed"):
        answers[key][probe].append(bool(passed))
    templates: dict[EvaluationKey, dict[str, str]] = defaultdict(dict)
    for key, probe, template in _figures_of(scores.responses, "template"):
        templates[key][probe] = template
    means: dict[EvaluationKey, dict[str, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    judged = [(f"{JUDGE_PREFIX}{name}", rows, "score") for name, rows in scores.judgements.groupby("dimension")]
    for metric, rows, column in [("lek", scores.heuristic_scores, "lek"), *judged]:
        by_probe = rows.groupby([*EVALUATION_KEY, "probe_id"])[column].mean()
        for key, probe, value in _figures_of(by_probe.reset_index(), column):
            means[key][metric][probe] = value
    return [
        Point(
            row,
            {name: dict(by) for name, by in figures.get(_key(row), {}).items()},
            {probe: _share(passed) for probe, passed in answers.get(_key(row), {}).items()},
            templates.get(_key(row), {}),
            means.get(_key(row), {}),
        )
        for row in _records(scores.identities())
    ]


def _share(passed: Sequence[bool]) -> bool | Fraction:
    return passed[0] if len(passed) == 1 else Fraction(sum(passed), len(passed))


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    columns = list(frame.columns)
    return [dict(zip(columns, values, strict=True)) for values in frame.itertuples(index=False, name=None)]


def _figures_of(table: pd.DataFrame, column: str) -> Iterator[tuple[EvaluationKey, str, Any]]:
    """Evaluation, probe and figure of each row that has one; by columns, since rows of pandas take long to walk."""
    rows = table.loc[table[column].notna(), [*EVALUATION_KEY, "probe_id", column]]
    probes, figures = rows["probe_id"].tolist(), rows[column].tolist()
    for key, places in rows.groupby(EVALUATION_KEY).indices.items():
        assert isinstance(key, tuple)
        for place in np.asarray(places).tolist():
            yield key, probes[place], figures[place]


def _key(row: Mapping[str, Any]) -> EvaluationKey:
    return row["partition_key"], row["suite"], row["evaluation_id"]


def _estimate(row: Mapping[str, Any]) -> Estimate:
    low, high = (None if math.isnan(row[end]) else float(row[end]) for end in ("low", "high"))
    return Estimate(float(row["value"]), low, high, int(row["count"]), int(row["unscored"]))
