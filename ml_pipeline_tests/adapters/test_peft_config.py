"""PEFT's configuration, hostile until checked, and what a file of its names must hold; peft itself is not needed."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from ml_pipeline.adapters.config import read_config
from ml_pipeline.adapters.read import read_adapter
from ml_pipeline.errors import AdapterError

Q = "base_model.model.model.layers.0.self_attn.q_proj"
PLAIN: dict[str, Any] = {"peft_type": "LORA", "r": 4, "lora_alpha": 6, "target_modules": ["q_proj"], "bias": "none"}


def write(folder: Path, config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> tuple[Path, Path]:
    weights, config_path = folder / "adapter_model.safetensors", folder / "adapter_config.json"
    save_file({name: np.ones(shape, np.float32) for name, shape in shapes.items()}, weights)
    config_path.write_text(json.dumps(config))
    return weights, config_path


@pytest.mark.parametrize(
    ("changes", "scale", "own"),
    [
        ({}, 1.5, 1.5),
        ({"use_rslora": True}, 3.0, 3.0),
        ({"alpha_pattern": {"q_proj": 2}}, 1.5, 0.5),
        ({"alpha_pattern": {"^layers.0.q_proj": 2}}, 1.5, 1.5),
        ({"alpha_pattern": {"^model.layers.0.q_proj": 2, "q_proj": 8}}, 1.5, 0.5),
        ({"alpha_pattern": {"q_proj": 8, "^model.layers.0.q_proj": 2}}, 1.5, 2.0),
        ({"rank_pattern": {"layers.0.q_proj": 2}}, 1.5, 3.0),
        ({"rank_pattern": {"layers.1.q_proj": 2}}, 1.5, 1.5),
        ({"rank_pattern": {"proj": 2}}, 1.5, 1.5),
        ({"rank_pattern": {"q_proj": 16}, "alpha_pattern": {"q_proj": 2}, "use_rslora": True}, 3.0, 0.5),
    ],
)
def test_scales(tmp_path: Path, changes: dict[str, Any], scale: float, own: float) -> None:
    """Worked out by hand from PEFT's rules: alpha / r or alpha / sqrt(r), the first pattern that ends the path."""
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps(PLAIN | changes))
    config = read_config(path)
    assert (config.format, config.scale, config.scale_of("model.layers.0.q_proj")) == ("peft", scale, own)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"peft_type": "IA3"}, "peft_type is 'IA3'; only LORA is supported"),
        ({"r": None}, "r is None, not a whole number"),
        ({"r": "8"}, "r is '8', not a whole number"),
        ({"r": 0}, "r is 0, not a whole number"),
        ({"lora_alpha": "16"}, "lora_alpha is '16', not a number"),
        ({"lora_alpha": 0}, "lora_alpha is 0, not a number"),
        ({"lora_alpha": 1e300}, "lora_alpha is 1e+300, not a number"),
        ({"lora_alpha": 1e-6}, "the scale that r and lora_alpha make is 2.5e-07"),
        ({"use_dora": "yes"}, "use_dora is 'yes', not true or false"),
        ({"rank_pattern": {"(a+)+$": 4}}, "rank_pattern has the key '(a+)+$', which is not the plain path"),
        ({"rank_pattern": ["q_proj"]}, "rank_pattern is ['q_proj'], not an object"),
        ({"rank_pattern": {"q_proj": 1.5}}, "rank_pattern['q_proj'] is 1.5, not a whole number"),
        ({"alpha_pattern": {"q_proj": None}}, "alpha_pattern['q_proj'] is None, not a number"),
        ({"bias": "all"}, "bias is 'all': it carries biases"),
        ({"modules_to_save": ["embed_tokens"]}, "modules_to_save is ['embed_tokens']: it carries whole modules"),
        ({"target_parameters": ["experts.down_proj"]}, "it adapts parameters rather than modules"),
        ({"init_lora_weights": "pissa_niter_4"}, "the adapter belongs to a base that was changed"),
    ],
)
def test_what_is_refused(tmp_path: Path, changes: dict[str, Any], expected: str) -> None:
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps(PLAIN | changes))
    with pytest.raises(AdapterError) as caught:
        read_config(path)
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        ({f"{Q}.lora_A.weight": (4, 8)}, "lora_B missing"),
        ({f"{Q}.lora_A.weight": (4, 8), f"{Q}.lora_B.weight": (8, 3)}, "ranks differ, lora_A [4, 8]"),
        ({f"{Q}.lora_A.weight": (2, 8), f"{Q}.lora_B.weight": (8, 2)}, "rank 2 in the weights, 4 in the configuration"),
        (
            {f"{Q}.lora_A.weight": (4, 8), f"{Q}.lora_B.weight": (8, 4), f"{Q}.lora_embedding_A": (4, 8)},
            "'model.layers.0.self_attn.q_proj': more than one lora_A",
        ),
        ({"x.lora_a": (8, 4), "x.lora_b": (4, 8)}, "the configuration is PEFT's, but no tensor's name starts with"),
        (
            {f"{Q}.lora_A.weight": (4, 8), f"{Q}.lora_B.weight": (8, 4), "base_model.model.lm_head.weight": (9, 8)},
            "'base_model.model.lm_head.weight': not an adapter tensor",
        ),
        (
            {f"{Q}.lora_A.weight": (4, 8), f"{Q}.lora_B.weight": (8, 4), f"{Q}.lora_magnitude_vector": (8,)},
            "those of a dora adapter, but use_dora says lora",
        ),
        (
            {f"{Q}.lora_A.weight": (4, 8), f"{Q}.lora_B.weight": (8, 4), "x.lora_a": (8, 4)},
            "'x.lora_a': not an adapter",
        ),
    ],
)
def test_tensors_that_do_not_belong(tmp_path: Path, shapes: dict[str, tuple[int, ...]], expected: str) -> None:
    with pytest.raises(AdapterError) as caught:
        read_adapter(*write(tmp_path, PLAIN, shapes))
    assert expected in str(caught.value)


