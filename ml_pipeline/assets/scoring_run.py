"""One run of the scoring op: many checkpoints, one load of each base model, every result stored as it is made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import dagster as dg
import pyarrow as pa

from ml_pipeline.assets.checkpoint_checks import CheckpointChecks
from ml_pipeline.assets.metadata import report_link, stage_metadata
from ml_pipeline.assets.retries import crashes_before, finished_before
from ml_pipeline.assets.specs import POINT_ASSETS
from ml_pipeline.assets.standing import position_in_run, standing_metadata
from ml_pipeline.automation.native_crashes import CrashNotes, UnderWay
from ml_pipeline.checkpoints.catalogue import Catalogue
from ml_pipeline.checkpoints.checkpoint import Checkpoint
from ml_pipeline.errors import (
    AdapterNotAppliedError,
    CheckpointError,
    MlPipelineError,
    NativeCrashError,
    SettingsError,
    StoreError,
)
from ml_pipeline.evaluation.evaluator import Evaluator, StageResult
from ml_pipeline.evaluation.failures import FailureBook
from ml_pipeline.evaluation.judges import Judges
from ml_pipeline.evaluation.placement import Placement, placement
from ml_pipeline.evaluation.prepare import Preparer
from ml_pipeline.evaluation.stages import STAGES, needs_adapter, needs_model
from ml_pipeline.printable import printable, without_controls
from ml_pipeline.progress import current_listener
from ml_pipeline.resources import BackendResource, PipelineResource
from ml_pipeline.stores.io_managers import InfluxIOManager
from ml_pipeline.stores.metadata import flush_metadata
from ml_pipeline.stores.parquet import WriteReceipt
from ml_pipeline.stores.points import score_points, stored_point_tables
from ml_pipeline.stores.score_store import ScoreStore, table_named
from ml_pipeline.stores.tables import CHECKPOINT_SCORES

Event = dg.AssetMaterialization | dg.AssetCheckEvaluation


class ScoringRun:
    """Scores the partitions of one Dagster run; `failed` says afterwards why checkpoints failed, by key."""

    def __init__(
        self,
        context: dg.AssetExecutionContext,
        pipeline: PipelineResource,
        backend: BackendResource,
        store: ScoreStore,
        influx: InfluxIOManager,
        crash_notes: CrashNotes,
    ) -> None:
        self.failed: dict[str, str] = {}
        self._context = context
        self._backend = backend
        self._store = store
        self._influx = influx
        self._crash_notes = crash_notes
        self._settings = pipeline.settings()
        self._suites = pipeline.suites()
        self._listener = current_listener(context.log.info)
        self._checks = CheckpointChecks(
            self._settings,
            self._stored_rows,
            context.selected_asset_check_keys,
            context.log.warning,
            lambda checkpoint: position_in_run(store.duckdb, checkpoint),
        )
        chosen = {key.to_user_string() for key in context.selected_asset_keys}
        self._stages = [stage for stage in STAGES if stage in chosen]
        self._points = [name for name in POINT_ASSETS if name in chosen]
        self._failures = FailureBook(store, context.run.run_id)
        self._unrecorded: list[tuple[str, Checkpoint | None, str, MlPipelineError]] = []

    def score(self, keys: Sequence[str]) -> Iterator[Event]:
        """Score the checkpoints one after another, handing out what Dagster is to record of each.

        A repeated run leaves those alone that the runs before it finished, and those at which their processes crashed.
        """
        context = self._context
        done = finished_before(context.instance, context.run, context.selected_asset_keys)
        if done:
            self._listener.note(f"{len(done & set(keys))} of {len(keys)} checkpoints were finished by the run before")
            keys = [key for key in keys if key not in done]
        catalogue = Catalogue(self._settings)
        found = catalogue.find(keys)
        for key, checkpoint in found.items():
            if isinstance(checkpoint, CheckpointError):
                self._fail(key, checkpoint)
        here = self._without_crashed([c for c in found.values() if isinstance(c, Checkpoint)])
        places = self._places(here)
        fetched = needs_adapter(self._stages)
        ahead = [c for c in here if fetched and c.key in places and places[c.key].source is None]
        with (
            Preparer(self._settings, catalogue, self._listener, ahead) as preparer,
            self._backend.judges(self._settings, self._listener.note) as judges,
        ):
            placed = [checkpoint for checkpoint in here if checkpoint.key in places]
            for place, group in groupby(placed, key=lambda checkpoint: places[checkpoint.key]):
                yield from self._score_group(preparer, judges, place, list(group))
        self._record_later()

    def _without_crashed(self, checkpoints: Sequence[Checkpoint]) -> list[Checkpoint]:
        """The checkpoints, without those at which a run that this one repeats was ended by a signal: these fail."""
        crashes = crashes_before(self._context.instance, self._context.run, self._settings.run_locks_path)
        left = []
        for checkpoint in checkpoints:
            why = next((crash.why for crash in crashes if crash.is_of(checkpoint.key, checkpoint.version)), None)
            if why is None:
                left.append(checkpoint)
            else:
                self._fail(checkpoint.key, NativeCrashError(why), checkpoint)
        return left

    def _places(self, checkpoints: Sequence[Checkpoint]) -> dict[str, Placement]:
        """Where each checkpoint is scored, by key; those whose base model is not configured fail."""
        places = {}
        for checkpoint in checkpoints:
            try:
                places[checkpoint.key] = placement(self._settings, checkpoint)
            except SettingsError as error:
                self._fail(checkpoint.key, error, checkpoint)
        return places

    def _score_group(
        self, preparer: Preparer, judges: Judges, place: Placement, checkpoints: Sequence[Checkpoint]
    ) -> Iterator[Event]:
        if needs_model(self._stages, self._settings.judge):
            where = f"on the host of source {place.source}" if place.source else "here"
            self._listener.note(f"Loading {printable(place.base_model)} {where} for {len(checkpoints)} checkpoints")
        try:
            with self._backend.load(self._settings, place, self._stages, preparer) as model:
                for remark in model.backend.remarks if model.backend is not None else ():
                    self._context.log.warning(without_controls(remark))
                    self._listener.note(remark)
                evaluator = Evaluator(
                    settings=self._settings,
                    suites=self._suites,
                    model=model,
                    stored_rows=self._stored_rows,
                    listener=self._listener,
                    judges=judges,
                )
                for number, checkpoint in enumerate(checkpoints, start=1):
                    yield from self._score_one(evaluator, checkpoint, f"{number} of {len(checkpoints)}")
        except MlPipelineError as error:  # the base model itself: none of these checkpoints can be scored
            for checkpoint in checkpoints:
                self._fail(checkpoint.key, error, checkpoint)

    def _score_one(self, evaluator: Evaluator, checkpoint: Checkpoint, number: str) -> Iterator[Event]:
        facts: dict[str, object] = {}
        made = 0
        self._crash_notes.under_way(UnderWay(checkpoint.key, checkpoint.version))
        try:
            for result in evaluator.evaluate(checkpoint, self._stages):
                receipts = self._store.write_partition(checkpoint.key, result.tables) if result.tables else []
                facts |= result.facts
                yield self._materialization(result.stage, checkpoint, self._metadata(checkpoint, result, receipts))
                yield from self._checks.after(checkpoint, result)
                made += 1
            yield from self._score_points(checkpoint)
        except MlPipelineError as error:
            if isinstance(error, AdapterNotAppliedError):
                yield from self._checks.not_applied(checkpoint)
            self._fail(checkpoint.key, error, checkpoint, made)
            return
        finally:
            self._crash_notes.under_way(None)
        self._forget(checkpoint)
        self._listener.note(f"{number}: {printable(checkpoint.label)}{_summary(facts)}")

    def _metadata(
        self, checkpoint: Checkpoint, result: StageResult, receipts: Sequence[WriteReceipt]
    ) -> dict[str, dg.MetadataValue[Any]]:
        metadata = stage_metadata(result, receipts)
        if result.stage != CHECKPOINT_SCORES.name:
            return metadata
        standing = standing_metadata(self._store.duckdb, checkpoint, self._context.log.warning)
        return {**standing, "report": report_link(self._settings), **metadata}

    def _score_points(self, checkpoint: Checkpoint) -> Iterator[Event]:
        if not self._points:
            return
        tables = stored_point_tables(self._store.parquet, checkpoint.key)
        points = score_points(tables, self._suites, self._settings.stores.influx.time_base)
        chosen = [point for point in points if point.measurement in self._points]
        report = self._influx.write_partition(checkpoint.key, chosen)
        for name in self._points:
            count = sum(point.measurement == name for point in chosen)
            yield self._materialization(
                name, checkpoint, {"points": dg.MetadataValue.int(count), **flush_metadata(report)}
            )

    def _stored(self, table: str, key: str) -> pa.Table | None:
        parquet = self._store.parquet
        return parquet.read(table_named(table), key) if parquet.has(table_named(table), key) else None

    def _stored_rows(self, table: str, key: str) -> list[dict[str, Any]]:
        rows = self._stored(table, key)
        return [] if rows is None else rows.to_pylist()

    def _materialization(
        self, asset: str, checkpoint: Checkpoint, metadata: Mapping[str, dg.MetadataValue[Any]]
    ) -> dg.AssetMaterialization:
        return dg.AssetMaterialization(asset, partition=checkpoint.key, metadata=metadata)

    def _fail(self, key: str, error: MlPipelineError, checkpoint: Checkpoint | None = None, made: int = 0) -> None:
        """Record a failure after so many of the run's stages were made."""
        self.failed[key] = str(error)
        wanted = [*self._stages, *self._points, STAGES[0]]
        failure = (key, checkpoint, wanted[made], error)
        if isinstance(error, StoreError):  # the store would keep everyone waiting again; it may be back at the end
            self._unrecorded.append(failure)
        else:
            self._record(*failure)
        self._context.log.error(f"{key}: {error}")
        self._listener.note(f"failed: {key}: {error}")

    def _record(self, key: str, checkpoint: Checkpoint | None, stage: str, error: MlPipelineError) -> bool:
        try:
            self._failures.failed(key, checkpoint, stage, error)
        except MlPipelineError as unstored:
            self._context.log.warning(f"{key}: why it failed cannot be stored: {unstored}")
            return False
        return True

    def _forget(self, checkpoint: Checkpoint) -> None:
        """Forget what an earlier run failed at and this one made; the scores are stored, whatever comes of that."""
        try:
            self._failures.done(checkpoint.key, [*self._stages, *self._points])
        except MlPipelineError as error:
            self._context.log.warning(f"{checkpoint.key}: an earlier failure is still listed: {error}")

    def _record_later(self) -> None:
        """Record what failed at the store, unless the store fails again."""
        for failure in self._unrecorded:
            if not self._record(*failure):
                return


def _summary(facts: Mapping[str, object]) -> str:
    accuracies = [
        f"{name.removesuffix('_accuracy')} {value:.0%}"
        for name, value in facts.items()
        if name.endswith("_accuracy") and isinstance(value, float)
    ]
    return f": {', '.join(accuracies)}" if accuracies else ""
