"""Headers: what mlx-lm and safetensors write is read, and nothing hostile gets past."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save_file

from ml_pipeline.adapters.safetensors_header import MAX_HEADER_BYTES, read_header
from ml_pipeline.errors import AdapterError

Header = dict[str, Any]


def raw_file(header: bytes, data: bytes, length: int | None = None) -> bytes:
    return (len(header) if length is None else length).to_bytes(8, "little") + header + data


def entry(dtype: Any = "F32", shape: Any = (2, 3), offsets: Any = (0, 24)) -> Header:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def problems_of(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(AdapterError) as caught:
        read_header(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_reads_what_safetensors_writes(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"b.x": np.zeros((2, 3), np.float32), "a.y": np.zeros(5, np.float16)}, path, metadata={"k": "v"})
    header = read_header(path)
    assert {(t.name, t.dtype, t.shape, t.size_bytes) for t in header.tensors} == {
        ("b.x", "F32", (2, 3), 24),
        ("a.y", "F16", (5,), 10),
    }
    assert header.metadata == {"k": "v"}
    assert header.size_bytes == path.stat().st_size
    assert header.tensors[-1].start + header.tensors[-1].size_bytes == header.size_bytes


def test_reads_what_mlx_writes(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    mx.save_safetensors(str(path), {"w": mx.zeros((4, 2), mx.bfloat16)})
    assert b'"__metadata__":null' in path.read_bytes()
    (tensor,) = read_header(path).tensors
    assert (tensor.name, tensor.dtype, tensor.shape) == ("w", "BF16", (4, 2))


@pytest.mark.parametrize(
    ("header", "data_bytes", "expected"),
    [
        ({"a": entry("F33")}, 24, "unknown dtype 'F33'"),
        ({"a": entry(7)}, 24, "unknown dtype 7"),
        ({"a": entry(shape=[2, -3])}, 24, "shape [2, -3]"),
        ({"a": entry(shape=[2, True])}, 24, "shape [2, True]"),
        ({"a": entry(shape=[2.0, 3.0])}, 24, "shape [2.0, 3.0]"),
        ({"a": entry(shape="23")}, 24, "shape '23'"),
        ({"a": entry(shape=[1] * 9, offsets=[0, 4])}, 4, "at most 8 sizes"),
        ({"a": entry(shape=[2**40, 2**40])}, 24, f"needs {2**82} bytes, data_offsets give 24"),
        ({"a": entry(shape=[2**63, 2])}, 24, "is not a list"),
        ({"a": entry(shape=[2**62, 4, 2])}, 24, "needs"),
        ({"a": entry(shape=[2**62, 4, 0], offsets=[0, 0])}, 0, "is too large"),
        ({"a": {**entry(), "extra": 1}}, 24, "unknown key 'extra'"),
        ({"__metadata__": {"a": "\ud800"}}, 0, "__metadata__ is not a map of strings"),
        ({"a": entry(offsets=[0, 25])}, 24, "lie outside the 24 bytes"),
        ({"a": entry(offsets=[24, 0])}, 24, "lie outside"),
        ({"a": entry(offsets=[-1, 23])}, 24, "not two byte positions"),
        ({"a": entry(offsets=[0])}, 24, "not two byte positions"),
        ({"a": entry(offsets=[0, 24, 48])}, 48, "not two byte positions"),
        ({"a": entry(offsets=None)}, 24, "not two byte positions"),
        ({"a": entry(offsets=[0, 20])}, 20, "F32 [2, 3] needs 24 bytes, data_offsets give 20"),
        ({"a": entry(), "b": entry()}, 24, "'b': overlaps the tensor before it by 24 bytes"),
        ({"a": entry(), "b": entry(offsets=[12, 36])}, 36, "overlaps the tensor before it by 12 bytes"),
        ({"a": entry(offsets=[4, 28])}, 28, "4 bytes before it belong to no tensor"),
        ({"a": entry(), "b": entry(offsets=[30, 54])}, 54, "6 bytes before it"),
        ({"a": entry()}, 25, "1 bytes at the end"),
        ({}, 8, "8 bytes at the end"),
        ({"": entry()}, 24, "0 characters long"),
        ({"a" * 513: entry()}, 24, "513 characters long"),
        ({"a\nb": entry()}, 24, "control characters"),
        ({"a\x1b[31m": entry()}, 24, "control characters"),
        ({"\u202eb": entry()}, 24, "control characters"),
        ({"/etc/passwd": entry()}, 24, "looks like a file path"),
        ({"..\\a": entry()}, 24, "looks like a file path"),
        ({"a..b": entry()}, 24, "looks like a file path"),
        ({"a": []}, 24, "not a JSON object"),
        ({"a": None}, 24, "not a JSON object"),
        ({"a": {}}, 24, "unknown dtype None"),
        ({"__metadata__": {"a": 1}}, 0, "__metadata__"),
        ({"__metadata__": [1]}, 0, "__metadata__"),
    ],
)
def test_refuses_unsound_entries(tmp_path: Path, header: Header, data_bytes: int, expected: str) -> None:
    assert expected in problems_of(tmp_path / "a", raw_file(json.dumps(header).encode(), bytes(data_bytes)))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "0 bytes long"),
        (b"\x02\0\0\0", "4 bytes long"),
        (raw_file(b"{}", b"", 3), "header of 3 bytes, but the file has 10 in all"),
        (raw_file(b"{}", b"", 2**63), f"the limit is {MAX_HEADER_BYTES}"),
        (raw_file(b"{}", b"", MAX_HEADER_BYTES + 1), f"the limit is {MAX_HEADER_BYTES}"),
        (raw_file(b"", b""), "does not start with '{'"),
        (raw_file(b" {}", b""), "does not start with '{'"),
        (raw_file(b"[]", b""), "does not start with '{'"),
        (raw_file(b"{", b""), "not JSON"),
        (raw_file(b"{}x", b""), "not JSON"),
        (raw_file(b'{"\xff":1}', b""), "not JSON"),
        (raw_file(b'{"a":' * 100_000, b""), "not JSON"),
        (raw_file(b'{"a":' + b"9" * 5000 + b"}", b""), "not JSON"),
        (raw_file(b'{"a":1,"a":1}', b""), "'a' appears 2 times"),
        (raw_file(b'{"a":NaN}', b""), "NaN is no JSON number"),
        (raw_file(b'{"a":{"dtype":"F32","shape":[-0],"data_offsets":[0,0]}}', b""), "shape [-0.0]"),
        (raw_file(b'{"a":{},}', b""), "not JSON"),
        (raw_file(b'{"a":{} "b":{}}', b""), "not JSON"),
        (raw_file(b'{"a" {}}', b""), "not JSON"),
        (raw_file(b"{1:{}}", b""), "not JSON"),
        (raw_file(b'{"a":{"dtype":"F32","dtype":"F32","shape":[],"data_offsets":[0,4]}}', bytes(4)), "appears 2 times"),
    ],
)
def test_refuses_broken_files(tmp_path: Path, content: bytes, expected: str) -> None:
    assert expected in problems_of(tmp_path / "a", content)


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"a": np.ones((2, 3), np.float32), "b": np.ones(2, np.float16)}, path)
    whole = path.read_bytes()
    read_header(path)
    for size in range(len(whole)):
        problems_of(path, whole[:size])
    problems_of(path, whole + b"\0")


def test_all_problems_come_at_once_and_a_flood_is_cut(tmp_path: Path) -> None:
    header = {f"t{i}": entry("F99", [-1], [5, 1]) for i in range(5000)}
    message = problems_of(tmp_path / "a", raw_file(json.dumps(header).encode(), b""))
    assert "'t7': unknown dtype 'F99'; shape [-1] is not" in message
    assert "and 4900 more" in message
    assert len(message.splitlines()) < 110


def test_missing_folder_and_fifo_do_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for name, expected in (("none", "no such file"), ("", "not a regular file"), ("fifo", "not a regular file")):
        with pytest.raises(AdapterError, match=expected):
            read_header(tmp_path / name)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=6,
)
shapes = st.lists(st.integers(-1, 4), max_size=4) | json_values
offset_pairs = st.lists(st.integers(-2, 40), min_size=2, max_size=2) | json_values
entries = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.sampled_from(["F32", "F16", "BF16", "U8", "X"]) | json_values,
        "shape": shapes,
        "data_offsets": offset_pairs,
    },
)
names = st.text(max_size=6) | st.sampled_from(["a.lora_a", "../x", "__metadata__"])


def accepted_or_refused(path: Path, content: bytes) -> None:
    """Either AdapterError, or the Rust library, which we mean to be stricter than, accepts it with the same tensors."""
    path.write_bytes(content)
    try:
        header = read_header(path)
    except AdapterError:
        return
    try:
        theirs: Any = deserialize(content)  # type: ignore[no-untyped-call]
    except SafetensorError as error:
        raise AssertionError("accepted what the reference implementation refuses") from error
    assert {(t.name, t.shape, t.size_bytes) for t in header.tensors} == {
        (name, tuple(info["shape"]), len(info["data"])) for name, info in theirs
    }


@settings(max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(header=st.dictionaries(names, entries | json_values, max_size=4), data_bytes=st.integers(0, 48))
def test_generated_headers_never_pass_unless_sound(tmp_path: Path, header: Header, data_bytes: int) -> None:
    accepted_or_refused(tmp_path / "a", raw_file(json.dumps(header).encode("utf-8", "replace"), bytes(data_bytes)))


@settings(max_examples=1500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_mutated_real_files_never_pass_unless_sound(tmp_path: Path, data: st.DataObject) -> None:
    header = json.dumps(
        {
            "m.layers.0.q.lora_a": entry(shape=[2, 3], offsets=[0, 24]),
            "m.layers.0.q.lora_b": entry("F16", [3, 2], [24, 36]),
        }
    ).encode()
    content = bytearray(raw_file(header, bytes(36)))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(content) - 1))
        action = data.draw(st.sampled_from(["flip", "insert", "delete"]))
        if action == "flip":
            content[place] = data.draw(st.integers(0, 255))
        elif action == "insert":
            content[place:place] = data.draw(st.binary(max_size=3))
        else:
            del content[place]
    accepted_or_refused(tmp_path / "a", bytes(content))
