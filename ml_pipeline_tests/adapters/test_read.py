"""`read_adapter`: what mlx-lm saves is understood, and files that do not belong together are refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from safetensors.numpy import save_file

from ml_pipeline.adapters.read import read_adapter
from ml_pipeline.errors import AdapterError
from ml_pipeline_tests.adapters.tiny_models import TinyModel, save_adapter

BLOCK_MODULES = (
    "mlp.down_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "self_attn.k_proj",
    "self_attn.o_proj",
    "self_attn.q_proj",
    "self_attn.v_proj",
)
Q = "model.layers.0.self_attn.q_proj"


def files(
    folder: Path, shapes: Mapping[str, tuple[int, ...]], dtype: Any = np.float32, **config: Any
) -> tuple[Path, Path]:
    folder.mkdir(exist_ok=True)
    weights, path = folder / "adapters.safetensors", folder / "adapter_config.json"
    save_file({name: np.ones(shape, dtype) for name, shape in shapes.items()}, weights)
    content = {"fine_tune_type": "lora", "num_layers": 4, "lora_parameters": {"rank": 4, "scale": 20.0}}
    path.write_text(json.dumps(content | config))
    return weights, path


def test_lora_as_mlx_lm_saves_it(tmp_path: Path, llama_base: TinyModel) -> None:
    saved = save_adapter(llama_base, tmp_path / "a", rank=3, scale=0.77)
    adapter = read_adapter(saved.weights, saved.config)
    assert (adapter.kind, adapter.rank, adapter.scale) == ("lora", 3, 0.77)
    assert (adapter.layers, adapter.modules) == ((0, 1), BLOCK_MODULES)
    assert adapter.tensor_count == 2 * 2 * 7
    assert adapter.size_bytes == saved.weights.stat().st_size
    assert (adapter.path, adapter.config_path) == (saved.weights, saved.config)


def test_last_layer_only_with_chosen_modules(tmp_path: Path, llama_base: TinyModel) -> None:
    saved = save_adapter(llama_base, tmp_path / "a", num_layers=1, keys=["self_attn.q_proj", "mlp.down_proj"])
    adapter = read_adapter(saved.weights, saved.config)
    assert (adapter.layers, adapter.modules) == ((1,), ("mlp.down_proj", "self_attn.q_proj"))


def test_modules_outside_the_blocks_count_under_their_full_path(tmp_path: Path, llama_base: TinyModel) -> None:
    saved = save_adapter(llama_base, tmp_path / "a", keys=["lm_head", "model.embed_tokens"])
    adapter = read_adapter(saved.weights, saved.config)
    assert (adapter.layers, adapter.modules) == ((), ("lm_head", "model.embed_tokens"))


@pytest.mark.parametrize("keys", [None, ["model.embed_tokens", "self_attn.q_proj"]])
def test_dora(tmp_path: Path, llama_base: TinyModel, keys: list[str] | None) -> None:
    saved = save_adapter(llama_base, tmp_path / "a", fine_tune_type="dora", keys=keys)
    adapter = read_adapter(saved.weights, saved.config)
    assert (adapter.kind, adapter.rank) == ("dora", 4)


def test_full_fine_tune(tmp_path: Path, llama_base: TinyModel) -> None:
    saved = save_adapter(llama_base, tmp_path / "a", fine_tune_type="full")
    adapter = read_adapter(saved.weights, saved.config)
    assert (adapter.kind, adapter.rank, adapter.scale, adapter.layers) == ("full", 0, 1.0, (0, 1))
    assert "model.embed_tokens" in adapter.modules


def test_mixture_of_experts_is_not_transposed(tmp_path: Path) -> None:
    module = "model.layers.0.mlp.switch_mlp.up_proj"
    shapes = {f"{module}.lora_a": (6, 4, 32), f"{module}.lora_b": (6, 64, 4)}
    assert read_adapter(*files(tmp_path / "a", shapes)).rank == 4


def test_ranks_may_differ_between_layers(tmp_path: Path) -> None:
    shapes = {f"{Q}.lora_a": (8, 2), f"{Q}.lora_b": (2, 8), "lm_head.lora_a": (8, 4), "lm_head.lora_b": (4, 9)}
    assert read_adapter(*files(tmp_path / "a", shapes)).rank == 4


def test_hash_follows_weights_and_scale_but_not_place(tmp_path: Path, llama_base: TinyModel) -> None:
    def sha256(name: str, **options: Any) -> str:
        saved = save_adapter(llama_base, tmp_path / name, **options)
        return read_adapter(saved.weights, saved.config).sha256

    assert sha256("a") == sha256("b")
    different = {sha256("a"), sha256("c", scale=2.0), sha256("d", strength=0.06), sha256("e", rank=5)}
    assert len(different) == 4


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        ({}, "holds no tensors"),
        (
            {"base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight": (4, 8)},
            "this is a PEFT adapter (1 tensors",
        ),
        ({"base_model.model.x.lora_B.default.weight": (8, 4)}, "the configuration beside it is not PEFT's"),
        ({"base_model.model.x.lora_magnitude_vector": (8,)}, "this is a PEFT adapter"),
        ({f"{Q}.weight": (8, 8), "model.norm.weight": (8,)}, 'must say "fine_tune_type": "full"'),
        ({f"{Q}.lora_a": (8, 4)}, f"'{Q}': lora_b missing"),
        ({f"{Q}.lora_b": (4, 8)}, f"'{Q}': lora_a missing"),
        ({f"{Q}.lora_a": (8, 4), f"{Q}.lora_b": (3, 8)}, "ranks differ, lora_a [8, 4] against lora_b [3, 8]"),
        ({f"{Q}.lora_a": (8,), f"{Q}.lora_b": (4, 8)}, "are not two matrices"),
        ({f"{Q}.lora_a": (2, 4, 8), f"{Q}.lora_b": (3, 8, 4)}, "ranks differ"),
        ({f"{Q}.lora_a": (8, 0), f"{Q}.lora_b": (0, 8)}, "shape [8, 0] is empty"),
        (
            {f"{Q}.lora_a": (8, 2), f"{Q}.lora_b": (2, 8)},
            "largest rank in the weights is 2, but the configuration says 4",
        ),
        ({f"{Q}.lora_a": (8, 4), f"{Q}.lora_b": (4, 8), "x.weight": (1,)}, "'x.weight': not an adapter tensor"),
        ({f"{Q}.lora_a": (8, 4), f"{Q}.lora_b": (4, 8), f"{Q}.m": (8,)}, "dora adapter, but fine_tune_type says lora"),
        ({f"{Q}.lora_a": (8, 4), f"{Q}.lora_b": (4, 8), f"{Q}.m": (7,)}, "m has shape [7]"),
        ({"lora_a": (8, 4), "lora_b": (4, 8)}, "no LoRA tensors"),
        ({"lora_a": (8, 4), f"{Q}.lora_a": (8, 4), f"{Q}.lora_b": (4, 8)}, "'lora_a': not an adapter tensor"),
    ],
)
def test_refuses_what_is_no_lora_of_mlx_lm(tmp_path: Path, shapes: dict[str, tuple[int, ...]], expected: str) -> None:
    with pytest.raises(AdapterError) as caught:
        read_adapter(*files(tmp_path / "a", shapes))
    assert expected in str(caught.value)


@pytest.mark.parametrize("dtype", [np.float64, np.int8, np.int32])
def test_refuses_dtypes_that_llama_cpp_dies_of(tmp_path: Path, dtype: Any) -> None:
    with pytest.raises(AdapterError, match="only F32, F16, BF16 are supported"):
        read_adapter(*files(tmp_path / "a", {f"{Q}.lora_a": (8, 4), f"{Q}.lora_b": (4, 8)}, dtype))


def test_more_layers_than_the_configuration_says(tmp_path: Path) -> None:
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in range(3):
        shapes |= {f"model.layers.{layer}.q.lora_a": (8, 4), f"model.layers.{layer}.q.lora_b": (4, 8)}
    with pytest.raises(AdapterError, match="touch 3 layers, but num_layers says 2"):
        read_adapter(*files(tmp_path / "a", shapes, num_layers=2))


def test_lora_weights_with_the_configuration_of_a_full_fine_tune(tmp_path: Path) -> None:
    shapes = {f"{Q}.lora_a": (8, 4), f"{Q}.lora_b": (4, 8)}
    with pytest.raises(AdapterError, match="those of a lora adapter, but fine_tune_type says full"):
        read_adapter(*files(tmp_path / "a", shapes, fine_tune_type="full", lora_parameters=None))


def test_nan_is_refused(tmp_path: Path) -> None:
    weights, config = files(tmp_path / "a", {f"{Q}.lora_a": (8, 4), f"{Q}.lora_b": (4, 8)})
    mx.save_safetensors(str(weights), {f"{Q}.lora_a": mx.full((8, 4), float("nan")), f"{Q}.lora_b": mx.ones((4, 8))})
    with pytest.raises(AdapterError, match="lora_a': 32 of 32 values are NaN or infinite"):
        read_adapter(weights, config)


def test_problems_of_both_files_come_at_once(tmp_path: Path) -> None:
    with pytest.raises(AdapterError) as caught:
        read_adapter(tmp_path / "adapters.safetensors", tmp_path / "adapter_config.json")
    assert "adapters.safetensors: there is no such file" in str(caught.value)
    assert "adapter_config.json: there is no such file" in str(caught.value)
