"""Adapters of the mlx backend against mlx_lm's own loading, with tiny models."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from ml_pipeline.adapters.read import read_adapter
from ml_pipeline.backend_settings import MlxSettings
from ml_pipeline.backends.interface import PROBE_TEXT, AdapterFile, AppliedProof
from ml_pipeline.backends.mlx import MlxBackend
from ml_pipeline.errors import AdapterError
from ml_pipeline_tests.adapters.tiny_models import (
    FloatArray,
    TinyModel,
    mlx_logits,
    tiny_gemma3,
    tiny_llama,
    tiny_mixtral,
)
from ml_pipeline_tests.backends.requests import QUESTIONS, answer, ask
from ml_pipeline_tests.backends.tiny_mlx import Reference, as_mlx_wants, write_checkpoint, write_model

SETTINGS = MlxSettings(sequences=3, context_tokens=256)
# llama is twice as wide where it is quantised, so that a group of weights fits into every row.
MODELS: dict[str, Any] = {
    "llama": write_model,
    "gemma3": partial(write_model, make=tiny_gemma3),
    "mixtral": partial(write_model, make=tiny_mixtral),
    "4bit": partial(write_model, make=partial(tiny_llama, hidden=128), bits=4),
}
ATTENTION = ["self_attn.q_proj", "self_attn.v_proj"]


@pytest.fixture(scope="module", params=MODELS)
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Any]]:
    """One model after the other: what it was made from, and the backend that has it."""
    folder = tmp_path_factory.mktemp("models") / request.param
    base = MODELS[request.param](folder)
    backend = MlxBackend(str(folder), "tiny", SETTINGS)
    yield base, backend
    backend.close()


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TinyModel, MlxBackend]]:
    folder = tmp_path_factory.mktemp("llama")
    base = write_model(folder)
    backend = MlxBackend(str(folder), "tiny", SETTINGS)
    yield base, backend
    backend.close()


def file(checkpoint: Path, **options: Any) -> AdapterFile:
    config = options.get("config", checkpoint.with_name("adapter_config.json"))
    return AdapterFile(checkpoint, read_adapter(checkpoint, config).sha256, **options)


def put_on(backend: MlxBackend, checkpoint: Path, **options: Any) -> AppliedProof:
    proof = backend.use_adapter(file(checkpoint, **options))
    assert proof is not None
    return proof


def logits(backend: MlxBackend) -> FloatArray:
    return mlx_logits(backend.model.module)


def by_mlx_lm(backend: MlxBackend, checkpoint: Path, folder: Path) -> Reference:
    return Reference(backend.model.folder, as_mlx_wants(checkpoint, folder))


def change(checkpoint: Path, **tensors: Any) -> Path:
    """The checkpoint with these tensors instead of its own; None leaves one out."""
    content = load_file(checkpoint) | tensors
    save_file({name: value for name, value in content.items() if value is not None}, checkpoint)
    return checkpoint


def full(base: TinyModel, folder: Path, *, norms_only: bool = False) -> Path:
    """A full fine-tune, every weight a little off. Of a quantised base mlx-lm trains the norms only."""
    checkpoint = write_checkpoint(base, folder, 7, fine_tune_type="full")
    random = np.random.default_rng(0)
    tuned = {
        name: None if norms_only and value.ndim > 1 else value + _a_little(random, value.shape)
        for name, value in load_file(checkpoint).items()
    }
    return change(checkpoint, **tuned)


def _a_little(random: np.random.Generator, shape: tuple[int, ...]) -> FloatArray:
    return random.normal(scale=0.01, size=shape).astype(np.float32)


@pytest.mark.parametrize("kind", ["lora", "dora", "full"])
def test_an_adapter_computes_as_in_mlx_lm_and_leaves_no_trace(
    served: tuple[TinyModel, MlxBackend], tmp_path: Path, kind: str
) -> None:
    base, backend = served
    before = logits(backend)
    if kind == "full":
        checkpoint = full(base, tmp_path / "run", norms_only=backend.identity().quantisation.startswith("4bit"))
    else:
        # DoRA knows no experts.
        keys = ATTENTION if (kind, base.architecture) == ("dora", "mixtral") else None
        checkpoint = write_checkpoint(base, tmp_path / "run", 7, fine_tune_type=kind, strength=0.3, keys=keys)
    reference = by_mlx_lm(backend, checkpoint, tmp_path / "as mlx wants")
    proof = put_on(backend, checkpoint)
    np.testing.assert_array_equal(logits(backend), mlx_logits(reference.model))
    assert np.abs(logits(backend) - before).max() > 0.05
    tokens = reference.tokenizer.encode(PROBE_TEXT)
    plain = mlx_logits(Reference(backend.model.folder).model, tokens)[-1]
    assert proof.tensors_matched == len(load_file(checkpoint))
    assert proof.max_abs_logit_difference == pytest.approx(
        np.abs(mlx_logits(reference.model, tokens)[-1] - plain).max(), abs=1e-5
    )
    request = ask(QUESTIONS[0])
    assert answer(backend, request).text == "".join(step.text for step in reference.steps(request.messages, 16))
    assert backend.use_adapter(None) is None
    np.testing.assert_array_equal(logits(backend), before)


def test_swaps_of_different_kinds_ranks_and_layers(llama: tuple[TinyModel, MlxBackend], tmp_path: Path) -> None:
    base, backend = llama
    before = logits(backend)
    checkpoints = [
        write_checkpoint(base, tmp_path / "wide", 1, rank=8, strength=0.2),
        write_checkpoint(base, tmp_path / "narrow", 2, rank=2, scale=0.7, num_layers=1, keys=ATTENTION, strength=0.4),
        full(base, tmp_path / "full"),
        write_checkpoint(base, tmp_path / "dora", 3, rank=3, fine_tune_type="dora", strength=0.2),
        write_checkpoint(base, tmp_path / "embedding", 4, keys=["model.embed_tokens", "lm_head"], strength=0.2),
    ]
    alone = [
        mlx_logits(by_mlx_lm(backend, checkpoint, tmp_path / f"alone {number}").model)
        for number, checkpoint in enumerate(checkpoints)
    ]
    for _ in range(2):
        for checkpoint, expected in zip(checkpoints, alone, strict=True):
            put_on(backend, checkpoint)
            np.testing.assert_array_equal(logits(backend), expected)
    backend.use_adapter(None)
    np.testing.assert_array_equal(logits(backend), before)


def test_layers_of_one_file_may_differ_in_rank(llama: tuple[TinyModel, MlxBackend], tmp_path: Path) -> None:
    base, backend = llama
    checkpoint = write_checkpoint(base, tmp_path / "run", 1, rank=4, keys=ATTENTION, strength=0.3)
    whole = load_file(checkpoint)
    name = "model.layers.0.self_attn.q_proj"
    zeroed = {f"{name}.lora_b": np.concatenate([whole[f"{name}.lora_b"][:1], np.zeros((3, 64), np.float32)])}
    put_on(backend, change(checkpoint, **zeroed))
    expected = logits(backend)
    cut = {
        f"{name}.lora_a": whole[f"{name}.lora_a"][:, :1].copy(),
        f"{name}.lora_b": zeroed[f"{name}.lora_b"][:1].copy(),
    }
    put_on(backend, change(checkpoint, **cut))
    np.testing.assert_allclose(logits(backend), expected, atol=1e-5)
    backend.use_adapter(None)


def test_half_precision_is_kept(llama: tuple[TinyModel, MlxBackend], tmp_path: Path) -> None:
    base, backend = llama
    for dtype in (mx.bfloat16, mx.float16):
        checkpoint = write_checkpoint(base, tmp_path / str(dtype), 1, dtype=dtype, strength=0.3)
        reference = by_mlx_lm(backend, checkpoint, tmp_path / f"as mlx wants {dtype}")
        put_on(backend, checkpoint)
        np.testing.assert_array_equal(logits(backend), mlx_logits(reference.model))
    backend.use_adapter(None)


def test_the_two_files_may_have_any_names(llama: tuple[TinyModel, MlxBackend], tmp_path: Path) -> None:
    base, backend = llama
    checkpoint = write_checkpoint(base, tmp_path / "run", 1, strength=0.3)
    put_on(backend, checkpoint)
    expected = logits(backend)
    config = checkpoint.with_name("adapter_config.json").rename(tmp_path / "0123.json")
    put_on(backend, checkpoint.rename(tmp_path / "4567.safetensors"), config=config)
    np.testing.assert_array_equal(logits(backend), expected)
    backend.use_adapter(None)


def test_the_scale_multiplies_the_adapter(llama: tuple[TinyModel, MlxBackend], tmp_path: Path) -> None:
    base, backend = llama
    put_on(backend, write_checkpoint(base, tmp_path / "5", 1, scale=5.0, strength=0.1))
    expected = logits(backend)
    put_on(backend, write_checkpoint(base, tmp_path / "2.5", 1, scale=2.5, strength=0.1), scale=2.0)
    np.testing.assert_allclose(logits(backend), expected, atol=1e-5)
    with pytest.raises(AdapterError, match=r"only LoRA can be scaled by 2.0; this is full"):
        put_on(backend, full(base, tmp_path / "full"), scale=2.0)
    backend.use_adapter(None)


NAME = "model.layers.1.self_attn.q_proj"


def tensors(shape_a: tuple[int, ...] = (64, 4), shape_b: tuple[int, ...] = (4, 64), name: str = NAME) -> dict[str, Any]:
    return {f"{name}.lora_a": np.ones(shape_a, np.float32), f"{name}.lora_b": np.ones(shape_b, np.float32)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            tensors(name="model.layers.9.self_attn.q_proj"),
            r"model.layers.9.self_attn.q_proj': the base has no such layer",
        ),
        (tensors(shape_a=(65, 4)), r"q_proj.lora_a': shape \[65, 4\], but the base model's \[64, 4\]"),
        (tensors(shape_b=(4, 63)), r"q_proj.lora_b': shape \[4, 63\], but the base model's \[4, 64\]"),
        (tensors((2, 4, 64), (2, 64, 4)), r"q_proj.lora_a': shape \[2, 4, 64\]"),
        (tensors(name="model.norm"), "mlx-lm cannot put it on this base model"),
        ({f"{NAME}.lora_a": None}, "lora_a missing"),
        ({f"{NAME}.lora_a": np.full((64, 4), np.nan, np.float32)}, "256 of 256 values are NaN or infinite"),
        ({f"{NAME}.lora_a": np.full((64, 4), 3e38, np.float32)}, "NaN or infinite under this adapter"),
        ({f"{NAME}.lora_a": np.ones((64, 4), np.int8)}, "dtype I8"),
    ],
    ids=lambda value: None if isinstance(value, str) else "",
)
def test_a_bad_adapter_is_refused_and_the_base_answers(
    llama: tuple[TinyModel, MlxBackend], tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    base, backend = llama
    before = logits(backend)
    good = write_checkpoint(base, tmp_path / "good", 1, strength=0.3)
    put_on(backend, good)
    bad = write_checkpoint(base, tmp_path / "bad", 1, keys=ATTENTION, strength=0.3)
    with pytest.raises(AdapterError, match=message):
        backend.use_adapter(AdapterFile(change(bad, **changes), sha256_of(bad)))
    np.testing.assert_array_equal(logits(backend), before)


def sha256_of(checkpoint: Path) -> str:
    """The hash, or nothing where the file is refused before it matters."""
    try:
        return file(checkpoint).sha256
    except AdapterError:
        return ""


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model.layers.7.mlp.up_proj.weight": np.ones((128, 64), np.float32)}, "the base model has no such tensor"),
        (
            {"model.norm.weight": np.ones(63, np.float32)},
            r"model.norm.weight': shape \[63\], but the base model's \[64\]",
        ),
        ({"model.norm.weight": np.full(64, 3e38, np.float32)}, "NaN or infinite under this adapter"),
    ],
)
def test_bad_full_weights_are_refused_and_the_base_answers(
    llama: tuple[TinyModel, MlxBackend], tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    base, backend = llama
    before = logits(backend)
    with pytest.raises(AdapterError, match=message):
        put_on(backend, change(full(base, tmp_path), **changes))
    np.testing.assert_array_equal(logits(backend), before)


def test_what_changes_nothing_is_not_applied(llama: tuple[TinyModel, MlxBackend], tmp_path: Path) -> None:
    base, backend = llama
    for checkpoint in (
        write_checkpoint(base, tmp_path / "zeros", 1, strength=0.0),
        write_checkpoint(base, tmp_path / "the base itself", 1, fine_tune_type="full"),
    ):
        with pytest.raises(AdapterError, match="not applied"):
            put_on(backend, checkpoint)


def test_files_that_were_written_again_or_are_damaged(llama: tuple[TinyModel, MlxBackend], tmp_path: Path) -> None:
    base, backend = llama
    checkpoint = write_checkpoint(base, tmp_path / "run", 1, strength=0.3)
    before, known = logits(backend), file(checkpoint)
    config = checkpoint.with_name("adapter_config.json")
    config.write_text(json.dumps(json.loads(config.read_text()) | {"lora_parameters": {"rank": 4, "scale": 9.0}}))
    with pytest.raises(AdapterError, match="not what it was"):
        backend.use_adapter(known)
    checkpoint.write_bytes(checkpoint.read_bytes()[:-1])
    with pytest.raises(AdapterError, match=checkpoint.name):
        backend.use_adapter(known)
    checkpoint.unlink()
    with pytest.raises(AdapterError, match=checkpoint.name):
        backend.use_adapter(known)
    np.testing.assert_array_equal(logits(backend), before)


def test_a_file_that_mlx_would_load_is_refused(llama: tuple[TinyModel, MlxBackend], tmp_path: Path) -> None:
    base, backend = llama
    checkpoint = write_checkpoint(base, tmp_path, 1, rank=64, keys=["self_attn.q_proj"], strength=0.3)
    before, known = logits(backend), file(checkpoint)
    raw = checkpoint.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + size])
    a, b = f"{NAME}.lora_a", f"{NAME}.lora_b"
    header[a]["data_offsets"] = header[b]["data_offsets"]
    checkpoint.write_bytes(raw[:8] + json.dumps(header, separators=(",", ":")).encode().ljust(size) + raw[8 + size :])
    overlapping: Any = mx.load(str(checkpoint))
    assert mx.array_equal(overlapping[a].flatten(), overlapping[b].flatten())
    with pytest.raises(AdapterError, match="overlap"):
        backend.use_adapter(known)
    np.testing.assert_array_equal(logits(backend), before)


def test_swaps_cost_no_memory_and_closing_gives_it_back(tmp_path: Path) -> None:
    gc.collect()
    empty = mx.get_active_memory()
    base = write_model(tmp_path / "model")
    checkpoints = [
        file(write_checkpoint(base, tmp_path / "lora", 1, strength=0.3)),
        file(full(base, tmp_path / "full")),
        file(write_checkpoint(base, tmp_path / "dora", 3, rank=3, fine_tune_type="dora", strength=0.2)),
    ]
    size_bytes = sum(value.nbytes for value in base.weights.values())
    del base
    gc.collect()
    backend = MlxBackend(str(tmp_path / "model"), "tiny", SETTINGS)
    loaded, seen = mx.get_active_memory(), []
    assert loaded - empty == pytest.approx(size_bytes, rel=0.05)
    for swap in range(51):
        backend.use_adapter(checkpoints[swap % 3])
        if swap % 10 == 2:
            answer(backend, ask("hi", max_tokens=4))
        seen.append(mx.get_active_memory())
    assert max(seen[48:51]) <= max(seen[:3])
    backend.use_adapter(None)
    assert mx.get_active_memory() <= loaded + 1024
    backend.close()
    backend.close()
    assert mx.get_active_memory() <= empty + 1024
    assert mx.get_cache_memory() == 0


def test_mlxs_limits_are_set_and_given_back(llama: tuple[TinyModel, MlxBackend]) -> None:
    before = mx.set_cache_limit(123_456_789)
    limited = MlxSettings(cache_limit_bytes=10_000_000, memory_limit_bytes=2_000_000_000)
    backend = MlxBackend(str(llama[1].model.folder), "tiny", limited)
    assert mx.set_cache_limit(10_000_000) == 10_000_000
    assert mx.set_memory_limit(2_000_000_000) == 2_000_000_000
    backend.close()
    assert mx.set_cache_limit(before) == 123_456_789


def test_a_full_fine_tune_as_transformers_saves_it(llama: tuple[TinyModel, MlxBackend], tmp_path: Path) -> None:
    base, backend = llama
    bare = logits(backend)
    checkpoint = full(base, tmp_path / "as mlx-lm does")
    expected = by_mlx_lm(backend, checkpoint, tmp_path / "reference")
    folder = tmp_path / "checkpoint-500"
    folder.mkdir()
    save_file(load_file(checkpoint), folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((backend.model.folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"architectures": ["LlamaForCausalLM"]}))
    put_on(backend, folder / "model.safetensors", config=folder / "config.json")
    np.testing.assert_array_equal(logits(backend), mlx_logits(expected.model))
    backend.use_adapter(None)
    np.testing.assert_array_equal(logits(backend), bare)
