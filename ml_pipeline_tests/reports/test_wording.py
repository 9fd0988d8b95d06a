from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
import pytest

from ml_pipeline.reports.comparison import compare
from ml_pipeline.reports.intervals import Estimate
from ml_pipeline.reports.runs import run_curves
from ml_pipeline.reports.scores import Scores
from ml_pipeline.reports.wording import (
    FINISHED_NOTE,
    asked,
    evenly,
    gain,
    headline,
    on_finished,
    p_value,
    percent_interval,
    points,
    resolution,
    sparkline,
    table_notes,
)
from ml_pipeline_tests.reports.sample_scores import Checkpoint, scores_of, tables_of

PROBES = "abcdefghij"


def checkpoint(source: str, iteration: int, right: str) -> Checkpoint:
    return Checkpoint("tiny" if source == "base" else "r", iteration, {p: p in right for p in PROBES}, source=source)


def spoken(*checkpoints: Checkpoint) -> str:
    (curve,) = run_curves(scores_of(*checkpoints))
    return headline(curve).replace("\u00a0", " ")


def test_figures() -> None:
    assert percent_interval(Estimate(0.52, 0.351, 0.694, 20)) == "52% [35\u201369]"
    assert percent_interval(None) == "\u2013"
    assert [points(value) for value in (0.334, -0.049, 0.001, -0.001)] == ["+33", "\u22125", "0", "0"]
    assert [p_value(value).replace("\u00a0", " ") for value in (0.0001, 0.0213, 0.452)] == [
        "p < 0.001",
        "p = 0.021",
        "p = 0.45",
    ]


def test_sparkline_has_a_fixed_scale_and_keeps_gaps() -> None:
    assert sparkline([0.0, 0.5, 1.0, None]) == "▁▅█·"
    assert sparkline([0.50, 0.51]) == "▅▅"
    assert sparkline([0.0, 1.0, None], ascii_only=True) == "_# "
    assert len(sparkline([0.1] * 500)) == 40


@pytest.mark.parametrize(
    ("count", "most", "expected"),
    [(3, 5, [0, 1, 2]), (5, 3, [0, 2, 4]), (9, 1, [8]), (0, 3, []), (500, 2, [0, 499])],
)
def test_evenly_keeps_the_ends(count: int, most: int, expected: list[int]) -> None:
    assert evenly(count, most) == expected


def test_gain() -> None:
    found = compare({p: p in "abc" for p in PROBES}, {p: p in "abdefghi" for p in PROBES})
    assert found is not None
    assert gain(found).replace("\u00a0", " ") == "+50 points [0 to +78], p = 0.12"


def test_headline_of_a_better_run() -> None:
    words = spoken(checkpoint("base", 0, ""), checkpoint("mac", 10, "a"), checkpoint("mac", 20, PROBES))
    assert words.startswith(
        "Best: iteration 20, 100% [67\u2013100] of 10 probes right, as the highest of 2 about 1 point too high. "
        "Better than the base (0%): +100 points"
    )
    # 2 / 2**10, of two checkpoints.
    assert "p = 0.004" in words


def test_headline_says_ties_and_neighbours() -> None:
    words = spoken(*(checkpoint("mac", step, "abc") for step in (10, 20)), checkpoint("mac", 30, "ab"))
    assert words.startswith("Best: iterations 10 and 20, equal, 30%")
    assert "There is no base scored in the same way" in words
    assert words.endswith("The truly best may as well be iteration 30.")


def test_headline_without_checkpoints() -> None:
    assert spoken(checkpoint("base", 0, "abcde")) == "Only the base has been scored: 50% [24\u201376] of probes right."


def test_headline_when_nothing_was_scored() -> None:
    assert spoken(Checkpoint("r", 10, {"a": None})).startswith("Not ranked")


def judged(source: str, iteration: int, judge: float, lek: float) -> Checkpoint:
    leks = dict(zip(PROBES, (lek, -lek) * 5, strict=True))
    figures = {probe: judge + figure / 10 for probe, figure in leks.items()}
    return replace(checkpoint(source, iteration, ""), suite="content", judge=figures, lek=leks)


