"""A run as a curve: its checkpoints in order, the base that they may be compared with, and what follows from them."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from ml_pipeline.printable import printable
from ml_pipeline.reports import conclusions
from ml_pipeline.reports.comparison import (
    Comparison,
    MeanComparison,
    Passes,
    Probes,
    RunComparison,
    Templates,
    adjusted,
    compare,
    compare_means,
    compare_run,
)
from ml_pipeline.reports.conclusions import AnswerTable, Fall, Share, base_fall_level
from ml_pipeline.reports.failures import Failure, current_failures, failures_by_run
from ml_pipeline.reports.intervals import Estimate
from ml_pipeline.reports.judge_scale import Scale, judge_scales
from ml_pipeline.reports.losses import RunLosses, losses_by_run
from ml_pipeline.reports.sample_metrics import is_sample_metric
from ml_pipeline.reports.score_table import FIGURE_COLUMNS, JUDGE_PREFIX, UNSOUND_METRIC, score_table
from ml_pipeline.reports.scores import EVALUATION_KEY, Scores
from ml_pipeline.scoring.degeneration import NOTABLE_SHARE, SIGNALS, UNSOUND_SIGNALS
from ml_pipeline.scoring.means import effective_count, wilson_interval
from ml_pipeline.scoring.statistics import OVERALL
from ml_pipeline.settings import BASE_SOURCE

EvaluationKey = tuple[str, str, str]
_BROKEN = ("repetitive_share", "looping_share", "empty_share", "off_language_share")
_CUT = "length"
_SIGNS = (*(f"{signal}_share" for signal in SIGNALS), "unscored_share")


@dataclass(frozen=True, eq=False)
class Point:
    """One checkpoint on one suite: its figures by metric and category (of accuracy; of all others 'overall' alone), and
    its passes by probe id.

    `means` are the figures of single probes whose means are compared, each the mean of the probe's samples: by metric
    ("lek", "judge:<dimension>"), then by probe id. `cut` are the probes of which the token limit cut an answer
    before its end, `samples` is how often each was asked.
    """

    identity: Mapping[str, Any]
    figures: Mapping[str, Mapping[str, Estimate]]
    passed: Passes
    templates: Templates
    means: Mapping[str, Mapping[str, float]]
    cut: Probes = frozenset()
    samples: int = 1
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

    def share(self, metric: str) -> Share | None:
        """A share of answers or probes that show a sign, as counts of probes; None when there is none."""
        found = self.overall(metric)
        if found is None or not found.count:
            return None
        return Share.of_probes(found.value, found.count, self.samples, found.low, found.high)

    def mean_against(self, reference: Point, metric: str, tests: int = 1) -> MeanComparison | None:
        """A figure of `means` against the reference's, one of so many such comparisons; None with fewer than two probes
        in common."""
        confidence = conclusions.simultaneous_confidence(tests)
        figures = reference.means.get(metric, {}), self.means.get(metric, {})
        return compare_means(*figures, self.templates, confidence, cut=(reference.cut, self.cut))

    @property
    def unscored(self) -> int:
        """Probes of the suite that have no accuracy."""
        share = self.overall("unscored_share")
        return 0 if share is None else round(share.value * share.count)


class RunGroup(list["RunCurve"]):
    """The curves of one run, on all its suites: one run has one standing. `memo` keeps what was concluded from them."""

    def __init__(self, curves: Iterable[RunCurve] = ()) -> None:
        super().__init__(curves)
        self.memo: dict[str, Any] = {}


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
    group: RunGroup = field(default_factory=RunGroup)

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
    def suites(self) -> int:
        """How many curves the run has: what is said of it must hold over all of them."""
        return max(1, len(self.group))

    @cached_property
    def ranked_suites(self) -> int:
        """How many of them have accuracies, which may fall."""
        return max(1, sum(curve.ranked for curve in self.group))

    @cached_property
    def ranked(self) -> bool:
        """Whether any checkpoint has an accuracy."""
        return any(point.accuracy is not None for point in self.points)

    @cached_property
    def answers(self) -> AnswerTable:
        """The passes of the base and of all checkpoints, as `conclusions` takes them."""
        base = None if self.base is None else self.base.passed
        cut = [frozenset() if self.base is None else self.base.cut, *(point.cut for point in self.points)]
        return AnswerTable.of(base, [point.passed for point in self.points], cut)

    @cached_property
    def falls(self) -> tuple[Fall | None, ...]:
        """Where the accuracy fell, by checkpoint."""
        return tuple(conclusions.falls(self.answers, self.ranked_suites))

    @property
    def reference(self) -> Point | None:
        """What checkpoints are held against: the base, without one the first checkpoint."""
        return self.base or (self.points[0] if self.points else None)

    def signs(self, point: Point, position: int, *, first: bool = True) -> tuple[str, ...]:
        """The metrics of broken answers that rose at the checkpoint of this position (from 1) in the run, in the order
        of `scoring.degeneration.SIGNALS`; `first`: at the level of a run that is not known to be in trouble."""
        if self.reference is None or point is self.reference:
            return ()
        found = []
        for metric in _SIGNS:
            before, now = self.reference.share(metric), point.share(metric)
            if before is None or now is None:
                continue
            if conclusions.more_broken(before, now, position, self.suites, first=first):
                found.append(metric)
        return tuple(found)

    @cached_property
    def _eligible(self) -> tuple[Point, ...]:
        """The checkpoints that may truly be the best: with an accuracy above 0 that is not worse than the base's, and
        answers that are not broken."""
        return tuple(
            point
            for position, point in enumerate(self.points, 1)
            if point.accuracy is not None
            and point.accuracy.value > 0
            and not (point.vs_base is not None and point.vs_base.verdict == "worse")
            and not set(self.signs(point, position)) & set(_BROKEN)
        )

    @cached_property
    def best(self) -> tuple[Point, ...]:
        """The checkpoints of the highest accuracy, earliest first: several when they tie; none where all are worse than
        the base, without a right answer or broken, and none below the base of a run that is worse as a whole."""
        together = self.vs_base
        if together is None or together.verdict != "worse" or self.base is None or self.base.accuracy is None:
            return _highest(self._eligible)
        least = self.base.accuracy.value
        return _highest([one for one in self._eligible if one.accuracy is not None and one.accuracy.value >= least])

    @cached_property
    def highest(self) -> tuple[Point, ...]:
        """The best, and where none may be called so those of the highest accuracy; none when none was scored."""
        return self.best or _highest([point for point in self.points if point.accuracy is not None])

    @cached_property
    def near_best(self) -> tuple[Point, ...]:
        """Checkpoints below the best that may be the truly best one as well (see `conclusions.may_be_best`)."""
        if not self.best:
            return ()
        eligible, best = set(map(id, self._eligible)), set(map(id, self.best))
        return tuple(
            point
            for point, named in zip(self.points, conclusions.may_be_best(self.answers), strict=True)
            if named and id(point) in eligible - best
        )

    @cached_property
    def luck(self) -> float | None:
        """By how much (0..1) the best accuracy probably lies above its truth, being the highest of several; None for a
        single checkpoint."""
        return conclusions.luck_of_the_best(self.answers)

    def chosen_interval(self, point: Point) -> tuple[float, float] | None:
        """The 95% interval of an accuracy that was chosen for being the highest of the run's: its lower end allows for
        all of them, so that it holds the truth whichever was chosen."""
        count = sum(one.accuracy is not None for one in self.points)
        accuracy = point.accuracy
        if accuracy is None or not point.passed:
            return None if accuracy is None or accuracy.low is None else (accuracy.low, accuracy.high or 1.0)
        shares = [float(share) for share in point.passed.values()]
        worth = effective_count(shares, [point.templates.get(probe, probe) for probe in point.passed])
        right = min(1.0, accuracy.value) * worth
        low, _ = wilson_interval(right, worth, conclusions.simultaneous_confidence(count))
        _, high = wilson_interval(right, worth)
        return low, high

    def shown_accuracy(self, point: Point) -> Estimate | None:
        """An accuracy as it stands alone, not among all of its run: of the highest with its `chosen_interval`."""
        ends = self.chosen_interval(point) if point in self.highest else None
        return (
            point.accuracy
            if point.accuracy is None or ends is None
            else replace(point.accuracy, low=ends[0], high=ends[1])
        )

    @cached_property
    def vs_base(self) -> RunComparison | None:
        """All checkpoints together against the base; None without a base or with fewer than two scored checkpoints."""
        scored = [point for point in self.points if point.passed]
        if self.base is None or len(scored) < 2:
            return None
        cut = self.base.cut, [p.cut for p in scored]
        return compare_run(self.base.passed, [p.passed for p in scored], tests=self.ranked_suites, cut=cut)

    @cached_property
    def typical(self) -> Comparison | None:
        """The comparison with the base of which `detectable` is the median over the checkpoints; None without any."""
        found = sorted((p.vs_base for p in self.points if p.vs_base is not None), key=lambda one: one.detectable)
        return found[(len(found) - 1) // 2] if found else None

    @cached_property
    def detectable_fall(self) -> float | None:
        """The fall below the base that a typical comparison calls trouble 4 times in 5, at the place of the
        newest checkpoint; None without a base."""
        level = base_fall_level(len(self.points), self.ranked_suites)
        return None if self.typical is None else self.typical.detectable_at(2 * level)

    @cached_property
    def trend(self) -> str:
        """The course from the base (without one: from the first checkpoint) to the last, in words. A fall is one of
        `falls`, so that a run that is sound is rarely called falling however often it is looked at."""
        path = [p for p in (self.base, *self.points) if p is not None and p.passed]
        if len(path) < 2:
            return "too few checkpoints"
        last = next(index for index in reversed(range(len(self.points))) if self.points[index].passed)
        point, fall = self.points[last], self.falls[last]
        if fall is not None:
            peak = _highest([one for one in self.points[:last] if one.accuracy is not None])
            rose = peak and peak[0].vs_base is not None and peak[0].vs_base.verdict == "better"
            return f"peaked at {peak[0].iteration}, then fell" if rose else "falling"
        since_start = point.vs_base if self.base is not None else compared(path[0], point, self.ranked_suites)
        rising = since_start is not None and since_start.verdict == "better"
        return "rising" if rising else "no clear change"


def _highest(points: Sequence[Point]) -> tuple[Point, ...]:
    placed = conclusions.ranks([point.accuracy.value if point.accuracy else None for point in points])
    return tuple(point for point, (rank, _) in zip(points, placed, strict=True) if rank == 1)


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
    groups: dict[tuple[str, ...], RunGroup] = defaultdict(RunGroup)
    ranked = Counter(names[1:4] for names, found in curves.items() if any(p.accuracy for p in found.values()))
    made = [
        build_curve(
            names,
            curves[names].values(),
            bases.get((names[0], names[-1])),
            losses=losses.get((names[2], names[3]), {}),
            judge_scale=scales.get(names[0]),
            failures=failures.get((names[2], names[3]), ()),
            group=groups[names[1:4]],
            suites=ranked[names[1:4]],
        )
        for names in sorted(curves)
    ]
    for curve in made:
        curve.group.append(curve)
    return made


def build_curve(
    names: tuple[str, ...], points: Iterable[Point], base: Point | None, suites: int = 1, **beside: Any
) -> RunCurve:
    """The curve of points of one suite, base model, source, run and protocol (`names`), each compared with the base and
    with the one before; that allows for all checkpoints on all of the run's `suites` that have accuracies. `beside` are
    the other fields of `RunCurve`."""
    suite, base_model, source, run, protocol_id = names
    ordered = sorted(points, key=lambda point: (point.iteration, point.key))
    before: list[Point | None] = [None, *ordered][: len(ordered)]
    compared = [
        replace(point, vs_base=vs_base, previous=previous, vs_previous=vs_previous)
        for point, vs_base, previous, vs_previous in zip(
            ordered,
            _against([base] * len(ordered), ordered, suites),
            before,
            _against(before, ordered, suites),
            strict=True,
        )
    ]
    return RunCurve(source, run, base_model, suite, protocol_id, base, tuple(compared), **beside)


def _against(references: Sequence[Point | None], points: Sequence[Point], suites: int) -> list[Comparison | None]:
    pairs = list(zip(references, points, strict=True))
    # Counted by accuracies: the passes of some may not be at hand, and were compared all the same.
    tests = sum(r is not None and r.accuracy is not None and point.accuracy is not None for r, point in pairs)
    tests *= max(1, suites)
    return adjusted([None if r is None else compared(r, point, tests) for r, point in pairs])


def compared(reference: Point, point: Point, tests: int) -> Comparison | None:
    """One of so many comparisons: a checkpoint's passes against another's."""
    return compare(reference.passed, point.passed, point.templates, tests=max(1, tests), cut=(reference.cut, point.cut))


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
    cut: dict[EvaluationKey, set[str]] = defaultdict(set)
    was_cut = scores.responses[scores.responses["finish_reason"].eq(_CUT)]
    for key, probe, _ in _figures_of(was_cut, "finish_reason"):
        cut[key].add(probe)
    asked = scores.responses.groupby(EVALUATION_KEY)["sample"].max().to_dict()
    return [
        Point(
            row,
            {name: dict(by) for name, by in figures.get(_key(row), {}).items()},
            {probe: _share(passed) for probe, passed in answers.get(_key(row), {}).items()},
            templates.get(_key(row), {}),
            means.get(_key(row), {}),
            _unfinished(cut.get(_key(row), ()), figures.get(_key(row), {})),
            int(asked.get(_key(row), 1)),
        )
        for row in _records(scores.identities())
    ]


def _unfinished(cut: Iterable[str], figures: Mapping[str, Mapping[str, Estimate]]) -> Probes:
    """The probes whose answers the token limit cut before their end; none where most of what it cut has none."""
    shares = {name: figures.get(f"{name}_share", {}).get(OVERALL) for name in conclusions.ENDLESS_SIGNS}
    value = {name: 0.0 if found is None else found.value for name, found in shares.items()}
    return frozenset() if conclusions.mostly_endless(**value) else frozenset(cut)


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
