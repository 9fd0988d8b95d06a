"""The alert sensor with a real server that takes its posts: each failure once, none lost, and none while it is off."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest

from ml_pipeline.assets.check_specs import NOT_WORSE_THAN_BASE
from ml_pipeline.assets.checks import evaluation
from ml_pipeline.assets.failed_checks import keep_to_be_told
from ml_pipeline.automation import alert_sensor as module
from ml_pipeline.automation.alert_sensor import build_alert_sensor
from ml_pipeline.monitoring_settings import Severity
from ml_pipeline.resources import PipelineResource
from ml_pipeline.settings_file import load_settings
from ml_pipeline_tests.hook_server import HookServer, hook_server
from ml_pipeline_tests.servers import free_port

SECRET = "T0SECRET"


class Lab:
    """A project whose alerts go to a server, and the cursor of the sensor."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.cursor: str | None = None
        self.warnings: list[str] = []
        self.now_s = 1_000_000.0
        monkeypatch.setattr(module, "time", SimpleNamespace(time=lambda: self.now_s))

    def configure(self, **alerts: Any) -> None:
        settings = {
            "sources": {"mac": {"type": "local", "path": "runs"}},
            "base_models": {"tiny": {}},
            "alerts": alerts,
        }
        (self.root / "pipeline.yaml").write_text(json.dumps(settings))

    def fail(self, key: str, severity: Severity = "error", *, passed: bool = False) -> None:
        settings = load_settings(self.root / "pipeline.yaml", environ={})
        found = evaluation(NOT_WORSE_THAN_BASE, key, severity, passed, f"{key} is worse")
        keep_to_be_told(settings, found, self.warnings.append)

    def look(self) -> str:
        with dg.DagsterInstance.ephemeral() as instance:
            context = dg.build_sensor_context(
                instance=instance,
                cursor=self.cursor,
                resources={"pipeline": PipelineResource(config_path=str(self.root / "pipeline.yaml"))},
            )
            result = build_alert_sensor(30)(context)
        assert isinstance(result, dg.SkipReason)
        self.cursor = context.cursor
        return result.skip_message or ""


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    return Lab(tmp_path, monkeypatch)


@pytest.fixture
def server() -> Iterator[HookServer]:
    with hook_server() as running:
        yield running


def told(server: HookServer) -> list[list[str]]:
    return [[one["partition"] for one in content["failed_checks"]] for _, content in server.posted]


def test_each_failure_is_told_once(lab: Lab, server: HookServer) -> None:
    lab.configure(webhook=f"{server.url}/{SECRET}", fields={"topic": "ml"})
    assert lab.look() == "No failed check waits to be told."
    lab.fail("mac.a@1")
    lab.fail("mac.a@2")
    lab.fail("mac.a@3", passed=True)
    assert lab.look() == "2 failed checks told."
    assert lab.look() == "No failed check waits to be told."
    lab.fail("mac.a@4")
    lab.look()
    assert told(server) == [["mac.a@1", "mac.a@2"], ["mac.a@4"]]
    path, content = server.posted[0]
    assert path == f"/{SECRET}"
    assert content["topic"] == "ml"
    assert content["text"].startswith("ml_pipeline: 2 checks failed\nERROR mac.a@1 not_worse_than_base: mac.a@1 is ")


def test_a_dead_server_is_tried_again_with_growing_waits_and_nothing_is_lost(lab: Lab, server: HookServer) -> None:
    lab.configure(webhook=f"http://127.0.0.1:{free_port()}/{SECRET}", timeout_s=2)
    lab.fail("mac.a@1")
    said = lab.look()
    assert said.startswith("1 failed checks wait: alerts.webhook: http://127.0.0.1:")
    assert "cannot be reached" in said
    lab.fail("mac.a@2")
    assert "The next try is in 30 s" in lab.look()
    lab.now_s += 30
    assert "2 failed checks wait" in lab.look()
    assert "The next try is in 60 s" in lab.look()
    assert SECRET not in said + (lab.cursor or "")
    for _ in range(20):
        lab.now_s += 900
        lab.look()
    assert "The next try is in 900 s" in lab.look()
    lab.now_s += 900
    lab.configure(webhook=f"{server.url}/{SECRET}")
    assert lab.look() == "2 failed checks told."
    assert told(server) == [["mac.a@1", "mac.a@2"]]
    lab.fail("mac.a@3")
    assert lab.look() == "1 failed checks told."


def test_a_server_that_refuses_or_hangs_keeps_them_waiting(lab: Lab, server: HookServer) -> None:
    lab.configure(webhook=server.url, timeout_s=0.3)
    lab.fail("mac.a@1")
    for answer, words in ((500, "status 500"), ("hang", "did not answer within 0.3 s"), (404, "status 404")):
        server.answer = answer
        assert words in lab.look()
        lab.now_s += 900
    server.answer = 200
    assert lab.look() == "1 failed checks told."


def test_without_a_webhook_nothing_is_kept_or_told(lab: Lab) -> None:
    lab.configure()
    lab.fail("mac.a@1")
    assert "No alerts.webhook is set" in lab.look()
    assert not (lab.root / "data").exists()


def test_warnings_are_told_only_if_wanted(lab: Lab, server: HookServer) -> None:
    lab.configure(webhook=server.url, severity="error")
    lab.fail("mac.a@1", "warn")
    lab.fail("mac.a@2", "error")
    lab.look()
    assert told(server) == [["mac.a@2"]]


def test_an_outbox_that_cannot_be_written_is_a_warning(lab: Lab, server: HookServer) -> None:
    lab.configure(webhook=f"{server.url}/{SECRET}")
    (lab.root / "data").write_text("a file in the place of the folder")
    lab.fail("mac.a@1")
    (warning,) = lab.warnings
    assert warning.startswith("Nobody is told of not_worse_than_base of mac.a@1: cannot write ")
    assert SECRET not in warning


def test_many_failures_are_told_in_several_messages(
    lab: Lab, server: HookServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MOST_A_MESSAGE", 2)
    lab.configure(webhook=server.url)
    for number in range(3):
        lab.fail(f"mac.a@{number}")
    lab.look()
    lab.look()
    assert told(server) == [["mac.a@0", "mac.a@1"], ["mac.a@2"]]
