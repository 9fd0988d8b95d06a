"""Brings a checkpoint to the point where a backend can load it: fetched, validated, converted, or left in place."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePath
from tempfile import TemporaryDirectory
from threading import Event
from typing import Protocol

from ml_pipeline.adapters import ConvertedCache, read_adapter, write_peft
from ml_pipeline.adapters.adapter import Adapter
from ml_pipeline.backends.interface import AdapterFile
from ml_pipeline.backends.mlx_server import MlxServerBackend
from ml_pipeline.checkpoints.cache_room import CacheRoom
from ml_pipeline.checkpoints.catalogue import Catalogue
from ml_pipeline.checkpoints.checkpoint import Checkpoint
from ml_pipeline.checkpoints.fetch import FetchCache, FetchedFiles
from ml_pipeline.checkpoints.leases import Lease
from ml_pipeline.checkpoints.prefetch import Prefetcher
from ml_pipeline.checkpoints.transfer import Progress
from ml_pipeline.errors import StoreFullError
from ml_pipeline.files import folder_mode, make_folder, store_errors
from ml_pipeline.progress import ProgressListener
from ml_pipeline.settings import Settings

_CONVERSIONS = 3


class AdapterFiles(Protocol):
    """How the adapter of a checkpoint gets to the backend that is to load it."""

    def adapter(self, checkpoint: Checkpoint) -> Adapter | None:
        """The checkpoint's adapter, validated; None for a bare base model."""

    def converted_adapter(self, adapter: Adapter | None) -> AdapterFile | None:
        """The adapter in the form that the backend loads; None for a bare base model."""


class Preparer:
    """Fetches and converts adapters into the caches under data_dir, one checkpoint after another.

    While one is worked on, the next of `ahead` is fetched in the background. The files of a checkpoint stay in the
    caches at least until the next one is asked for. Used as a context manager, which ends the fetching.
    """

    def __init__(
        self,
        settings: Settings,
        catalogue: Catalogue,
        listener: ProgressListener,
        ahead: Sequence[Checkpoint] = (),
    ) -> None:
        self._catalogue = catalogue
        self._listener = listener
        self._room = CacheRoom(settings.cache_path, settings.limits.cache_bytes)
        self._fetched = FetchCache(self._room, settings.limits.adapter_bytes)
        self._converted = ConvertedCache(settings.cache_path / "converted", self._room)
        self._in_use: list[FetchedFiles | Lease] = []
        self._folders: list[TemporaryDirectory[str]] = []
        self._prefetcher = Prefetcher(self._fetch, [checkpoint for checkpoint in ahead if not checkpoint.is_base])

    def adapter(self, checkpoint: Checkpoint) -> Adapter | None:
        """The checkpoint's adapter, fetched and validated; None for a bare base model."""
        self._let_go()
        if checkpoint.is_base:
            return None
        files = self._prefetcher.take(checkpoint, self._progress(checkpoint))
        self._in_use.append(files)
        return read_adapter(files.weights, files.config)

    def converted_adapter(self, adapter: Adapter | None, base_gguf: Path) -> AdapterFile | None:
        """The adapter in the form that the backend loads; None for a bare base model."""
        if adapter is None:
            return None
        for _ in range(_CONVERSIONS):
            path = self._converted.converted(adapter, base_gguf)
            if held := self._room.hold(path):
                self._in_use.append(held)
                return AdapterFile(path, adapter.sha256)
        raise StoreFullError(
            f"{adapter.path}: other runs keep pushing its converted form out of the cache. "
            "Raise limits.cache_bytes in pipeline.yaml."
        )

    def as_gguf(self, base_gguf: Path) -> AdapterFiles:
        """The adapters as GGUF LoRA files for this base model."""
        return _Converting(self, partial(self.converted_adapter, base_gguf=base_gguf))

    def as_saved(self) -> AdapterFiles:
        """The adapters as they were saved."""
        return _Converting(self, self.saved_adapter)

    def as_peft(self) -> AdapterFiles:
        """The adapters as folders that PEFT loads, each there until the next one is asked for."""
        return _Converting(self, self.peft_folder)

    def saved_adapter(self, adapter: Adapter | None) -> AdapterFile | None:
        """The adapter's own files; None for a bare base model."""
        return None if adapter is None else AdapterFile(adapter.path, adapter.sha256, config=adapter.config_path)

    def peft_folder(self, adapter: Adapter | None) -> AdapterFile | None:
        """The adapter as a PEFT folder, which goes when the next one is asked for; None for a bare base model."""
        if adapter is None:
            return None
        self._room.make_room(adapter.size_bytes, f"Converting {adapter.path}")
        with store_errors("write to", self._room.folder):
            make_folder(self._room.folder)
            folder = TemporaryDirectory(prefix="peft-", dir=self._room.folder)
            Path(folder.name).chmod(folder_mode())
        self._folders.append(folder)
        return AdapterFile(write_peft(adapter, Path(folder.name)), adapter.sha256)

    def __enter__(self) -> Preparer:
        return self

    def __exit__(self, *exc: object) -> None:
        self._prefetcher.close()
        self._let_go()

    def _fetch(self, checkpoint: Checkpoint, progress: Progress, stop: Event) -> FetchedFiles:
        return self._fetched.fetch(self._catalogue.source(checkpoint.source), checkpoint, progress, stop)

    def _progress(self, checkpoint: Checkpoint) -> Progress:
        title = f"{checkpoint.label} fetched, MB"
        return lambda here, total: self._listener.step(title, math.ceil(here / 1e6), math.ceil(total / 1e6))

    def _let_go(self) -> None:
        while self._in_use:
            self._in_use.pop().release()
        while self._folders:
            self._folders.pop().cleanup()


@dataclass(frozen=True, slots=True)
class _Converting:
    """Adapters fetched, then brought into a form."""

    preparer: Preparer
    convert: Callable[[Adapter | None], AdapterFile | None]

    def adapter(self, checkpoint: Checkpoint) -> Adapter | None:
        return self.preparer.adapter(checkpoint)

    def converted_adapter(self, adapter: Adapter | None) -> AdapterFile | None:
        return self.convert(adapter)


@dataclass(frozen=True, slots=True)
class InPlace:
    """Adapters that stay on the host where the backend runs; `folder` is that of their source there."""

    backend: MlxServerBackend
    folder: PurePath

    def adapter(self, checkpoint: Checkpoint) -> Adapter | None:
        """The checkpoint's adapter, validated over there; None for a bare base model."""
        if checkpoint.is_base:
            return None
        weights, config = self.folder / checkpoint.file, self.folder / checkpoint.config_file
        return self.backend.adapter(weights.as_posix(), config.as_posix())

    def converted_adapter(self, adapter: Adapter | None) -> AdapterFile | None:
        """The adapter as it is: mlx_lm.server loads what mlx-lm wrote."""
        return None if adapter is None else AdapterFile(adapter.path, adapter.sha256)
