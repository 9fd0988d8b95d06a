"""Dagster's settings where the project has none: the program's own hold, and what was there before is not lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from ml_pipeline.automation.dagster_home import dagster_home, defaults
from ml_pipeline.automation.local_runs import project_instance
from ml_pipeline.errors import SettingsError
from ml_pipeline.settings import Settings
from ml_pipeline.settings_file import load_settings

SHIPPED = Path(__file__).parents[2] / "dagster.yaml"


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("DAGSTER_HOME", "")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "pipeline.yaml").write_text("sources: {m: {type: local, path: runs}}\nbase_models: {m: {}}\n")
    return load_settings(tmp_path / "pipeline.yaml", {})


def test_what_is_shipped_says_the_same() -> None:
    shipped = yaml.safe_load(SHIPPED.read_text())
    assert {name: shipped[name] for name in defaults()} == defaults()


def test_without_a_dagster_yaml_nothing_is_reported_and_one_model_is_loaded_at_a_time(settings: Settings) -> None:
    with project_instance(settings) as instance:
        assert not instance.telemetry_enabled
        assert not instance.nux_enabled
        assert instance.run_retries_enabled
        assert instance.get_settings("concurrency") == defaults()["concurrency"]
        instance.add_dynamic_partitions("x", ["a"])
    with dg.DagsterInstance.get() as again:  # as every process that the program starts
        assert not again.telemetry_enabled
        assert again.get_dynamic_partitions("x") == ["a"]
    beside = {path.name for path in settings.root.iterdir()}
    assert beside == {"runs", "pipeline.yaml", "data"}


@pytest.mark.parametrize("before", [None, "run_monitoring: {enabled: false}\n"])
def test_databases_from_before_are_still_read(settings: Settings, before: str | None) -> None:
    if before is not None:
        (settings.root / "dagster.yaml").write_text(before)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAGSTER_HOME", str(settings.root))
        with dg.DagsterInstance.get() as old:
            old.add_dynamic_partitions("x", ["a"])
    with project_instance(settings) as instance:
        assert instance.get_dynamic_partitions("x") == ["a"]
        assert not instance.telemetry_enabled
        assert instance.run_monitoring_enabled is (before is None)


@pytest.mark.parametrize("said", [True, False])
def test_a_dagster_yaml_that_speaks_of_telemetry_is_taken_as_it_is(settings: Settings, said: bool) -> None:
    content: dict[str, Any] = {"telemetry": {"enabled": said}}
    (settings.root / "dagster.yaml").write_text(yaml.safe_dump(content))
    assert dagster_home(settings) == settings.root
    with project_instance(settings) as instance:
        assert instance.telemetry_enabled is said


@pytest.mark.parametrize("text", ["[", "- a\n", "\x00"])
def test_one_that_cannot_be_read_says_so(settings: Settings, text: str) -> None:
    (settings.root / "dagster.yaml").write_text(text)
    with pytest.raises(SettingsError, match=r"dagster\.yaml .*Mend it, or remove it"):
        dagster_home(settings)
