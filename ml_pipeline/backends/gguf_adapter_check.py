"""Checks a GGUF adapter before llama.cpp sees it: what kills or fools the native code is refused with a message.

Measured on llama.cpp: an alpha, a general.type or an alignment of another type aborts the process at load, and so do
the invocation tokens of an aLoRA that are no list; I8 and F64 weights segfault and 3-D tensors on a plain layer abort
at the first decode, and NaN passes in silence. The gguf package's reader in turn walks on through an array that claims
2**60 entries.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ml_pipeline.adapters.base_gguf import BaseModelFacts
from ml_pipeline.adapters.gguf_header import F32, STRING, U32, GgufHeader, read_gguf_header
from ml_pipeline.adapters.safetensors_data import count_not_finite, map_file
from ml_pipeline.adapters.safetensors_header import shortened, shown
from ml_pipeline.errors import AdapterError

_ALPHA, _ALIGNMENT = "adapter.lora.alpha", "general.alignment"
_DEFAULT_ALIGNMENT, _LARGEST_ALIGNMENT = 32, 4096
_OTHER_KEYS = {"adapter.lora.task_name": STRING, "adapter.lora.prompt_prefix": STRING}
"""What else an adapter may say of itself. Not `adapter.alora.*`: such a one is only at work after certain tokens."""

_STORED_AS: dict[int, np.dtype[Any]] = {0: np.dtype("<f4"), 1: np.dtype("<f2"), 30: np.dtype("<u2")}
"""F32, F16 and BF16 by ggml's numbers; numpy has no bfloat16, so its bits come as uint16."""

_SUFFIXES = (".lora_a", ".lora_b")
_REMEDY = "Convert the checkpoint again with this project's converter."


def check_gguf_adapter(path: Path, base: BaseModelFacts) -> int:
    """Return how many tensors the adapter holds, all of which llama.cpp will have to match.

    Raises:
        AdapterError: the file cannot be read or is unsafe; every problem is named.
    """
    try:
        header = read_gguf_header(path)
    except FileNotFoundError as error:
        raise AdapterError(f"{path}: there is no such adapter. {_REMEDY}") from error
    except (OSError, ValueError) as error:
        raise AdapterError(f"{path}: not a whole GGUF file: {error}. {_REMEDY}") from error
    problems = [*_metadata_problems(header, base), *_tensor_problems(header, base)]
    if not problems:
        # Only what lies where the header says can be looked at.
        problems += _layout_problems(header, map_file(path))
    if problems:
        raise AdapterError.from_problems(str(path), shortened(problems), _REMEDY)
    return len(header.tensors)


def _metadata_problems(header: GgufHeader, base: BaseModelFacts) -> Iterator[str]:
    expected = {
        "general.type": "adapter",
        "adapter.type": "lora",
        "general.architecture": base.architecture,
    }
    for key, value in expected.items():
        if header.types.get(key) != STRING or header.values[key] != value:
            yield f"{key} is {shown(header.values.get(key))}, not {shown(value)}"
    if header.types.get(_ALPHA) != F32:
        yield f"{_ALPHA} is missing or not a 32-bit float"
    elif not math.isfinite(float(header.values[_ALPHA] or 0.0)):
        yield f"{_ALPHA} is {header.values[_ALPHA]}"
    for key, kind in header.types.items():
        checked = key in expected or key == _ALPHA or not key.startswith("adapter.")
        if not checked and (key, kind) not in _OTHER_KEYS.items():
            yield f"{shown(key)} is not supported, or not of the type that it should be"
    alignment = header.values.get(_ALIGNMENT, _DEFAULT_ALIGNMENT)
    if header.types.get(_ALIGNMENT, U32) != U32 or alignment not in _alignments():
        yield f"{_ALIGNMENT} is {shown(alignment)}, not a power of two from 8 to {_LARGEST_ALIGNMENT}"


def _alignments() -> list[int]:
    return [2**power for power in range(3, _LARGEST_ALIGNMENT.bit_length())]


def _tensor_problems(header: GgufHeader, base: BaseModelFacts) -> Iterator[str]:
    if not header.tensors:
        yield "it holds no tensors"
    names = {tensor.name for tensor in header.tensors}
    for tensor in header.tensors:
        name = tensor.name
        if not name.endswith(_SUFFIXES):
            yield f"{_plain(name)}: neither a lora_a nor a lora_b"
            continue
        stem, end = name[:-1], name[-1]
        if stem + ("b" if end == "a" else "a") not in names:
            yield f"{_plain(name)}: its other half is missing"
        target = base.tensors.get(name.removesuffix(f".lora_{end}"))
        if target is None:
            yield f"{_plain(name)}: the base model has no such tensor"
        elif len(tensor.shape) != len(target):
            yield f"{_plain(name)}: {len(tensor.shape)} dimensions on a tensor of {len(target)}"
        if 0 in tensor.shape:
            yield f"{_plain(name)}: shape {list(tensor.shape)} is empty"
        if tensor.type not in _STORED_AS:
            yield f"{_plain(name)}: stored as {_type_name(tensor.type)}; F32, F16 or BF16 can be applied"


def _layout_problems(header: GgufHeader, data: npt.NDArray[np.uint8]) -> Iterator[str]:
    """What is wrong with where the tensors lie, in the order of their data, and with their values."""
    alignment = int(header.values.get(_ALIGNMENT) or _DEFAULT_ALIGNMENT)
    data_start = _aligned(header.end, alignment)
    expected = 0
    for tensor in header.tensors:
        stored_as = _STORED_AS[tensor.type]
        size_bytes = math.prod(tensor.shape) * stored_as.itemsize
        start = data_start + tensor.offset
        if tensor.offset != expected:
            yield f"{_plain(tensor.name)}: lies at byte {tensor.offset} of the data, not at {expected} after the others"
        elif start + size_bytes > data.size:
            yield f"{_plain(tensor.name)}: {start + size_bytes - data.size} of its bytes are missing from the file"
        elif count := count_not_finite(data[start : start + size_bytes].view(stored_as)):
            yield f"{_plain(tensor.name)}: holds NaN or infinity, {count} times"
        expected = _aligned(tensor.offset + size_bytes, alignment)


def _aligned(position: int, alignment: int) -> int:
    return position + -position % alignment


def _plain(name: str) -> str:
    """A tensor's name as it is, or escaped and cut where that is not fit for a terminal."""
    return shown(name)[1:-1]


def _type_name(number: int) -> str:
    import gguf

    known = set(gguf.GGMLQuantizationType)
    return str(gguf.GGMLQuantizationType(number).name) if number in known else f"type {number}"
