"""What the discovery sensor has asked to be scored, in a small database of its own.

The sensor's cursor must stay small, since Dagster keeps a copy of it with every tick; ten thousand checkpoints do not
fit. So the cursor is only the number of the last generation of requests that Dagster has taken, and the requests
themselves are here. A request that was written down but whose generation the cursor never reached, because the daemon
died or the cursor was reset, is made again with the same run key, by which Dagster knows a run it already has.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ml_pipeline.checkpoints.checkpoint import Checkpoint
from ml_pipeline.errors import StoreError
from ml_pipeline.files import make_folder

_TABLE = """
CREATE TABLE IF NOT EXISTS requested (
    key TEXT PRIMARY KEY, size_bytes INTEGER NOT NULL, mtime_ns INTEGER NOT NULL,
    run_key TEXT NOT NULL, place INTEGER NOT NULL, generation INTEGER NOT NULL
) WITHOUT ROWID
"""
_BUSY_S = 30.0


@dataclass(frozen=True, slots=True)
class Request:
    """One run to ask for: its run key and the partition keys that it scores, in order."""

    run_key: str
    keys: tuple[str, ...]


class RequestLedger:
    """The database in `path`; made when it is not there."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def versions(self) -> dict[str, tuple[int, int]]:
        """(size in bytes, modification time in ns) of every checkpoint as it was last asked for, by key."""
        with self._connected() as connected:
            return {
                key: (size, mtime)
                for key, size, mtime in connected.execute("SELECT key, size_bytes, mtime_ns FROM requested")
            }

    def not_taken(self, generation: int) -> list[Request]:
        """The requests after `generation`, as they were made."""
        runs: dict[str, list[str]] = {}
        with self._connected() as connected:
            query = "SELECT run_key, key FROM requested WHERE generation > ? ORDER BY generation, run_key, place"
            for run_key, key in connected.execute(query, (generation,)):
                runs.setdefault(run_key, []).append(key)
        return [Request(run_key, tuple(keys)) for run_key, keys in runs.items()]

    def last_generation(self) -> int:
        """The number of the newest generation; 0 when nothing was ever asked for."""
        with self._connected() as connected:
            (newest,) = connected.execute("SELECT coalesce(max(generation), 0) FROM requested").fetchone()
            return int(newest)

    def write(self, requests: Sequence[Request], checkpoints: Iterable[Checkpoint], generation: int) -> None:
        """Write down requests of this generation for these checkpoints, in one transaction."""
        by_key = {checkpoint.key: checkpoint for checkpoint in checkpoints}
        rows = [
            (key, by_key[key].size_bytes, by_key[key].mtime_ns, request.run_key, place, generation)
            for request in requests
            for place, key in enumerate(request.keys)
        ]
        with self._connected() as connected:
            connected.executemany("INSERT OR REPLACE INTO requested VALUES (?, ?, ?, ?, ?, ?)", rows)

    def adopt(self, checkpoints: Sequence[Checkpoint]) -> None:
        """Write down the versions of checkpoints that are not to be asked for."""
        self.write([Request("", tuple(checkpoint.key for checkpoint in checkpoints))], checkpoints, generation=0)

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        try:
            make_folder(self.path.parent)
            connected = sqlite3.connect(self.path, timeout=_BUSY_S)
            try:
                with connected:
                    connected.execute(_TABLE)
                    yield connected
            finally:
                connected.close()
        except (sqlite3.Error, OSError) as error:
            raise StoreError(
                f"{self.path}: cannot be used: {error}. Free space or mend the permissions; if the file is damaged, "
                "delete it: what is scored stays scored."
            ) from error
