"""What an adapter's configuration says about its weights, whoever wrote it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ml_pipeline.adapters.adapter import AdapterFormat, AdapterKind
from ml_pipeline.adapters.safetensors_header import shown

MAX_RANK = 4096
MAX_KEYS = 10_000
SCALE_RANGE = (1e-6, 1e6)
"""What the size of a scale may be. Outside it, scale times rank is no longer safe as the float32 that GGUF stores:
one that becomes 0 there means scale 1 to llama.cpp."""


@dataclass(frozen=True, slots=True)
class AdapterConfig:
    """What the configuration says about the weights. `rank` 0 and `scale` 1.0 for a full fine-tune, which has neither.

    `layer_count` is mlx-lm's `num_layers`, counted from the last block backwards; None or -1 means all. The last three
    fields are PEFT's: ranks and alphas of modules that have their own, by the end of their paths, and whether alpha is
    divided by the root of the rank (rank-stabilised LoRA).
    """

    kind: AdapterKind
    rank: int
    scale: float
    dropout: float
    keys: tuple[str, ...] | None
    layer_count: int | None
    format: AdapterFormat = "mlx"
    alpha: float = 0.0
    rank_pattern: Mapping[str, int] = field(default_factory=dict)
    alpha_pattern: Mapping[str, float] = field(default_factory=dict)
    use_rslora: bool = False

    def rank_of(self, module: str) -> int:
        """Return the rank that a module's factors must have."""
        return self.rank_pattern.get(_pattern_of(self.rank_pattern, module), self.rank)

    def scale_of(self, module: str) -> float:
        """Return what multiplies B·A in a module."""
        if not self.rank_pattern and not self.alpha_pattern:
            return self.scale
        alpha = self.alpha_pattern.get(_pattern_of(self.alpha_pattern, module), self.alpha)
        return peft_scale(alpha, self.rank_of(module), self.use_rslora)

    def canonical(self, own_scales: Mapping[str, float] | None = None) -> str:
        """Return what changes the numbers that the adapter computes, always in the same words, to be hashed.

        Paths, dropout and everything else that only steered the training stay out.
        """
        content: dict[str, object] = {"fine_tune_type": self.kind, "rank": self.rank, "scale": self.scale}
        if own_scales:
            content["own_scales"] = dict(own_scales)
        return json.dumps(content, sort_keys=True, separators=(",", ":"))


def peft_scale(alpha: float, rank: int, use_rslora: bool) -> float:
    """PEFT's scale: alpha / r, or alpha / sqrt(r) for rank-stabilised LoRA (arXiv 2312.03732)."""
    return alpha / math.sqrt(rank) if use_rslora else alpha / rank


def is_integer(value: object) -> bool:
    """Whether a JSON value is a whole number."""
    return isinstance(value, int) and not isinstance(value, bool)


def finite_number(value: object) -> float | None:
    """A JSON value as a number; None when it is none, or not finite."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def checked_rank(value: Any, name: str, problems: list[str], *, missing: bool = False) -> int:
    """A rank as JSON has it, or 0 and a problem."""
    if is_integer(value) and 1 <= value <= MAX_RANK:
        return int(value)
    problems.append(f"{name} is {'missing' if missing else shown(value)}, not a whole number from 1 to {MAX_RANK}")
    return 0


def _pattern_of(patterns: Mapping[str, object], module: str) -> str:
    """The first pattern that a module's path is or ends with, as PEFT's `get_pattern_key` finds it."""
    parts = module.split(".")
    ends = {f"^{module}", *(".".join(parts[start:]) for start in range(len(parts)))}
    fitting = ends & patterns.keys()
    return fitting.pop() if len(fitting) == 1 else next((key for key in patterns if key in fitting), "")
