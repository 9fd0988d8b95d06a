"""Numbers inside safetensors files: exact widening to float32, and the search for NaN and infinity."""

from __future__ import annotations

from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from ml_pipeline.adapters.safetensors_data import check_finite, fill_float32, map_file, stored_values
from ml_pipeline.adapters.safetensors_header import read_header
from ml_pipeline.errors import AdapterError

DTYPES = [mx.float32, mx.float16, mx.bfloat16]


@pytest.mark.parametrize("dtype", DTYPES)
def test_values_are_those_that_mlx_saved(tmp_path: Path, dtype: mx.Dtype) -> None:
    values = (mx.arange(35).reshape(5, 7) / 3 - 4).astype(dtype)
    path = tmp_path / "a.safetensors"
    mx.save_safetensors(str(path), {"first": mx.zeros((3,), mx.float16), "w": values})
    header = read_header(path)
    stored = stored_values(map_file(path), header.by_name()["w"])
    target = np.empty((7, 5), np.float32)
    fill_float32(target, stored.T)
    np.testing.assert_array_equal(target, np.array(values.astype(mx.float32)).T)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("place", [0, 1_048_575, 1_048_576, 1_100_000])
def test_finds_one_bad_value_anywhere(tmp_path: Path, dtype: mx.Dtype, bad: float, place: int) -> None:
    values = mx.ones((1_100_001,), dtype)
    values[place] = bad
    path = tmp_path / "a.safetensors"
    mx.save_safetensors(str(path), {"good": mx.ones((4,), dtype), "bad": values})
    with pytest.raises(AdapterError) as caught:
        check_finite(read_header(path))
    assert "'bad': 1 of 1100001 values are NaN or infinite" in str(caught.value)
    assert "'good'" not in str(caught.value)


def test_opposite_infinities_do_not_cancel(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    mx.save_safetensors(str(path), {"w": mx.array([float("inf"), float("-inf")])})
    with pytest.raises(AdapterError, match="2 of 2 values"):
        check_finite(read_header(path))


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_largest_finite_values_are_fine(tmp_path: Path, dtype: mx.Dtype) -> None:
    path = tmp_path / "a.safetensors"
    largest = mx.full((4096,), mx.finfo(dtype).max, dtype)
    mx.save_safetensors(str(path), {"w": largest, "v": -largest, "empty": mx.zeros((0,), dtype)})
    check_finite(read_header(path))
