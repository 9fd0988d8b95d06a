from __future__ import annotations

from dataclasses import replace
from math import comb

import pandas as pd
import pyarrow as pa
import pytest

from ml_pipeline.errors import UnknownCheckpointError
from ml_pipeline.reports.pairs import PAIR_COLUMNS, comparable, pair, pair_table
from ml_pipeline.reports.scores import Scores
from ml_pipeline_tests.cli.lab import eight
from ml_pipeline_tests.reports.sample_scores import Checkpoint, scores_of, tables_of

BASE, TUNED = "base.tiny@0", "mac.lek+a@10"


def test_figures_by_hand() -> None:
    pairing = pair(scores_of(eight("h"), eight(*"abcdefg", iteration=10)), BASE, TUNED)
    table = pair_table(pairing.suites)
    assert list(table.columns) == list(PAIR_COLUMNS)
    assert list(table["category"]) == ["overall", "sums", "words"]
    overall, sums, words = table.to_dict("records")
    assert (overall["a"], overall["b"], overall["delta"]) == (1 / 8, 7 / 8, 6 / 8)
    assert (overall["paired"], overall["better"], overall["worse"]) == (8, 7, 1)
    # McNemar's exact test: 8 discordant probes, at most 1 of them on one side, both tails.
    assert overall["p_value"] == pytest.approx(2 * (1 + 8) / 2**8)
    assert overall["p_adjusted"] == overall["p_value"]
    assert overall["verdict"] == "no clear difference"
    # 4 of 4 gained: 2 / 2**4. 3 gained, 1 lost: 2 * (1 + 4) / 2**4. Holm doubles the smaller one.
    assert sums["p_value"] == pytest.approx(2 / 2**4)
    assert words["p_value"] == pytest.approx(2 * sum(comb(4, k) for k in (0, 1)) / 2**4)
    assert (sums["p_adjusted"], words["p_adjusted"]) == (pytest.approx(4 / 2**4), pytest.approx(10 / 2**4))
    flips = pairing.suites[0].flips
    assert [(flip.probe_id, flip.gained) for flip in flips[:2]] == [("h", False), ("a", True)]


def test_it_is_the_other_way_round_the_other_way_round() -> None:
    scores = scores_of(eight("a"), eight("a", "b", "c", iteration=10))
    there, back = pair(scores, BASE, TUNED).suites[0], pair(scores, TUNED, BASE).suites[0]
    assert there.overall is not None
    assert back.overall is not None
    assert (there.overall.delta, there.overall.low) == (-back.overall.delta, -back.overall.high)
    assert [flip.gained for flip in back.flips] == [False, False]


def test_only_what_both_have_counts() -> None:
    tuned = replace(eight("a", "b", iteration=10), passed={"a": True, "b": True, "c": None, "z": True})
    pairing = pair(scores_of(eight("a"), tuned), BASE, TUNED)
    overall = pairing.suites[0].overall
    assert overall is not None
    assert (overall.paired, overall.better, overall.delta) == (2, 1, 0.5)


def test_judged_suites_have_means_and_no_accuracy() -> None:
    figures = dict.fromkeys("abcdefgh", 2.0)
    one = Checkpoint("tiny", 0, dict.fromkeys("abcdefgh", False), source="base", suite="content", judge=figures)
    two = replace(Checkpoint("lek/a", 10, one.passed, suite="content"), judge=dict.fromkeys("abcdefgh", 5.0))
    (suite,) = pair(scores_of(one, two), BASE, TUNED).suites
    assert suite.categories == ()
    (mean,) = suite.means
    assert (mean.metric, mean.comparison.delta, mean.comparison.paired) == ("judge:avg", 3.0, 8)
    (row,) = pair_table([suite]).to_dict("records")
    assert (row["a"], row["b"]) == (2.0, 5.0)
    assert pd.isna(row["p_value"])


def test_every_dimension_of_a_judge_is_compared_by_the_mean_of_a_probes_samples() -> None:
    scores = scores_of(
        *(
            Checkpoint(
                run, i, dict.fromkeys("abcdefgh"), source=source, suite="content", judge=dict.fromkeys("ab", 2.0)
            )
            for run, i, source in (("tiny", 0, "base"), ("lek/a", 10, "mac"))
        )
    )
    again = scores.judgements.assign(sample=2, score=lambda rows: rows["score"].where(rows["iteration"].eq(0), 8.0))
    kind = scores.judgements.assign(dimension="kindness", score=1.0)
    scores = replace(scores, judgements=pd.concat([scores.judgements, again, kind], ignore_index=True))
    (suite,) = pair(scores, BASE, TUNED).suites
    found = {mean.metric: mean.comparison.delta for mean in suite.means}
    assert found == {"judge:avg": 3.0, "judge:kindness": 0.0}


def test_another_protocol_is_told_and_other_probes_are_left_out() -> None:
    base, tuned = eight("a"), eight("a", "b", iteration=10, protocol_id="other")
    told = pair(_with(scores_tables(base, tuned), TUNED, quantisation="Q4_1"), BASE, TUNED)
    assert told.suites[0].differs == ("quantisation",)
    other = pair(_with(scores_tables(base, tuned), TUNED, suite_sha256="new"), BASE, TUNED)
    assert other.suites == ()
    assert "not asked the same probes" in other.left_out[0]
    lonely = pair(scores_of(base, replace(tuned, suite="content")), BASE, TUNED)
    assert lonely.left_out == (f"capability: only {BASE} was scored on it", f"content: only {TUNED} was scored on it")


def test_those_who_have_nothing_in_common_are_refused() -> None:
    with pytest.raises(UnknownCheckpointError, match=r"cannot be compared: capability: only base.tiny@0 was scored"):
        comparable(scores_of(eight("a")), BASE, TUNED)


def scores_tables(*checkpoints: Checkpoint) -> dict[str, pa.Table]:
    return tables_of(checkpoints)


def _with(tables: dict[str, pa.Table], key: str, **columns: str) -> Scores:
    rows = [row | (columns if row["partition_key"] == key else {}) for row in tables["evaluations"].to_pylist()]
    schema = tables["evaluations"].schema
    return Scores.from_tables(tables | {"evaluations": pa.Table.from_pylist(rows, schema=schema)})
