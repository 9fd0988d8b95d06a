"""Tensors of a safetensors file whose header was checked, as mlx's arrays, without mlx's own reader.

`mx.load` accepts tensors that overlap, gaps and negative shapes: it never gets to see a file from elsewhere.
"""

from __future__ import annotations

import mlx.core as mx

from ml_pipeline.adapters.safetensors_data import map_file, stored_values
from ml_pipeline.adapters.safetensors_header import SafetensorsHeader


def read_tensors(header: SafetensorsHeader) -> dict[str, mx.array]:
    """Copy every tensor into memory, in its stored precision, under its name. All are of `FLOAT_DTYPES`."""
    data = map_file(header.path)
    tensors = {entry.name: mx.array(stored_values(data, entry)) for entry in header.tensors}
    for entry in header.tensors:
        if entry.dtype == "BF16":
            tensors[entry.name] = tensors[entry.name].view(mx.bfloat16)
    mx.eval(tensors)
    return tensors
