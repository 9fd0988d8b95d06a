"""Reading a safetensors file by its header alone, before any native library sees it.

The format (https://github.com/huggingface/safetensors#format): eight bytes with the header's length, the header as
JSON, then one byte buffer that the tensors cover without gap or overlap. This reader is stricter than the readers
it protects: the Rust library accepts duplicate keys and path-like names, and `mlx.core.load` accepts overlap, gaps,
trailing bytes and negative shapes.
"""

from __future__ import annotations

import math
import os
import reprlib
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ml_pipeline.adapters.header_json import object_entries
from ml_pipeline.errors import AdapterError

MAX_HEADER_BYTES = 16 * 1024 * 1024
MAX_NAME_CHARACTERS = 512
MAX_DIMENSIONS = 8
MAX_TENSORS = 100_000
MAX_PROBLEMS_SHOWN = 100
MAX_METADATA_CHARACTERS = 1024 * 1024
_MAX_ENTRY_CHARACTERS = 4096
_MAX_PROBLEMS = 10_000
"""After so many the rest of a header is not looked at."""

DTYPE_BYTES: Mapping[str, int] = MappingProxyType(
    {
        "BOOL": 1,
        "U8": 1,
        "I8": 1,
        "F8_E4M3": 1,
        "F8_E5M2": 1,
        "I16": 2,
        "U16": 2,
        "F16": 2,
        "BF16": 2,
        "I32": 4,
        "U32": 4,
        "F32": 4,
        "I64": 8,
        "U64": 8,
        "F64": 8,
    }
)

_LENGTH_BYTES = 8
_METADATA = "__metadata__"
_ENTRY_KEYS = frozenset({"dtype", "shape", "data_offsets"})
_REMEDY = "The file is damaged or not a safetensors file: fetch it again, or save it again where it was trained."

