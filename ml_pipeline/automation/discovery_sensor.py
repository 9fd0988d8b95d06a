"""Finds new checkpoints, and overwritten ones, and has them scored without a click."""

import hashlib
import time

import dagster as dg

from ml_pipeline.assets.metadata import markdown_list
from ml_pipeline.assets.run_freshness import find_stalled, freshness_news
from ml_pipeline.assets.specs import TRAINING_RUNS
from ml_pipeline.automation.jobs import score_checkpoints_job
from ml_pipeline.automation.partitions import CHECKPOINT_PARTITIONS, plan_runs, range_tags
from ml_pipeline.automation.requested import Request, RequestLedger
from ml_pipeline.automation.run_locks import report_dead_runs
from ml_pipeline.automation.source_health import SensorState
from ml_pipeline.checkpoints.catalogue import Catalogue
from ml_pipeline.checkpoints.checkpoint import Checkpoint
from ml_pipeline.checkpoints.discovery import Discovery
from ml_pipeline.errors import MlPipelineError
from ml_pipeline.history.importing import ImportedCheckpoints
from ml_pipeline.printable import without_controls
from ml_pipeline.resources import PipelineResource
from ml_pipeline.stores.parquet import ParquetStore

_MOST_KEYS_A_TICK = 25_000
_PARTITIONS = str(CHECKPOINT_PARTITIONS.name)
_LONGEST_LOOK_S = 40.0
"""Dagster gives up a tick after a minute; a source that takes longer than this fails, and only that source."""


def build_discovery_sensor(interval_s: int) -> dg.SensorDefinition:
    """The sensor that finds new checkpoints, adds their partitions and requests runs of several at once."""

    @dg.sensor(
        name="discovery_sensor",
        job=score_checkpoints_job,
        minimum_interval_seconds=interval_s,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Looks through every source; a new or overwritten checkpoint becomes a partition and is scored.",
    )
    def discovery_sensor(
        context: dg.SensorEvaluationContext, pipeline: PipelineResource
    ) -> dg.SensorResult | dg.SkipReason:
        now_s, before = time.time(), SensorState.from_cursor(context.cursor)
        try:
            settings = pipeline.settings()
            # A run whose process crashed still holds the model: what repeats it would wait for minutes.
            report_dead_runs(settings.run_locks_path, context.instance)
            names = before.due(settings.sources, now_s)
            catalogue = Catalogue(settings)
            found = catalogue.look(names, longest_s=_LONGEST_LOOK_S)
            ledger = RequestLedger(settings.requested_path)
            known = list(context.instance.get_dynamic_partitions(_PARTITIONS))
            imported = ImportedCheckpoints(ParquetStore(settings.parquet_path))
            new, generation = _requests(
                ledger, before.generation, found, known, imported, settings.limits.checkpoints_per_run
            )
        except MlPipelineError as error:
            return dg.SkipReason(str(error))
        state = before.after(names, found.failed, now_s=now_s, interval_s=interval_s, generation=generation)
        unseen = settings.sources.keys() - names | found.failed.keys()
        stalled = find_stalled(catalogue, found.checkpoints, settings.checks.freshness)
        state = state.with_stalled(stalled, unseen)
        for problem in [*found.problems, *state.told(now_s)]:
            context.log.warning(without_controls(problem))
        events = freshness_news(before.stalled, state.stalled or (), settings, context.log.warning)
        if not new:
            return dg.SensorResult(
                skip_reason=_nothing_new(found, state, now_s), cursor=state.model_dump_json(), asset_events=events
            )
        keys = [key for request in new for key in request.keys]
        partitions = set(known)
        added = list(dict.fromkeys(key for key in keys if key not in partitions))
        return dg.SensorResult(
            dynamic_partitions_requests=[CHECKPOINT_PARTITIONS.build_add_request(added)] if added else None,
            run_requests=[dg.RunRequest(run_key=run.run_key, tags=range_tags(run.keys)) for run in new],
            cursor=state.model_dump_json(),
            asset_events=[_observation(found, len(keys)), *events],
        )

    return discovery_sensor


def _requests(
    ledger: RequestLedger,
    taken: int,
    found: Discovery,
    known: list[str],
    imported: ImportedCheckpoints,
    checkpoints_per_run: int,
) -> tuple[list[Request], int]:
    """What to ask for now, written down first, and the generation that Dagster has when it has taken all of it.

    `known` are the partitions in Dagster's order, `imported` what another program scored. A run is a range in
    Dagster's order, new partitions at its end.
    """
    last, versions, waiting = ledger.last_generation(), ledger.versions(), ledger.not_taken(taken)
    partitions = set(known)
    changed, adopted = [], []
    for checkpoint in found.checkpoints:
        version = versions.get(checkpoint.key)
        if version is None and checkpoint.key in partitions:
            adopted.append(checkpoint)  # scored by hand, or the ledger was lost: no reason to score it again
        elif version is None and checkpoint in imported:
            adopted.append(checkpoint)  # scored by another program
        elif version != (checkpoint.size_bytes, checkpoint.mtime_ns):
            changed.append(checkpoint)
    room = max(0, _MOST_KEYS_A_TICK - sum(len(request.keys) for request in waiting))
    chosen = {checkpoint.key: checkpoint for checkpoint in changed[:room]}
    order = [*known, *(key for key in chosen if key not in partitions)]
    runs = plan_runs(order, {key: chosen[key].base_model for key in chosen}, checkpoints_per_run)
    made = [Request(run_key([chosen[key] for key in keys]), keys) for keys in runs]
    generation = max(last, taken) + 1 if made else max(last, taken)
    ledger.write(made, chosen.values(), generation)
    ledger.adopt(adopted)
    return [*waiting, *made], generation


def run_key(checkpoints: list[Checkpoint]) -> str:
    """The name of a run by what it scores, so that no restart or reset of the sensor scores the same files twice."""
    content = "\n".join(f"{c.key} {c.mtime_ns} {c.size_bytes}" for c in checkpoints)
    return f"{checkpoints[0].key} +{len(checkpoints) - 1} {hashlib.sha256(content.encode()).hexdigest()[:12]}"


def _nothing_new(found: Discovery, state: SensorState, now_s: float) -> str:
    seen = f"Nothing new: {len(found.checkpoints)} checkpoints known, {len(found.growing)} still being written"
    return "\n".join([f"{seen}, {len(found.problems)} problems.", *state.told(now_s)])


def _observation(found: Discovery, new: int) -> dg.AssetObservation:
    return dg.AssetObservation(
        TRAINING_RUNS,
        metadata={
            "new_checkpoints": new,
            "known_checkpoints": len(found.checkpoints),
            "still_being_written": len(found.growing),
            "problems": markdown_list(found.problems),
        },
    )
