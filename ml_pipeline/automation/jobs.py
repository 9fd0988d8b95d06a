"""The jobs: score checkpoints and files of responses, publish what follows from the scores, and read training logs."""

from __future__ import annotations

import dagster as dg

from ml_pipeline.assets.specs import (
    CHECKPOINT_SPECS,
    RESPONSE_JUDGEMENTS_SPEC,
    RESPONSE_SCORES_SPEC,
    TRAINING_LOSS_SPEC,
)
from ml_pipeline.responses.judging import judges_of_files
from ml_pipeline.settings import Settings

PUBLISHED = ("score_table", "leaderboard", "score_report", "database_snapshot")

score_checkpoints_job = dg.define_asset_job(
    "score_checkpoints_job",
    selection=dg.AssetSelection.assets(*(spec.key for spec in CHECKPOINT_SPECS)),
    description="All stages of the chosen checkpoints, with one load of their base model.",
)

publish_scores_job = dg.define_asset_job(
    "publish_scores_job",
    selection=dg.AssetSelection.assets(*PUBLISHED),
    description="The tidy score table, the leaderboard, the HTML report and the analysts' database, from all scores.",
)

read_training_logs_job = dg.define_asset_job(
    "read_training_logs_job",
    selection=dg.AssetSelection.assets(TRAINING_LOSS_SPEC.key),
    description="Reads what was added to the logs of training runs.",
)

score_responses_job = dg.define_asset_job(
    "score_responses_job",
    selection=dg.AssetSelection.assets(RESPONSE_SCORES_SPEC.key),
    description="The figures of files of responses that need no model.",
)

judge_responses_job = dg.define_asset_job(
    "judge_responses_job",
    selection=dg.AssetSelection.assets(RESPONSE_JUDGEMENTS_SPEC.key),
    description="The judge's figures for files of responses.",
)


def response_job_names(settings: Settings) -> list[str]:
    """The jobs that a file of responses goes through, in this order; judging only where a judge is named for it."""
    return [score_responses_job.name, *([judge_responses_job.name] if judges_of_files(settings) else [])]
