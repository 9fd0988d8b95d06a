from __future__ import annotations

from datetime import timedelta
from typing import Any

import pandas as pd
import pytest

from ml_pipeline.reports.column_meanings import LEADERBOARD_MEANINGS
from ml_pipeline.reports.leaderboard import LEADERBOARD_COLUMNS, leaderboard
from ml_pipeline.reports.scores import Scores
from ml_pipeline_tests.reports.sample_scores import SCORED_AT, Checkpoint, scores_of

PROBES = "abcdefghij"


def checkpoint(run: str, iteration: int, right: str, **changes: Any) -> Checkpoint:
    return Checkpoint(run, iteration, {probe: probe in right for probe in PROBES}, **changes)


BASE = checkpoint("tiny", 0, "abc", source="base")


def board(*checkpoints: Checkpoint) -> pd.DataFrame:
    return leaderboard(scores_of(*checkpoints))


def row(table: pd.DataFrame, partition_key: str) -> dict[str, Any]:
    rows = table[table["partition_key"] == partition_key]
    assert len(rows) == 1
    return dict(rows.iloc[0])


def test_delta_interval_and_p_value_by_hand() -> None:
    found = row(board(BASE, checkpoint("r", 10, "abdefghi")), "mac.r@10")
    assert found["accuracy"] == pytest.approx(0.8)
    assert found["base_accuracy"] == pytest.approx(0.3)
    assert found["delta"] == pytest.approx(0.5)
    assert [found["delta_low"], found["delta_high"]] == pytest.approx([0.0, 0.77573], abs=1e-4)
    assert (found["paired"], found["better"], found["worse"]) == (10, 6, 1)
    assert found["p_value"] == pytest.approx(0.125)
    assert found["verdict"] == "no clear difference"
    assert found["base_partition_key"] == "base.tiny@0"


def test_ranks_ties_and_best() -> None:
    table = board(BASE, checkpoint("r", 10, "ab"), checkpoint("r", 20, "abcdefghij"), checkpoint("r", 30, "abcdefghij"))
    ranks = table.set_index("partition_key")[["rank", "tied", "best"]].dropna().T.to_dict("list")
    assert ranks == {"mac.r@20": [1, True, True], "mac.r@30": [1, True, True], "mac.r@10": [3, False, False]}
    assert table["partition_key"].tolist() == ["mac.r@20", "mac.r@30", "mac.r@10", "base.tiny@0"]


def test_what_has_no_right_answer_or_is_worse_than_the_base_is_not_called_best() -> None:
    nothing = board(BASE, *(checkpoint("r", 10 * step, "") for step in range(1, 5)))
    assert nothing["rank"].dropna().tolist() == [1, 1, 1, 1]
    assert not nothing["best"].any()
    assert not nothing["near_best"].any()
    good = checkpoint("tiny", 0, PROBES, source="base")
    worse = board(good, checkpoint("r", 10, "ab"), checkpoint("r", 20, "a"))
    assert worse.set_index("partition_key")["verdict"]["mac.r@10"] == "worse"
    assert not worse["best"].any()


def test_the_best_of_several_has_an_interval_that_allows_for_the_choice() -> None:
    table = board(BASE, *(checkpoint("r", 10 * step, "abcdef"[:step]) for step in range(1, 7)))
    found = row(table, "mac.r@60")
    assert found["best_low"] < found["accuracy_low"]
    assert found["best_high"] == pytest.approx(found["accuracy_high"], abs=1e-4)
    assert 0 <= found["best_luck"] < 0.3
    assert pd.isna(row(table, "mac.r@10")["best_low"])


def test_near_best_is_what_the_probes_cannot_tell_apart() -> None:
    table = board(BASE, checkpoint("r", 10, ""), checkpoint("r", 20, "abcdefgh"), checkpoint("r", 30, PROBES))
    assert table.set_index("partition_key")["near_best"].to_dict() == {
        "mac.r@30": False,
        "mac.r@20": True,
        "mac.r@10": False,
        "base.tiny@0": False,
    }


def test_different_protocols_are_never_compared_or_ranked_together() -> None:
    other = checkpoint("r", 20, PROBES, protocol_id="protocol-2")
    table = board(BASE, checkpoint("r", 10, "abcd"), other)
    first, second = row(table, "mac.r@10"), row(table, "mac.r@20")
    assert (first["rank"], second["rank"]) == (1, 1)
    assert second["verdict"] == "no base to compare with"
    for name in ("delta", "p_value", "base_accuracy"):
        assert pd.isna(second[name])
    assert first["delta"] == pytest.approx(0.1)


def test_unscored_probes_leave_the_pairs() -> None:
    partly = Checkpoint("r", 10, {probe: None if probe in "ab" else probe in "cd" for probe in PROBES})
    found = row(board(BASE, partly), "mac.r@10")
    assert (found["paired"], found["total"], found["unscored"]) == (8, 8, 2)
    assert found["accuracy"] == pytest.approx(0.25)
    assert found["delta"] == pytest.approx(1 / 8)


