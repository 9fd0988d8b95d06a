"""From a LoRA or DoRA adapter to the two files that PEFT loads.

PEFT computes y + (lora_alpha / r) * B(A(x)) with A (r, in) and B (out, r): A = a.T, B = b.T and lora_alpha = scale * r,
which is kept unrounded (rounded, as the original did, it was off by 0.118 on a signal of 0.92). Names hold no adapter
name: PEFT puts in its own, and llama.cpp's converter refuses others. Every module is named by its full path, so that
whatever mix of layers, modules and ranks was trained is what is loaded. The experts that mlx-lm keeps in one module are
one module each in PEFT, which puts them together again where transformers has them in one parameter.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from ml_pipeline.adapters.adapter import Adapter
from ml_pipeline.adapters.factors import PEFT_PREFIX, LoraPair, lora_pairs
from ml_pipeline.adapters.safetensors_data import map_file, stored_values
from ml_pipeline.adapters.safetensors_header import TensorEntry, read_header, shown
from ml_pipeline.adapters.tensor_stream import TILE_OF_A, TILE_OF_B, TensorStream
from ml_pipeline.errors import AdapterError
from ml_pipeline.files import replacing, write_atomically

PEFT_WEIGHTS, PEFT_CONFIG = "adapter_model.safetensors", "adapter_config.json"
_HEADER_ALIGNMENT = 8
_EXPERTS = re.compile(r"(.+)\.(mlp|block_sparse_moe)\.switch_mlp\.(gate_proj|up_proj|down_proj)")
_MIXTRAL_NAMES = {"gate_proj": "w1", "down_proj": "w2", "up_proj": "w3"}


def write_peft(adapter: Adapter, folder: Path) -> Path:
    """Write `adapter` as adapter_model.safetensors and adapter_config.json into `folder`, and return `folder`.

    Values stay as they are stored. Each file appears whole, the configuration last. Where an embedding is adapted, PEFT
    is told to adapt a head that is tied to it as well, as mlx-lm does.

    Raises:
        AdapterError: a full fine-tune, or one with modules that PEFT cannot express; names every one.
        StoreFullError: the disk is full.
        StoreError: the folder cannot be written to.
    """
    header = read_header(adapter.path)
    if header.size_bytes != adapter.size_bytes:
        raise AdapterError(f"{adapter.path}: changed since it was read. Read it again, then convert it.")
    pairs = _expressible(adapter, lora_pairs(header))
    with replacing(folder / PEFT_WEIGHTS) as temporary:
        _write_weights(temporary, adapter, pairs)
    config = json.dumps(_config(adapter, pairs), indent=2) + "\n"
    write_atomically(folder / PEFT_CONFIG, config.encode())
    return folder


def _expressible(adapter: Adapter, pairs: list[LoraPair]) -> list[LoraPair]:
    """The pairs as PEFT names modules; raises AdapterError."""
    if adapter.kind == "full":
        raise AdapterError(
            f"{adapter.path}: a full fine-tune, which is a model of its own and no PEFT adapter. "
            "Use the weights with the model's config.json as they are."
        )
    problems = [
        f"{shown(pair.module)}: DoRA on an embedding, whose sizes PEFT takes along the other axis"
        for pair in pairs
        if pair.is_embedding and pair.magnitude is not None
    ]
    problems += [
        f"{shown(pair.module)}: {pair.a.shape[0]} experts in one module, for which PEFT has no known names"
        for pair in pairs
        if len(pair.a.shape) == 3 and not _EXPERTS.fullmatch(pair.module)
    ]
    if problems:
        raise AdapterError.from_problems(
            str(adapter.path), problems, "Convert it to GGUF, or use it with mlx as it is."
        )
    return [single for pair in pairs for single in (_experts(pair) if len(pair.a.shape) == 3 else [pair])]


def _experts(pair: LoraPair) -> list[LoraPair]:
    match = _EXPERTS.fullmatch(pair.module)
    assert match is not None
    leaf = _MIXTRAL_NAMES[match[3]] if match[2] == "block_sparse_moe" else match[3]
    return [
        replace(pair, module=f"{match[1]}.{match[2]}.experts.{i}.{leaf}", a=_slice(pair.a, i), b=_slice(pair.b, i))
        for i in range(pair.a.shape[0])
    ]


def _slice(entry: TensorEntry, index: int) -> TensorEntry:
    size_bytes = entry.size_bytes // entry.shape[0]
    return replace(entry, shape=entry.shape[1:], start=entry.start + index * size_bytes, size_bytes=size_bytes)


def _tensors(pair: LoraPair) -> list[tuple[str, TensorEntry, tuple[int, ...]]]:
    """PEFT's tensors of a module: name, where it lies now, and its shape."""
    stem = f"{PEFT_PREFIX}{pair.module}."
    a, b = ("lora_embedding_A", "lora_embedding_B") if pair.is_embedding else ("lora_A.weight", "lora_B.weight")
    tensors = [(stem + a, pair.a, pair.a_shape), (stem + b, pair.b, pair.b_shape)]
    if pair.magnitude is not None:
        tensors.append((f"{stem}lora_magnitude_vector", pair.magnitude, pair.magnitude.shape))
    return tensors


def _write_weights(path: Path, adapter: Adapter, pairs: list[LoraPair]) -> None:
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for pair in pairs:
        for name, entry, shape in _tensors(pair):
            offsets = [end, end := end + entry.size_bytes]
            entries[name] = {"dtype": entry.dtype, "shape": shape, "data_offsets": offsets}
    header = json.dumps(entries, separators=(",", ":")).encode()
    header += b" " * (-len(header) % _HEADER_ALIGNMENT)
    data = map_file(adapter.path)
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        stream = TensorStream(file, data, as_float32=False)
        for pair in pairs:
            stream.write(pair.a_values(data), TILE_OF_A)
            stream.write(pair.b_values(data), TILE_OF_B)
            if pair.magnitude is not None:
                stream.write(stored_values(data, pair.magnitude), 1)


def _config(adapter: Adapter, pairs: list[LoraPair]) -> dict[str, Any]:
    # Experts, which have other names here, come from mlx-lm alone, which gives no module a scale of its own.
    scales = adapter.scales(pair.module for pair in pairs)
    alphas = {pair.module: scales[pair.module] * pair.rank for pair in pairs}
    alpha = adapter.scale * adapter.rank
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": None,
        "inference_mode": True,
        "r": adapter.rank,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "use_rslora": False,
        "use_dora": adapter.kind == "dora",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "modules_to_save": None,
        "ensure_weight_tying": any(pair.is_embedding for pair in pairs),
        "target_modules": [pair.module for pair in pairs],
        "rank_pattern": {pair.module: pair.rank for pair in pairs if pair.rank != adapter.rank},
        "alpha_pattern": {module: own for module, own in alphas.items() if own != alpha},
    }
