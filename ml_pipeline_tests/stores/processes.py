"""Running code in a second process: one that holds a lock, dies at a chosen step, or may not write much."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from multiprocessing.context import ForkServerContext
from pathlib import Path

_ROOT = Path(__file__).parents[2]


def run_python(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run `code` in a new Python, with `arguments` in sys.argv[1:], and wait for its end."""
    return subprocess.run(_command(code, arguments), capture_output=True, text=True, timeout=120, env=_environment())


@contextmanager
def background_python(code: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Run `code` beside the body; the body starts when it has printed a line, and it is killed at the end."""
    with subprocess.Popen(
        _command(code, arguments),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=_environment(),
    ) as process:
        try:
            assert process.stdout is not None
            if not process.stdout.readline():
                _, errors = process.communicate(timeout=10)
                raise AssertionError(f"the second process ended early:\n{errors}")
            yield process
        finally:
            process.kill()


@cache
def forking() -> ForkServerContext:
    """Makes processes in milliseconds: forks of one that has imported the pipeline and made a rehearsal's rows."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pytest", "ml_pipeline_tests.stores.rehearsal_rows", "httpx"])
    return context


def _command(code: str, arguments: tuple[object, ...]) -> list[str]:
    return [sys.executable, "-c", code, *map(str, arguments)]


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(_ROOT)}
