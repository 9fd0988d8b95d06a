"""Models that this program makes on somebody's server: names that can be told from all others, also after a crash."""

from __future__ import annotations

import re
import secrets
import time
from pathlib import Path
from typing import Protocol

_PREFIX = "ml-pipeline-"
_NAME = re.compile(rf"{_PREFIX}([0-9a-f]{{8,12}})-[0-9a-f]{{8}}(:latest)?")
_KEPT_S = 24 * 3600.0


class AdapterPath(Protocol):
    """How a server gets adapters."""

    async def begin(self) -> str:
        """Clear what a crashed run left there a day ago or earlier; returns the name by which the bare base answers."""

    async def put_on(self, name: str, folder: Path) -> None:
        """Make a model of this name out of the base and the PEFT adapter in `folder`."""

    async def take_off(self, name: str) -> None:
        """Remove that model; nothing happens when there is none."""


def new_name() -> str:
    """A name that says when it was made, and that nobody else has."""
    return f"{_PREFIX}{int(time.time()):08x}-{secrets.token_hex(4)}"


def is_left_over(name: str) -> bool:
    """Whether a model is of this program and older than any run of it."""
    match = _NAME.fullmatch(name)
    return match is not None and time.time() - int(match[1], 16) > _KEPT_S
