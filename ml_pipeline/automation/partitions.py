"""The partitions of the asset graph, and how their keys are cut into runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import dagster as dg

CHECKPOINT_PARTITIONS = dg.DynamicPartitionsDefinition(name="checkpoint")
TRAINING_RUN_PARTITIONS = dg.DynamicPartitionsDefinition(name="training_run")
RESPONSE_FILE_PARTITIONS = dg.DynamicPartitionsDefinition(name="response_file")
# The tags by which Dagster runs a range of partitions as one run, so that one load of the base model serves them all.
RANGE_START_TAG = "dagster/asset_partition_range_start"
RANGE_END_TAG = "dagster/asset_partition_range_end"


def plan_runs(
    ordered_keys: Sequence[str], wanted: Mapping[str, str], checkpoints_per_run: int
) -> list[tuple[str, ...]]:
    """Cut the wanted keys into runs: neighbours in Dagster's order, of one base model, at most so many.

    `ordered_keys` are all keys in the order in which they were added, since a range runs everything between its ends
    in that order; `wanted` maps the keys to score to the name of their base model.
    """
    runs: list[list[str]] = []
    previous_wanted = False
    for key in ordered_keys:
        if key in wanted:
            fits = previous_wanted and len(runs[-1]) < checkpoints_per_run and wanted[runs[-1][-1]] == wanted[key]
            if fits:
                runs[-1].append(key)
            else:
                runs.append([key])
        previous_wanted = key in wanted
    return [tuple(run) for run in runs]


def range_tags(keys: Sequence[str]) -> dict[str, str]:
    """The tags that make one run out of neighbouring keys."""
    return {RANGE_START_TAG: keys[0], RANGE_END_TAG: keys[-1]}
