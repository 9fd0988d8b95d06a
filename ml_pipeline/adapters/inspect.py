"""What is inside an adapter, for people: the size of every value, of every update that it makes, and where it fits.

Unlike `read_adapter` this goes on where values are NaN or infinite, and says where they are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ml_pipeline.adapters.adapter import Adapter
from ml_pipeline.adapters.base_gguf import read_base_facts
from ml_pipeline.adapters.factors import LoraPair, block_and_module, lora_pairs
from ml_pipeline.adapters.file_hash import file_sha256
from ml_pipeline.adapters.gguf_plan import plan_conversion
from ml_pipeline.adapters.read import read_adapter_without_data
from ml_pipeline.adapters.safetensors_data import fill_float32, map_file, stored_values
from ml_pipeline.adapters.safetensors_header import TensorEntry, read_header
from ml_pipeline.errors import AdapterError

_CHUNK_VALUES = 1 << 18
"""Values that are widened to float64 at a time: 2 MB, which stays in the processor's cache."""

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class TensorFacts:
    """One tensor's values. `norm` is their Frobenius norm, None where some of them are NaN or infinite."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    size_bytes: int
    nan_count: int
    infinite_count: int
    norm: float | None

    @property
    def is_zero(self) -> bool:
        """Whether every value is 0, as in a B that was never trained."""
        return self.norm == 0.0


@dataclass(frozen=True, slots=True)
class Update:
    """What the adapter adds to one module's weight: scale * B A, with its Frobenius norm.

    `layer` is None outside the transformer blocks. For DoRA this is the part before its magnitudes are applied. The
    norm is None where a factor holds NaN or infinity.
    """

    name: str
    layer: int | None
    module: str
    rank: int
    norm: float | None


@dataclass(frozen=True, slots=True)
class Inspection:
    """An adapter with the facts about its tensors, by name, and its updates, by module; a full fine-tune has none."""

    adapter: Adapter
    tensors: tuple[TensorFacts, ...]
    updates: tuple[Update, ...]

    @property
    def spoilt(self) -> tuple[TensorFacts, ...]:
        """The tensors that hold NaN or infinity."""
        return tuple(tensor for tensor in self.tensors if tensor.norm is None)

    @property
    def zeros(self) -> tuple[TensorFacts, ...]:
        """The tensors that are all zeros."""
        return tuple(tensor for tensor in self.tensors if tensor.is_zero)


def inspect_adapter(weights: Path, config: Path) -> Inspection:
    """Read every value of an adapter once or twice, a few MB of memory at a time.

    Raises:
        AdapterError: as `read_adapter`, except for values that are not finite.
    """
    header = read_header(weights)  # first, since a FIFO would be hashed for ever
    try:
        weights_sha256 = file_sha256(weights)
    except OSError as error:
        raise AdapterError(f"{weights}: cannot be read: {error.strerror}. Check the disk.") from error
    adapter = read_adapter_without_data(weights, config, weights_sha256)
    data = map_file(weights)
    if not header.size_bytes == adapter.size_bytes == data.size:
        raise AdapterError(f"{weights}: changed while it was read. Inspect it again when it is written.")
    tensors = {entry.name: _tensor_facts(data, entry) for entry in sorted(header.tensors, key=lambda t: t.name)}
    updates = []
    pairs = lora_pairs(header)
    scales = adapter.scales(pair.module for pair in pairs)
    for pair in pairs:
        place = block_and_module(pair.module)
        finite = all(tensors[entry.name].norm is not None for entry in (pair.a, pair.b))
        norm = abs(scales[pair.module]) * product_norm(*_stacked(data, pair)) if finite else None
        layer, module = place or (None, pair.module)
        updates.append(Update(pair.module, layer, module, pair.rank, norm))
    return Inspection(adapter, tuple(tensors.values()), tuple(updates))


def root_sum_square(norms: Sequence[float | None]) -> float | None:
    """The Frobenius norm of several updates together; None where one of them is."""
    known = [norm for norm in norms if norm is not None]
    return math.hypot(*known) if len(known) == len(norms) else None


def misfit(adapter: Adapter, base_gguf: Path) -> str | None:
    """Why the adapter does not fit this base model by names and shapes; None when every module does.

    DoRA is held against the base like LoRA, though it cannot be converted for it.

    Raises:
        BackendError: the base model's file cannot be read.
    """
    lora = replace(adapter, kind="lora") if adapter.kind == "dora" else adapter
    try:
        plan_conversion(lora, read_header(adapter.path), read_base_facts(base_gguf))
    except AdapterError as error:
        return str(error)
    return None


def product_norm(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> float:
    """The Frobenius norm of b @ a for factors a (experts, r, in) and b (experts, out, r).

    From the Gram matrices of the factors (r, r), since the sum of squares of b a is trace((a a^T)(b^T b)); the product
    itself is only formed where it is smaller than those. In float64: the error is below 1e-7 of |a| |b|.
    """
    experts, rank, n_in = a.shape
    n_out = b.shape[1]
    total = 0.0
    step = max(1, _CHUNK_VALUES // max(rank * n_in, rank * n_out, rank * rank))
    for start in range(0, experts, step):
        down, up = a[start : start + step], b[start : start + step]
        if rank < min(n_in, n_out):
            total += float(np.vdot(_gram(down), _gram(up.swapaxes(1, 2))))
        else:
            total += float(np.square(_float64(up) @ _float64(down)).sum())
    return math.sqrt(max(0.0, total))


def _stacked(data: npt.NDArray[np.uint8], pair: LoraPair) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """The factors as `product_norm` takes them; a plain module is a single expert."""
    a, b = pair.a_values(data), pair.b_values(data)
    return (a, b) if a.ndim == 3 else (a[np.newaxis], b[np.newaxis])


def _gram(factor: npt.NDArray[Any]) -> Float64:
    """factor @ factor^T for (experts, r, n), summed over pieces of n."""
    experts, rank, size = factor.shape
    gram = np.zeros((experts, rank, rank))
    step = max(1, _CHUNK_VALUES // (experts * rank))
    for start in range(0, size, step):
        piece = _float64(factor[..., start : start + step])
        gram += piece @ piece.swapaxes(1, 2)
    return gram


def _tensor_facts(data: npt.NDArray[np.uint8], entry: TensorEntry) -> TensorFacts:
    square, nan_count, infinite_count = 0.0, 0, 0
    for values in _pieces(stored_values(data, entry).reshape(-1)):
        # In float64 the squares of float32 values cannot overflow, so only NaN and infinity make the sum not finite.
        piece = float(np.vdot(values, values))
        if not math.isfinite(piece):
            nan_count += int(np.isnan(values).sum())
            infinite_count += int(np.isinf(values).sum())
        square += piece
    norm = None if nan_count or infinite_count else math.sqrt(square)
    return TensorFacts(entry.name, entry.dtype, entry.shape, entry.size_bytes, nan_count, infinite_count, norm)


def _pieces(flat: npt.NDArray[Any]) -> Iterator[Float64]:
    for start in range(0, flat.size, _CHUNK_VALUES):
        yield _float64(flat[start : start + _CHUNK_VALUES])


def _float64(stored: npt.NDArray[Any]) -> Float64:
    values = np.empty(stored.shape, np.float32)
    fill_float32(values, stored)
    with np.errstate(invalid="ignore"):
        return values.astype(np.float64)
