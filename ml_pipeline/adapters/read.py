"""From two files, weights and configuration, to an `Adapter` that is safe to hand to a native library."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ml_pipeline.adapters.adapter import Adapter, AdapterKind
from ml_pipeline.adapters.config import AdapterConfig, read_config
from ml_pipeline.adapters.file_hash import file_sha256
from ml_pipeline.adapters.safetensors_data import FLOAT_DTYPES, check_finite
from ml_pipeline.adapters.safetensors_header import (
    SafetensorsHeader,
    TensorEntry,
    read_header,
    shortened,
    shown,
)
from ml_pipeline.errors import AdapterError

_ADAPTER_LEAVES = ("lora_a", "lora_b", "m")
_BLOCK = re.compile(r"(?:^|\.)layers\.(0|[1-9][0-9]{0,5})\.(.+)$")
_PEFT_NAME = re.compile(r"\.(lora_[AB](\..+)?\.weight|lora_embedding_[AB].*|lora_magnitude_vector.*)$")


@dataclass(frozen=True, slots=True)
class LoraPair:
    """The two factors of one module. Shapes: `a` (in, r) and `b` (r, out); for a mixture of experts, which mlx-lm
    does not transpose, (experts, r, in) and (experts, out, r)."""

    module: str
    a: TensorEntry
    b: TensorEntry

    @property
    def rank(self) -> int:
        """The rank of this module alone."""
        return self.b.shape[-1] if len(self.b.shape) == 3 else self.b.shape[0]


def read_adapter(weights: Path, config: Path) -> Adapter:
    """Check the safetensors file `weights` and mlx-lm's `config`, each alone and against each other.

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


def lora_pairs(header: SafetensorsHeader) -> list[LoraPair]:
    """Return the modules that have both factors, in the order of their names."""
    by_name = header.by_name()
    return [
        LoraPair(module, by_name[f"{module}.lora_a"], by_name[f"{module}.lora_b"])
        for module in sorted({_module_and_leaf(name)[0] for name in by_name})
        if f"{module}.lora_a" in by_name and f"{module}.lora_b" in by_name
    ]


def block_and_module(module: str) -> tuple[int, str] | None:
    """Split `model.layers.3.self_attn.q_proj` into (3, `self_attn.q_proj`); None outside the transformer blocks."""
    match = _BLOCK.search(module)
    return (int(match[1]), match[2]) if match else None


def _sound(weights: Path, config: Path) -> tuple[SafetensorsHeader, AdapterConfig]:
    header, settings = _read_both(weights, config)
    _check_any_adapter_tensors(header, settings)
    problems = [
        f"{shown(entry.name)}: dtype {entry.dtype}; only {', '.join(FLOAT_DTYPES)} are supported"
        for entry in header.tensors
        if entry.dtype not in FLOAT_DTYPES
    ]
    problems += [
        f"{shown(entry.name)}: shape {list(entry.shape)} is empty" for entry in header.tensors if 0 in entry.shape
    ]
    problems += _pair_problems(header.tensors) if settings.kind != "full" else []
    kind = _kind_of(header.tensors)
    if kind != settings.kind:
        problems.append(f"the tensors are those of a {kind} adapter, but fine_tune_type says {settings.kind}")
    if not problems:
        problems += _config_problems(header, settings, _layers_and_modules(header.tensors)[0])
    if problems:
        remedy = f"Use the adapter_config.json that was written with these weights (read: {config})."
        raise AdapterError.from_problems(str(weights), shortened(problems), remedy)
    return header, settings


