"""Advice that fits the fault: every way in which an adapter's file can be unusual, with its own reason and way out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from ml_pipeline.adapters import Adapter, read_adapter, write_gguf_lora, write_peft
from ml_pipeline.errors import AdapterError
from ml_pipeline_tests.adapters.tiny_models import TinyModel, save_adapter, tiny_llama

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
P = "base_model.model."
BLAMES = ("written with these weights", "fine_tune_type", "on the base model that it was trained on")
"""Advice that fits only where the configuration or the base is to blame."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    return tiny_llama(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def peft(base: TinyModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter as PEFT saves it."""
    folder = tmp_path_factory.mktemp("peft")
    saved = save_adapter(base, folder / "mlx")
    return write_peft(read_adapter(saved.weights, saved.config), folder / "peft")


def rewritten(peft: Path, folder: Path, rename: Any = None, more: Any = None, config: Any = None) -> Path:
    """The same adapter with other names, further tensors, and changes of its configuration."""
    folder.mkdir()
    tensors = load_file(peft / WEIGHTS)
    if rename is not None:
        tensors = {rename(name): value for name, value in tensors.items()}
    save_file(tensors | (more or {}), folder / WEIGHTS)
    content = json.loads((peft / CONFIG).read_text()) | (config or {})
    (folder / CONFIG).write_text(json.dumps(content))
    return folder


def read(folder: Path) -> Adapter:
    return read_adapter(folder / WEIGHTS, folder / CONFIG)


def refusal(folder: Path) -> str:
    with pytest.raises(AdapterError) as caught:
        read(folder)
    return str(caught.value)


def with_name(adapter: str) -> Any:
    return lambda name: name.removesuffix(".weight") + f".{adapter}.weight"


@pytest.mark.parametrize(
    "rename",
    [
        with_name("default"),
        with_name("my-adapter_2"),
        lambda name: f"_orig_mod.{name}",
        lambda name: name.replace(P, f"{P}_orig_mod."),
        lambda name: name.replace(".self_attn", "._orig_mod.self_attn").replace("q_proj", "q_proj._orig_mod"),
        lambda name: f"module.{name}",
        lambda name: f"_fsdp_wrapped_module.{name}".replace("layers.0", "layers.0._checkpoint_wrapped_module"),
        lambda name: name.removeprefix(P),
        lambda name: with_name("default")(f"module._orig_mod.{name}"),
    ],
    ids=[
        "default",
        "own name",
        "compiled",
        "compiled inside",
        "compiled blocks",
        "ddp",
        "fsdp",
        "no prefix",
        "several",
    ],
)
def test_what_others_put_into_the_names_changes_nothing(
    rename: Any, peft: Path, base: TinyModel, tmp_path: Path
) -> None:
    plain, odd = read(peft), read(rewritten(peft, tmp_path / "a", rename))
    assert (odd.kind, odd.rank, odd.scale, odd.layers, odd.modules) == (
        plain.kind,
        plain.rank,
        plain.scale,
        plain.layers,
        plain.modules,
    )
    one, other = (
        write_gguf_lora(each, base.gguf_path, tmp_path / f"{at}.gguf") for at, each in enumerate((plain, odd))
    )
    assert one.read_bytes() == other.read_bytes()
    again = write_peft(odd, tmp_path / "again")
    assert load_file(again / WEIGHTS).keys() == load_file(peft / WEIGHTS).keys()


def test_a_dora_of_a_peft_module_is_known(base: TinyModel, tmp_path: Path) -> None:
    saved = save_adapter(base, tmp_path / "mlx", fine_tune_type="dora")
    plain = write_peft(read_adapter(saved.weights, saved.config), tmp_path / "peft")

    def named(name: str) -> str:
        stem = name.removesuffix(".weight")
        return f"{stem}.default.weight" if "lora_magnitude_vector" in name or stem != name else name

    assert read(rewritten(plain, tmp_path / "a", named)).kind == read(plain).kind == "dora"


