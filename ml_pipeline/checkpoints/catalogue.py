"""All checkpoints of all sources, by partition key."""

from __future__ import annotations

import time
from collections.abc import Iterable

from ml_pipeline.checkpoints.checkpoint import Checkpoint, with_family
from ml_pipeline.checkpoints.discovery import Discovery, discover, discover_base
from ml_pipeline.checkpoints.fetch import fetch_index
from ml_pipeline.checkpoints.fsspec_source import FsspecFolder
from ml_pipeline.checkpoints.source import LocalFolder, Source
from ml_pipeline.errors import CheckpointError, SettingsError
from ml_pipeline.settings import BASE_SOURCE, FsspecSource, Settings, SourceSettings


class Catalogue:
    """Looks through the sources of the settings."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._sources = {name: _open_source(settings, name, source) for name, source in settings.sources.items()}

    def source(self, name: str) -> Source:
        """A source by name."""
        return self._sources[name]

    def look(self, sources: Iterable[str] | None = None) -> Discovery:
        """Look through the named sources, or all; base models that have checkpoints come first.

        A bare base model is listed when its file is on this machine, since its scores are what the others are
        compared with.
        """
        found = Discovery()
        for name in self._sources if sources is None else sources:
            found.extend(
                discover(
                    self._sources[name],
                    self._settings.families,
                    now_ns=time.time_ns(),
                    settle_s=self._settings.discovery.settle_s,
                    pattern=self._settings.sources[name].filter,
                )
            )
        bases = []
        for base_model in dict.fromkeys(checkpoint.base_model for checkpoint in found.checkpoints):
            try:
                bases.append(discover_base(base_model, self._settings.base_model_gguf(base_model)))
            except SettingsError as error:
                found.problems.append(str(error))
        found.checkpoints[:0] = bases
        return found

    def find(self, keys: Iterable[str]) -> dict[str, Checkpoint | CheckpointError]:
        """The checkpoint of each key, or why there is none; one look for all of them.

        One that its source has lost, or whose source cannot be reached, is given as it was fetched last.
        """
        found = self.look()
        known = {checkpoint.key: checkpoint for checkpoint in found.checkpoints}
        return {key: known.get(key) or self._fetched_before(key, found) or self._missing(key, found) for key in keys}

    def _fetched_before(self, key: str, found: Discovery) -> Checkpoint | None:
        checkpoint = fetch_index(self._settings.cache_path).latest(key)
        if checkpoint is None or checkpoint.source not in self._sources or checkpoint.file in found.growing:
            return None
        return with_family(checkpoint, self._settings.families)

    def _missing(self, key: str, found: Discovery) -> CheckpointError:
        source = key.split(".", 1)[0]
        if source == BASE_SOURCE:
            hint = "Its base model's file is gone, or no checkpoint uses it any more."
        elif source not in self._sources:
            hint = f"There is no source {source!r} in pipeline.yaml any more."
        else:
            hint = "It was removed, is being written just now, or sources.*.filter leaves it out."
        return CheckpointError("\n".join([f"{key}: not found in its source. {hint}", *found.problems]))


def _open_source(settings: Settings, name: str, source: SourceSettings) -> Source:
    if isinstance(source, FsspecSource):
        return FsspecFolder(name, source.url, source.options, source.timeout_s)
    return LocalFolder(name, settings.path(source.path))
