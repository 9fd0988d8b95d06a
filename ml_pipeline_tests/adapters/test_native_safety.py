"""What kills llama.cpp or fools mlx never reaches them: shown through the entry points, with the real library."""

from __future__ import annotations

import json
import random
import shutil
import struct
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
from safetensors.numpy import save_file

from ml_pipeline.adapters import read_adapter, read_base_facts, write_gguf_lora
from ml_pipeline.backends.gguf_adapter_check import check_gguf_adapter
from ml_pipeline.errors import AdapterError
from ml_pipeline_tests.adapters.hostile_gguf import (
    F32,
    STRING,
    TYPES,
    U32,
    GgufAdapter,
    Tensor,
    mutated_adapter,
    text,
    valid_adapter,
    write,
)
from ml_pipeline_tests.adapters.native import load
from ml_pipeline_tests.adapters.test_fuzz import bounded
from ml_pipeline_tests.adapters.tiny_models import TinyModel

Q = "blk.0.attn_q.weight"
SIZES = {Q: (64, 64), "blk.1.ffn_up.weight": (128, 64), "blk.1.attn_output.weight": (64, 64)}
FUZZED = 1_000


def adapter() -> GgufAdapter:
    return valid_adapter(random.Random(1), {Q: SIZES[Q]})


def with_key(name: str, kind: int, value: bytes) -> GgufAdapter:
    made = adapter()
    made.keys = [key for key in made.keys if key[0] != name] + [(name, kind, value)]
    return made


def with_values(type_name: str, dtype: str) -> GgufAdapter:
    made = adapter()
    for tensor in made.tensors:
        tensor.data = np.frombuffer(tensor.data, "<f4").astype(dtype).tobytes()
        tensor.type = TYPES[type_name]
    return made


def three_dimensions() -> GgufAdapter:
    made = adapter()
    for tensor in made.tensors:
        tensor.dims, tensor.data = [*tensor.dims, 2], tensor.data * 2
    return made


def moved(offset: int) -> GgufAdapter:
    made = adapter()
    made.tensors[1].offset = offset
    made.trailing = bytes(64)
    return made


DEADLY: dict[str, tuple[Callable[[], GgufAdapter], str]] = {
    "alpha of another type": (lambda: with_key("adapter.lora.alpha", U32, struct.pack("<I", 4)), "not a 32-bit float"),
    "alpha that is text": (lambda: with_key("adapter.lora.alpha", STRING, text("4")), "not a 32-bit float"),
    "I8 weights": (lambda: with_values("I8", "<i1"), "stored as I8"),
    "F64 weights": (lambda: with_values("F64", "<f8"), "stored as F64"),
    "three dimensions": (three_dimensions, "3 dimensions on a tensor of 2"),
    "a type that is a number": (lambda: with_key("general.type", U32, bytes(4)), "general.type is 0"),
    "an alignment that is text": (lambda: with_key("general.alignment", STRING, text("x")), "general.alignment is 'x'"),
    "invocation tokens that are no list": (
        lambda: with_key("adapter.alora.invocation_tokens", F32, bytes(4)),
        "adapter.alora.invocation_tokens' is not supported",
    ),
}
WRONG: dict[str, tuple[Callable[[], GgufAdapter], str]] = {
    "overlap": (lambda: moved(0), "lies at byte 0 of the data, not at 512"),
    "gap": (lambda: moved(512 + 64), "lies at byte 576 of the data, not at 512"),
    "beyond the end": (lambda: moved(2**40), "lies at byte"),
    "an alignment of 0": (lambda: with_key("general.alignment", U32, bytes(4)), "general.alignment is 0"),
    "alpha twice": (
        lambda: GgufAdapter([*adapter().keys, ("adapter.lora.alpha", F32, bytes(4))], adapter().tensors),
        "'adapter.lora.alpha' is there twice",
    ),
}


def test_the_valid_adapter_is_applied(tmp_path: Path, llama_base: TinyModel) -> None:
    path = write(tmp_path / "good.gguf", adapter())
    assert check_gguf_adapter(path, read_base_facts(llama_base.gguf_path)) == len(adapter().tensors)
    done = load("backend", llama_base.gguf_path, [path])
    assert (done.returncode, done.stdout) == (0, "good.gguf: applied\n"), done.stderr[-2000:]
    assert load("bare", llama_base.gguf_path, [path]).returncode == 0


@pytest.mark.parametrize("name", [*DEADLY, *WRONG])
def test_a_foreign_gguf_is_refused_by_name(tmp_path: Path, llama_base: TinyModel, name: str) -> None:
    make, expected = {**DEADLY, **WRONG}[name]
    path = write(tmp_path / "bad.gguf", make())
    with pytest.raises(AdapterError) as caught:
        check_gguf_adapter(path, read_base_facts(llama_base.gguf_path))
    assert expected in str(caught.value)


def test_the_backend_outlives_all_of_them(tmp_path: Path, llama_base: TinyModel) -> None:
    made = {name: make for name, (make, _) in {**DEADLY, **WRONG}.items()} | {"good": adapter}
    paths = [write(tmp_path / f"{name}.gguf", make()) for name, make in made.items()]
    done = load("backend", llama_base.gguf_path, paths)
    assert done.returncode == 0, done.stderr[-2000:]
    told = dict(line.split(": ", 2)[:2] for line in done.stdout.splitlines())
    assert told == {path.name: "applied" if path.stem == "good" else "refused" for path in paths}


