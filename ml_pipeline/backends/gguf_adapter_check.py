"""Checks a GGUF adapter before llama.cpp sees it: what kills or fools the native code is refused with a message.

Measured on llama.cpp (see the project's notes): an alpha of another type aborts the process at load, I8 and F64 weights
segfault and 3-D tensors on a plain layer abort at the first decode, and NaN passes in silence.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ml_pipeline.adapters.base_gguf import BaseModelFacts
from ml_pipeline.errors import AdapterError

_ALPHA = "adapter.lora.alpha"
_SUFFIXES = (".lora_a", ".lora_b")
_REMEDY = "Convert the checkpoint again with this project's converter."


def check_gguf_adapter(path: Path, base: BaseModelFacts) -> int:
    """Return how many tensors the adapter holds, all of which llama.cpp will have to match.

    Raises:
        AdapterError: the file cannot be read or is unsafe; every problem is named.
    """
    import gguf

    try:
        reader: Any = gguf.GGUFReader(path)
    except FileNotFoundError as error:
        raise AdapterError(f"{path}: there is no such adapter. {_REMEDY}") from error
    # The reader lets damage through as whatever numpy or struct raise on it.
    except Exception as error:
        raise AdapterError(f"{path}: not a whole GGUF file: {type(error).__name__}: {error}. {_REMEDY}") from error
    problems = [*_metadata_problems(reader, base), *_tensor_problems(reader.tensors, base)]
    if problems:
        raise AdapterError.from_problems(str(path), problems, _REMEDY)
    return len(reader.tensors)


def _metadata_problems(reader: Any, base: BaseModelFacts) -> list[str]:
    import gguf

    expected = {
        "general.type": "adapter",
        "adapter.type": "lora",
        "general.architecture": base.architecture,
    }
    problems = []
    for key, value in expected.items():
        field = reader.get_field(key)
        found = None if field is None else field.contents()
        if found != value:
            problems.append(f"{key} is {found!r}, not {value!r}")
    alpha = reader.get_field(_ALPHA)
    if alpha is None or list(alpha.types) != [gguf.GGUFValueType.FLOAT32]:
        problems.append(f"{_ALPHA} is missing or not a 32-bit float")
    elif not np.isfinite(alpha.contents()):
        problems.append(f"{_ALPHA} is {alpha.contents()}")
    return problems


def _tensor_problems(tensors: list[Any], base: BaseModelFacts) -> list[str]:
    import gguf

    types = gguf.GGMLQuantizationType
    problems = [] if tensors else ["it holds no tensors"]
    names = {str(tensor.name) for tensor in tensors}
    for tensor in tensors:
        name = str(tensor.name)
        if not name.endswith(_SUFFIXES):
            problems.append(f"{name}: neither a lora_a nor a lora_b")
            continue
        stem, end = name[:-1], name[-1]
        if stem + ("b" if end == "a" else "a") not in names:
            problems.append(f"{name}: its other half is missing")
        target = base.tensors.get(name.removesuffix(f".lora_{end}"))
        if target is None:
            problems.append(f"{name}: the base model has no such tensor")
        elif len(tensor.shape) != len(target):
            problems.append(f"{name}: {len(tensor.shape)} dimensions on a tensor of {len(target)}")
        if tensor.tensor_type not in (types.F32, types.F16, types.BF16):
            problems.append(f"{name}: stored as {tensor.tensor_type.name}; F32, F16 or BF16 can be applied")
        elif not _is_finite(tensor, types.BF16):
            problems.append(f"{name}: holds NaN or infinity")
    return problems


def _is_finite(tensor: Any, bf16: int) -> bool:
    if tensor.tensor_type == bf16:
        # The exponent's eight bits all set is NaN or infinity; numpy has no bfloat16 to ask.
        bits = np.ascontiguousarray(tensor.data).view(np.uint16)
        return not bool(((bits & 0x7F80) == 0x7F80).any())
    return bool(np.isfinite(tensor.data).all())
