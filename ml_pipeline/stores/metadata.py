"""What Dagster shows of a write: row count, columns with their meanings, where the rows lie, what was sent."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa

from ml_pipeline.stores.influx_buffer import FlushReport
from ml_pipeline.stores.parquet import WriteReceipt
from ml_pipeline.stores.score_store import table_named
from ml_pipeline.stores.table import Table


def table_schema(table: Table) -> dg.TableSchema:
    """The table's columns with their descriptions, which Dagster shows as Markdown."""
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                name=column.name,
                type=str(column.type),
                description=column.description.replace("<", "\\<"),
                constraints=dg.TableColumnConstraints(nullable=column.nullable),
            )
            for column in table.columns
        ]
    )


def table_metadata(table: Table, rows: int, place: str) -> dict[str, dg.MetadataValue]:
    """What every write of a table records: row count, columns, and where the rows lie."""
    return {
        "dagster/row_count": dg.MetadataValue.int(rows),
        "dagster/column_schema": dg.MetadataValue.table_schema(table_schema(table)),
        **place_metadata(place),
    }


def receipt_metadata(receipt: WriteReceipt) -> dict[str, dg.MetadataValue]:
    """What a write of one partition's table records, for an op that yields its own materialisations."""
    metadata = table_metadata(table_named(receipt.table), receipt.rows, receipt.place)
    metadata["size_bytes"] = dg.MetadataValue.int(receipt.size_bytes)
    if receipt.superseded:
        metadata["superseded"] = dg.MetadataValue.path(receipt.superseded)
    return metadata


def whole_metadata(rows: pa.Table, definition: Mapping[str, Any]) -> dict[str, Any]:
    """Row count and columns, these with the meanings that the asset's definition gives them, if it gives any."""
    described = definition.get("dagster/column_schema")
    meanings = {column.name: column.description for column in described.columns} if described else {}
    columns = [dg.TableColumn(field.name, str(field.type), meanings.get(field.name)) for field in rows.schema]
    return {"dagster/row_count": rows.num_rows, "dagster/column_schema": dg.TableSchema(columns)}


def place_metadata(place: str) -> dict[str, dg.MetadataValue]:
    """Where rows lie: a path or an address."""
    uri = place if "://" in place else Path(place).absolute().as_uri()
    return {"path": dg.MetadataValue.path(place), "dagster/uri": dg.MetadataValue.text(uri)}


def flush_metadata(report: FlushReport) -> dict[str, dg.MetadataValue]:
    """What a flush records: points sent, waiting and rejected, and why it stopped, if it did."""
    metadata: dict[str, dg.MetadataValue] = {
        "points_sent": dg.MetadataValue.int(report.sent_points),
        "points_waiting": dg.MetadataValue.int(report.remaining.points),
        "points_rejected": dg.MetadataValue.int(sum(r.lines for r in report.rejected)),
    }
    if report.stopped_because:
        metadata["waiting_because"] = dg.MetadataValue.text(report.stopped_because)
    if report.rejected:
        metadata["rejected_because"] = dg.MetadataValue.text(
            "\n".join(f"{r.batch}: {r.reason}" for r in report.rejected)
        )
    return metadata
