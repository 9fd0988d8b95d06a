"""Imports what the original left: the rows of its files, merged with what was imported before, into the stores.

An imported checkpoint is a partition of its own, `imported.<run>@<iteration>`: it never shares one, nor an evaluation
id or a protocol, with what this program measured.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ml_pipeline.checkpoints.checkpoint import Checkpoint
from ml_pipeline.checkpoints.naming import partition_key
from ml_pipeline.errors import CheckpointError, ImportFileError
from ml_pipeline.history.files import open_records
from ml_pipeline.history.losses import LOSS_FIELDS, LOSS_KIND, PastLoss, past_loss, store_losses
from ml_pipeline.history.past import NOT_RECORDED, PastRow
from ml_pipeline.history.records import KINDS, NOT_SAID, Whose, kind_of
from ml_pipeline.json_lines import shown_name
from ml_pipeline.settings import IMPORTED_SOURCE
from ml_pipeline.stores.import_table import IMPORTS
from ml_pipeline.stores.parquet import ParquetStore
from ml_pipeline.stores.rows import Rows
from ml_pipeline.stores.score_store import ScoreStore
from ml_pipeline.stores.tables import CHECKPOINT_SCORES, TABLES

_CHECKPOINTS_AT_ONCE = 100
"""Written in one opening of the database, which takes longer than the rows of a checkpoint do."""
Row = dict[str, Any]
RowKey = tuple[str, str, tuple[str, ...]]
"""Suite, table, and what names the row there."""
Mirrored = tuple[int, datetime]
"""Rows of `imports`, and when the newest of them was imported."""


@dataclass
class ImportReport:
    """What came of importing one file: how many rows of each kind it holds, and what became of them."""

    file: str
    kinds: Counter[str] = field(default_factory=Counter)
    new: int = 0
    replaced: int = 0
    known: int = 0
    checkpoints: int = 0
    bad_lines: int = 0
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Found:
    """A row of the file: where, and of what kind."""

    row: PastRow
    line: int
    kind: str


def import_file(
    store: ScoreStore,
    path: Path,
    *,
    line_bytes: int,
    whose: Whose = NOT_SAID,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> ImportReport:
    """Import one file of the original's. Importing it again changes nothing.

    Of two rows for the same figure the one recorded later stays, else the one imported first. `progress` is told the
    checkpoints done and in all. A killed import is finished by doing it again.

    Raises:
        ImportFileError: the file cannot be read, or is of no known kind. Nothing was imported.
        StoreError: checkpoints' rows could not be written; those before them are stored.
    """
    records = open_records(path, line_bytes)
    report = ImportReport(shown_name(path))
    by_checkpoint: dict[str, dict[RowKey, _Found]] = {}
    losses: dict[str, list[PastLoss]] = {}
    for number, fields in records:
        try:
            if set(fields) >= LOSS_FIELDS:
                loss = past_loss(fields)
                losses.setdefault(loss.partition_key, []).append(loss)
                report.kinds[LOSS_KIND] += 1
                continue
            kind = kind_of(fields)
            if kind is None:
                raise ValueError(f"is no score of the original; it has {', '.join(map(ascii, list(fields)[:12]))}")
            rows = kind.rows(fields, whose)
            keys = [row.partition_key for row in rows]
        except (ValueError, CheckpointError) as error:
            records.refuse(number, error)
            continue
        report.kinds[kind.name] += len(rows)
        for key, row in zip(keys, rows, strict=True):
            _keep_newer(by_checkpoint.setdefault(key, {}), _Found(row, number, kind.name))
    report.bad_lines, report.problems = records.bad_lines, records.problems
    if not by_checkpoint and not losses:
        raise ImportFileError.from_problems(
            str(path),
            report.problems or ["it holds no score"],
            f"Known are: {', '.join(dict.fromkeys([*(kind.name for kind in KINDS), LOSS_KIND]))}.",
        )
    mirrored = _mirrored(store)
    counts = store_losses(store, losses, report.file)
    report.new, report.replaced, report.known = counts.new, counts.replaced, counts.known
    checkpoints = sorted(by_checkpoint.items())
    for start in range(0, len(checkpoints), _CHECKPOINTS_AT_ONCE):
        changed: dict[str, dict[str, Rows]] = {}
        for key, found in checkpoints[start : start + _CHECKPOINTS_AT_ONCE]:
            if tables := _merged(store.parquet, key, found, records.sha256, report, mirrored.get(key)):
                changed[key] = tables
        if changed:
            store.write_partitions(changed)
        report.checkpoints += len(changed)
        progress(min(start + _CHECKPOINTS_AT_ONCE, len(checkpoints)), len(checkpoints))
    return report


class ImportedCheckpoints:
    """Checkpoints that the original scored, as far as that was imported."""

    def __init__(self, parquet: ParquetStore) -> None:
        # Like the original, it takes a checkpoint for scored whose accuracy is known.
        self._keys = {key for key in parquet.partitions(CHECKPOINT_SCORES) if key.startswith(f"{IMPORTED_SOURCE}.")}

    def __contains__(self, checkpoint: Checkpoint) -> bool:
        """Whether the run's name, as a run id has it, and the iteration are those of one."""
        if checkpoint.is_base or not self._keys:
            return False
        try:
            return partition_key(IMPORTED_SOURCE, checkpoint.run_id, checkpoint.iteration) in self._keys
        except CheckpointError:  # a name too long to have been imported
            return False


