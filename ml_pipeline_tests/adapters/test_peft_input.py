"""Checkpoints that the real peft library saved: read, converted to GGUF, and held against peft's own logits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ml_pipeline.adapters.gguf_lora import write_gguf_lora
from ml_pipeline.adapters.peft_files import write_peft
from ml_pipeline.adapters.read import read_adapter
from ml_pipeline.errors import AdapterError
from ml_pipeline_tests.adapters.peft_models import library, logits, trained, transformers_model, with_adapter
from ml_pipeline_tests.adapters.tiny_models import TinyModel, llama_cpp_logits

pytestmark = pytest.mark.peft

FILES = ("adapter_model.safetensors", "adapter_config.json")


def read(folder: Path) -> Any:
    return read_adapter(*(folder / name for name in FILES))


@pytest.mark.parametrize(
    "options",
    [
        {"r": 4, "lora_alpha": 16},
        {"r": 3, "lora_alpha": 7, "use_rslora": True},
        {
            "target_modules": ["q_proj", "down_proj", "lm_head"],
            "r": 8,
            "lora_alpha": 8,
            "init_lora_weights": "gaussian",
        },
        {"layers_to_transform": [0], "lora_alpha": 32},
        {"rank_pattern": {"q_proj": 2, "model.layers.1.mlp.up_proj": 6}, "lora_alpha": 12},
        {"rank_pattern": {"k_proj": 2}, "alpha_pattern": {"k_proj": 9, "^model.layers.0.self_attn.v_proj": 3}},
        {"rank_pattern": {"down_proj": 16}, "alpha_pattern": {"o_proj": 5}, "use_rslora": True},
    ],
    ids=str,
)
def test_gguf_gives_pefts_logits(tmp_path: Path, llama_base: TinyModel, options: dict[str, Any]) -> None:
    ours = logits(trained(llama_base, tmp_path / "a", **options))
    adapter = read(tmp_path / "a")
    assert (adapter.format, adapter.kind) == ("peft", "lora")
    lora = write_gguf_lora(adapter, llama_base.gguf_path, tmp_path / "lora.gguf")
    difference = np.abs(ours - llama_cpp_logits(llama_base.gguf_path, lora)).max()
    signal = np.abs(ours - logits(transformers_model(llama_base))).max()
    print(f"difference {difference:.2e}, signal {signal:.2f}")
    assert signal > 0.1
    assert difference < 1e-4 * signal


def test_bfloat16(tmp_path: Path, llama_base: TinyModel) -> None:
    model = trained(llama_base, tmp_path / "a", "bfloat16")
    ours = logits(model)
    model.to(library("torch").bfloat16).save_pretrained(str(tmp_path / "b"))
    lora = write_gguf_lora(read(tmp_path / "b"), llama_base.gguf_path, tmp_path / "lora.gguf")
    assert np.abs(ours - llama_cpp_logits(llama_base.gguf_path, lora)).max() < 1e-4


def test_written_again_it_is_the_same_adapter(tmp_path: Path, llama_base: TinyModel) -> None:
    """Rank-stabilised and patterned scales become plain alphas, module by module."""
    options: dict[str, Any] = {
        "r": 4,
        "lora_alpha": 6,
        "use_rslora": True,
        "use_dora": True,
        "rank_pattern": {"k_proj": 2},
    }
    ours = logits(trained(llama_base, tmp_path / "a", **options))
    again = logits(with_adapter(llama_base, write_peft(read(tmp_path / "a"), tmp_path / "b")))
    assert np.abs(ours - again).max() < 1e-4


def test_dora_is_known_and_has_no_gguf_form(tmp_path: Path, llama_base: TinyModel) -> None:
    trained(llama_base, tmp_path / "a", use_dora=True)
    adapter = read(tmp_path / "a")
    assert adapter.kind == "dora"
    with pytest.raises(AdapterError, match="a DoRA adapter"):
        write_gguf_lora(adapter, llama_base.gguf_path, tmp_path / "lora.gguf")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"modules_to_save": ["lm_head"]}, "modules_to_save is ['lm_head']: it carries whole modules"),
        ({"bias": "lora_only"}, "bias is 'lora_only'"),
        (
            {"init_lora_weights": "pissa"},
            "init_lora_weights is 'pissa': the adapter belongs to a base that was changed",
        ),
        ({"lora_bias": True}, "lora_bias is True"),
    ],
    ids=str,
)
def test_what_cannot_be_loaded_elsewhere_is_refused(
    tmp_path: Path, llama_base: TinyModel, options: dict[str, Any], expected: str
) -> None:
    trained(llama_base, tmp_path / "a", **options)
    with pytest.raises(AdapterError) as caught:
        read(tmp_path / "a")
    assert expected in str(caught.value)


def test_the_hash_follows_the_scale(tmp_path: Path, llama_base: TinyModel) -> None:
    trained(llama_base, tmp_path / "a", r=4, lora_alpha=8)
    config = tmp_path / "a" / FILES[1]
    content = json.loads(config.read_text())
    hashes = set()
    for changes in (
        {},
        {"lora_alpha": 9},
        {"alpha_pattern": {"q_proj": 4}},
        {"use_rslora": True},
        {"lora_dropout": 0.5},
    ):
        config.write_text(json.dumps(content | changes))
        hashes.add(read(tmp_path / "a").sha256)
    assert len(hashes) == 4


def test_ranks_must_be_those_of_the_configuration(tmp_path: Path, llama_base: TinyModel) -> None:
    trained(llama_base, tmp_path / "a", target_modules=["q_proj"], r=4)
    config = tmp_path / "a" / FILES[1]
    config.write_text(json.dumps(json.loads(config.read_text()) | {"r": 8}))
    with pytest.raises(AdapterError, match="rank 4 in the weights, 8 in the configuration"):
        read(tmp_path / "a")
