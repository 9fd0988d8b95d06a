"""MLX to PEFT, loaded by the real peft library and held against mlx-lm's own logits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_unflatten

from ml_pipeline.adapters.peft_files import write_peft
from ml_pipeline.adapters.read import read_adapter
from ml_pipeline.errors import AdapterError
from ml_pipeline_tests.adapters.peft_models import logits, with_adapter
from ml_pipeline_tests.adapters.tiny_architectures import tiny
from ml_pipeline_tests.adapters.tiny_models import (
    SavedAdapter,
    TinyModel,
    flattened,
    loaded,
    mlx_logits,
    save_adapter,
    tiny_llama,
)

pytestmark = pytest.mark.peft


def differences(base: TinyModel, saved: SavedAdapter, folder: Path, *, tied: bool = False) -> tuple[float, float]:
    """How far peft is from mlx-lm with the adapter on, and how far the adapter moves mlx-lm's logits."""
    ours = mlx_logits(saved.model)
    write_peft(read_adapter(saved.weights, saved.config), folder)
    difference = np.abs(ours - logits(with_adapter(base, folder, tied=tied))).max()
    signal = np.abs(ours - mlx_logits(base.fresh())).max()
    print(f"difference {difference:.2e}, signal {signal:.2f}")
    return float(difference), float(signal)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"rank": 3, "scale": 0.77, "strength": 0.3},
        {"rank": 3, "scale": 4 / 3**0.5},
        {"scale": -2.5},
        {"num_layers": 1},
        {"keys": ["lm_head", "mlp.down_proj"]},
        {"keys": ["model.embed_tokens", "self_attn.v_proj"]},
        {"fine_tune_type": "dora"},
        {"fine_tune_type": "dora", "num_layers": 1, "keys": ["self_attn.k_proj", "mlp.up_proj"]},
    ],
    ids=str,
)
def test_peft_gives_mlx_lms_logits(tmp_path: Path, llama_base: TinyModel, options: dict[str, Any]) -> None:
    saved = save_adapter(llama_base, tmp_path / "a", **options)
    difference, signal = differences(llama_base, saved, tmp_path / "peft")
    assert signal > 0.1
    assert difference < 1e-4 * signal


def test_a_head_that_is_tied_to_the_embedding_is_adapted_with_it(tmp_path: Path) -> None:
    base = tiny_llama(tmp_path / "base", tied=True)
    saved = save_adapter(base, tmp_path / "a", keys=["model.embed_tokens"], strength=0.3)
    difference, signal = differences(base, saved, tmp_path / "peft", tied=True)
    assert difference < 1e-4 * signal


@pytest.mark.parametrize("dtype", [mx.bfloat16, mx.float16])
def test_half_precision_values_stay_as_they_are(tmp_path: Path, llama_base: TinyModel, dtype: mx.Dtype) -> None:
    saved = save_adapter(llama_base, tmp_path / "a", dtype=dtype)
    write_peft(read_adapter(saved.weights, saved.config), tmp_path / "peft")
    written, stored = loaded(tmp_path / "peft" / "adapter_model.safetensors"), loaded(saved.weights)
    assert len(written) == len(stored)
    for name, value in stored.items():
        module, _, leaf = name.rpartition(".")
        other = written[f"base_model.model.{module}.{leaf[:-1]}{leaf[-1].upper()}.weight"]
        assert other.dtype == dtype
        assert mx.array_equal(other, value.T)


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_ranks_that_differ_between_layers(tmp_path: Path, llama_base: TinyModel, kind: str) -> None:
    saved = save_adapter(llama_base, tmp_path / "a", rank=6, scale=3.0, fine_tune_type=kind)
    cut = {}
    for name, value in flattened(saved.model.trainable_parameters()).items():
        rank = 2 if "layers.0" in name else 6
        whole = name.endswith(".m")
        cut[name] = value if whole else value[:, :rank] if name.endswith("lora_a") else value[:rank]
    saved.model.update(tree_unflatten(list(cut.items())))
    mx.save_safetensors(str(saved.weights), cut)
    difference, signal = differences(llama_base, saved, tmp_path / "peft")
    config = json.loads((tmp_path / "peft" / "adapter_config.json").read_text())
    assert set(config["rank_pattern"].values()) == {2}
    assert difference < 1e-4 * signal


def test_experts(tmp_path: Path) -> None:
    base = tiny("qwen3moe", tmp_path)
    keys = ["self_attn.q_proj", *(f"mlp.switch_mlp.{name}_proj" for name in ("gate", "up", "down"))]
    saved = save_adapter(base, tmp_path / "a", keys=keys, strength=0.3)
    difference, signal = differences(base, saved, tmp_path / "peft")
    assert signal > 0.1
    assert difference < 1e-4 * signal


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"fine_tune_type": "full"}, "a full fine-tune, which is a model of its own"),
        ({"fine_tune_type": "dora", "keys": ["model.embed_tokens"]}, "'model.embed_tokens': DoRA on an embedding"),
    ],
)
def test_what_peft_cannot_express(
    tmp_path: Path, llama_base: TinyModel, options: dict[str, Any], expected: str
) -> None:
    saved = save_adapter(llama_base, tmp_path / "a", **options)
    with pytest.raises(AdapterError, match=expected):
        write_peft(read_adapter(saved.weights, saved.config), tmp_path / "peft")
    assert not (tmp_path / "peft").exists()
