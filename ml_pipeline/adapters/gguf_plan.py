"""Which GGUF tensor each adapter module belongs to, and proof, before anything is written, that all of them fit."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from ml_pipeline.adapters.adapter import Adapter
from ml_pipeline.adapters.base_gguf import BaseModelFacts
from ml_pipeline.adapters.read import LoraPair, lora_pairs
from ml_pipeline.adapters.safetensors_header import SafetensorsHeader, shortened, shown
from ml_pipeline.errors import AdapterError

if TYPE_CHECKING:
    from gguf import TensorNameMap

VERIFIED_ARCHITECTURES: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "llama": {"attn_q": "n_heads", "attn_k": "n_heads_kv"},
        "gemma3": {},
    }
)
"""Architectures whose conversion was measured against mlx-lm's logits, with the projections whose output rows the
base's own conversion permuted, and by which head count. Others are refused: a missing permutation leaves the greedy
text as it is and only moves the logits, so nobody would notice."""

_MULTIMODAL_PREFIX = "language_model."


@dataclass(frozen=True, slots=True)
class PlannedPair:
    """One module's factors and the base tensor that they change, named as in the base without `.weight`.

    `permuted_heads` is the number of heads whose rows are to be reordered in `b`, or None.
    """

    gguf_name: str
    pair: LoraPair
    permuted_heads: int | None


def plan_conversion(adapter: Adapter, header: SafetensorsHeader, base: BaseModelFacts) -> list[PlannedPair]:
    """Match every module of the adapter with a tensor of the base, sorted by the adapter's module names.

    Raises:
        AdapterError: the adapter's kind or the base's architecture has no verified conversion, or anything at all does
            not fit; names everything that does not.
    """
    _check_supported(adapter, base)
    names = _name_map(base.architecture, base.n_layers)
    problems: list[str] = []
    last = base.n_layers - 1
    # mlx-lm adapts the last blocks of a model, so an adapter that stops early was trained on a model with fewer.
    if adapter.layers and adapter.layers[-1] != last:
        problems.append(f"the adapter's last layer is {adapter.layers[-1]}, the base's is {last}")
    plan: list[PlannedPair] = []
    for pair in lora_pairs(header):
        gguf_name = names.get_name(pair.module.removeprefix(_MULTIMODAL_PREFIX))
        found = _misfits(pair, gguf_name, base)
        problems += [f"{shown(pair.module)}: {problem}" for problem in found]
        if gguf_name is not None and not found:
            plan.append(PlannedPair(gguf_name, pair, _permuted_heads(gguf_name, base)))
    problems += _doubled(plan)
    if problems:
        where = f"{adapter.path} does not fit the base model {base.path} ({base.architecture})"
        raise AdapterError.from_problems(
            where, shortened(problems), "Score it on the base model that it was trained on."
        )
    return plan


def _check_supported(adapter: Adapter, base: BaseModelFacts) -> None:
    if adapter.kind == "dora":
        raise AdapterError(
            f"{adapter.path}: a DoRA adapter, which GGUF cannot express. "
            "Score it with the mlx backend, or fuse it into the base model (mlx_lm.fuse) and score that."
        )
    if adapter.kind == "full":
        raise AdapterError(
            f"{adapter.path}: a full fine-tune, not a LoRA adapter. "
            "Score it with the mlx backend, or convert the whole model to GGUF and use that as the base."
        )
    if base.architecture not in VERIFIED_ARCHITECTURES:
        raise AdapterError(
            f"{base.path}: the architecture {shown(base.architecture)} has no verified conversion to a GGUF LoRA; "
            f"verified are {', '.join(sorted(VERIFIED_ARCHITECTURES))}. Score this base with the mlx backend."
        )


@functools.lru_cache(maxsize=16)
def _name_map(architecture: str, n_layers: int) -> TensorNameMap:
    # Importing gguf costs a good part of a second: only those who convert pay it.
    from gguf import MODEL_ARCH_NAMES, get_tensor_name_map

    member = next(arch for arch, name in MODEL_ARCH_NAMES.items() if name == architecture)
    return get_tensor_name_map(member, n_layers)


def _misfits(pair: LoraPair, gguf_name: str | None, base: BaseModelFacts) -> list[str]:
    if gguf_name is None:
        return [f"a {base.architecture} model of {base.n_layers} layers has no such module"]
    if gguf_name == "token_embd":
        return ["LoRA on the token embedding is not converted to GGUF; score it with the mlx backend"]
    weight = base.tensors.get(f"{gguf_name}.weight")
    if weight is None:
        return [f"the base has no tensor {gguf_name}.weight"]
    if len(pair.a.shape) != 2 or len(weight) != 2:
        return [f"only plain matrices are converted; lora_a is {list(pair.a.shape)}, the base's weight {list(weight)}"]
    adapter_shape = (pair.b.shape[1], pair.a.shape[0])
    if adapter_shape != weight:
        return [f"made for a weight of {list(adapter_shape)} (out, in), the base's {gguf_name} has {list(weight)}"]
    return _head_misfits(gguf_name, weight[0], base)


def _head_misfits(gguf_name: str, rows: int, base: BaseModelFacts) -> list[str]:
    if (field := _head_count_field(gguf_name, base)) is None:
        return []
    heads = _permuted_heads(gguf_name, base)
    if heads is None:
        return [f"the base does not state one {field} for all layers, which {gguf_name} needs"]
    if heads < 1 or rows % (2 * heads):
        return [f"the {rows} rows of {gguf_name} cannot be split into {heads} heads of even size"]
    return []


def _head_count_field(gguf_name: str, base: BaseModelFacts) -> str | None:
    return VERIFIED_ARCHITECTURES[base.architecture].get(gguf_name.rpartition(".")[2])


def _permuted_heads(gguf_name: str, base: BaseModelFacts) -> int | None:
    counts = {"n_heads": base.n_heads, "n_heads_kv": base.n_heads_kv}
    field = _head_count_field(gguf_name, base)
    return counts[field] if field is not None else None


def _doubled(plan: list[PlannedPair]) -> list[str]:
    modules: dict[str, list[str]] = {}
    for planned in plan:
        modules.setdefault(planned.gguf_name, []).append(planned.pair.module)
    return [
        f"{', '.join(shown(name) for name in names)}: all mean the base's {gguf_name}"
        for gguf_name, names in modules.items()
        if len(names) > 1
    ]
