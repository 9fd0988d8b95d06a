"""The tidy table of every figure: one row per checkpoint, suite, metric and category."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import pandas as pd

from ml_pipeline.reports.losses import TRAIN, VALIDATION, losses_by_run
from ml_pipeline.reports.sample_metrics import MAJORITY, sample_metrics
from ml_pipeline.reports.scores import EVALUATION_KEY, IDENTITY_COLUMNS, Scores
from ml_pipeline.scoring.degeneration import SIGNALS, UNSOUND
from ml_pipeline.scoring.means import bounded_interval, mean_interval, wilson_interval
from ml_pipeline.scoring.statistics import OVERALL, share_interval
from ml_pipeline.settings import BASE_SOURCE

JUDGE_PREFIX = "judge:"
SIGNAL_METRICS = tuple(f"{signal}_share" for signal in SIGNALS)
UNSOUND_METRIC = f"{UNSOUND}_share"
SHARE_METRICS = ("accuracy", "unscored_share", *SIGNAL_METRICS, UNSOUND_METRIC, MAJORITY)
METRIC_ORDER = (*SHARE_METRICS, "lek", "degeneration", "mean_completion_tokens")
_PROVENANCE = ["base_sha256", "backend", "quantisation", "suite_version"]
_LOSSES = {"training_loss": TRAIN, "validation_loss": VALIDATION}
FIGURE_COLUMNS = ["metric", "category", "value", "low", "high", "count", "unscored"]
SCORE_TABLE_COLUMNS = [*IDENTITY_COLUMNS, *_PROVENANCE, *_LOSSES, *FIGURE_COLUMNS, UNSOUND]
_OF_TEXTS = ("lek", "degeneration")
_BROKEN_OFF = ("error", "cancelled")
_Interval = Callable[[npt.NDArray[np.float64], list[int]], tuple[float, float] | None]


def score_table(scores: Scores, *, by_category: bool = True) -> pd.DataFrame:
    """Every figure of every checkpoint, with its 95% interval.

    | metric | value | interval | count / unscored |
    | --- | --- | --- | --- |
    | accuracy | share of scored answers passed, 0..1 | Wilson | answers scored / not |
    | unscored_share | share of answers that could not be scored | Wilson | all answers / 0 |
    | truncated_share | share of answers cut at the token limit | Wilson | answers / answers that failed |
    | repetitive_share, ... | share of answers with that sign of degeneration (overall only) | Wilson | the same |
    | lek, degeneration | mean of the heuristic figure | bootstrap | answers with a figure / without |
    | judge:<dimension> | mean of the judge's figure | bootstrap | answers judged / not |
    | mean_completion_tokens | mean length of the answers, tokens | bootstrap | answers / answers that failed |
    | majority | share of probes whose most frequent answer is right | Wilson | probes / without a score |
    | pass@k | chance that one of k answers is right | Wilson | probes / with fewer than k scored answers |

    `unsound` stands beside LEK and the judge's figures: the share of the checkpoint's answers that are empty, looping,
    repetitive, cut or word salad (the metric unsound_share), of which such figures say nothing.
    `training_loss` and `validation_loss` are what the training log said of that iteration (`losses.LossCurve.at`).
    `category` is 'overall' or a probe category. A figure that nothing gave has an empty value, never 0. Intervals
    treat probes as a sample of the questions that could have been asked, and those of one template (and the answers to
    one probe) as a cluster, for which Wilson's interval takes the effective count. The bootstrap gives way to a widened
    Student's t below 20 clusters, and values that are all equal have no interval: see `scoring.means`. The last two are
    there where a probe was asked several times. Sorted, so that equal scores give an equal table. Without `by_category`
    only accuracy has its categories, whose intervals are stored: those of all the others are what takes the time.
    """
    responses = _clustered(scores, scores.responses, ["finish_reason", "completion_tokens"])
    answered = responses[~responses["finish_reason"].isin(_BROKEN_OFF)]
    failed = responses[responses["finish_reason"].isin(_BROKEN_OFF)]
    heuristic = _clustered(scores, scores.heuristic_scores, ["lek", "degeneration"])
    judgements = _clustered(scores, scores.judgements, ["dimension", "score"])
    judged = judgements.assign(metric=JUDGE_PREFIX + judgements["dimension"].astype("str"))
    truncated = answered.assign(truncated=answered["finish_reason"].eq("length"))
    samples = sample_metrics(_clustered(scores, scores.probe_results, ["sample", "passed", "extracted"]))
    parts = [
        _accuracies(scores.checkpoint_scores),
        *_unscored(scores, by_category),
        _shares(truncated, failed, "truncated", "truncated_share", by_category),
        _signals(scores.degeneration),
        _means(heuristic.assign(metric="lek"), "lek", by_category),
        _means(heuristic.assign(metric="degeneration"), "degeneration", by_category),
        _means(judged, "score", by_category),
        _means(answered.assign(metric="mean_completion_tokens"), "completion_tokens", by_category),
        _means(samples[samples["metric"].ne(MAJORITY)], "value", by_category, bounded_interval),
        _shares(samples[samples["metric"].eq(MAJORITY)], samples[:0], "value", MAJORITY, by_category),
    ]
    filled = [part for part in parts if not part.empty]
    if not filled:
        return pd.DataFrame(columns=SCORE_TABLE_COLUMNS)
    provenance = scores.evaluations[[*EVALUATION_KEY, *_PROVENANCE]].drop_duplicates(EVALUATION_KEY, keep="last")
    identities = _with_losses(scores).merge(provenance, on=EVALUATION_KEY, how="left")
    table = pd.concat(filled, ignore_index=True).merge(identities, on=EVALUATION_KEY, how="left")
    return _sorted(_with_unsound(table))[SCORE_TABLE_COLUMNS]


def _with_unsound(table: pd.DataFrame) -> pd.DataFrame:
    """The table, with how many of the answers behind a figure of texts are unsound."""
    shares = table.loc[table["metric"].eq(UNSOUND_METRIC), [*EVALUATION_KEY, "value"]]
    merged = table.merge(shares.rename(columns={"value": UNSOUND}), on=EVALUATION_KEY, how="left")
    of_texts = merged["metric"].isin(_OF_TEXTS) | merged["metric"].str.startswith(JUDGE_PREFIX)
    return merged.assign(**{UNSOUND: merged[UNSOUND].where(of_texts)})


def metric_rank(metric: str) -> int:
    """Where a metric stands in a table: the order of `METRIC_ORDER`, a judge's dimensions last."""
    return METRIC_ORDER.index(metric) if metric in METRIC_ORDER else len(METRIC_ORDER)


