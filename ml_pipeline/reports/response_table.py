"""Every answer in full beside what came of it: one row an answer."""

from __future__ import annotations

import pandas as pd

from ml_pipeline.reports.scores import EVALUATION_KEY, IDENTITY_COLUMNS, Scores

_ANSWER = [*EVALUATION_KEY, "probe_id", "sample"]
_OF_RESPONSES = (
    *("template", "prompt", "rendered_prompt", "response", "finish_reason", "prompt_tokens", "completion_tokens"),
    *("seconds", "error", "choice_log_probabilities"),
)
_OF_RESULTS = (
    *("passed", "unscored_reason", "expected", "extracted", "strict_passed", "flexible_passed"),
    "passed_normalised",
)
RESPONSE_COLUMNS = [
    *IDENTITY_COLUMNS,
    *("probe_id", "category", "sample"),
    *_OF_RESPONSES,
    *_OF_RESULTS,
    *("lek", "judge"),
]


def response_table(scores: Scores) -> pd.DataFrame:
    """Every answer of every checkpoint with the columns of `RESPONSE_COLUMNS`, by suite, run, iteration and probe.

    They are those of the tables `responses` and `probe_results`, `lek` of `heuristic_scores`, and `judge`, the mean
    figure of the judge's. What was not made is empty: `passed` where a probe has no check or could not be scored (then
    `unscored_reason` says why), `lek` and `judge` beyond a probe's first answer. Of an imported checkpoint only what
    the original kept is there.
    """
    if scores.responses.empty and scores.probe_results.empty:
        return pd.DataFrame(columns=RESPONSE_COLUMNS)
    shared = [*_ANSWER, "category", "response", "finish_reason"]
    results = scores.probe_results[[*shared, "template", *_OF_RESULTS]]
    merged = scores.responses[[*shared, *(name for name in _OF_RESPONSES if name not in shared)]].merge(
        results, on=_ANSWER, how="outer", suffixes=("", "_marked")
    )
    for name in ("category", "response", "finish_reason", "template"):
        merged[name] = merged[name].where(merged[name].notna(), merged[f"{name}_marked"])
    judged = scores.judgements[scores.judgements["dimension"].eq("avg")].rename(columns={"score": "judge"})
    for figures, column in ((scores.heuristic_scores, "lek"), (judged, "judge")):
        first = figures[[*EVALUATION_KEY, "probe_id", column]].assign(sample=1)
        merged = merged.merge(first, on=_ANSWER, how="left")
    table = merged.merge(scores.identities(), on=EVALUATION_KEY, how="left")
    order = ["suite", "base_model", "source", "run", "iteration", "evaluation_id", "probe_id", "sample"]
    return table.sort_values(order, kind="stable").reset_index(drop=True)[RESPONSE_COLUMNS]
