"""The views of the database: the questions people ask, answered once."""

from __future__ import annotations

from ml_pipeline.stores.response_views import RESPONSE_VIEWS
from ml_pipeline.stores.tables import CHECKPOINT_SCORES, HEURISTIC_SCORES, JUDGEMENTS, PROBE_RESULTS
from ml_pipeline.stores.view import View, meanings

_DELTAS = {
    "base_accuracy": "Accuracy of the bare base model of the same suite and protocol on all its probes, 0..1; empty "
    "without one.",
    "delta_to_base": "Mean difference from the base on the `paired` probes that both have a score for, as in the "
    "leaderboard: 0.05 is five points better; empty where there is none.",
    "paired": "Probes with a score of both this checkpoint and its base.",
    "previous_iteration": "Iteration of the checkpoint before that has a score.",
    "previous_accuracy": "Accuracy of the checkpoint before that has a score, 0..1, on all its own probes.",
    "delta_to_previous": "Mean difference from that checkpoint on the probes that both have a score for.",
}
_SCORE = "accuracy accuracy_low accuracy_high"
_COUNTS = "correct total unscored"

PROBE_SHARES = View(
    "probe_shares",
    "The share of a checkpoint's answers to each probe that passed: what checkpoints are compared by.",
    """
    SELECT partition_key, suite, protocol_id, probe_id, any_value(category) AS category,
        avg(passed::INTEGER) AS passed_share, count(passed) AS answers
    FROM probe_results
    WHERE passed IS NOT NULL
    GROUP BY partition_key, suite, protocol_id, probe_id
    """,
    meanings(
        "partition_key suite protocol_id probe_id category passed_share answers",
        PROBE_RESULTS,
        passed_share="Share of its scored answers that passed, 0..1.",
        answers="Its answers that have a score.",
    ),
)

DELTAS = View(
    "deltas",
    "What every checkpoint gained or lost, overall and by category: against the base, and against the checkpoint "
    "before it in its run that has a score; on the probes that both have a score for.",
    """
    WITH base AS (
        SELECT partition_key, suite, protocol_id, category, accuracy FROM checkpoint_scores
        WHERE source = 'base'
        QUALIFY row_number() OVER (
            PARTITION BY suite, protocol_id, category ORDER BY scored_at DESC, partition_key DESC
        ) = 1
    ),
    course AS (
        SELECT s.*, b.partition_key AS base_key, b.accuracy AS base_accuracy,
            lag(CASE WHEN s.accuracy IS NOT NULL THEN s.partition_key END IGNORE NULLS) OVER before AS previous_key,
            lag(CASE WHEN s.accuracy IS NOT NULL THEN s.iteration END IGNORE NULLS) OVER before AS previous_iteration,
            lag(s.accuracy IGNORE NULLS) OVER before AS previous_accuracy
        FROM checkpoint_scores AS s
        LEFT JOIN base AS b
            ON b.suite = s.suite AND b.protocol_id = s.protocol_id AND b.category = s.category
        WHERE s.source <> 'base'
        WINDOW before AS (PARTITION BY s.source, s.run, s.suite, s.protocol_id, s.category ORDER BY s.iteration)
    ),
    compared AS (
        SELECT c.partition_key, c.suite, c.protocol_id, c.category,
            avg(p.passed_share - b.passed_share) AS delta_to_base, count(b.passed_share) AS paired,
            avg(p.passed_share - e.passed_share) AS delta_to_previous
        FROM course AS c
        JOIN probe_shares AS p
            ON p.partition_key = c.partition_key AND p.suite = c.suite AND p.protocol_id = c.protocol_id
            AND (c.category = 'overall' OR p.category = c.category)
        LEFT JOIN probe_shares AS b
            ON b.partition_key = c.base_key AND b.suite = c.suite AND b.protocol_id = c.protocol_id
            AND b.probe_id = p.probe_id
        LEFT JOIN probe_shares AS e
            ON e.partition_key = c.previous_key AND e.suite = c.suite AND e.protocol_id = c.protocol_id
            AND e.probe_id = p.probe_id
        GROUP BY ALL
    )
    SELECT c.source, c.run, c.suite, c.protocol_id, c.category, c.iteration, c.label,
        c.accuracy, c.accuracy_low, c.accuracy_high, c.base_accuracy, d.delta_to_base,
        coalesce(d.paired, 0) AS paired, c.previous_iteration, c.previous_accuracy, d.delta_to_previous,
        c.correct, c.total, c.unscored, c.partition_key, c.evaluation_id, c.scored_at
    FROM course AS c
    LEFT JOIN compared AS d
        ON d.partition_key = c.partition_key AND d.suite = c.suite AND d.protocol_id = c.protocol_id
        AND d.category = c.category
    ORDER BY c.source, c.run, c.suite, c.protocol_id, c.category, c.iteration
    """,
    meanings(
        f"source run suite protocol_id category iteration label {_SCORE} base_accuracy delta_to_base paired "
        f"previous_iteration previous_accuracy delta_to_previous {_COUNTS} partition_key evaluation_id scored_at",
        CHECKPOINT_SCORES,
        **_DELTAS,
    ),
)

