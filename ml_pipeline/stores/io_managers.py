"""Dagster's side of the stores: IO managers over the same writers that an op calls directly.

An asset's table is the one of its name in tables.py. An unpartitioned asset may have any columns and is replaced
whole. An op that scores many partitions calls `store().write_partition(...)`, and yields its own
AssetMaterializations with `receipt_metadata(...)`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pyarrow as pa

from ml_pipeline.errors import StoreError
from ml_pipeline.settings import InfluxSettings
from ml_pipeline.stores.duckdb import DuckDBStore
from ml_pipeline.stores.influx import make_sender
from ml_pipeline.stores.influx_buffer import FlushReport, InfluxBuffer
from ml_pipeline.stores.influx_sending import LineSender
from ml_pipeline.stores.parquet import ParquetStore, WriteReceipt
from ml_pipeline.stores.points import ScorePoint, lines_by_batch
from ml_pipeline.stores.score_store import ScoreStore, table_named
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


def table_metadata(table: Table, rows: int, path: Path) -> dict[str, dg.MetadataValue]:
    """What every write of a table records: row count, columns, and where the rows lie."""
    return {
        "dagster/row_count": dg.MetadataValue.int(rows),
        "dagster/column_schema": dg.MetadataValue.table_schema(table_schema(table)),
        **_place(path),
    }


def receipt_metadata(receipt: WriteReceipt) -> dict[str, dg.MetadataValue]:
    """What a write of one partition's table records, for an op that yields its own materialisations."""
    metadata = table_metadata(table_named(receipt.table), receipt.rows, receipt.path)
    metadata["size_bytes"] = dg.MetadataValue.int(receipt.size_bytes)
    if receipt.superseded:
        metadata["superseded"] = dg.MetadataValue.path(receipt.superseded)
    return metadata


class _TableIOManager(dg.ConfigurableIOManager):
    """What both kinds of table share: finding the table, the partitions and the form that the reader wants."""

    @abstractmethod
    def _write(self, table: Table, partition_key: str, rows: pa.Table) -> Mapping[str, dg.MetadataValue]:
        """Store one partition and say what is to be recorded of it."""

    @abstractmethod
    def _write_whole(self, name: str, rows: pa.Table) -> Path:
        """Store an unpartitioned asset and say where."""

    @abstractmethod
    def _read(self, table: Table, partition_keys: Sequence[str]) -> pa.Table:
        """The rows of those partitions that are stored."""

    @abstractmethod
    def _read_whole(self, name: str) -> pa.Table:
        """The rows of an unpartitioned asset."""

    @abstractmethod
    def _parquet(self) -> ParquetStore:
        """The files, which know what partitions there are."""

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        """Store a pyarrow.Table or pandas.DataFrame: one partition of its asset, or a whole asset without partitions.

        Raises:
            StoreError: another type, several partitions at once, or rows that do not fit.
        """
        name = context.asset_key.path[-1]
        rows = _as_arrow(name, obj)
        if not context.has_asset_partitions:
            path = self._write_whole(name, rows)
            context.add_output_metadata({**_whole_metadata(rows, context.definition_metadata), **_place(path)})
            return
        keys = context.asset_partition_keys
        if len(keys) != 1:
            raise StoreError(
                f"asset {name}: one output holds {len(keys)} partitions. Call write_partition for each as it finishes, "
                "and yield an AssetMaterialization for it, so that one that fails does not take the others with it."
            )
        context.add_output_metadata({**self._write(table_named(name), keys[0], rows)})

    def load_input(self, context: dg.InputContext) -> pa.Table | pd.DataFrame:
        """The rows as a pyarrow.Table, or as a pandas.DataFrame where the parameter is annotated so.

        Of many partitions, those that were never stored are left out (a checkpoint that cannot be scored must not
        hide the others); a single one that was never stored is an error.

        Raises:
            StoreError: the partition or asset was never stored, or a file is damaged.
        """
        name = context.asset_key.path[-1]
        if not context.has_asset_partitions:
            rows = self._read_whole(name)
        else:
            table, keys = table_named(name), list(context.asset_partition_keys)
            stored = set(self._parquet().partitions(table))
            missing = [key for key in keys if key not in stored]
            if missing and len(keys) == 1:
                raise StoreError(f"{name} has no partition {keys[0]!r}. Materialise it first.")
            if missing:
                context.log.info(f"{name}: {len(missing)} of {len(keys)} partitions are not stored, and left out")
            rows = self._read(table, [key for key in keys if key in stored])
        return rows.to_pandas() if context.dagster_type.typing_type is pd.DataFrame else rows


class ParquetIOManager(_TableIOManager):
    """Stores assets as Parquet files below `folder`, and nowhere else."""

    folder: str

    def _parquet(self) -> ParquetStore:
        return ParquetStore(Path(self.folder))

    def _write(self, table: Table, partition_key: str, rows: pa.Table) -> Mapping[str, dg.MetadataValue]:
        return receipt_metadata(self._parquet().write(table, partition_key, rows))

    def _write_whole(self, name: str, rows: pa.Table) -> Path:
        return self._parquet().write_whole(name, rows)

    def _read(self, table: Table, partition_keys: Sequence[str]) -> pa.Table:
        return self._parquet().read_all(table, partition_keys)

    def _read_whole(self, name: str) -> pa.Table:
        return self._parquet().read_whole(name)


