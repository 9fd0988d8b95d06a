"""Tiny random models of many architectures: mlx-lm's own classes, and a GGUF as llama.cpp's converter would write it.

The tensors' names come from the gguf library's maps. That the rest is right (which rows are reordered, what the header
says) is shown by the bare models: both programs must give the same logits before an adapter is put on.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gguf
import mlx.core as mx
import numpy as np
from mlx.utils import tree_unflatten

from ml_pipeline_tests.adapters.tiny_models import (
    VOCAB_SIZE,
    FloatArray,
    TinyModel,
    add_tokenizer,
    flattened,
    permuted,
)

HIDDEN, HEADS, KV_HEADS, HEAD_DIM, FFN, EXPERTS = 64, 4, 2, 16, 128, 4

_SIZES = {
    "hidden_size": HIDDEN,
    "num_hidden_layers": 2,
    "intermediate_size": FFN,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "rms_norm_eps": 1e-5,
    "vocab_size": VOCAB_SIZE,
    "rope_theta": 10000.0,
    "max_position_embeddings": 512,
    "head_dim": HEAD_DIM,
}


@dataclass(frozen=True)
class Architecture:
    """How a tiny model of one GGUF architecture is made.

    `args` are those that mlx-lm's `module` needs beside the common sizes; `header` is what llama.cpp needs beside them.
    `permuted_rows` says that the converter reorders the rows of q and k, `norm_offset` what it adds to norms.
    """

    module: str
    gguf_name: str
    args: Mapping[str, Any] = field(default_factory=dict)
    header: Callable[[gguf.GGUFWriter], object] = lambda writer: None
    permuted_rows: bool = False
    norm_offset: float = 0.0
    n_layers: int = 2
    epsilon: str = "rms"


def _experts(used: int = 2, width: int | None = None, shared: int | None = None) -> Callable[[gguf.GGUFWriter], object]:
    def header(writer: gguf.GGUFWriter) -> None:
        writer.add_expert_count(EXPERTS)
        writer.add_expert_used_count(used)
        if width is not None:
            writer.add_expert_feed_forward_length(width)
        if shared is not None:
            writer.add_expert_shared_feed_forward_length(shared)

    return header


def _gemma2(writer: gguf.GGUFWriter) -> None:
    writer.add_attn_logit_softcapping(50.0)
    writer.add_final_logit_softcapping(30.0)
    writer.add_sliding_window(256)


def _granite(writer: gguf.GGUFWriter) -> None:
    writer.add_logit_scale(2.0)
    writer.add_attention_scale(0.2)
    writer.add_embedding_scale(3.0)
    writer.add_residual_scale(0.5)


_GRANITE_ARGS = {
    "logits_scaling": 2.0,
    "attention_multiplier": 0.2,
    "embedding_multiplier": 3.0,
    "residual_multiplier": 0.5,
    "attention_bias": False,
    "mlp_bias": False,
}
_MOE = {"num_experts": EXPERTS, "num_experts_per_tok": 2, "num_local_experts": EXPERTS}


def _granitemoe(writer: gguf.GGUFWriter) -> None:
    _granite(writer)
    _experts()(writer)


def _minicpm(writer: gguf.GGUFWriter) -> None:
    writer.add_embedding_scale(12.0)
    writer.add_residual_scale(1.4 / 2**0.5)
    writer.add_logit_scale(HIDDEN / 32)


def _cohere2(writer: gguf.GGUFWriter) -> None:
    writer.add_logit_scale(0.25)
    writer.add_sliding_window(256)


ARCHITECTURES = {
    "mistral": Architecture("llama", "llama", permuted_rows=True),
    "mixtral": Architecture("mixtral", "llama", _MOE, _experts(), permuted_rows=True),
    "gemma": Architecture("gemma", "gemma", norm_offset=1.0),
    "gemma2": Architecture("gemma2", "gemma2", {"query_pre_attn_scalar": HEAD_DIM}, _gemma2, norm_offset=1.0),
    "gemma3": Architecture(
        "gemma3_text",
        "gemma3",
        {"query_pre_attn_scalar": HEAD_DIM, "sliding_window": 512},
        lambda writer: writer.add_sliding_window(512),
        norm_offset=1.0,
        n_layers=7,
    ),
    "qwen2": Architecture("qwen2", "qwen2", {"tie_word_embeddings": False}),
    "qwen3": Architecture("qwen3", "qwen3", {"tie_word_embeddings": True}),
    "qwen2moe": Architecture(
        "qwen2_moe",
        "qwen2moe",
        _MOE | {"moe_intermediate_size": 96, "shared_expert_intermediate_size": 112},
        _experts(width=96, shared=112),
    ),
    "qwen3moe": Architecture(
        "qwen3_moe",
        "qwen3moe",
        _MOE
        | {
            "decoder_sparse_step": 1,
            "mlp_only_layers": [],
            "moe_intermediate_size": 96,
            "norm_topk_prob": True,
            "tie_word_embeddings": False,
        },
        _experts(width=96),
    ),
    "phi3": Architecture("phi3", "phi3"),
    "granite": Architecture("granite", "granite", _GRANITE_ARGS, _granite, permuted_rows=True),
    "smollm3": Architecture("smollm3", "smollm3", permuted_rows=True, n_layers=4),
    "olmo2": Architecture("olmo2", "olmo2", {"tie_word_embeddings": False}),
    "olmoe": Architecture(
        "olmoe", "olmoe", _MOE | {"tie_word_embeddings": False, "num_key_value_heads": HEADS}, _experts(width=FFN)
    ),
    "starcoder2": Architecture("starcoder2", "starcoder2", epsilon="layer"),
    "cohere2": Architecture(
        "cohere2",
        "cohere2",
        {"logit_scale": 0.25, "sliding_window": 256},
        _cohere2,
        n_layers=4,
        epsilon="layer",
    ),
    "stablelm": Architecture(
        "stablelm",
        "stablelm",
        {"use_qkv_bias": False, "partial_rotary_factor": 0.5, "layer_norm_eps": 1e-5},
        lambda writer: writer.add_parallel_residual(False),
        epsilon="layer",
    ),
    "glm4": Architecture(
        "glm4",
        "glm4",
        {"partial_rotary_factor": 0.5, "attention_bias": False},
    ),
    "ernie4_5": Architecture("ernie4_5", "ernie4_5", {"use_bias": False, "tie_word_embeddings": False}),
    "hunyuan": Architecture("hunyuan_v1_dense", "hunyuan-dense"),
    "seed_oss": Architecture("seed_oss", "seed_oss"),
    "cohere": Architecture(
        "cohere", "command-r", {"logit_scale": 0.25}, lambda writer: writer.add_logit_scale(0.25), epsilon="layer"
    ),
    "phi2": Architecture("phi", "phi2", {"partial_rotary_factor": 0.5, "layer_norm_eps": 1e-5}, epsilon="layer"),
    "granitemoe": Architecture(
        "granitemoe",
        "granitemoe",
        _GRANITE_ARGS | _MOE,
        _granitemoe,
        permuted_rows=True,
    ),
    "glm": Architecture("glm", "chatglm", {"partial_rotary_factor": 0.5}),
    "exaone4": Architecture(
        "exaone4",
        "exaone4",
        {
            "tie_word_embeddings": False,
            "rope_scaling": None,
            "sliding_window": None,
            "sliding_window_pattern": None,
        },
    ),
    "exaone": Architecture("exaone", "exaone", {"num_layers": 2, "layer_norm_epsilon": 1e-5}),
    "mistral3": Architecture(
        "ministral3",
        "mistral3",
        {
            "rope_parameters": {
                "rope_theta": 10000.0,
                "llama_4_scaling_beta": 0.1,
                "original_max_position_embeddings": 512,
            }
        },
        permuted_rows=True,
    ),
    "minicpm": Architecture(
        "minicpm",
        "minicpm",
        {"dim_model_base": 32, "scale_depth": 1.4, "scale_emb": 12.0},
        _minicpm,
        permuted_rows=True,
    ),
}


@dataclass(frozen=True)
class OtherModel(TinyModel):
    """A tiny model whose mlx-lm class is found by its module's name."""

    module: str = ""

    def fresh(self) -> Any:
        model = importlib.import_module(f"mlx_lm.models.{self.module}").Model(self.args)
        if "lm_head.weight" not in self.weights and hasattr(model, "tie_word_embeddings"):
            model.sanitize({})
        model.update(tree_unflatten(list(self.weights.items())))
        mx.eval(model.parameters())
        return model


