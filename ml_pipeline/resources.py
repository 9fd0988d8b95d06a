"""What assets and sensors are given by Dagster: the settings, and backends that load models."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import dagster as dg

from ml_pipeline.errors import SettingsError
from ml_pipeline.evaluation.judges import Judges
from ml_pipeline.evaluation.loading import ReadyModel, ready_model
from ml_pipeline.evaluation.placement import Placement
from ml_pipeline.evaluation.prepare import Preparer
from ml_pipeline.settings import Settings, suggest
from ml_pipeline.settings_file import load_settings
from ml_pipeline.stores.io_managers import DuckDBIOManager, InfluxIOManager, ParquetIOManager
from ml_pipeline.suites import available_suites, load_suites
from ml_pipeline.suites.suite import Suite


class PipelineResource(dg.ConfigurableResource[None]):
    """The settings and suites, read anew in every run, so that a changed pipeline.yaml needs no restart."""

    config_path: str

    def settings(self) -> Settings:
        """The settings as they are now; raises SettingsError."""
        return load_settings(Path(self.config_path))

    def suites(self) -> tuple[Suite, ...]:
        """The enabled suites as they are now; raises SuiteError."""
        return suites_of(self.settings())


class BackendResource(dg.ConfigurableResource[None]):
    """The backends that pipeline.yaml names, with a cache of finished completions so that a killed run repeats none."""

    cache_file: str

    def load(
        self, settings: Settings, place: Placement, stages: Collection[str], preparer: Preparer
    ) -> AbstractContextManager[ReadyModel]:
        """As much of a base model as these stages need, for as long as the context lasts; see `ready_model`."""
        return ready_model(settings, place, stages, preparer, Path(self.cache_file))

    def judges(self, settings: Settings, note: Callable[[str], None]) -> Judges:
        """The judges that the settings name, for as long as the context lasts; `note` takes what is worth a line."""
        return Judges(settings, Path(self.cache_file), note)


def build_resources(config: Path, settings: Settings) -> dict[str, Any]:
    """Every resource and IO manager by the name under which assets and sensors ask for it."""
    parquet, influx = str(settings.parquet_path), settings.stores.influx
    return {
        "pipeline": PipelineResource(config_path=str(config)),
        "backend": BackendResource(cache_file=str(settings.cache_path / "completions.sqlite")),
        "parquet_io_manager": ParquetIOManager(folder=parquet),
        "duckdb_io_manager": DuckDBIOManager(
            path=str(settings.duckdb_path), folder=parquet, lock_timeout_s=settings.stores.duckdb_lock_timeout_s
        ),
        "influx_io_manager": InfluxIOManager(
            buffer_folder=str(settings.influx_buffer_path),
            **influx.model_dump(mode="json", exclude={"time_base"}),
        ),
    }


def suites_of(settings: Settings) -> tuple[Suite, ...]:
    """The enabled suites, the user's own folder included; raises SuiteError.

    Raises SettingsError where `generation` of a base model names a suite that there is not; one that there is need not
    be enabled.
    """
    folders = [settings.path(settings.suites.folder)]
    suites = load_suites(settings.suites.enabled, folders)
    known = {*settings.suites.enabled, *available_suites(folders)}
    problems = [
        f"base_models.{name}.generation.{suite}: no suite called {suite!r}{suggest(suite, known)}"
        for name, model in settings.base_models.items()
        for suite in model.generation
        if suite not in known
    ]
    if problems:
        raise SettingsError("\n".join(problems))
    return suites
