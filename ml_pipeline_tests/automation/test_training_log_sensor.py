"""The training-log sensor on a real folder with a real instance, and the runs that it asks for."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pytest

from ml_pipeline.assets.training_loss import training_loss
from ml_pipeline.automation import training_log_sensor as module
from ml_pipeline.automation.jobs import read_training_logs_job
from ml_pipeline.automation.partitions import range_tags
from ml_pipeline.automation.training_log_sensor import build_training_log_sensor
from ml_pipeline.resources import PipelineResource, build_resources
from ml_pipeline.settings import Settings
from ml_pipeline.settings_file import load_settings
from ml_pipeline.stores.duckdb import DuckDBStore
from ml_pipeline.stores.influx_buffer import InfluxBuffer
from ml_pipeline.stores.parquet import ParquetStore
from ml_pipeline.stores.tables import TRAINING_LOSS
from ml_pipeline.stores.training_points import training_points
from ml_pipeline_tests.servers import free_port
from ml_pipeline_tests.victoria_metrics import stored

SAMPLES = Path(__file__).parents[2] / "data" / "sample" / "checkpoints"
HOT, REASONING = "mac.smollm2-135m-hot", "mac.smollm2-135m-reasoning"
LOSS = dg.AssetKey("training_loss")


@dataclass
class Lab:
    """A project of two real training logs, ticked as the daemon does it."""

    root: Path
    instance: dg.DagsterInstance
    cursor: str | None = None

    @property
    def settings(self) -> Settings:
        return load_settings(self.root / "pipeline.yaml", environ={})

    def log(self, run: str) -> Path:
        return self.root / "runs" / f"adapters-smollm2-135m-{run}" / "training.log"

    def tick(self) -> dg.SensorResult | dg.SkipReason:
        context = dg.build_sensor_context(
            instance=self.instance,
            cursor=self.cursor,
            resources={"pipeline": PipelineResource(config_path=str(self.root / "pipeline.yaml"))},
        )
        result = build_training_log_sensor(5)(context)
        assert isinstance(result, dg.SensorResult | dg.SkipReason)
        if isinstance(result, dg.SensorResult):
            self.cursor = result.cursor
            for request in result.dynamic_partitions_requests or ():
                self.instance.add_dynamic_partitions("training_run", list(request.partition_keys))
        return result

    def request(self) -> dg.RunRequest:
        """The one run that a tick asks for."""
        result = self.tick()
        assert isinstance(result, dg.SensorResult)
        (request,) = result.run_requests or ()
        return request

    def execute(self, request: dg.RunRequest) -> dg.ExecuteInProcessResult:
        return self.job.execute_in_process(
            instance=self.instance, run_config=request.run_config, tags=dict(request.tags), raise_on_error=False
        )

    @property
    def job(self) -> dg.JobDefinition:
        definitions = dg.Definitions(
            assets=[training_loss],
            jobs=[read_training_logs_job],
            resources=build_resources(self.root / "pipeline.yaml", self.settings),
        )
        return definitions.resolve_job_def("read_training_logs_job")

    def agree(self) -> int:
        """Parquet, DuckDB and the points that wait must say the same; return the number of rows."""
        truth = ParquetStore(self.settings.parquet_path).read_all(TRAINING_LOSS)
        mirror = DuckDBStore(self.settings.duckdb_path).read("training_loss")
        order = [("partition_key", "ascending"), ("kind", "ascending"), ("iteration", "ascending")]
        assert truth.sort_by(order).to_pylist() == mirror.sort_by(order).to_pylist()
        expected = sorted(point.line() for point in training_points(truth.to_pylist()))
        assert sorted(InfluxBuffer(self.settings.influx_buffer_path).lines()) == expected
        return int(truth.num_rows)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    settings = {
        "sources": {"mac": {"type": "local", "path": "runs"}},
        "families": [{"prefix": "smollm2-135m", "model": "smollm2-135m", "short": "S135"}],
        "base_models": {"smollm2-135m": {}},
    }
    (tmp_path / "pipeline.yaml").write_text(json.dumps(settings))
    for name in ("adapters-smollm2-135m-hot", "adapters-smollm2-135m-reasoning"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        shutil.copy(SAMPLES / name / "training.log", tmp_path / "runs" / name)
        shutil.copy(SAMPLES / name / "adapter_config.json", tmp_path / "runs" / name)
    (tmp_path / "instance").mkdir()
    with dg.DagsterInstance.ephemeral(tempdir=str(tmp_path / "instance")) as instance:
        yield Lab(tmp_path, instance)


def asked(request: dg.RunRequest) -> list[str]:
    return list(request.run_config["ops"]["training_loss"]["config"]["runs"])


def recorded(result: dg.ExecuteInProcessResult) -> dict[str | None, dict[str, object]]:
    events = [event for event in result.all_events if event.is_step_materialization]
    return {
        event.partition: {name: value.value for name, value in event.materialization.metadata.items()}
        for event in events
    }


def test_one_run_reads_every_changed_log_and_all_stores_agree(lab: Lab) -> None:
    request = lab.request()
    assert asked(request) == [HOT, REASONING]
    assert list(lab.instance.get_dynamic_partitions("training_run")) == [HOT, REASONING]
    result = lab.execute(request)
    assert result.success
    metadata = recorded(result)
    assert set(metadata) == {HOT, REASONING}
    assert metadata[HOT]["dagster/row_count"] == metadata[HOT]["new_rows"] == metadata[HOT]["points"] == 17
    assert metadata[HOT]["last_val_loss"] == 6.352
    assert metadata[HOT]["best_val_loss"] == 2.056
    assert metadata[REASONING]["last_train_loss"] == 0.184
    assert metadata[REASONING]["dagster/row_count"] == 46
    assert lab.agree() == 17 + 46
    assert set(lab.instance.get_materialized_partitions(LOSS)) == {HOT, REASONING}


def test_only_what_grew_is_read_again(lab: Lab) -> None:
    lab.execute(lab.request())
    assert isinstance(skipped := lab.tick(), dg.SensorResult)
    assert not skipped.run_requests
    with lab.log("hot").open("a") as log:
        log.write("    65    4.000 ▼        7      4.2k\n    70    3.9")
    request = lab.request()
    assert asked(request) == [HOT]
    metadata = recorded(lab.execute(request))
    assert set(metadata) == {HOT}
    assert (metadata[HOT]["new_rows"], metadata[HOT]["dagster/row_count"]) == (1, 18)
    with lab.log("hot").open("a") as log:
        log.write("50 ▼        7      4.5k\n")
    assert recorded(lab.execute(lab.request()))[HOT]["last_train_loss"] == 3.95
    assert lab.agree() == 19 + 46


def test_a_reset_sensor_asks_by_the_same_name_and_nothing_is_written_twice(lab: Lab) -> None:
    first = lab.request()
    lab.execute(first)
    lab.cursor = None
    again = lab.request()
    assert again.run_key == first.run_key
    result = lab.execute(again)
    assert result.success
    assert recorded(result) == {}


@pytest.mark.parametrize("cursor", ["", "no JSON", "[]", '{"mac": {"x": [1, 2]}}'])
def test_a_cursor_that_cannot_be_read_is_an_empty_one(lab: Lab, cursor: str) -> None:
    lab.cursor = cursor
    assert asked(lab.request()) == [HOT, REASONING]


def test_files_that_are_no_logs_make_no_partition_until_they_are(lab: Lab) -> None:
    lab.tick()
    notes = lab.root / "runs" / "adapters-smollm2-135m-new" / "notes.txt"
    notes.parent.mkdir()
    notes.write_text("Iter was fine\n")
    assert isinstance(skipped := lab.tick(), dg.SensorResult)
    assert not skipped.run_requests
    notes.write_text("Iter was fine\nIter 10: Train loss 2.5\n")
    assert asked(lab.request()) == ["mac.smollm2-135m-new"]


def test_no_second_run_is_asked_for_while_one_goes_on(lab: Lab) -> None:
    lab.tick()
    with lab.log("hot").open("a") as log:
        log.write("    65    4.000 ▼        7      4.2k\n")
    before = lab.cursor
    going_on = lab.instance.create_run_for_job(lab.job, status=dg.DagsterRunStatus.STARTED)
    assert isinstance(lab.tick(), dg.SkipReason)
    assert lab.cursor == before
    lab.instance.report_run_failed(going_on)
    assert asked(lab.request()) == [HOT]


def test_what_passes_one_tick_is_left_for_the_next(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_LOGS_A_TICK", 1)
    assert [asked(lab.request()), asked(lab.request())] == [[HOT], [REASONING]]


def test_a_source_that_is_away_is_told_and_forgets_nothing(lab: Lab) -> None:
    lab.tick()
    before = lab.cursor
    (lab.root / "runs").rename(lab.root / "away")
    skipped = lab.tick()
    assert isinstance(skipped, dg.SensorResult)
    assert skipped.skip_reason is not None
    assert "1 problems" in (skipped.skip_reason.skip_message or "")
    assert lab.cursor == before
    (lab.root / "away").rename(lab.root / "runs")
    assert isinstance(again := lab.tick(), dg.SensorResult)
    assert not again.run_requests


def test_a_log_that_cannot_be_read_keeps_no_other_back(lab: Lab) -> None:
    request = lab.request()
    shutil.rmtree(lab.log("hot").parent)
    result = lab.execute(request)
    assert not result.success
    assert set(recorded(result)) == {REASONING}
    assert lab.agree() == 46


def test_a_partition_materialised_by_hand_is_read_from_its_start(lab: Lab) -> None:
    lab.execute(lab.request())
    result = lab.job.execute_in_process(instance=lab.instance, partition_key=HOT)
    assert recorded(result)[HOT]["new_rows"] == 17
    assert lab.agree() == 17 + 46


def test_a_backfill_of_several_partitions_is_one_run(lab: Lab) -> None:
    lab.tick()
    result = lab.job.execute_in_process(instance=lab.instance, tags=range_tags([HOT, REASONING]))
    assert set(recorded(result)) == {HOT, REASONING}
    assert lab.agree() == 17 + 46


def test_a_name_that_is_no_text_stops_nobody(lab: Lab) -> None:
    folder = os.fsencode(lab.root / "runs")
    Path(os.fsdecode(folder + b"/adapters-\xff")).mkdir()
    for name in (b"/adapters-\xff/training.log", b"/adapters-smollm2-135m-hot/\xff.log"):
        Path(os.fsdecode(folder + name)).write_bytes(b"Iter 10: Train loss 2.5\n")
    assert asked(lab.request()) == [HOT, REASONING]


def test_points_of_many_runs_wait_for_a_server_that_is_away_only_once(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = json.loads((lab.root / "pipeline.yaml").read_text())
    closed = f"http://127.0.0.1:{free_port()}"
    settings["stores"] = {"influx": {"url": closed, "timeout_s": 2}}
    (lab.root / "pipeline.yaml").write_text(json.dumps(settings))
    monkeypatch.setenv("INFLUX_TOKEN", "test")
    metadata = recorded(lab.execute(lab.request()))
    assert metadata[HOT]["points_waiting"] == 17
    assert metadata[REASONING]["waiting_because"] == metadata[HOT]["waiting_because"]
    assert "points_waiting" not in metadata[REASONING]
    assert lab.agree() == 17 + 46


def test_the_curve_reaches_a_real_server_loss_by_loss(
    lab: Lab, victoria_metrics: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = json.loads((lab.root / "pipeline.yaml").read_text())
    settings["stores"] = {"influx": {"url": f"{victoria_metrics}/influx"}}
    (lab.root / "pipeline.yaml").write_text(json.dumps(settings))
    began_s = 1_767_225_600
    for run in ("hot", "reasoning"):
        os.utime(lab.log(run).with_name("adapter_config.json"), (began_s, began_s))
    monkeypatch.setenv("INFLUX_TOKEN", "test")
    metadata = recorded(lab.execute(lab.request()))
    assert metadata[HOT]["points_sent"] == 17
    assert metadata[HOT]["points_waiting"] == 0
    arrived = stored(victoria_metrics, "training_loss_loss")
    curve = arrived["training_loss_loss", "val", "smollm2-135m", "smollm2-135m-hot"]
    assert curve == [
        (began_s * 1000 + iteration * 10, loss)
        for iteration, loss in ((1, 2.570), (15, 2.440), (30, 2.056), (45, 5.578), (60, 6.352))
    ]
    assert len(arrived["training_loss_loss", "train", "smollm2-135m", "smollm2-135m-reasoning"]) == 40