def tiny(name: str, folder: Path) -> OtherModel:
    """Make the model and its GGUF."""
    how = ARCHITECTURES[name]
    module = importlib.import_module(f"mlx_lm.models.{how.module}")
    wanted = module.ModelArgs.__dataclass_fields__
    given = _SIZES | {"model_type": how.module, "num_hidden_layers": how.n_layers} | dict(how.args)
    args = module.ModelArgs(**{key: value for key, value in given.items() if key in wanted})
    model = module.Model(args)
    if how.gguf_name == "gemma3":
        model.sanitize({})  # ties the head to the embedding
    weights = _random_weights(model, 1.0 - how.norm_offset)
    path = folder / f"{name}.gguf"
    _write(path, how, args, weights)
    return OtherModel(how.gguf_name, args, weights, path, how.module)


def _random_weights(model: Any, norm: float) -> dict[str, mx.array]:
    mx.random.seed(7)
    weights: dict[str, mx.array] = {}
    for name, value in flattened(model.parameters()).items():
        if value.ndim == 1:
            centre = norm if "norm" in name and not name.endswith("bias") else 0.0
            weights[name] = centre + 0.1 * mx.random.normal(value.shape)
        else:
            weights[name] = mx.random.normal(value.shape) / (value.shape[-1] ** 0.5)
    mx.eval(weights)
    return weights


