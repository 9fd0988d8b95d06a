"""From two files, weights and configuration, to an `Adapter` that is safe to hand to a native library."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ml_pipeline.adapters.adapter import Adapter
from ml_pipeline.adapters.config import read_config
from ml_pipeline.adapters.config_record import AdapterConfig
from ml_pipeline.adapters.factors import lora_pairs
from ml_pipeline.adapters.file_hash import file_sha256
from ml_pipeline.adapters.safetensors_data import check_finite
from ml_pipeline.adapters.safetensors_header import SafetensorsHeader, read_header, shortened
from ml_pipeline.adapters.tensor_checks import (
    format_of,
    layers_and_modules,
    require_adapter_tensors,
    tensor_faults,
)
from ml_pipeline.errors import AdapterError


def read_adapter(weights: Path, config: Path) -> Adapter:
    """Check the safetensors file `weights` and its `config`, each alone and against each other.

    Whose files they are, mlx-lm's, PEFT's or a full fine-tune's of transformers, is told by the configuration.

    The hash covers the weights' bytes and what in the configuration changes the numbers, so the same checkpoint
    has the same hash wherever it lies.

    Raises:
        AdapterError: either file is damaged, hostile or foreign, or they do not belong together; names every problem.
    """
    header, settings = _sound(weights, config)
    check_finite(header)
    return _record(header, settings, config, file_sha256(weights))


def read_adapter_without_data(weights: Path, config: Path, weights_sha256: str) -> Adapter:
    """As `read_adapter`, for weights that lie elsewhere: of `weights` only the header is read, the rest may be a hole.

    `weights_sha256` is the hash of the whole file. Values that are not finite go unnoticed here.

    Raises:
        AdapterError: as `read_adapter`.
    """
    header, settings = _sound(weights, config)
    return _record(header, settings, config, weights_sha256)


def _sound(weights: Path, config: Path) -> tuple[SafetensorsHeader, AdapterConfig]:
    header, settings = _read_both(weights, config)
    require_adapter_tensors(header, settings)
    faults = tensor_faults(header, settings)
    if faults:
        blamed = any(not fault.way_out for fault in faults)
        remedy = f"Use the configuration that was written with these weights (read: {config})." if blamed else ""
        raise AdapterError.from_problems(str(weights), shortened([str(fault) for fault in faults]), remedy)
    return header, settings


def _record(header: SafetensorsHeader, settings: AdapterConfig, config: Path, weights_sha256: str) -> Adapter:
    layers, modules = layers_and_modules(header.tensors)
    pairs = lora_pairs(header)
    own_scales = {pair.module: scale for pair in pairs if (scale := settings.scale_of(pair.module)) != settings.scale}
    return Adapter(
        path=header.path,
        config_path=config,
        sha256=hashlib.sha256(f"{weights_sha256}\n{settings.canonical(own_scales)}".encode()).hexdigest(),
        kind=settings.kind,
        rank=max((pair.rank for pair in pairs), default=0),
        scale=settings.scale,
        layers=layers,
        modules=modules,
        tensor_count=len(header.tensors),
        size_bytes=header.size_bytes,
        format=settings.format,
        own_scales=tuple(own_scales.items()),
    )


def _read_both(weights: Path, config: Path) -> tuple[SafetensorsHeader, AdapterConfig]:
    header: SafetensorsHeader | None = None
    settings: AdapterConfig | None = None
    errors: list[AdapterError] = []
    try:
        header = read_header(weights)
    except AdapterError as error:
        errors.append(error)
    try:
        settings = read_config(config, None if header is None else format_of(header.tensors))
    except AdapterError as error:
        errors.append(error)
    if header is None or settings is None:
        raise AdapterError("\n".join(str(error) for error in errors)) from errors[0]
    return header, settings
