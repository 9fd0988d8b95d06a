"""The views of the database: the questions people ask, answered once."""

from __future__ import annotations

from dataclasses import dataclass

from ml_pipeline.scoring.heuristic import FIGURES
from ml_pipeline.stores.response_tables import RESPONSE_JUDGEMENTS, RESPONSE_SCORES
from ml_pipeline.stores.tables import HEURISTIC_SCORES, JUDGEMENTS, PROBE_RESULTS


@dataclass(frozen=True)
class View:
    """A view, what it answers, and its query."""

    name: str
    description: str
    query: str


LATEST_LEADERBOARD = View(
    "latest_leaderboard",
    "Overall accuracy of every checkpoint, best first within a suite and protocol, with its difference from the bare "
    "base model of the same protocol.",
    """
    SELECT
        s.suite,
        s.protocol_id,
        rank() OVER (PARTITION BY s.suite, s.protocol_id ORDER BY s.accuracy DESC NULLS LAST) AS rank,
        s.label, s.source, s.run, s.iteration, s.model, s.base_model,
        s.accuracy, s.accuracy_low, s.accuracy_high,
        b.accuracy AS base_accuracy,
        s.accuracy - b.accuracy AS delta_to_base,
        s.correct, s.total, s.unscored,
        s.partition_key, s.run_id, s.evaluation_id, s.scored_at
    FROM checkpoint_scores AS s
    LEFT JOIN checkpoint_scores AS b
        ON b.source = 'base' AND b.category = 'overall'
        AND b.suite = s.suite AND b.protocol_id = s.protocol_id
    WHERE s.category = 'overall'
    ORDER BY s.suite, s.protocol_id, rank, s.partition_key
    """,
)

BEST_CHECKPOINT = View(
    "best_checkpoint",
    "The best checkpoint of every training run by suite and protocol; of equals, the earliest.",
    """
    SELECT source, run, suite, protocol_id, label, iteration, accuracy, accuracy_low, accuracy_high,
        base_accuracy, delta_to_base, correct, total, unscored, partition_key, scored_at
    FROM latest_leaderboard
    WHERE source <> 'base' AND accuracy IS NOT NULL
    QUALIFY row_number() OVER (
        PARTITION BY source, run, suite, protocol_id ORDER BY accuracy DESC, iteration
    ) = 1
    ORDER BY suite, protocol_id, accuracy DESC, source, run
    """,
)

LEARNING_CURVE = View(
    "learning_curve",
    "Accuracy by iteration of every run, suite, protocol and category, with the change since the checkpoint before.",
    """
    SELECT source, run, suite, protocol_id, category, iteration, label, accuracy, accuracy_low, accuracy_high,
        accuracy - lag(accuracy) OVER (
            PARTITION BY source, run, suite, protocol_id, category ORDER BY iteration
        ) AS delta_to_previous,
        correct, total, unscored, partition_key, scored_at
    FROM checkpoint_scores
    WHERE source <> 'base'
    ORDER BY source, run, suite, protocol_id, category, iteration
    """,
)

PROBE_CHANGES = View(
    "probe_changes",
    "Every probe that a checkpoint answers otherwise than the bare base model of the same protocol: gained or lost.",
    """
    SELECT p.suite, p.protocol_id, p.source, p.run, p.iteration, p.label, p.probe_id, p.sample, p.category,
        CASE WHEN p.passed THEN 'gained' ELSE 'lost' END AS change,
        p.expected, b.extracted AS base_extracted, p.extracted, b.response AS base_response, p.response,
        p.partition_key
    FROM probe_results AS p
    JOIN probe_results AS b
        ON b.source = 'base' AND b.suite = p.suite AND b.protocol_id = p.protocol_id AND b.probe_id = p.probe_id
        AND b.sample = p.sample
    WHERE p.source <> 'base' AND p.passed <> b.passed
    ORDER BY p.suite, p.protocol_id, p.source, p.run, p.iteration, change DESC, p.probe_id, p.sample
    """,
)


def _unscored_part(table: str, dimension: str, value: str) -> str:
    return (
        f"SELECT '{table}' AS table_name, partition_key, label, suite, probe_id, {dimension} AS dimension, "
        f"unscored_reason, scored_at FROM {table} WHERE {value} IS NULL"
    )


UNSCORED = View(
    "unscored",
    "Every figure that could not be made, and why.",
    "\n    UNION ALL\n    ".join(
        (
            _unscored_part(PROBE_RESULTS.name, "NULL", "passed"),
            _unscored_part(HEURISTIC_SCORES.name, "NULL", "lek"),
            _unscored_part(JUDGEMENTS.name, "dimension", "score"),
        )
    ),
)

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
)

CHECKPOINT_VIEWS: tuple[View, ...] = (LATEST_LEADERBOARD, BEST_CHECKPOINT, LEARNING_CURVE, PROBE_CHANGES, UNSCORED)
RESPONSE_VIEWS: tuple[View, ...] = (RESPONSE_FIGURES, RESPONSE_AVERAGES)
VIEWS: tuple[View, ...] = (*CHECKPOINT_VIEWS, *RESPONSE_VIEWS)
"""In the order in which they can be made: a view may use those before it."""
