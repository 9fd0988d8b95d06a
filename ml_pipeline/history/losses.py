"""Imports the losses that the original wrote as its measurement training_loss, into the table of that name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ml_pipeline.checkpoints.naming import run_id, run_partition_key
from ml_pipeline.history.fields import Fields, made_up_ordinal, moment, name, number, whole
from ml_pipeline.history.past import run_of
from ml_pipeline.settings import IMPORTED_SOURCE
from ml_pipeline.stores.score_store import ScoreStore
from ml_pipeline.stores.tables import TRAINING_LOSS

LOSS_KIND = "training_loss"
LOSS_FIELDS = frozenset({"run_id", "loss_type", "loss", "iteration"})
"""By these a record is known as a loss."""
_KINDS = ("train", "val")
_FIGURES = {"learning_rate": "learning_rate", "it_per_sec": "iterations_per_s", "tokens_per_sec": "tokens_per_s"}
_EMPTY = {column.name: None for column in TRAINING_LOSS.columns if column.nullable}
Row = dict[str, Any]
LossKey = tuple[str, int]
"""Kind and iteration."""


@dataclass(frozen=True, slots=True)
class PastLoss:
    """A loss that the original recorded; `recorded_at` is None where its time was made up."""

    run: str
    model: str
    kind: str
    iteration: int
    loss: float
    figures: Mapping[str, float]
    recorded_at: datetime | None

    @property
    def partition_key(self) -> str:
        """The imported training run; raises CheckpointError when its name is too long for a partition."""
        return run_partition_key(IMPORTED_SOURCE, self.run)


@dataclass
class Counts:
    """What became of losses: how many are new, took the place of earlier ones, or were known."""

    new: int = 0
    replaced: int = 0
    known: int = 0


def past_loss(fields: Fields) -> PastLoss:
    """Read a record; raises ValueError that says what is wrong with it."""
    kind = name(fields, "loss_type")
    if kind not in _KINDS:
        raise ValueError(f"'loss_type' must be train or val, not {kind!a:.40}")
    iteration, at = whole(fields, "iteration"), moment(fields, "time")
    figures = {
        ours: number(fields, theirs) for theirs, ours in _FIGURES.items() if fields.get(theirs) not in (None, "")
    }
    recorded_at = at if made_up_ordinal(at, iteration) is None else None
    run = run_of(name(fields, "run_id"))
    return PastLoss(run, name(fields, "model"), kind, iteration, number(fields, "loss"), figures, recorded_at)


def store_losses(store: ScoreStore, by_run: Mapping[str, Sequence[PastLoss]], file: str) -> Counts:
    """Merge losses, by partition, with what is stored, and write the runs that change.

    Of two losses for one iteration the one recorded later stays, else the one imported first.

    Raises:
        StoreError: they could not be written; the same call does it again.
    """
    counts, changed, now = Counts(), {}, datetime.now(UTC)
    for key, losses in by_run.items():
        before = store.parquet.read(TRAINING_LOSS, key).to_pylist() if store.parquet.has(TRAINING_LOSS, key) else []
        rows: dict[LossKey, Row] = {(row["kind"], row["iteration"]): row for row in before}
        started_ns = min((_ns(loss.recorded_at) for loss in losses if loss.recorded_at), default=0)
        written = 0
        for loss in losses:
            place = loss.kind, loss.iteration
            if place in rows and not (loss.recorded_at and loss.recorded_at > rows[place]["read_at"]):
                counts.known += 1
                continue
            written += 1
            counts.new += place not in rows
            counts.replaced += place in rows
            rows[place] = _row(loss, file, started_ns, loss.recorded_at or now)
        if written or _mirrored(store, key) != len(rows):
            changed[key] = {TRAINING_LOSS.name: [rows[place] for place in sorted(rows)]}
    if changed:
        store.write_partitions(changed)
    return counts


def _mirrored(store: ScoreStore, key: str) -> int:
    """How many losses of a run the database has: a killed import leaves it behind."""
    query = f"SELECT count(*) AS rows FROM {TRAINING_LOSS.name} WHERE partition_key = ?"
    return int(store.duckdb.query(query, [key])["rows"][0].as_py())


def _ns(moment: datetime) -> int:
    return int(moment.timestamp() * 1_000_000) * 1000


def _row(loss: PastLoss, file: str, started_ns: int, read_at: datetime) -> Row:
    return {
        **_EMPTY,
        "partition_key": loss.partition_key,
        "source": IMPORTED_SOURCE,
        "run": loss.run,
        "run_id": run_id(loss.run),
        "model": loss.model,
        "kind": loss.kind,
        "iteration": loss.iteration,
        "loss": loss.loss,
        **loss.figures,
        "attempt": 1,
        "log_file": file,
        "log_id": IMPORTED_SOURCE,
        "started_ns": started_ns,
        "read_at": read_at,
    }