def _write(path: Path, how: Architecture, args: Any, weights: Mapping[str, mx.array]) -> None:
    writer = gguf.GGUFWriter(path, how.gguf_name)
    writer.add_block_count(how.n_layers)
    writer.add_context_length(512)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(FFN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(args.num_key_value_heads)
    if how.epsilon == "rms":
        writer.add_layer_norm_rms_eps(1e-5)
    else:
        writer.add_layer_norm_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(int(HEAD_DIM * getattr(args, "partial_rotary_factor", 1)))
    writer.add_key_length(HEAD_DIM)
    writer.add_value_length(HEAD_DIM)
    writer.add_vocab_size(VOCAB_SIZE)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    how.header(writer)
    add_tokenizer(writer)
    member = next(arch for arch, name in gguf.MODEL_ARCH_NAMES.items() if name == how.gguf_name)
    names = gguf.get_tensor_name_map(member, how.n_layers)
    for name, value in weights.items():
        hf_name = name.replace("block_sparse_moe.switch_mlp", "mlp.experts").replace("switch_mlp", "experts")
        gguf_name = names.get_name(hf_name, try_suffixes=(".weight", ".bias"))
        assert gguf_name is not None, name
        writer.add_tensor(gguf_name, _values(name, np.array(value), how))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _values(name: str, values: FloatArray, how: Architecture) -> FloatArray:
    module = name.rpartition(".")[0]
    if how.permuted_rows and module.endswith(("q_proj", "k_proj")):
        return permuted(values, HEADS if module.endswith("q_proj") else KV_HEADS)
    if how.norm_offset and "norm" in module:
        return values + np.float32(how.norm_offset)
    return values[0] if module.endswith("shared_expert_gate") else values
