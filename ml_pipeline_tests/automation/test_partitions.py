"""How keys are cut into runs."""

from __future__ import annotations

import pytest

from ml_pipeline.automation.partitions import plan_runs, range_tags


@pytest.mark.parametrize(
    ("ordered", "wanted", "size", "runs"),
    [
        ("abcd", {"a": "m", "b": "m", "c": "m", "d": "m"}, 8, ["abcd"]),
        ("abcd", {"a": "m", "b": "m", "c": "m", "d": "m"}, 3, ["abc", "d"]),
        ("abcd", {"a": "m", "b": "m", "c": "n", "d": "n"}, 8, ["ab", "cd"]),
        ("abcd", {"a": "m", "b": "m", "d": "m"}, 8, ["ab", "d"]),  # a range over the gap would score c too
        ("abcd", {"d": "m", "a": "m"}, 8, ["a", "d"]),  # a reversed range would run nothing and succeed
        ("abcd", {}, 8, []),
        ("", {"a": "m"}, 8, []),
    ],
)
def test_runs_are_neighbours_of_one_base_model(
    ordered: str, wanted: dict[str, str], size: int, runs: list[str]
) -> None:
    assert ["".join(run) for run in plan_runs(ordered, wanted, size)] == runs


def test_a_run_is_a_range_from_its_first_to_its_last_key() -> None:
    assert range_tags(("a", "b", "c")) == {
        "dagster/asset_partition_range_start": "a",
        "dagster/asset_partition_range_end": "c",
    }
