"""Whether the tensors of an adapter's file make sense on their own, and with the configuration beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ml_pipeline.adapters.adapter import AdapterKind
from ml_pipeline.adapters.config_record import SCALE_RANGE, AdapterConfig
from ml_pipeline.adapters.factors import (
    PEFT_PREFIX,
    Leaf,
    block_and_module,
    is_embedding,
    is_frozen_base,
    lora_pairs,
    module_and_leaf,
    paired,
)
from ml_pipeline.adapters.safetensors_data import FLOAT_DTYPES
from ml_pipeline.adapters.safetensors_header import SafetensorsHeader, TensorEntry, shown
from ml_pipeline.errors import AdapterError

_NAMES: Mapping[str, Mapping[Leaf, str]] = {
    "mlx": {"a": "lora_a", "b": "lora_b", "magnitude": "m"},
    "peft": {"a": "lora_A", "b": "lora_B", "magnitude": "lora_magnitude_vector"},
}


def require_adapter_tensors(header: SafetensorsHeader, settings: AdapterConfig) -> None:
    """Refuse a file in which nothing is what its configuration says, before a list of every foreign tensor is made.

    Raises:
        AdapterError: the file holds no tensors, or those of another format.
    """
    names = [tensor.name for tensor in header.tensors]
    if not names:
        raise AdapterError(
            f"{header.path}: a sound safetensors file, but it holds no tensors. "
            "Training saved nothing: check that num_layers and the keys in lora_parameters matched the model."
        )
    found = f"{len(names)} tensors such as {', '.join(shown(name) for name in sorted(names)[:3])}"
    is_peft = any(name.startswith(PEFT_PREFIX) for name in names)
    if is_peft and settings.format != "peft":
        raise AdapterError(
            f"{header.path}: this is a PEFT adapter ({found}), but the configuration beside it is not PEFT's. "
            "Copy the adapter_config.json that was saved with it, or point to the adapters.safetensors of mlx-lm."
        )
    if settings.format == "peft" and not is_peft:
        raise AdapterError(
            f"{header.path}: the configuration is PEFT's, but no tensor's name starts with {PEFT_PREFIX!r}; "
            f"found {found}. Use the adapter_config.json that was written with these weights."
        )
    if settings.kind != "full" and kind_of(header.tensors) == "full":
        raise AdapterError(
            f"{header.path}: no LoRA tensors (names ending in .lora_a and .lora_b); found {found}. "
            'If this is a full fine-tune, its adapter_config.json must say "fine_tune_type": "full".'
        )


def kind_of(tensors: Sequence[TensorEntry]) -> AdapterKind:
    """The kind of adapter that the tensors' names make."""
    leaves = {place[1] for tensor in tensors if (place := module_and_leaf(tensor.name))}
    if not leaves & {"a", "b"}:
        return "full"
    return "dora" if "magnitude" in leaves else "lora"


def layers_and_modules(tensors: Sequence[TensorEntry]) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """A module outside the blocks, such as `lm_head`, counts under its full path and has no layer."""
    paths = {
        place[0] if (place := module_and_leaf(tensor.name)) else tensor.name.rpartition(".")[0]
        for tensor in tensors
        if not is_frozen_base(tensor.name)
    }
    places = {path: block_and_module(path) for path in paths}
    layers = {place[0] for place in places.values() if place}
    modules = {place[1] if place else path for path, place in places.items()}
    return tuple(sorted(layers)), tuple(sorted(modules))


def tensor_problems(header: SafetensorsHeader, settings: AdapterConfig) -> list[str]:
    """What is wrong with the tensors: dtypes, shapes, factors that do not belong together, or to the configuration."""
    problems = [
        f"{shown(entry.name)}: dtype {entry.dtype}; only {', '.join(FLOAT_DTYPES)} are supported"
        for entry in header.tensors
        if entry.dtype not in FLOAT_DTYPES
    ]
    problems += [
        f"{shown(entry.name)}: shape {list(entry.shape)} is empty" for entry in header.tensors if 0 in entry.shape
    ]
    problems += _pair_problems(header.tensors, settings) if settings.kind != "full" else []
    kind = kind_of(header.tensors)
    if kind != settings.kind:
        says = "use_dora says" if settings.format == "peft" else "fine_tune_type says"
        problems.append(f"the tensors are those of a {kind} adapter, but {says} {settings.kind}")
    if not problems and settings.kind != "full":
        problems += _rank_problems(header, settings)
    return problems


