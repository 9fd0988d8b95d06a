"""Runs a function in a child with hard limits on memory and time, and measures what it took.

A defence that does not hold is then a failed test, and not a machine without memory. The function is given by itself,
must be of a module's top level, and takes and returns what JSON can hold; what it raises comes back as text.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

_MB = 1 << 20


@dataclass(frozen=True)
class Outcome:
    """What came of an attack.

    Attributes:
        value: what the function returned; None when it raised.
        error: the exception as "Type: message"; None when it returned.
        seconds: of the function alone, without the start of the child and its imports.
        peak_mb: the most resident memory of the child, or of the largest of its own children.
        grown_mb: by how much the child's own peak is above what its imports had taken; what a bomb adds.
    """

    value: Any
    error: str | None
    seconds: float
    peak_mb: float
    grown_mb: float


def run_bounded(
    function: Callable[..., Any],
    *arguments: Any,
    memory_mb: int = 2048,
    cpu_s: int = 30,
    wall_s: float = 60,
    environment: dict[str, str] | None = None,
) -> Outcome:
    """Run `function(*arguments)` in a child.

    Args:
        function: of a module's top level.
        arguments: what JSON can hold.
        memory_mb: address space that it may add to that of its imports (RLIMIT_AS), its own children as well.
        cpu_s: processor time after the imports (RLIMIT_CPU).
        wall_s: after so long the child and all that it started are killed.
        environment: variables besides those of this process.

    Raises:
        AssertionError: the child was killed by a limit, or ended without a result.
    """
    order = {
        "module": function.__module__,
        "name": function.__qualname__,
        "arguments": arguments,
        "memory_mb": memory_mb,
        "cpu_s": cpu_s,
    }
    what = f"{function.__qualname__}{arguments!r:.80}"
    # Files and not pipes: what the child starts and leaves behind would hold a pipe open.
    with (
        tempfile.TemporaryFile("w+") as given,
        tempfile.TemporaryFile("w+") as out,
        tempfile.TemporaryFile("w+") as err,
    ):
        json.dump(order, given)
        given.seek(0)
        child = subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=given,
            stdout=out,
            stderr=err,
            # An arena a thread would count as address space that nobody uses.
            env=os.environ | {"MALLOC_ARENA_MAX": "2"} | (environment or {}),
            start_new_session=True,
        )
        try:
            code = child.wait(wall_s)
        except subprocess.TimeoutExpired as error:
            raise AssertionError(f"{what} ran for longer than {wall_s:g} s") from error
        finally:
            # Whatever it started is in its session, unless it asked for one of its own.
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        out.seek(0)
        err.seek(0)
        assert code == 0, f"{what} ended with {code} (limits: {cpu_s} s, {memory_mb} MB): {err.read()[-2000:]}"
        return Outcome(**json.loads(out.read().splitlines()[-1]))


def _memory_mb(field: str) -> float:
    """A field of /proc/self/status; unlike `ru_maxrss`, VmHWM does not include what the parent had before exec."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"no {field} in /proc/self/status: these tests need Linux")


def _main() -> None:
    order = json.load(sys.stdin)
    function: Any = importlib.import_module(order["module"])
    for part in order["name"].split("."):
        function = getattr(function, part)
    most = int((_memory_mb("VmSize") + order["memory_mb"]) * _MB)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    used = resource.getrusage(resource.RUSAGE_SELF)
    most_s = int(used.ru_utime + used.ru_stime) + 1 + order["cpu_s"]
    resource.setrlimit(resource.RLIMIT_CPU, (most_s, most_s))
    before_mb = _memory_mb("VmRSS")
    value, error = None, None
    started = time.monotonic()
    try:
        value = function(*order["arguments"])
    except Exception as raised:
        error = f"{type(raised).__name__}: {str(raised)[:4000]}"
    seconds = time.monotonic() - started
    own_mb = _memory_mb("VmHWM")
    children_mb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    outcome = Outcome(value, error, seconds, max(own_mb, children_mb), max(0.0, own_mb - before_mb))
    sys.stdout.flush()
    print("\n" + json.dumps(asdict(outcome)), flush=True)
    # Threads of a server that is part of the attack need not end first.
    os._exit(0)


if __name__ == "__main__":
    _main()
