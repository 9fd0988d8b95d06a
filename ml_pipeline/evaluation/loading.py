"""A base model made ready for a run: who answers, and how the adapters of checkpoints get to it."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import paramiko

from ml_pipeline.backend_settings import AnyBackend, LlamaCppSettings, MlxServerSettings
from ml_pipeline.backends.completion_cache import CachedBackend, CompletionCache
from ml_pipeline.backends.interface import Backend
from ml_pipeline.backends.llama_cpp import LlamaCppBackend
from ml_pipeline.backends.mlx_server import LocalLauncher, MlxServerBackend, SshLauncher
from ml_pipeline.base_models import backend_settings, gguf_path, mlx_model
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
    runner, name = backend_settings(settings, place.base_model), place.base_model
    ask = needs_model(stages, settings.judge)
    if not ask and not needs_adapter(stages):
        yield ReadyModel(None, None)
    elif isinstance(runner, LlamaCppSettings):
        gguf = gguf_path(settings, name)
        adapters = preparer.for_base(gguf)
        if not ask:
            yield ReadyModel(None, adapters)
            return
        with closing(_llama_cpp(runner, gguf, name)) as backend, closing(CompletionCache(cache_file)) as cache:
            yield ReadyModel(CachedBackend(backend, cache), adapters)
    else:
        # Adapters are checked where they lie, by what the server is started with.
        with closing(_mlx_server(settings, runner, place)) as server, closing(CompletionCache(cache_file)) as cache:
            assert place.source is not None
            yield ReadyModel(CachedBackend(server, cache), InPlace(server, folder_on_host(settings, place.source)))


def open_backend(settings: Settings, runner: AnyBackend, place: Placement) -> Backend:
    """Load a bare base model, such as a judge, with the backend that is to run it; the caller closes it.

    Raises SettingsError, BackendError.
    """
    if isinstance(runner, MlxServerSettings):
        return _mlx_server(settings, runner, place)
    return _llama_cpp(runner, gguf_path(settings, place.base_model), place.base_model)


def _llama_cpp(runner: LlamaCppSettings, gguf: Path, name: str) -> LlamaCppBackend:
    return LlamaCppBackend(
        gguf,
        name,
        sequences=runner.sequences,
        context_tokens=runner.context_tokens,
        threads=runner.threads,
        gpu_layers=runner.gpu_layers,
    )


def _mlx_server(settings: Settings, runner: MlxServerSettings, place: Placement) -> MlxServerBackend:
    assert place.source is not None
    launcher = _launcher(settings, place.source)
    return MlxServerBackend(launcher, mlx_model(settings, place.base_model), place.base_model, runner)


def _launcher(settings: Settings, source: str) -> LocalLauncher | SshLauncher:
    host = host_of(settings, source)
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
