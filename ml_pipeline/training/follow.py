"""Brings the stored losses of a training run up to what its logs say now."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from ml_pipeline.checkpoints.log_files import logs_of_run
from ml_pipeline.checkpoints.log_reader import LogReading, check_count, read_logs
from ml_pipeline.checkpoints.naming import parse_run_partition_key, run_id, run_name
from ml_pipeline.checkpoints.source import Source
from ml_pipeline.errors import CheckpointError
from ml_pipeline.settings import Settings
from ml_pipeline.stores.parquet import WriteReceipt
from ml_pipeline.stores.points import Row, ScorePoint
from ml_pipeline.stores.score_store import ScoreStore
from ml_pipeline.stores.tables import TRAINING_LOSS
from ml_pipeline.stores.training_points import loss_batch, training_points
from ml_pipeline.training.loss_rows import RunIdentity, merge_rows
from ml_pipeline.training.positions import LogPositions

Send = Callable[[Sequence[ScorePoint], Sequence[str]], None]
"""Sends points; the batches (by name) in the second argument have none any more."""


@dataclass(frozen=True, slots=True)
class FollowedRun:
    """What one look at a run's logs came to.

    `rows` are all of the run's; `new_rows` counts those that were read now. `points` are those to send: of every
    batch in which something is new. `problems` did not keep the rest from being read.
    """

    receipt: WriteReceipt
    rows: Sequence[Row]
    new_rows: int
    points: Sequence[ScorePoint]
    problems: Sequence[str]


class LogFollower:
    """Follows the logs of training runs.

    The order of writing makes a crash harmless at any moment: rows, then points, then the position in the log. What
    was not yet noted as read is read again, and gives the same rows and points.
    """

    def __init__(self, settings: Settings, store: ScoreStore, source: Callable[[str], Source]) -> None:
        self._settings = settings
        self._store = store
        self._source = source
        self._positions = LogPositions(settings.log_positions_path)

    def follow(
        self,
        partition_key: str,
        send: Send,
        *,
        from_start: bool = False,
    ) -> FollowedRun | None:
        """Read what was added to the run's logs (or all of them), store it, and `send` its points.

        Returns None when nothing was added.

        Raises:
            CheckpointError: the run, its source or a log cannot be read, or (from the start) no log holds a loss.
            StoreError: something cannot be stored, or `send` failed.
        """
        source_name, run = parse_run_partition_key(partition_key)
        if source_name not in self._settings.sources:
            raise CheckpointError(f"{partition_key}: there is no source {source_name!r} in pipeline.yaml any more.")
        source = self._source(source_name)
        found = logs_of_run(source, run)
        parquet = self._store.parquet
        stored_sha256 = parquet.sha256(TRAINING_LOSS, partition_key)
        positions = {} if from_start else self._positions.load(partition_key, stored_sha256)
        readings = read_logs(source, found.logs, positions, self._settings.limits.training_log_bytes)
        if not readings and from_start:
            raise CheckpointError(
                f"{partition_key}: no file beside its adapters holds a loss. Have mlx-lm's output written there, as "
                "`mlx_lm.lora ... > training.log`, then materialise this partition again."
            )
        new = {(record.kind, record.iteration) for reading in readings for record in reading.records}
        if not new:
            return None
        stored = parquet.read(TRAINING_LOSS, partition_key).to_pylist() if stored_sha256 else []
        rows = merge_rows(self._identity(partition_key, source_name, run), stored, readings, datetime.now(UTC))
        check_count(len(rows), partition_key)
        (receipt,) = self._store.write_partition(partition_key, {TRAINING_LOSS.name: rows})
        changed = {loss_batch(*key) for key in new}
        points = training_points(
            (row for row in rows if loss_batch(row["kind"], row["iteration"]) in changed),
            self._settings.stores.influx.time_base,
        )
        send(points, sorted(_batches(stored) - _batches(rows)))
        positions = {**positions, **{reading.log.path: reading.position for reading in readings}}
        self._positions.save(partition_key, receipt.sha256, positions)
        return FollowedRun(receipt, rows, len(new), points, [*found.problems, *_unread(readings)])

    def _identity(self, partition_key: str, source: str, run: str) -> RunIdentity:
        return RunIdentity(partition_key, source, run, run_id(run), run_name(run, self._settings.families).model)


def _batches(rows: Iterable[Row]) -> set[str]:
    return {loss_batch(row["kind"], row["iteration"]) for row in rows if row["loss"] is not None}


def _unread(readings: Sequence[LogReading]) -> list[str]:
    return [
        f"source {reading.log.source}: the last {reading.unread_bytes} bytes of {reading.log.path!r} are not read: a "
        "log may have limits.training_log_bytes. Raise the limit in pipeline.yaml if this is a log."
        for reading in readings
        if reading.unread_bytes
    ]
