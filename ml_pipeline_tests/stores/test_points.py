from __future__ import annotations

import pyarrow as pa
import pytest

from ml_pipeline.errors import StoreError
from ml_pipeline.stores.points import ScorePoint, lines_by_batch, score_points
from ml_pipeline.stores.rows import conform
from ml_pipeline.stores.tables import TABLES
from ml_pipeline_tests.stores.samples import (
    MTIME_NS,
    Row,
    capability_suite,
    content_suite,
    evaluation_row,
    identity,
    judgement_rows,
    key,
    probe_rows,
    score_rows,
)

WHO = identity(100)
TAGS = {"model": "gemma-3-1b", "run_id": "g1-lek-capability-auto", "label": "G1-lek @0000100"}


def tables(who: Row = WHO, **rows: list[Row]) -> dict[str, pa.Table]:
    every = {"evaluations": [evaluation_row(who)], **rows}
    return {name: conform(TABLES[name], who["partition_key"], some) for name, some in every.items()}


def test_capability_scores_in_percent_in_the_suites_order() -> None:
    # The suite names math before code; the rows come the other way round.
    rows = tables(checkpoint_scores=score_rows(WHO, code=(1, 3), math=(2, 2)))
    assert score_points(rows, [capability_suite()]) == [
        ScorePoint(
            "capability_score",
            "capability",
            {**TAGS, "category": category},
            {"accuracy": accuracy, "correct": correct, "total": total, "iteration": 100},
            MTIME_NS + ordinal,
        )
        for category, accuracy, correct, total, ordinal in (
            ("overall", 60.0, 3, 5, 0),
            ("math", 100.0, 2, 2, 1),
            ("code", 1 / 3 * 100, 1, 3, 2),
        )
    ]


def test_probe_scores_leave_out_what_is_unscored() -> None:
    rows = tables(probe_results=probe_rows(WHO, root=False, sum=True, loop=None))
    assert [(p.tags, p.fields, p.time_ns) for p in score_points(rows, [capability_suite()])] == [
        ({**TAGS, "probe_id": "sum"}, {"passed": 1, "iteration": 100}, MTIME_NS + 100),
        ({**TAGS, "probe_id": "root"}, {"passed": 0, "iteration": 100}, MTIME_NS + 102),
    ]


def test_a_category_without_scored_probes_makes_no_point() -> None:
    rows = tables(checkpoint_scores=score_rows(WHO, math=(0, 0)))
    assert score_points(rows, [capability_suite()]) == []


def test_capability_judge_has_only_the_dimensions_that_were_scored() -> None:
    judged = [
        *judgement_rows(WHO, "loop", reasoning=7.0, correctness=8.5, clarity=9.0, avg=8.166666666666666),
        *judgement_rows(WHO, "sum", reasoning=3.0, correctness=None, clarity=None, avg=None),
        *judgement_rows(WHO, "root", reasoning=None, correctness=None, clarity=None, avg=None),
    ]
    points = score_points(tables(judgements=judged), [capability_suite()])
    assert [(p.measurement, p.tags, p.fields, p.time_ns) for p in points] == [
        (
            "capability_judge",
            {**TAGS, "probe_id": "sum", "category": "math"},
            {"reasoning": 3.0, "iteration": 100},
            MTIME_NS + 100,
        ),
        (
            "capability_judge",
            {**TAGS, "probe_id": "loop", "category": "math"},
            {"reasoning": 7.0, "correctness": 8.5, "clarity": 9.0, "avg": 8.166666666666666, "iteration": 100},
            MTIME_NS + 101,
        ),
    ]


def test_content_scores_are_means_over_the_scored_probes() -> None:
    who = identity(100, suite="content")
    judged = [
        *judgement_rows(who, "one", truth_telling=4.0, engagement=None, avg=4.0),
        *judgement_rows(who, "two", truth_telling=7.0, engagement=5.0, avg=6.0),
    ]
    rows = tables(who, judgements=judged, checkpoint_scores=[], probe_results=[])
    tags = {**TAGS, "run_id": "g1-lek-content-auto", "has_kernel": "false"}
    assert [(p.measurement, p.tags, p.fields, p.time_ns) for p in score_points(rows, [content_suite()])] == [
        ("content_score", {**tags, "dimension": "truth_telling"}, {"score": 5.5, "iteration": 100}, MTIME_NS + 1),
        ("content_score", {**tags, "dimension": "engagement"}, {"score": 5.0, "iteration": 100}, MTIME_NS + 2),
    ]


