"""The numbers inside a safetensors file whose header was checked: memory-mapped views, and the search for NaN."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ml_pipeline.adapters.safetensors_header import SafetensorsHeader, TensorEntry, shortened, shown
from ml_pipeline.errors import AdapterError

FLOAT_DTYPES = ("F32", "F16", "BF16")
"""What mlx-lm can train, and all that llama.cpp survives: it dies of I8 and F64 adapters."""

_CHUNK_VALUES = 1 << 20

# numpy has no bfloat16: its bits travel as uint16.
_STORED_AS: dict[str, npt.DTypeLike] = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}


def map_file(path: Path) -> npt.NDArray[np.uint8]:
    """Map the file's bytes, read-only and without loading them.

    Raises:
        AdapterError: the file cannot be mapped.
    """
    try:
        return np.memmap(path, dtype=np.uint8, mode="r")
    except (OSError, ValueError) as error:
        raise AdapterError(f"{path}: cannot be mapped into memory: {error}. Fetch the file again.") from error


def stored_values(data: npt.NDArray[np.uint8], entry: TensorEntry) -> npt.NDArray[Any]:
    """View a tensor of one of `FLOAT_DTYPES` in the mapped file `data`, in its shape; BF16 comes as uint16 bits."""
    raw = np.asarray(data)[entry.start : entry.start + entry.size_bytes]  # slices of a memmap cost more
    return raw.view(_STORED_AS[entry.dtype]).reshape(entry.shape)


def fill_float32(target: npt.NDArray[np.float32], stored: npt.NDArray[Any]) -> None:
    """Fill `target` with what `stored_values` gave, or any view of it of the same shape; every value stays exact."""
    if stored.dtype == np.uint16:
        bits = target.view(np.uint32)
        np.copyto(bits, stored)
        np.left_shift(bits, np.uint32(16), out=bits)
    else:
        np.copyto(target, stored)


def check_finite(header: SafetensorsHeader) -> None:
    """Make sure that no tensor of a checked file holds NaN or infinity; reads in pieces of a few MB.

    Raises:
        AdapterError: names every tensor that does, with how many such values it holds.
    """
    floats = [entry for entry in header.tensors if entry.dtype in FLOAT_DTYPES and entry.size_bytes]
    if not floats:
        return
    data = map_file(header.path)
    problems = [
        f"{shown(entry.name)}: {count} of {stored.size} values are NaN or infinite"
        for entry in floats
        if (count := count_not_finite(stored := stored_values(data, entry)))
    ]
    if problems:
        remedy = "Training diverged or the file is damaged: take an earlier checkpoint, or lower the learning rate."
        raise AdapterError.from_problems(str(header.path), shortened(problems), remedy)


def count_not_finite(stored: npt.NDArray[Any]) -> int:
    """How many values, stored as float32, float16 or BF16's bits in uint16, are NaN or infinite."""
    flat = stored.reshape(-1)
    return sum(_count_in_chunk(flat[start : start + _CHUNK_VALUES]) for start in range(0, flat.size, _CHUNK_VALUES))


def _count_in_chunk(values: npt.NDArray[Any]) -> int:
    if values.dtype == np.float32:
        # NaN and infinity survive a sum, which is several times quicker than looking at each value;
        # a sum that overflows by itself only costs the slow look.
        with np.errstate(over="ignore", invalid="ignore"):
            if np.isfinite(values.sum()):
                return 0
        return int(values.size - np.count_nonzero(np.isfinite(values)))
    exponent = np.uint16(0x7F80 if values.dtype == np.uint16 else 0x7C00)
    return int(np.count_nonzero((values.view(np.uint16) & exponent) == exponent))
