"""adapter_config.json: what mlx-lm writes is read, and nothing hostile gets past."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ml_pipeline.adapters.config import MAX_CONFIG_BYTES, read_config
from ml_pipeline.adapters.config_record import AdapterConfig
from ml_pipeline.errors import AdapterError

MISSING = object()


def config(**changes: Any) -> dict[str, Any]:
    """A configuration as mlx-lm writes it; a change with a name of lora_parameters goes there, MISSING takes out."""
    content: dict[str, Any] = {
        "adapter_path": "/home/somebody/adapters",
        "fine_tune_type": "lora",
        "learning_rate": 1e-5,
        "lora_parameters": {"rank": 8, "scale": 20.0, "dropout": 0.0},
        "num_layers": 16,
    }
    for key, value in changes.items():
        place = content["lora_parameters"] if key in ("rank", "scale", "dropout", "keys", "alpha") else content
        if value is MISSING:
            del place[key]
        else:
            place[key] = value
    return content


def read(tmp_path: Path, content: Any) -> AdapterConfig:
    path = tmp_path / "adapter_config.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return read_config(path)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, AdapterConfig("lora", 8, 20.0, 0.0, None, 16)),
        ({"scale": 2}, AdapterConfig("lora", 8, 2.0, 0.0, None, 16)),
        ({"scale": -0.5}, AdapterConfig("lora", 8, -0.5, 0.0, None, 16)),
        ({"keys": ["self_attn.q_proj"]}, AdapterConfig("lora", 8, 20.0, 0.0, ("self_attn.q_proj",), 16)),
        ({"fine_tune_type": "dora", "num_layers": -1}, AdapterConfig("dora", 8, 20.0, 0.0, None, -1)),
        ({"fine_tune_type": MISSING, "num_layers": MISSING}, AdapterConfig("lora", 8, 20.0, 0.0, None, None)),
        ({"dropout": MISSING}, AdapterConfig("lora", 8, 20.0, 0.0, None, 16)),
        ({"fine_tune_type": "full", "lora_parameters": None}, AdapterConfig("full", 0, 1.0, 0.0, None, 16)),
    ],
)
def test_reads_what_mlx_lm_writes(tmp_path: Path, changes: dict[str, Any], expected: AdapterConfig) -> None:
    assert read(tmp_path, config(**changes)) == expected


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"rank": 0}, "lora_parameters.rank is 0,"),
        ({"rank": -8}, "lora_parameters.rank is -8,"),
        ({"rank": True}, "lora_parameters.rank is True,"),
        ({"rank": "8"}, "lora_parameters.rank is '8',"),
        ({"rank": 8.0}, "lora_parameters.rank is 8.0,"),
        ({"rank": 10**9}, "whole number from 1 to 4096"),
        ({"rank": None}, "lora_parameters.rank is None,"),
        ({"rank": MISSING}, "lora_parameters.rank is missing,"),
        ({"scale": MISSING}, "lora_parameters.scale is missing"),
        ({"scale": MISSING, "alpha": 16}, "its scale is alpha / rank"),
        ({"scale": "20.0"}, "lora_parameters.scale is '20.0',"),
        ({"scale": math.nan}, "lora_parameters.scale is nan,"),
        ({"scale": math.inf}, "lora_parameters.scale is inf,"),
        ({"scale": True}, "lora_parameters.scale is True,"),
        ({"scale": 0}, "lora_parameters.scale is 0,"),
        ({"scale": 1e-50}, "lora_parameters.scale is 1e-50,"),
        ({"scale": 10**400}, "lora_parameters.scale is 1000"),
        ({"scale": [20.0]}, "lora_parameters.scale is [20.0],"),
        ({"dropout": 1.0}, "lora_parameters.dropout is 1.0,"),
        ({"dropout": -0.1}, "lora_parameters.dropout is -0.1,"),
        ({"dropout": "no"}, "lora_parameters.dropout is 'no',"),
        ({"keys": "q_proj"}, "lora_parameters.keys is 'q_proj',"),
        ({"keys": [1]}, "lora_parameters.keys is [1],"),
        ({"num_layers": "16"}, "num_layers is '16',"),
        ({"num_layers": True}, "num_layers is True,"),
        ({"num_layers": -2}, "num_layers is -2,"),
        ({"fine_tune_type": "qlora"}, "fine_tune_type is 'qlora', not one of lora, dora, full"),
        ({"fine_tune_type": ["lora"]}, "fine_tune_type is ['lora']"),
        ({"lora_parameters": None}, "lora_parameters is None,"),
        ({"lora_parameters": []}, "lora_parameters is [],"),
        ({"lora_parameters": MISSING}, "lora_parameters is None,"),
    ],
)
def test_refuses_wrong_values(tmp_path: Path, changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(AdapterError) as caught:
        read(tmp_path, config(**changes))
    assert expected in str(caught.value)
    assert "1 problem\n" in str(caught.value)
    assert "Write adapter_config.json again" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[]", "not a JSON object"),
        ("null", "not a JSON object"),
        ('{"a":' * 100_000, "not JSON"),
        ('{"lora_parameters": {"rank": 8, "rank": 4, "scale": 20.0}}', "a key appears more than once"),
        ('{"num_layers": ' + "9" * 5000 + "}", "not JSON"),
        (" " * (MAX_CONFIG_BYTES + 1), "larger than"),
    ],
)
def test_refuses_broken_files(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(AdapterError, match=expected):
        read(tmp_path, text)


def test_all_problems_come_at_once(tmp_path: Path) -> None:
    with pytest.raises(AdapterError) as caught:
        read(tmp_path, config(rank="8", scale=MISSING, dropout=2, keys=7, num_layers="all", fine_tune_type="x"))
    assert "6 problems" in str(caught.value)


def test_a_missing_file_says_why_it_is_needed(tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match="without it the scale of the adapter is unknown"):
        read_config(tmp_path / "adapter_config.json")


def test_canonical_form_leaves_out_what_changes_no_number(tmp_path: Path) -> None:
    first = read(tmp_path, config(adapter_path="/a", scale=20, dropout=0.1))
    second = read(tmp_path, config(adapter_path="/b", scale=20.0, learning_rate=1))
    assert first.canonical() == second.canonical() == '{"fine_tune_type":"lora","rank":8,"scale":20.0}'
    assert read(tmp_path, config(scale=10.0)).canonical() != first.canonical()


odd = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.lists(st.integers() | st.text(max_size=3), max_size=3),
    st.just({}),
)


@settings(max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    top=st.fixed_dictionaries(
        {},
        optional={
            "fine_tune_type": st.sampled_from(["lora", "dora", "full"]) | odd,
            "num_layers": odd,
            "lora_parameters": st.fixed_dictionaries(
                {}, optional={"rank": st.integers(0, 64) | odd, "scale": odd, "dropout": odd, "keys": odd}
            )
            | odd,
        },
    )
)
def test_whatever_is_accepted_is_safe_to_compute_with(tmp_path: Path, top: dict[str, Any]) -> None:
    try:
        accepted = read(tmp_path, top)
    except AdapterError:
        return
    assert accepted.kind in ("lora", "dora", "full")
    assert type(accepted.rank) is int
    assert type(accepted.scale) is float
    assert 1e-6 <= abs(accepted.scale) <= 1e6
    assert 0.0 <= accepted.dropout < 1.0
    assert accepted.rank >= 1 or accepted.kind == "full"
