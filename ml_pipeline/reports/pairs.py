"""One checkpoint against another on each suite that both were scored on: by category, by judge, and probe by probe."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from ml_pipeline.errors import UnknownCheckpointError
from ml_pipeline.reports.comparison import Comparison, MeanComparison, adjusted, compare, compare_means
from ml_pipeline.reports.flips import AnswerBook, Flip
from ml_pipeline.reports.intervals import Estimate
from ml_pipeline.reports.runs import EvaluationKey, Point, scored_points
from ml_pipeline.reports.scores import EVALUATION_KEY, Scores
from ml_pipeline.scoring.statistics import OVERALL

ACCURACY = "accuracy"
PAIR_COLUMNS = {
    "suite": "str",
    "metric": "str",
    "category": "str",
    "a": "Float64",
    "a_low": "Float64",
    "a_high": "Float64",
    "b": "Float64",
    "b_low": "Float64",
    "b_high": "Float64",
    "delta": "Float64",
    "delta_low": "Float64",
    "delta_high": "Float64",
    "paired": "Int64",
    "better": "Int64",
    "worse": "Int64",
    "p_value": "Float64",
    "p_adjusted": "Float64",
    "verdict": "str",
}
_PROVENANCE = {
    "base_model": "base model",
    "base_sha256": "base model's file",
    "quantisation": "quantisation",
    "backend": "backend",
    "options": "generation options",
    "chat_template_sha256": "chat template",
    "judge_model": "judge",
}


@dataclass(frozen=True, slots=True)
class CategoryPair:
    """A category, or all together ('overall'): the two accuracies, each on all its own probes, and their difference on
    those that both have; None where no probe is scored for both. That of a category allows for the others."""

    category: str
    a: Estimate | None
    b: Estimate | None
    comparison: Comparison | None


@dataclass(frozen=True, slots=True)
class MeanPair:
    """A mean figure, LEK or a dimension of the judge's, of the two, and its difference on the probes that both have."""

    metric: str
    a: Estimate | None
    b: Estimate | None
    comparison: MeanComparison


@dataclass(frozen=True, slots=True)
class SuitePair:
    """Two checkpoints on one suite; `b` is looked at, `a` is what it is held against.

    `categories` begins with all together, and is empty where a suite has no probe that passes or fails. `differs` says
    what besides the adapter was not the same for the two; it is empty where they share a protocol. Of `flips` the lost
    ones come first.
    """

    suite: str
    a: Point
    b: Point
    differs: tuple[str, ...]
    categories: tuple[CategoryPair, ...]
    means: tuple[MeanPair, ...]
    flips: tuple[Flip, ...]

    @property
    def overall(self) -> Comparison | None:
        """All categories together."""
        return self.categories[0].comparison if self.categories else None


@dataclass(frozen=True, slots=True)
class Pairing:
    """What two checkpoints have in common, suite by suite, and why the other suites cannot be compared."""

    suites: tuple[SuitePair, ...]
    left_out: tuple[str, ...]


def pair(scores: Scores, a_key: str, b_key: str) -> Pairing:
    """Compare two checkpoints by their partition keys.

    Their probes must be the same: a suite counts where both were scored under one protocol, or where it has the same
    content for both; then `differs` tells what else is not the same.
    """
    by_key: dict[str, dict[str, Point]] = defaultdict(dict)
    for point in scored_points(scores):
        by_key[point.partition_key][point.key[1]] = point
    a_suites, b_suites = by_key[a_key], by_key[b_key]
    evaluations = _evaluations(scores)
    answers, categories = AnswerBook(scores), _categories(scores)
    compared, left_out = [], []
    for suite in sorted(a_suites.keys() | b_suites.keys()):
        a, b = a_suites.get(suite), b_suites.get(suite)
        if a is None or b is None:
            left_out.append(f"{suite}: only {a_key if b is None else b_key} was scored on it")
        elif (differs := _differences(a, b, evaluations)) is None:
            left_out.append(f"{suite}: the two were not asked the same probes (its version or content differs)")
        else:
            compared.append(_suite_pair(a, b, differs, answers, categories))
    return Pairing(tuple(compared), tuple(left_out))


def comparable(scores: Scores, a_key: str, b_key: str) -> Pairing:
    """As `pair`, for those who want nothing else.

    Raises:
        UnknownCheckpointError: there is no suite on which the two can be compared.
    """
    pairing = pair(scores, a_key, b_key)
    if not pairing.suites:
        raise UnknownCheckpointError(
            f"{a_key} and {b_key} cannot be compared: {'; '.join(pairing.left_out)}. "
            "Score both on the same version of a suite."
        )
    return pairing


