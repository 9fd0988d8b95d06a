"""The asset checks of a checkpoint and of training runs: their names, and what they tell people."""

from __future__ import annotations

import warnings

import dagster as dg

from ml_pipeline.assets.specs import TRAINING_RUNS
from ml_pipeline.automation.partitions import CHECKPOINT_PARTITIONS

_SEE = "Severity and threshold: {} in pipeline.yaml."


def _spec(name: str, asset: str, setting: str, description: str) -> dg.AssetCheckSpec:
    with warnings.catch_warnings():
        # Checks by partition are a preview in Dagster; without them only the last checkpoint's verdict would be shown.
        warnings.simplefilter("ignore", dg.PreviewWarning)
        return dg.AssetCheckSpec(
            name,
            asset=asset,
            description=f"{description} {_SEE.format(f'`checks.{setting}`')}",
            partitions_def=CHECKPOINT_PARTITIONS,
        )


ADAPTER_IS_APPLIED = _spec(
    "adapter_is_applied",
    "responses",
    "adapter_applied",
    "The adapter changes the model: the logits after a fixed text differ from the bare base's. Answers of a model "
    "whose adapter was not applied are never stored.",
)
ANSWERS_ARE_SCORED = _spec(
    "answers_are_scored",
    "probe_results",
    "unscored",
    "Nearly every answer could be marked right or wrong. An answer that could not counts neither way, so that an "
    "accuracy with many of them speaks of fewer probes than it seems.",
)
ANSWERS_ARE_WHOLE = _spec(
    "answers_are_whole",
    "degeneration",
    "truncation",
    "Few answers are cut at the token limit, or no more than the bare base model's.",
)
ANSWERS_ARE_SOUND = _spec(
    "answers_are_sound",
    "degeneration",
    "degeneration",
    "Few answers repeat themselves, loop, refuse, are empty, word salad or in another language, or no more than the "
    "bare base's.",
)
NOT_WORSE_THAN_BASE = _spec(
    "not_worse_than_base",
    "checkpoint_scores",
    "regression",
    "The checkpoint does not do clearly worse than the bare base model on the same probes (McNemar's exact test, which "
    "allows for all checkpoints of the run, those still to come among them, and for all suites).",
)
ANSWERS_ARE_JUDGED = _spec(
    "answers_are_judged",
    "judgements",
    "unscored",
    "The judge gave nearly every figure that it was asked for, in a form that could be read.",
)
CHECKPOINT_CHECKS = (
    ADAPTER_IS_APPLIED,
    ANSWERS_ARE_SCORED,
    ANSWERS_ARE_WHOLE,
    ANSWERS_ARE_SOUND,
    NOT_WORSE_THAN_BASE,
    ANSWERS_ARE_JUDGED,
)

RUNS_GO_ON = dg.AssetCheckSpec(
    "runs_go_on",
    asset=TRAINING_RUNS,
    description="Every training run that is not through writes checkpoints about as often as it did: none has stalled. "
    "The discovery sensor looks all the time and records what changes; executing the check looks at once. "
    + _SEE.format("`checks.freshness`"),
)
