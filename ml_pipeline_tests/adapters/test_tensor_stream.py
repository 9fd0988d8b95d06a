"""Tensors turned over on their way from one file to another: the same numbers, in little memory."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ml_pipeline.adapters.safetensors_data import map_file
from ml_pipeline.adapters.tensor_stream import TensorStream

ORDERS: dict[str, Callable[[Any], Any]] = {
    "as it is": lambda values: values,
    "turned over": lambda values: values.T,
    "interleaved": lambda values: values.reshape(2, 2, -1, values.shape[1]).swapaxes(1, 2),
    "turned over, interleaved": lambda values: values.T.reshape(2, 2, -1, values.shape[0]).swapaxes(1, 2),
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("tile", [1, 7, 512])
@pytest.mark.parametrize("shape", [(4, 4), (64, 1300), (1300, 64)])
def test_every_order_of_axes(tmp_path: Path, order: str, tile: int, shape: tuple[int, int]) -> None:
    values = np.random.default_rng(1).standard_normal(shape, np.float32).astype(np.float16)
    values.tofile(tmp_path / "in")
    data = map_file(tmp_path / "in")
    view = ORDERS[order](data.view(np.float16).reshape(shape))
    with (tmp_path / "out").open("wb") as file:
        stream = TensorStream(file, data, as_float32=True)
        stream.write(view, tile)
        stream.write(view, tile, 0.5)
        TensorStream(file, data, as_float32=False).write(view, tile)
    expected = np.ascontiguousarray(ORDERS[order](values)).reshape(-1)
    written = (tmp_path / "out").read_bytes()
    as_float32 = np.frombuffer(written, np.float32, 2 * values.size)
    np.testing.assert_array_equal(as_float32, np.concatenate([expected, expected * np.float32(0.5)]))
    assert written[8 * values.size :] == expected.tobytes()


_MEASURED = """
import sys
from pathlib import Path
import numpy as np
from ml_pipeline.adapters.safetensors_data import map_file
from ml_pipeline.adapters.tensor_stream import TensorStream

def memory_mb(field):
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status[field].split()[0]) / 1e3

data = map_file(Path(sys.argv[1]))
values = data.view(np.float32).reshape(3, 1 << 20, 8)
Path("/proc/self/clear_refs").write_text("5")
before_mb = memory_mb("VmRSS")
with open(sys.argv[2], "wb") as file:
    stream = TensorStream(file, data, as_float32=True)
    for tensor in values:
        stream.write(tensor.T if sys.argv[3] == "turned" else tensor, 512)
print(memory_mb("VmHWM") - before_mb)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
@pytest.mark.parametrize(("way", "limit_mb"), [("turned", 1.5 * 33.6 + 8), ("straight", 16)])
def test_memory_is_bounded_by_the_largest_tensor(tmp_path: Path, way: str, limit_mb: float) -> None:
    """Three tensors of 33.6 MB, mapped pages counted."""
    np.zeros(3 << 23, np.float32).tofile(tmp_path / "in")
    command = [sys.executable, "-c", _MEASURED, str(tmp_path / "in"), str(tmp_path / "out"), way]
    peak_mb = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    print(f"{way}: {peak_mb:.1f} MB")
    assert peak_mb < limit_mb
