"""From an mlx-lm LoRA adapter to the GGUF file that llama.cpp loads.

llama.cpp computes y + (alpha / r) * B(A(x)) with A (r, in), B (out, r), named `<tensor>.weight.lora_a` and `.lora_b`;
mlx-lm computes y + scale * (x a) b with a (in, r) and b (r, out). So A = a.T, B = b.T and alpha = scale * r, which is
kept unrounded (the original rounded it). In the llama family the base's q and k rows were permuted on conversion, and
B's rows must follow (the original did not permute: off by 13 on a signal of 45 while the greedy text stayed the same).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from ml_pipeline.adapters.adapter import Adapter
from ml_pipeline.adapters.base_gguf import read_base_facts
from ml_pipeline.adapters.gguf_plan import PlannedPair, plan_conversion
from ml_pipeline.adapters.safetensors_data import fill_float32, map_file, stored_values
from ml_pipeline.adapters.safetensors_header import read_header
from ml_pipeline.errors import AdapterError
from ml_pipeline.files import replacing

FORMAT_VERSION = 1
"""Raised whenever the same adapter and base would give other bytes, so that converted files are made again."""

# Columns a tile, measured with ranks 8 to 64: 4-6 GB/s, where a plain transposition falls to 1.4 at rank 64.
_TILE_OF_A, _TILE_OF_B = 512, 8


def write_gguf_lora(
    adapter: Adapter, base_gguf: Path, out: Path, progress: Callable[[int, int], None] = lambda done, total: None
) -> Path:
    """Write `adapter` as a GGUF LoRA for the base model `base_gguf` to `out`, and return `out`.

    Tensors are written as float32 whatever they were, which is exact: with half-precision factors llama.cpp would round
    the activations too. Where ranks differ between layers no single alpha is right: alpha 0 makes llama.cpp apply scale
    1, and B carries the scale. The same input gives the same bytes. `progress` is called with the bytes of tensors that
    are written and in all.

    Raises:
        AdapterError: DoRA, a full fine-tune, an architecture without a verified conversion, or an adapter that does not
            fit the base; names everything that does not fit.
        BackendError: the base model's file cannot be read.
        StoreFullError: the disk is full.
        StoreError: the folder cannot be written to.
    """
    header = read_header(adapter.path)
    if header.size_bytes != adapter.size_bytes:
        raise AdapterError(f"{adapter.path}: changed since it was read. Read it again, then convert it.")
    base = read_base_facts(base_gguf)
    plan = plan_conversion(adapter, header, base)
    ranks = {planned.pair.rank for planned in plan}
    alpha, scale_in_b = (adapter.scale * ranks.pop(), 1.0) if len(ranks) == 1 else (0.0, adapter.scale)
    with replacing(out) as temporary:
        _write_head(temporary, base.architecture, alpha, plan)
        with temporary.open("ab") as file:
            _write_tensors(file, map_file(adapter.path), plan, scale_in_b, progress)
    return out


def _write_head(path: Path, architecture: str, alpha: float, plan: list[PlannedPair]) -> None:
    from gguf import GGUFWriter

    writer = GGUFWriter(path, architecture)
    try:
        writer.add_type("adapter")
        writer.add_string("adapter.type", "lora")
        writer.add_float32("adapter.lora.alpha", alpha)
        for planned in plan:
            for leaf, entry in (("lora_a", planned.pair.a), ("lora_b", planned.pair.b)):
                shape = entry.shape[::-1]
                size_bytes = shape[0] * shape[1] * 4
                writer.add_tensor_info(f"{planned.gguf_name}.weight.{leaf}", shape, np.dtype(np.float32), size_bytes)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
    finally:
        writer.close()


def _write_tensors(
    file: BinaryIO,
    data: npt.NDArray[np.uint8],
    plan: list[PlannedPair],
    scale_in_b: float,
    progress: Callable[[int, int], None],
) -> None:
    """Transpose one tensor after the other into the same piece of memory, and write it from there.

    `numpy.tofile` is not used: it hides the cause of a failed write, so a full disk could not be told apart.
    """
    sizes = [entry.shape[0] * entry.shape[1] for planned in plan for entry in (planned.pair.a, planned.pair.b)]
    scratch = np.empty(max(sizes), np.float32)
    written, total = 0, 4 * sum(sizes)
    _pad(file)
    for planned in plan:
        a = stored_values(data, planned.pair.a)
        target_a = scratch[: a.size].reshape(a.shape[::-1])
        _fill_in_tiles(target_a, a.T, _TILE_OF_A)
        _write(file, target_a)
        b = stored_values(data, planned.pair.b)
        target_b = scratch[: b.size].reshape(b.shape[::-1])
        if planned.permuted_heads is None:
            _fill_in_tiles(target_b, b.T, _TILE_OF_B)
        else:
            _fill_permuted(target_b, b.T, planned.permuted_heads)
        if scale_in_b != 1.0:
            target_b *= np.float32(scale_in_b)
        _write(file, target_b)
        written += 4 * (a.size + b.size)
        progress(written, total)


def _fill_in_tiles(target: npt.NDArray[np.float32], source: npt.NDArray[np.generic], tile: int) -> None:
    """Fill `target` with `source`, a few columns at a time: a transposition then stays in the processor's cache."""
    for start in range(0, target.shape[-1], tile):
        fill_float32(target[..., start : start + tile], source[..., start : start + tile])


def _fill_permuted(target: npt.NDArray[np.float32], rows: npt.NDArray[np.generic], heads: int) -> None:
    """Fill `target` with `rows` (out, r), each head's two halves interleaved.

    This is `LlamaModel.permute` of llama.cpp's convert_hf_to_gguf.py: the rotary embedding pairs row i with row i + d/2
    in the checkpoint, and row 2i with row 2i + 1 in the GGUF.
    """
    out_size, rank = rows.shape
    half = out_size // heads // 2
    interleaved = rows.reshape(heads, 2, half, rank).swapaxes(1, 2)
    _fill_in_tiles(target.reshape(heads, half, 2, rank), interleaved, _TILE_OF_B)


def _write(file: BinaryIO, values: npt.NDArray[np.float32]) -> None:
    file.write(values.data)
    _pad(file)


def _pad(file: BinaryIO) -> None:
    from gguf import GGUF_DEFAULT_ALIGNMENT

    file.write(bytes(-file.tell() % GGUF_DEFAULT_ALIGNMENT))
