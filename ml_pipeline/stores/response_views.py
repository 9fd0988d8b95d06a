"""The views over files of responses."""

from __future__ import annotations

from ml_pipeline.scoring.heuristic import FIGURES
from ml_pipeline.stores.response_tables import RESPONSE_JUDGEMENTS, RESPONSE_SCORES
from ml_pipeline.stores.view import View, meanings

_FIGURES = (*FIGURES, "passed", "strict_passed", "flexible_passed")

RESPONSE_FIGURES = View(
    "response_figures",
    "Every figure of every response, heuristic, checked or judged, one a row; empty with the reason when unscored.",
    f"""
    SELECT partition_key, line, prompt_id, prompt_sha256, model, suite, dimension, score, unscored_reason
    FROM (
        SELECT partition_key, line, prompt_id, prompt_sha256, model, suite, unscored_reason, expected,
            {", ".join(f"{name}::DOUBLE AS {name}" for name in _FIGURES)}
        FROM {RESPONSE_SCORES.name}
    ) UNPIVOT INCLUDE NULLS (score FOR dimension IN ({", ".join(_FIGURES)}))
    WHERE score IS NOT NULL
        OR unscored_reason IS NOT NULL AND (expected IS NOT NULL OR NOT ends_with(dimension, 'passed'))
    UNION ALL
    SELECT partition_key, line, prompt_id, prompt_sha256, model, suite, dimension, score, unscored_reason
    FROM {RESPONSE_JUDGEMENTS.name}
    """,
    meanings(
        "partition_key line prompt_id prompt_sha256 model suite dimension score unscored_reason",
        RESPONSE_SCORES,
        RESPONSE_JUDGEMENTS,
        dimension="Which figure: a heuristic one, a check (1 right, 0 wrong) or what the judge was asked.",
        score="The figure; empty when unscored.",
    ),
)

RESPONSE_AVERAGES = View(
    "response_averages",
    "The mean of every figure of every model in every file of responses, with its standard deviation.",
    f"""
    SELECT partition_key, model, suite, dimension, avg(score) AS mean, stddev_samp(score) AS standard_deviation,
        count(score) AS scored, count(*) - count(score) AS unscored
    FROM {RESPONSE_FIGURES.name}
    GROUP BY ALL
    ORDER BY ALL
    """,
    meanings(
        "partition_key model suite dimension mean standard_deviation scored unscored",
        RESPONSE_SCORES,
        dimension=RESPONSE_FIGURES.columns["dimension"],
        mean="Mean of the figures; empty when none was scored.",
        standard_deviation="Their sample standard deviation; empty for fewer than two.",
        scored="Responses that have the figure.",
        unscored="Responses that should have it and have not; they count neither way.",
    ),
)

RESPONSE_VIEWS: tuple[View, ...] = (RESPONSE_FIGURES, RESPONSE_AVERAGES)
