"""GGUF adapters byte by byte, valid and changed: the gguf package's writer would refuse to write most of them."""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

U32, I32, F32, BOOL, STRING, ARRAY, U64 = 4, 5, 6, 7, 8, 9, 10
TYPES = {"F32": 0, "F16": 1, "Q4_0": 2, "I8": 24, "I32": 26, "F64": 28, "BF16": 30}
RANK = 2
COUNTS = [0, 1, 2, 5, 2**16, 2**31, 2**32, 2**60, 2**63, 2**64 - 1]


def text(content: str | bytes) -> bytes:
    """A string as GGUF writes it."""
    raw = content.encode() if isinstance(content, str) else content
    return struct.pack("<Q", len(raw)) + raw


@dataclass
class Tensor:
    """One tensor's entry, `dims` in the file's order; `offset` None is where the data lies."""

    name: str
    dims: list[int]
    data: bytes
    type: int = TYPES["F32"]
    offset: int | None = None
    n_dims: int | None = None


@dataclass
class GgufAdapter:
    """An adapter in parts."""

    keys: list[tuple[str, int, bytes]]
    tensors: list[Tensor]
    version: int = 3
    tensor_count: int | None = None
    key_count: int | None = None
    alignment: int = 32
    trailing: bytes = b""
    order: list[int] = field(default_factory=list)

    def to_bytes(self) -> bytes:
        """The file's bytes."""
        n_tensors = len(self.tensors) if self.tensor_count is None else self.tensor_count
        n_keys = len(self.keys) if self.key_count is None else self.key_count
        head = b"GGUF" + struct.pack("<IQQ", self.version, n_tensors, n_keys)
        for name, kind, value in self.keys:
            head += text(name) + struct.pack("<I", kind) + value
        data = b""
        for tensor in self.tensors:
            dims = struct.pack(f"<{len(tensor.dims)}Q", *(size % 2**64 for size in tensor.dims))
            n_dims = len(tensor.dims) if tensor.n_dims is None else tensor.n_dims
            offset = len(data) if tensor.offset is None else tensor.offset
            head += text(tensor.name) + struct.pack("<I", n_dims) + dims + struct.pack("<IQ", tensor.type, offset)
            data += tensor.data + bytes(-len(tensor.data) % self.alignment)
        return head + bytes(-len(head) % self.alignment) + data + self.trailing


def valid_adapter(rng: random.Random, sizes: dict[str, tuple[int, int]]) -> GgufAdapter:
    """A LoRA of rank 2 on some of these tensors of the base, given as (out, in)."""
    values = np.random.default_rng(rng.getrandbits(32))
    tensors = []
    for name, (n_out, n_in) in rng.sample(sorted(sizes.items()), k=rng.randint(1, len(sizes))):
        for leaf, dims in (("lora_a", [n_in, RANK]), ("lora_b", [RANK, n_out])):
            data = (0.1 * values.normal(size=dims[0] * dims[1])).astype("<f4").tobytes()
            tensors.append(Tensor(f"{name}.{leaf}", dims, data))
    keys = [
        ("general.architecture", STRING, text("llama")),
        ("general.type", STRING, text("adapter")),
        ("adapter.type", STRING, text("lora")),
        ("adapter.lora.alpha", F32, struct.pack("<f", 4.0)),
    ]
    return GgufAdapter(keys, tensors)


def mutated_adapter(rng: random.Random, sizes: dict[str, tuple[int, int]]) -> bytes:
    """A valid adapter with up to three changes to its parts, and now and then one to its bytes."""
    adapter = valid_adapter(rng, sizes)
    for _ in range(rng.choice([0, 1, 1, 2, 3])):
        _change(rng, adapter)
    content = bytearray(adapter.to_bytes())
    if rng.random() < 0.25:
        at = rng.randrange(min(len(content), 600))
        content[at : at + rng.choice([0, 1, 1, 4])] = rng.randbytes(rng.choice([0, 1, 1, 8]))
    return bytes(content)


