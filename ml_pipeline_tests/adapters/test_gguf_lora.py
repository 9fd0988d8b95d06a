"""MLX to GGUF LoRA, held against mlx-lm's own logits: greedy text hides faults that logits show."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_unflatten

from ml_pipeline.adapters.gguf_lora import write_gguf_lora
from ml_pipeline.adapters.read import read_adapter
from ml_pipeline.errors import AdapterError
from ml_pipeline_tests.adapters.tiny_models import (
    SavedAdapter,
    TinyModel,
    flattened,
    llama_cpp_logits,
    loaded,
    mlx_logits,
    save_adapter,
    tiny_llama,
    write_base_gguf,
)


def converted(saved: SavedAdapter, base: TinyModel, folder: Path) -> Path:
    return write_gguf_lora(read_adapter(saved.weights, saved.config), base.gguf_path, folder / "lora.gguf")


def differences(base: TinyModel, saved: SavedAdapter, lora: Path) -> tuple[float, float]:
    """How far llama.cpp is from mlx-lm with the adapter on, and how far the adapter moves mlx-lm's logits."""
    ours, theirs = mlx_logits(saved.model), llama_cpp_logits(base.gguf_path, lora)
    difference, signal = np.abs(ours - theirs).max(), np.abs(ours - mlx_logits(base.fresh())).max()
    print(f"{base.architecture}: difference {difference:.2e}, signal {signal:.2f}")
    return float(difference), float(signal)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"rank": 3, "scale": 0.77, "strength": 0.3},
        {"scale": -2.5},
        {"num_layers": 1},
        {"keys": ["self_attn.q_proj"], "strength": 0.3},
        {"keys": ["self_attn.k_proj"], "strength": 0.3},
        {"keys": ["lm_head", "mlp.down_proj"]},
        {"keys": ["model.embed_tokens", "self_attn.v_proj"]},
        {"dtype": mx.bfloat16},
        {"dtype": mx.float16},
        {"rank": 16, "strength": 0.02},
    ],
    ids=str,
)
def test_llama_gives_mlx_lms_logits(tmp_path: Path, llama_base: TinyModel, options: dict[str, Any]) -> None:
    saved = save_adapter(llama_base, tmp_path / "a", **options)
    difference, signal = differences(llama_base, saved, converted(saved, llama_base, tmp_path))
    assert signal > 0.1
    assert difference < 1e-3 * signal


@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "scale": 10.0}, {"dtype": mx.bfloat16}], ids=str)
def test_gemma3_gives_mlx_lms_logits(tmp_path: Path, gemma3_base: TinyModel, options: dict[str, Any]) -> None:
    """Looser than llama: llama.cpp looks GELU up in a float16 table, which shows in the bare base too (0.0014)."""
    saved = save_adapter(gemma3_base, tmp_path / "a", **options)
    difference, signal = differences(gemma3_base, saved, converted(saved, gemma3_base, tmp_path))
    assert signal > 0.5
    assert difference < 0.01 * signal