def _keep_newer(rows: dict[RowKey, _Found], found: _Found) -> None:
    row = found.row
    key = (row.suite, row.table, row.key)
    if key not in rows or _is_newer(row.recorded_at, rows[key].row.recorded_at):
        rows[key] = found


def _is_newer(new: datetime | None, old: datetime | None) -> bool:
    return new is not None and (old is None or new > old)


def _mirrored(store: ScoreStore) -> dict[str, Mirrored]:
    """How much of each imported checkpoint the database has, by partition."""
    store.duckdb.migrate()
    rows = store.duckdb.query(f"SELECT partition_key, count(*), max(imported_at) FROM {IMPORTS.name} GROUP BY ALL")
    return {key: (count, newest) for key, count, newest in zip(*rows.to_pydict().values(), strict=True)}


def _merged(
    parquet: ParquetStore,
    partition: str,
    found: Mapping[RowKey, _Found],
    sha256: str,
    report: ImportReport,
    mirrored: Mirrored | None,
) -> dict[str, Rows]:
    """The tables of one checkpoint that the file changes, or that a killed import left out of the database."""
    now = datetime.now(UTC)
    origins = {_origin_key(row): row for row in _stored(parquet, IMPORTS.name, partition)}
    tables = {name: _stored(parquet, name, partition) for name in NOT_RECORDED}
    stored = {_row_key(name, row): row for name, rows in tables.items() for row in rows}
    # Files write one checkpoint's label in several ways, and its rows go by one.
    label = next((row["label"] for row in stored.values()), None) or next(iter(found.values())).row.label
    changed: set[str] = set()
    if origins and mirrored != (len(origins), max(row["imported_at"] for row in origins.values())):
        changed |= {table for _, table, _ in stored}
    for key, one in found.items():
        row = one.row
        origin = origins.get(key) if key in stored else None
        if origin is not None and not _is_newer(row.recorded_at, origin["recorded_at"]):
            report.known += 1
            continue
        report.new += origin is None
        report.replaced += origin is not None
        changed.add(row.table)
        stored[key] = row.columns(row.recorded_at or now) | {"label": label}
        origins[key] = _origin(one, report.file, sha256, now)
    if not changed:
        return {}
    tables_changed: dict[str, Rows] = {
        name: [row for (_, table, _), row in stored.items() if table == name] for name in sorted(changed)
    }
    # Last, so that rows whose origin was not written count as not imported yet.
    return {**tables_changed, IMPORTS.name: list(origins.values())}


def _origin(one: _Found, file: str, sha256: str, now: datetime) -> Row:
    row = one.row
    when = "" if row.recorded_at else " scored_at is when it was imported: the original did not say when it scored."
    return {
        "partition_key": row.partition_key,
        "suite": row.suite,
        "table_name": row.table,
        "row_key": json.dumps(row.key),
        "evaluation_id": row.evaluation_id,
        "run_id": row.run_id,
        "label": row.label,
        "file": file,
        "file_sha256": sha256,
        "kind": one.kind,
        "line": one.line,
        "recorded_at": row.recorded_at,
        "not_recorded": NOT_RECORDED[row.table] + when,
        "imported_at": now,
    }


def _origin_key(row: Mapping[str, Any]) -> RowKey:
    return row["suite"], row["table_name"], tuple(json.loads(row["row_key"]))


def _row_key(table: str, row: Mapping[str, Any]) -> RowKey:
    own: Sequence[str] = [name for name in TABLES[table].key if name not in ("partition_key", "suite", "sample")]
    return row["suite"], table, tuple(row[name] for name in own)


def _stored(parquet: ParquetStore, table: str, partition: str) -> Iterable[Row]:
    if not parquet.has(TABLES[table], partition):
        return []
    rows: list[Row] = parquet.read(TABLES[table], partition).to_pylist()
    return rows
