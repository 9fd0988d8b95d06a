"""Files as an attacker, a broken disk or a careless tool would write them: valid ones, changed where it hurts."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Pairs = list[tuple[str, Any]]
"""A JSON object as its keys and values in order, so that a key can be there twice."""

NUMBERS: list[Any] = [
    *(0, 1, -1, 2, 7, 2**31, 2**32, 2**53 + 1, 2**62, 2**63 - 1, 2**63, 2**64, 2**64 + 4, 10**30),
    *(1.0, 0.5, 1e300, True, False, None, "4", "", [], [4], {}, "\x1b[2J"),
]
TOKENS = ["-0", "1e0", "1e999", "-1e999", "NaN", "Infinity", "-Infinity", "9" * 5000, "01", "0x4", '"\\ud800"', "tru"]
NAMES = [
    *("", "a", "__metadata__", "/etc/passwd", "..\\..\\x", "a..b", "\x00", "a\x1b[31mred", "\u202eabc", "x" * 513),
    *(
        "x" * 20_000,
        "\n",
        "é",
        "模型.lora_a",
        "model.layers.0.q.lora_a",
        "model.layers.99999999.q.lora_b",
        "\x7f",
        "\u2028",
    ),
    *("base_model.model.q.lora_A.weight", "model.layers.0.q.m", "lora_a", ".lora_a", "model.layers.1.q.weight"),
]
DTYPES = [
    "F32",
    "F16",
    "BF16",
    "F64",
    "I8",
    "U8",
    "BOOL",
    "F8_E4M3",
    "F4",
    "C64",
    "f32",
    "",
    "F32\x1b",
    4,
    None,
    ["F32"],
]


class Token(str):
    """Put into the JSON text as it is, whether that is JSON or not."""


def json_text(value: Any, pairs: bool = True) -> str:
    """Write JSON, of `Pairs` and `Token` too."""
    if isinstance(value, Token):
        return str(value)
    if pairs and isinstance(value, list) and value and all(isinstance(i, tuple) for i in value):
        return "{" + ",".join(f"{json.dumps(k)}:{json_text(v)}" for k, v in value) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(json_text, value)) + "]"
    return json.dumps(value)


@dataclass
class File:
    """A safetensors file in parts; `length` None is the right one."""

    entries: Pairs
    data: bytearray
    length: int | None = None
    metadata: Pairs | None = None
    suffix: str = ""
    around: list[str] = field(default_factory=lambda: ["", ""])

    def to_bytes(self) -> bytes:
        """The file's bytes."""
        entries = [*self.entries, *([("__metadata__", self.metadata)] if self.metadata is not None else [])]
        text = self.around[0] + (json_text(entries) if entries else "{}") + self.around[1]
        header = text.encode("utf-8", "surrogatepass")
        length = len(header) if self.length is None else self.length
        return struct.pack("<Q", length % 2**64) + header + bytes(self.data)


def valid_file(rng: random.Random) -> File:
    """An adapter of mlx-lm with one to three modules of rank 2."""
    entries: Pairs = []
    data = bytearray()
    for layer in range(rng.randint(1, 3)):
        for leaf, shape in (("lora_a", [rng.randint(1, 5), 2]), ("lora_b", [2, rng.randint(1, 5)])):
            dtype, size = rng.choice([("F32", 4), ("F16", 2), ("BF16", 2)])
            values = np.random.default_rng(rng.getrandbits(32)).normal(size=shape[0] * shape[1]).astype("<f4")
            raw = values.tobytes() if size == 4 else values.astype("<f2").tobytes()
            entry = [("dtype", dtype), ("shape", shape), ("data_offsets", [len(data), len(data) + len(raw)])]
            entries.append((f"model.layers.{layer}.self_attn.q_proj.{leaf}", entry))
            data += raw
    return File(entries, data, metadata=[("format", "mlx")] if rng.random() < 0.5 else None)


def mutated_file(rng: random.Random) -> bytes:
    """A valid file with up to three changes to its parts, and now and then one to its bytes."""
    file = valid_file(rng)
    for _ in range(rng.choice([0, 1, 1, 1, 2, 3])):
        rng.choice(_CHANGES)(rng, file)
    content = bytearray(file.to_bytes())
    if rng.random() < 0.2:
        _change_bytes(rng, content)
    return bytes(content)


def mutated_config(rng: random.Random) -> bytes:
    """mlx-lm's configuration with up to three wrong values, keys or bytes."""
    parameters: Pairs = [("rank", 2), ("scale", 20.0), ("dropout", 0.0)]
    top: Pairs = [("fine_tune_type", "lora"), ("num_layers", 4), ("lora_parameters", parameters), ("seed", 0)]
    for _ in range(rng.choice([0, 1, 1, 2, 3])):
        target = rng.choice([top, parameters])
        at = rng.randrange(len(target))
        key = rng.choice([target[at][0], "keys", "alpha", rng.choice(NAMES)])
        value = rng.choice(
            [_number(rng), rng.choice(["lora", "dora", "full", "LoRA"]), _nested(rng), rng.choice(NAMES)]
        )
        if rng.random() < 0.7:
            target[at] = (target[at][0], value)
        else:
            target.insert(at, (key, value))
    content = bytearray(json_text(top).encode("utf-8", "surrogatepass"))
    if rng.random() < 0.2:
        _change_bytes(rng, content)
    return bytes(content)


