"""Opens the folder that a Parquet store lies in: a path, or an address of object storage."""

from __future__ import annotations

from pathlib import Path

from ml_pipeline.stores.disk_folder import DiskFolder
from ml_pipeline.stores.object_folder import ObjectFolder
from ml_pipeline.stores.store_folder import StoreFolder

_FILE = "file://"


def folder_at(place: Path | str) -> StoreFolder:
    """The folder at a path, a `file://` address or one of object storage, such as `s3://bucket/folder`.

    Raises:
        StoreError: files there cannot be replaced in one step, or the address holds a password.
    """
    if isinstance(place, str) and "://" in place and not place.startswith(_FILE):
        return ObjectFolder(place)
    return DiskFolder(Path(str(place).removeprefix(_FILE)))
