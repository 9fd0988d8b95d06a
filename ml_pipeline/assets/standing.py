"""What the UI says of a checkpoint's accuracy: against its base, against the one before it, and within its run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dagster as dg
import pandas as pd

from ml_pipeline.assets.curve_plot import curve_plot
from ml_pipeline.assets.metadata import fact_value
from ml_pipeline.checkpoints.checkpoint import Checkpoint
from ml_pipeline.checkpoints.naming import partition_key
from ml_pipeline.errors import StoreError
from ml_pipeline.reports.comparison import Comparison
from ml_pipeline.reports.conclusions import LIMIT_DECIDES
from ml_pipeline.reports.runs import Point, RunCurve, run_curves
from ml_pipeline.reports.scores import EVALUATION_KEY, Scores
from ml_pipeline.reports.wording import gain, limit_words, partly, percent_interval
from ml_pipeline.scoring.statistics import OVERALL
from ml_pipeline.settings import BASE_SOURCE
from ml_pipeline.stores.duckdb import DuckDBStore
from ml_pipeline.stores.tables import CHECKPOINT_SCORES, DEGENERATION, PROBE_RESULTS, RESPONSES

Metadata = dict[str, dg.MetadataValue[Any]]
_SHOWN_PROBES = 8


def standing_metadata(store: DuckDBStore, checkpoint: Checkpoint, warn: Callable[[str], None]) -> Metadata:
    """By suite: accuracy with its interval, the difference from base and predecessor (allowing
    for the run's other checkpoints, as the report does), the probes lost against the base, and the run's curve so far.

    It is for the eye: where the database cannot be read, `warn` is told and there is none.
    """
    try:
        scores = _scores_around(store, checkpoint)
    except StoreError as error:
        warn(f"{checkpoint.key}: no comparison is shown: {error}")
        return {}
    metadata: Metadata = {}
    for curve in run_curves(scores):
        everyone = [*curve.points, *([curve.base] if curve.base is not None else [])]
        found = next((point for point in everyone if point.key[0] == checkpoint.key), None)
        if found is not None and found.accuracy is not None:
            metadata |= _of_suite(curve, found, scores)
    return metadata


def position_in_run(store: DuckDBStore, checkpoint: Checkpoint) -> int:
    """The how manieth scored checkpoint of its run it is, from 1; 1 where the database cannot be read."""
    sql = (
        f"SELECT count(DISTINCT partition_key) AS before FROM {CHECKPOINT_SCORES.name} "
        "WHERE source = ? AND run = ? AND iteration < ?"
    )
    try:
        (row,) = store.query(sql, [checkpoint.source, checkpoint.run, checkpoint.iteration]).to_pylist()
    except StoreError:
        return 1
    return 1 + int(row["before"])


def _scores_around(store: DuckDBStore, checkpoint: Checkpoint) -> Scores:
    """The overall accuracies of the checkpoint's run and base, and the answers of it, its base and its predecessor."""
    base = partition_key(BASE_SOURCE, checkpoint.base_model, 0)
    of_run = "source = ? AND run = ?"
    names = [checkpoint.source, checkpoint.run]
    overall = store.query(
        f"FROM {CHECKPOINT_SCORES.name} WHERE category = ? AND ({of_run} OR partition_key = ?)", [OVERALL, *names, base]
    )
    before = store.query(
        f"SELECT partition_key FROM {CHECKPOINT_SCORES.name} WHERE {of_run} AND iteration < ? "
        "ORDER BY iteration DESC LIMIT 1",
        [*names, checkpoint.iteration],
    )
    keys = list(dict.fromkeys([checkpoint.key, base, *before["partition_key"].to_pylist()]))
    # With the answers, of which the token limit may have cut some.
    tables = store.read_together([PROBE_RESULTS.name, RESPONSES.name, DEGENERATION.name], keys)
    return Scores.from_tables({CHECKPOINT_SCORES.name: overall, **tables})


def _of_suite(curve: RunCurve, point: Point, scores: Scores) -> Metadata:
    suite, accuracy = curve.suite, point.accuracy
    assert accuracy is not None
    shown: dict[str, object] = {suite: f"{percent_interval(accuracy)} of {accuracy.count} answers right"}
    for name, what, comparison in (
        ("base", "the base", point.vs_base),
        ("previous", f"iteration {point.previous.iteration}" if point.previous else "", point.vs_previous),
    ):
        if comparison is not None:
            shown[f"{suite}_against_{name}"] = f"{_difference(comparison, what)} against {what}"
            shown[f"{suite}_delta_{name}"] = comparison.delta
    if curve.base is not None and point is not curve.base:
        shown[f"{suite}_lost_against_base"] = _lost(curve.base, point, scores.probe_results)
    metadata = {name: fact_value(value) for name, value in shown.items()}
    return metadata if len(curve.points) < 2 else {**metadata, f"{suite}_curve": curve_plot(curve)}


def _difference(found: Comparison, what: str) -> str:
    if found.verdict == LIMIT_DECIDES:
        return f"the token limit decides: {limit_words(found, what)},"
    if found.limit is not None:
        return f"{found.verdict}: {gain(found)}{partly(found, what)},"
    return f"{found.verdict}: {gain(found)} on {found.paired} probes,"


def _lost(base: Point, point: Point, results: pd.DataFrame) -> list[dict[str, object]]:
    """The first probes that the base always passes and the checkpoint never."""
    lost = [probe for probe, share in point.passed.items() if share == 0 and base.passed.get(probe) == 1]
    own = (results[EVALUATION_KEY] == list(point.key)).all(axis=1)
    first = results[own & results["probe_id"].isin(lost)].drop_duplicates("probe_id").head(_SHOWN_PROBES)
    return [
        {"probe": probe, "expected": expected, "answer": answer}
        for probe, expected, answer in first[["probe_id", "expected", "response"]].itertuples(index=False, name=None)
    ]
