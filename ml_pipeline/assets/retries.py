"""What a run that repeats another one need not do again, and must not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path

import dagster as dg

from ml_pipeline.automation.run_locks import RecordedCrash, record_crashes, recorded_crash


def runs_before(instance: dg.DagsterInstance, run: dg.DagsterRun) -> Iterator[str]:
    """The ids of the runs that this run repeats, newest first.

    A run started by "Re-execute", or again after a crash, names the run it repeats; one that a person or a sensor
    starts names none.
    """
    parent = run.parent_run_id
    while parent is not None:
        yield parent
        parent_run = instance.get_run_by_id(parent)
        parent = parent_run.parent_run_id if parent_run else None


def finished_before(instance: dg.DagsterInstance, run: dg.DagsterRun, assets: Collection[dg.AssetKey]) -> set[str]:
    """The partitions for which the runs that this run repeats have recorded all of `assets`."""
    recorded: Counter[str] = Counter()
    for parent in runs_before(instance, run):
        for entry in instance.all_logs(parent, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION):
            event = entry.dagster_event
            if event is not None and event.asset_key in assets and event.partition is not None:
                recorded[event.partition] += 1
    return {partition for partition, count in recorded.items() if count >= len(assets)}


def crashes_before(instance: dg.DagsterInstance, run: dg.DagsterRun, locks: Path) -> list[RecordedCrash]:
    """At what the processes of the runs that this run repeats were ended by a signal; `locks` is their folder."""
    record_crashes(locks, instance)
    found = (recorded_crash(instance.get_run_by_id(run_id)) for run_id in runs_before(instance, run))
    return [crash for crash in found if crash is not None]
