"""What assets and sensors are given by Dagster: the settings, and backends that load models."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import dagster as dg

from ml_pipeline.backends.completion_cache import CachedBackend, CompletionCache
from ml_pipeline.backends.interface import Backend
from ml_pipeline.backends.llama_cpp import LlamaCppBackend
from ml_pipeline.settings import Settings
from ml_pipeline.settings_file import load_settings
from ml_pipeline.stores.io_managers import DuckDBIOManager, InfluxIOManager, ParquetIOManager
from ml_pipeline.suites import load_suites
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


class LlamaCppResource(dg.ConfigurableResource[None]):
    """llama.cpp in this process, with a cache of finished completions so that a killed run repeats none."""

    sequences: int
    context_tokens: int
    threads: int | None
    gpu_layers: int
    cache_file: str

    @contextmanager
    def load(self, gguf: Path, base_model: str) -> Iterator[Backend]:
        """Load a base model for as long as the context lasts; raises BackendError."""
        backend = LlamaCppBackend(
            gguf,
            base_model,
            sequences=self.sequences,
            context_tokens=self.context_tokens,
            threads=self.threads,
            gpu_layers=self.gpu_layers,
        )
        try:
            with closing(CompletionCache(Path(self.cache_file))) as cache:
                yield CachedBackend(backend, cache)
        finally:
            backend.close()

    @classmethod
    def from_settings(cls, settings: Settings) -> LlamaCppResource:
        """As pipeline.yaml says."""
        backend = settings.backend
        return cls(
            sequences=backend.sequences,
            context_tokens=backend.context_tokens,
            threads=backend.threads,
            gpu_layers=backend.gpu_layers,
            cache_file=str(settings.cache_path / "completions.sqlite"),
        )


def build_resources(config: Path, settings: Settings) -> dict[str, Any]:
    """Every resource and IO manager by the name under which assets and sensors ask for it."""
    parquet, influx = str(settings.parquet_path), settings.stores.influx
    return {
        "pipeline": PipelineResource(config_path=str(config)),
        "backend": LlamaCppResource.from_settings(settings),
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
    """The enabled suites, the user's own folder included; raises SuiteError."""
    return load_suites(settings.suites.enabled, [settings.path(settings.suites.folder)])
