"""SmolLM2-135M dequantised to float32, so that llama.cpp and mlx-lm hold the same numbers.

On the Q4_1 file itself llama.cpp rounds activations to 8 bits, which would drown what is compared.
"""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
from gguf.quants import dequantize

from ml_pipeline.adapters.mlx_base import write_mlx_base


def float32_models(source: Path, folder: Path) -> tuple[Path, Path]:
    """The folder for mlx-lm and the float32 GGUF for llama.cpp, both from the same quantised file."""
    return write_mlx_base(source, folder / "mlx", dtype="float32"), dequantised(source, folder / "f32.gguf")


def dequantised(source: Path, out: Path) -> Path:
    """Write a GGUF file with every tensor as float32."""
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(out, "llama")
    for key, field in reader.fields.items():
        if key.startswith("GGUF.") or key in ("general.architecture", "general.file_type"):
            continue
        sub_type = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(key, field.contents(), field.types[0], sub_type=sub_type)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, dequantize(tensor.data, tensor.tensor_type).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return out
