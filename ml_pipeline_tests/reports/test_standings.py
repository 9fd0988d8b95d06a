from __future__ import annotations

from ml_pipeline.reports.runs import run_curves
from ml_pipeline.reports.standings import Ranking, rankings, rankings_json
from ml_pipeline_tests.cli.lab import eight
from ml_pipeline_tests.reports.sample_scores import Checkpoint, scores_of


def ranked(*checkpoints: Checkpoint, each_run: bool = True) -> list[Ranking]:
    return rankings(run_curves(scores_of(*checkpoints)), each_run=each_run)


def places(ranking: Ranking) -> list[tuple[int | None, bool, list[str]]]:
    return [(one.rank, one.tied, [point.partition_key for point in one.points]) for one in ranking.standings]


def test_the_best_of_each_run_with_ties_in_and_between_runs() -> None:
    (ranking,) = ranked(
        eight("a"),
        eight("a", "b", iteration=10),
        eight("c", "d", iteration=20),
        eight("b", run="lek/b", iteration=10),
        eight("e", "f", run="lek/c", iteration=10),
        eight(*"abc", run="lek/d", iteration=30),
    )
    assert places(ranking) == [
        (1, False, ["mac.lek+d@30"]),
        (2, True, ["mac.lek+a@10", "mac.lek+a@20"]),
        (2, True, ["mac.lek+c@10"]),
        (4, False, ["mac.lek+b@10"]),
    ]
    assert ranking.base is not None
    assert ranking.base.partition_key == "base.tiny@0"


def test_every_checkpoint_of_a_run() -> None:
    (ranking,) = ranked(eight("a", iteration=10), eight("a", "b", iteration=20), each_run=False)
    assert places(ranking) == [(1, False, ["mac.lek+a@20"]), (2, False, ["mac.lek+a@10"])]
    assert ranking.base is None


def test_other_protocols_are_ranked_apart_and_judged_runs_without_rank() -> None:
    judged = Checkpoint("lek/a", 10, {"a": False}, suite="content", judge={"a": 7.0})
    found = ranked(eight("a", iteration=10), eight("a", iteration=10, run="lek/b", protocol_id="other"), judged)
    assert [ranking.suite for ranking in found] == ["capability", "capability", "content"]
    assert places(found[2]) == [(None, False, ["mac.lek+a@10"])]


def test_json_holds_rows_of_the_leaderboard() -> None:
    told = rankings_json(ranked(eight("a"), eight("a", "b", iteration=10), eight("c", "d", iteration=20)), most=1)
    (ranking,) = told["rankings"]
    assert ranking["base"]["accuracy"] == 1 / 8
    assert [row["partition_key"] for row in ranking["checkpoints"]] == ["mac.lek+a@10", "mac.lek+a@20"]
    first = ranking["checkpoints"][0]
    assert (first["place"], first["place_tied"], first["tied"], first["delta"]) == (1, False, True, 1 / 8)
