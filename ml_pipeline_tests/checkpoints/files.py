"""Run folders made by tests."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
from safetensors.numpy import save

SECOND_NS = 10**9


def write_checkpoint(folder: Path, name: str, *, config: bool = True, mtime_ns: int | None = None) -> Path:
    """A small, valid safetensors file, and its configuration beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_bytes(save({"layer.lora_a": np.zeros((4, 2), np.float32), "layer.lora_b": np.ones((2, 4), np.float32)}))
    if config:
        (folder / "adapter_config.json").write_text(json.dumps({"lora_parameters": {"rank": 2, "scale": 20.0}}))
    if mtime_ns is not None:
        os.utime(path, ns=(mtime_ns, mtime_ns))
    return path
