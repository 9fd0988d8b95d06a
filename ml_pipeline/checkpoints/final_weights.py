"""Weights whose name says no iteration: the last ones of a training, or a copy of a checkpoint under another name.

mlx-lm writes `adapters.safetensors` at every save, before the numbered file, and once more at the end: `iters: 1000`
with `save_every: 300` leaves the weights of iteration 1000 in it alone. Its configuration tells that iteration, as
Trainer's `trainer_state.json` does for what lies beside it. A file that is byte for byte a checkpoint of its run is no
further one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ml_pipeline.checkpoints.checkpoint import Checkpoint
from ml_pipeline.checkpoints.layouts import MLX_FINAL, Candidate
from ml_pipeline.checkpoints.naming import partition_key, run_name
from ml_pipeline.checkpoints.run_folder import RunFolder, checkpoint_of
from ml_pipeline.checkpoints.source import Source
from ml_pipeline.errors import CheckpointError, SourceUnreachableError
from ml_pipeline.settings import Family

_MOST_CONFIG_BYTES = 2**20
# Trainer writes the figures before the long history of losses.
_STATE_BYTES = 2**15
_GLOBAL_STEP = re.compile(rb'"global_step"\s*:\s*(\d{1,12})\s*[,}]')
_TAIL_BYTES = 2**16
"""Enough of a file to tell two training steps apart: weights end it, and every step changes them."""
_MOST_COMPARED = 64
_EPOCHS = re.compile(r"epoch[-_]?\d+", re.IGNORECASE)


@dataclass(frozen=True)
class _Group:
    """The runs in one run folder."""

    source: Source
    families: Sequence[Family]
    settled_before_ns: int
    iterations: Mapping[str, int | None]


def add_final_weights(
    source: Source,
    tops: Mapping[str, Sequence[RunFolder]],
    families: Sequence[Family],
    settled_before_ns: int,
) -> None:
    """Sort the unnumbered weights of run folders: each becomes a checkpoint of its run, a copy of one, or a problem.

    Raises:
        SourceUnreachableError: the source as a whole is not there.
    """
    candidates = [candidate for runs in tops.values() for run in runs for candidate in run.unnumbered]
    group = _Group(source, families, settled_before_ns, _iterations(source, candidates))
    for runs in tops.values():
        known = [checkpoint for run in runs for checkpoint in (*run.checkpoints, *run.young)]
        by_path = {run.path: run for run in runs}
        for run in runs:
            for candidate in run.unnumbered:
                # mlx-lm's files make their folder a run; a folder of Trainer's is one checkpoint of the run around it.
                around = run if _is_mlx(candidate) else by_path.get(run.path.rpartition("/")[0], run)
                _sort(group, around, candidate, known)


def _is_mlx(candidate: Candidate) -> bool:
    return candidate.file.endswith(f"/{MLX_FINAL}")


def _sort(group: _Group, run: RunFolder, candidate: Candidate, known: Sequence[Checkpoint]) -> None:
    taken = {checkpoint.iteration for checkpoint in (*run.checkpoints, *run.young)}
    iteration = group.iterations[candidate.file]
    place = f"source {group.source.name}: {candidate.file!r}"
    if candidate.trouble:
        run.problems.append(f"{place} is {candidate.trouble}")
    elif candidate.is_whole_model and iteration is None and known:
        return  # what was fused or merged out of them
    elif _is_mlx(candidate) and iteration in taken:
        return  # training is through, and wrote its last weights twice
    else:
        try:
            if _is_copy(group.source, candidate, known):
                return
            if candidate.mtime_ns >= group.settled_before_ns:
                # Not told before its writer has left it: at a save it comes before its numbered copy.
                run.waiting.append(candidate.file)
                return
            if reason := _why_not(candidate, iteration, taken):
                run.lasting.append(f"{place} is not scored: {reason}.")
                return
            path = run.path.removeprefix(group.source.run_prefix)
            name = run_name(path, group.families)
            checkpoint = checkpoint_of(group.source, path, name, candidate, str(iteration))
            partition_key(group.source.name, path, checkpoint.iteration)
        except SourceUnreachableError:
            raise
        except CheckpointError as error:
            run.problems.append(str(error))
            return
        run.checkpoints.append(checkpoint)
        run.checkpoints.sort(key=lambda one: one.iteration)


def _why_not(candidate: Candidate, iteration: int | None, taken: set[int]) -> str:
    """Why weights that are no copy are no checkpoint either; empty where they are one."""
    way_out = (
        "Rename it to <iteration>_adapters.safetensors"
        if _is_mlx(candidate)
        else "Put it, with its configuration, into a folder checkpoint-<iteration>"
    )
    if not candidate.has_config:
        return f"there is no {candidate.config_file.rpartition('/')[2]} beside it. {way_out}"
    if iteration is None:
        folder = candidate.file.split("/")[-2]
        counts = "its folder counts epochs, and " if _EPOCHS.fullmatch(folder) else ""
        return f"{counts}nothing beside it tells which iteration it is. {way_out}"
    if _is_mlx(candidate) and candidate.mtime_ns < candidate.config_mtime_ns:
        return f"it is older than the configuration beside it, so of an earlier training. {way_out}"
    if iteration in taken:
        return f"the run has another checkpoint of its iteration, {iteration}. Remove one, or rename its folder"
    return ""


def _iterations(source: Source, candidates: Sequence[Candidate]) -> dict[str, int | None]:
    """The iteration of each file, where a file beside it tells."""
    wanted = {candidate.state_file: _STATE_BYTES for candidate in candidates if candidate.state_file}
    wanted |= {
        candidate.config_file: _MOST_CONFIG_BYTES
        for candidate in candidates
        if candidate.has_config and _is_mlx(candidate)
    }
    read = source.read_starts(wanted) if wanted else {}
    found: dict[str, int | None] = {}
    for candidate in candidates:
        state, config = read.get(candidate.state_file), read.get(candidate.config_file)
        step = _GLOBAL_STEP.search(state) if isinstance(state, bytes) else None
        found[candidate.file] = int(step[1]) if step else _iters(config) if isinstance(config, bytes) else None
    return found


def _iters(config: bytes) -> int | None:
    try:
        value = json.loads(config)["iters"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 10**12 else None


def _is_copy(source: Source, candidate: Candidate, known: Sequence[Checkpoint]) -> bool:
    """Whether one of these checkpoints has the same content, as far as its size and its end tell.

    Raises:
        CheckpointError: a file cannot be read.
    """
    alike = [checkpoint for checkpoint in known if checkpoint.size_bytes == candidate.size_bytes]
    if not alike:
        return False
    # Nearly always it is the last one.
    likely = {max(alike, key=lambda one: one.mtime_ns), max(alike, key=lambda one: one.iteration)}
    others = sorted(set(alike) - likely, key=lambda one: -one.iteration)[:_MOST_COMPARED]
    own = _tail(source, candidate.file, candidate.size_bytes)
    return any(_tail(source, one.file, one.size_bytes) == own for one in (*likely, *others))


def _tail(source: Source, path: str, size_bytes: int) -> bytes:
    try:
        with source.open(path, max(0, size_bytes - _TAIL_BYTES)) as file:
            return file.read(_TAIL_BYTES)
    except (OSError, EOFError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise CheckpointError(f"source {source.name}: reading {path!r} failed: {reason}.") from error
