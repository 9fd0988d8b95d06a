"""The leaderboard: every checkpoint of a run ranked, with what it gained over its base and how sure that is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd

from ml_pipeline.reports.conclusions import ranks
from ml_pipeline.reports.runs import EvaluationKey, Point, RunCurve, run_curves
from ml_pipeline.reports.scores import IDENTITY_COLUMNS, Scores

NO_BASE = "no base to compare with"
NOT_SCORED = "not scored"
BASE_VERDICT = "base"
_COLUMN_TYPES = {
    "rank": "Int64",
    "tied": "boolean",
    "best": "boolean",
    "near_best": "boolean",
    "best_luck": "Float64",
    "best_low": "Float64",
    "best_high": "Float64",
    "accuracy": "Float64",
    "accuracy_low": "Float64",
    "accuracy_high": "Float64",
    "total": "Int64",
    "unscored": "Int64",
    "base_partition_key": "str",
    "base_accuracy": "Float64",
    "delta": "Float64",
    "delta_low": "Float64",
    "delta_high": "Float64",
    "paired": "Int64",
    "better": "Int64",
    "worse": "Int64",
    "p_value": "Float64",
    "p_adjusted": "Float64",
    "detectable": "Float64",
    "base_cut": "Float64",
    "cut": "Float64",
    "templates": "Int64",
    "beyond_low": "Float64",
    "beyond_high": "Float64",
    "beyond_p_value": "Float64",
    "verdict": "str",
    "trend": "str",
    "previous_partition_key": "str",
    "previous_delta": "Float64",
    "previous_low": "Float64",
    "previous_high": "Float64",
    "previous_p_value": "Float64",
    "previous_p_adjusted": "Float64",
    "previous_verdict": "str",
    **{f"{name}_{part}": "Float64" for name in ("lek", "judge") for part in ("delta", "low", "high")},
}
_MEANS = {"lek": "lek", "judge": "judge:avg"}
LEADERBOARD_COLUMNS = [*IDENTITY_COLUMNS, *_COLUMN_TYPES]


def leaderboard(scores: Scores) -> pd.DataFrame:
    """Rank the checkpoints of each run, suite and protocol by overall accuracy; the bases come last.

    Shares are 0..1. `rank` 1 is the highest accuracy; equal accuracies share a rank and are `tied`, so a run may have
    several `best`, and has none where all are worse than the base, without a right answer or broken. `near_best` marks
    others that may be the truly best one as well: in 95% of runs it is one of those and the best. `best_luck` is by how
    much the best accuracy probably lies above its truth, being the highest of several, `best_low` and `best_high` its
    interval that allows for that. `delta`, its interval (the test turned round), `better`, `worse` and `p_value`
    (McNemar's exact test) compare with the base of the same `protocol_id` on the `paired` probes that both have a score
    for; without such a base they are empty. `p_adjusted` (Holm) and the interval (Bonferroni) allow for the number of
    checkpoints over all suites of the run, and the verdict follows both; `detectable` is the smallest difference that
    so many probes find 4 times in 5. Where the token limit cut very different shares of the answers, these are
    `base_cut` and `cut`, and `delta` and verdict rest on the probes that both finished. `beyond_*` ask the same of
    other templates than the `templates` of the suite.
    `previous_*` compare with the checkpoint before, `lek_*` and `judge_*` the mean of that figure with the base's
    (paired bootstrap). A checkpoint with no scored probe has no rank. A base has one row of its own, without rank and
    with the verdict 'base'.
    """
    return leaderboard_of(run_curves(scores))


def leaderboard_of(curves: Iterable[RunCurve]) -> pd.DataFrame:
    """The leaderboard of these runs."""
    rows: list[dict[str, Any]] = []
    bases: dict[EvaluationKey, Point] = {}
    for curve in curves:
        places = ranks([point.accuracy.value if point.accuracy else None for point in curve.points])
        made = (_row(curve, point, place) for point, place in zip(curve.points, places, strict=True))
        rows.extend(sorted(made, key=_standing))
        if curve.base is not None:
            bases[curve.base.key] = curve.base
    rows.extend(_base_row(base) for base in bases.values())
    table = pd.DataFrame(rows, columns=LEADERBOARD_COLUMNS)
    return table.astype(_COLUMN_TYPES)


def verdict_of(curve: RunCurve, point: Point) -> str:
    """How a checkpoint stands against its base: better, worse, no clear difference, or why that cannot be said."""
    if point.accuracy is None:
        return NOT_SCORED
    if point.vs_base is None:
        return NO_BASE
    return point.vs_base.verdict


def _row(curve: RunCurve, point: Point, place: tuple[int | None, bool]) -> dict[str, Any]:
    row = {**point.identity, **_accuracy(point), "verdict": verdict_of(curve, point), "trend": curve.trend}
    row["best"], row["near_best"] = point in curve.best, point in curve.near_best
    row["rank"], row["tied"] = place
    if point in curve.best:
        row["best_luck"] = curve.luck
        row["best_low"], row["best_high"] = curve.chosen_interval(point) or (None, None)
    if curve.base is not None:
        row["base_partition_key"] = curve.base.identity["partition_key"]
        row["base_accuracy"] = curve.base.accuracy.value if curve.base.accuracy else None
        row.update(_against_base(curve.base, point))
    if point.previous is not None:
        row["previous_partition_key"] = point.previous.identity["partition_key"]
    if point.vs_previous is not None:
        found = point.vs_previous
        row.update(
            previous_delta=found.delta,
            previous_low=found.low,
            previous_high=found.high,
            previous_p_value=found.p_value,
            previous_p_adjusted=found.p_adjusted,
            previous_verdict=found.verdict,
        )
    return row


def _against_base(base: Point, point: Point) -> dict[str, Any]:
    row: dict[str, Any] = {}
    if (found := point.vs_base) is not None:
        same = ("delta", "paired", "better", "worse", "p_value", "p_adjusted", "detectable")
        row |= {name: getattr(found, name) for name in same}
        row |= {"delta_low": found.low, "delta_high": found.high}
        if found.limit is not None:
            row |= {"base_cut": found.limit.cut_reference, "cut": found.limit.cut_candidate}
        if (beyond := found.beyond) is not None:
            row |= {"templates": beyond.count, "beyond_low": beyond.low, "beyond_high": beyond.high}
            row["beyond_p_value"] = beyond.p_value
    for name, metric in _MEANS.items():
        mean = point.mean_against(base, metric)
        if mean is not None:
            row |= {f"{name}_delta": mean.delta, f"{name}_low": mean.low, f"{name}_high": mean.high}
    return row


def _base_row(base: Point) -> dict[str, Any]:
    return {**base.identity, **_accuracy(base), "verdict": BASE_VERDICT}


def _accuracy(point: Point) -> dict[str, Any]:
    estimate = point.accuracy
    figures = {"tied": False, "best": False, "near_best": False, "unscored": point.unscored}
    if estimate is None:
        return {**figures, "total": 0}
    ends = {"accuracy_low": estimate.low, "accuracy_high": estimate.high}
    return {**figures, "accuracy": estimate.value, **ends, "total": estimate.count}


def _standing(row: dict[str, Any]) -> tuple[float, int]:
    return float(row.get("rank") or float("inf")), int(row["iteration"])