LATEST_LEADERBOARD = View(
    "latest_leaderboard",
    "Overall accuracy of every checkpoint, best first within a suite and protocol, with its difference from the bare "
    "base model of the same protocol on the probes that both have a score for.",
    """
    SELECT
        s.suite,
        s.protocol_id,
        rank() OVER (PARTITION BY s.suite, s.protocol_id ORDER BY s.accuracy DESC NULLS LAST) AS rank,
        s.label, s.source, s.run, s.iteration, s.model, s.base_model,
        s.accuracy, s.accuracy_low, s.accuracy_high,
        CASE WHEN s.source = 'base' THEN s.accuracy ELSE d.base_accuracy END AS base_accuracy,
        CASE WHEN s.source <> 'base' THEN d.delta_to_base WHEN s.accuracy IS NOT NULL THEN 0.0 END AS delta_to_base,
        d.paired,
        s.correct, s.total, s.unscored,
        s.partition_key, s.run_id, s.evaluation_id, s.scored_at
    FROM checkpoint_scores AS s
    LEFT JOIN deltas AS d
        ON d.partition_key = s.partition_key AND d.suite = s.suite AND d.category = s.category
    WHERE s.category = 'overall'
    ORDER BY s.suite, s.protocol_id, rank, s.partition_key
    """,
    meanings(
        "suite protocol_id rank label source run iteration model base_model "
        f"{_SCORE} base_accuracy delta_to_base paired {_COUNTS} partition_key run_id evaluation_id scored_at",
        CHECKPOINT_SCORES,
        rank="Place within the suite and protocol, 1 the highest accuracy; equal ones share it.",
        **_DELTAS,
    ),
)

BEST_CHECKPOINT = View(
    "best_checkpoint",
    "The checkpoint of the highest accuracy of every training run by suite and protocol; of equals, the earliest. "
    "Whether it may be called best is in `leaderboard`.",
    """
    SELECT source, run, suite, protocol_id, label, iteration, accuracy, accuracy_low, accuracy_high,
        base_accuracy, delta_to_base, paired, correct, total, unscored, partition_key, scored_at
    FROM latest_leaderboard
    WHERE source <> 'base' AND accuracy IS NOT NULL
    QUALIFY row_number() OVER (
        PARTITION BY source, run, suite, protocol_id ORDER BY accuracy DESC, iteration
    ) = 1
    ORDER BY suite, protocol_id, accuracy DESC, source, run
    """,
    meanings(
        "source run suite protocol_id label iteration "
        f"{_SCORE} base_accuracy delta_to_base paired {_COUNTS} partition_key scored_at",
        CHECKPOINT_SCORES,
        **_DELTAS,
    ),
)

LATEST_SCORE = View(
    "latest_score",
    "Where every training run stands: its last checkpoint that has a score, by suite and protocol, and what it gained.",
    """
    SELECT source, run, suite, protocol_id, label, iteration, accuracy, accuracy_low, accuracy_high,
        base_accuracy, delta_to_base, paired, previous_iteration, previous_accuracy, delta_to_previous,
        correct, total, unscored, partition_key, scored_at
    FROM deltas
    WHERE category = 'overall' AND accuracy IS NOT NULL
    QUALIFY row_number() OVER (PARTITION BY source, run, suite, protocol_id ORDER BY iteration DESC) = 1
    ORDER BY source, run, suite, protocol_id
    """,
    meanings(
        f"source run suite protocol_id label iteration {_SCORE} base_accuracy delta_to_base paired "
        f"previous_iteration previous_accuracy delta_to_previous {_COUNTS} partition_key scored_at",
        CHECKPOINT_SCORES,
        **_DELTAS,
    ),
)

