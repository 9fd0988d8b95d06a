"""The scores of files of responses: one partition a file. Judging is an op of its own, which alone needs a model."""

from collections.abc import Callable, Iterator

import dagster as dg

from ml_pipeline.assets.metadata import markdown_table
from ml_pipeline.assets.retries import crashes_before
from ml_pipeline.assets.specs import MODEL_POOL, RESPONSE_JUDGEMENTS_SPEC, RESPONSE_SCORES_SPEC
from ml_pipeline.automation.native_crashes import UnderWay, crash_notes
from ml_pipeline.automation.partitions import RESPONSE_FILE_PARTITIONS
from ml_pipeline.automation.run_locks import run_lock
from ml_pipeline.errors import MlPipelineError, NativeCrashError, SettingsError
from ml_pipeline.printable import without_controls
from ml_pipeline.reports.response_files import averages
from ml_pipeline.resources import BackendResource, PipelineResource
from ml_pipeline.responses.judging import judges_of_files
from ml_pipeline.responses.scorer import ResponseScorer, ScoredFile
from ml_pipeline.stores.duckdb import DuckDBStore
from ml_pipeline.stores.io_managers import DuckDBIOManager
from ml_pipeline.stores.metadata import receipt_metadata

_FILES_A_BACKFILL = 100
_SHOWN_AVERAGES = 60


@dg.multi_asset(
    name="score_response_files",
    specs=[RESPONSE_SCORES_SPEC],
    partitions_def=RESPONSE_FILE_PARTITIONS,
    backfill_policy=dg.BackfillPolicy.multi_run(_FILES_A_BACKFILL),
    can_subset=True,
    description="Scores files of responses without any model.",
)
def response_scores(
    context: dg.AssetExecutionContext,
    pipeline: PipelineResource,
    duckdb_io_manager: dg.ResourceParam[DuckDBIOManager],
) -> Iterator[dg.AssetMaterialization]:
    """The figures of every response, file by file."""
    store = duckdb_io_manager.store()
    scorer = ResponseScorer(pipeline.settings(), pipeline.suites(), store)
    yield from _each_file(context, RESPONSE_SCORES_SPEC.key, store.duckdb, scorer.score)


@dg.multi_asset(
    name="judge_response_files",
    specs=[RESPONSE_JUDGEMENTS_SPEC],
    partitions_def=RESPONSE_FILE_PARTITIONS,
    backfill_policy=dg.BackfillPolicy.multi_run(_FILES_A_BACKFILL),
    can_subset=True,
    pool=MODEL_POOL,
    description="Has the judges that pipeline.yaml names judge files of responses.",
)
def response_judgements(
    context: dg.AssetExecutionContext,
    pipeline: PipelineResource,
    backend: BackendResource,
    duckdb_io_manager: dg.ResourceParam[DuckDBIOManager],
) -> Iterator[dg.AssetMaterialization]:
    """The judge's figures, file by file."""
    settings = judges_of_files(pipeline.settings())
    if settings is None:
        raise SettingsError(
            "judge.backend names no judge for files of responses: 'embedded' is a checkpoint's own base model, and "
            "they have none. Name a base model or a backend there."
        )
    store = duckdb_io_manager.store()
    scorer = ResponseScorer(settings, pipeline.suites(), store)
    locks, run = settings.run_locks_path, context.run
    with (
        run_lock(locks, run.run_id),
        crash_notes(locks, run.run_id) as notes,
        backend.judges(settings, context.log.info) as judges,
    ):
        crashes = crashes_before(context.instance, run, locks)

        def judge(key: str) -> ScoredFile:
            for crash in crashes:
                if crash.is_of(key):
                    raise NativeCrashError(crash.why)
            notes.under_way(UnderWay(key))
            try:
                return scorer.judge(key, judges.present(None))
            finally:
                notes.under_way(None)

        yield from _each_file(context, RESPONSE_JUDGEMENTS_SPEC.key, store.duckdb, judge)


def _each_file(
    context: dg.AssetExecutionContext, asset: dg.AssetKey, store: DuckDBStore, score: Callable[[str], ScoredFile]
) -> Iterator[dg.AssetMaterialization]:
    """Score the run's files one by one; one that fails keeps none of the others back."""
    failed: dict[str, str] = {}
    for key in context.partition_keys:
        try:
            scored = score(key)
            means = averages(store, key, _SHOWN_AVERAGES)
        except MlPipelineError as error:
            failed[key] = str(error)
            context.log.error(f"{key}: {error}")
            continue
        for problem in scored.problems:
            context.log.warning(without_controls(problem))
        yield dg.AssetMaterialization(
            asset,
            partition=key,
            metadata={
                **receipt_metadata(scored.receipt),
                "responses": dg.MetadataValue.int(scored.responses),
                "bad_lines": dg.MetadataValue.int(scored.bad_lines),
                "problems": dg.MetadataValue.text("\n".join(scored.problems) or "none"),
                "averages": dg.MetadataValue.md(markdown_table(means)),
            },
        )
    if failed:
        raise dg.Failure(
            description=f"{len(failed)} of {len(context.partition_keys)} files of responses failed; what the others "
            "gave is stored.\n" + "\n".join(f"{key}: {reason}" for key, reason in failed.items()),
            metadata={key: dg.MetadataValue.text(reason) for key, reason in failed.items()},
            allow_retries=False,
        )