def test_two_adapters_in_one_file_are_named(peft: Path, tmp_path: Path) -> None:
    both = {with_name("mine")(name): value for name, value in load_file(peft / WEIGHTS).items()}
    told = refusal(rewritten(peft, tmp_path / "a", with_name("default"), both))
    assert "2 adapters in one file, by the names in its keys: 'default', 'mine'" in told
    assert "selected_adapters" in told


def matrix(rows: int = 320, columns: int = 64) -> Any:
    return np.zeros((rows, columns), np.float32)


@pytest.mark.parametrize(
    ("more", "reason", "way_out"),
    [
        ({f"{P}model.embed_tokens.weight": matrix()}, "a whole embedding, as PEFT saves it", "save_embedding_layers"),
        ({f"{P}lm_head.weight": matrix()}, "a whole head, as PEFT saves it", "save_embedding_layers=False"),
        ({f"{P}model.norm.weight": np.ones(64, np.float32)}, "a norm of the base", "merge_and_unload"),
        ({f"{P}model.layers.0.self_attn.q_norm.weight": np.ones(16, np.float32)}, "a norm of the base", "save the"),
        ({f"{P}transformer.h.0.ln_1.bias": np.ones(16, np.float32)}, "a norm of the base", "merge_and_unload"),
        ({f"{P}model.layers.0.self_attn.q_proj.bias": np.ones(64, np.float32)}, "a bias of the base", 'bias="none"'),
        ({f"{P}model.layers.1.mlp.up_proj.weight": matrix(128)}, "a weight of the base", "not the model's state_dict"),
        ({f"{P}model.extra.scalar": np.ones(1, np.float32)}, "not an adapter tensor", "Save the adapter alone"),
    ],
)  # fmt: skip
def test_what_lies_beside_the_factors_has_a_reason_of_its_own(
    more: dict[str, Any], reason: str, way_out: str, peft: Path, tmp_path: Path
) -> None:
    told = refusal(rewritten(peft, tmp_path / "a", more=more))
    (name,) = more
    assert f"1 problem\n  - '{name}': not an adapter tensor (lora_A, lora_B, lora_magnitude_vector of a module)" in told
    assert reason in told
    assert way_out in told
    assert not any(blame in told for blame in BLAMES)


def test_twenty_four_alike_tensors_are_one_line(peft: Path, tmp_path: Path) -> None:
    norms = {f"{P}model.layers.{at}.input_layernorm.weight": np.ones(64, np.float32) for at in range(24)}
    told = refusal(rewritten(peft, tmp_path / "a", more=norms | {f"{P}lm_head.weight": matrix()}))
    assert "2 problems" in told
    assert "24 such as 'base_model.model.model.layers.0.input_layernorm.weight', " in told
    assert told.count("\n") == 2


@pytest.mark.parametrize(("dtype", "way_out"), [(np.float64, ".float()"), (np.int8, "without quantising")])
def test_other_numbers_than_floats_of_32_bits(dtype: Any, way_out: str, peft: Path, tmp_path: Path) -> None:
    folder = rewritten(peft, tmp_path / "a")
    tensors = load_file(folder / WEIGHTS)
    save_file({name: value.astype(dtype) for name, value in tensors.items()}, folder / WEIGHTS)
    told = refusal(folder)
    assert f"1 problem\n  - {len(tensors)} such as '" in told
    assert "only F32, F16, BF16 are supported" in told
    assert way_out in told
    assert not any(blame in told for blame in BLAMES)


def test_tensors_that_zero_3_left_empty(peft: Path, tmp_path: Path) -> None:
    folder = rewritten(peft, tmp_path / "a")
    tensors = load_file(folder / WEIGHTS)
    save_file({name: np.zeros(0, np.float32) for name in tensors}, folder / WEIGHTS)
    told = refusal(folder)
    assert f"1 problem\n  - {len(tensors)} such as" in told
    assert "shape [0] is empty. DeepSpeed's ZeRO-3" in told
    assert "zero_to_fp32.py" in told
    assert not any(blame in told for blame in BLAMES)


