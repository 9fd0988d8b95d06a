"""What lies in one run folder: its checkpoints, those still being written, and what cannot be used."""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ml_pipeline.checkpoints.checkpoint import Checkpoint
from ml_pipeline.checkpoints.layouts import Candidate, Inside, numbered, unnumbered, unusable
from ml_pipeline.checkpoints.naming import RunName, partition_key, run_name
from ml_pipeline.checkpoints.source import Entry, Source
from ml_pipeline.errors import CheckpointError
from ml_pipeline.settings import Family

_LONGEST_HEADER = 16 * 2**20
_FIRST_LOOK_BYTES = 2**15
"""Most headers of adapters fit."""

# Not parsed as JSON: 16 MB of it, written for that, would make objects of 500 MB.
_TENSOR_END = re.compile(rb'"data_offsets"\s*:\s*\[\s*[0-9]{1,19}\s*,\s*([0-9]{1,19})\s*\]')


@dataclass(frozen=True, slots=True)
class RunFolder:
    """A run folder's findings. `young` are checkpoints touched so lately that they may still be growing.

    `unnumbered` are weights whose names say no iteration. `lasting` are problems that only a change of the folder ends.
    """

    path: str
    checkpoints: list[Checkpoint] = field(default_factory=list)
    young: list[Checkpoint] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    lasting: list[str] = field(default_factory=list)
    unnumbered: list[Candidate] = field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        """Whether nothing at all is told of it."""
        return not (self.checkpoints or self.young or self.waiting or self.problems or self.lasting)

    @property
    def is_settled(self) -> bool:
        """Whether nothing in it has to be looked at again before its time changes."""
        return not (self.young or self.waiting or self.problems)


def look_through(
    source: Source,
    path: str,
    contents: Sequence[Entry],
    checkpoint_folders: Mapping[str, Inside],
    families: Sequence[Family],
    settled_before_ns: int,
) -> RunFolder:
    """Sort the contents of a run folder and of the folders in it that are checkpoints, by their names.

    Files touched at `settled_before_ns` (ns since 1970) or later are young.
    """
    found = RunFolder(path)
    run = path.removeprefix(source.run_prefix)
    if not _is_text(path):
        found.problems.append(f"source {source.name}: the name of run folder {path!r:.200} is no UTF-8. Rename it.")
        return found
    name = run_name(run, families)
    found.unnumbered.extend(unnumbered(path, contents))
    found.lasting.extend(f"source {source.name}: {problem}." for problem in unusable(path, contents))
    taken: dict[int, str] = {}
    for candidate in numbered(path, contents, checkpoint_folders):
        file, iteration = candidate.file, int(candidate.iteration)
        if candidate.trouble:
            found.problems.append(f"source {source.name}: {file!r} is {candidate.trouble}")
            continue
        if iteration in taken:
            found.problems.append(
                f"source {source.name}: {file!r} and {taken[iteration]!r} are the same iteration; the first by name is "
                "taken. Rename or remove one."
            )
            continue
        taken[iteration] = file
        checkpoint = checkpoint_of(source, run, name, candidate, candidate.iteration)
        if candidate.mtime_ns < settled_before_ns:
            found.checkpoints.append(checkpoint)
        elif candidate.has_config:
            found.young.append(checkpoint)
        else:  # the configuration is written before or after the weights: these wait for it
            found.waiting.append(file)
    try:
        partition_key(source.name, run, max(taken, default=0))
    except CheckpointError as error:
        return RunFolder(path, problems=[str(error)] if taken or found.unnumbered else [])
    found.checkpoints.sort(key=lambda checkpoint: checkpoint.iteration)
    return found


def checkpoint_of(source: Source, run: str, name: RunName, candidate: Candidate, iteration: str) -> Checkpoint:
    """The checkpoint that these weights are at an iteration, as it is to be written in its label."""
    return Checkpoint(
        source=source.name,
        run=run,
        iteration=int(iteration),
        label=name.label(iteration),
        model=name.model,
        base_model=name.model,
        file=candidate.file,
        config_file=candidate.config_file,
        size_bytes=candidate.size_bytes,
        mtime_ns=candidate.mtime_ns,
    )


def _is_text(name: str) -> bool:
    """Whether a name is UTF-8 in its source."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def complete(source: Source, sizes_bytes: Mapping[str, int]) -> dict[str, bool | CheckpointError]:
    """Whether each safetensors file is exactly as long as its own header says.

    Only a sign that its writer is done; the file is validated in full before it is used. Raises
    SourceUnreachableError.
    """
    starts = source.read_starts(dict.fromkeys(sizes_bytes, _FIRST_LOOK_BYTES))
    longer = {
        path: 8 + length
        for path, start in starts.items()
        if isinstance(start, bytes) and (length := _header_bytes(start, sizes_bytes[path])) > len(start) - 8
    }
    starts |= source.read_starts(longer)
    return {
        path: start if isinstance(start, CheckpointError) else _is_complete(start, sizes_bytes[path])
        for path, start in starts.items()
    }


def _header_bytes(start: bytes, size_bytes: int) -> int:
    """The length of the header that a file begins with; 0 when it is none."""
    if len(start) < 8:
        return 0
    (length,) = struct.unpack_from("<Q", start)
    return int(length) if 2 <= length <= min(_LONGEST_HEADER, size_bytes - 8) else 0


def _is_complete(start: bytes, size_bytes: int) -> bool:
    length = _header_bytes(start, size_bytes)
    if not length or len(start) < 8 + length:
        return False
    ends = (int(match[1]) for match in _TENSOR_END.finditer(start, 8, 8 + length))
    return 8 + length + max(ends, default=0) == size_bytes
