"""A PEFT adapter folder, checked before it goes to a server."""

from __future__ import annotations

from pathlib import Path

from ml_pipeline.adapters import read_adapter
from ml_pipeline.adapters.peft_files import PEFT_CONFIG, PEFT_WEIGHTS
from ml_pipeline.errors import AdapterError


def check_peft_folder(folder: Path) -> int:
    """Return the number of tensors of a sound adapter; raises AdapterError, naming every problem, for anything else."""
    adapter = read_adapter(folder / PEFT_WEIGHTS, folder / PEFT_CONFIG)
    if adapter.format != "peft":
        raise AdapterError(f"{folder}: this is not PEFT's. Save it with peft's save_pretrained, or convert it.")
    return adapter.tensor_count