@pytest.mark.slow
@pytest.mark.parametrize("name", DEADLY)
def test_bare_llama_cpp_does_not_survive_them(tmp_path: Path, llama_base: TinyModel, name: str) -> None:
    """The checks are needed: if this fails, llama.cpp has learnt to refuse such a file by itself."""
    path = write(tmp_path / "bad.gguf", DEADLY[name][0]())
    assert load("bare", llama_base.gguf_path, [path]).returncode < 0


@pytest.mark.usefixtures("traced")
def test_mutated_gguf_adapters(tmp_path: Path, llama_base: TinyModel) -> None:
    """The check lets none through that the gguf package reads otherwise, or that llama.cpp dies of."""
    facts = read_base_facts(llama_base.gguf_path)
    path, accepted = tmp_path / "a.gguf", []
    counts: Counter[str] = Counter()
    for seed in range(FUZZED):
        content = mutated_adapter(random.Random(seed), SIZES)
        path.write_bytes(content)
        try:
            with bounded():
                check_gguf_adapter(path, facts)
        except AdapterError as error:
            message = str(error)
            assert str(path) in message
            assert message.isascii()
            assert all(character.isprintable() or character == "\n" for character in message), seed
            counts["refused"] += 1
            continue
        except BaseException as error:
            raise AssertionError(f"seed {seed}: {content[:1000]!r}") from error
        accepted.append(Path(shutil.copy(path, tmp_path / f"{seed}.gguf")))
        for tensor in gguf.GGUFReader(path).tensors:
            assert np.isfinite(np.asarray(tensor.data, np.float32)).all()
    assert counts["refused"] > FUZZED / 4
    assert len(accepted) > FUZZED / 20
    done = load("backend", llama_base.gguf_path, accepted)
    assert done.returncode == 0, f"{done.stdout[-300:]} {done.stderr[-2000:]}"
    assert len(done.stdout.splitlines()) == len(accepted)


def weights_of(folder: Path, tensors: dict[str, np.ndarray]) -> tuple[Path, Path]:
    weights, config = folder / "adapters.safetensors", folder / "adapter_config.json"
    save_file(tensors, weights)
    config.write_text(json.dumps({"lora_parameters": {"rank": 2, "scale": 2.0}}))
    return weights, config


MLX_Q = "model.layers.1.self_attn.q_proj"


@pytest.mark.parametrize("dtype", ["i1", "f8"])
def test_weights_of_deadly_types_are_no_adapter(tmp_path: Path, dtype: str) -> None:
    tensors = {f"{MLX_Q}.lora_a": np.ones((64, 2), dtype), f"{MLX_Q}.lora_b": np.ones((2, 64), dtype)}
    with pytest.raises(AdapterError, match="only F32, F16, BF16 are supported"):
        read_adapter(*weights_of(tmp_path, tensors))


def test_three_dimensions_on_a_plain_layer_are_not_converted(tmp_path: Path, llama_base: TinyModel) -> None:
    tensors = {f"{MLX_Q}.lora_a": np.ones((3, 2, 64), "f4"), f"{MLX_Q}.lora_b": np.ones((3, 64, 2), "f4")}
    adapter = read_adapter(*weights_of(tmp_path, tensors))
    with pytest.raises(AdapterError, match=r"made for a weight of \[3, 64, 64\] \(experts, out, in\)"):
        write_gguf_lora(adapter, llama_base.gguf_path, tmp_path / "out.gguf")
    assert not (tmp_path / "out.gguf").exists()


@pytest.mark.parametrize(
    ("offsets", "data_bytes", "expected"),
    [
        (([0, 512], [256, 768]), 768, "overlaps the tensor before it by 256 bytes"),
        (([0, 512], [520, 1032]), 1032, "8 bytes before it belong to no tensor"),
        (([0, 512], [512, 1024]), 1025, "1 bytes at the end belong to no tensor"),
        (([0, 512], [512, 1024]), 1023, "lie outside"),
    ],
)
def test_what_mlx_reads_in_silence_is_no_adapter(
    tmp_path: Path, offsets: tuple[list[int], list[int]], data_bytes: int, expected: str
) -> None:
    shapes = {f"{MLX_Q}.lora_a": [64, 2], f"{MLX_Q}.lora_b": [2, 64]}
    header = json.dumps(
        {
            name: {"dtype": "F32", "shape": shape, "data_offsets": place}
            for (name, shape), place in zip(shapes.items(), offsets, strict=True)
        }
    ).encode()
    weights, config = weights_of(tmp_path, {"x": np.ones(1, "f4")})
    weights.write_bytes(struct.pack("<Q", len(header)) + header + bytes(data_bytes))
    with pytest.raises(AdapterError, match=expected):
        read_adapter(weights, config)


def test_a_written_tensor_is_one_that_the_check_takes(tmp_path: Path, llama_base: TinyModel) -> None:
    """Our own converter's files pass the same check as everybody's."""
    tensors = {f"{MLX_Q}.lora_a": np.ones((64, 2), "f4"), f"{MLX_Q}.lora_b": np.ones((2, 64), "f4")}
    out = write_gguf_lora(read_adapter(*weights_of(tmp_path, tensors)), llama_base.gguf_path, tmp_path / "out.gguf")
    assert check_gguf_adapter(out, read_base_facts(llama_base.gguf_path)) == 2


def test_tensor_entries_are_written_as_the_package_reads_them(tmp_path: Path) -> None:
    """The hand-made files are real GGUF: otherwise everything above would be refused for another reason."""
    made = adapter()
    made.tensors.append(Tensor("extra.lora_a", [4], bytes(16)))
    reader = gguf.GGUFReader(write(tmp_path / "a.gguf", made))
    assert [(t.name, [int(n) for n in t.shape]) for t in reader.tensors] == [(t.name, t.dims) for t in made.tensors]
