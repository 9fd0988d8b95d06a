"""Points of training losses: the original's tags and fields, worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest

from ml_pipeline.stores.points import TimeBase, lines_by_batch
from ml_pipeline.stores.rows import conform
from ml_pipeline.stores.tables import TRAINING_LOSS
from ml_pipeline.stores.training_points import training_points
from ml_pipeline_tests.stores.samples import SCORED_AT

START_NS = 1_700_000_000_123_456_789


def rows(*given: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows as they come out of the table."""
    row = {
        **dict.fromkeys(TRAINING_LOSS.schema.names),
        "partition_key": "lab.15k+g1",
        "source": "lab",
        "run": "15k/g1",
        "run_id": "15k-g1",
        "model": "gemma-3-1b",
        "attempt": 1,
        "log_file": "adapters-15k/g1/training.log",
        "log_id": "0123",
        "started_ns": START_NS,
        "read_at": SCORED_AT,
    }
    stored: list[dict[str, Any]] = conform(TRAINING_LOSS, "lab.15k+g1", [row | more for more in given]).to_pylist()
    return stored


@pytest.mark.parametrize(
    ("time_base", "train_time", "val_time"),
    [
        ("real", START_NS + 10 * 10**7, START_NS + 2000 * 10**7),
        ("original", "1739587600000000000", "1741577600000000000"),
    ],
)
def test_lines_have_the_tags_and_fields_of_the_original(
    time_base: TimeBase, train_time: int | str, val_time: int | str
) -> None:
    losses = rows(
        {
            "kind": "train",
            "iteration": 10,
            "loss": 2.345,
            "learning_rate": 1e-05,
            "iterations_per_s": 0.42,
            "tokens_per_s": 210.3,
            "trained_tokens": 4200,
            "peak_memory_gb": 5.1,
        },
        {"kind": "val", "iteration": 2000, "loss": 2.5},
        {"kind": "val", "iteration": 3000, "loss": None, "reason": "diverged"},
    )
    assert lines_by_batch(training_points(losses, time_base)) == {
        "training_loss~train-0": [
            "training_loss,loss_type=train,model=gemma-3-1b,run_id=15k-g1 "
            f"it_per_sec=0.42,iteration=10i,learning_rate=1e-05,loss=2.345,tokens_per_sec=210.3 {train_time}"
        ],
        "training_loss~val-2": [
            f"training_loss,loss_type=val,model=gemma-3-1b,run_id=15k-g1 iteration=2000i,loss=2.5 {val_time}"
        ],
    }


def test_no_two_points_of_one_series_share_a_time() -> None:
    points = training_points(rows(*({"kind": "train", "iteration": i, "loss": 1.0} for i in range(1, 50))))
    assert len({point.time_ns // 10**6 for point in points}) == 49  # also in a store that keeps milliseconds
