"""The two jobs: score checkpoints, and publish what follows from the scores."""

from __future__ import annotations

import dagster as dg

from ml_pipeline.assets.specs import CHECKPOINT_SPECS

PUBLISHED = ("score_table", "leaderboard", "score_report")

score_checkpoints_job = dg.define_asset_job(
    "score_checkpoints_job",
    selection=dg.AssetSelection.assets(*(spec.key for spec in CHECKPOINT_SPECS)),
    description="All stages of the chosen checkpoints, with one load of their base model.",
)

publish_scores_job = dg.define_asset_job(
    "publish_scores_job",
    selection=dg.AssetSelection.assets(*PUBLISHED),
    description="The tidy score table, the leaderboard and the HTML report, from all scores.",
)
