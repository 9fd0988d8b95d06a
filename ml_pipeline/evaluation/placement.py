"""Where a checkpoint is scored: in this process, or on the host of its source."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath

from ml_pipeline.addresses import shown_url
from ml_pipeline.backend_settings import AnyBackend, MlxServerSettings
from ml_pipeline.base_models import backend_settings
from ml_pipeline.checkpoints.checkpoint import Checkpoint
from ml_pipeline.errors import SettingsError
from ml_pipeline.settings import Settings
from ml_pipeline.source_settings import FsspecSource, LocalSource, SshSource


@dataclass(frozen=True, slots=True)
class Placement:
    """A base model, and the source on whose host it runs; None for this process."""

    base_model: str
    source: str | None


def placement(settings: Settings, checkpoint: Checkpoint) -> Placement:
    """Where this checkpoint is scored; raises SettingsError when its base model is not configured."""
    backend = backend_settings(settings, checkpoint.base_model)
    if not isinstance(backend, MlxServerSettings):
        return Placement(checkpoint.base_model, None)
    if checkpoint.is_base:
        return base_placement(settings, checkpoint.base_model, backend)
    return Placement(checkpoint.base_model, checkpoint.source)


def base_placement(settings: Settings, name: str, backend: AnyBackend) -> Placement:
    """Where a bare base model runs on this backend."""
    if not isinstance(backend, MlxServerSettings):
        return Placement(name, None)
    return Placement(name, backend.source or next(iter(settings.sources)))


def host_of(settings: Settings, source: str) -> LocalSource | SshSource:
    """The source as a host that can run a model; raises SettingsError for object storage, which cannot."""
    found = settings.sources[source]
    if isinstance(found, FsspecSource):
        raise SettingsError(
            f"sources.{source}: mlx_server runs a model where the checkpoints are, and {shown_url(found.url)} is no "
            "host that can. Let its base models use the backend llama_cpp, or name a host for them in the "
            "backend's `source`."
        )
    return found


def folder_on_host(settings: Settings, source: str) -> PurePath:
    """The folder of a source's checkpoints on its host, relative to the user's home there or absolute."""
    host = host_of(settings, source)
    return host.path if isinstance(host, SshSource) else settings.path(host.path)
