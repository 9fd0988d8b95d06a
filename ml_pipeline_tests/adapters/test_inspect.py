"""`inspect_adapter`: every figure equals what numpy and MLX work out from the whole matrices."""

from __future__ import annotations

import json
import os
import tracemalloc
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from safetensors.numpy import save_file

from ml_pipeline.adapters.inspect import inspect_adapter, misfit, product_norm, root_sum_square
from ml_pipeline.errors import AdapterError
from ml_pipeline_tests.adapters.tiny_models import TinyModel, loaded, save_adapter

Q, HEAD = "model.layers.3.self_attn.q_proj", "lm_head"


def write(folder: Path, tensors: dict[str, Any], rank: int = 4, scale: float = -2.5) -> tuple[Path, Path]:
    weights, config = folder / "adapters.safetensors", folder / "adapter_config.json"
    mx.save_safetensors(str(weights), {name: mx.array(values) for name, values in tensors.items()})
    config.write_text(json.dumps({"lora_parameters": {"rank": rank, "scale": scale}}))
    return weights, config


def random(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("dtype", [mx.float32, mx.float16, mx.bfloat16])
def test_norms_are_those_of_the_whole_product(tmp_path: Path, llama_base: TinyModel, dtype: mx.Dtype) -> None:
    saved = save_adapter(llama_base, tmp_path, rank=3, scale=0.77, dtype=dtype)
    inspection = inspect_adapter(saved.weights, saved.config)
    tensors = {name: np.array(v.astype(mx.float32)).astype(np.float64) for name, v in loaded(saved.weights).items()}
    assert [update.name for update in inspection.updates] == sorted({name.rpartition(".")[0] for name in tensors})
    products = [0.77 * tensors[f"{u.name}.lora_a"] @ tensors[f"{u.name}.lora_b"] for u in inspection.updates]
    for update, product in zip(inspection.updates, products, strict=True):
        assert update.norm == pytest.approx(np.linalg.norm(product), rel=1e-9)
        assert (update.rank, f"model.layers.{update.layer}.{update.module}") == (3, update.name)
    total = root_sum_square([update.norm for update in inspection.updates])
    assert total == pytest.approx(np.linalg.norm(np.concatenate([p.ravel() for p in products])), rel=1e-9)
    for facts in inspection.tensors:
        assert facts.norm == pytest.approx(np.linalg.norm(tensors[facts.name]), rel=1e-9)
        assert (facts.nan_count, facts.infinite_count, facts.is_zero) == (0, 0, False)


@pytest.mark.parametrize(
    ("experts", "rank", "n_in", "n_out"),
    [(1, 4, 9, 7), (1, 1, 1, 1), (1, 9, 4, 100), (5, 3, 8, 6), (3, 8, 2, 9), (300, 16, 70, 40), (1, 64, 9000, 5000)],
)
def test_product_norm(experts: int, rank: int, n_in: int, n_out: int) -> None:
    a, b = random(experts, rank, n_in), random(experts, n_out, rank, seed=1)
    expected = np.linalg.norm(np.matmul(b.astype(np.float64), a.astype(np.float64)))
    assert product_norm(a, b) == pytest.approx(expected, rel=1e-9)


def test_factors_that_cancel_give_nothing() -> None:
    a, b = np.zeros((1, 2, 50), np.float32), np.zeros((1, 40, 2), np.float32)
    a[0, 0], b[0, :, 1] = random(50), random(40)
    assert product_norm(a, b) < 1e-6


def test_mixture_of_experts_and_modules_outside_the_blocks(tmp_path: Path) -> None:
    module = "model.layers.0.mlp.switch_mlp.up_proj"
    tensors = {
        f"{module}.lora_a": random(6, 4, 32),
        f"{module}.lora_b": random(6, 64, 4),
        f"{HEAD}.lora_a": random(8, 2),
        f"{HEAD}.lora_b": random(2, 9),
    }
    head, experts = inspect_adapter(*write(tmp_path, tensors)).updates
    assert (head.layer, head.module, head.rank, experts.layer, experts.rank) == (None, HEAD, 2, 0, 4)
    product = np.matmul(tensors[f"{module}.lora_b"], tensors[f"{module}.lora_a"])
    assert experts.norm == pytest.approx(2.5 * np.linalg.norm(product), rel=1e-5)


def test_spoilt_and_untrained_tensors_are_counted_and_named(tmp_path: Path) -> None:
    spoilt = random(8, 4)
    spoilt[1, 1], spoilt[2, :3], spoilt[7, 3] = np.nan, np.inf, -np.inf
    tensors = {
        f"{Q}.lora_a": spoilt,
        f"{Q}.lora_b": random(4, 8),
        f"{HEAD}.lora_a": random(8, 4),
        f"{HEAD}.lora_b": np.zeros((4, 9), np.float32),
    }
    inspection = inspect_adapter(*write(tmp_path, tensors))
    (facts,) = inspection.spoilt
    assert (facts.name, facts.nan_count, facts.infinite_count, facts.norm) == (f"{Q}.lora_a", 1, 4, None)
    assert [tensor.name for tensor in inspection.zeros] == [f"{HEAD}.lora_b"]
    assert {update.name: update.norm for update in inspection.updates} == {HEAD: 0.0, Q: None}
    assert root_sum_square([0.0, None]) is None


def test_the_largest_values_do_not_overflow(tmp_path: Path) -> None:
    largest = np.full((4, 4), np.finfo(np.float32).max)
    (update,) = inspect_adapter(*write(tmp_path, {f"{Q}.lora_a": largest, f"{Q}.lora_b": largest})).updates
    assert update.norm == pytest.approx(2.5 * 16 * float(np.finfo(np.float32).max) ** 2)


def test_full_fine_tunes_and_dora(tmp_path: Path, llama_base: TinyModel) -> None:
    full = save_adapter(llama_base, tmp_path / "full", fine_tune_type="full")
    inspection = inspect_adapter(full.weights, full.config)
    assert (inspection.updates, len(inspection.tensors)) == ((), len(llama_base.weights))
    assert "a full fine-tune" in str(misfit(inspection.adapter, llama_base.gguf_path))
    dora = save_adapter(llama_base, tmp_path / "dora", fine_tune_type="dora")
    inspection = inspect_adapter(dora.weights, dora.config)
    assert len(inspection.updates) == 14
    assert misfit(inspection.adapter, llama_base.gguf_path) is None


def test_which_base_it_fits(tmp_path: Path, llama_base: TinyModel, gemma3_base: TinyModel) -> None:
    saved = save_adapter(llama_base, tmp_path)
    adapter = inspect_adapter(saved.weights, saved.config).adapter
    assert misfit(adapter, llama_base.gguf_path) is None
    reason = str(misfit(adapter, gemma3_base.gguf_path))
    assert "the adapter's last layer is 1, the base's is 6" in reason
    assert "'model.layers.1.self_attn.q_proj': made for a weight of [64, 64]" in reason


def test_memory_stays_below_the_largest_tensor_whatever_the_file_holds(tmp_path: Path) -> None:
    shapes = {f"model.layers.{i}.mlp.up_proj.lora_{leaf}": shape for i in range(12) for leaf, shape in _LARGE.items()}
    weights, config = tmp_path / "adapters.safetensors", tmp_path / "adapter_config.json"
    save_file({name: np.ones(shape, np.float16) for name, shape in shapes.items()}, weights)
    config.write_text(json.dumps({"lora_parameters": {"rank": 64, "scale": 1.0}}))
    inspect_adapter(weights, config)
    tracemalloc.start()
    inspect_adapter(weights, config)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    largest = max(2 * a * b for a, b in _LARGE.values())
    assert weights.stat().st_size > 12 * largest
    assert peak < largest


_LARGE = {"a": (40_000, 64), "b": (64, 120_000)}


def test_refuses_what_is_not_sound(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for name, expected in (("none", "there is no such file"), ("fifo", "not a regular file")):
        with pytest.raises(AdapterError, match=expected):
            inspect_adapter(tmp_path / name, tmp_path / "none.json")
    with pytest.raises(AdapterError, match="lora_b missing"):
        inspect_adapter(*write(tmp_path, {f"{Q}.lora_a": random(8, 4)}))
