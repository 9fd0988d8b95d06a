"""The tidy table of every figure: one row per checkpoint, suite, metric and category."""

from __future__ import annotations

import math

import pandas as pd

from ml_pipeline.reports.intervals import mean_interval
from ml_pipeline.reports.scores import EVALUATION_KEY, IDENTITY_COLUMNS, Scores
from ml_pipeline.scoring.degeneration import SIGNALS
from ml_pipeline.scoring.statistics import OVERALL, wilson_interval
from ml_pipeline.settings import BASE_SOURCE

JUDGE_PREFIX = "judge:"
SIGNAL_METRICS = tuple(f"{signal}_share" for signal in SIGNALS)
SHARE_METRICS = ("accuracy", "unscored_share", *SIGNAL_METRICS)
METRIC_ORDER = (*SHARE_METRICS, "lek", "degeneration", "mean_completion_tokens")
_PROVENANCE = ["base_sha256", "backend", "quantisation"]
FIGURE_COLUMNS = ["metric", "category", "value", "low", "high", "count", "unscored"]
SCORE_TABLE_COLUMNS = [*IDENTITY_COLUMNS, *_PROVENANCE, *FIGURE_COLUMNS]
_BROKEN_OFF = ("error", "cancelled")


def score_table(scores: Scores) -> pd.DataFrame:
    """Every figure of every checkpoint, with its 95% interval.

    | metric | value | interval | count / unscored |
    | --- | --- | --- | --- |
    | accuracy | share of scored probes passed, 0..1 | Wilson | probes scored / not |
    | unscored_share | share of probes that could not be scored | Wilson | all probes / 0 |
    | truncated_share | share of answers cut at the token limit | Wilson | answers / answers that failed |
    | repetitive_share, ... | share of answers with that sign of degeneration (overall only) | Wilson | the same |
    | lek, degeneration | mean of the heuristic figure | Student t | answers with a figure / without |
    | judge:<dimension> | mean of the judge's figure | Student t | answers judged / not |
    | mean_completion_tokens | mean length of the answers, tokens | Student t | answers / answers that failed |

    `category` is 'overall' or a probe category. A figure that nothing gave has an empty value, never 0. Intervals
    treat probes as a sample of the questions that could have been asked. Sorted, so that equal scores give an equal
    table.
    """
    answered = scores.responses[~scores.responses["finish_reason"].isin(_BROKEN_OFF)]
    failed = scores.responses[scores.responses["finish_reason"].isin(_BROKEN_OFF)]
    judged = scores.judgements.assign(metric=JUDGE_PREFIX + scores.judgements["dimension"].astype("str"))
    truncated = answered.assign(truncated=answered["finish_reason"].eq("length").astype(float))
    parts = [
        *_accuracies(scores.checkpoint_scores),
        _shares(truncated, failed, "truncated", "truncated_share"),
        _signals(scores.degeneration),
        _means(scores.heuristic_scores.assign(metric="lek"), "lek"),
        _means(scores.heuristic_scores.assign(metric="degeneration"), "degeneration"),
        _means(judged, "score"),
        _means(answered.assign(metric="mean_completion_tokens"), "completion_tokens"),
    ]
    filled = [part for part in parts if not part.empty]
    if not filled:
        return pd.DataFrame(columns=SCORE_TABLE_COLUMNS)
    provenance = scores.evaluations[[*EVALUATION_KEY, *_PROVENANCE]].drop_duplicates(EVALUATION_KEY, keep="last")
    identities = scores.identities().merge(provenance, on=EVALUATION_KEY, how="left")
    table = pd.concat(filled, ignore_index=True).merge(identities, on=EVALUATION_KEY, how="left")
    return _sorted(table)[SCORE_TABLE_COLUMNS]


def metric_rank(metric: str) -> int:
    """Where a metric stands in a table: the order of `METRIC_ORDER`, a judge's dimensions last."""
    return METRIC_ORDER.index(metric) if metric in METRIC_ORDER else len(METRIC_ORDER)


