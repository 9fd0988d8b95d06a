"""The sensor that sends what waits, with a real server that is away first."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest

from ml_pipeline.automation import replay_sensor as module
from ml_pipeline.automation.replay_sensor import build_replay_sensor
from ml_pipeline.stores.io_managers import InfluxIOManager
from ml_pipeline_tests.influxd import DATABASE, LOGIN, Influxd
from ml_pipeline_tests.servers import free_port


def look(manager: InfluxIOManager) -> str:
    """What one tick of the sensor says."""
    with dg.DagsterInstance.ephemeral() as instance:
        result = build_replay_sensor(5)(
            dg.build_sensor_context(instance=instance, resources={"influx_io_manager": manager})
        )
    assert isinstance(result, dg.SkipReason)
    return result.skip_message or ""


def test_what_waits_is_sent_when_the_server_is_back(
    influxd: Influxd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INFLUX_TOKEN", LOGIN)
    folder = str(tmp_path / "buffer")
    unset = InfluxIOManager(buffer_folder=folder)
    away, back = (
        InfluxIOManager(buffer_folder=folder, url=url, api="v1", bucket=DATABASE)
        for url in (f"http://127.0.0.1:{free_port()}", influxd.url)
    )
    assert look(back) == "No points wait."
    unset.buffer().add("a@1", "m", ["m a=1 1", "no line"])
    assert "until stores.influx.url is set" in look(unset)
    assert "0 points sent, 2 wait: " in look(away)
    monkeypatch.setenv("INFLUX_TOKEN", "alone")
    assert "user:password" in look(back)
    monkeypatch.setenv("INFLUX_TOKEN", LOGIN)
    monkeypatch.setattr(module, "_SECONDS_A_LOOK", 0.0)
    assert "0 points sent, 2 wait: the 0 s for one look are over" in look(back)
    monkeypatch.setattr(module, "_SECONDS_A_LOOK", 20.0)
    assert look(back) == "1 points sent, 0 wait."
    assert influxd.points() == {("m", 1, ()): {"a": 1}}
    assert (tmp_path / "buffer" / "rejected" / "a@1~m.lp").read_text() == "no line\n"
