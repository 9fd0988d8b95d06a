from __future__ import annotations

from typing import Any

import pytest

from ml_pipeline.stores.tables import TRAINING_LOSS
from ml_pipeline.training.summary import loss_curve, loss_summary


def row(kind: str, iteration: int, loss: float | None) -> dict[str, Any]:
    empty: dict[str, Any] = dict.fromkeys(TRAINING_LOSS.schema.names)
    return {**empty, "kind": kind, "iteration": iteration, "loss": loss, "attempt": 1}


def test_the_last_and_best_losses_are_named() -> None:
    rows = [
        row("val", 1, 3.0),
        row("val", 20, 1.5),
        row("val", 40, 2.0),
        *(row("train", i, 4 - i / 10) for i in (10, 20)),
    ]
    summary = loss_summary(rows)
    assert summary.figures == {"last_train_loss": 2.0, "last_val_loss": 2.0, "best_val_loss": 1.5}
    assert [(shown["iteration"], shown["kind"]) for shown in summary.last] == [
        (1, "val"),
        (10, "train"),
        (20, "train"),
        (20, "val"),
        (40, "val"),
    ]


def test_a_diverged_training_has_no_last_loss() -> None:
    assert loss_summary([row("train", 1, 2.0), row("train", 2, None)]).figures == {}


@pytest.mark.parametrize(
    ("losses", "curve"),
    [
        ([], ""),
        ([1.0], "▁"),
        ([2.0, 2.0], "▁▁"),
        ([7.0, 3.0, 0.0], "█▄▁"),
        ([7.0, None, 0.0], "█x▁"),
        ([None, None], "xx"),
        ([*[8.0] * 600, 1.0], "█" * 59 + "▁"),
    ],
)
def test_the_curve_is_one_line_of_at_most_sixty_blocks(losses: list[float | None], curve: str) -> None:
    assert loss_curve(losses) == curve
