"""What several answers to one probe tell: whether their majority is right, and whether one of k would be."""

from __future__ import annotations

import pandas as pd

from ml_pipeline.reports.scores import EVALUATION_KEY
from ml_pipeline.scoring.samples import majority_passes, pass_at_k

MAJORITY = "majority"
PASS_PREFIX = "pass@"
_COLUMNS = [*EVALUATION_KEY, "probe_id", "category", "cluster", "metric", "value"]


def is_sample_metric(metric: str) -> bool:
    """Whether the metric is one of these."""
    return metric == MAJORITY or metric.startswith(PASS_PREFIX)


def sample_metrics(results: pd.DataFrame) -> pd.DataFrame:
    """One row for each probe and metric (majority, and pass@k for k = 2, 4, 8 ... and all) of evaluations that asked
    their probes several times; `value` is 0..1, or empty where fewer than k answers have a score.

    `results` are rows of `probe_results` with their `cluster`.
    """
    asked = results.groupby(EVALUATION_KEY)["sample"].transform("max")
    rows: list[tuple[object, ...]] = []
    keys = [*EVALUATION_KEY, "probe_id", "category", "cluster"]
    for key, group in results[asked > 1].sort_values("sample").groupby(keys):
        scored = group.dropna(subset="passed")
        passed = [bool(one) for one in scored["passed"]]
        if passed:
            extracted = [one if isinstance(one, str) else None for one in scored["extracted"]]
            rows.append((*key, MAJORITY, float(majority_passes(extracted, passed))))
        for k in _sizes(int(asked[group.index[0]])):
            value = pass_at_k(sum(passed), len(passed), k) if len(passed) >= k else None
            rows.append((*key, f"{PASS_PREFIX}{k}", value))
    return pd.DataFrame(rows, columns=_COLUMNS).astype({"value": float})


def _sizes(samples: int) -> list[int]:
    return sorted({samples, *(2**power for power in range(1, samples.bit_length()) if 2**power <= samples)})
