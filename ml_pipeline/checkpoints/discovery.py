"""Finds the checkpoints of a source: run folders `adapters-<name>[/<base-model folder>]` and their numbered files."""

from __future__ import annotations

import fnmatch
import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ml_pipeline.checkpoints.checkpoint import Checkpoint, base_checkpoint
from ml_pipeline.checkpoints.naming import RUN_PREFIX, checkpoint_iteration, run_name
from ml_pipeline.checkpoints.source import Entry, Source
from ml_pipeline.errors import CheckpointError
from ml_pipeline.settings import Family

CONFIG_FILE = "adapter_config.json"
_LONGEST_HEADER = 16 * 2**20


@dataclass
class Discovery:
    """What one look found.

    `checkpoints` are ready to be scored, by run and iteration; `growing` are still being written and left for the
    next look; `problems` are messages about what could not be read or named. None of them stops the others.
    """

    checkpoints: list[Checkpoint] = field(default_factory=list)
    growing: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def extend(self, other: Discovery) -> None:
        """Add what another look found."""
        self.checkpoints += other.checkpoints
        self.growing += other.growing
        self.problems += other.problems


def discover(
    source: Source, families: Sequence[Family], *, now_ns: int, settle_s: float, pattern: str = "*"
) -> Discovery:
    """Look through a source once.

    `pattern` is a shell pattern on the run's name. A file counts as finished when it is as long as its own header
    says and its configuration lies beside it, or when it has not been touched for `settle_s` seconds (then a damaged
    one comes to light as a failed checkpoint instead of being ignored for ever).
    """
    found = Discovery()
    try:
        tops = [e for e in source.list_folder("") if e.is_folder and e.name.startswith(RUN_PREFIX)]
    except CheckpointError as error:
        found.problems.append(str(error))
        return found
    for top in sorted(tops, key=lambda entry: entry.name):
        try:
            entries = source.list_folder(top.name)
            folders = [(top.name, entries)]
            for inner in sorted(e.name for e in entries if e.is_folder):
                folders.append((f"{top.name}/{inner}", source.list_folder(f"{top.name}/{inner}")))
        except CheckpointError as error:
            found.problems.append(str(error))
            continue
        for folder, contents in folders:
            if fnmatch.fnmatchcase(folder.removeprefix(RUN_PREFIX), pattern):
                _look_through_run(source, folder, contents, families, now_ns, settle_s, found)
    return found


def discover_base(base_model: str, gguf: Path) -> Checkpoint:
    """The bare base model as a checkpoint."""
    info = gguf.stat()
    return base_checkpoint(base_model, file=gguf.name, size_bytes=info.st_size, mtime_ns=info.st_mtime_ns)


def _look_through_run(
    source: Source,
    folder: str,
    contents: Sequence[Entry],
    families: Sequence[Family],
    now_ns: int,
    settle_s: float,
    found: Discovery,
) -> None:
    run = folder.removeprefix(RUN_PREFIX)
    name = run_name(run, families)
    has_config = any(entry.name == CONFIG_FILE and not entry.is_folder for entry in contents)
    by_iteration: dict[int, Checkpoint] = {}
    for entry in sorted(contents, key=lambda item: item.name):
        written = None if entry.is_folder else checkpoint_iteration(entry.name)
        if written is None:
            continue
        path = f"{folder}/{entry.name}"
        checkpoint = Checkpoint(
            source=source.name,
            run=run,
            iteration=int(written),
            label=name.label(written),
            model=name.model,
            base_model=name.model,
            file=path,
            config_file=f"{folder}/{CONFIG_FILE}",
            size_bytes=entry.size_bytes,
            mtime_ns=entry.mtime_ns,
        )
        try:
            checkpoint.key  # noqa: B018 (a name that gives no key is reported here, not later)
            settled = now_ns - entry.mtime_ns >= settle_s * 1e9
            if not settled and not (has_config and is_complete(source, path, entry.size_bytes)):
                found.growing.append(path)
                continue
        except CheckpointError as error:
            found.problems.append(str(error))
            continue
        if twin := by_iteration.get(checkpoint.iteration):
            found.problems.append(
                f"source {source.name}: {path} and {twin.file} are the same iteration; the first by name is taken. "
                "Rename or remove one."
            )
            continue
        by_iteration[checkpoint.iteration] = checkpoint
    found.checkpoints += [by_iteration[iteration] for iteration in sorted(by_iteration)]


def is_complete(source: Source, path: str, size_bytes: int) -> bool:
    """Whether a safetensors file is exactly as long as its own header says.

    Only a sign that its writer is done; the file is validated in full before it is used.
    """
    with source.open(path) as file:
        prefix = file.read(8)
        if len(prefix) < 8:
            return False
        (length,) = struct.unpack("<Q", prefix)
        if not 2 <= length <= min(_LONGEST_HEADER, size_bytes - 8):
            return False
        try:
            header = json.loads(file.read(length))
            ends = [tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__"]
            return bool(8 + length + max(ends, default=0) == size_bytes)
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
            return False
