"""What the UI shows beside each materialisation: typed values, small tables, and a link to where the rows lie."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import dagster as dg

from ml_pipeline.evaluation.evaluator import StageResult
from ml_pipeline.stores.io_managers import receipt_metadata
from ml_pipeline.stores.parquet import WriteReceipt

_TEXT_LIMIT = 400
_DECIMALS = 4  # the tables have every digit


def stage_metadata(result: StageResult, receipts: Iterable[WriteReceipt]) -> dict[str, dg.MetadataValue[Any]]:
    """A stage's facts as Dagster metadata, with where and how many of its rows were stored."""
    metadata = {name: fact_value(value) for name, value in result.facts.items()}
    for receipt in receipts:
        if receipt.table == result.stage:
            metadata |= receipt_metadata(receipt)
    return metadata


def fact_value(value: object) -> dg.MetadataValue[Any]:
    """The Dagster metadata value of a plain Python value; a list of rows becomes a Markdown table."""
    if isinstance(value, bool):
        return dg.MetadataValue.bool(value)
    if isinstance(value, int):
        return dg.MetadataValue.int(value)
    if isinstance(value, float):
        return dg.MetadataValue.float(round(value, _DECIMALS))
    if isinstance(value, list):
        return dg.MetadataValue.md(markdown_table(value))
    return dg.MetadataValue.text(str(value))


def markdown_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as a Markdown table; what models wrote is shortened and cannot break out of its cell."""
    if not rows:
        return "none"
    names = list(rows[0])
    lines = ["| " + " | ".join(names) + " |", "|" + " --- |" * len(names)]
    lines += ["| " + " | ".join(_cell(row[name]) for name in names) + " |" for row in rows]
    return "\n".join(lines)


def _cell(value: object) -> str:
    text = f"{value:.3g}" if isinstance(value, float) else "" if value is None else str(value)
    text = " ".join(text[:_TEXT_LIMIT].split())
    for sign in "\\`*_[]<>|#!":
        text = text.replace(sign, "\\" + sign)
    return text
