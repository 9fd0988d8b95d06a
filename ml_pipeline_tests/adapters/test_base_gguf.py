"""Reading a base model's GGUF header, held against the gguf package's own reader."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from ml_pipeline.adapters.base_gguf import quantisation, read_base_facts
from ml_pipeline.adapters.file_hash import file_sha256
from ml_pipeline.adapters.gguf_header import read_token_kinds
from ml_pipeline.errors import BackendError
from ml_pipeline_tests.adapters.tiny_models import TinyModel


def test_agrees_with_the_gguf_package(llama_base: TinyModel) -> None:
    facts = read_base_facts(llama_base.gguf_path)
    reader = gguf.GGUFReader(llama_base.gguf_path)
    # GGUFReader gives shapes in the file's order, quickest dimension first.
    assert dict(facts.tensors) == {t.name: tuple(int(n) for n in reversed(t.shape)) for t in reader.tensors}
    for key, field in reader.fields.items():
        if not key.startswith("GGUF.") and field.types[0] != gguf.GGUFValueType.ARRAY:
            assert facts.metadata[key] == field.contents()
    assert (facts.architecture, facts.n_layers, facts.n_heads, facts.n_heads_kv) == ("llama", 2, 4, 2)
    assert facts.quantisation == "F32"


def test_second_reading_costs_next_to_nothing(llama_base: TinyModel) -> None:
    first = read_base_facts(llama_base.gguf_path)
    assert read_base_facts(llama_base.gguf_path) is first


def written(path: Path, *, arrays: dict[str, Any] | None = None, **keys: Any) -> Path:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(2)
    for key, value in keys.items():
        name = key.replace("__", ".")
        writer.add_uint32(name, value) if isinstance(value, int) else writer.add_string(name, value)
    for name, values in (arrays or {}).items():
        writer.add_array(name, values)
    writer.add_tensor("blk.0.attn_q.weight", np.zeros((4, 2), np.float16))
    writer.add_tensor("output_norm.weight", np.zeros(4, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize(
    ("file_type", "name"),
    [
        (gguf.LlamaFileType.MOSTLY_Q4_1, "Q4_1"),
        (gguf.LlamaFileType.MOSTLY_Q4_K_M, "Q4_K_M"),
        (gguf.LlamaFileType.ALL_F32, "F32"),
        (gguf.LlamaFileType.GUESSED, "F16"),
        (9999, "F16"),
        (None, "F16"),
    ],
)
def test_quantisation(tmp_path: Path, file_type: int | None, name: str) -> None:
    keys: dict[str, Any] = {} if file_type is None else {"general__file_type": int(file_type)}
    assert quantisation(written(tmp_path / "a.gguf", **keys)) == name


def test_head_counts_by_layer(tmp_path: Path) -> None:
    same = {"llama.attention.head_count": [4, 4], "llama.attention.head_count_kv": [2, 2]}
    facts = read_base_facts(written(tmp_path / "a.gguf", arrays=same))
    assert (facts.n_heads, facts.n_heads_kv) == (4, 2)
    differing = {"llama.attention.head_count": [4, 2], "llama.attention.head_count_kv": [2, 1]}
    facts = read_base_facts(written(tmp_path / "b.gguf", arrays=differing))
    assert (facts.n_heads, facts.n_heads_kv) == (None, None)
    facts = read_base_facts(written(tmp_path / "c.gguf", llama__attention__head_count=8))
    assert (facts.n_heads, facts.n_heads_kv) == (8, 8)


def test_a_split_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="one part of a split model"):
        read_base_facts(written(tmp_path / "a.gguf", split__count=3))


def test_every_truncation_of_the_header_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "a.gguf", arrays={"tokenizer.ggml.tokens": ["a", "bc"], "x": [1.5, 2.5]})
    whole = path.read_bytes()
    header_size = whole.index(b"output_norm.weight") + len("output_norm.weight") + 4 + 8 + 4 + 8
    for size in range(header_size):
        path.write_bytes(whole[:size])
        with pytest.raises(BackendError, match="not a whole GGUF file"):
            read_base_facts(path)
    path.write_bytes(whole[:header_size])
    assert len(read_base_facts(path).tensors) == 2


def test_changed_bytes_never_hang_or_crash(tmp_path: Path) -> None:
    whole = written(tmp_path / "a.gguf", arrays={"tokenizer.ggml.tokens": ["a", "bc"]}).read_bytes()
    began = time.monotonic()
    for place in range(len(whole)):
        path = tmp_path / f"{place}.gguf"
        path.write_bytes(whole[:place] + b"\xff" + whole[place + 1 :])
        with contextlib.suppress(BackendError):
            read_base_facts(path)
    assert time.monotonic() - began < 30


VOCABULARY = {
    "tokenizer.ggml.tokens": ["<unk>", "a", "<|end|>", "bc", "<b>"],
    "tokenizer.ggml.token_type": [2, 1, 3, 1, 4],
}


def test_tokens_by_their_kind(tmp_path: Path) -> None:
    path = written(tmp_path / "a.gguf", arrays=VOCABULARY)
    assert read_token_kinds(path, frozenset({2, 3, 4})) == {2: {0: "<unk>"}, 3: {2: "<|end|>"}, 4: {4: "<b>"}}
    assert read_token_kinds(path, frozenset({3, 6})) == {3: {2: "<|end|>"}, 6: {}}
    assert read_token_kinds(written(tmp_path / "b.gguf"), frozenset({3})) == {3: {}}
    fewer = written(tmp_path / "c.gguf", arrays=VOCABULARY | {"tokenizer.ggml.tokens": ["<unk>", "a", "<|end|>"]})
    assert read_token_kinds(fewer, frozenset({3, 4})) == {3: {2: "<|end|>"}, 4: {}}
    no_array = written(tmp_path / "d.gguf", arrays={"tokenizer.ggml.tokens": ["a"]}, tokenizer__ggml__token_type=3)
    assert read_token_kinds(no_array, frozenset({3})) == {3: {}}


def test_changed_bytes_of_a_vocabulary_never_hang_or_crash(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    whole = written(path, arrays=VOCABULARY).read_bytes()
    began = time.monotonic()
    for place in range(len(whole)):
        for changed in (b"\xff", b"\x00", b"\x05"):
            path.write_bytes(whole[:place] + changed + whole[place + 1 :])
            with contextlib.suppress(ValueError):
                read_token_kinds(path, frozenset({2, 3, 4}))
    assert time.monotonic() - began < 30


def test_a_fifo_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(BackendError, match="not a regular file"):
        read_base_facts(tmp_path / "fifo")


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="there is no such base model"):
        read_base_facts(tmp_path / "none.gguf")


def test_file_hash_notices_a_change(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    # From FIPS 180-2, appendix B.1.
    assert file_sha256(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    path.write_bytes(b"abd")
    assert file_sha256(path).startswith("a52d159f262b2c6ddb724a61840befc36eb30c88877a4030b65cbe86298449c9")
