"""Writing tensors of a mapped file into another, turned over or converted on the way, without loading either file."""

from __future__ import annotations

import mmap
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from ml_pipeline.adapters.safetensors_data import fill_float32

TILE_OF_A, TILE_OF_B = 512, 8
"""Steps along mlx-lm's (in, r) and (r, out) at a time, measured with ranks 8 to 64: 4-6 GB/s, where a plain
transposition falls to 1.4 at rank 64."""
_STRIPE_BYTES = 1 << 22
"""How much of the source is read before its pages are given back."""


class TensorStream:
    """Appends tensors to `file`. Memory: the largest tensor that is turned over, as written, and a few MB.

    `data` is the mapped source. With `as_float32` every value is written as such, exactly; otherwise as it is stored.
    """

    def __init__(self, file: BinaryIO, data: npt.NDArray[np.uint8], *, as_float32: bool) -> None:
        self._file, self._data, self._as_float32 = file, data, as_float32
        self._memory = np.empty(0, np.uint8)
        self._mapped_bytes = 0

    def write(self, values: npt.NDArray[Any], tile: int, scale: float = 1.0) -> None:
        """Append `values`, a view of a tensor in any order of its axes, times `scale` (of float32 only).

        `tile` is how many steps along the source's slowest axis are moved at a time, so that both sides of a
        transposition stay in the processor's cache.
        """
        if values.flags.c_contiguous:
            self._write_in_order(values.reshape(-1), scale)
            return
        target = self._room_for(values.size, values.dtype).reshape(values.shape)
        axis = int(np.argmax(values.strides))
        source, turned = np.moveaxis(values, axis, 0), np.moveaxis(target, axis, 0)
        for start in range(0, len(source), tile):
            piece = source[start : start + tile]
            self._fill(turned[start : start + tile], piece)
            self._have_read(piece.nbytes)
        self._append(target, scale)

    def _write_in_order(self, values: npt.NDArray[Any], scale: float) -> None:
        stripe = _STRIPE_BYTES // values.itemsize
        for start in range(0, values.size, stripe):
            piece = values[start : start + stripe]
            if self._as_float32 and (scale != 1.0 or piece.dtype != np.float32):
                target = self._room_for(piece.size, piece.dtype)
                self._fill(target, piece)
                self._append(target, scale)
            else:
                self._file.write(piece.data)
            self._have_read(piece.nbytes)

    def _have_read(self, size_bytes: int) -> None:
        self._mapped_bytes += size_bytes
        if self._mapped_bytes >= _STRIPE_BYTES:
            forget(self._data)
            self._mapped_bytes = 0

    def _append(self, values: npt.NDArray[Any], scale: float) -> None:
        if scale != 1.0:
            values *= np.float32(scale)
        self._file.write(values.data)

    def _fill(self, target: npt.NDArray[Any], source: npt.NDArray[Any]) -> None:
        if self._as_float32:
            fill_float32(target, source)
        else:
            np.copyto(target, source)

    def _room_for(self, size: int, stored: np.dtype[Any]) -> npt.NDArray[Any]:
        dtype = np.dtype(np.float32) if self._as_float32 else stored
        if self._memory.size < size * dtype.itemsize:
            self._memory = np.empty(0, np.uint8)  # before the larger one is made
            self._memory = np.empty(size * dtype.itemsize, np.uint8)
        return self._memory[: size * dtype.itemsize].view(dtype)


def forget(data: npt.NDArray[np.uint8]) -> None:
    """Give the pages of a mapped file back to the system; they can still be read.

    All of them: Linux maps the neighbours of a page that is touched, so those of one tensor alone would leave some.
    """
    if isinstance(data.base, mmap.mmap):
        data.base.madvise(mmap.MADV_DONTNEED)