def test_the_record(tmp_path: Path) -> None:
    shapes = {f"{Q}.lora_A.weight": (4, 8), f"{Q}.lora_B.weight": (6, 4)}
    shapes |= {name.replace("layers.0", "layers.3"): shape for name, shape in shapes.items()}
    adapter = read_adapter(*write(tmp_path, PLAIN | {"alpha_pattern": {"layers.3.self_attn.q_proj": 4}}, shapes))
    assert (adapter.format, adapter.kind, adapter.rank, adapter.scale) == ("peft", "lora", 4, 1.5)
    assert (adapter.layers, adapter.modules, adapter.tensor_count) == ((0, 3), ("self_attn.q_proj",), 4)
    assert adapter.own_scales == (("model.layers.3.self_attn.q_proj", 1.0),)


def test_a_full_fine_tune_of_transformers(tmp_path: Path) -> None:
    weights, config = write(tmp_path, {}, {"model.layers.0.mlp.up_proj.weight": (8, 4), "model.norm.weight": (4,)})
    config.write_text(json.dumps({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 4}))
    adapter = read_adapter(weights, config)
    assert (adapter.format, adapter.kind, adapter.rank, adapter.layers) == ("transformers", "full", 0, (0,))


def test_many_patterns_cost_little(tmp_path: Path) -> None:
    """A hostile pair of 2,000 modules and 9,000 patterns, every one of which would be tried as a regular expression."""
    shapes: dict[str, tuple[int, ...]] = {}
    for i in range(2000):
        shapes |= {
            f"base_model.model.m{i}.a.q.lora_A.weight": (4, 1),
            f"base_model.model.m{i}.a.q.lora_B.weight": (1, 4),
        }
    patterns = {f"x{i}.q": 4 for i in range(9000)} | {"a.q": 4, "q": 4}
    files = write(tmp_path, PLAIN | {"rank_pattern": patterns}, shapes)
    start = time.perf_counter()
    assert read_adapter(*files).tensor_count == 4000
    assert time.perf_counter() - start < 10


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.dictionaries(st.sampled_from([*PLAIN, "use_dora", "use_rslora", "rank_pattern", "alpha_pattern",
                                                "modules_to_save", "init_lora_weights"]), _VALUES))  # fmt: skip
def test_anything_is_read_or_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps(PLAIN | changes))
    try:
        config = read_config(path)
    except AdapterError:
        return
    assert config.rank >= 1
    assert config.scale != 0
