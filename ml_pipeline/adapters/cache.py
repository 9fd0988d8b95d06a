"""Converted adapters, kept under the hash of everything that they were made from."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from ml_pipeline.adapters.adapter import Adapter
from ml_pipeline.adapters.file_hash import file_sha256
from ml_pipeline.adapters.gguf_lora import FORMAT_VERSION, write_gguf_lora
from ml_pipeline.checkpoints.cache_room import CacheRoom, Kept
from ml_pipeline.errors import BackendError
from ml_pipeline.files import modified_ns, remove_leftovers, replacing

_ABANDONED_AFTER_S = 24 * 3600.0
"""What processes that were killed left behind goes after this long; nothing takes a day to write."""


@dataclass(frozen=True, slots=True)
class _Receipt:
    """Written beside a converted file once it is whole: what it is, and what it must hash to."""

    adapter_sha256: str
    base_sha256: str
    format_version: int
    size_bytes: int
    sha256: str


class ConvertedCache:
    """GGUF LoRA files in one folder, each named by the hash of adapter, base model and format version.

    Any number of processes may use the same folder at once without locks: files appear under unique temporary names and
    are renamed when whole, and two that convert the same adapter write the same bytes. Everything in the folder can be
    deleted at any time. In a `room` the least recently used go when it gets full; whoever uses one holds it there.
    """

    def __init__(self, folder: Path, room: CacheRoom | None = None) -> None:
        self.folder = folder
        self._room = room
        if room is not None:
            room.add_shelf(folder, self._kept)

    def converted(self, adapter: Adapter, base_gguf: Path) -> Path:
        """Return the GGUF LoRA of `adapter` for `base_gguf`, converting it unless a valid one is there.

        A file that is damaged, or whose receipt is missing or does not agree, is made again.

        Raises:
            AdapterError, BackendError, StoreError, StoreFullError: as `write_gguf_lora` does.
        """
        try:
            base_sha256 = file_sha256(base_gguf)
        except OSError as error:
            raise BackendError(
                f"{base_gguf}: the base model cannot be read: {error.strerror}. Check the path in pipeline.yaml."
            ) from error
        out = self.path_of(adapter.sha256, base_sha256)
        receipt_path = out.with_suffix(".json")
        if _is_valid(out, receipt_path, adapter.sha256, base_sha256):
            with suppress(FileNotFoundError):
                os.utime(receipt_path)  # its time says when the file was used last
            return out
        remove_leftovers(self.folder, older_than_s=_ABANDONED_AFTER_S)
        if self._room is not None:
            self._room.make_room(adapter.size_bytes, f"Converting {adapter.path}")
        write_gguf_lora(adapter, base_gguf, out)
        receipt = _Receipt(adapter.sha256, base_sha256, FORMAT_VERSION, out.stat().st_size, file_sha256(out))
        with replacing(receipt_path) as temporary:
            temporary.write_text(json.dumps(asdict(receipt), indent=2) + "\n", encoding="utf-8")
        return out

    def path_of(self, adapter_sha256: str, base_sha256: str) -> Path:
        """Return where the file of this adapter and base lies, or would lie."""
        key = hashlib.sha256(f"{adapter_sha256}\n{base_sha256}\n{FORMAT_VERSION}".encode()).hexdigest()
        return self.folder / f"{key}.gguf"

    def _kept(self) -> Iterator[Kept]:
        for receipt in self.folder.glob("*.json"):
            yield Kept(modified_ns(receipt), receipt.with_suffix(".gguf"), (receipt,))


def _is_valid(out: Path, receipt_path: Path, adapter_sha256: str, base_sha256: str) -> bool:
    """Compare size first and hash second; the hash is remembered, so within a process it is worked out once."""
    try:
        content = json.loads(receipt_path.read_bytes())
        size_bytes = out.stat().st_size
        expected = _Receipt(adapter_sha256, base_sha256, FORMAT_VERSION, size_bytes, str(content["sha256"]))
        return bool(content == asdict(expected) and file_sha256(out) == expected.sha256)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False
