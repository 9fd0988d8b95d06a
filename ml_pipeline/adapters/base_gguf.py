"""What the header of a base model's GGUF file says: architecture, sizes, tensor shapes, quantisation.

The `gguf` package's reader makes a Python object of every token and takes seconds for a vocabulary of 49,152; this one
walks over arrays and takes milliseconds. Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import functools
import mmap
import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from ml_pipeline.adapters.file_hash import file_sha256
from ml_pipeline.errors import BackendError

__all__ = ["BaseModelFacts", "file_sha256", "quantisation", "read_base_facts"]

Scalar = int | float | bool | str

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_MAX_ENTRIES = 1_000_000
_MAX_NAME_BYTES = 65_535
_MAX_DIMENSIONS = 4
_MAX_PER_LAYER_ENTRIES = 4096
_STRING, _ARRAY = 8, 9
_SCALARS = {
    0: struct.Struct("<B"),
    1: struct.Struct("<b"),
    2: struct.Struct("<H"),
    3: struct.Struct("<h"),
    4: struct.Struct("<I"),
    5: struct.Struct("<i"),
    6: struct.Struct("<f"),
    7: struct.Struct("<?"),
    10: struct.Struct("<Q"),
    11: struct.Struct("<q"),
    12: struct.Struct("<d"),
}
_U32, _U64 = _SCALARS[4], _SCALARS[10]


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
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _parse(path, _Cursor(data))
    except (ValueError, struct.error, IndexError) as error:
        raise BackendError(
            f"{path}: not a whole GGUF file (version 2 or 3, little-endian): {error}. Fetch the base model again."
        ) from error


class _Cursor:
    """A place in the mapped file that moves on as values are read."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data = data
        self.position = 0

    def scalar(self, form: struct.Struct) -> int | float | bool:
        value: int | float | bool = form.unpack_from(self.data, self.position)[0]
        self.position += form.size
        return value

    def count(self, form: struct.Struct, limit: int, what: str) -> int:
        value = int(self.scalar(form))
        if value > limit:
            raise ValueError(f"{value} {what} at byte {self.position}")
        return value

    def string(self, limit: int) -> str:
        length = self.count(_U64, limit, "bytes in a string")
        raw = self.data[self.position : self.position + length]
        if len(raw) < length:
            raise ValueError("ends inside a string")
        self.position += length
        return raw.decode("utf-8", errors="replace")

    def skip_strings(self, count: int) -> None:
        # A vocabulary has half a million of these: the loop is kept bare.
        unpack, data, position, size = _U64.unpack_from, self.data, self.position, len(self.data)
        for _ in range(count):
            position += 8 + unpack(data, position)[0]
            if position > size:
                raise ValueError("ends inside an array of strings")
        self.position = position


def _read_value(cursor: _Cursor) -> Scalar | None:
    """Read one value; an array counts only when its numbers are all the same, as some per-layer head counts are."""
    kind = int(cursor.scalar(_U32))
    if kind == _STRING:
        return cursor.string(len(cursor.data))
    if kind != _ARRAY:
        return cursor.scalar(_scalar_form(kind))
    kind = int(cursor.scalar(_U32))
    count = cursor.count(_U64, len(cursor.data), "array entries")
    if kind == _STRING:
        cursor.skip_strings(count)
        return None
    form = _scalar_form(kind)
    start = cursor.position
    cursor.position += count * form.size
    if cursor.position > len(cursor.data):
        raise ValueError("ends inside an array")
    first: bytes = cursor.data[start : start + form.size]
    if 0 < count <= _MAX_PER_LAYER_ENTRIES and cursor.data[start : cursor.position] == first * count:
        value: Scalar = form.unpack(first)[0]
        return value
    return None


def _scalar_form(kind: int) -> struct.Struct:
    if kind not in _SCALARS:
        raise ValueError(f"unknown value type {kind}")
    return _SCALARS[kind]


def _parse(path: Path, cursor: _Cursor) -> BaseModelFacts:
    if cursor.data[:4] != _MAGIC:
        raise ValueError("does not start with 'GGUF'")
    cursor.position = 4
    version = cursor.scalar(_U32)
    if version not in _VERSIONS:
        raise ValueError(f"version {version}")
    tensor_count = cursor.count(_U64, _MAX_ENTRIES, "tensors")
    key_count = cursor.count(_U64, _MAX_ENTRIES, "keys")
    values = {cursor.string(_MAX_NAME_BYTES): _read_value(cursor) for _ in range(key_count)}
    tensors: dict[str, tuple[int, ...]] = {}
    matrix_types: Counter[int] = Counter()
    for _ in range(tensor_count):
        name = cursor.string(_MAX_NAME_BYTES)
        n_dimensions = cursor.count(_U32, _MAX_DIMENSIONS, "dimensions")
        # GGUF counts dimensions from the quickest one, numpy from the slowest.
        tensors[name] = tuple(int(cursor.scalar(_U64)) for _ in range(n_dimensions))[::-1]
        matrix_types[int(cursor.scalar(_U32))] += n_dimensions > 1
        cursor.scalar(_U64)
    return _facts(path, values, tensors, matrix_types)


def _facts(
    path: Path, values: dict[str, Scalar | None], tensors: dict[str, tuple[int, ...]], matrix_types: Counter[int]
) -> BaseModelFacts:
    metadata = {key: value for key, value in values.items() if value is not None}
    architecture = metadata.get("general.architecture")
    if not isinstance(architecture, str):
        raise ValueError("general.architecture is missing")
    if metadata.get("split.count", 0) not in (0, 1):
        raise BackendError(f"{path}: one part of a split model. Join the parts with llama-gguf-split --merge first.")

    def whole_number(key: str) -> int | None:
        value = metadata.get(f"{architecture}.{key}")
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    n_heads = whole_number("attention.head_count")
    n_heads_kv = whole_number("attention.head_count_kv")
    if n_heads_kv is None and f"{architecture}.attention.head_count_kv" not in values:
        n_heads_kv = n_heads
    return BaseModelFacts(
        path=path,
        architecture=architecture,
        n_layers=whole_number("block_count") or 0,
        n_heads=n_heads,
        n_heads_kv=n_heads_kv,
        quantisation=_quantisation_name(metadata.get("general.file_type"), matrix_types),
        metadata=MappingProxyType(metadata),
        tensors=MappingProxyType(tensors),
    )


def _quantisation_name(file_type: object, matrix_types: Counter[int]) -> str:
    # Importing gguf costs a good part of a second: only those who convert or name a base pay it.
    from gguf import GGMLQuantizationType, LlamaFileType

    if isinstance(file_type, int) and file_type in set(LlamaFileType) and file_type != LlamaFileType.GUESSED:
        return str(LlamaFileType(file_type).name).removeprefix("MOSTLY_").removeprefix("ALL_")
    commonest = matrix_types.most_common(1)
    if commonest and commonest[0][0] in set(GGMLQuantizationType):
        return str(GGMLQuantizationType(commonest[0][0]).name)
    return "unknown"
