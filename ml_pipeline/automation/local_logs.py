"""Reads what was added to training logs, in this process, for who has no sensor running."""

from __future__ import annotations

import dagster as dg

from ml_pipeline.automation.jobs import read_training_logs_job
from ml_pipeline.automation.local_runs import add_partitions, failure_reasons, run_job
from ml_pipeline.automation.log_cursor import LogCursor
from ml_pipeline.automation.partitions import TRAINING_RUN_PARTITIONS
from ml_pipeline.automation.training_log_sensor import changed_logs, read_runs_config, runs_of
from ml_pipeline.checkpoints.catalogue import Catalogue
from ml_pipeline.files import write_atomically
from ml_pipeline.settings import Settings


def read_logs(
    definitions: dg.Definitions, instance: dg.DagsterInstance, settings: Settings, catalogue: Catalogue
) -> list[str]:
    """Store the losses that training logs have gained since this was last called; return what could not be read.

    Raises:
        KeyboardInterrupt: the user stopped it. The same call reads the rest.
    """
    path = settings.log_cursor_path
    cursor = LogCursor.parsed(path.read_text(encoding="utf-8") if path.exists() else None)
    changed, problems = changed_logs(settings, catalogue, cursor)
    if not changed:
        return problems
    keys = runs_of(changed)
    add_partitions(instance, keys, str(TRAINING_RUN_PARTITIONS.name))
    job = definitions.resolve_job_def(read_training_logs_job.name)
    result = run_job(job, instance, settings.run_locks_path, read_runs_config(keys))
    if not result.success:  # the cursor stays behind: they are read again next time
        reasons = failure_reasons(instance, result.run_id)
        return [*problems, *(f"{key}: {reason}" for key, reason in reasons.items())]
    write_atomically(path, cursor.dumped().encode())
    return problems
