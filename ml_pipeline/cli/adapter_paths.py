"""From what a user writes on the command line to the files of an adapter or a base model."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

from ml_pipeline.base_models import gguf_path
from ml_pipeline.checkpoints.cache_room import CacheRoom
from ml_pipeline.checkpoints.catalogue import Catalogue
from ml_pipeline.checkpoints.fetch import FetchCache, FetchedFiles
from ml_pipeline.checkpoints.layouts import config_name
from ml_pipeline.checkpoints.naming import parse_partition_key
from ml_pipeline.cli.shared import current_settings
from ml_pipeline.errors import CheckpointError, SettingsError
from ml_pipeline.progress import ProgressListener
from ml_pipeline.settings import Settings
from ml_pipeline.settings_file import find_config, load_settings

_USUAL_NAMES = ("adapters.safetensors", "adapter_model.safetensors", "model.safetensors")
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class AdapterFiles:
    """An adapter's two files and what to call it. `held` keeps fetched files in the cache for as long as this lives."""

    name: str
    weights: Path
    config: Path
    held: FetchedFiles | None = None


def adapter_files(path: str, listener: ProgressListener) -> AdapterFiles:
    """The adapter at `path`: its weights file, the folder that holds one, or a checkpoint's key.

    A checkpoint of a source is fetched into the cache.

    Raises:
        SettingsError: there is no such file, nor is it a key; or a folder holds several adapters.
        CheckpointError, StoreError: the checkpoint cannot be found or fetched.
    """
    local = Path(path)
    if local.is_dir():
        local = _weights_in(local)
    if local.exists():
        return AdapterFiles(local.stem, local, local.with_name(config_name(local.name)))
    try:
        parse_partition_key(path)
    except CheckpointError:
        raise SettingsError(
            f"{path}: no such file or folder, and no checkpoint's key either. Keys have the form "
            "<source>.<run>@<iteration>; `ml-pipeline discover` lists them."
        ) from None
    return _fetched(path, current_settings(), listener)


def base_file(base: str) -> Path:
    """The GGUF file that `--base` names: a path, or a base model of pipeline.yaml; raises SettingsError."""
    path = Path(base)
    if path.is_file() or path.suffix == ".gguf":
        return path
    return gguf_path(current_settings(), base)


def settings_if_any() -> Settings | None:
    """The settings of this folder; None outside of a project, where files can be looked at all the same."""
    try:
        config = find_config(os.environ)
    except SettingsError:
        return None
    return load_settings(config)


def _weights_in(folder: Path) -> Path:
    found = sorted(folder.glob("*.safetensors"))
    for name in _USUAL_NAMES:
        if folder / name in found:
            return folder / name
    if len(found) == 1:
        return found[0]
    names = ", ".join(path.name for path in found[:_SHOWN]) + (", ..." if len(found) > _SHOWN else "")
    there = f"holds {len(found)} of them: {names}. Name one" if found else "holds no *.safetensors file. Name the file"
    raise SettingsError(f"{folder}: one adapter was expected, but this folder {there}.")


def _fetched(key: str, settings: Settings, listener: ProgressListener) -> AdapterFiles:
    catalogue = Catalogue(settings)
    checkpoint = catalogue.find([key])[key]
    if isinstance(checkpoint, CheckpointError):
        raise checkpoint
    if checkpoint.is_base:
        raise SettingsError(f"{key}: the bare base model, which has no adapter. Name a checkpoint of a run.")
    room = CacheRoom(settings.cache_path, settings.limits.cache_bytes)
    cache = FetchCache(room, settings.limits.adapter_bytes)

    def progress(here: int, total: int) -> None:
        listener.step("fetched, MB", math.ceil(here / 1e6), math.ceil(total / 1e6))

    files = cache.fetch(catalogue.source(checkpoint.source), checkpoint, progress)
    return AdapterFiles(key, files.weights, files.config, files)
