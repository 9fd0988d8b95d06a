"""What the discovery sensor asks for, tick by tick, on a real folder with a real instance."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from ml_pipeline.alerts.outbox import Outbox
from ml_pipeline.assets.run_freshness import runs_go_on
from ml_pipeline.assets.specs import training_runs
from ml_pipeline.automation import discovery_sensor
from ml_pipeline.automation.discovery_sensor import build_discovery_sensor
from ml_pipeline.automation.source_health import SensorState
from ml_pipeline.checkpoints.catalogue import forget_everything
from ml_pipeline.checkpoints.source import LocalFolder
from ml_pipeline.history.importing import import_file
from ml_pipeline.resources import PipelineResource
from ml_pipeline_tests.checkpoints.files import SECOND_NS, write_checkpoint
from ml_pipeline_tests.history.original import buffered, lines, stores

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


def configure(project: Path, **sections: Any) -> None:
    path = project / "pipeline.yaml"
    path.write_text(json.dumps({**json.loads(path.read_text()), **sections}))


class Daemon:
    """Evaluates the sensor as Dagster's daemon does: adds partitions, knows runs by their run key, keeps the cursor."""

    def __init__(self, project: Path, instance: dg.DagsterInstance) -> None:
        self.project, self.instance = project, instance
        self.cursor: str | None = None
        self.run_keys: set[str | None] = set()

    def tick(self, *, dies: bool = False) -> list[tuple[str, str]]:
        """One tick; the ranges of the runs that it starts. With `dies` the daemon ends before it did anything."""
        context = dg.build_sensor_context(
            instance=self.instance,
            cursor=self.cursor,
            resources={"pipeline": PipelineResource(config_path=str(self.project / "pipeline.yaml"))},
        )
        result = build_discovery_sensor(5)(context)
        assert isinstance(result, dg.SensorResult | dg.SkipReason)
        skipped = result if isinstance(result, dg.SkipReason) else result.skip_reason
        self.skipped = None if skipped is None else skipped.skip_message or ""
        events = [] if isinstance(result, dg.SkipReason) else result.asset_events
        self.verdicts = [event for event in events if isinstance(event, dg.AssetCheckEvaluation)]
        if dies:
            return []
        if isinstance(result, dg.SkipReason):
            self.cursor = context.cursor
            return []
        for addition in result.dynamic_partitions_requests or ():
            self.instance.add_dynamic_partitions("checkpoint", list(addition.partition_keys))
        started = [request for request in result.run_requests or () if request.run_key not in self.run_keys]
        self.run_keys |= {request.run_key for request in started}
        self.cursor = result.cursor
        start, end = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"
        return [(request.tags[start], request.tags[end]) for request in started]


@pytest.fixture
def daemon(project: Path, instance: dg.DagsterInstance) -> Daemon:
    return Daemon(project, instance)


def one(key: str) -> list[tuple[str, str]]:
    return [(key, key)]


def test_new_checkpoints_become_partitions_and_runs_of_several(project: Path, daemon: Daemon) -> None:
    add(project, "a", 100, 200, 300, 400)
    assert daemon.tick() == [("base.tiny@0", "mac.tiny-a@200"), ("mac.tiny-a@300", "mac.tiny-a@400")]
    assert list(daemon.instance.get_dynamic_partitions("checkpoint")) == [
        "base.tiny@0",
        *(f"mac.tiny-a@{iteration}" for iteration in (100, 200, 300, 400)),
    ]


def test_only_what_is_new_is_asked_for(project: Path, daemon: Daemon) -> None:
    add(project, "a", 100)
    daemon.tick()
    assert daemon.tick() == []
    assert (daemon.skipped or "").startswith("Nothing new: 2 checkpoints known, 0 still being written, 0 problems.")
    add(project, "a", 200)
    assert daemon.tick() == one("mac.tiny-a@200")


def test_a_reset_cursor_scores_nothing_twice(project: Path, daemon: Daemon) -> None:
    add(project, "a", 100, 200)
    daemon.tick()
    add(project, "b", 100)
    daemon.tick()
    daemon.cursor = None
    assert daemon.tick() == []
    add(project, "b", 200)
    assert daemon.tick() == one("mac.tiny-b@200")


@pytest.mark.parametrize("deaths", [1, 3])
def test_what_a_dead_daemon_did_not_take_is_asked_for_again(project: Path, daemon: Daemon, deaths: int) -> None:
    add(project, "a", 100)
    for _ in range(deaths):
        daemon.tick(dies=True)
    add(project, "a", 200)
    assert daemon.tick() == [("base.tiny@0", "mac.tiny-a@100"), *one("mac.tiny-a@200")]
    assert daemon.tick() == []