LEARNING_CURVE = View(
    "learning_curve",
    "Accuracy by iteration of every run, suite, protocol and category, with the change since the checkpoint before.",
    """
    SELECT source, run, suite, protocol_id, category, iteration, label, accuracy, accuracy_low, accuracy_high,
        delta_to_previous, correct, total, unscored, partition_key, scored_at
    FROM deltas
    ORDER BY source, run, suite, protocol_id, category, iteration
    """,
    meanings(
        f"source run suite protocol_id category iteration label {_SCORE} delta_to_previous {_COUNTS} "
        "partition_key scored_at",
        CHECKPOINT_SCORES,
        **_DELTAS,
    ),
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
    meanings(
        "suite protocol_id source run iteration label probe_id sample category change expected base_extracted "
        "extracted base_response response partition_key",
        PROBE_RESULTS,
        change="gained: the checkpoint is right where its base is wrong; lost: the other way round.",
        base_extracted="What the check read out of the base's answer.",
        base_response="The base's whole answer.",
    ),
)

COVERAGE = View(
    "coverage",
    "What there is of every checkpoint and suite: a row for each pair, also where nothing was scored.",
    """
    WITH seen AS (
        SELECT partition_key, source, run, iteration, label, suite FROM evaluations
        UNION ALL
        SELECT partition_key, source, run, iteration, label, suite FROM checkpoint_scores
        UNION ALL
        SELECT partition_key, source, run, iteration, label, suite FROM judgements
    ),
    checkpoints AS (
        SELECT partition_key, any_value(source) AS source, any_value(run) AS run,
            any_value(iteration) AS iteration, any_value(label) AS label
        FROM seen GROUP BY partition_key
    ),
    suites AS (SELECT DISTINCT suite FROM seen),
    asked AS (
        SELECT partition_key, suite, count(*) AS answers, count(error) AS broken FROM responses GROUP BY ALL
    ),
    checked AS (
        SELECT partition_key, suite, count(passed) AS checked, count(*) - count(passed) AS unchecked
        FROM probe_results GROUP BY ALL
    ),
    judged AS (
        SELECT partition_key, suite, count(score) AS judged, count(*) - count(score) AS unjudged
        FROM judgements GROUP BY ALL
    )
    SELECT c.source, c.run, c.iteration, c.label, s.suite,
        a.partition_key IS NULL AND p.partition_key IS NULL AND j.partition_key IS NULL
            AND o.partition_key IS NULL AS missing,
        coalesce(a.answers, 0) AS answers, coalesce(a.broken, 0) AS broken,
        coalesce(p.checked, 0) AS checked, coalesce(p.unchecked, 0) AS unchecked,
        coalesce(j.judged, 0) AS judged, coalesce(j.unjudged, 0) AS unjudged,
        o.accuracy, o.protocol_id, c.partition_key
    FROM checkpoints AS c
    CROSS JOIN suites AS s
    LEFT JOIN asked AS a ON a.partition_key = c.partition_key AND a.suite = s.suite
    LEFT JOIN checked AS p ON p.partition_key = c.partition_key AND p.suite = s.suite
    LEFT JOIN judged AS j ON j.partition_key = c.partition_key AND j.suite = s.suite
    LEFT JOIN checkpoint_scores AS o
        ON o.partition_key = c.partition_key AND o.suite = s.suite AND o.category = 'overall'
    ORDER BY c.source, c.run, c.iteration, c.partition_key, s.suite
    """,
    meanings(
        "source run iteration label suite missing answers broken checked unchecked judged unjudged accuracy "
        "protocol_id partition_key",
        CHECKPOINT_SCORES,
        missing="Whether nothing at all was scored: the checkpoint was not asked this suite.",
        answers="Answers stored; 0 for an imported checkpoint, whose answers were not kept.",
        broken="Of those, answers that an error ended.",
        checked="Answers that passed or failed the suite's check.",
        unchecked="Answers that could not be checked; they count neither way.",
        judged="Figures of the judge.",
        unjudged="Figures that the judge should have given and did not.",
        accuracy="Overall share of checked answers passed, 0..1; empty where there is none.",
        protocol_id="Protocol of that accuracy: only rows of one protocol may be compared.",
    ),
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
    meanings(
        "table_name partition_key label suite probe_id dimension unscored_reason scored_at",
        JUDGEMENTS,
        table_name="The table that the figure is missing in.",
        dimension="What the judge was asked; empty for the other tables.",
    ),
)

CHECKPOINT_VIEWS: tuple[View, ...] = (
    PROBE_SHARES,
    DELTAS,
    LATEST_LEADERBOARD,
    BEST_CHECKPOINT,
    LATEST_SCORE,
    LEARNING_CURVE,
    PROBE_CHANGES,
    COVERAGE,
    UNSCORED,
)
VIEWS: tuple[View, ...] = (*CHECKPOINT_VIEWS, *RESPONSE_VIEWS)
"""In the order in which they can be made: a view may use those before it."""
