"""A repeated run leaves alone what the run before it finished, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator

import dagster as dg

from ml_pipeline.assets.retries import finished_before

PARTITIONS = dg.StaticPartitionsDefinition(["a", "b", "c"])
NAMES = ("first", "second")


@dg.multi_asset(
    specs=[dg.AssetSpec(name, skippable=True) for name in NAMES],
    partitions_def=PARTITIONS,
    backfill_policy=dg.BackfillPolicy.single_run(),
)
def half_failing() -> Iterator[dg.AssetMaterialization]:
    for partition, names in (("a", NAMES), ("b", NAMES[:1])):
        for name in names:
            yield dg.AssetMaterialization(name, partition=partition)
    raise dg.Failure("c and half of b failed")


def test_only_partitions_with_every_asset_count_as_finished() -> None:
    keys = [dg.AssetKey(name) for name in NAMES]
    tags = {"dagster/asset_partition_range_start": "a", "dagster/asset_partition_range_end": "c"}
    with dg.DagsterInstance.ephemeral() as instance:
        first = dg.materialize([half_failing], instance=instance, tags=tags, raise_on_error=False).dagster_run
        assert finished_before(instance, first, keys) == set()
        repeated = first._replace(run_id="repeated", parent_run_id=first.run_id, root_run_id=first.run_id)
        assert finished_before(instance, repeated, keys) == {"a"}
        assert finished_before(instance, repeated, keys[:1]) == {"a", "b"}
