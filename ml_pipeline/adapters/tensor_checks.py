"""Whether the tensors of an adapter's file make sense on their own, and with the configuration beside them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from ml_pipeline.adapters.adapter import AdapterFormat, AdapterKind
from ml_pipeline.adapters.config_record import SCALE_RANGE, AdapterConfig
from ml_pipeline.adapters.factors import (
    PEFT_PREFIX,
    Leaf,
    adapter_name,
    block_and_module,
    is_embedding,
    is_frozen_base,
    is_peft_name,
    lora_pairs,
    module_and_leaf,
    paired,
    plain_name,
)
from ml_pipeline.adapters.faults import Fault, grouped, named
from ml_pipeline.adapters.safetensors_data import FLOAT_DTYPES
from ml_pipeline.adapters.safetensors_header import SafetensorsHeader, TensorEntry, shown
from ml_pipeline.errors import AdapterError

_NAMES: Mapping[str, Mapping[Leaf, str]] = {
    "mlx": {"a": "lora_a", "b": "lora_b", "magnitude": "m"},
    "peft": {"a": "lora_A", "b": "lora_B", "magnitude": "lora_magnitude_vector"},
}


_MERGE = "merge it into the base model (peft's merge_and_unload) and score that model as a base of its own"
_LEAVE_OUT = "If it was not trained, save the adapter without it"
_ADAPTER_METHODS = (
    ("lokr_", "LoKr"),
    ("hada_", "LoHa"),
    ("ia3_", "IA3"),
    ("vera_", "VeRA"),
    ("boft_", "BOFT"),
    ("oft_", "OFT"),
    ("prompt_embeddings", "prompt tuning"),
)
_HEAD = re.compile(r"(?:^|\.)(?:lm_head|output|embed_out)$")


def format_of(tensors: Iterable[TensorEntry]) -> AdapterFormat | None:
    """Whose names most of the factors bear, mlx-lm's or PEFT's; None where there are none."""
    found: Counter[AdapterFormat] = Counter(
        "peft" if is_peft_name(tensor.name) else "mlx" for tensor in tensors if module_and_leaf(tensor.name)
    )
    return found.most_common(1)[0][0] if found else None


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
    is_peft = any(is_peft_name(name) for name in names)
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
    adapters = sorted({adapter for name in names if (adapter := adapter_name(name)) is not None})
    if len(adapters) > 1:
        raise AdapterError(
            f"{header.path}: {len(adapters)} adapters in one file, by the names in its keys: {named(adapters)}. Save "
            "each by itself: peft's save_pretrained with selected_adapters."
        )
    if settings.kind != "full" and kind_of(header.tensors) == "full":
        method = next((name for sign, name in _ADAPTER_METHODS if any(sign in tensor for tensor in names)), None)
        if method is not None:
            advice = f"These are those of {method}, which no backend loads: {_MERGE}."
        elif settings.format == "peft":
            advice = f"PEFT's end in .lora_A.weight and .lora_B.weight. If whole modules were trained, {_MERGE}."
        else:
            advice = 'If this is a full fine-tune, its adapter_config.json must say "fine_tune_type": "full".'
        raise AdapterError(
            f"{header.path}: no LoRA tensors (names ending in .lora_a and .lora_b); found {found}. {advice}"
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


def tensor_faults(header: SafetensorsHeader, settings: AdapterConfig) -> list[Fault]:
    """What is wrong with the tensors: dtypes, shapes, factors that do not belong together, or to the configuration.

    Tensors that are alike share a fault.
    """
    faults: list[tuple[str, str, str]] = []
    for entry in header.tensors:
        if entry.dtype not in FLOAT_DTYPES:
            faults.append((entry.name, *_wrong_dtype(entry.dtype)))
        if 0 in entry.shape:
            shape = f"shape {list(entry.shape)} is empty"
            faults.append((entry.name, shape, _gathered(entry, settings)))
    faults += _pair_faults(header.tensors, settings) if settings.kind != "full" else []
    found = grouped(faults)
    kind = kind_of(header.tensors)
    if kind != settings.kind:
        says = "use_dora says" if settings.format == "peft" else "fine_tune_type says"
        found.append(Fault((), f"the tensors are those of a {kind} adapter, but {says} {settings.kind}"))
    if not found and settings.kind != "full":
        found += grouped(_rank_faults(header, settings))
    return found


def _wrong_dtype(dtype: str) -> tuple[str, str]:
    reason = f"dtype {dtype}; only {', '.join(FLOAT_DTYPES)} are supported"
    if dtype == "F64":
        return reason, "Save the adapter in 32 bits: model.float() before save_pretrained, or the tensors' own .float()"
    return reason, "Save the adapter as it was trained, without quantising its factors"


def _gathered(entry: TensorEntry, settings: AdapterConfig) -> str:
    if len(entry.shape) > 1 and settings.format != "peft":
        return "Take the checkpoint of another iteration, or train with a rank above 0"
    return (
        "DeepSpeed's ZeRO-3 leaves such tensors where their parts lie on other GPUs: save them gathered "
        "(stage3_gather_16bit_weights_on_model_save, or zero3_save_16bit_model), or put the checkpoint together with "
        "its zero_to_fp32.py"
    )


def _foreign(entry: TensorEntry, settings: AdapterConfig) -> tuple[str, str]:
    """Why a tensor is no part of a LoRA, and what to do about it."""
    plain = plain_name(entry.name).removeprefix(PEFT_PREFIX)
    module, _, leaf = plain.rpartition(".")
    none = f"not an adapter tensor ({', '.join(_NAMES[settings.format].values())} of a module)"
    last = module.rpartition(".")[2]
    if settings.format == "mlx" and is_peft_name(entry.name):
        return none, "Keep the tensors of mlx-lm and those of PEFT in files of their own"
    if leaf == "weight" and (is_embedding(module) or _HEAD.search(module)) and len(entry.shape) == 2:
        what = "embedding" if is_embedding(module) else "head"
        return (
            f"{none}, but a whole {what}, as PEFT saves it where the vocabulary was resized",
            f"{_LEAVE_OUT} (save_pretrained with save_embedding_layers=False); else {_MERGE}",
        )
    if "norm" in last.lower() or last.lower().startswith("ln_"):
        return f"{none}, but a norm of the base", f"{_LEAVE_OUT}; else {_MERGE}"
    if leaf == "bias":
        return f"{none}, but a bias of the base", f'{_LEAVE_OUT} (bias="none"); else {_MERGE}'
    if leaf == "weight" and len(entry.shape) >= 2 and module:
        return (
            f"{none}, but a weight of the base",
            f"Save the adapter alone (save_pretrained of the PEFT model), not the model's state_dict; else {_MERGE}",
        )
    return none, "Save the adapter alone, as its trainer does (save_pretrained, or mlx_lm.lora)"


def _pair_faults(tensors: Sequence[TensorEntry], settings: AdapterConfig) -> list[tuple[str, str, str]]:
    faults: list[tuple[str, str, str]] = []
    names = _NAMES[settings.format]
    by_module: dict[str, dict[Leaf, TensorEntry]] = {}
    for tensor in tensors:
        place = module_and_leaf(tensor.name)
        if place is not None and is_peft_name(tensor.name) == (settings.format == "peft"):
            module, leaf = place
            if leaf in by_module.setdefault(module, {}):
                faults.append((module, f"more than one {names[leaf]}", ""))
            by_module[module][leaf] = tensor
        elif settings.format != "peft" or not is_frozen_base(tensor.name):
            faults.append((tensor.name, *_foreign(tensor, settings)))
    any_dora = any("magnitude" in leaves for leaves in by_module.values())
    for module, leaves in sorted(by_module.items()):
        wanted: tuple[Leaf, ...] = ("a", "b", "magnitude") if any_dora else ("a", "b")
        missing = [names[leaf] for leaf in wanted if leaf not in leaves]
        if missing:
            faults.append((module, f"{' and '.join(missing)} missing", ""))
        elif not any(0 in entry.shape for entry in leaves.values()):  # which has its own fault
            faults += [(module, problem, "") for problem in _shape_problems(module, leaves, names)]
    return faults


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


def _rank_faults(header: SafetensorsHeader, settings: AdapterConfig) -> list[tuple[str, str, str]]:
    pairs = lora_pairs(header)
    if settings.format == "peft":
        low, high = SCALE_RANGE
        faults = [
            (pair.module, f"rank {pair.rank} in the weights, {wanted} in the configuration", "")
            for pair in pairs
            if pair.rank != (wanted := settings.rank_of(pair.module))
        ]
        return faults or [
            (pair.module, f"its scale is {settings.scale_of(pair.module)}, not of size {low} to {high}", "")
            for pair in pairs
            if not low <= abs(settings.scale_of(pair.module)) <= high
        ]
    faults = []
    # Layers may differ in rank (mlx-lm writes one rank, tools that prune leave several): the largest must be there.
    largest = max(pair.rank for pair in pairs)
    if largest != settings.rank:
        said = f"the largest rank in the weights is {largest}, but the configuration says {settings.rank}"
        faults.append(("", said, ""))
    layers = layers_and_modules(header.tensors)[0]
    if settings.layer_count is not None and 0 < settings.layer_count < len(layers):
        said = f"the weights touch {len(layers)} layers, but num_layers says {settings.layer_count}"
        faults.append(("", said, ""))
    return faults
