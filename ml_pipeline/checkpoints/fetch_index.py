"""What was fetched: one small record a checkpoint version, by which its content is found without its source."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from ml_pipeline.checkpoints.checkpoint import Checkpoint
from ml_pipeline.files import modified_ns, write_atomically

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class FetchRecord:
    """A fetched checkpoint: its version in the source, that of its configuration, and the content of both."""

    checkpoint: Checkpoint
    config_size_bytes: int
    config_mtime_ns: int
    weights_sha256: str
    config_sha256: str


class FetchIndex:
    """Records in one folder, each a file of its own: a damaged one is as good as none and harms no other.

    A record's own modification time says when its checkpoint was used last.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path_of(self, checkpoint: Checkpoint) -> Path:
        """Where the record of this version of the checkpoint lies, or would lie."""
        version = f"{checkpoint.file}\n{checkpoint.size_bytes}\n{checkpoint.mtime_ns}"
        return self.folder / f"{_digest(checkpoint.key)}-{_digest(version)}.json"

    def find(self, checkpoint: Checkpoint) -> FetchRecord | None:
        """The record of this very version of the checkpoint, if there is one."""
        return self._read(self.path_of(checkpoint))

    def latest(self, key: str) -> Checkpoint | None:
        """The version of the checkpoint with this partition key that was used last, as it was when it was fetched."""
        paths = sorted(self.folder.glob(f"{_digest(key)}-*.json"), key=modified_ns, reverse=True)
        records = filter(None, map(self._read, paths))
        return next((record.checkpoint for record in records), None)

    def write(self, record: FetchRecord) -> None:
        """Keep a record in place of the one of the same version.

        Raises:
            StoreFullError, StoreError: it cannot be written.
        """
        text = json.dumps(asdict(record), indent=2) + "\n"
        write_atomically(self.path_of(record.checkpoint), text.encode())

    def touch(self, checkpoint: Checkpoint) -> None:
        """Note that this version of the checkpoint was used now."""
        with suppress(FileNotFoundError):
            os.utime(self.path_of(checkpoint))

    def records(self) -> Iterator[tuple[Path, FetchRecord]]:
        """All records that can be read, each with its file."""
        for path in self.folder.glob("*.json"):
            if record := self._read(path):
                yield path, record

    def _read(self, path: Path) -> FetchRecord | None:
        try:
            record = _parse(json.loads(path.read_bytes()))
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None
        return record if self.path_of(record.checkpoint) == path else None


def _parse(content: Any) -> FetchRecord:
    """Raise KeyError, TypeError or ValueError unless every field is there and of its kind."""
    checkpoint = Checkpoint(**_checked(Checkpoint, content["checkpoint"]))
    values = _checked(FetchRecord, {**content, "checkpoint": checkpoint})
    record = FetchRecord(**values)
    if not (_SHA256.fullmatch(record.weights_sha256) and _SHA256.fullmatch(record.config_sha256)):
        raise ValueError("no hash")
    return record


def _checked(record: type, content: dict[str, Any]) -> dict[str, Any]:
    kinds = {"str": str, "int": int, "Checkpoint": Checkpoint}
    for field in fields(record):
        if type(content[field.name]) is not kinds[str(field.type)]:
            raise TypeError(field.name)
    return content


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:32]
