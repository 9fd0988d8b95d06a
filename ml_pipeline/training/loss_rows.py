"""The rows of table training_loss, out of what was stored before and what was read now."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from ml_pipeline.checkpoints.log_reader import LogReading

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class RunIdentity:
    """The columns that every row of one training run shares."""

    partition_key: str
    source: str
    run: str
    run_id: str
    model: str


def merge_rows(
    identity: RunIdentity, stored: Iterable[Mapping[str, Any]], readings: Sequence[LogReading], read_at: datetime
) -> list[Row]:
    """All rows of a run, by kind and iteration; of one iteration printed twice, the later counts.

    Stored rows of a log that was read from its start give way to what is in it now; those of a log that is gone stay.
    """
    stored = list(stored)
    read_anew = {reading.log.path for reading in readings if reading.from_start}
    rows = {(row["kind"], row["iteration"]): dict(row) for row in stored if row["log_file"] not in read_anew}
    # Points are timed from the start of training: once stored it stays, though the file it was taken from may change.
    started = {row["log_id"]: row["started_ns"] for row in stored}
    for reading in readings:
        log_id = reading.position.state.log_id
        for record in reading.records:
            rows[record.kind, record.iteration] = {
                **asdict(identity),
                **asdict(record),
                "log_file": reading.log.path,
                "log_id": log_id,
                "started_ns": started.get(log_id, reading.log.started_ns),
                "read_at": read_at,
            }
    return [rows[key] for key in sorted(rows)]
