"""The newest scores, by one short query: for those who look on while checkpoints are scored."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from ml_pipeline.reports.intervals import Estimate
from ml_pipeline.stores.duckdb import DuckDBStore


@dataclass(frozen=True, slots=True)
class LatestScore:
    """The accuracy of a checkpoint on a suite, and its difference from the base's, where that is scored."""

    partition_key: str
    suite: str
    accuracy: Estimate
    delta_to_base: float | None
    scored_at: datetime

    @property
    def key(self) -> tuple[str, str, datetime]:
        """What tells it from every other score."""
        return self.partition_key, self.suite, self.scored_at


def latest_scores(store: DuckDBStore, most: int) -> list[LatestScore]:
    """The newest scores, the newest first; raises as `DuckDBStore.query` does."""
    rows = store.query(
        "SELECT partition_key, suite, accuracy, accuracy_low, accuracy_high, total, unscored, delta_to_base, "
        "scored_at, source = 'base' AS is_base FROM latest_leaderboard WHERE accuracy IS NOT NULL "
        "ORDER BY scored_at DESC, partition_key, suite LIMIT ?",
        [most],
    )
    return [
        LatestScore(
            row["partition_key"],
            row["suite"],
            Estimate(row["accuracy"], row["accuracy_low"], row["accuracy_high"], row["total"], row["unscored"]),
            None if row["is_base"] else row["delta_to_base"],
            row["scored_at"],
        )
        for row in rows.to_pylist()
    ]