class DuckDBIOManager(_TableIOManager):
    """Stores partitioned assets as Parquet files below `folder` and in the database `path`; reads the database.

    Unpartitioned assets, which can be made again, are kept in the database alone.
    """

    path: str
    folder: str
    lock_timeout_s: float = 60.0

    def store(self) -> ScoreStore:
        """The writer, for an op that stores partition after partition itself."""
        return ScoreStore(self._parquet(), DuckDBStore(Path(self.path), self.lock_timeout_s))

    def _parquet(self) -> ParquetStore:
        return ParquetStore(Path(self.folder))

    def _write(self, table: Table, partition_key: str, rows: pa.Table) -> Mapping[str, dg.MetadataValue]:
        (receipt,) = self.store().write_partition(partition_key, {table.name: rows})
        return {**receipt_metadata(receipt), "database": dg.MetadataValue.path(self.path)}

    def _write_whole(self, name: str, rows: pa.Table) -> Path:
        self.store().duckdb.write_whole(name, rows)
        return Path(self.path)

    def _read(self, table: Table, partition_keys: Sequence[str]) -> pa.Table:
        return self.store().duckdb.read(table.name, partition_keys)

    def _read_whole(self, name: str) -> pa.Table:
        return self.store().duckdb.read(name)


class InfluxIOManager(dg.ConfigurableIOManager):
    """Puts points into the durable buffer in `buffer_folder`, and sends what waits if a URL is set.

    The token is read from the environment or its file when points are sent; it is no part of the configuration, so
    that no run shows it. A server that is away does not fail the run: its points wait.
    """

    buffer_folder: str
    url: str | None = None
    api: str = "v2"
    org: str = ""
    bucket: str = "ml_pipeline"
    token_env: str = "INFLUX_TOKEN"
    token_file: str = "~/.influx_token"
    timeout_s: float = 10.0
    buffer_bytes: int = 256 * 1024 * 1024
    buffer_wait_s: float = 60.0

    def buffer(self) -> InfluxBuffer:
        """The buffer. Without a server nobody waits for room: none would come."""
        return InfluxBuffer(Path(self.buffer_folder), self.buffer_bytes, self.buffer_wait_s if self.url else 0)

    def sender(self) -> LineSender | None:
        """The sender to the configured server; None without a URL.

        Raises:
            StoreError: the token cannot be used.
        """
        shared = InfluxSettings.model_fields.keys() & type(self).model_fields.keys()
        return make_sender(InfluxSettings.model_validate({name: getattr(self, name) for name in shared}))

    def keep(self, partition_key: str, points: Sequence[ScorePoint]) -> None:
        """Keep one partition's points, to be sent with the next that are written; a full buffer is flushed for room.

        Raises:
            StoreError, StoreFullError: the buffer cannot take them; nothing was dropped.
        """
        buffer = self.buffer()
        for batch, lines in lines_by_batch(points).items():
            buffer.add(partition_key, batch, lines, make_room=self.flush)

    def flush(self) -> FlushReport:
        """Send all that waits, if a URL is set; raises StoreError where the buffer or the token cannot be used."""
        buffer, sender = self.buffer(), self.sender()
        if sender is None:
            return FlushReport(0, 0, buffer.pending(), (), "no stores.influx.url is set; points wait in the buffer")
        return buffer.flush(sender)

    def write_partition(self, partition_key: str, points: Sequence[ScorePoint]) -> FlushReport:
        """Keep one partition's points, all suites of it, and send all that waits; raises as `keep`."""
        self.keep(partition_key, points)
        return self.flush()

    def handle_output(self, context: dg.OutputContext, obj: Sequence[ScorePoint]) -> None:
        """Keep the points of one partition and send what waits.

        Raises:
            StoreError: not one partition, or the buffer cannot take them.
        """
        keys = context.asset_partition_keys if context.has_asset_partitions else []
        if len(keys) != 1:
            raise StoreError(
                f"asset {context.asset_key.path[-1]}: points are stored for one partition at a time, not {len(keys)}. "
                "Call write_partition for each."
            )
        report = self.write_partition(keys[0], obj)
        context.add_output_metadata({"points": dg.MetadataValue.int(len(obj)), **flush_metadata(report)})

    def load_input(self, context: dg.InputContext) -> Any:
        """Points are for dashboards and are not read back.

        Raises:
            StoreError: always; it names the tables to depend on.
        """
        raise StoreError(
            f"asset {context.asset_key.path[-1]} cannot be loaded: its points went to Influx. Depend on the tables "
            "that they were made from (checkpoint_scores, probe_results, judgements), or use `deps=` for order alone."
        )


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


def _as_arrow(name: str, obj: Any) -> pa.Table:
    if isinstance(obj, pa.Table):
        return obj
    if isinstance(obj, pd.DataFrame):
        return pa.Table.from_pandas(obj, preserve_index=False).replace_schema_metadata(None)
    raise StoreError(
        f"asset {name} returned a {type(obj).__name__}, which cannot be stored as a table. Return a pyarrow.Table or a "
        "pandas.DataFrame."
    )


def _whole_metadata(rows: pa.Table, definition: Mapping[str, Any]) -> dict[str, Any]:
    """Row count and columns, these with the meanings that the asset's definition gives them, if it gives any."""
    described = definition.get("dagster/column_schema")
    meanings = {column.name: column.description for column in described.columns} if described else {}
    columns = [dg.TableColumn(field.name, str(field.type), meanings.get(field.name)) for field in rows.schema]
    return {"dagster/row_count": rows.num_rows, "dagster/column_schema": dg.TableSchema(columns)}


def _place(path: Path) -> dict[str, dg.MetadataValue]:
    return {"path": dg.MetadataValue.path(path), "dagster/uri": dg.MetadataValue.text(path.absolute().as_uri())}