def _pair_problems(tensors: Sequence[TensorEntry], settings: AdapterConfig) -> list[str]:
    problems: list[str] = []
    names = _NAMES[settings.format]
    by_module: dict[str, dict[Leaf, TensorEntry]] = {}
    for tensor in tensors:
        place = module_and_leaf(tensor.name)
        if place is not None and tensor.name.startswith(PEFT_PREFIX) == (settings.format == "peft"):
            module, leaf = place
            if leaf in by_module.setdefault(module, {}):
                problems.append(f"{shown(module)}: more than one {names[leaf]}")
            by_module[module][leaf] = tensor
        elif settings.format != "peft" or not is_frozen_base(tensor.name):
            problems.append(f"{shown(tensor.name)}: not an adapter tensor ({', '.join(names.values())} of a module)")
    any_dora = any("magnitude" in leaves for leaves in by_module.values())
    for module, leaves in sorted(by_module.items()):
        wanted: tuple[Leaf, ...] = ("a", "b", "magnitude") if any_dora else ("a", "b")
        missing = [names[leaf] for leaf in wanted if leaf not in leaves]
        if missing:
            problems.append(f"{shown(module)}: {' and '.join(missing)} missing")
        else:
            problems += [f"{shown(module)}: {problem}" for problem in _shape_problems(module, leaves, names)]
    return problems


def _shape_problems(module: str, leaves: dict[Leaf, TensorEntry], names: Mapping[Leaf, str]) -> list[str]:
    a, b = leaves["a"], leaves["b"]
    shapes = f"{names['a']} {list(a.shape)} and {names['b']} {list(b.shape)}"
    if len(a.shape) != len(b.shape) or len(a.shape) not in (2, 3) or (len(a.shape) == 3 and "magnitude" in leaves):
        return [f"{shapes} are not two matrices"]
    pair = paired(module, leaves)
    if pair.a_shape[:-2] != pair.b_shape[:-2] or pair.a_shape[-2] != pair.rank:
        return [f"ranks differ, {shapes.replace(' and ', ' against ')}"]
    if pair.magnitude is None:
        return []
    # DoRA's magnitudes belong to the rows of the base weight, which for mlx-lm's embeddings are the vocabulary.
    rows = pair.weight_shape[-1] if is_embedding(module) and pair.transposed else pair.weight_shape[-2]
    if pair.magnitude.shape != (rows,):
        found = list(pair.magnitude.shape)
        return [f"{names['magnitude']} has shape {found}, one size a row of the base weight was expected"]
    return []


def _rank_problems(header: SafetensorsHeader, settings: AdapterConfig) -> list[str]:
    pairs = lora_pairs(header)
    if settings.format == "peft":
        low, high = SCALE_RANGE
        problems = [
            f"{shown(pair.module)}: rank {pair.rank} in the weights, {wanted} in the configuration"
            for pair in pairs
            if pair.rank != (wanted := settings.rank_of(pair.module))
        ]
        return problems or [
            f"{shown(pair.module)}: its scale is {settings.scale_of(pair.module)}, not of size {low} to {high}"
            for pair in pairs
            if not low <= abs(settings.scale_of(pair.module)) <= high
        ]
    problems = []
    # Layers may differ in rank (mlx-lm writes one rank, tools that prune leave several): the largest must be there.
    largest = max(pair.rank for pair in pairs)
    if largest != settings.rank:
        problems.append(f"the largest rank in the weights is {largest}, but the configuration says {settings.rank}")
    layers = layers_and_modules(header.tensors)[0]
    if settings.layer_count is not None and 0 < settings.layer_count < len(layers):
        problems.append(f"the weights touch {len(layers)} layers, but num_layers says {settings.layer_count}")
    return problems