def _record(header: SafetensorsHeader, settings: AdapterConfig, config: Path, weights_sha256: str) -> Adapter:
    layers, modules = _layers_and_modules(header.tensors)
    return Adapter(
        path=header.path,
        config_path=config,
        sha256=hashlib.sha256(f"{weights_sha256}\n{settings.canonical()}".encode()).hexdigest(),
        kind=settings.kind,
        rank=max((pair.rank for pair in lora_pairs(header)), default=0),
        scale=settings.scale,
        layers=layers,
        modules=modules,
        tensor_count=len(header.tensors),
        size_bytes=header.size_bytes,
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
        settings = read_config(config)
    except AdapterError as error:
        errors.append(error)
    if header is None or settings is None:
        raise AdapterError("\n".join(str(error) for error in errors)) from errors[0]
    return header, settings


def _module_and_leaf(name: str) -> tuple[str, str]:
    module, _, leaf = name.rpartition(".")
    return module, leaf


def _kind_of(tensors: Sequence[TensorEntry]) -> AdapterKind:
    leaves = {_module_and_leaf(tensor.name)[1] for tensor in tensors}
    if not leaves & {"lora_a", "lora_b"}:
        return "full"
    return "dora" if "m" in leaves else "lora"


def _check_any_adapter_tensors(header: SafetensorsHeader, settings: AdapterConfig) -> None:
    """Refuse files in which nothing is an adapter's, before a list of every single foreign tensor is made."""
    names = [tensor.name for tensor in header.tensors]
    if not names:
        raise AdapterError(
            f"{header.path}: a sound safetensors file, but it holds no tensors. "
            "Training saved nothing: check that num_layers and the keys in lora_parameters matched the model."
        )
    found = f"{len(names)} tensors such as {', '.join(shown(name) for name in sorted(names)[:3])}"
    if any(_PEFT_NAME.search(name) for name in names):
        raise AdapterError(
            f"{header.path}: this is a PEFT adapter ({found}), not one of mlx-lm's. "
            "Point to the adapters.safetensors that mlx-lm saved (names end in .lora_a and .lora_b)."
        )
    if settings.kind != "full" and _kind_of(header.tensors) == "full":
        raise AdapterError(
            f"{header.path}: no LoRA tensors (names ending in .lora_a and .lora_b); found {found}. "
            'If this is a full fine-tune, its adapter_config.json must say "fine_tune_type": "full".'
        )


def _pair_problems(tensors: Sequence[TensorEntry]) -> list[str]:
    problems: list[str] = []
    by_module: dict[str, dict[str, TensorEntry]] = {}
    for tensor in tensors:
        module, leaf = _module_and_leaf(tensor.name)
        if module and leaf in _ADAPTER_LEAVES:
            by_module.setdefault(module, {})[leaf] = tensor
        else:
            problems.append(f"{shown(tensor.name)}: not an adapter tensor (lora_a, lora_b or m of a module)")
    any_dora = any("m" in leaves for leaves in by_module.values())
    for module, leaves in sorted(by_module.items()):
        wanted = _ADAPTER_LEAVES if any_dora else _ADAPTER_LEAVES[:2]
        missing = [leaf for leaf in wanted if leaf not in leaves]
        if missing:
            problems.append(f"{shown(module)}: {' and '.join(missing)} missing")
        else:
            problems += _shape_problems(module, leaves)
    return problems


def _shape_problems(module: str, leaves: Mapping[str, TensorEntry]) -> list[str]:
    a, b = leaves["lora_a"].shape, leaves["lora_b"].shape
    if len(a) == len(b) == 2:
        fits, out_size = a[1] == b[0], b[1]
    elif len(a) == len(b) == 3 and "m" not in leaves:
        fits, out_size = a[0] == b[0] and a[1] == b[2], b[1]
    else:
        return [f"{shown(module)}: lora_a {list(a)} and lora_b {list(b)} are not two matrices"]
    problems = [] if fits else [f"{shown(module)}: ranks differ, lora_a {list(a)} against lora_b {list(b)}"]
    # DoRA's magnitudes belong to the rows of the base weight, which for an embedding are the vocabulary.
    if "m" in leaves and leaves["m"].shape != (a[0] if "embed" in module else out_size,):
        problems.append(
            f"{shown(module)}: m has shape {list(leaves['m'].shape)}, one size a row of the base weight was expected"
        )
    return problems


def _layers_and_modules(tensors: Sequence[TensorEntry]) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """A module outside the blocks, such as `lm_head`, counts under its full path and has no layer."""
    paths = {_module_and_leaf(tensor.name)[0] for tensor in tensors}
    places = {path: block_and_module(path) for path in paths}
    layers = {place[0] for place in places.values() if place}
    modules = {place[1] if place else path for path, place in places.items()}
    return tuple(sorted(layers)), tuple(sorted(modules))


def _config_problems(header: SafetensorsHeader, settings: AdapterConfig, layers: tuple[int, ...]) -> list[str]:
    problems: list[str] = []
    if settings.kind != "full":
        # Layers may differ in rank (mlx-lm writes one rank, tools that prune leave several): the largest must be there.
        largest = max(pair.rank for pair in lora_pairs(header))
        if largest != settings.rank:
            problems.append(f"the largest rank in the weights is {largest}, but the configuration says {settings.rank}")
        if settings.layer_count is not None and 0 < settings.layer_count < len(layers):
            problems.append(f"the weights touch {len(layers)} layers, but num_layers says {settings.layer_count}")
    return problems
