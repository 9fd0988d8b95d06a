"""All checkpoints of all sources, by partition key."""

from __future__ import annotations

import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, wait

from ml_pipeline.base_models import described, gguf_path, reads_gguf
from ml_pipeline.checkpoints.checkpoint import Checkpoint, base_checkpoint, with_family
from ml_pipeline.checkpoints.discovery import Discovery, Memory, discover, discover_base
from ml_pipeline.checkpoints.fetch import fetch_index
from ml_pipeline.checkpoints.fsspec_source import FsspecFolder
from ml_pipeline.checkpoints.source import LocalFolder, Source
from ml_pipeline.checkpoints.ssh import SshFolder
from ml_pipeline.errors import CheckpointError, SettingsError
from ml_pipeline.settings import BASE_SOURCE, Settings
from ml_pipeline.source_settings import AnySource, FsspecSource, SshSource

SOURCES_AT_ONCE = 16
_MEMORIES: dict[tuple[str, str], Memory] = {}
"""What this process remembers of each source between looks."""


class Catalogue:
    """Looks through the sources of the settings."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._sources = {name: _open_source(settings, name, source) for name, source in settings.sources.items()}

    def source(self, name: str) -> Source:
        """A source by name."""
        return self._sources[name]

    def look(
        self, sources: Iterable[str] | None = None, *, full: bool = False, longest_s: float | None = None
    ) -> Discovery:
        """Look through the named sources, or all, at the same time; base models that have checkpoints come first.

        Folders that did not change since this process last looked are not listed again, unless `full` is set. A bare
        base model is listed when it can be scored, since its scores are what the others are compared with.
        A source that has not answered after `longest_s` seconds fails; its look goes on in the background.
        """
        names = list(self._sources if sources is None else sources)
        found = Discovery()
        pool = ThreadPoolExecutor(max_workers=min(SOURCES_AT_ONCE, max(1, len(names))))
        looks = {name: pool.submit(self._look_through, name, full=full) for name in names}
        wait(looks.values(), timeout=longest_s)
        for name, look in looks.items():
            if look.done():
                found.extend(look.result())
            else:
                reason = f"source {name}: no answer after {longest_s:.0f} s. Is the machine overloaded, or far away?"
                found.failed[name] = reason
                found.problems.append(reason)
        pool.shutdown(wait=False, cancel_futures=True)
        bases = []
        for base_model in dict.fromkeys(checkpoint.base_model for checkpoint in found.checkpoints):
            try:
                bases.append(_base(self._settings, base_model))
            except SettingsError as error:
                found.problems.append(str(error))
        found.checkpoints[:0] = bases
        return found

    def find(self, keys: Iterable[str]) -> dict[str, Checkpoint | CheckpointError]:
        """The checkpoint of each key, or why there is none; one look for all of them.

        One that its source has lost, or whose source cannot be reached, is given as it was fetched last.
        """
        found = self.look(full=True)
        known = {checkpoint.key: checkpoint for checkpoint in found.checkpoints}
        return {key: known.get(key) or self._fetched_before(key, found) or self._missing(key, found) for key in keys}

    def _fetched_before(self, key: str, found: Discovery) -> Checkpoint | None:
        checkpoint = fetch_index(self._settings.cache_path).latest(key)
        if checkpoint is None or checkpoint.source not in self._sources or checkpoint.file in found.growing:
            return None
        return with_family(checkpoint, self._settings.families)

    def _look_through(self, name: str, *, full: bool) -> Discovery:
        source = self._sources[name]
        return discover(
            source,
            self._settings.families,
            now_ns=time.time_ns(),
            settle_s=self._settings.discovery.settle_s,
            pattern=self._settings.sources[name].filter,
            memory=_MEMORIES.setdefault((name, source.identity), Memory()),
            full_look_s=0 if full else self._settings.discovery.full_look_s,
        )

    def _missing(self, key: str, found: Discovery) -> CheckpointError:
        source = key.split(".", 1)[0]
        if source == BASE_SOURCE:
            hint = "Its base model's file is gone, or no checkpoint uses it any more."
        elif source not in self._sources:
            hint = f"There is no source {source!r} in pipeline.yaml any more."
        else:
            hint = "It was removed, is being written just now, or sources.*.filter leaves it out."
        return CheckpointError("\n".join([f"{key}: not found in its source. {hint}", *found.problems]))


def forget_everything() -> None:
    """Have the next look list every folder, as in a new process."""
    _MEMORIES.clear()


def _base(settings: Settings, name: str) -> Checkpoint:
    """The bare base model; one that is not run from a GGUF file of this machine has no size and no time."""
    if reads_gguf(settings, name):
        return discover_base(name, gguf_path(settings, name))
    return base_checkpoint(name, file=described(settings, name), size_bytes=0, mtime_ns=0)


def _open_source(settings: Settings, name: str, source: AnySource) -> Source:
    opened: Source
    if isinstance(source, SshSource):
        opened = SshFolder(name, source)
    elif isinstance(source, FsspecSource):
        opened = FsspecFolder(name, source.url, source.options, source.timeout_s)
    else:
        opened = LocalFolder(name, settings.path(source.path))
    opened.run_prefix = source.run_prefix
    return opened
