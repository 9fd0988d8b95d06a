"""A base model made ready for a run: who answers, and how the adapters of checkpoints get to it."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import paramiko

from ml_pipeline.backend_settings import (
    AnyBackend,
    HttpSettings,
    LlamaCppSettings,
    LlamaServerSettings,
    MlxServerSettings,
    MlxSettings,
)
from ml_pipeline.backends.completion_cache import CachedBackend, CompletionCache
from ml_pipeline.backends.cpu_threads import give_way
from ml_pipeline.backends.http import HttpBackend
from ml_pipeline.backends.interface import Backend
from ml_pipeline.backends.llama_cpp import LlamaCppBackend, decoded_weights
from ml_pipeline.backends.llama_server import LlamaServerBackend
from ml_pipeline.backends.mlx import MlxBackend
from ml_pipeline.backends.mlx_server import LocalLauncher, MlxServerBackend, SshLauncher
from ml_pipeline.base_models import backend_settings, gguf_path, mlx_model, mlx_model_here
from ml_pipeline.checkpoints.ssh.connection import POOL
from ml_pipeline.checkpoints.ssh.route import plan_route
from ml_pipeline.errors import BackendError, SourceUnreachableError
from ml_pipeline.evaluation.placement import Placement, folder_on_host, host_of
from ml_pipeline.evaluation.prepare import AdapterFiles, InPlace, Preparer
from ml_pipeline.evaluation.stages import needs_adapter, needs_model
from ml_pipeline.settings import Settings
from ml_pipeline.source_settings import SshSource


@dataclass(frozen=True, slots=True)
class ReadyModel:
    """What the stages of a run work with; each is None when none of them needs it."""

    backend: Backend | None
    adapters: AdapterFiles | None


@contextmanager
def ready_model(
    settings: Settings, place: Placement, stages: Collection[str], preparer: Preparer, cache_file: Path
) -> Iterator[ReadyModel]:
    """Load as much of a base model as these stages need, for as long as the context lasts.

    Finished completions are kept in `cache_file`. Raises SettingsError, BackendError, StoreError.
    """
    ask = needs_model(stages, settings.judge)
    if not ask and not needs_adapter(stages):
        yield ReadyModel(None, None)
    elif not ask and (adapters := _prepared_adapters(settings, place, preparer)):
        yield ReadyModel(None, adapters)
    else:
        runner = backend_settings(settings, place.base_model)
        with (
            closing(open_backend(settings, runner, place)) as backend,
            closing(CompletionCache(cache_file)) as cache,
        ):
            yield ReadyModel(CachedBackend(backend, cache), _adapters_for(settings, place, preparer, backend))


def open_backend(settings: Settings, runner: AnyBackend, place: Placement) -> Backend:
    """Load a bare base model with the backend that is to run it; the caller closes it.

    Raises SettingsError, BackendError, StoreError.
    """
    name = place.base_model
    if isinstance(runner, LlamaCppSettings | LlamaServerSettings | MlxSettings) and runner.priority == "low":
        give_way()
    match runner:
        case LlamaCppSettings():
            gguf = gguf_path(settings, name)
            decoded = decoded_weights(gguf, settings.decoded_bases_path) if runner.weights == "f16" else None
            options = runner.model_dump(exclude={"type", "weights", "priority"})
            return LlamaCppBackend(gguf, name, decoded=decoded, trials=settings.trials_path, **options)
        case LlamaServerSettings():
            return LlamaServerBackend(gguf_path(settings, name), name, runner, trials=settings.trials_path)
        case MlxSettings():
            return MlxBackend(mlx_model_here(settings, name), name, runner, trials=settings.trials_path)
        case MlxServerSettings():
            return MlxServerBackend(_launcher(settings, place), mlx_model(settings, name), name, runner)
        case HttpSettings():
            return HttpBackend(name, runner)


def _prepared_adapters(settings: Settings, place: Placement, preparer: Preparer) -> AdapterFiles | None:
    """How adapters are fetched and converted without a model; None where only the backend itself can see them."""
    match backend_settings(settings, place.base_model):
        case LlamaCppSettings() | LlamaServerSettings():
            return preparer.as_gguf(gguf_path(settings, place.base_model))
        case MlxSettings():
            return preparer.as_saved()
        case HttpSettings():
            return preparer.as_peft()
        case MlxServerSettings():
            return None


def _adapters_for(settings: Settings, place: Placement, preparer: Preparer, backend: Backend) -> AdapterFiles:
    """How adapters get to this backend."""
    if isinstance(backend, MlxServerBackend):
        assert place.source is not None
        return InPlace(backend, folder_on_host(settings, place.source))
    adapters = _prepared_adapters(settings, place, preparer)
    assert adapters is not None
    return adapters


def _launcher(settings: Settings, place: Placement) -> LocalLauncher | SshLauncher:
    assert place.source is not None
    source, host = place.source, host_of(settings, place.source)
    if not isinstance(host, SshSource):
        return LocalLauncher()
    route = plan_route(host)

    def open_transport() -> paramiko.Transport:
        try:
            transport: paramiko.Transport = POOL.get(f"source {source}", route).transport
        except SourceUnreachableError as error:
            raise BackendError(str(error)) from error
        return transport

    return SshLauncher(host.host, open_transport)
