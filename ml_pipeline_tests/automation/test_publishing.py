"""When the publish sensor asks for a new report."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from ml_pipeline.automation import publishing
from ml_pipeline.automation.publishing import build_publish_sensor


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.local_temp(
        str(tmp_path), overrides={"concurrency": {"pools": {"default_limit": 1, "granularity": "op"}}}
    ) as made:
        yield made


def made(instance: dg.DagsterInstance, asset: str) -> None:
    instance.report_runless_asset_event(dg.AssetMaterialization(asset))


def tick(instance: dg.DagsterInstance) -> dg.RunRequest | dg.SkipReason:
    result = build_publish_sensor(5)(dg.build_sensor_context(instance=instance))
    assert isinstance(result, dg.RunRequest | dg.SkipReason)
    return result


def test_a_report_is_asked_for_once_for_every_newer_score(instance: dg.DagsterInstance) -> None:
    assert isinstance(tick(instance), dg.SkipReason)
    made(instance, "checkpoint_scores")
    first, again = tick(instance), tick(instance)
    assert isinstance(first, dg.RunRequest)
    assert isinstance(again, dg.RunRequest)
    assert first.run_key == again.run_key
    made(instance, "score_report")
    assert isinstance(tick(instance), dg.SkipReason)
    made(instance, "checkpoint_scores")
    newer = tick(instance)
    assert isinstance(newer, dg.RunRequest)
    assert newer.run_key != first.run_key


def test_while_scoring_goes_on_a_report_is_made_now_and_then(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(instance, "score_report")
    made(instance, "checkpoint_scores")
    instance.event_log_storage.initialize_concurrency_limit_to_default("model")
    claim = instance.event_log_storage.claim_concurrency_slot("model", "a-run", "score_checkpoints")
    assert claim.is_claimed
    assert isinstance(tick(instance), dg.SkipReason)
    monkeypatch.setattr(publishing, "_WHILE_SCORING_S", 0.0)
    assert isinstance(tick(instance), dg.RunRequest)
    monkeypatch.undo()
    instance.event_log_storage.free_concurrency_slots_for_run("a-run")
    assert isinstance(tick(instance), dg.RunRequest)