# Neither the depth nor the size of a value decides what it costs to show it.
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxlong = _SHORT.maxother = 200
_SHORT.maxlist = _SHORT.maxdict = 16


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """Where one tensor lies: `start` counts bytes from the start of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class SafetensorsHeader:
    """A header whose every claim was checked against the file. `tensors` are in the order of their bytes."""

    path: Path
    size_bytes: int
    tensors: tuple[TensorEntry, ...]
    metadata: Mapping[str, str]

    def by_name(self) -> dict[str, TensorEntry]:
        """Return the tensors by their names."""
        return {tensor.name: tensor for tensor in self.tensors}


def read_header(path: Path) -> SafetensorsHeader:
    """Read and check the header of the safetensors file at `path`; no tensor data is read.

    Raises:
        AdapterError: the file is missing, or its header is not sound; names every problem found.
    """
    raw, size_bytes = _read_raw_header(path)
    data_start = _LENGTH_BYTES + len(raw)
    problems: list[str] = []
    metadata: Mapping[str, str] = {}
    tensors: list[TensorEntry] = []
    names: set[str] = set()
    for name, entry in _entries(path, raw):
        if name in names:
            problems.append(f"the key {shown(name)} appears 2 times or more")
            break
        names.add(name)
        if name == _METADATA:
            metadata = _checked_metadata(entry, problems)
        elif (tensor := _checked_entry(name, entry, data_start, size_bytes, problems)) is not None:
            tensors.append(tensor)
        if len(problems) >= _MAX_PROBLEMS or len(names) > MAX_TENSORS:
            problems.append(f"more than {len(names) - 1} tensors; the rest was not looked at")
            break
    tensors.sort(key=lambda tensor: (tensor.start, tensor.size_bytes))
    if not problems:
        # Only a set of entries that are all sound can be asked to cover the buffer.
        _check_coverage(tensors, data_start, size_bytes, problems)
    if problems:
        raise AdapterError.from_problems(str(path), shortened(problems), _REMEDY)
    return SafetensorsHeader(path, size_bytes, tuple(tensors), metadata)


def shortened(problems: Sequence[str]) -> list[str]:
    """Keep an error message readable when a hostile file holds a hundred thousand problems."""
    if len(problems) <= MAX_PROBLEMS_SHOWN:
        return list(problems)
    return [*problems[:MAX_PROBLEMS_SHOWN], f"and {len(problems) - MAX_PROBLEMS_SHOWN} more"]


def shown(value: object) -> str:
    """Quote a value of unknown size, depth and content for an error message, escaped and cut."""
    text = _SHORT.repr(value).encode("ascii", "backslashreplace").decode("ascii")
    return text if len(text) <= 80 else f"{text[:77]}..."


def _read_raw_header(path: Path) -> tuple[bytes, int]:
    # A FIFO would block open() for ever, so look before opening.
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise AdapterError(f"{path}: not a regular file. Point to the .safetensors file itself.")
        with path.open("rb") as file:
            size_bytes = os.fstat(file.fileno()).st_size
            prefix = file.read(_LENGTH_BYTES)
            if len(prefix) < _LENGTH_BYTES:
                raise _damaged(path, f"{size_bytes} bytes long; a safetensors file has at least 8")
            length = int.from_bytes(prefix, "little")
            if length > MAX_HEADER_BYTES:
                raise _damaged(path, f"claims a header of {length} bytes; the limit is {MAX_HEADER_BYTES}")
            if length > size_bytes - _LENGTH_BYTES:
                raise _damaged(path, f"claims a header of {length} bytes, but the file has {size_bytes} in all")
            raw = file.read(length)
    except FileNotFoundError as error:
        raise AdapterError(f"{path}: there is no such file. Check the path, or fetch the checkpoint again.") from error
    except OSError as error:
        raise AdapterError(f"{path}: cannot be read: {error.strerror}. Check the permissions and the disk.") from error
    if len(raw) < length:
        raise _damaged(path, f"ends inside its header, after {len(raw)} of {length} bytes")
    return raw, size_bytes


def _entries(path: Path, raw: bytes) -> Iterator[tuple[str, Any]]:
    if not raw.startswith(b"{"):
        raise _damaged(path, "the header does not start with '{'")
    try:
        yield from object_entries(raw.decode("utf-8"), _longest)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"the header is not JSON: {shown(str(error))}") from error


def _longest(key: str | None) -> int:
    return MAX_METADATA_CHARACTERS if key == _METADATA else _MAX_ENTRY_CHARACTERS


def _checked_metadata(metadata: object, problems: list[str]) -> dict[str, str]:
    # mlx writes null where it has none, which the format does not foresee.
    if metadata is None:
        return {}
    if isinstance(metadata, dict) and all(_is_text(text) for item in metadata.items() for text in item):
        return metadata
    problems.append("__metadata__ is not a map of strings to strings")
    return {}


def _is_text(value: object) -> bool:
    """Whether it is a string of whole characters: half of a surrogate pair, which JSON can spell, is none."""
    return isinstance(value, str) and not any("\ud800" <= character <= "\udfff" for character in value)


def _name_problem(name: str) -> str | None:
    if not name or len(name) > MAX_NAME_CHARACTERS:
        return f"is {len(name)} characters long; 1 to {MAX_NAME_CHARACTERS} are allowed"
    if not name.isprintable():
        return "holds control characters"
    if "/" in name or "\\" in name or ".." in name:
        return "looks like a file path"
    return None


def _is_natural(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _checked_entry(
    name: str, entry: object, data_start: int, size_bytes: int, problems: list[str]
) -> TensorEntry | None:
    """Check one entry on its own, and return it when it is sound."""
    found: list[str] = []
    if (problem := _name_problem(name)) is not None:
        found.append(f"the name {problem}")
    if not isinstance(entry, dict):
        problems.append(f"{shown(name)}: {'; '.join([*found, 'the entry is not a JSON object'])}")
        return None
    if unknown := entry.keys() - _ENTRY_KEYS:
        found.append(f"unknown key {shown(min(unknown))}")
    dtype: Any = entry.get("dtype")
    shape: Any = entry.get("shape")
    offsets: Any = entry.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in DTYPE_BYTES:
        found.append(f"unknown dtype {shown(dtype)}")
    if not isinstance(shape, list) or len(shape) > MAX_DIMENSIONS or not all(_is_natural(size) for size in shape):
        found.append(f"shape {shown(shape)} is not a list of at most {MAX_DIMENSIONS} sizes from 0 up")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(_is_natural(offset) for offset in offsets):
        found.append(f"data_offsets {shown(offsets)} are not two byte positions")
    elif not offsets[0] <= offsets[1] <= size_bytes - data_start:
        found.append(f"data_offsets {offsets} lie outside the {size_bytes - data_start} bytes of data")
    if not found:
        tensor = TensorEntry(name, dtype, tuple(shape), data_start + offsets[0], offsets[1] - offsets[0])
        needed = math.prod(tensor.shape) * DTYPE_BYTES[tensor.dtype]
        if needed != tensor.size_bytes:
            found.append(f"{dtype} {shape} needs {needed} bytes, data_offsets give {tensor.size_bytes}")
        # A size of 0 hides the product of the others, which readers in other languages cannot hold.
        elif math.prod(size for size in shape if size) >= 2**63:
            found.append(f"shape {shape} is too large")
        else:
            return tensor
    problems.append(f"{shown(name)}: {'; '.join(found)}")
    return None


def _check_coverage(tensors: Sequence[TensorEntry], data_start: int, size_bytes: int, problems: list[str]) -> None:
    end = data_start
    for tensor in tensors:
        if tensor.start < end:
            problems.append(f"{shown(tensor.name)}: overlaps the tensor before it by {end - tensor.start} bytes")
        elif tensor.start > end:
            problems.append(f"{shown(tensor.name)}: {tensor.start - end} bytes before it belong to no tensor")
        end = max(end, tensor.start + tensor.size_bytes)
    if end < size_bytes:
        problems.append(f"{size_bytes - end} bytes at the end belong to no tensor")


def _damaged(path: Path, problem: str) -> AdapterError:
    return AdapterError.from_problems(str(path), [problem], _REMEDY)