def pair_table(suites: Iterable[SuitePair]) -> pd.DataFrame:
    """Compared suites as a tidy frame with the columns of `PAIR_COLUMNS`: a row a suite, metric and category."""
    rows = []
    for suite in suites:
        for one in suite.categories:
            row = {"suite": suite.suite, "metric": ACCURACY, "category": one.category} | _ends(one.a, one.b)
            if (found := one.comparison) is not None:
                row |= {name: getattr(found, name) for name in ("delta", "paired", "better", "worse", "p_value")}
                row |= {"delta_low": found.low, "delta_high": found.high}
                row |= {"p_adjusted": found.p_adjusted, "verdict": found.verdict}
            rows.append(row)
        for mean in suite.means:
            found_mean = mean.comparison
            row = {"suite": suite.suite, "metric": mean.metric, "category": OVERALL} | _ends(mean.a, mean.b)
            row |= {"delta": found_mean.delta, "delta_low": found_mean.low, "delta_high": found_mean.high}
            rows.append(row | {"paired": found_mean.paired})
    return pd.DataFrame(rows, columns=list(PAIR_COLUMNS)).astype(PAIR_COLUMNS)


def _suite_pair(
    a: Point,
    b: Point,
    differs: tuple[str, ...],
    answers: AnswerBook,
    categories: Mapping[EvaluationKey, dict[str, str]],
) -> SuitePair:
    templates = {**a.templates, **b.templates}
    means = []
    for metric in sorted(a.means.keys() & b.means.keys()):
        if found := compare_means(a.means[metric], b.means[metric], templates, cut=(a.cut, b.cut)):
            means.append(MeanPair(metric, a.overall(metric), b.overall(metric), found))
    return SuitePair(
        suite=b.key[1],
        a=a,
        b=b,
        differs=differs,
        categories=tuple(_by_category(a, b, templates, categories[b.key])) if a.passed or b.passed else (),
        means=tuple(means),
        flips=tuple(answers.between(a, b)),
    )


def _by_category(
    a: Point, b: Point, templates: Mapping[str, str], categories: Mapping[str, str]
) -> Sequence[CategoryPair]:
    overall = CategoryPair(OVERALL, a.accuracy, b.accuracy, compare(a.passed, b.passed, templates, cut=(a.cut, b.cut)))
    names = sorted(set(categories.values()))
    if len(names) < 2:
        return [overall]
    of_name = [{probe for probe, category in categories.items() if category == name} for name in names]
    tests = sum(bool(probes & a.passed.keys() & b.passed.keys()) for probes in of_name)
    parts = []
    for probes in of_name:
        of_a, of_b = ({p: v for p, v in point.passed.items() if p in probes} for point in (a, b))
        parts.append(compare(of_a, of_b, templates, tests=max(1, tests), cut=(a.cut, b.cut)))
    return [
        overall,
        *(
            CategoryPair(name, _accuracy(a, name), _accuracy(b, name), comparison)
            for name, comparison in zip(names, adjusted(parts), strict=True)
        ),
    ]


def _accuracy(point: Point, category: str) -> Estimate | None:
    return point.figures.get(ACCURACY, {}).get(category)


def _categories(scores: Scores) -> Mapping[EvaluationKey, dict[str, str]]:
    """The category of each probe, by evaluation and probe id; a probe without one is in none."""
    found: dict[EvaluationKey, dict[str, str]] = defaultdict(dict)
    rows = scores.probe_results[[*EVALUATION_KEY, "probe_id", "category"]].dropna(subset="category")
    for partition_key, suite, evaluation_id, probe, category in rows.itertuples(index=False, name=None):
        found[partition_key, suite, evaluation_id][probe] = category
    return found


def _evaluations(scores: Scores) -> dict[EvaluationKey, dict[str, object]]:
    columns = [*EVALUATION_KEY, "suite_sha256", *_PROVENANCE]
    rows = scores.evaluations[columns].itertuples(index=False, name=None)
    return {row[:3]: dict(zip(columns[3:], row[3:], strict=True)) for row in rows}


def _differences(
    a: Point, b: Point, evaluations: Mapping[EvaluationKey, Mapping[str, object]]
) -> tuple[str, ...] | None:
    """What was not the same for the two, or None when their probes are not known to be."""
    if a.identity["protocol_id"] == b.identity["protocol_id"]:
        return ()
    of_a, of_b = evaluations.get(a.key), evaluations.get(b.key)
    if of_a is None or of_b is None or of_a["suite_sha256"] != of_b["suite_sha256"]:
        return None
    named = tuple(words for name, words in _PROVENANCE.items() if _told(of_a[name]) != _told(of_b[name]))
    return named or ("protocol",)


def _told(value: object) -> object:
    return None if value is None or (isinstance(value, float) and math.isnan(value)) else value


def _ends(a: Estimate | None, b: Estimate | None) -> dict[str, object]:
    row: dict[str, object] = {}
    for name, estimate in (("a", a), ("b", b)):
        if estimate is not None:
            row |= {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
    return row
