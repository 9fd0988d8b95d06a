"""The steps of the stores' own code: every line that changes a file, a database or a server, found by running it.

Between two such lines nothing changes outside the process, so that a kill before each of them, and one after the last,
stand for kills at every moment, but for those inside DuckDB and the server.
"""

from __future__ import annotations

import linecache
import os
import re
import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import ml_pipeline

_PACKAGE = Path(ml_pipeline.__file__).parent
_CHANGES = re.compile(
    r"""\b(fsync|replace(?!\(["'])|unlink|link|mkdir|write_bytes|execute|connect|(?<!os\.)close|open|send|post)\("""
)


def watch(reached: Callable[[str], None]) -> None:
    """Have `reached` told the name of every step of this thread just before it is taken."""

    def enter(frame: FrameType, event: str, argument: Any) -> Any:
        path = Path(frame.f_code.co_filename)
        return (
            line
            if path.is_relative_to(_PACKAGE) and (path.parent.name == "stores" or path.name == "files.py")
            else None
        )

    def line(frame: FrameType, event: str, argument: Any) -> Any:
        if event == "line":
            text = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
            if _CHANGES.search(text) and not text.startswith("def "):
                reached(f"{Path(frame.f_code.co_filename).stem}.{frame.f_code.co_qualname}: {text}")
        return line

    sys.settrace(enter)


def kill_at(step: str, occurrence: int) -> None:
    """Have this process kill itself before a step, when it gets there for the so-manieth time, from 1."""
    seen: Counter[str] = Counter()

    def reached(name: str) -> None:
        seen[name] += 1
        if name == step and seen[name] == occurrence:
            os.kill(os.getpid(), signal.SIGKILL)

    watch(reached)
