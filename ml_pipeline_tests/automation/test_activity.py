"""What is being scored, told by a real instance while a run goes on in it."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg

from ml_pipeline.assets.specs import CHECKPOINT_SPECS
from ml_pipeline.automation.activity import Activity, activity
from ml_pipeline.automation.partitions import CHECKPOINT_PARTITIONS, range_tags

KEYS = [f"mac.lek@{iteration}" for iteration in (10, 20)]
SEEN: list[Activity] = []


@dg.multi_asset(
    specs=[dg.AssetSpec(spec.key, skippable=True) for spec in CHECKPOINT_SPECS],
    partitions_def=CHECKPOINT_PARTITIONS,
    backfill_policy=dg.BackfillPolicy.single_run(),
)
def scoring(context: dg.AssetExecutionContext) -> Iterator[dg.AssetMaterialization]:
    """Looks on between its checkpoints; the second fails."""
    SEEN.append(activity(context.instance))
    for spec in CHECKPOINT_SPECS:
        yield dg.AssetMaterialization(spec.key, partition=KEYS[0])
    context.log.info(f"{KEYS[0]} is done")
    SEEN.append(activity(context.instance))
    raise dg.Failure("one failed", metadata={KEYS[1]: dg.MetadataValue.text("no header")})


def test_a_run_is_seen_while_it_goes_on_and_its_failures_afterwards(tmp_path: Path) -> None:
    SEEN.clear()
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        instance.add_dynamic_partitions(str(CHECKPOINT_PARTITIONS.name), KEYS)
        idle = activity(instance)
        assert (idle.active, idle.queued_runs, idle.failures) == ((), 0, {})
        dg.materialize([scoring], instance=instance, tags=range_tags(KEYS), raise_on_error=False)
        over = activity(instance)
    first, second = (seen.active[0] for seen in SEEN)
    assert (first.done, first.current, first.waiting) == ((), KEYS[0], (KEYS[1],))
    assert (second.done, second.current, second.waiting) == ((KEYS[0],), KEYS[1], ())
    assert second.said == f"{KEYS[0]} is done"
    assert first.started_at is not None
    assert over.active == ()
    assert over.failures == {KEYS[1]: "no header"}
