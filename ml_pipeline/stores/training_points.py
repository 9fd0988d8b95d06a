"""Points of training losses for dashboards: the original's measurement training_loss."""

from __future__ import annotations

from collections.abc import Iterable

from ml_pipeline.settings import IMPORTED_SOURCE
from ml_pipeline.stores.points import ORIGINAL_EPOCH_S, Row, ScorePoint, TimeBase
from ml_pipeline.stores.tables import TRAINING_LOSS

_NS = 1_000_000_000
_ORIGINAL_STEP_S = 1000
_STEP_NS = 10_000_000
"""Faster than anything trains, so that no point lies in the future; and apart in servers that keep milliseconds."""
_ITERATIONS_A_BATCH = 1000
_FIELDS = {"learning_rate": "learning_rate", "iterations_per_s": "it_per_sec", "tokens_per_s": "tokens_per_sec"}
"""The original's fields by our columns; empty ones make no field."""


def training_points(rows: Iterable[Row], time_base: TimeBase = "real") -> list[ScorePoint]:
    """Make the points of rows of table training_loss: one a loss; one that diverged and imported ones make none.

    Logs carry no times, so a point's time counts the iterations: with `time_base` "real" 10 ms each from the start of
    the training, with "original" ORIGINAL_EPOCH_S + 1000 * iteration, in s.
    """
    return [
        ScorePoint(
            TRAINING_LOSS.name,
            loss_batch(row["kind"], row["iteration"]),
            {"model": row["model"], "run_id": row["run_id"], "loss_type": row["kind"]},
            {
                "loss": row["loss"],
                "iteration": row["iteration"],
                **{field: row[column] for column, field in _FIELDS.items() if row[column] is not None},
            },
            row["started_ns"] + row["iteration"] * _STEP_NS
            if time_base == "real"
            else (ORIGINAL_EPOCH_S + row["iteration"] * _ORIGINAL_STEP_S) * _NS,
        )
        for row in rows
        if row["loss"] is not None and row["source"] != IMPORTED_SOURCE
    ]


def loss_batch(kind: str, iteration: int) -> str:
    """What a loss's point is sent with: a log that grows changes its last batches only, however long it is."""
    return f"{kind}-{iteration // _ITERATIONS_A_BATCH}"
