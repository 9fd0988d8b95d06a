"""The CPU threads of llama.cpp: how many, and how they wait for each other."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

_LOW_PRIORITY = 10


def patient_threads() -> dict[str, str]:
    """Environment variables that llama.cpp's OpenMP threads need, none where the user has chosen already.

    They spin at each of the hundreds of barriers in a step. With another busy process on the machine that costs a
    factor of 6 to 30 (measured: 3-16 tokens/s by default, 100 so, 2 threads on 2 cores).
    """
    return {"GOMP_SPINCOUNT": "20000"} if {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"}.isdisjoint(os.environ) else {}


def give_way() -> None:
    """Let other programs go first from now on: this process, and whatever it starts, runs in the time that they leave.

    There is no way back for a process without privileges. One that gives way already stays as it is.
    """
    if os.getpriority(os.PRIO_PROCESS, 0) < _LOW_PRIORITY:
        os.setpriority(os.PRIO_PROCESS, 0, _LOW_PRIORITY)


def physical_cores() -> int:
    """Count the physical cores that this process may run on: hyper-threads of one core slow llama.cpp down."""
    try:
        cpus: Iterable[int] = os.sched_getaffinity(0)
    except AttributeError:
        return max(1, (os.cpu_count() or 2) // 2)
    siblings = {_siblings(cpu) for cpu in cpus}
    return max(1, len(siblings))


def _siblings(cpu: int) -> str:
    topology = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
    try:
        return topology.read_text().strip()
    except OSError:
        return str(cpu)
