"""The table of what was imported: where each row comes from that this program did not measure."""

from __future__ import annotations

from ml_pipeline.stores.columns import INT, TEXT, TIME
from ml_pipeline.stores.table import Column, Table

IMPORTS = Table(
    "imports",
    "Where every imported row of the other tables comes from, one row for each.",
    (
        Column("partition_key", TEXT, "The imported checkpoint's partition: imported.<run>@<iteration>."),
        Column("suite", TEXT, "Name of the suite."),
        Column("table_name", TEXT, "The table that the imported row is in."),
        Column("row_key", TEXT, "What names it there within checkpoint and suite, as a JSON list."),
        Column("evaluation_id", TEXT, "The evaluation id of the imported row."),
        Column("run_id", TEXT, "The run as the original wrote it."),
        Column("label", TEXT, "The checkpoint's label as the original wrote it."),
        Column("file", TEXT, "Name of the file that it was imported from."),
        Column("file_sha256", TEXT, "Hash of that file's content."),
        Column("kind", TEXT, "What kind of file or table that was."),
        Column("line", INT, "Line of the file, or row of its table, from 1."),
        Column("recorded_at", TIME, "When the original scored it, where it recorded that.", nullable=True),
        Column("not_recorded", TEXT, "Columns that are empty since the original did not record them, and why."),
        Column("imported_at", TIME, "When it was imported (UTC)."),
    ),
    key=("partition_key", "suite", "table_name", "row_key"),
    version="file_sha256",
    made_at="imported_at",
)
