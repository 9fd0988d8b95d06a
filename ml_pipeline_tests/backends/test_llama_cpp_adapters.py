from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from ml_pipeline.backends.interface import AdapterFile
from ml_pipeline.backends.llama_cpp import LlamaCppBackend
from ml_pipeline.errors import AdapterError
from ml_pipeline_tests.backends.requests import QUESTIONS, answer, ask

RANK = 4
# SmolLM2-135M: 576 wide, 9 query heads and 3 key heads of 64, 1536 in the feed-forward part.
SHAPES = {
    "blk.0.attn_q.weight": (576, 576),
    "blk.5.attn_v.weight": (192, 576),
    "blk.29.ffn_down.weight": (576, 1536),
}


def write_adapter(
    path: Path,
    *,
    b_scale: float = 0.1,
    alpha: Any = None,
    architecture: str = "llama",
    shapes: dict[str, tuple[int, int]] = SHAPES,
    dtype: Any = np.float32,
    spoil: float | None = None,
    leave_out: str = "",
) -> AdapterFile:
    """A random LoRA of the three tensors above, alpha = rank so that the scale is 1."""
    random = np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_string("general.type", "adapter")
    writer.add_string("adapter.type", "lora")
    if alpha is None:
        writer.add_float32("adapter.lora.alpha", RANK)
    else:
        alpha(writer)
    for name, (out, in_) in shapes.items():
        parts = {"a": random.normal(size=(RANK, in_)) * 0.1, "b": random.normal(size=(out, RANK)) * b_scale}
        if spoil is not None:
            parts["b"][0, 0] = spoil
        for half, values in parts.items():
            if f"{name}.lora_{half}" != leave_out:
                writer.add_tensor(f"{name}.lora_{half}", values.astype(dtype))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return AdapterFile(path, sha256="0" * 64)


def base_logits(backend: LlamaCppBackend, text: str = "The sea is") -> Any:
    tokens = backend.model.tokenize(text, add_special=True, parse_special=False)
    backend._memory.clear()
    backend._batch.clear()
    backend._batch.add(0, 0, tokens, wanted_rows=1)
    backend._batch.decode()
    logits = backend.model.logits(1)[0].copy()
    backend._memory.clear()
    return logits


def test_an_adapter_is_proven_applied_and_leaves_no_trace(backend: LlamaCppBackend, tmp_path: Path) -> None:
    text = answer(backend, ask(QUESTIONS[0])).text
    logits = base_logits(backend)
    adapter = write_adapter(tmp_path / "a.gguf")
    proof = backend.use_adapter(adapter)
    assert proof is not None
    assert proof.tensors_matched == 6
    assert proof.max_abs_logit_difference > 0.1
    assert np.abs(base_logits(backend) - logits).max() > 0.1
    assert backend.use_adapter(None) is None
    assert np.array_equal(base_logits(backend), logits)
    assert answer(backend, ask(QUESTIONS[0])).text == text


def test_a_swap_replaces_the_adapter_before(backend: LlamaCppBackend, tmp_path: Path) -> None:
    small, large = write_adapter(tmp_path / "s.gguf", b_scale=0.01), write_adapter(tmp_path / "l.gguf", b_scale=0.2)
    backend.use_adapter(small)
    alone = base_logits(backend)
    backend.use_adapter(large)
    backend.use_adapter(small)
    assert np.array_equal(base_logits(backend), alone)
    backend.use_adapter(None)


def test_the_scale_multiplies_the_adapter(backend: LlamaCppBackend, tmp_path: Path) -> None:
    once, twice = write_adapter(tmp_path / "1.gguf", b_scale=0.05), write_adapter(tmp_path / "2.gguf", b_scale=0.1)
    backend.use_adapter(AdapterFile(once.path, once.sha256, scale=2.0))
    scaled = base_logits(backend)
    backend.use_adapter(twice)
    np.testing.assert_allclose(base_logits(backend), scaled, atol=1e-3)
    backend.use_adapter(None)


def test_several_adapters_add_up_and_each_is_proven(backend: LlamaCppBackend, tmp_path: Path) -> None:
    whole = write_adapter(tmp_path / "a.gguf", b_scale=0.05)
    backend.use_adapter(whole)
    alone = base_logits(backend)
    halves = [AdapterFile(write_adapter(tmp_path / name, b_scale=0.05).path, "", scale=0.5) for name in ("b", "c")]
    proofs = backend.use_adapters(halves)
    assert [proof.tensors_matched for proof in proofs] == [6, 6]
    assert all(proof.max_abs_logit_difference > 0.01 for proof in proofs)
    np.testing.assert_allclose(base_logits(backend), alone, atol=1e-3)
    assert backend.use_adapters([]) == []


def test_one_bad_adapter_among_several_leaves_the_bare_base(backend: LlamaCppBackend, tmp_path: Path) -> None:
    logits = base_logits(backend)
    good, zero = write_adapter(tmp_path / "good.gguf"), write_adapter(tmp_path / "zero.gguf", b_scale=0.0)
    with pytest.raises(AdapterError, match=r"zero.gguf: not applied"):
        backend.use_adapters([good, zero])
    assert np.array_equal(base_logits(backend), logits)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"b_scale": 0.0}, "not applied"),
        ({"spoil": float("nan")}, r"blk.0.attn_q.weight.lora_b: holds NaN"),
        ({"spoil": 3e38}, "NaN or infinite under this adapter"),
        ({"alpha": lambda writer: writer.add_uint32("adapter.lora.alpha", 4)}, "not a 32-bit float"),
        ({"alpha": lambda writer: writer.add_float32("adapter.lora.alpha", float("nan"))}, "alpha is nan"),
        ({"alpha": lambda writer: None}, "alpha is missing"),
        ({"architecture": "gemma3"}, "'gemma3', not 'llama'"),
        ({"dtype": np.float64}, "stored as F64"),
        ({"dtype": np.int8}, "stored as I8"),
        ({"shapes": {"blk.0.attn_q.weight": (577, 576)}}, "llama.cpp cannot load this adapter"),
        ({"shapes": {"blk.77.attn_q.weight": (576, 576)}}, "the base model has no such tensor"),
        ({"leave_out": "blk.5.attn_v.weight.lora_a"}, "its other half is missing"),
        ({"shapes": {}}, "it holds no tensors"),
    ],
)
def test_a_bad_adapter_is_refused_and_the_base_answers(
    backend: LlamaCppBackend, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    logits = base_logits(backend)
    backend.use_adapter(write_adapter(tmp_path / "good.gguf"))
    with pytest.raises(AdapterError, match=message):
        backend.use_adapter(write_adapter(tmp_path / "bad.gguf", **options))
    assert np.array_equal(base_logits(backend), logits)


def test_three_dimensions_on_a_plain_layer_are_refused(backend: LlamaCppBackend, tmp_path: Path) -> None:
    path = tmp_path / "deep.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_string("general.type", "adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 4.0)
    writer.add_tensor("blk.0.attn_q.weight.lora_a", np.ones((2, 4, 576), dtype=np.float32))
    writer.add_tensor("blk.0.attn_q.weight.lora_b", np.ones((2, 576, 4), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(AdapterError, match="3 dimensions on a tensor of 2"):
        backend.use_adapter(AdapterFile(path, "0" * 64))


@pytest.mark.parametrize("content", [None, b"", b"GGUF", b"safetensors" * 100])
def test_a_file_that_is_no_adapter_is_refused(backend: LlamaCppBackend, tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "x.gguf"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(AdapterError, match=r"x\.gguf: (there is no such adapter|not a whole GGUF file)"):
        backend.use_adapter(AdapterFile(path, "0" * 64))