def test_without_the_permutation_the_comparison_fails(tmp_path: Path, llama_base: TinyModel) -> None:
    """The fault this guards against is real: the same tensors, q and k left in mlx-lm's order."""
    saved = save_adapter(llama_base, tmp_path / "a")
    tensors = loaded(saved.weights)
    path = tmp_path / "unpermuted.gguf"
    good = gguf.GGUFReader(converted(saved, llama_base, tmp_path))
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 10.0)
    for tensor in good.tensors:
        values = np.array(tensor.data)
        for short, module in (("attn_q", "q_proj"), ("attn_k", "k_proj")):
            if f"{short}.weight.lora_b" in tensor.name:
                layer = tensor.name.split(".")[1]
                values = np.ascontiguousarray(np.array(tensors[f"model.layers.{layer}.self_attn.{module}.lora_b"]).T)
        writer.add_tensor(tensor.name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    difference, signal = differences(llama_base, saved, path)
    assert difference > 0.05 * signal


def test_ranks_that_differ_between_layers(tmp_path: Path, llama_base: TinyModel) -> None:
    saved = save_adapter(llama_base, tmp_path / "a", rank=6, scale=3.0)
    cut = {}
    for name, value in flattened(saved.model.trainable_parameters()).items():
        rank = 2 if "layers.0" in name else 6
        cut[name] = value[:, :rank] if name.endswith("lora_a") else value[:rank]
    saved.model.update(tree_unflatten(list(cut.items())))
    mx.save_safetensors(str(saved.weights), cut)
    lora = converted(saved, llama_base, tmp_path)
    assert gguf.GGUFReader(lora).fields["adapter.lora.alpha"].contents() == 0.0
    difference, signal = differences(llama_base, saved, lora)
    assert difference < 1e-3 * signal


def test_the_file_is_what_llama_cpps_own_converter_writes(tmp_path: Path, llama_base: TinyModel) -> None:
    """Keys, types, names and shapes by llama.cpp's convert_lora_to_gguf.py; llama.cpp aborts on another alpha type."""
    saved = save_adapter(llama_base, tmp_path / "a", rank=3, scale=0.77)
    reader = gguf.GGUFReader(converted(saved, llama_base, tmp_path))
    keys = {key: field for key, field in reader.fields.items() if not key.startswith("GGUF.")}
    assert {key: field.contents() for key, field in keys.items() if key != "adapter.lora.alpha"} == {
        "general.architecture": "llama",
        "general.type": "adapter",
        "adapter.type": "lora",
    }
    alpha = keys["adapter.lora.alpha"]
    assert alpha.types == [gguf.GGUFValueType.FLOAT32]
    assert alpha.contents() == np.float32(0.77 * 3)
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    assert len(tensors) == 28
    assert tensors["blk.1.ffn_down.weight.lora_a"].data.shape == (3, 128)
    assert tensors["blk.1.ffn_down.weight.lora_b"].data.shape == (64, 3)
    assert all(tensor.tensor_type == gguf.GGMLQuantizationType.F32 for tensor in reader.tensors)
    weights = loaded(saved.weights)
    np.testing.assert_array_equal(
        tensors["blk.1.ffn_down.weight.lora_a"].data, np.array(weights["model.layers.1.mlp.down_proj.lora_a"]).T
    )


def test_same_input_same_bytes(tmp_path: Path, llama_base: TinyModel) -> None:
    saved = save_adapter(llama_base, tmp_path / "a")
    first = converted(saved, llama_base, tmp_path).read_bytes()
    assert converted(saved, llama_base, tmp_path).read_bytes() == first
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "lora.gguf"]


def test_gemma3_names_of_the_multimodal_model(tmp_path: Path, gemma3_base: TinyModel) -> None:
    saved = save_adapter(gemma3_base, tmp_path / "a")
    plain = converted(saved, gemma3_base, tmp_path).read_bytes()
    weights = {f"language_model.{name}": value for name, value in loaded(saved.weights).items()}
    mx.save_safetensors(str(saved.weights), weights)
    assert converted(saved, gemma3_base, tmp_path).read_bytes() == plain


