"""One checkpoint looked at closely: its figures, its place in its run, what it gained and lost, what produced it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ml_pipeline.reports.checkpoint_names import ScoredCheckpoint
from ml_pipeline.reports.leaderboard import leaderboard_of
from ml_pipeline.reports.pairs import Pairing, SuitePair, pair
from ml_pipeline.reports.provenance import UnscoredBook, UnscoredGroup, provenance
from ml_pipeline.reports.runs import Point, RunCurve, run_curves
from ml_pipeline.reports.scores import Scores, load_scores
from ml_pipeline.settings import BASE_SOURCE
from ml_pipeline.stores.duckdb import DuckDBStore
from ml_pipeline.stores.tables import TRAINING_LOSS


@dataclass(frozen=True, slots=True)
class Loss:
    """The loss that training printed last up to a checkpoint: at which iteration, or why there is none."""

    iteration: int
    loss: float | None
    reason: str | None


@dataclass(frozen=True)
class SuitePage:
    """A checkpoint on one suite. `standing` is its row of the leaderboard, `ranked` how many of its run have a rank;
    `pair` holds it against another checkpoint, where they were asked the same probes."""

    curve: RunCurve
    point: Point
    standing: Mapping[str, Any]
    ranked: int
    pair: SuitePair | None
    unscored: tuple[UnscoredGroup, ...]
    provenance: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class CheckpointPage:
    """A checkpoint on all its suites, and what it is held against; `left_out` says why suites are not compared.

    `losses` are those of training and validation, by kind. `scores` are those of the two checkpoints alone.
    """

    checkpoint: ScoredCheckpoint
    against: ScoredCheckpoint | None
    suites: tuple[SuitePage, ...]
    left_out: tuple[str, ...]
    losses: Mapping[str, Loss]
    scores: Scores

    def of_suite(self, suite: str) -> CheckpointPage:
        """The page of one suite alone."""
        suites = tuple(page for page in self.suites if page.curve.suite == suite)
        return replace(self, suites=suites, left_out=(), scores=self.scores.only(suite=suite))


def checkpoint_page(
    store: DuckDBStore,
    known: list[ScoredCheckpoint],
    checkpoint: ScoredCheckpoint,
    against: ScoredCheckpoint | None = None,
) -> CheckpointPage:
    """The page of a checkpoint, held against its base unless another is named; raises as `DuckDBStore.read` does."""
    of_run = [one for one in known if (one.source, one.run) == (checkpoint.source, checkpoint.run)]
    bases = [one for one in known if one.is_base and one.base_model == checkpoint.base_model]
    reference = against or next((base for base in bases if base != checkpoint), None)
    both = [one.key for one in (checkpoint, reference) if one is not None]
    loaded = load_scores(store, list(dict.fromkeys([*both, *(one.key for one in (*of_run, *bases))])))
    scores = loaded.only(checkpoints=both)
    pairing = Pairing((), ()) if reference is None else pair(scores, reference.key, checkpoint.key)
    suites = tuple(
        _suite_page(scores, curve, point, pairing)
        for curve in run_curves(loaded)
        for point in (curve.points if checkpoint.source != BASE_SOURCE else (curve.base,))
        if point is not None and point.partition_key == checkpoint.key
    )
    return CheckpointPage(checkpoint, reference, suites, pairing.left_out, _losses(store, checkpoint), scores)


def _suite_page(scores: Scores, curve: RunCurve, point: Point, pairing: Pairing) -> SuitePage:
    table = leaderboard_of([curve])
    row = table[table["partition_key"].eq(point.partition_key)].to_dict("records")[0]
    alone = replace(curve, base=None, points=(point,))
    return SuitePage(
        curve=curve,
        point=point,
        standing={str(name): value for name, value in row.items()},
        ranked=int(table["rank"].notna().sum()),
        pair=next((found for found in pairing.suites if found.suite == curve.suite), None),
        unscored=tuple(UnscoredBook(scores).groups(alone)),
        provenance=tuple(provenance(scores, alone)),
    )


def _losses(store: DuckDBStore, checkpoint: ScoredCheckpoint) -> dict[str, Loss]:
    rows = store.query(
        f"SELECT kind, iteration, loss, reason FROM {TRAINING_LOSS.name} "
        "WHERE source = ? AND run = ? AND iteration <= ? "
        "QUALIFY row_number() OVER (PARTITION BY kind ORDER BY iteration DESC) = 1 ORDER BY kind",
        [checkpoint.source, checkpoint.run, checkpoint.iteration],
    )
    return {row["kind"]: Loss(row["iteration"], row["loss"], row["reason"]) for row in rows.to_pylist()}
