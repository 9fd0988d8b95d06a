"""Brings a checkpoint to the point where a backend can load it: found, fetched, validated, converted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ml_pipeline.adapters import ConvertedCache, read_adapter
from ml_pipeline.adapters.adapter import Adapter
from ml_pipeline.backends.interface import AdapterFile
from ml_pipeline.checkpoints.catalogue import Catalogue
from ml_pipeline.checkpoints.checkpoint import Checkpoint
from ml_pipeline.checkpoints.fetch import FetchCache
from ml_pipeline.settings import Settings


@dataclass(frozen=True, slots=True)
class Preparer:
    """Fetches and converts adapters into the caches under data_dir."""

    catalogue: Catalogue
    fetched: FetchCache
    converted: ConvertedCache

    @classmethod
    def from_settings(cls, settings: Settings, catalogue: Catalogue) -> Preparer:
        """Caches where the settings put them."""
        return cls(
            catalogue,
            FetchCache(settings.cache_path / "fetched", settings.limits.adapter_bytes),
            ConvertedCache(settings.cache_path / "converted"),
        )

    def adapter(self, checkpoint: Checkpoint) -> Adapter | None:
        """The checkpoint's adapter, fetched and validated; None for a bare base model."""
        if checkpoint.is_base:
            return None
        files = self.fetched.fetch(self.catalogue.source(checkpoint.source), checkpoint)
        return read_adapter(files.weights, files.config)

    def converted_adapter(self, adapter: Adapter | None, base_gguf: Path) -> AdapterFile | None:
        """The adapter in the form that the backend loads; None for a bare base model."""
        if adapter is None:
            return None
        return AdapterFile(self.converted.converted(adapter, base_gguf), adapter.sha256)