def _with_losses(scores: Scores) -> pd.DataFrame:
    """The identities, with the losses of their iterations."""
    curves, identities = losses_by_run(scores.training_loss), scores.identities()
    where = list(identities[["source", "run", "iteration"]].itertuples(index=False, name=None))
    for column, kind in _LOSSES.items():
        of_runs = [(curves.get((source, run), {}).get(kind), iteration) for source, run, iteration in where]
        losses = [None if curve is None else curve.at(int(iteration)) for curve, iteration in of_runs]
        identities[column] = np.array(losses, dtype=np.float64)
    return identities


def _accuracies(checkpoint_scores: pd.DataFrame) -> pd.DataFrame:
    accuracy = checkpoint_scores.assign(
        metric="accuracy",
        value=checkpoint_scores["accuracy"],
        low=checkpoint_scores["accuracy_low"],
        high=checkpoint_scores["accuracy_high"],
        count=checkpoint_scores["total"],
    )
    return accuracy[[*EVALUATION_KEY, *FIGURE_COLUMNS]]


def _unscored(scores: Scores, by_category: bool) -> list[pd.DataFrame]:
    """The share of answers without a score; of an imported checkpoint whose answers were not kept, by its counts."""
    results = _clustered(scores, scores.probe_results, ["passed"])
    shares = _shares(results.assign(hit=results["passed"].isna()), results[:0], "hit", "unscored_share", by_category)
    kept = pd.MultiIndex.from_frame(scores.probe_results[EVALUATION_KEY].drop_duplicates())
    counted = scores.checkpoint_scores
    if not by_category:
        counted = counted[counted["category"].eq(OVERALL)]
    counted = counted[~pd.MultiIndex.from_frame(counted[EVALUATION_KEY]).isin(kept)]
    answers = counted["total"] + counted["unscored"]
    lost = counted.assign(metric="unscored_share", hits=counted["unscored"], count=answers, unscored=0)
    return [shares, _with_wilson(lost)]