def test_an_overwritten_checkpoint_is_scored_again_and_a_deleted_one_is_left_alone(
    project: Path, daemon: Daemon
) -> None:
    add(project, "a", 100, 200)
    daemon.tick()
    weights = project / "runs" / "adapters-tiny-a" / "0000100_adapters.safetensors"
    os.utime(weights, ns=(5 * SECOND_NS, 5 * SECOND_NS))
    configure(project, discovery={"full_look_s": 0})
    assert daemon.tick() == one("mac.tiny-a@100")
    assert daemon.tick() == []
    weights.unlink()
    assert daemon.tick() == []
    assert "mac.tiny-a@100" in daemon.instance.get_dynamic_partitions("checkpoint")


def test_what_was_scored_by_hand_or_before_the_ledger_was_lost_is_not_scored_again(
    project: Path, daemon: Daemon
) -> None:
    add(project, "a", 100, 200)
    daemon.instance.add_dynamic_partitions("checkpoint", ["base.tiny@0", "mac.tiny-a@100"])
    assert daemon.tick() == one("mac.tiny-a@200")
    (project / "data" / "dagster" / "requested.sqlite").unlink()
    assert daemon.tick() == []
    daemon.cursor = None
    assert daemon.tick() == []
    add(project, "a", 300)
    assert daemon.tick() == one("mac.tiny-a@300")


