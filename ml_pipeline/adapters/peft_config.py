"""PEFT's `adapter_config.json`: what of it changes the numbers, and what of it can be loaded elsewhere."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, TypeVar

from ml_pipeline.adapters.config_record import (
    MAX_KEYS,
    SCALE_RANGE,
    AdapterConfig,
    checked_rank,
    finite_number,
    peft_scale,
)
from ml_pipeline.adapters.safetensors_header import shown

_Value = TypeVar("_Value", int, float)

PEFT_REMEDY = (
    "Save the adapter again as a plain LoRA, or merge it into the base (peft's merge_and_unload) and score that model."
)

_MODULE_PATTERN = re.compile(r"\^?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*", re.ASCII)
_DEFAULT_ALPHA = 8
"""PEFT's own, where the configuration leaves lora_alpha out."""

_UNSUPPORTED: Mapping[str, str] = MappingProxyType(
    {
        "modules_to_save": "it carries whole modules beside its factors, which no backend swaps",
        "target_parameters": "it adapts parameters rather than modules",
        "trainable_token_indices": "it carries rows of the embedding beside its factors",
        "lora_bias": "its factors have a bias",
        "alora_invocation_tokens": "it acts only after certain tokens",
        "layer_replication": "it needs a base whose layers were repeated",
        "use_qalora": "its inputs are pooled in groups",
        "use_bdlora": "its factors are block-diagonal",
        "arrow_config": "it is routed between several adapters",
        "velora_config": "it is a variant of LoRA",
        "monteclora_config": "it is a variant of LoRA",
        "kasa_config": "it is a variant of LoRA",
    }
)
"""Settings that, when set, make the factors mean something else than B·A on a module's weight."""

_CHANGES_THE_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Ways to start the factors after which the adapter belongs to an altered base, not to the one that it names."""


def peft_config(content: Mapping[str, Any], problems: list[str]) -> AdapterConfig:
    """Check PEFT's configuration; what is wrong with it, or cannot be expressed elsewhere, goes to `problems`."""
    if content.get("peft_type") != "LORA":
        problems.append(f"peft_type is {shown(content.get('peft_type'))}; only LORA is supported")
        return AdapterConfig("lora", 0, 1.0, 0.0, None, None, "peft")
    problems += [
        f"{name} is {shown(content[name])}: {reason}" for name, reason in _UNSUPPORTED.items() if content.get(name)
    ]
    if content.get("bias", "none") != "none":
        problems.append(f"bias is {shown(content['bias'])}: it carries biases of the base, which no backend swaps")
    start = content.get("init_lora_weights", True)
    if isinstance(start, str) and start.lower().startswith(_CHANGES_THE_BASE):
        problems.append(
            f"init_lora_weights is {shown(start)}: the adapter belongs to a base that was changed when training began; "
            "save it with path_initial_model_for_weight_conversion"
        )
    use_dora, use_rslora = _flag(content, "use_dora", problems), _flag(content, "use_rslora", problems)
    rank = checked_rank(content.get("r"), "r", problems, missing="r" not in content)
    alpha = _checked_alpha(content.get("lora_alpha", _DEFAULT_ALPHA), "lora_alpha", problems)
    config = AdapterConfig(
        kind="dora" if use_dora else "lora",
        rank=rank,
        scale=peft_scale(alpha, rank, use_rslora) if rank else 0.0,
        dropout=0.0,
        keys=None,
        layer_count=None,
        format="peft",
        alpha=alpha,
        rank_pattern=_checked_pattern(content, "rank_pattern", checked_rank, problems),
        alpha_pattern=_checked_pattern(content, "alpha_pattern", _checked_alpha, problems),
        use_rslora=use_rslora,
    )
    low, high = SCALE_RANGE
    if not problems and not low <= abs(config.scale) <= high:
        problems.append(f"the scale that r and lora_alpha make is {config.scale}, not a number of size {low} to {high}")
    return config


def _flag(content: Mapping[str, Any], name: str, problems: list[str]) -> bool:
    value = content.get(name, False)
    if not isinstance(value, bool):
        problems.append(f"{name} is {shown(value)}, not true or false")
    return value is True


def _checked_alpha(value: Any, name: str, problems: list[str]) -> float:
    alpha = finite_number(value)
    low, high = SCALE_RANGE
    if alpha is None or not low <= abs(alpha) <= high:
        problems.append(f"{name} is {shown(value)}, not a number of size {low} to {high}")
        return 0.0
    return alpha


def _checked_pattern(
    content: Mapping[str, Any], name: str, checked: Callable[[Any, str, list[str]], _Value], problems: list[str]
) -> dict[str, _Value]:
    """PEFT takes the keys for regular expressions; only plain module paths are accepted, whose cost is known."""
    patterns = content.get(name) or {}
    if not isinstance(patterns, dict) or len(patterns) > MAX_KEYS:
        problems.append(f"{name} is {shown(patterns)}, not an object of at most {MAX_KEYS} modules")
        return {}
    problems += [
        f"{name} has the key {shown(key)}, which is not the plain path of a module"
        for key in patterns
        if not _MODULE_PATTERN.fullmatch(key)
    ]
    return {key: checked(value, f"{name}[{shown(key)}]", problems) for key, value in patterns.items()}