def test_a_checkpoint_with_nothing_scored_has_no_rank() -> None:
    found = row(board(BASE, Checkpoint("r", 10, dict.fromkeys(PROBES))), "mac.r@10")
    assert found["verdict"] == "not scored"
    assert pd.isna(found["rank"])
    assert pd.isna(found["accuracy"])
    assert not found["best"]


def test_the_newest_scores_of_a_checkpoint_count() -> None:
    tables = scores_of(BASE, checkpoint("r", 10, "", scored_at=SCORED_AT - timedelta(days=1)))
    newer = scores_of(checkpoint("r", 10, PROBES))
    for frame in (
        newer.evaluations,
        newer.responses,
        newer.probe_results,
        newer.checkpoint_scores,
        newer.heuristic_scores,
        newer.degeneration,
    ):
        frame["evaluation_id"] = "after the adapter changed"
    both = Scores(*(pd.concat([getattr(tables, name), getattr(newer, name)]) for name in Scores.__dataclass_fields__))
    assert row(leaderboard(both), "mac.r@10")["accuracy"] == 1.0


@pytest.mark.parametrize(
    ("right", "trend"),
    [
        ([], "too few checkpoints"),
        ([16], "no clear change"),
        ([16, 40], "rising"),
        ([16, 8], "no clear change"),
        ([40, 12], "peaked at 10, then fell"),
        ([40, 32], "rising"),
        ([28, 0], "peaked at 10, then fell"),
        ([12, 0], "falling"),
    ],
)
def test_trends(right: list[int], trend: str) -> None:
    def of_forty(run: str, iteration: int, count: int, **changes: Any) -> Checkpoint:
        return Checkpoint(run, iteration, {f"p{index:02}": index < count for index in range(40)}, **changes)

    points = [of_forty("r", 10 * step, count) for step, count in enumerate(right, 1)]
    table = board(of_forty("tiny", 0, 12, source="base"), *points)
    assert all(found == trend for found in table[table["source"] != "base"]["trend"])
    if not points:
        assert table["verdict"].tolist() == ["base"]


def test_a_single_checkpoint_without_a_base() -> None:
    found = row(board(checkpoint("r", 10, "abc")), "mac.r@10")
    assert (found["rank"], found["best"], found["tied"]) == (1, True, False)
    assert (found["verdict"], found["trend"]) == ("no base to compare with", "too few checkpoints")


def test_empty_input_gives_an_empty_table() -> None:
    table = leaderboard(Scores.from_tables({}))
    assert table.empty
    assert list(table.columns) == LEADERBOARD_COLUMNS == list(LEADERBOARD_MEANINGS)


def test_each_checkpoint_is_compared_with_the_one_before() -> None:
    table = board(BASE, checkpoint("r", 10, "abc"), checkpoint("r", 30, ""), checkpoint("r", 20, PROBES))
    first, second, third = (row(table, f"mac.r@{iteration}") for iteration in (10, 20, 30))
    assert pd.isna(first["previous_partition_key"])
    assert pd.isna(first["previous_delta"])
    assert (second["previous_partition_key"], second["previous_delta"]) == ("mac.r@10", pytest.approx(0.7))
    assert (third["previous_partition_key"], third["previous_delta"]) == ("mac.r@20", pytest.approx(-1.0))
    assert [second["previous_p_value"], third["previous_p_value"]] == [2 / 2**7, 2 / 2**10]
    # Holm over the two steps of the run.
    assert [second["previous_p_adjusted"], third["previous_p_adjusted"]] == [2 / 2**7, 4 / 2**10]
    assert [second["previous_verdict"], third["previous_verdict"]] == ["better", "worse"]


def test_the_verdict_allows_for_all_checkpoints_of_the_run() -> None:
    alone = row(board(BASE, checkpoint("r", 10, PROBES)), "mac.r@10")
    among = row(board(BASE, *(checkpoint("r", 10 * i, PROBES if i == 1 else "abc") for i in range(1, 7))), "mac.r@10")
    assert alone["p_value"] == among["p_value"] == 2 / 2**7
    assert (alone["p_adjusted"], among["p_adjusted"]) == (2 / 2**7, 12 / 2**7)
    assert (alone["verdict"], among["verdict"]) == ("better", "no clear difference")


def test_means_are_compared_with_the_base_on_the_same_probes() -> None:
    base = checkpoint("tiny", 0, "", source="base", lek=dict.fromkeys(PROBES, 1.0), judge=dict.fromkeys(PROBES, 4.0))
    lek = {probe: 2.0 + (probe in "ab") for probe in PROBES}
    found = row(board(base, checkpoint("r", 10, "", lek=lek, judge=dict.fromkeys(PROBES, 5.0))), "mac.r@10")
    assert found["lek_delta"] == pytest.approx(1.2)
    # Student's t of 10 values, 2.262, widened by 1 + 4 / 12; their error is 0.4 / 3.
    assert [found["lek_low"], found["lek_high"]] == pytest.approx([1.2 - 0.4022, 1.2 + 0.4022], abs=1e-3)
    assert found["judge_delta"] == 1.0
    # All differ by the same: that is no interval.
    assert pd.isna(found["judge_low"])
    assert pd.isna(found["judge_high"])
