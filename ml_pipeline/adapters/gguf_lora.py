"""From a LoRA adapter of mlx-lm or PEFT to the GGUF file that llama.cpp loads.

llama.cpp computes y + (alpha / r) * B(A(x)) with A (r, in), B (out, r), named `<tensor>.weight.lora_a` and `.lora_b`.
mlx-lm computes y + scale * (x a) b with a (in, r) and b (r, out), so A = a.T, B = b.T and alpha = scale * r, which is
kept unrounded (the original rounded it). PEFT's factors lie as llama.cpp wants them, as do the three-dimensional ones
of a mixture of experts; only for the token embedding it wants A as a table (vocabulary, r). In the llama family the
base's q and k rows were permuted on conversion, and B's rows must follow (the original did not permute: off by 13 on a
signal of 45 while the greedy text stayed the same).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from ml_pipeline.adapters.adapter import Adapter
from ml_pipeline.adapters.base_gguf import read_base_facts
from ml_pipeline.adapters.gguf_plan import PlannedPair, plan_conversion
from ml_pipeline.adapters.safetensors_data import map_file
from ml_pipeline.adapters.safetensors_header import read_header
from ml_pipeline.adapters.tensor_stream import TILE_OF_A, TILE_OF_B, TensorStream
from ml_pipeline.errors import AdapterError
from ml_pipeline.files import replacing

FORMAT_VERSION = 1
"""Raised whenever the same adapter and base would give other bytes, so that converted files are made again."""


def write_gguf_lora(
    adapter: Adapter, base_gguf: Path, out: Path, progress: Callable[[int, int], None] = lambda done, total: None
) -> Path:
    """Write `adapter` as a GGUF LoRA for the base model `base_gguf` to `out`, and return `out`.

    Tensors are written as float32 whatever they were, which is exact: with half-precision factors llama.cpp would round
    the activations too. Where no single alpha is right for all modules, alpha 0 makes llama.cpp apply scale 1, and each
    B carries its own scale. The same input gives the same bytes. `progress` is called with the bytes of tensors
    that are written and in all.

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
    alphas = {planned.alpha for planned in plan}
    alpha = alphas.pop() if len(alphas) == 1 else 0.0
    with replacing(out) as temporary:
        _write_head(temporary, base.architecture, alpha, plan)
        with temporary.open("ab") as file:
            _write_tensors(file, map_file(adapter.path), plan, scale_in_b=alpha == 0.0, progress=progress)
    return out


def _write_head(path: Path, architecture: str, alpha: float, plan: list[PlannedPair]) -> None:
    from gguf import GGUFWriter

    writer = GGUFWriter(path, architecture)
    try:
        writer.add_type("adapter")
        writer.add_string("adapter.type", "lora")
        writer.add_float32("adapter.lora.alpha", alpha)
        for planned in plan:
            for leaf, shape in (("lora_a", _shape_of_a(planned)), ("lora_b", planned.pair.b_shape)):
                size_bytes = math.prod(shape) * 4
                writer.add_tensor_info(f"{planned.gguf_name}.weight.{leaf}", shape, np.dtype(np.float32), size_bytes)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
    finally:
        writer.close()


def _shape_of_a(planned: PlannedPair) -> tuple[int, ...]:
    return planned.pair.a_shape[::-1] if planned.is_looked_up else planned.pair.a_shape


def _write_tensors(
    file: BinaryIO,
    data: npt.NDArray[np.uint8],
    plan: list[PlannedPair],
    *,
    scale_in_b: bool,
    progress: Callable[[int, int], None],
) -> None:
    stream = TensorStream(file, data, as_float32=True)
    written, total = 0, sum(_size_bytes(planned) for planned in plan)
    _pad(file)
    for planned in plan:
        a, b = planned.pair.a_values(data), planned.pair.b_values(data)
        stream.write(a.T if planned.is_looked_up else a, TILE_OF_A)
        _pad(file)
        rows = b if planned.permuted_heads is None else _interleaved(b, planned.permuted_heads)
        stream.write(rows, TILE_OF_B, planned.scale if scale_in_b else 1.0)
        _pad(file)
        written += _size_bytes(planned)
        progress(written, total)


def _size_bytes(planned: PlannedPair) -> int:
    return 4 * (math.prod(planned.pair.a_shape) + math.prod(planned.pair.b_shape))


def _interleaved(rows: npt.NDArray[Any], heads: int) -> npt.NDArray[Any]:
    """View `rows` (out, r) as (heads, out / heads / 2, 2, r): each head's two halves interleaved.

    This is `LlamaModel.permute` of llama.cpp's convert_hf_to_gguf.py: the rotary embedding pairs row i with row i + d/2
    in the checkpoint, and row 2i with row 2i + 1 in the GGUF.
    """
    out_size, rank = rows.shape
    return rows.reshape(heads, 2, out_size // heads // 2, rank).swapaxes(1, 2)


def _pad(file: BinaryIO) -> None:
    from gguf import GGUF_DEFAULT_ALIGNMENT

    file.write(bytes(-file.tell() % GGUF_DEFAULT_ALIGNMENT))