def test_headline_of_a_suite_that_is_judged_alone() -> None:
    words = spoken(judged("base", 0, 2.0, 0.0), judged("mac", 10, 9.0, 0.0), judged("mac", 20, 5.0, 3.0))
    assert words.endswith(
        "iteration 20, against the base: judge: avg +3.0 [+2.6 to +3.4]; no clear difference in 1 of 2 means."
    )
    assert spoken(judged("mac", 10, 9.0, 0.0)).endswith("pass or fail for these checkpoints.")


def test_figures_that_all_differ_by_the_same_are_no_clear_difference() -> None:
    words = spoken(judged("base", 0, 2.0, 0.0), judged("mac", 10, 5.0, 0.0))
    assert words.endswith("iteration 10, against the base: no clear difference in 2 of 2 means.")


def test_several_answers_to_a_probe_are_told_apart_from_probes() -> None:
    base, best = checkpoint("base", 0, ""), checkpoint("mac", 10, "abcde")
    tables = {name: pa.concat_tables([table] * 5) for name, table in tables_of([base, best]).items()}
    scores = tables["checkpoint_scores"].to_pandas().drop_duplicates("partition_key")
    scores = scores.assign(correct=scores["correct"] * 5, total=scores["total"] * 5)
    schema = tables["checkpoint_scores"].schema
    tables["checkpoint_scores"] = pa.Table.from_pandas(scores, schema=schema, preserve_index=False)
    (curve,) = run_curves(Scores.from_tables(tables))
    assert asked(curve.points[0]) == "10 probes, 50 answers"
    words = headline(curve)
    assert "of 10 probes, 50 answers right" in words
    assert "scored for both" not in words


def test_what_the_suite_can_find_is_told() -> None:
    probes = [f"p{index}" for index in range(41)]
    base = Checkpoint("tiny", 0, dict.fromkeys(probes, False), source="base")
    few = Checkpoint("r", 10, {probe: index < 4 for index, probe in enumerate(probes)})
    (curve,) = run_curves(scores_of(base, few))
    # Noise (4 + 2) / (41 + 2) = 0.14, of which a change of 0.27 leaves 0.10: 0.37 of 41 probes differ. A fall must pass
    # 1.6% on its side, about half of the 3% of all looks at the run.
    assert resolution(curve) == (
        # The base, which has no right answer, cannot fall.
        "41 probes find a difference from the base of 27 points 4 times in 5."
    )
    (alone,) = run_curves(scores_of(base))
    assert resolution(alone) == ""


@pytest.mark.parametrize(
    ("right", "told"),
    [(8, "; no fall from the base's 20% is called trouble as often."), (30, "; a fall from 30 points on is called ")],
)
def test_no_fall_is_promised_that_the_base_has_no_room_for(right: int, told: str) -> None:
    probes = [f"p{index}" for index in range(41)]
    base = Checkpoint("tiny", 0, {probe: index < right for index, probe in enumerate(probes)}, source="base")
    more = Checkpoint("r", 10, {probe: index < right + 4 for index, probe in enumerate(probes)})
    (curve,) = run_curves(scores_of(base, more))
    assert told in resolution(curve)


def test_differences_of_the_probes_that_both_finish_are_marked_and_their_number_told() -> None:
    probes = [f"p{index:02}" for index in range(41)]
    ended = dict.fromkeys(probes[25:], "length")
    base = Checkpoint("tiny", 0, {p: i < 8 for i, p in enumerate(probes)}, source="base", finish_reasons=ended)
    terse = Checkpoint("r", 10, {p: i < 10 or i > 30 for i, p in enumerate(probes)})
    curves = run_curves(scores_of(base, terse))
    # Of 25 probes: noise (2 + 2) / (25 + 2) = 0.15, as above.
    assert resolution(curves[0]).startswith("Of 41 probes the 25 that both finish find a difference from the base of ")
    found = curves[0].points[0].vs_base
    assert found is not None
    assert found.delta == pytest.approx(2 / 25)
    assert on_finished(points(found.delta), found) == "+8‡"
    assert table_notes(curves) == [FINISHED_NOTE]
    assert table_notes(run_curves(scores_of(replace(base, finish_reasons={}), terse))) == []