def _number(rng: random.Random) -> Any:
    return rng.choice(NUMBERS) if rng.random() < 0.7 else Token(rng.choice(TOKENS))


def _nested(rng: random.Random) -> Token:
    depth = rng.choice([1, 3, 500, 900, 990, 1000, 3000])
    opening, closing = rng.choice([("[", "]"), ('{"a":', "}")])
    return Token(opening * depth + "0" + closing * depth)


def _entry(rng: random.Random, file: File) -> Pairs:
    found = rng.choice(file.entries)[1] if file.entries else None
    return found if isinstance(found, list) else []


def _set(entry: Pairs, key: str, value: Any) -> None:
    entry[:] = [(k, value if k == key else v) for k, v in entry]


def _new_dtype(rng: random.Random, file: File) -> None:
    _set(_entry(rng, file), "dtype", rng.choice(DTYPES))


def _new_numbers(rng: random.Random, file: File) -> None:
    entry, key = _entry(rng, file), rng.choice(["shape", "data_offsets"])
    numbers = list(next((v for k, v in entry if k == key and isinstance(v, list)), []))
    action = rng.randrange(5)
    if action == 0 and numbers:
        numbers[rng.randrange(len(numbers))] = _number(rng)
    elif action == 1:
        numbers.insert(rng.randint(0, len(numbers)), _number(rng))
    elif action == 2 and numbers:
        numbers.pop(rng.randrange(len(numbers)))
    elif action == 3:
        numbers = [n + rng.choice([-2, -1, 1, 2, 4]) if type(n) is int else n for n in numbers]
    else:
        numbers = rng.choice([numbers[::-1], [2**32, 2**32], [2**62, 4, 0], [0, 2**62, 4], [1] * 9])
    _set(entry, key, rng.choice([numbers, numbers, numbers, _nested(rng), _number(rng)]))


def _new_name(rng: random.Random, file: File) -> None:
    if file.entries:
        at = rng.randrange(len(file.entries))
        file.entries[at] = (rng.choice(NAMES), file.entries[at][1])


def _twice(rng: random.Random, file: File) -> None:
    target = rng.choice([file.entries, _entry(rng, file)])
    if target:
        target.append(rng.choice(target))


def _new_entry(rng: random.Random, file: File) -> None:
    wrong = rng.choice([_number(rng), _nested(rng), [("dtype", "F32")], [("shape", [0]), ("data_offsets", [0, 0])]])
    empty = [("dtype", "F32"), ("shape", [0, 3]), ("data_offsets", [len(file.data), len(file.data)])]
    file.entries.insert(rng.randint(0, len(file.entries)), (rng.choice(NAMES), rng.choice([wrong, empty])))


def _missing(rng: random.Random, file: File) -> None:
    target = rng.choice([file.entries, _entry(rng, file)])
    if target:
        target.pop(rng.randrange(len(target)))


def _extra_key(rng: random.Random, file: File) -> None:
    _entry(rng, file).append((rng.choice(["extra", "Shape", "\x1b"]), rng.choice([_number(rng), _nested(rng)])))


def _new_metadata(rng: random.Random, file: File) -> None:
    file.metadata = [(rng.choice(NAMES), rng.choice([rng.choice(NAMES), _number(rng), _nested(rng)]))]


def _new_length(rng: random.Random, file: File) -> None:
    right = len(file.to_bytes()) - 8 - len(file.data)
    file.length = rng.choice([0, 1, right - 1, right + 1, right + len(file.data), 2**24, 2**24 + 1, 2**63, 2**64 - 1])


def _new_data(rng: random.Random, file: File) -> None:
    action = rng.randrange(4)
    if action == 0:
        file.data += bytes(rng.randint(1, 9))
    elif action == 1:
        del file.data[rng.randint(0, len(file.data)) :]
    elif len(file.data) >= 4:
        at = rng.randrange(len(file.data) - 3)
        file.data[at : at + 4] = rng.choice(
            [b"\x00\x00\xc0\x7f", b"\x00\x00\x80\xff", b"\xff\xff\xff\xff", b"\0\x7c\0\xfc"]
        )


def _new_surroundings(rng: random.Random, file: File) -> None:
    signs = [" ", "  \n\t", "\0", "\ufeff", "//", "{}", ",", "}", "\x0b"]
    file.around[rng.choice([0, 1, 1, 1])] = rng.choice(signs)


def _other_order(rng: random.Random, file: File) -> None:
    rng.shuffle(file.entries)


_CHANGES: list[Callable[[random.Random, File], None]] = [
    *(_new_dtype, _new_numbers, _new_numbers, _new_numbers, _new_name, _twice, _new_entry, _missing, _extra_key),
    *(_new_metadata, _new_length, _new_data, _new_data, _new_surroundings, _other_order),
]


def _change_bytes(rng: random.Random, content: bytearray) -> None:
    at = rng.randrange(len(content))
    action = rng.randrange(3)
    if action == 0:
        content[at] = rng.randrange(256)
    elif action == 1:
        content[at:at] = rng.choice([b"\xff", b"\xed\xa0\x80", b"\0", b'"', b"{", b"]", rng.randbytes(3)])
    else:
        del content[at : at + rng.choice([1, 2, 8, 1000])]
