"""The record of one adapter that has been checked and is safe to hand to a native library."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

AdapterKind = Literal["lora", "dora", "full"]
AdapterFormat = Literal["mlx", "peft", "transformers"]


@dataclass(frozen=True, slots=True)
class Adapter:
    """A validated adapter on this machine.

    `path` is the safetensors file, `sha256` the hash over weights and configuration together, `rank` the largest
    rank of any layer, `scale` what multiplies B·A (mlx-lm's `lora_parameters.scale`, PEFT's alpha / rank), `layers` the
    sorted indices of the transformer blocks it touches, `modules` the sorted module paths inside a block
    (`self_attn.q_proj`). `format` is whose files these are; `transformers` is a full fine-tune as that one saves it.
    `own_scales` are the modules, by their full paths, whose scale is another, which only PEFT can express.
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
    format: AdapterFormat = "mlx"
    own_scales: tuple[tuple[str, float], ...] = ()

    def scales(self, modules: Iterable[str]) -> dict[str, float]:
        """Return what multiplies B·A in each of these modules."""
        own = dict(self.own_scales)
        return {module: own.get(module, self.scale) for module in modules}
