"""`ml-pipeline replay` and `retime`, with a real server."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from ml_pipeline.cli import main
from ml_pipeline.settings import Settings
from ml_pipeline.settings_file import load_settings
from ml_pipeline.stores.influx_buffer import InfluxBuffer
from ml_pipeline.stores.parquet import ParquetStore
from ml_pipeline.stores.tables import TABLES
from ml_pipeline_tests.influxd import DATABASE, LOGIN, Influxd
from ml_pipeline_tests.project import REPOSITORY
from ml_pipeline_tests.stores.samples import MTIME_NS, evaluation_row, identity, key, score_rows


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def configure(root: Path, **influx: object) -> Settings:
    shipped = yaml.safe_load((REPOSITORY / "pipeline.yaml").read_text())
    kept = {name: shipped[name] for name in ("families", "base_models", "backend", "judge")}
    settings = {"sources": {"lab": {"type": "local", "path": "runs"}}, **kept, "stores": {"influx": influx}}
    (root / "pipeline.yaml").write_text(yaml.safe_dump(settings))
    return load_settings(root / "pipeline.yaml", environ={})


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ML_PIPELINE_CONFIG", str(tmp_path / "pipeline.yaml"))
    monkeypatch.setenv("INFLUX_TOKEN", LOGIN)
    settings = configure(tmp_path)
    who = identity(100)
    parquet = ParquetStore(settings.parquet_path)
    parquet.write(TABLES["evaluations"], key(), [evaluation_row(who)])
    parquet.write(TABLES["checkpoint_scores"], key(), score_rows(who, arithmetic=(1, 2)))
    return tmp_path


def test_replay_sends_what_waits_and_on_request_what_was_rejected(project: Path, influxd: Influxd) -> None:
    buffer = InfluxBuffer(configure(project).influx_buffer_path)
    buffer.add(key(), "m", ["m a=1 1", "no line"])
    unset = run("replay")
    assert (unset.exit_code, "stores.influx.url is not set" in unset.output) == (2, True)
    configure(project, url=influxd.url, api="v1", bucket="nowhere")
    stopped = run("replay")
    assert stopped.exit_code == 1
    assert "0 points sent, 2 wait" in stopped.output
    assert "database not found" in stopped.output
    configure(project, url=influxd.url, api="v1", bucket=DATABASE)
    sent = run("replay")
    assert sent.exit_code == 1
    assert "1 points sent, 0 wait" in sent.output
    assert "1 points of lab.g1-lek@100~m were rejected and are kept in" in sent.output
    assert "unable to parse 'no line'" in sent.output
    assert run("replay").exit_code == 0
    (buffer.folder / "rejected" / f"{key()}~m.lp").write_text("m a=2 2\n")  # Mended by hand.
    again = run("replay", "--rejected")
    assert (again.exit_code, "1 rejected batches wait again." in again.output) == (0, True)
    assert influxd.points() == {("m", 1, ()): {"a": 1}, ("m", 2, ()): {"a": 2}}


def test_retime_says_what_it_would_do_and_does_it(project: Path, influxd: Influxd) -> None:
    def times() -> list[int]:
        return sorted(time_ns for _, time_ns, _ in influxd.points())

    original = [(1_739_577_600 + 100_000 + i) * 10**9 for i in range(2)]
    configure(project, url=influxd.url, api="v1", bucket=DATABASE)
    first = run("retime")
    assert first.exit_code == 0, first.output
    assert times() == [MTIME_NS, MTIME_NS + 1]
    configure(project, url=influxd.url, api="v1", bucket=DATABASE, time_base="original")
    told = run("retime", "--dry-run")
    assert told.exit_code == 0
    assert "Would rewrite 2 points in" in told.output
    assert "from time base 'real' to 'original': 1 runs, 1 partitions" in told.output
    assert "new times from 2025-02-16 03:46 to 2025-02-16 03:46 UTC" in told.output
    assert "capability_score: 2" in told.output
    assert f"deleted: DELETE in database {DATABASE}" in told.output
    assert times() == [MTIME_NS, MTIME_NS + 1]
    kept = run("retime", "--keep-old")
    assert (kept.exit_code, "old times: kept" in kept.output) == (0, True)
    assert times() == sorted([MTIME_NS, MTIME_NS + 1, *original])
    done = run("retime")
    assert done.exit_code == 0
    assert "runs rewritten: 1 of 1" in done.output
    assert times() == original


def test_retime_on_influxdb_3_asks_for_a_decision(project: Path) -> None:
    configure(project, url="http://127.0.0.1:9", api="v3")
    refused = run("retime")
    assert (refused.exit_code, "--keep-old" in refused.output) == (1, True)
    told = run("retime", "--dry-run")
    assert (told.exit_code, "in the way: InfluxDB 3 cannot delete" in told.output) == (0, True)