def test_a_rank_that_is_not_the_configurations_still_blames_it(peft: Path, tmp_path: Path) -> None:
    told = refusal(rewritten(peft, tmp_path / "a", config={"r": 8, "lora_alpha": 20.0}))
    assert "rank 4 in the weights, 8 in the configuration" in told
    assert f"Use the configuration that was written with these weights (read: {tmp_path}" in told
    assert told.count("\n  - ") == 1


def test_other_methods_of_peft_are_named(peft: Path, tmp_path: Path) -> None:
    folder = rewritten(peft, tmp_path / "a")
    save_file({f"{P}model.layers.0.self_attn.q_proj.lokr_w1": matrix(8, 8)}, folder / WEIGHTS)
    assert "These are those of LoKr, which no backend loads: merge it into the base" in refusal(folder)
    save_file({f"{P}model.norm.weight": np.ones(64, np.float32)}, folder / WEIGHTS)
    told = refusal(folder)
    assert "If whole modules were trained, merge it" in told
    assert "fine_tune_type" not in told


MLX_CONFIG = {"fine_tune_type": "lora", "lora_parameters": {"rank": 4, "scale": 2.5, "dropout": 0.0}, "num_layers": -1}


def test_of_both_configurations_in_one_file_the_tensors_choose(peft: Path, base: TinyModel, tmp_path: Path) -> None:
    both = rewritten(peft, tmp_path / "peft", config=MLX_CONFIG | {"lora_parameters": {"rank": 9, "scale": 9.0}})
    assert (read(both).format, read(both).scale) == ("peft", 2.5)
    saved = save_adapter(base, tmp_path / "mlx")
    content = json.loads(saved.config.read_text())
    alone = read_adapter(saved.weights, saved.config)
    saved.config.write_text(json.dumps(content | {"peft_type": "LORA", "r": 9, "lora_alpha": 900}))
    adapter = read_adapter(saved.weights, saved.config)
    assert (adapter.format, adapter.scale, adapter.rank) == ("mlx", 2.5, 4)
    assert adapter.sha256 == alone.sha256


def test_both_configurations_over_tensors_of_neither(peft: Path, tmp_path: Path) -> None:
    folder = rewritten(peft, tmp_path / "a", config=MLX_CONFIG)
    save_file({"x.weight": matrix(8, 8)}, folder / WEIGHTS)
    told = refusal(folder)
    assert "it says both fine_tune_type and lora_parameters, as mlx-lm does, and peft_type, as PEFT does" in told


def test_a_tied_head_is_no_sign_of_another_base(tmp_path: Path) -> None:
    untied, tied = tiny_llama(tmp_path / "untied"), tiny_llama(tmp_path / "tied", tied=True)
    for key, reason in (
        ("lm_head", "has no head that could be adapted alone"),
        ("model.embed_tokens", "use mlx for it"),
    ):
        saved = save_adapter(untied, tmp_path / key, keys=[key])
        adapter = read_adapter(saved.weights, saved.config)
        with pytest.raises(AdapterError) as caught:
            write_gguf_lora(adapter, tied.gguf_path, tmp_path / "lora.gguf")
        assert reason in str(caught.value)
        assert not any(blame in str(caught.value) for blame in BLAMES)


def test_misfits_are_told_once_for_all_layers(base: TinyModel, tmp_path: Path) -> None:
    wider = tiny_llama(tmp_path / "wider", hidden=128)
    saved = save_adapter(wider, tmp_path / "a", keys=["self_attn.q_proj", "mlp.up_proj"])
    with pytest.raises(AdapterError) as caught:
        write_gguf_lora(read_adapter(saved.weights, saved.config), base.gguf_path, tmp_path / "lora.gguf")
    told = str(caught.value)
    assert "2 problems" in told
    assert "made for a weight of [128, 128] (out, in), the base's blk.*.attn_q has [64, 64]" in told
    assert "'model.layers.0.self_attn.q_proj', 'model.layers.1.self_attn.q_proj': made for" in told
    assert "Score it on the base model that it was trained on." in told
