"""The same points out of every form in which the versions of InfluxDB export CSV."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ml_pipeline.errors import ImportFileError
from ml_pipeline.history.files import open_records
from ml_pipeline.history.importing import import_file
from ml_pipeline_tests.history.original import stores

LINE_BYTES = 100_000

V1 = """\
name,tags,time,accuracy,category,correct,iteration,label,model,run_id,total
m,,1739577700000000000,25,overall,1,100,"G1-a, b @0000100",gemma,1b-a,4
m,,1739577800000000000,75,overall,3,200,"G1-a, b @0000200",gemma,1b-a,4
"""
GROUPED = """\
name,tags,time,accuracy,correct,iteration,total
m,"category=overall,label=G1-a, b @0000100,model=gemma,run_id=1b-a",1739577700000000000,25,1,100,4
name,tags,time,accuracy,correct,iteration,total
m,"category=overall,label=G1-a, b @0000200,model=gemma,run_id=1b-a",1739577800000000000,75,3,200,4
"""
PIVOTED = """\
#group,false,false,true,true,false,true,true,true,true,true,false,false,false,false
#datatype,string,long,dateTime:RFC3339,dateTime:RFC3339,dateTime:RFC3339,string,string,string,string,string,double,long,long,long
#default,_result,,,,,,,,gemma,,,,,
,result,table,_start,_stop,_time,_measurement,category,label,model,run_id,accuracy,correct,iteration,total
,,0,2025-01-01,2026-01-01,2025-02-15T00:01:40Z,m,overall,"G1-a, b @0000100",,1b-a,25,1,100,4

#group,false,false,true,true,false,true,true,true,true,true,false,false,false,false
#datatype,string,long,dateTime:RFC3339,dateTime:RFC3339,dateTime:RFC3339,string,string,string,string,string,long,double,long,long
#default,_result,,,,,,,,,,,,,
,result,table,_start,_stop,_time,_measurement,category,label,model,run_id,total,accuracy,iteration,correct
,,1,2025-01-01,2026-01-01,2025-02-15T00:03:20Z,m,overall,"G1-a, b @0000200",gemma,1b-a,4,75,200,3
"""
# fmt: off
_TAGS = {"100": 'm,overall,"G1-a, b @0000100",gemma,1b-a',
         "200": 'm,overall,"G1-a, b @0000200",gemma,1b-a'}
_POINTS = {"100": ("2025-02-15T00:01:40Z", {"accuracy": "25", "correct": "1", "iteration": "100", "total": "4"}),
           "200": ("2025-02-15T00:03:20Z", {"accuracy": "75", "correct": "3", "iteration": "200", "total": "4"})}
# fmt: on


def long_form(*, annotated: bool) -> str:
    """One field a row, a table for each field, as Flux gives it without pivot()."""
    rows, kinds = [], {"accuracy": "double"}
    for number, name in enumerate(("accuracy", "correct", "iteration", "total")):
        if annotated:
            rows += ["#group,false,false,true,true,true,true,true,true,false,false",
                     f"#datatype,string,long,{'string,' * 6}{kinds.get(name, 'long')},dateTime:RFC3339",
                     "#default,_result,,,,,,,,,"]  # fmt: skip
        rows.append(",result,table,_measurement,category,label,model,run_id,_field,_value,_time")
        result = "" if annotated else "_result"
        for point, (time, fields) in _POINTS.items():
            rows.append(f",{result},{number},{_TAGS[point]},{name},{fields[name]},{time}")
        rows.append("")
    return "\r\n".join(rows) + "\r\n"


EXPORTS = {
    "1.x": V1,
    "1.x grouped": GROUPED,
    "2.x pivoted": PIVOTED,
    "2.x long": long_form(annotated=True),
    "2.x long without annotations": long_form(annotated=False),
}


def imported(folder: Path, text: str) -> list[dict[str, Any]]:
    store = stores(folder)
    (folder / "export.csv").write_text(text, encoding="utf-8", newline="")
    report = import_file(store, folder / "export.csv", line_bytes=LINE_BYTES)
    assert (report.bad_lines, report.problems) == (0, [])
    columns = "partition_key, label, model, run_id, iteration, category, correct, total, accuracy, scored_at"
    found: list[dict[str, Any]] = store.duckdb.query(
        f"SELECT {columns} FROM checkpoint_scores ORDER BY iteration"
    ).to_pylist()
    return found


@pytest.mark.parametrize("name", EXPORTS)
def test_every_form_gives_the_same_scores(name: str, tmp_path: Path) -> None:
    found = imported(tmp_path, EXPORTS[name])
    assert [(row["iteration"], row["correct"], row["total"], row["accuracy"]) for row in found] == [
        (100, 1, 4, 0.25),
        (200, 3, 4, 0.75),
    ]
    (tmp_path / "plain").mkdir()
    assert found == imported(tmp_path / "plain", V1)


def test_a_point_of_which_fields_are_missing_names_flux(tmp_path: Path) -> None:
    text = "\n".join(line for line in long_form(annotated=True).splitlines() if ",total," not in line)
    (tmp_path / "export.csv").write_text(text)
    with pytest.raises(ImportFileError, match=r"a point of Flux, put together out of .*: is no score"):
        import_file(stores(tmp_path), tmp_path / "export.csv", line_bytes=LINE_BYTES)


def records(tmp_path: Path, text: str) -> tuple[list[dict[str, Any]], list[str]]:
    (tmp_path / "export.csv").write_text(text)
    opened = open_records(tmp_path / "export.csv", LINE_BYTES)
    return [fields for _, fields in opened], opened.problems


def test_two_values_for_one_field_of_a_point_are_told(tmp_path: Path) -> None:
    header = ",result,table,label,_field,_value,_time\n"
    found, problems = records(tmp_path, header + ",,0,a,total,4,t\n,,0,a,total,4,t\n,,0,a,total,5,t\n")
    assert found == [{"label": "a", "time": "t", "total": "4"}]
    assert "export.csv:4: " in problems[0]
    assert "'total' of this point is also '4'" in problems[0]


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("label=a,model=m", {"label": "a", "model": "m"}),
        ("label=a=b", {"label": "a=b"}),
        ("label=a, b,model=m", {"label": "a, b", "model": "m"}),
        ("label=,model=m", {"model": "m"}),
        ("label=a,1b=c", {"label": "a,1b=c"}),
    ],
)
def test_tags_in_one_cell_become_columns(cell: str, expected: dict[str, str], tmp_path: Path) -> None:
    found, problems = records(tmp_path, f'name,tags,time,total\nm1,"{cell}",7,4\n')
    assert problems == []
    assert found == [{"name": "m1", "time": "7", "total": "4"} | expected]


@pytest.mark.parametrize("cell", ["total=4,label=a", "label=a,label=b", "1=a"])
def test_tags_that_cannot_be_told_apart_are_refused(cell: str, tmp_path: Path) -> None:
    found, (problem,) = records(tmp_path, f'name,tags,time,total\nm1,"{cell}",7,4\n')
    assert found == []
    assert "GROUP BY" in problem


def test_a_column_called_tags_of_others_stays(tmp_path: Path) -> None:
    assert records(tmp_path, "label,tags\na,x=y\n")[0] == [{"label": "a", "tags": "x=y"}]
