"""Metadata for the UI: typed values, and what models wrote cannot break the page."""

from __future__ import annotations

import dagster as dg

from ml_pipeline.assets.metadata import fact_value, markdown_table


def test_values_keep_their_types() -> None:
    assert fact_value(True) == dg.MetadataValue.bool(True)
    assert fact_value(3) == dg.MetadataValue.int(3)
    assert fact_value(0.5) == dg.MetadataValue.float(0.5)
    assert fact_value("x") == dg.MetadataValue.text("x")
    assert isinstance(fact_value([{"a": 1}]), dg.MarkdownMetadataValue)


def test_a_table_cell_cannot_be_broken_out_of() -> None:
    hostile = "<script>alert(1)</script> | [x](javascript:y)\n\n# head `code` ![i](http://x)"
    table = markdown_table([{"answer": hostile, "count": 0.123456, "none": None}])
    lines = table.splitlines()
    assert lines[0] == "| answer | count | none |"
    assert len(lines) == 3
    cell = lines[2]
    assert cell.replace("\\|", "").count("|") == 4
    for sign in "<[`#!":
        assert cell.count(sign) == cell.count(f"\\{sign}")
    assert cell.endswith("| 0.123 |  |")


def test_long_answers_are_shortened() -> None:
    assert len(markdown_table([{"answer": "x" * 10_000}])) < 600


def test_no_rows_say_so() -> None:
    assert markdown_table([]) == "none"
