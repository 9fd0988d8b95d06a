"""What the header of a base model's GGUF file says: architecture, sizes, tensor shapes, quantisation."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from ml_pipeline.adapters.file_hash import file_sha256
from ml_pipeline.adapters.gguf_header import GgufHeader, Scalar, read_gguf_header
from ml_pipeline.adapters.safetensors_header import shown
from ml_pipeline.errors import BackendError

__all__ = ["BaseModelFacts", "file_sha256", "quantisation", "read_base_facts"]

_MAX_LAYERS = 1024
"""Four times the deepest model known; a name map of 2**60 layers would never be made."""


@dataclass(frozen=True, slots=True)
class BaseModelFacts:
    """A base model as its GGUF header describes it.

    `metadata` holds every key whose value is a single one; arrays (the vocabulary) are left out. `tensors` maps names
    to numpy shapes: (out, in) for a matrix. `n_heads` and `n_heads_kv` are None where they differ from layer to layer.
    """

    path: Path
    architecture: str
    n_layers: int
    n_heads: int | None
    n_heads_kv: int | None
    quantisation: str
    metadata: Mapping[str, Scalar]
    tensors: Mapping[str, tuple[int, ...]]


def read_base_facts(path: Path) -> BaseModelFacts:
    """Read the header of the GGUF file at `path`, once a process for as long as the file stays as it is.

    Raises:
        BackendError: the file is missing, is not a whole GGUF file, or is one part of a split model.
    """
    try:
        status = path.stat()
        return _read_base_facts(path.absolute(), status.st_size, status.st_mtime_ns, status.st_ino)
    except FileNotFoundError as error:
        raise BackendError(f"{path}: there is no such base model. Check the path in pipeline.yaml.") from error
    except OSError as error:
        raise BackendError(
            f"{path}: the base model cannot be read: {error.strerror}. Check the permissions."
        ) from error


def quantisation(path: Path) -> str:
    """Return how the base model's weights are stored, such as `Q4_1` or `F16`.

    From `general.file_type`; in a file without it, the type of most matrices.

    Raises:
        BackendError: see `read_base_facts`.
    """
    return read_base_facts(path).quantisation


@functools.lru_cache(maxsize=64)
def _read_base_facts(path: Path, size_bytes: int, mtime_ns: int, inode: int) -> BaseModelFacts:
    try:
        return _facts(path, read_gguf_header(path))
    except ValueError as error:
        raise BackendError(
            f"{path}: not a whole GGUF file (version 2 or 3, little-endian): {error}. Fetch the base model again."
        ) from error


def _facts(path: Path, header: GgufHeader) -> BaseModelFacts:
    metadata = {key: value for key, value in header.values.items() if value is not None}
    architecture = metadata.get("general.architecture")
    if not isinstance(architecture, str):
        raise ValueError("general.architecture is missing")
    if metadata.get("split.count", 0) not in (0, 1):
        raise BackendError(f"{path}: one part of a split model. Join the parts with llama-gguf-split --merge first.")
    n_layers = metadata.get(f"{architecture}.block_count", 0)
    if not isinstance(n_layers, int) or not 0 <= n_layers <= _MAX_LAYERS:
        raise ValueError(f"block_count is {shown(n_layers)}, not a number of layers from 0 to {_MAX_LAYERS}")

    def whole_number(key: str) -> int | None:
        value = metadata.get(f"{architecture}.{key}")
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    n_heads = whole_number("attention.head_count")
    n_heads_kv = whole_number("attention.head_count_kv")
    if n_heads_kv is None and f"{architecture}.attention.head_count_kv" not in header.values:
        n_heads_kv = n_heads
    return BaseModelFacts(
        path=path,
        architecture=architecture,
        n_layers=int(n_layers),
        n_heads=n_heads,
        n_heads_kv=n_heads_kv,
        quantisation=_quantisation_name(metadata.get("general.file_type"), header),
        metadata=MappingProxyType(metadata),
        tensors=MappingProxyType({tensor.name: tensor.shape for tensor in header.tensors}),
    )


def _quantisation_name(file_type: object, header: GgufHeader) -> str:
    # Importing gguf costs a good part of a second: only those who convert or name a base pay it.
    from gguf import GGMLQuantizationType, LlamaFileType

    if isinstance(file_type, int) and file_type in set(LlamaFileType) and file_type != LlamaFileType.GUESSED:
        return str(LlamaFileType(file_type).name).removeprefix("MOSTLY_").removeprefix("ALL_")
    commonest = Counter(tensor.type for tensor in header.tensors if len(tensor.shape) > 1).most_common(1)
    if commonest and commonest[0][0] in set(GGMLQuantizationType):
        return str(GGMLQuantizationType(commonest[0][0]).name)
    return "unknown"
