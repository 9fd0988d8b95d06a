"""Finds the checkpoints of a source: run folders `adapters-<name>[/<base-model folder>]`, and what in them is one."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ml_pipeline.checkpoints.checkpoint import Checkpoint, base_checkpoint
from ml_pipeline.checkpoints.final_weights import add_final_weights
from ml_pipeline.checkpoints.folder_memory import FolderMemory
from ml_pipeline.checkpoints.layouts import is_checkpoint, is_checkpoint_folder, other_weights
from ml_pipeline.checkpoints.naming import numbered_folder_iteration
from ml_pipeline.checkpoints.run_folder import RunFolder, complete, look_through
from ml_pipeline.checkpoints.source import Entry, Source
from ml_pipeline.errors import CheckpointError
from ml_pipeline.settings import Family

Memory = FolderMemory[list[RunFolder]]
_MOST_OTHERS = 20
"""Folders that are looked into for what the user may have meant."""


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
        add_final_weights(self.source, folders, self.families, self.settled_before_ns)
        for top, runs in folders.items():
            self._add_unknown(runs, listed[top])
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
        root = sorted(self.source.list_folder(""), key=lambda item: item.name)
        for entry in root:
            if not entry.name.startswith(self.source.run_prefix):
                continue
            if entry.trouble:
                found.problems.append(f"source {self.source.name}: {entry.name!r} is {entry.trouble}")
            elif entry.is_folder:
                tops[entry.name] = entry.mtime_ns
        if not tops:
            found.problems += self._why_no_run(root)
        return tops

    def _why_no_run(self, root: Sequence[Entry]) -> list[str]:
        """What the user may have meant where no folder is a run by its name, but checkpoints lie there all the same."""
        where, prefix = f"source {self.source.name}", self.source.run_prefix
        if any(is_checkpoint(entry) for entry in root):
            return [
                f"{where}: its folder is itself a run, which is not looked into. Give the folder above it, that holds "
                f"the run folders, and run_prefix if their names do not begin with {prefix!r}."
            ]
        others = [entry.name for entry in root if entry.is_folder and not entry.trouble][:_MOST_OTHERS]
        for name, contents in self.source.list_folders(others).items():
            if not isinstance(contents, CheckpointError) and any(is_checkpoint(entry) for entry in contents):
                return [
                    f"{where}: no folder in it begins with {prefix!r}, but {name!r} holds checkpoints. Say how run "
                    'folders are called with run_prefix; with "" every folder is one.'
                ]
        return []

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
        self._list_deeper(listed, found)
        return listed

    def _list_deeper(self, listed: dict[str, dict[str, list[Entry]]], found: Discovery) -> None:
        """Add what lies a level deeper: in checkpoints, and wherever else a run without any weights may have them."""
        deeper: dict[str, str] = {}
        for top, folders in listed.items():
            everywhere = not other_weights(folders)
            for path, contents in folders.items():
                if path != top and (everywhere or numbered_folder_iteration(path.rpartition("/")[2]) is not None):
                    inside = sorted(entry.name for entry in contents if entry.is_folder)
                    deeper |= {f"{path}/{name}": top for name in inside[:_MOST_OTHERS]}
        for path, entries in self.source.list_folders(list(deeper)).items() if deeper else ():
            if isinstance(entries, CheckpointError):
                found.problems.append(str(entries))
            else:
                listed[deeper[path]][path] = entries

    def _sort(self, top: str, folders: Mapping[str, list[Entry]]) -> list[RunFolder]:
        """The runs in a run folder: itself, with the folders in it that are checkpoints, and the others in it."""
        inner = {path.rpartition("/")[2]: path for path in folders if path.count("/") == top.count("/") + 1}
        inside: dict[str, dict[str, list[Entry]]] = {
            name: {
                where.removeprefix(path).lstrip("/"): contents
                for where, contents in folders.items()
                if where == path or where.startswith(f"{path}/")
            }
            for name, path in inner.items()
        }
        checkpoints = {name: held for name, held in inside.items() if is_checkpoint_folder(name, held)}
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

    def _add_unknown(self, runs: Sequence[RunFolder], folders: Mapping[str, Sequence[Entry]]) -> None:
        """Have a run folder that holds weights, and none that are read, say so."""
        if runs and all(run.is_empty for run in runs) and (weights := other_weights(folders)):
            runs[0].lasting.append(
                f"source {self.source.name}: {runs[0].path!r} holds weights, but no checkpoint that is read here: "
                f"{weights}. Read are <iteration>_adapters.safetensors (mlx-lm), and checkpoint-<iteration>/ with "
                "adapter_model.safetensors or model.safetensors, directly in a run folder."
            )

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
        inner = {
            f"{path}/{entry.name}": entry.mtime_ns
            for path, contents in folders.items()
            for entry in contents
            if entry.is_folder and (path == top or f"{path}/{entry.name}" in folders)
        }
        # Written anew in place, which the time of its folder does not show.
        finals = {candidate.file: candidate.mtime_ns for run in runs for candidate in run.unnumbered}
        self.memory.remember(
            top,
            {top: mtime_ns, **inner, **finals},
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
    found.problems += [*run.problems, *run.lasting]
