"""Who holds a DuckDB file, and what to tell the user of it.

DuckDB's own message names one process, on Linux and macOS; the kernel of Linux knows them all.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

from ml_pipeline.errors import StoreLockedError

_SAID = re.compile(r"held in (.+?) \(PID (\d+)\)")
_SAME_PROCESS = "different configuration than existing connections"
_SHOWN = 3
_COMMAND_CHARACTERS = 200


def snapshot_path(database: Path) -> Path:
    """Where the copy of a database lies that anyone may hold open for as long as they like."""
    return database.parent / "snapshot" / database.name


def locked(path: Path, lock_timeout_s: float, holder: str) -> StoreLockedError:
    """The error for a database that `holder` did not let go of in time."""
    return StoreLockedError(
        f"{path} is held by {holder}, and was for all of the {lock_timeout_s:g} s that this process waited. Close that "
        "program (a DuckDB shell or a notebook keeps the file until it ends or disconnects), or raise "
        f"stores.duckdb_lock_timeout_s in pipeline.yaml. To read at leisure, open {snapshot_path(path)} instead: "
        "nobody waits for that. Nothing is lost: the Parquet files are whole, and `ml-pipeline rebuild` brings DuckDB "
        "up to them."
    )


def holders(path: Path, message: str = "") -> str:
    """The processes with a lock on `path`, by number and command, as far as the system or DuckDB's `message` says."""
    said = _SAID.search(message)
    commands = {int(said[2]): said[1]} if said else {}
    pids = list(dict.fromkeys([*commands, *_pids_from_kernel(path)]))
    if _SAME_PROCESS in message or os.getpid() in pids:
        return f"another connection of this same process (PID {os.getpid()})"
    if not pids:
        return "another process"
    shown = ", ".join(_described(pid, commands.get(pid, "")) for pid in pids[:_SHOWN])
    more = len(pids) - _SHOWN
    return f"{shown} and {more} more" if more > 0 else shown


def _described(pid: int, command: str) -> str:
    with suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")
        command = words.decode(errors="replace").strip() or command
    return f"process {pid}" + (f" ({command[:_COMMAND_CHARACTERS]})" if command else "")


def _pids_from_kernel(path: Path) -> list[int]:
    """The owners of locks on `path` by Linux's /proc/locks; it shows none of another container."""
    pids = []
    with suppress(OSError):
        inode = path.stat().st_ino
        for line in Path("/proc/locks").read_text(encoding="ascii").splitlines():
            # A line of one that waits for the lock has "->" after its number.
            fields = line.split()
            with suppress(ValueError, IndexError):
                if fields[1] != "->" and int(fields[5].split(":")[2]) == inode and int(fields[4]) > 0:
                    pids.append(int(fields[4]))
    return pids
