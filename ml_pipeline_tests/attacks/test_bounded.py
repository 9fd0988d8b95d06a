"""The limits themselves: without them a defence that fails would take the machine down."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from ml_pipeline_tests.attacks.bounded import run_bounded


def take_memory(mb: int) -> int:
    return len(bytearray(mb << 20))


def spin() -> None:
    while True:
        pass


def sleep(seconds: float) -> None:
    time.sleep(seconds)


def start_sleeper() -> int:
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]).pid


def test_memory_is_measured_and_bounded() -> None:
    taken = run_bounded(take_memory, 200)
    assert taken.value == 200 << 20
    assert 195 <= taken.grown_mb <= 215
    assert taken.peak_mb > taken.grown_mb
    refused = run_bounded(take_memory, 600, memory_mb=500)
    assert refused.error is not None
    assert refused.error.startswith("MemoryError")


def test_time_is_bounded() -> None:
    with pytest.raises(AssertionError, match=r"ended with -(9|24)"):
        run_bounded(spin, cpu_s=1)
    with pytest.raises(AssertionError, match="longer than 1 s"):
        run_bounded(sleep, 60, wall_s=1)
    assert 0.3 <= run_bounded(sleep, 0.3).seconds < 1


def test_what_it_started_ends_with_it() -> None:
    pid = run_bounded(start_sleeper).value
    for _ in range(100):
        if subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout[:1] in (
            "",
            "Z",
        ):
            return
        time.sleep(0.02)
    pytest.fail("the child of the child runs on")
