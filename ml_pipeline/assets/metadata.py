"""What the UI shows beside each materialisation: typed values, small tables, and a link to where the rows lie."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import dagster as dg

from ml_pipeline.assets.lineage import lineage_metadata
from ml_pipeline.evaluation.evaluator import StageResult
from ml_pipeline.markdown import markdown_text
from ml_pipeline.settings import Settings
from ml_pipeline.stores.metadata import receipt_metadata
from ml_pipeline.stores.parquet import WriteReceipt
from ml_pipeline.stores.score_store import table_named

_TEXT_LIMIT = 400
_DECIMALS = 4  # the tables have every digit


def stage_metadata(result: StageResult, receipts: Iterable[WriteReceipt]) -> dict[str, dg.MetadataValue[Any]]:
    """A stage's facts as Dagster metadata, with where and how many of its rows were stored."""
    metadata = {name: fact_value(value) for name, value in result.facts.items()}
    for receipt in receipts:
        if receipt.table == result.stage:
            columns = [column.name for column in table_named(receipt.table).columns]
            metadata |= {**receipt_metadata(receipt), **lineage_metadata(receipt.table, columns)}
    return metadata


def described_columns(columns: Sequence[str], meanings: Mapping[str, str]) -> dg.TableSchema:
    """The columns of an unpartitioned table with their meanings, which Dagster shows as Markdown; their types stand
    with what was made."""
    return dg.TableSchema([dg.TableColumn(name, description=meanings[name].replace("<", "\\<")) for name in columns])


def report_link(settings: Settings) -> dg.MetadataValue[Any]:
    """Where the report is: its address where it is served, else its path, since browsers open no file from a page."""
    link = settings.links.report
    return dg.MetadataValue.url(link) if link else dg.MetadataValue.path(settings.report_path)


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


def markdown_list(lines: Sequence[str]) -> dg.MarkdownMetadataValue:
    """Messages as paragraphs that show as the text that they are."""
    return dg.MetadataValue.md("\n\n".join(map(markdown_text, lines)) or "none")


def markdown_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as a Markdown table; what models, hosts and files wrote is shortened and shows as the text that it is."""
    if not rows:
        return "none"
    names = list(rows[0])
    lines = ["| " + " | ".join(map(markdown_text, names)) + " |", "|" + " --- |" * len(names)]
    lines += ["| " + " | ".join(_cell(row[name]) for name in names) + " |" for row in rows]
    return "\n".join(lines)


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.3g}" if isinstance(value, float) else markdown_text(value, _TEXT_LIMIT)
