"""The record of one adapter that has been checked and is safe to hand to a native library."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

AdapterKind = Literal["lora", "dora", "full"]


@dataclass(frozen=True, slots=True)
class Adapter:
    """A validated adapter on this machine.

    `path` is the safetensors file, `sha256` the hash over weights and configuration together, `rank` the largest
    rank of any layer, `scale` what multiplies B·A (mlx-lm's `lora_parameters.scale`), `layers` the sorted indices
    of the transformer blocks it touches, `modules` the sorted module paths inside a block (`self_attn.q_proj`).
    """

    path: Path
    config_path: Path
    sha256: str
    kind: AdapterKind
    rank: int
    scale: float
    layers: tuple[int, ...]
    modules: tuple[str, ...]
    tensor_count: int
    size_bytes: int
