"""A PEFT adapter folder, checked before it goes to a server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ml_pipeline.adapters.safetensors_data import FLOAT_DTYPES, check_finite
from ml_pipeline.adapters.safetensors_header import read_header, shortened, shown
from ml_pipeline.errors import AdapterError

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
_LONGEST_CONFIG_BYTES = 1 << 20
_A, _B = ".lora_A.weight", ".lora_B.weight"


def check_peft_folder(folder: Path) -> int:
    """Return the number of tensors of a sound LoRA: every module has both factors, of one rank, and no other value.

    Raises:
        AdapterError: it is not; names every problem.
    """
    header = read_header(folder / WEIGHTS)
    problems = _config_problems(folder / CONFIG)
    problems += [
        f"{shown(entry.name)}: dtype {entry.dtype}; only {', '.join(FLOAT_DTYPES)} are supported"
        for entry in header.tensors
        if entry.dtype not in FLOAT_DTYPES
    ]
    shapes = {entry.name: entry.shape for entry in header.tensors}
    for name, shape in shapes.items():
        module = name.removesuffix(_A).removesuffix(_B)
        if module == name:
            problems.append(f"{shown(name)}: neither {_A[1:]} nor {_B[1:]}")
            continue
        a, b = shapes.get(module + _A), shapes.get(module + _B)
        if a is None or b is None:
            problems.append(f"{shown(name)}: its other factor is missing")
        elif len(shape) != 2 or len(a) != len(b) or a[0] != b[1] or 0 in shape:
            problems.append(f"{shown(name)}: shape {list(shape)} does not fit its other factor")
    if not shapes:
        problems.append("there are no tensors")
    if problems:
        raise AdapterError.from_problems(str(folder), shortened(problems), "Save it again with peft's save_pretrained.")
    check_finite(header)
    return len(shapes)


def _config_problems(path: Path) -> list[str]:
    try:
        with path.open("rb") as file:
            raw = file.read(_LONGEST_CONFIG_BYTES + 1)
        config: Any = json.loads(raw) if len(raw) <= _LONGEST_CONFIG_BYTES else None
    except OSError as error:
        return [f"{CONFIG} cannot be read: {error.strerror}"]
    except (ValueError, RecursionError):
        config = None
    if not isinstance(config, dict):
        return [f"{CONFIG} is not a JSON object of at most {_LONGEST_CONFIG_BYTES} bytes"]
    kind = config.get("peft_type")
    return [] if kind == "LORA" else [f"{CONFIG}: peft_type is {shown(kind)}, not LORA"]
