"""20,000 hostile files: none crashes, hangs or fills the memory; what is accepted the reference readers accept too."""

from __future__ import annotations

import json
import math
import random
import signal
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from safetensors import deserialize

from ml_pipeline.adapters.config import read_config
from ml_pipeline.adapters.inspect import inspect_adapter
from ml_pipeline.adapters.read import read_adapter
from ml_pipeline.adapters.safetensors_data import FLOAT_DTYPES, fill_float32, map_file, stored_values
from ml_pipeline.adapters.safetensors_header import SafetensorsHeader, read_header
from ml_pipeline.errors import AdapterError
from ml_pipeline_tests.adapters.hostile import mutated_config, mutated_file

# All 20,000 take a minute or two, most of it to open small files; a hang is caught by `bounded`.
pytestmark = pytest.mark.timeout(900)

FILES, CONFIGS = 14_000, 6_000
QUICK_FILES, QUICK_CONFIGS = 1_000, 2_000
"""How many of them the everyday tests look at."""

LONGEST_S, LARGEST_BYTES = 2.0, 16 * 2**20
"""What one input may take: its own size is at most a few kB."""


class HangError(Exception):
    """An input took too long."""


@contextmanager
def bounded() -> Iterator[None]:
    """Fail when the body takes too long or too much memory; the latter needs the fixture `traced`."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise HangError

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, LONGEST_S)
    tracemalloc.reset_peak()
    start = tracemalloc.get_traced_memory()[0]
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert tracemalloc.get_traced_memory()[1] - start < LARGEST_BYTES


def outcome(read: Callable[[], Any], *paths: Path) -> Any:
    """What was read, or the error, which must say where and how to mend it and be fit for a terminal."""
    with bounded():
        try:
            return read()
        except AdapterError as error:
            message = str(error)
    assert any(str(path) in message for path in paths)
    assert any(word in message.lower() for word in ("fetch", "write", "use ", "point", "take", "must say", "check"))
    assert message.isascii()
    assert all(character.isprintable() or character == "\n" for character in message), ascii(message)
    assert len(message) < 30_000
    return message


def check_against_safetensors(header: SafetensorsHeader, content: bytes) -> None:
    """What the reader accepts, the reference implementation accepts, and reads alike."""
    theirs = dict(deserialize(content))  # type: ignore[no-untyped-call]
    assert set(theirs) == {tensor.name for tensor in header.tensors}
    for tensor in header.tensors:
        info = theirs[tensor.name]
        assert (info["dtype"], tuple(info["shape"])) == (tensor.dtype, tensor.shape)
        assert bytes(info["data"]) == content[tensor.start : tensor.start + tensor.size_bytes]


def check_against_mlx(header: SafetensorsHeader) -> None:
    """What reaches `mx.load` has been accepted, and our own data reader sees the same values in it."""
    theirs: dict[str, mx.array] = mx.load(str(header.path), format="safetensors")  # type: ignore[assignment]
    data = map_file(header.path)
    assert set(theirs) == {tensor.name for tensor in header.tensors}
    for tensor in header.tensors:
        ours = np.empty(tensor.shape, np.float32)
        fill_float32(ours, stored_values(data, tensor))
        np.testing.assert_array_equal(ours, np.array(theirs[tensor.name].astype(mx.float32)))


def overwrite(path: Path, content: bytes) -> None:
    """Much quicker than to open an existing file anew for writing."""
    with path.open("r+b") as file:
        file.write(content)
        file.truncate()


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize(
    "seeds",
    [range(QUICK_FILES), pytest.param(range(QUICK_FILES, FILES), marks=pytest.mark.slow)],
    ids=["quick", "rest"],
)
def test_mutated_weights(tmp_path: Path, seeds: range) -> None:
    config = tmp_path / "adapter_config.json"
    config.write_text(json.dumps({"lora_parameters": {"rank": 2, "scale": 20.0}}))
    weights = tmp_path / "adapters.safetensors"
    weights.touch()
    counts: Counter[str] = Counter()
    for seed in seeds:
        content = mutated_file(random.Random(seed))
        overwrite(weights, content)
        try:
            header = outcome(lambda: read_header(weights), weights)
            counts["header" if isinstance(header, SafetensorsHeader) else "refused"] += 1
            if isinstance(header, SafetensorsHeader):
                check_against_safetensors(header, content)
                inspection = outcome(lambda: inspect_adapter(weights, config), weights)
                adapter = outcome(lambda: read_adapter(weights, config), weights)
                assert isinstance(inspection, str) or bool(inspection.spoilt) == isinstance(adapter, str)
                if not isinstance(adapter, str):
                    counts["adapter"] += 1
                    assert {tensor.dtype for tensor in header.tensors} <= set(FLOAT_DTYPES)
                    check_against_mlx(header)
        except BaseException as error:
            raise AssertionError(f"seed {seed}: {content[:2000]!r}") from error
    # Both sides of the line were walked: otherwise this test would say nothing.
    assert counts["refused"] > len(seeds) / 4, counts
    assert counts["adapter"] > len(seeds) / 20, counts
    assert counts["header"] - counts["adapter"] > len(seeds) / 50, counts


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize(
    "seeds",
    [range(QUICK_CONFIGS), pytest.param(range(QUICK_CONFIGS, CONFIGS), marks=pytest.mark.slow)],
    ids=["quick", "rest"],
)
def test_mutated_configs(tmp_path: Path, seeds: range) -> None:
    path = tmp_path / "adapter_config.json"
    path.touch()
    counts: Counter[bool] = Counter()
    for seed in seeds:
        content = mutated_config(random.Random(seed))
        overwrite(path, content)
        try:
            config = outcome(lambda: read_config(path), path)
            counts[isinstance(config, str)] += 1
            if not isinstance(config, str) and config.kind != "full":
                written = json.loads(content)["lora_parameters"]
                assert (config.rank, config.scale) == (written["rank"], float(written["scale"]))
                assert (type(config.rank), type(config.scale)) == (int, float)
                assert config.rank > 0
                assert math.isfinite(config.scale)
        except BaseException as error:
            raise AssertionError(f"seed {seed}: {content[:2000]!r}") from error
    assert min(counts[True], counts[False]) > len(seeds) / 10, counts
