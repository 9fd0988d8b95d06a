"""Tiny random models, each for mlx-lm (its own classes) and for llama.cpp (a float32 GGUF), and adapters for them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import gguf
import llama_cpp
import mlx.core as mx
import numpy as np
import numpy.typing as npt
from mlx.utils import tree_flatten, tree_unflatten
from mlx_lm.models import gemma3_text, llama, mixtral
from mlx_lm.tuner.utils import linear_to_lora_layers

from ml_pipeline.backends.kernels import Kernels
from ml_pipeline_tests.backends.high_level import high_level_model

VOCAB_SIZE = 320
TOKENS = [1, 17, 250, 99, 4, 311, 64, 65, 66, 23, 23, 180]

FloatArray = npt.NDArray[np.float32]

_COMMON_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
}
_NAMES = {
    "llama": _COMMON_NAMES | {"post_attention_layernorm": "ffn_norm"},
    "gemma3": _COMMON_NAMES
    | {
        "self_attn.q_norm": "attn_q_norm",
        "self_attn.k_norm": "attn_k_norm",
        "post_attention_layernorm": "post_attention_norm",
        "pre_feedforward_layernorm": "ffn_norm",
        "post_feedforward_layernorm": "post_ffw_norm",
    },
}
_TOP_NAMES = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


_MODULES: dict[str, Any] = {"llama": llama, "gemma3": gemma3_text, "mixtral": mixtral}


@dataclass(frozen=True)
class TinyModel:
    """One model in both worlds; `fresh` gives the mlx-lm side anew, without any adapter on it."""

    architecture: str
    args: Any
    weights: Mapping[str, mx.array]
    gguf_path: Path

    def fresh(self) -> Any:
        model = _MODULES[self.architecture].Model(self.args)
        if "lm_head.weight" not in self.weights:
            # Without a head among the weights, gemma3 ties it to the embedding here.
            model.sanitize({})
        model.update(tree_unflatten(list(self.weights.items())))
        mx.eval(model.parameters())
        return model


def flattened(tree: Any) -> dict[str, Any]:
    """Arrays by their full names, as mlx-lm saves them."""
    return dict(cast("list[tuple[str, Any]]", tree_flatten(tree)))


def loaded(path: Path) -> dict[str, Any]:
    """Arrays of a safetensors file by their names."""
    return cast("dict[str, Any]", mx.load(str(path)))


def tiny_llama(folder: Path, *, n_layers: int = 2, hidden: int = 64, tied: bool = False) -> TinyModel:
    args = llama.ModelArgs(
        model_type="llama",
        hidden_size=hidden,
        num_hidden_layers=n_layers,
        intermediate_size=2 * hidden,
        num_attention_heads=4,
        num_key_value_heads=2,
        rms_norm_eps=1e-5,
        vocab_size=VOCAB_SIZE,
        tie_word_embeddings=tied,
    )
    weights = _random_weights(llama.Model(args), norm_offset=1.0)
    return _written(folder, "llama", args, weights)


def tiny_gemma3(folder: Path, *, n_layers: int = 7, sliding_window: int = 512) -> TinyModel:
    """Seven layers, so that one of them attends globally: every sixth does."""
    args = gemma3_text.ModelArgs(
        model_type="gemma3_text",
        hidden_size=64,
        num_hidden_layers=n_layers,
        intermediate_size=128,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        query_pre_attn_scalar=32,
        vocab_size=VOCAB_SIZE,
        sliding_window=sliding_window,
    )
    model: Any = gemma3_text.Model(args)
    model.sanitize({})
    return _written(folder, "gemma3", args, _random_weights(model, norm_offset=0.0))


def tiny_mixtral(folder: Path) -> TinyModel:
    """A mixture of four experts, for mlx-lm alone: there is no GGUF of it."""
    args = mixtral.ModelArgs(
        model_type="mixtral",
        vocab_size=VOCAB_SIZE,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_local_experts=4,
    )
    folder.mkdir(parents=True, exist_ok=True)
    return TinyModel("mixtral", args, _random_weights(mixtral.Model(args), norm_offset=1.0), folder / "none.gguf")


def _random_weights(model: Any, *, norm_offset: float) -> dict[str, mx.array]:
    mx.random.seed(7)
    weights: dict[str, mx.array] = {}
    for name, value in flattened(model.parameters()).items():
        if value.ndim == 1:
            weights[name] = norm_offset + 0.1 * mx.random.normal(value.shape)
        else:
            weights[name] = mx.random.normal(value.shape) / (value.shape[-1] ** 0.5)
    mx.eval(weights)
    return weights


def _gguf_name(architecture: str, name: str) -> str:
    module = name.removesuffix(".weight")
    if module in _TOP_NAMES:
        return f"{_TOP_NAMES[module]}.weight"
    _, _, layer, inner = module.split(".", 3)
    return f"blk.{layer}.{_NAMES[architecture][inner]}.weight"


def permuted(rows: FloatArray, heads: int) -> FloatArray:
    """Reorder as `LlamaModel.permute` of convert_hf_to_gguf.py, spelled out row by row."""
    size = rows.shape[0] // heads
    order = [head * size + half * (size // 2) + i for head in range(heads) for i in range(size // 2) for half in (0, 1)]
    return np.ascontiguousarray(rows[order])


def _written(folder: Path, architecture: str, args: Any, weights: dict[str, mx.array]) -> TinyModel:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{architecture}.gguf"
    write_base_gguf(path, architecture, args, weights)
    return TinyModel(architecture, args, weights, path)


def write_base_gguf(path: Path, architecture: str, args: Any, weights: Mapping[str, mx.array]) -> None:
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(args.num_hidden_layers)
    writer.add_context_length(512)
    writer.add_embedding_length(args.hidden_size)
    writer.add_feed_forward_length(args.intermediate_size)
    writer.add_head_count(args.num_attention_heads)
    writer.add_head_count_kv(args.num_key_value_heads)
    writer.add_layer_norm_rms_eps(args.rms_norm_eps)
    writer.add_rope_freq_base(args.rope_theta)
    writer.add_vocab_size(VOCAB_SIZE)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    if architecture == "gemma3":
        writer.add_key_length(args.head_dim)
        writer.add_value_length(args.head_dim)
        writer.add_sliding_window(args.sliding_window)
    add_tokenizer(writer)
    for name, value in weights.items():
        array = np.array(value)
        if architecture == "llama" and name.endswith("q_proj.weight"):
            array = permuted(array, args.num_attention_heads)
        if architecture == "llama" and name.endswith("k_proj.weight"):
            array = permuted(array, args.num_key_value_heads)
        if architecture == "gemma3" and array.ndim == 1:
            array = array + np.float32(1)
        writer.add_tensor(_gguf_name(architecture, name) if architecture in _NAMES else name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def add_tokenizer(writer: gguf.GGUFWriter) -> None:
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokens += ["\u2581", *(f"word{i}" for i in range(VOCAB_SIZE - len(tokens) - 1))]
    types = [2, 3, 3, *[6] * 256, *[1] * (VOCAB_SIZE - 259)]
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * VOCAB_SIZE)
    writer.add_token_types(types)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)


@dataclass(frozen=True)
class SavedAdapter:
    """An adapter as mlx-lm saved it, and the mlx-lm model that carries it."""

    weights: Path
    config: Path
    model: Any


def save_adapter(
    base: TinyModel,
    folder: Path,
    *,
    rank: int = 4,
    scale: float = 2.5,
    num_layers: int = -1,
    fine_tune_type: str = "lora",
    keys: list[str] | None = None,
    dtype: mx.Dtype = mx.float32,
    strength: float = 0.05,
) -> SavedAdapter:
    """Put an adapter on a fresh model with mlx-lm's own functions, give `lora_b` what training would, and save it."""
    model = base.fresh()
    parameters: dict[str, Any] = {"rank": rank, "scale": scale, "dropout": 0.0}
    if keys is not None:
        parameters["keys"] = keys
    model.freeze()
    mx.random.seed(rank)
    if fine_tune_type == "full":
        model.unfreeze()
    else:
        linear_to_lora_layers(model, num_layers, parameters, use_dora=fine_tune_type == "dora")
        trained = [
            (name, strength * mx.random.normal(value.shape) if name.endswith("lora_b") else value)
            for name, value in flattened(model.trainable_parameters()).items()
        ]
        model.update(tree_unflatten([(name, value.astype(dtype)) for name, value in trained]))
    folder.mkdir(parents=True, exist_ok=True)
    weights, config = folder / "adapters.safetensors", folder / "adapter_config.json"
    mx.save_safetensors(str(weights), flattened(model.trainable_parameters()))
    content = {
        "adapter_path": str(folder),
        "fine_tune_type": fine_tune_type,
        "iters": 10,
        "lora_parameters": None if fine_tune_type == "full" else parameters,
        "num_layers": num_layers,
        "seed": 0,
    }
    config.write_text(json.dumps(content, indent=4))
    return SavedAdapter(weights, config, model)


def mlx_logits(model: Any, tokens: list[int] = TOKENS) -> FloatArray:
    model.eval()
    return np.array(model(mx.array([tokens]))[0].astype(mx.float32))


def llama_cpp_logits(base: Path, lora: Path | None = None, tokens: list[int] = TOKENS) -> FloatArray:
    """Logits (tokens, vocabulary) with a float32 KV cache: with float16 rounding alone shows as 0.026."""
    model = high_level_model(
        base,
        # Repacked weights are for quantised ones; without them, nothing needs a trial.
        kernels=Kernels(threads=2, extra_buffers=False),
        lora_path=str(lora) if lora else None,
        n_ctx=128,
        n_gpu_layers=0,
        logits_all=True,
        type_k=llama_cpp.GGML_TYPE_F32,
        type_v=llama_cpp.GGML_TYPE_F32,
    )
    try:
        model.eval(tokens)
        return np.array(model.scores[: len(tokens)])
    finally:
        model.close()
