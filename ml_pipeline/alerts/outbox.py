"""Failed checks of which nobody was told yet: one small file each, so that a crash neither loses nor repeats any.

Dagster's own history of checks would have to be searched for them: its rows are made when a run is queued and filled in
later, so that no cursor over them sees each failure once.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from ml_pipeline.files import store_errors, write_atomically

_SUFFIX = ".json"
MOST_WAITING = 1000
"""More are not kept: a message nobody reads helps nobody, and the Dagster UI has them all."""


class FailedCheck(BaseModel):
    """One failed asset check, as it is told. `failed_at` is in ISO 8601 (UTC); `id` is its own."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str
    check: str
    asset: str
    partition: str | None
    severity: str
    description: str
    failed_at: str


class Outbox:
    """The folder of failed checks that wait to be told; made when the first one is kept."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add(self, failed: FailedCheck) -> bool:
        """Keep one to be told; False where too many wait already.

        Raises:
            StoreError: it cannot be written.
        """
        if len(self._paths()) >= MOST_WAITING:
            return False
        name = f"{time.time_ns():020}-{secrets.token_hex(4)}{_SUFFIX}"
        write_atomically(self._folder / name, failed.model_dump_json().encode())
        return True

    def waiting(self, most: int) -> dict[Path, FailedCheck]:
        """The oldest that wait, by their files. A file that holds none of them is removed.

        Raises:
            StoreError: they cannot be read.
        """
        found: dict[Path, FailedCheck] = {}
        for path in self._paths()[:most]:
            with store_errors("read", path):
                text = path.read_bytes()
            try:
                found[path] = FailedCheck.model_validate_json(text)
            except ValidationError:
                self.remove([path])
        return found

    def remove(self, paths: Iterable[Path]) -> None:
        """Forget those that were told; raises StoreError."""
        for path in paths:
            with store_errors("remove", path):
                path.unlink(missing_ok=True)

    def _paths(self) -> list[Path]:
        with store_errors("list", self._folder):
            if not self._folder.is_dir():
                return []
            return sorted(path for path in self._folder.iterdir() if path.suffix == _SUFFIX)