def test_a_source_that_fails_waits_longer_each_time_and_holds_no_other_up(
    project: Path, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = 1_000_000.0
    monkeypatch.setattr("ml_pipeline.automation.discovery_sensor.time.time", lambda: clock)
    away = {"type": "local", "path": "away"}
    configure(project, sources={"mac": {"type": "local", "path": "runs"}, "lab": away})
    add(project, "a", 100)
    assert daemon.tick() == [("base.tiny@0", "mac.tiny-a@100")]
    waits = []
    for _ in range(9):
        state = SensorState.from_cursor(daemon.cursor)
        waits.append(state.failing["lab"].retry_at_s - clock)
        assert "away" in state.failing["lab"].reason
        clock = state.failing["lab"].retry_at_s - 1
        assert daemon.tick() == []
        assert f"Source lab failed {len(waits)} times in a row, next try in 1 s" in (daemon.skipped or "")
        clock += 2
        daemon.tick()
    assert waits == [5, 10, 20, 40, 80, 160, 320, 640, 900]
    (project / "away").mkdir()
    clock += 1000
    daemon.tick()
    assert SensorState.from_cursor(daemon.cursor).failing == {}


def test_a_slow_source_fails_alone(project: Path, daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    configure(project, sources={name: {"type": "local", "path": "runs"} for name in ("mac", "slow")})
    add(project, "a", 100)
    answer = threading.Event()
    look = LocalFolder.list_folder
    monkeypatch.setattr(discovery_sensor, "_LONGEST_LOOK_S", 0.5)
    monkeypatch.setattr(
        LocalFolder, "list_folder", lambda self, path: (self.name == "slow" and answer.wait(), look(self, path))[1]
    )
    assert daemon.tick() == [("base.tiny@0", "mac.tiny-a@100")]
    assert "no answer after" in SensorState.from_cursor(daemon.cursor).failing["slow"].reason
    answer.set()


def test_a_file_still_being_written_waits(project: Path, daemon: Daemon) -> None:
    add(project, "a", 100)
    growing = project / "runs" / "adapters-tiny-a" / "0000200_adapters.safetensors"
    shutil.copy(growing.with_name("0000100_adapters.safetensors"), growing)
    whole = growing.read_bytes()
    growing.write_bytes(whole[:-8])
    daemon.tick()
    assert "mac.tiny-a@200" not in daemon.instance.get_dynamic_partitions("checkpoint")
    growing.write_bytes(whole)
    assert daemon.tick() == one("mac.tiny-a@200")


def test_wrong_settings_and_a_missing_folder_are_told_and_mend_themselves(project: Path, daemon: Daemon) -> None:
    add(project, "a", 100)
    whole = (project / "pipeline.yaml").read_text()
    (project / "pipeline.yaml").write_text(whole.replace('"local"', '"loacl"'))
    daemon.tick()
    assert "sources.mac" in (daemon.skipped or "")
    (project / "pipeline.yaml").write_text(whole)
    assert daemon.tick() == [("base.tiny@0", "mac.tiny-a@100")]


def test_a_cursor_of_another_version_is_a_new_beginning() -> None:
    for cursor in (None, "", "{", "17", '{"generation": "x"}', '{"failing": {"mac": {}}}'):
        assert SensorState.from_cursor(cursor) == SensorState()


def test_a_damaged_ledger_is_named(project: Path, daemon: Daemon) -> None:
    add(project, "a", 100)
    path = project / "data" / "dagster" / "requested.sqlite"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"no database at all" * 100)
    assert daemon.tick() == []
    assert str(path) in (daemon.skipped or "")


def test_what_another_program_scored_is_asked_for_only_when_it_changes(project: Path, daemon: Daemon) -> None:
    folder = project / "data"
    import_file(stores(folder), lines(project / "buffer.jsonl", [buffered(100, run="tiny-a")]), line_bytes=10_000)
    add(project, "a", 100, 200)
    assert daemon.tick() == [("base.tiny@0", "mac.tiny-a@200")]
    assert "mac.tiny-a@100" not in daemon.instance.get_dynamic_partitions("checkpoint")
    assert daemon.tick() == []
    write_checkpoint(project / "runs" / "adapters-tiny-a", "0000100_adapters.safetensors", mtime_ns=5 * SECOND_NS)
    forget_everything()
    assert daemon.tick() == one("mac.tiny-a@100")


def write_run(project: Path, run: str, *ages_s: float, iters: int | None = None) -> None:
    """A run whose checkpoints were written so many seconds ago, of a training of so many iterations."""
    for number, age_s in enumerate(ages_s, start=1):
        folder = project / "runs" / f"adapters-tiny-{run}"
        mtime_ns = time.time_ns() - int(age_s * SECOND_NS)
        write_checkpoint(folder, f"{100 * number:07d}_adapters.safetensors", mtime_ns=mtime_ns)
        if iters is not None:
            (folder / "adapter_config.json").write_text(json.dumps({"iters": iters}))


def alerts(project: Path) -> list[str]:
    waiting = Outbox(project / "data" / "dagster" / "alerts").waiting(10)
    return [one.description for one in waiting.values()]


def test_a_run_that_stalls_is_recorded_and_told_once_and_again_when_it_goes_on(project: Path, daemon: Daemon) -> None:
    configure(project, alerts={"webhook": "https://hooks.example/T0SECRET"})
    write_run(project, "a", 900, 600, 300)
    write_run(project, "through", 9000, 8000, 7000, iters=300)
    daemon.tick()
    (first,) = daemon.verdicts
    assert (first.passed, first.check_name, first.asset_key.to_user_string()) == (True, "runs_go_on", "training_runs")
    daemon.tick()
    assert daemon.verdicts == []
    write_run(project, "b", 9000, 8000, 7000, iters=1000)
    daemon.tick()
    (stalled,) = daemon.verdicts
    assert (stalled.passed, stalled.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert (stalled.description or "").startswith("mac/tiny-b: nothing since iteration 300 at 2")
    assert (stalled.description or "").endswith(" UTC, usually every 16.7 min")
    daemon.tick()
    assert daemon.verdicts == []
    assert alerts(project) == [stalled.description]
    (project / "runs").rename(project / "away")
    daemon.tick()
    assert daemon.verdicts == [], "a source that cannot be seen tells nothing of its runs"
    (project / "away").rename(project / "runs")
    state = SensorState.from_cursor(daemon.cursor)
    daemon.cursor = state.model_copy(update={"failing": {}}).model_dump_json()
    write_checkpoint(
        project / "runs" / "adapters-tiny-b", "0000400_adapters.safetensors", mtime_ns=time.time_ns() - 70 * SECOND_NS
    )
    daemon.tick()
    (recovered,) = daemon.verdicts
    assert recovered.passed
    assert alerts(project) == [stalled.description]


def test_the_check_of_runs_can_be_executed_by_hand(project: Path, instance: dg.DagsterInstance) -> None:
    write_run(project, "b", 9000, 8000, 7000)
    pipeline = PipelineResource(config_path=str(project / "pipeline.yaml"))
    definitions = dg.Definitions(assets=[training_runs], asset_checks=[runs_go_on], resources={"pipeline": pipeline})
    result = definitions.resolve_implicit_global_asset_job_def().execute_in_process(instance=instance)
    (found,) = result.get_asset_check_evaluations()
    assert not found.passed
    assert (found.description or "").startswith("mac/tiny-b: nothing since iteration 300")
