"""What a conversion to GGUF has to know of an architecture: its tensors' names, and which rows were reordered."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gguf import TensorNameMap

_NONE: Mapping[str, str] = MappingProxyType({})
_LLAMA_ROWS: Mapping[str, str] = MappingProxyType({"attn_q": "n_heads", "attn_k": "n_heads_kv"})

VERIFIED_ARCHITECTURES: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "chatglm": _NONE,
        "cohere2": _NONE,
        "command-r": _NONE,
        "ernie4_5": _NONE,
        "exaone": _NONE,
        "exaone4": _NONE,
        "gemma": _NONE,
        "gemma2": _NONE,
        "gemma3": _NONE,
        "glm4": _NONE,
        "granite": _LLAMA_ROWS,
        "granitemoe": _LLAMA_ROWS,
        "hunyuan-dense": _NONE,
        "llama": _LLAMA_ROWS,
        "minicpm": _LLAMA_ROWS,
        "mistral3": _LLAMA_ROWS,
        "olmo2": _NONE,
        "olmoe": _NONE,
        "phi2": _NONE,
        "phi3": _NONE,
        "qwen2": _NONE,
        "qwen2moe": _NONE,
        "qwen3": _NONE,
        "qwen3moe": _NONE,
        "seed_oss": _NONE,
        "smollm3": _LLAMA_ROWS,
        "stablelm": _NONE,
        "starcoder2": _NONE,
    }
)
"""Architectures whose conversion was measured against mlx-lm's logits, with the projections whose output rows the
base's own conversion reordered, and by which head count. Others are refused: rows left in the wrong order leave the
greedy text as it is and only move the logits, so nobody would notice."""

_REWRITTEN = (
    (re.compile(r"^language_model\.|(?<=^model\.)language_model\."), ""),
    (re.compile(r"\.(?:mlp|block_sparse_moe)\.switch_mlp\."), ".mlp.experts."),
)
"""Multimodal models wrap the language model; mlx-lm has a name of its own for the experts of a mixture."""


def gguf_name(module: str, architecture: str, n_layers: int) -> str | None:
    """Return the GGUF tensor that a module's weight is, without `.weight`; None when the architecture has none such."""
    names = _name_map(architecture, n_layers)
    if names is None:
        return None
    for pattern, replacement in _REWRITTEN:
        module = pattern.sub(replacement, module)
    name: str | None = names.get_name(module)
    return name


@functools.lru_cache(maxsize=16)
def _name_map(architecture: str, n_layers: int) -> TensorNameMap | None:
    # Importing gguf costs a good part of a second: only those who convert pay it.
    from gguf import MODEL_ARCH_NAMES, get_tensor_name_map

    member = next((arch for arch, name in MODEL_ARCH_NAMES.items() if name == architecture), None)
    return None if member is None else get_tensor_name_map(member, n_layers)
