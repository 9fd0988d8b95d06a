"""Headers made to fill the memory or to take for ever, each as large as is allowed: all end soon and within a bound."""

from __future__ import annotations

import struct
import time
import tracemalloc
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from ml_pipeline.adapters.base_gguf import read_base_facts
from ml_pipeline.adapters.config import MAX_CONFIG_BYTES, read_config
from ml_pipeline.adapters.safetensors_header import MAX_HEADER_BYTES, MAX_METADATA_CHARACTERS, read_header
from ml_pipeline.errors import AdapterError, BackendError

LONGEST_S = 60.0
"""Far above the second or two that the slowest takes while nobody counts its memory, for a machine that is busy."""


def filled(start: str, unit: str, end: str, size: int = MAX_HEADER_BYTES) -> bytes:
    return (start + unit * ((size - len(start) - len(end)) // len(unit)) + end).encode()


def numbered(start: str, unit: Callable[[int], str], end: str, size: int = MAX_HEADER_BYTES) -> bytes:
    left, parts = size - len(start) - len(end), list[str]()
    for number in count():
        part = unit(number)
        left -= len(part)
        if left < 0:
            return (start + "".join(parts) + end).encode()
        parts.append(part)
    raise AssertionError("count() never ends")


def entry(name: str, shape: str = "[0]", offsets: str = "[0,0]") -> str:
    return f'"{name}":{{"dtype":"U8","shape":{shape},"data_offsets":{offsets}}}'


NESTED = '{"":' * 90 + "0" + "}" * 90
BOMBS: dict[str, Callable[[], bytes]] = {
    "many keys": lambda: numbered('{"":0', lambda i: f',"{i:x}":0', "}"),
    "one key a million times": lambda: filled('{"a":0', ',"a":0', "}"),
    "many unsound entries": lambda: numbered('{"":0', lambda i: f',"{i:x}":{{"dtype":1}}', "}"),
    "a list of lists": lambda: filled('{"a":[[]', ",[]", "]}"),
    "a list of objects": lambda: filled('{"a":[0', f",{NESTED}", "]}"),
    "a shape of millions": lambda: filled('{"a":{"dtype":"F32","shape":[1', ",1", '],"data_offsets":[0,4]}}'),
    "a number of millions of digits": lambda: filled('{"a":', "9", "}"),
    "a name of millions": lambda: filled('{"', "a", '":0}'),
    "a name of escapes": lambda: filled('{"', "\\u001b", '":0}'),
    "depth": lambda: filled('{"a":', "[", ""),
    "white space": lambda: filled("{", " ", "}"),
    "spaces and a key": lambda: filled('{"a"', " ", ":0}"),
    "metadata of small strings": lambda: numbered(
        '{"__metadata__":{"":""', lambda i: f',"{i:x}":""', "}}", MAX_METADATA_CHARACTERS
    ),
    "metadata with one key twice, at the end": lambda: numbered(
        '{"__metadata__":{"":""', lambda i: f',"{i:x}":""', ',"0":""}}', MAX_METADATA_CHARACTERS
    ),
    "metadata of all the header": lambda: numbered('{"__metadata__":{"":""', lambda i: f',"{i:x}":""', "}}"),
    "metadata again and again": lambda: filled('{"__metadata__":{}', ',"__metadata__":{}', "}"),
    "empty tensors": lambda: numbered(f"{{{entry('x')}", lambda i: f",{entry(f'{i:x}')}", "}"),
}


def measured(read: Callable[[Path], object], path: Path) -> tuple[str, int]:
    """The error's text, or none, and the most memory that was held, in bytes."""
    began, message = time.monotonic(), ""
    tracemalloc.start()
    try:
        read(path)
    except (AdapterError, BackendError) as error:
        message = str(error)
        assert message.startswith(str(path))
        assert message.isascii()
        assert len(message) < 30_000
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert time.monotonic() - began < LONGEST_S
    return message, peak


@pytest.mark.parametrize("name", BOMBS)
def test_header_bombs(tmp_path: Path, name: str) -> None:
    header = BOMBS[name]()
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    message, peak = measured(read_header, path)
    assert len(header) <= MAX_HEADER_BYTES
    # The text twice, and what is kept of 100,000 tensors.
    assert peak < 6 * MAX_HEADER_BYTES
    assert bool(message) == (name not in ("white space", "metadata of small strings"))


CONFIG_BOMBS = {
    "many keys": numbered('{"":0', lambda i: f',"{i:x}":0', "}", MAX_CONFIG_BYTES),
    "objects": filled('{"a":[0', f",{NESTED}", "]}", MAX_CONFIG_BYTES),
    "keys twice": filled('{"a":[0', ',{"a":1,"a":1}', "]}", MAX_CONFIG_BYTES),
    "names": filled('{"lora_parameters":{"rank":4,"scale":1,"keys":["a"', ',"a"', "]}}", MAX_CONFIG_BYTES),
    "scale": filled('{"lora_parameters":{"rank":4,"scale":[0', f",{NESTED}", "]}}", MAX_CONFIG_BYTES),
    "digits": filled('{"lora_parameters":{"scale":4,"rank":', "9", "}}", MAX_CONFIG_BYTES),
    "depth": filled('{"num_layers":', "[", "", MAX_CONFIG_BYTES),
}


@pytest.mark.parametrize("name", CONFIG_BOMBS)
def test_config_bombs(tmp_path: Path, name: str) -> None:
    path = tmp_path / "adapter_config.json"
    path.write_bytes(CONFIG_BOMBS[name])
    message, peak = measured(read_config, path)
    assert message
    assert peak < 64 * MAX_CONFIG_BYTES


@pytest.mark.parametrize("depth", range(940, 1000))
def test_depth_near_the_interpreters_limit(tmp_path: Path, depth: int) -> None:
    """What could just be parsed must not be too deep to be shown."""
    path = tmp_path / "a"
    value = "[" * depth + "]" * depth
    header = f'{{"a":{{"dtype":{value}}}}}'.encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    assert measured(read_header, path)[0]
    path.write_text(f'{{"num_layers":{value}}}')
    assert measured(read_config, path)[0]


def text(content: bytes) -> bytes:
    return struct.pack("<Q", len(content)) + content


def gguf_head(tensors: int, keys: int) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, tensors, keys)


def key(name: bytes, kind: int, value: bytes) -> bytes:
    return text(name) + struct.pack("<I", kind) + value


ARCHITECTURE = key(b"general.architecture", 8, text(b"llama"))
MANY, LARGE = 2**60, 2**40
GGUF_BOMBS: dict[str, bytes] = {
    "many tensors": gguf_head(MANY, 0),
    "many keys": gguf_head(0, MANY),
    "as many keys as are allowed": gguf_head(0, 100_000),
    "a long key": gguf_head(0, 1) + struct.pack("<Q", LARGE),
    "a long value": gguf_head(0, 1) + key(b"a", 8, struct.pack("<Q", LARGE)),
    "a long array": gguf_head(0, 1) + key(b"a", 9, struct.pack("<IQ", 4, MANY)),
    "an array whose bytes overflow": gguf_head(0, 1) + key(b"a", 9, struct.pack("<IQ", 12, 2**61)),
    "a long array of strings": gguf_head(0, 1) + key(b"a", 9, struct.pack("<IQ", 8, MANY)),
    "an array of arrays": gguf_head(0, 1) + key(b"a", 9, struct.pack("<IQ", 9, 3)) + bytes(99),
    "an unknown type": gguf_head(0, 1) + key(b"a", 77, bytes(99)),
    "many dimensions": gguf_head(1, 1) + ARCHITECTURE + text(b"t") + struct.pack("<I", 2**31),
    "many layers": gguf_head(0, 2) + ARCHITECTURE + key(b"llama.block_count", 10, struct.pack("<Q", MANY)),
    "layers below zero": gguf_head(0, 2) + ARCHITECTURE + key(b"llama.block_count", 5, struct.pack("<i", -1)),
    "layers as text": gguf_head(0, 2) + ARCHITECTURE + key(b"llama.block_count", 8, text(b"\x1b[2J")),
    "an architecture that is a number": gguf_head(0, 1) + key(b"general.architecture", 4, bytes(4)),
    "a key twice": gguf_head(0, 2) + ARCHITECTURE * 2,
    "a tensor twice": gguf_head(2, 1) + ARCHITECTURE + (text(b"\x1b[2J") + struct.pack("<IQIQ", 1, 4, 0, 0)) * 2,
    "another byte order": b"GGUF" + struct.pack(">IQQ", 3, 0, 0),
    "version 1": b"GGUF" + struct.pack("<III", 1, 0, 0),
}


@pytest.mark.parametrize("name", GGUF_BOMBS)
def test_gguf_bombs(tmp_path: Path, name: str) -> None:
    path = tmp_path / "base.gguf"
    path.write_bytes(GGUF_BOMBS[name])
    message, peak = measured(read_base_facts, path)
    assert "not a whole GGUF file" in message
    assert peak < 2**22


def sparse(path: Path, start: bytes, size_bytes: int) -> Path:
    """A file of zeros after its start, which takes no room on the disk."""
    with path.open("wb") as file:
        file.write(start)
        file.truncate(size_bytes)
    return path


@pytest.mark.parametrize(
    "start",
    [
        gguf_head(0, 1) + key(b"a", 8, struct.pack("<Q", 2**37)),
        gguf_head(0, 1) + key(b"a", 9, struct.pack("<IQ", 8, 2**33)),
        gguf_head(0, 1) + key(b"a", 9, struct.pack("<IQ", 0, 2**37)),
        gguf_head(0, 2**16),
        gguf_head(2**16, 1) + ARCHITECTURE,
    ],
    ids=["string", "strings", "bytes", "keys", "tensors"],
)
def test_a_file_of_128_gb_of_zeros(tmp_path: Path, start: bytes) -> None:
    message, peak = measured(read_base_facts, sparse(tmp_path / "base.gguf", start, 2**37))
    assert "not a whole GGUF file" in message
    assert peak < 2**22


@pytest.fixture(autouse=True)
def small_files(tmp_path: Path) -> Iterator[None]:
    yield
    for path in tmp_path.iterdir():
        path.unlink()
