"""A base model that mlx-lm can load, made out of a GGUF file on this machine.

mlx-lm reads folders of Hugging Face's layout, not GGUF files. Where the base is only at hand as a GGUF (the sample's
SmolLM2 is, and most bases that llama.cpp answers with are), the folder can be rebuilt: the weights are dequantised,
llama.cpp's reordering of the query and key rows is undone, and the tokenizer is put together from the GGUF's own
vocabulary. Both programs then hold one and the same model, quantisation loss included, so an adapter trained on the
folder belongs to the GGUF.

Sources: the GGUF specification (ggml/docs/gguf.md), `LlamaModel.permute` in llama.cpp's convert_hf_to_gguf.py, and
`mlx_lm.models.llama.ModelArgs` for the names in config.json.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from gguf import GGUFReader, GGUFValueType
from gguf.quants import dequantize
from safetensors.numpy import save_file

from ml_pipeline.errors import AdapterError

FloatArray = npt.NDArray[np.floating[Any]]

_TOP_NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_BLOCK_NAMES = {
    "attn_norm.weight": "input_layernorm.weight",
    "attn_q.weight": "self_attn.q_proj.weight",
    "attn_k.weight": "self_attn.k_proj.weight",
    "attn_v.weight": "self_attn.v_proj.weight",
    "attn_output.weight": "self_attn.o_proj.weight",
    "ffn_norm.weight": "post_attention_layernorm.weight",
    "ffn_gate.weight": "mlp.gate_proj.weight",
    "ffn_up.weight": "mlp.up_proj.weight",
    "ffn_down.weight": "mlp.down_proj.weight",
}
_CONTROL_TOKEN = 3
"""`tokenizer.ggml.token_type` of tokens such as <|im_end|>, which text never spells (GGUF specification)."""

_REMEDY = "Use a llama-architecture GGUF with SmolLM's tokenizer, or point mlx at the original Hugging Face folder."


def write_mlx_base(gguf_path: Path, out_dir: Path, dtype: Literal["float16", "float32"] = "float16") -> Path:
    """Write config.json, model.safetensors and the tokenizer of `gguf_path` into `out_dir`, and return `out_dir`.

    Each file is written aside and renamed; config.json comes last, so a folder that holds it is complete.

    Raises:
        AdapterError: the file is no GGUF, its architecture is not llama, it holds tensors that a plain llama does not
            have (long-context rope factors, biases), or its tokenizer is not one whose token ids were verified equal
            to llama.cpp's. All problems are in the one message, and nothing has been written.
    """
    reader = _open(gguf_path)
    fields = _fields(reader)
    problems = _problems(reader, fields)
    if problems:
        raise AdapterError.from_problems(str(gguf_path), problems, _REMEDY)

    out_dir.mkdir(parents=True, exist_ok=True)
    tensors = dict(_tensors(reader, fields, np.dtype(dtype)))
    _replace(out_dir / "model.safetensors", lambda path: save_file(tensors, path, metadata={"format": "mlx"}))
    _replace(out_dir / "tokenizer.json", lambda path: path.write_text(_tokenizer_json(fields), "utf-8"))
    _write_json(out_dir / "tokenizer_config.json", _tokenizer_config(fields))
    _write_json(out_dir / "config.json", _model_config(fields, tied="lm_head.weight" not in tensors, dtype=dtype))
    return out_dir


def unpermute(weight: FloatArray, n_head: int) -> FloatArray:
    """Undo llama.cpp's reordering of a query or key matrix's rows; `weight` is (n_head * head_dim, columns).

    GGUF stores each head's rows so that the two halves which rotary embedding pairs lie side by side (x0, y0, x1,
    y1, ...); Hugging Face and mlx-lm keep them as two halves (x0, x1, ..., y0, y1, ...).
    """
    rows, columns = weight.shape
    pairs = weight.reshape(n_head, rows // n_head // 2, 2, columns)
    return pairs.swapaxes(1, 2).reshape(rows, columns)


def _open(gguf_path: Path) -> GGUFReader:
    try:
        return GGUFReader(gguf_path)
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise AdapterError(
            f"{gguf_path}: cannot be read as a GGUF file ({error}). Check the path, or download the file again."
        ) from error


def _fields(reader: GGUFReader) -> dict[str, Any]:
    skipped = {GGUFValueType.ARRAY}
    wanted_arrays = {"tokenizer.ggml.tokens", "tokenizer.ggml.token_type", "tokenizer.ggml.merges"}
    return {
        name: field.contents()
        for name, field in reader.fields.items()
        if not field.types or field.types[0] not in skipped or name in wanted_arrays
    }


def _problems(reader: GGUFReader, fields: dict[str, Any]) -> list[str]:
    architecture = fields.get("general.architecture")
    if architecture != "llama":
        return [f"its architecture is {architecture!r}; only 'llama' has been verified"]
    problems = []
    kind = (fields.get("tokenizer.ggml.model"), fields.get("tokenizer.ggml.pre"))
    if kind != ("gpt2", "smollm"):
        problems.append(f"its tokenizer is {kind}; only ('gpt2', 'smollm') has been verified")
    if "llama.rope.scaling.type" in fields:
        problems.append("it scales rotary positions (llama.rope.scaling.type), which this rebuild does not carry")
    unknown = sorted(tensor.name for tensor in reader.tensors if _mlx_name(tensor.name) is None)
    if unknown:
        shown = ", ".join(unknown[:5]) + (", ..." if len(unknown) > 5 else "")
        problems.append(f"{len(unknown)} of its tensors are not a plain llama's: {shown}")
    return problems


def _mlx_name(gguf_name: str) -> str | None:
    if gguf_name in _TOP_NAMES:
        return _TOP_NAMES[gguf_name]
    parts = gguf_name.split(".", 2)
    if len(parts) == 3 and parts[0] == "blk" and parts[1].isdigit() and parts[2] in _BLOCK_NAMES:
        return f"model.layers.{parts[1]}.{_BLOCK_NAMES[parts[2]]}"
    return None


def _tensors(reader: GGUFReader, fields: dict[str, Any], dtype: np.dtype[Any]) -> Iterable[tuple[str, FloatArray]]:
    n_head = int(fields["llama.attention.head_count"])
    n_head_kv = int(fields.get("llama.attention.head_count_kv", n_head))
    heads = {"attn_q.weight": n_head, "attn_k.weight": n_head_kv}
    for tensor in reader.tensors:
        name = _mlx_name(tensor.name)
        assert name is not None, "_problems refuses unknown names before anything is written"
        weight: FloatArray = dequantize(tensor.data, tensor.tensor_type)
        permuted_heads = heads.get(tensor.name.split(".", 2)[-1])
        if permuted_heads is not None:
            weight = unpermute(weight, permuted_heads)
        yield name, np.ascontiguousarray(weight, dtype=dtype)


def _model_config(fields: dict[str, Any], tied: bool, dtype: str) -> dict[str, Any]:
    n_head = int(fields["llama.attention.head_count"])
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": fields["llama.embedding_length"],
        "num_hidden_layers": fields["llama.block_count"],
        "intermediate_size": fields["llama.feed_forward_length"],
        "num_attention_heads": n_head,
        "num_key_value_heads": fields.get("llama.attention.head_count_kv", n_head),
        "rms_norm_eps": fields["llama.attention.layer_norm_rms_epsilon"],
        "vocab_size": len(fields["tokenizer.ggml.tokens"]),
        "max_position_embeddings": fields["llama.context_length"],
        # mlx-lm reads rope_theta here and nowhere else: left out, it takes 10000 and every logit is off.
        "rope_theta": fields.get("llama.rope.freq_base", 10000.0),
        "tie_word_embeddings": tied,
        "hidden_act": "silu",
        "bos_token_id": fields.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": fields.get("tokenizer.ggml.eos_token_id"),
        "torch_dtype": dtype,
    }


def _tokenizer_json(fields: dict[str, Any]) -> str:
    """Byte-level BPE as llama.cpp's `smollm` pre-tokeniser splits it: every digit alone, then GPT-2's words."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    tokens = fields["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ", 1)) for merge in fields["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    kinds = fields["tokenizer.ggml.token_type"]
    control = [token for token, kind in zip(tokens, kinds, strict=True) if kind == _CONTROL_TOKEN]
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in control])
    return str(tokenizer.to_str(pretty=False))


def _tokenizer_config(fields: dict[str, Any]) -> dict[str, Any]:
    tokens = fields["tokenizer.ggml.tokens"]
    special = {
        f"{role}_token": tokens[fields[f"tokenizer.ggml.{key}_token_id"]]
        for role, key in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding"))
        if f"tokenizer.ggml.{key}_token_id" in fields
    }
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": fields["llama.context_length"],
        "clean_up_tokenization_spaces": False,
        **special,
    }
    if "tokenizer.chat_template" in fields:
        config["chat_template"] = fields["tokenizer.chat_template"]
    return config


def _write_json(path: Path, value: dict[str, Any]) -> None:
    _replace(path, lambda partial: partial.write_text(json.dumps(value, indent=2) + "\n", "utf-8"))


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    partial = path.with_name(f".{path.name}.partial")
    write(partial)
    with partial.open("rb+") as written:
        os.fsync(written.fileno())
    partial.replace(path)
