"""Why a checkpoint could not be scored, as rows of the table `failures`.

A row stands for the newest attempt, and goes with the first later one that makes what failed. Dagster's own records
say the same, but go when they are pruned, and are not there for notebooks, reports and analysts.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any

from ml_pipeline.checkpoints.checkpoint import Checkpoint
from ml_pipeline.checkpoints.naming import parse_partition_key, unescaped
from ml_pipeline.errors import CheckpointError, MlPipelineError
from ml_pipeline.printable import printable_lines
from ml_pipeline.stores.score_store import ScoreStore
from ml_pipeline.stores.tables import FAILURES

LONGEST_REASON = 4000


class FailureBook:
    """Records the failures of one run, `attempt`, in the store."""

    def __init__(self, store: ScoreStore, attempt: str) -> None:
        self._store = store
        self._attempt = attempt

    def failed(self, key: str, checkpoint: Checkpoint | None, stage: str, error: MlPipelineError) -> None:
        """Record why a checkpoint failed; `stage` is the asset that was being made.

        A key that is none of a checkpoint has no row. Raises StoreError as the store does.
        """
        try:
            source, run, iteration = parse_partition_key(key)
        except CheckpointError:
            return
        row = {
            "partition_key": key,
            "source": source,
            "run": checkpoint.run if checkpoint else unescaped(run).encode("utf-8", "replace").decode(),
            "label": checkpoint.label if checkpoint else None,
            "base_model": checkpoint.base_model if checkpoint else None,
            "iteration": iteration,
            "stage": stage,
            "reason": printable_lines(str(error), LONGEST_REASON),
            "attempt": self._attempt,
            "failed_at": datetime.now(UTC),
        }
        self._store.write_partition(key, {FAILURES.name: [row]})

    def done(self, key: str, made: Collection[str]) -> None:
        """Forget a failure of this checkpoint at one of the stages that were made now; raises as the store does."""
        if any(row["stage"] in made for row in self._stored(key)):
            self._store.write_partition(key, {FAILURES.name: []})

    def _stored(self, key: str) -> list[dict[str, Any]]:
        parquet = self._store.parquet
        rows: list[dict[str, Any]] = parquet.read(FAILURES, key).to_pylist() if parquet.has(FAILURES, key) else []
        return rows
