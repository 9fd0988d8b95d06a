from __future__ import annotations

import math

import pytest

from ml_pipeline.reports.losses import losses_by_run
from ml_pipeline.reports.score_table import score_table
from ml_pipeline_tests.reports.sample_scores import Checkpoint, losses_of, scores_of

TRAIN = {10: 3.0, 20: 2.5, 30: None, 40: 2.0}


@pytest.mark.parametrize(
    ("iteration", "loss"),
    [
        (9, None),  # nothing printed yet
        (10, 3.0),
        (19, 3.0),
        (20, 2.5),
        (30, None),  # diverged
        (35, None),
        (50, 2.0),
        (51, None),  # the log ends more than one print before
    ],
)
def test_the_loss_of_an_iteration(iteration: int, loss: float | None) -> None:
    scores = scores_of(losses=losses_of("r", TRAIN))
    assert losses_by_run(scores.training_loss)["mac", "r"]["train"].at(iteration) == loss


def test_a_single_print_is_the_loss_of_its_own_iteration_only() -> None:
    curve = losses_by_run(scores_of(losses=losses_of("r", {100: 2.0})).training_loss)["mac", "r"]["train"]
    assert (curve.at(100), curve.at(101)) == (2.0, None)


def test_rows_may_come_in_any_order_and_runs_stay_apart() -> None:
    rows = [*losses_of("b", {1: 9.0}, "val"), *reversed(losses_of("a/x", {10: 3.0, 20: 2.0}))]
    found = losses_by_run(scores_of(losses=rows).training_loss)
    assert found.keys() == {("mac", "a/x"), ("mac", "b")}
    assert found["mac", "a/x"]["train"].iterations.tolist() == [10, 20]
    assert found["mac", "b"].keys() == {"val"}


def test_the_score_table_has_the_losses_and_the_suite_version() -> None:
    base = Checkpoint("tiny", 0, {"a": True}, source="base")
    points = [Checkpoint("r", iteration, {"a": True}) for iteration in (20, 30, 90)]
    losses = [*losses_of("r", TRAIN), *losses_of("r", {20: 2.75}, "val")]
    table = score_table(scores_of(base, *points, losses=losses))
    accuracy = table[table["metric"].eq("accuracy") & table["category"].eq("overall")].set_index("partition_key")
    assert accuracy["training_loss"]["mac.r@20"] == 2.5
    assert accuracy["validation_loss"]["mac.r@20"] == 2.75
    for key in ("mac.r@30", "mac.r@90", "base.tiny@0"):
        assert math.isnan(accuracy["training_loss"][key])
    assert set(table["suite_version"]) == {"1.0"}


def test_losses_alone_are_no_scores() -> None:
    assert scores_of(losses=losses_of("r", TRAIN)).is_empty