@pytest.mark.parametrize(("kind", "expected"), [("dora", "a DoRA adapter"), ("full", "a full fine-tune")])
def test_kinds_without_a_gguf_form(tmp_path: Path, llama_base: TinyModel, kind: str, expected: str) -> None:
    saved = save_adapter(llama_base, tmp_path / "a", fine_tune_type=kind)
    with pytest.raises(AdapterError, match=expected):
        converted(saved, llama_base, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_architectures_that_were_not_verified(tmp_path: Path, llama_base: TinyModel) -> None:
    saved = save_adapter(llama_base, tmp_path / "a")
    path = tmp_path / "bloom.gguf"
    write_base_gguf(path, "bloom", llama_base.args, {})
    base = TinyModel("bloom", llama_base.args, {}, path)
    with pytest.raises(AdapterError, match=r"'bloom' has no verified conversion.*verified are .*gemma3.*llama"):
        converted(saved, base, tmp_path)


def test_other_widths_are_listed_in_full(tmp_path: Path, llama_base: TinyModel) -> None:
    saved = save_adapter(tiny_llama(tmp_path / "wide", hidden=96), tmp_path / "a")
    with pytest.raises(AdapterError) as caught:
        converted(saved, llama_base, tmp_path)
    message = str(caught.value)
    assert "7 problems" in message  # one for each of the seven modules of a layer, for both layers
    both = "'model.layers.0.mlp.down_proj', 'model.layers.1.mlp.down_proj'"
    assert f"{both}: made for a weight of [96, 192] (out, in), the base's blk.*.ffn_down has [64, 128]" in message


@pytest.mark.parametrize("n_layers", [1, 3])
def test_other_layer_counts(tmp_path: Path, llama_base: TinyModel, n_layers: int) -> None:
    saved = save_adapter(tiny_llama(tmp_path / "other", n_layers=n_layers), tmp_path / "a")
    with pytest.raises(AdapterError, match=f"last layer is {n_layers - 1}, the base's is 1"):
        converted(saved, llama_base, tmp_path)


def test_gemma3_adapter_on_a_llama_base(tmp_path: Path, llama_base: TinyModel, gemma3_base: TinyModel) -> None:
    saved = save_adapter(gemma3_base, tmp_path / "a")
    with pytest.raises(AdapterError, match="does not fit the base model"):
        converted(saved, llama_base, tmp_path)


@pytest.mark.parametrize(
    ("keys", "tied", "expected"),
    [
        (["model.embed_tokens"], True, "the base's head is its token embedding"),
        (["lm_head"], True, "the base's head is tied to its token embedding"),
    ],
)
def test_modules_that_cannot_be_converted(tmp_path: Path, keys: list[str], tied: bool, expected: str) -> None:
    trained_on, base = tiny_llama(tmp_path / "untied"), tiny_llama(tmp_path / "base", tied=tied)
    saved = save_adapter(trained_on, tmp_path / "a", keys=keys)
    with pytest.raises(AdapterError, match=expected):
        converted(saved, base, tmp_path)


def test_modules_that_the_architecture_does_not_have(tmp_path: Path, llama_base: TinyModel) -> None:
    saved = save_adapter(llama_base, tmp_path / "a", keys=["self_attn.q_proj"])
    weights = loaded(saved.weights)
    for leaf, shape in (("lora_a", (6, 4, 32)), ("lora_b", (6, 64, 4))):
        weights[f"model.layers.1.mlp.switch_mlp.up_proj.{leaf}"] = mx.ones(shape)
    for leaf in ("lora_a", "lora_b"):
        weights[f"language_model.model.layers.1.self_attn.q_proj.{leaf}"] = weights[
            f"model.layers.1.self_attn.q_proj.{leaf}"
        ]
    mx.save_safetensors(str(saved.weights), weights)
    with pytest.raises(AdapterError) as caught:
        converted(saved, llama_base, tmp_path)
    assert "'model.layers.1.mlp.switch_mlp.up_proj': the base has no tensor blk.1.ffn_up_exps.weight" in str(
        caught.value
    )
    assert "all mean the base's blk.1.attn_q" in str(caught.value)


def test_weights_that_changed_since_they_were_read(tmp_path: Path, llama_base: TinyModel) -> None:
    saved = save_adapter(llama_base, tmp_path / "a")
    adapter = read_adapter(saved.weights, saved.config)
    save_adapter(llama_base, tmp_path / "a", rank=8)
    with pytest.raises(AdapterError, match="changed since it was read"):
        write_gguf_lora(adapter, llama_base.gguf_path, tmp_path / "lora.gguf")


def test_the_configurations_scale_is_what_counts(tmp_path: Path, llama_base: TinyModel) -> None:
    """The scale is nowhere in the weights: the same file under another scale must move the logits by that much."""
    saved = save_adapter(llama_base, tmp_path / "a", keys=["lm_head"], scale=2.0)
    base = llama_cpp_logits(llama_base.gguf_path)
    once = llama_cpp_logits(llama_base.gguf_path, converted(saved, llama_base, tmp_path)) - base
    content = json.loads(saved.config.read_text())
    content["lora_parameters"]["scale"] = 4.0
    saved.config.write_text(json.dumps(content))
    twice = llama_cpp_logits(llama_base.gguf_path, converted(saved, llama_base, tmp_path)) - base
    # The head is the last and a linear step, so twice the scale is exactly twice the effect.
    np.testing.assert_allclose(twice, 2 * once, atol=1e-4)