def _change(rng: random.Random, adapter: GgufAdapter) -> None:
    tensor, action = rng.choice(adapter.tensors), rng.randrange(16)
    if action <= 3:
        _change_key(rng, adapter)
    elif action == 4:
        tensor.type = rng.choice([*TYPES.values(), 3, 31, 999, 2**32 - 1])
    elif action == 5:
        tensor.dims = rng.choice([[*tensor.dims, 1], [*tensor.dims, 2], tensor.dims[:1], [], tensor.dims[::-1]])
    elif action == 6:
        tensor.dims[rng.randrange(len(tensor.dims)) if tensor.dims else 0 :] = [
            rng.choice([0, 1, 3, 2**31, 2**62, 2**63])
        ]
    elif action == 7:
        tensor.n_dims = rng.choice([0, 1, 3, 4, 5, 2**31])
    elif action == 8:
        tensor.offset = rng.choice([0, 1, 31, 32, 64, 2**31, 2**62, 2**64 - 32, len(tensor.data)])
    elif action == 9:
        tensor.name = rng.choice(
            ["", "\x1b[2J.lora_a", tensor.name[:-1] + "x", tensor.name * 9, adapter.tensors[0].name]
        )
    elif action == 10:
        tensor.data = tensor.data[: rng.choice([0, 4, len(tensor.data) // 2])]
    elif action == 11:
        at = 4 * rng.randrange(max(1, len(tensor.data) // 4))
        tensor.data = (
            tensor.data[:at] + rng.choice([b"\x00\x00\xc0\x7f", b"\x00\x00\x80\xff", b"\0" * 4]) + tensor.data[at + 4 :]
        )
    elif action == 12:
        adapter.tensors.append(rng.choice(adapter.tensors))
    elif action == 13:
        rng.shuffle(adapter.tensors)
    elif action == 14:
        adapter.trailing = bytes(rng.randint(1, 99))
    else:
        name = rng.choice(["tensor_count", "key_count", "version"])
        setattr(
            adapter,
            name,
            rng.choice(COUNTS[:7] if name == "version" else COUNTS) % 2 ** (32 if name == "version" else 64),
        )


def _change_key(rng: random.Random, adapter: GgufAdapter) -> None:
    names = [*(name for name, _, _ in adapter.keys), "general.alignment", "adapter.lora.task_name", "general.name"]
    name = rng.choice([*names, "adapter.alora.invocation_tokens", "\x1b[2J", "general.file_type", "split.count"])
    kind, value = rng.choice(
        [
            (U32, struct.pack("<I", rng.choice([0, 1, 3, 16, 32, 64, 2**31, 2**32 - 1]))),
            (I32, struct.pack("<i", -1)),
            (F32, struct.pack("<f", rng.choice([0.0, 1.5, float("nan"), float("inf"), 3e38]))),
            (BOOL, b"\x07"),
            (U64, struct.pack("<Q", 2**60)),
            (STRING, text(rng.choice([b"", b"lora", b"adapter", b"llama", b"\x1b[2J", b"\xff\xfe"]))),
            (STRING, struct.pack("<Q", rng.choice(COUNTS))),
            (ARRAY, struct.pack("<IQ", rng.choice([U32, STRING, ARRAY, 77]), rng.choice(COUNTS)) + bytes(8)),
            (77, bytes(8)),
        ]
    )
    if name in [key for key, _, _ in adapter.keys] and rng.random() < 0.8:
        adapter.keys = [(key, kind, value) if key == name else (key, k, v) for key, k, v in adapter.keys]
    else:
        adapter.keys.insert(rng.randint(0, len(adapter.keys)), (name, kind, value))


def write(path: Path, adapter: GgufAdapter) -> Path:
    """Write the adapter to `path`."""
    path.write_bytes(adapter.to_bytes())
    return path
