"""Every architecture that is called verified: MLX to GGUF LoRA, held against mlx-lm's own logits on tiny models."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ml_pipeline.adapters.gguf_architectures import VERIFIED_ARCHITECTURES
from ml_pipeline.adapters.gguf_lora import write_gguf_lora
from ml_pipeline.adapters.peft_files import write_peft
from ml_pipeline.adapters.read import read_adapter
from ml_pipeline.errors import AdapterError
from ml_pipeline_tests.adapters.tiny_architectures import ARCHITECTURES, tiny
from ml_pipeline_tests.adapters.tiny_models import llama_cpp_logits, mlx_logits, save_adapter

HALF_PRECISION_GELU = {"gemma", "gemma2", "gemma3", "phi2", "starcoder2"}
"""llama.cpp looks GELU up in a float16 table: their bare models differ by up to 0.002 already."""


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_logits_are_mlx_lms(tmp_path: Path, name: str) -> None:
    base = tiny(name, tmp_path)
    saved = save_adapter(base, tmp_path / "a", rank=3, scale=0.77, strength=0.3)
    lora = write_gguf_lora(read_adapter(saved.weights, saved.config), base.gguf_path, tmp_path / "lora.gguf")
    bare, ours = mlx_logits(base.fresh()), mlx_logits(saved.model)
    signal = np.abs(ours - bare).max()
    bare_difference = np.abs(bare - llama_cpp_logits(base.gguf_path)).max()
    difference = np.abs(ours - llama_cpp_logits(base.gguf_path, lora)).max()
    print(f"{name}: bare {bare_difference:.2e}, with adapter {difference:.2e}, signal {signal:.2f}")
    tolerance = 0.01 if name in HALF_PRECISION_GELU else 1e-4
    assert bare_difference < tolerance * np.abs(bare).max()
    assert difference < tolerance * signal


def test_all_that_are_called_verified_are() -> None:
    assert {how.gguf_name for how in ARCHITECTURES.values()} == set(VERIFIED_ARCHITECTURES)


def test_rows_are_reordered_where_the_bases_are() -> None:
    """Whether a base's rows are is settled by its bare logits, above."""
    permuted = {how.gguf_name for how in ARCHITECTURES.values() if how.permuted_rows}
    assert permuted == {name for name, rows in VERIFIED_ARCHITECTURES.items() if rows}


def test_experts_that_peft_keeps_apart_are_refused_by_name(tmp_path: Path) -> None:
    base = tiny("qwen3moe", tmp_path)
    saved = save_adapter(base, tmp_path / "a", keys=["mlp.switch_mlp.up_proj"])
    folder = write_peft(read_adapter(saved.weights, saved.config), tmp_path / "peft")
    adapter = read_adapter(folder / "adapter_model.safetensors", folder / "adapter_config.json")
    named = r"8 such as 'model\.layers\.0\.mlp\.experts\.0\.up_proj', .*: experts in modules of their own"
    with pytest.raises(AdapterError, match=named):
        write_gguf_lora(adapter, base.gguf_path, tmp_path / "lora.gguf")