def test_the_originals_clock() -> None:
    rows = tables(checkpoint_scores=score_rows(WHO, math=(1, 1)), probe_results=probe_rows(WHO, sum=True))
    times = [p.time_ns for p in score_points(rows, [capability_suite()], "original")]
    # 1739577600 + 100 * 1000 = 1739677600 s; ordinals 0, 1 and 100 in seconds.
    assert times == [1_739_677_600_000_000_000, 1_739_677_601_000_000_000, 1_739_677_700_000_000_000]


def test_a_users_suite_has_a_run_id_of_its_own_and_other_suites_are_left_out() -> None:
    who = identity(100, suite="poems")
    rows = tables(who, checkpoint_scores=score_rows(who, math=(1, 1)))
    assert {p.tags["run_id"] for p in score_points(rows, [capability_suite("poems")])} == {"g1-lek-poems-auto"}
    assert score_points(rows, [capability_suite()]) == []


def test_names_of_an_older_suite_follow_the_known_ones() -> None:
    rows = tables(probe_results=probe_rows(WHO, zebra=True, ant=True, sum=True))
    points = score_points(rows, [capability_suite()])
    assert [(p.tags["probe_id"], p.time_ns - MTIME_NS) for p in points] == [("sum", 100), ("ant", 103), ("zebra", 104)]


def test_points_are_the_same_every_time_whatever_the_order_of_rows() -> None:
    one = tables(probe_results=probe_rows(WHO, sum=True, loop=False, root=True))
    other = one | {"probe_results": one["probe_results"].take([2, 0, 1])}
    assert score_points(one, [capability_suite()]) == score_points(other, [capability_suite()])


def test_several_partitions_at_once_each_with_its_own_clock() -> None:
    later = identity(200)
    one = tables(probe_results=probe_rows(WHO, sum=True))
    two = tables(later, probe_results=probe_rows(later, sum=True))
    two["evaluations"] = pa.Table.from_pylist([evaluation_row(later) | {"checkpoint_mtime_ns": 5}])
    two["evaluations"] = conform(TABLES["evaluations"], key(200), two["evaluations"])
    both = {name: pa.concat_tables([one[name], two[name]]) for name in one}
    assert [p.time_ns for p in score_points(both, [capability_suite()])] == [MTIME_NS + 100, 105]


def test_rows_without_their_evaluation_are_an_error() -> None:
    rows = tables(probe_results=probe_rows(WHO, sum=True)) | {"evaluations": TABLES["evaluations"].schema.empty_table()}
    with pytest.raises(StoreError, match=r"lab\.g1-lek@100, suite capability: table evaluations has no row"):
        score_points(rows, [capability_suite()])


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("plain", "plain"),
        ("G1 lek @0000100", r"G1\ lek\ @0000100"),
        ("a,b=c", r"a\,b\=c"),
        ('say "hi"', r"say\ \"hi\"".replace(r"\"", '"')),
        ("two\nlines\r", r"two\nlines\r"),
        ("back\\", "back\\ "),
        ("ünï", "ünï"),
    ],
)
def test_tags_are_escaped(value: str, written: str) -> None:
    """By the line protocol's rules: comma, equals sign and space of a tag value are escaped, quotes are not."""
    point = ScorePoint("m", "s", {"label": value}, {"score": 1.5, "iteration": 3}, 17)
    assert point.line() == f"m,label={written} iteration=3i,score=1.5 17"


def test_batches_are_one_a_measurement_and_suite() -> None:
    rows = tables(checkpoint_scores=score_rows(WHO, math=(1, 2)), probe_results=probe_rows(WHO, sum=True))
    assert lines_by_batch(score_points(rows, [capability_suite()])) == {
        "capability_score~capability": [
            rf"capability_score,category={category},label=G1-lek\ @0000100,model=gemma-3-1b,"
            rf"run_id=g1-lek-capability-auto accuracy=50,correct=1i,iteration=100i,total=2i {MTIME_NS + i}"
            for i, category in enumerate(("overall", "math"))
        ],
        "probe_score~capability": [
            r"probe_score,label=G1-lek\ @0000100,model=gemma-3-1b,probe_id=sum,run_id=g1-lek-capability-auto "
            rf"iteration=100i,passed=1i {MTIME_NS + 100}"
        ],
    }