def _shares(answers: pd.DataFrame, failed: pd.DataFrame, column: str, metric: str, by_category: bool) -> pd.DataFrame:
    if answers.empty:
        return pd.DataFrame()
    keys = [*EVALUATION_KEY, "category"]
    lost = _grouped(failed, by_category).groupby(keys).size().to_dict()
    rows = []
    every = _grouped(answers, by_category)
    hit, clusters = every[column].to_numpy(dtype=bool), pd.factorize(every["cluster"])[0]
    for key, at in _groups(every, keys):
        hits = hit[at].tolist()
        low, high = share_interval(hits, clusters[at].tolist()) or (math.nan, math.nan)
        rows.append((*key, metric, sum(hits) / len(hits), low, high, len(hits), lost.get(key, 0)))
    return pd.DataFrame(rows, columns=[*keys, *(name for name in FIGURE_COLUMNS if name != "category")])


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


def _means(rows: pd.DataFrame, column: str, by_category: bool, interval: _Interval = mean_interval) -> pd.DataFrame:
    if rows.empty:
        return pd.DataFrame()
    keys = [*EVALUATION_KEY, "metric", "category"]
    made = []
    every = _grouped(rows, by_category)
    figures, clusters = every[column].to_numpy(dtype=float, na_value=math.nan), pd.factorize(every["cluster"])[0]
    for key, at in _groups(every, keys):
        scored = at[~np.isnan(figures[at])]
        values = figures[scored]
        low, high = interval(values, clusters[scored].tolist()) or (math.nan, math.nan)
        mean = float(values.mean()) if len(values) else math.nan
        made.append((*key, mean, low, high, len(values), len(at) - len(values)))
    return pd.DataFrame(made, columns=[*keys, "value", "low", "high", "count", "unscored"])


def _groups(rows: pd.DataFrame, keys: list[str]) -> Iterator[tuple[tuple[str, ...], npt.NDArray[np.intp]]]:
    """The places of the rows of each group: pandas' own groups are frames, which cost a hundred times as much."""
    for key, places in rows.groupby(keys).indices.items():
        assert isinstance(key, tuple)
        yield key, np.asarray(places, dtype=np.intp)


def _clustered(scores: Scores, rows: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """These columns, with what the rows' probe succeeds and fails together with: its template, else only itself."""
    keys = [*EVALUATION_KEY, "probe_id"]
    chosen = rows[[*keys, "category", *columns]]
    templates = scores.responses.loc[scores.responses["template"].notna(), [*keys, "template"]].drop_duplicates(keys)
    merged = chosen.merge(templates, on=keys, how="left")
    return merged.assign(cluster=merged["template"].fillna(merged["probe_id"]))


def _grouped(rows: pd.DataFrame, by_category: bool) -> pd.DataFrame:
    """The rows as those of 'overall', and before that as those of their categories if wanted."""
    overall = rows.assign(category=OVERALL)
    return pd.concat([rows.dropna(subset="category"), overall], ignore_index=True) if by_category else overall


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
