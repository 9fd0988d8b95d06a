"""Which base models of pipeline.yaml an adapter fits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ml_pipeline.adapters import Adapter
from ml_pipeline.adapters.inspect import misfit
from ml_pipeline.base_models import gguf_path
from ml_pipeline.cli.adapter_paths import settings_if_any
from ml_pipeline.errors import BackendError, SettingsError


@dataclass(frozen=True, slots=True)
class BaseFit:
    """Whether the adapter fits one base model. `reason` says why not; `fits` None: it could not be looked at."""

    name: str
    fits: bool | None
    reason: str = ""


def base_fits(adapter: Adapter) -> list[BaseFit]:
    """How it fits each base model of pipeline.yaml, if there is one."""
    settings = settings_if_any()
    if settings is None:
        return []
    fits = []
    for name, model in settings.base_models.items():
        if model.gguf is None:
            fits.append(BaseFit(name, None, "no GGUF in pipeline.yaml"))
            continue
        try:
            fits.append(base_fit(adapter, name, gguf_path(settings, name)))
        except (SettingsError, BackendError) as error:
            fits.append(BaseFit(name, None, str(error)))
    return fits


def base_fit(adapter: Adapter, name: str, base_gguf: Path) -> BaseFit:
    """How it fits one base model, called `name`; raises BackendError when its file cannot be read."""
    reason = misfit(adapter, base_gguf)
    return BaseFit(name, reason is None, reason or "")
