"""Wiring only: everything that Dagster loads."""

from __future__ import annotations

import os

import dagster as dg

from ml_pipeline.assets.checkpoint_assets import build_checkpoint_assets
from ml_pipeline.assets.published import database_snapshot, leaderboard, score_report, score_table
from ml_pipeline.assets.response_scores import response_judgements, response_scores
from ml_pipeline.assets.run_freshness import runs_go_on
from ml_pipeline.assets.specs import response_files, training_runs
from ml_pipeline.assets.training_loss import training_loss
from ml_pipeline.automation.alert_sensor import build_alert_sensor
from ml_pipeline.automation.discovery_sensor import build_discovery_sensor
from ml_pipeline.automation.jobs import (
    judge_responses_job,
    publish_scores_job,
    read_training_logs_job,
    score_checkpoints_job,
    score_responses_job,
)
from ml_pipeline.automation.publishing import build_publish_sensor
from ml_pipeline.automation.replay_sensor import build_replay_sensor
from ml_pipeline.automation.response_file_sensor import build_response_file_sensor
from ml_pipeline.automation.training_log_sensor import build_training_log_sensor
from ml_pipeline.files import share_files
from ml_pipeline.resources import build_resources
from ml_pipeline.settings_file import find_config, load_settings


@dg.definitions
def defs() -> dg.Definitions:
    """The asset graph, its jobs, sensors and resources, as pipeline.yaml says."""
    config = find_config(os.environ).resolve()
    settings = load_settings(config)
    share_files(settings.shared_files)  # for the code server, and for every run
    return dg.Definitions(
        assets=[
            training_runs,
            build_checkpoint_assets(settings.limits.checkpoints_per_run),
            training_loss,
            response_files,
            response_scores,
            response_judgements,
            score_table,
            leaderboard,
            score_report,
            database_snapshot,
        ],
        asset_checks=[runs_go_on],
        jobs=[
            score_checkpoints_job,
            publish_scores_job,
            read_training_logs_job,
            score_responses_job,
            judge_responses_job,
        ],
        sensors=[
            build_discovery_sensor(settings.discovery.interval_s),
            build_publish_sensor(settings.discovery.interval_s),
            build_training_log_sensor(settings.discovery.training_log_interval_s),
            build_response_file_sensor(settings.discovery.interval_s),
            build_replay_sensor(settings.discovery.interval_s),
            build_alert_sensor(settings.discovery.interval_s),
        ],
        resources=build_resources(config, settings),
        # One process a run: the model is loaded once, and by nobody else.
        executor=dg.in_process_executor,
    )