def _accuracies(checkpoint_scores: pd.DataFrame) -> list[pd.DataFrame]:
    if checkpoint_scores.empty:
        return []
    accuracy = checkpoint_scores.assign(
        metric="accuracy",
        value=checkpoint_scores["accuracy"],
        low=checkpoint_scores["accuracy_low"],
        high=checkpoint_scores["accuracy_high"],
        count=checkpoint_scores["total"],
    )
    probes = checkpoint_scores["total"] + checkpoint_scores["unscored"]
    unscored = checkpoint_scores.assign(metric="unscored_share", hits=checkpoint_scores["unscored"], count=probes)
    unscored["unscored"] = 0
    return [accuracy[[*EVALUATION_KEY, *FIGURE_COLUMNS]], _with_wilson(unscored)]


def _shares(answers: pd.DataFrame, failed: pd.DataFrame, column: str, metric: str) -> pd.DataFrame:
    if answers.empty:
        return pd.DataFrame()
    keys = [*EVALUATION_KEY, "category"]
    counts = _and_overall(answers).groupby(keys, as_index=False)[column].agg(["sum", "size"])
    lost = _and_overall(failed).groupby(keys, as_index=False).size().rename(columns={"size": "unscored"})
    shares = counts.rename(columns={"sum": "hits", "size": "count"}).merge(lost, on=keys, how="left")
    shares["unscored"] = shares["unscored"].fillna(0).astype(int)
    return _with_wilson(shares.assign(metric=metric))


def _signals(degeneration: pd.DataFrame) -> pd.DataFrame:
    """The shares as they are stored; that of truncated answers is counted here, by category too."""
    rows = degeneration[degeneration["signal"].ne("truncated")]
    figures = rows.assign(
        metric=rows["signal"].astype("str") + "_share",
        category=OVERALL,
        value=rows["share"],
        low=rows["share_low"],
        high=rows["share_high"],
        count=rows["answers"],
    )
    return figures[[*EVALUATION_KEY, *FIGURE_COLUMNS]]


def _means(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    if rows.empty:
        return pd.DataFrame()
    keys = [*EVALUATION_KEY, "metric", "category"]
    grouped = _and_overall(rows).groupby(keys, as_index=False)
    figures = grouped[column].agg(["mean", "std", "count", "size"])
    ends = [
        mean_interval(mean, deviation, count) or (math.nan, math.nan)
        for mean, deviation, count in zip(figures["mean"], figures["std"], figures["count"], strict=True)
    ]
    figures["value"] = figures["mean"]
    figures["low"], figures["high"] = [low for low, _ in ends], [high for _, high in ends]
    figures["unscored"] = figures["size"] - figures["count"]
    return figures[[*EVALUATION_KEY, *FIGURE_COLUMNS]]


def _and_overall(rows: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([rows, rows.assign(category=OVERALL)], ignore_index=True)


def _with_wilson(rows: pd.DataFrame) -> pd.DataFrame:
    pairs = [(int(hits), int(count)) for hits, count in zip(rows["hits"], rows["count"], strict=True)]
    ends = [wilson_interval(hits, count) if count else (math.nan, math.nan) for hits, count in pairs]
    filled = rows.assign(
        value=[hits / count if count else math.nan for hits, count in pairs],
        low=[low for low, _ in ends],
        high=[high for _, high in ends],
    )
    return filled[[*EVALUATION_KEY, *FIGURE_COLUMNS]]


def _sorted(table: pd.DataFrame) -> pd.DataFrame:
    ordered = table.assign(
        _base=table["source"].ne(BASE_SOURCE),
        _metric=table["metric"].map(metric_rank),
        _category=table["category"].ne(OVERALL),
    )
    by = ["suite", "base_model", "protocol_id", "_base", "source", "run", "iteration", "evaluation_id"]
    return ordered.sort_values([*by, "_metric", "metric", "_category", "category"]).reset_index(drop=True)
