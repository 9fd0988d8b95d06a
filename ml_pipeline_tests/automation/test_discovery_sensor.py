"""What the discovery sensor asks for, tick by tick, on a real folder with a real instance."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from ml_pipeline.automation.discovery_sensor import build_discovery_sensor
from ml_pipeline.resources import PipelineResource
from ml_pipeline_tests.checkpoints.files import write_checkpoint

PER_RUN = 3


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral(tempdir=str(tmp_path)) as made:
        yield made


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "base.gguf").write_bytes(b"GGUF")
    settings = {
        "sources": {"mac": {"type": "local", "path": "runs"}},
        "families": [{"prefix": "tiny", "model": "tiny", "short": "T"}],
        "base_models": {"tiny": {"gguf": "base.gguf"}},
        "limits": {"checkpoints_per_run": PER_RUN},
    }
    (tmp_path / "pipeline.yaml").write_text(json.dumps(settings))
    (tmp_path / "runs").mkdir()
    return tmp_path


def add(project: Path, run: str, *iterations: int) -> None:
    for iteration in iterations:
        write_checkpoint(project / "runs" / f"adapters-tiny-{run}", f"{iteration:07d}_adapters.safetensors", mtime_ns=1)


def tick(project: Path, instance: dg.DagsterInstance) -> dg.SensorResult | dg.SkipReason:
    """One tick; what it asks to add is added, as the daemon does."""
    context = dg.build_sensor_context(
        instance=instance, resources={"pipeline": PipelineResource(config_path=str(project / "pipeline.yaml"))}
    )
    result = build_discovery_sensor(5)(context)
    assert isinstance(result, dg.SensorResult | dg.SkipReason)
    if isinstance(result, dg.SensorResult):
        for request in result.dynamic_partitions_requests or ():
            instance.add_dynamic_partitions("checkpoint", list(request.partition_keys))
    return result


def ranges(result: dg.SensorResult | dg.SkipReason) -> list[tuple[str, str]]:
    assert isinstance(result, dg.SensorResult)
    start, end = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"
    return [(request.tags[start], request.tags[end]) for request in result.run_requests or ()]


def test_new_checkpoints_become_partitions_and_runs_of_several(project: Path, instance: dg.DagsterInstance) -> None:
    add(project, "a", 100, 200, 300, 400)
    found = tick(project, instance)
    assert list(instance.get_dynamic_partitions("checkpoint")) == [
        "base.tiny@0",
        *(f"mac.tiny-a@{iteration}" for iteration in (100, 200, 300, 400)),
    ]
    assert ranges(found) == [("base.tiny@0", "mac.tiny-a@200"), ("mac.tiny-a@300", "mac.tiny-a@400")]


def test_only_what_is_new_is_asked_for(project: Path, instance: dg.DagsterInstance) -> None:
    add(project, "a", 100)
    tick(project, instance)
    assert isinstance(tick(project, instance), dg.SkipReason)
    add(project, "a", 200)
    assert ranges(tick(project, instance)) == [("mac.tiny-a@200", "mac.tiny-a@200")]


def test_a_reset_sensor_names_its_runs_as_before(project: Path, tmp_path: Path) -> None:
    add(project, "a", 100, 200)
    keys = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        with dg.DagsterInstance.ephemeral(tempdir=str(tmp_path / name)) as instance:
            result = tick(project, instance)
            assert isinstance(result, dg.SensorResult)
            keys.append([request.run_key for request in result.run_requests or ()])
    assert keys[0] == keys[1]
    assert len(set(keys[0])) == len(keys[0]) == 1


def test_a_file_still_being_written_waits(project: Path, instance: dg.DagsterInstance) -> None:
    add(project, "a", 100)
    growing = project / "runs" / "adapters-tiny-a" / "0000200_adapters.safetensors"
    shutil.copy(growing.with_name("0000100_adapters.safetensors"), growing)
    whole = growing.read_bytes()
    growing.write_bytes(whole[:-8])
    tick(project, instance)
    assert "mac.tiny-a@200" not in instance.get_dynamic_partitions("checkpoint")
    growing.write_bytes(whole)
    assert ranges(tick(project, instance)) == [("mac.tiny-a@200", "mac.tiny-a@200")]


def test_wrong_settings_and_a_missing_folder_are_told_and_mend_themselves(
    project: Path, instance: dg.DagsterInstance
) -> None:
    add(project, "a", 100)
    whole = (project / "pipeline.yaml").read_text()
    (project / "pipeline.yaml").write_text(whole.replace('"local"', '"loacl"'))
    skipped = tick(project, instance)
    assert isinstance(skipped, dg.SkipReason)
    assert "sources.mac" in (skipped.skip_message or "")
    (project / "pipeline.yaml").write_text(whole)
    (project / "runs").rename(project / "away")
    skipped = tick(project, instance)
    assert isinstance(skipped, dg.SkipReason)
    (project / "away").rename(project / "runs")
    assert ranges(tick(project, instance)) == [("base.tiny@0", "mac.tiny-a@100")]
