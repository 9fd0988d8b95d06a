"""Finds the checkpoints of a source: run folders `adapters-<name>[/<base-model folder>]`, and what in them is one."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ml_pipeline.checkpoints.checkpoint import Checkpoint, base_checkpoint
from ml_pipeline.checkpoints.folder_memory import FolderMemory
from ml_pipeline.checkpoints.naming import checkpoint_folder_iteration
from ml_pipeline.checkpoints.run_folder import RunFolder, complete, look_through
from ml_pipeline.checkpoints.source import Entry, Source
from ml_pipeline.errors import CheckpointError
from ml_pipeline.settings import Family

Memory = FolderMemory[list[RunFolder]]


@dataclass
class Discovery:
    """What one look found.

    `checkpoints` are ready to be scored, by run and iteration; `growing` are still being written and left for the
    next look; `problems` are messages about what could not be read or named. None of them stops the others. `failed`
    says why a source as a whole could not be looked through, by its name.
    """

    checkpoints: list[Checkpoint] = field(default_factory=list)
    growing: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)

    def extend(self, other: Discovery) -> None:
        """Add what another look found."""
        self.checkpoints += other.checkpoints
        self.growing += other.growing
        self.problems += other.problems
        self.failed |= other.failed


def discover(
    source: Source,
    families: Sequence[Family],
    *,
    now_ns: int,
    settle_s: float,
    pattern: str = "*",
    memory: Memory | None = None,
    full_look_s: float = 0,
) -> Discovery:
    """Look through a source once.

    `pattern` is a shell pattern on the run's name. A file counts as finished when it is as long as its own header
    says and its configuration lies beside it, or when it has not been touched for `settle_s` seconds (then a damaged
    one comes to light as a failed checkpoint instead of being ignored for ever).

    With a `memory` of earlier looks, run folders that did not change since are not listed again, until `full_look_s`
    seconds after the last look at all of them. A checkpoint that is overwritten in place when it was settled before
    shows at that full look.
    """
    found = Discovery()
    look = _Look(source, tuple(families), pattern, now_ns, settle_s, Memory() if memory is None else memory)
    with look.memory.lock:
        look.memory.begin((look.families, pattern, settle_s, source.run_prefix), full_look_s)
        try:
            look.through(found)
        except CheckpointError as error:  # what is remembered stays for the next look
            found.problems.append(str(error))
            found.failed[source.name] = str(error)
    return found


def discover_base(base_model: str, gguf: Path) -> Checkpoint:
    """The bare base model as a checkpoint."""
    info = gguf.stat()
    return base_checkpoint(base_model, file=gguf.name, size_bytes=info.st_size, mtime_ns=info.st_mtime_ns)


@dataclass(frozen=True)
class _Look:
    source: Source
    families: tuple[Family, ...]
    pattern: str
    now_ns: int
    settle_s: float
    memory: Memory

    @property
    def settled_before_ns(self) -> int:
        """Files touched before this are taken as they are."""
        return self.now_ns - int(self.settle_s * 1e9) + 1

    def through(self, found: Discovery) -> None:
        """Look through the source."""
        tops = self._run_folders(found)
        self.memory.keep_only(tops)
        recalled = self._recall(tops)
        listed = self._list([top for top in tops if top not in recalled], found)
        folders = {top: self._sort(top, contents) for top, contents in listed.items()}
        finished = self._finished(folders, found)
        for top in tops:
            if top in recalled:
                runs = recalled[top]
            elif top in folders:
                runs = folders[top]
                self._remember(top, tops[top], listed[top], runs)
            else:
                continue
            for run in runs:
                _add(run, finished, found)

    def _run_folders(self, found: Discovery) -> dict[str, int]:
        """The run folders and their modification times, in ns, by name."""
        tops = {}
        for entry in sorted(self.source.list_folder(""), key=lambda item: item.name):
            if not entry.name.startswith(self.source.run_prefix):
                continue
            if entry.trouble:
                found.problems.append(f"source {self.source.name}: {entry.name!r} is {entry.trouble}")
            elif entry.is_folder:
                tops[entry.name] = entry.mtime_ns
        return tops

    def _recall(self, tops: Mapping[str, int]) -> dict[str, list[RunFolder]]:
        inner = self.source.stats(self.memory.inner_folders(tops))
        times = {path: entry.mtime_ns for path, entry in inner.items() if isinstance(entry, Entry)}
        found = {top: self.memory.recall(top, mtime_ns, times) for top, mtime_ns in tops.items()}
        return {top: runs for top, runs in found.items() if runs is not None}

    def _list(self, tops: Sequence[str], found: Discovery) -> dict[str, dict[str, list[Entry]]]:
        """The contents of run folders and of those inside them, by path, for each run folder that could be read."""
        listed: dict[str, dict[str, list[Entry]]] = {}
        for top, contents in self.source.list_folders(tops).items():
            if isinstance(contents, CheckpointError):
                found.problems.append(str(contents))
            else:
                listed[top] = {top: contents}
        inner = {
            f"{top}/{name}": top
            for top, folders in listed.items()
            for name in sorted(entry.name for entry in folders[top] if entry.is_folder)
        }
        for path, contents in self.source.list_folders(list(inner)).items():
            if isinstance(contents, CheckpointError):
                found.problems.append(str(contents))
                listed.pop(inner[path], None)
            elif inner[path] in listed:
                listed[inner[path]][path] = contents
        return listed

    def _sort(self, top: str, folders: Mapping[str, list[Entry]]) -> list[RunFolder]:
        """The runs in a run folder: itself, with the folders in it that are checkpoints, and the others in it."""
        inner = {path.rpartition("/")[2]: path for path in folders if path != top}
        checkpoints = {name: folders[path] for name, path in inner.items() if checkpoint_folder_iteration(name)}
        return [
            look_through(
                self.source,
                path,
                folders[path],
                checkpoints if path == top else {},
                self.families,
                self.settled_before_ns,
            )
            for path in [top, *(path for name, path in inner.items() if name not in checkpoints)]
            if fnmatch.fnmatchcase(path.removeprefix(self.source.run_prefix), self.pattern)
        ]

    def _finished(
        self, folders: Mapping[str, Sequence[RunFolder]], found: Discovery
    ) -> dict[str, bool | CheckpointError]:
        """Whether each young file is complete."""
        young = [checkpoint for runs in folders.values() for run in runs for checkpoint in run.young]
        return complete(self.source, {checkpoint.file: checkpoint.size_bytes for checkpoint in young})

    def _remember(self, top: str, mtime_ns: int, folders: Mapping[str, Sequence[Entry]], runs: list[RunFolder]) -> None:
        granularity_ns = self.source.mtime_granularity_ns
        if granularity_ns is None or not all(run.is_settled for run in runs):
            self.memory.forget(top)
            return
        inner = {f"{top}/{entry.name}": entry.mtime_ns for entry in folders[top] if entry.is_folder}
        self.memory.remember(
            top,
            {top: mtime_ns, **inner},
            runs,
            settled_before_ns=self.settled_before_ns - granularity_ns,
        )


def _add(run: RunFolder, finished: Mapping[str, bool | CheckpointError], found: Discovery) -> None:
    """Add a run folder's findings to those of the look."""
    ready = list(run.checkpoints)
    for checkpoint in run.young:
        done = finished[checkpoint.file]
        if isinstance(done, CheckpointError):
            found.problems.append(str(done))
        elif done:
            ready.append(checkpoint)
        else:
            found.growing.append(checkpoint.file)
    found.checkpoints += sorted(ready, key=lambda checkpoint: checkpoint.iteration) if run.young else ready
    found.growing += run.waiting
    found.problems += run.problems
