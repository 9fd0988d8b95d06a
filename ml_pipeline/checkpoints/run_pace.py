"""How often a training run writes checkpoints, and which runs have stopped before they were through."""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise

from ml_pipeline.checkpoints.checkpoint import Checkpoint
from ml_pipeline.checkpoints.layouts import CONFIG_FILE, FOLDER_WEIGHTS, STATE_FILE
from ml_pipeline.checkpoints.naming import numbered_folder_iteration
from ml_pipeline.checkpoints.source import Entry, Source
from ml_pipeline.monitoring_settings import FreshnessCheck

_S = 1_000_000_000
_FEWEST_INTERVALS = 2
_LEAST_INTERVAL_S = 10.0
"""Files that lie closer together were copied, not trained."""
_MOST_STATE_BYTES = 4 * 2**20


@dataclass(frozen=True, slots=True)
class StalledRun:
    """A run whose newest checkpoint is older than its pace explains. `newest_ns`: ns since 1970; `interval_s`: the
    usual time between two checkpoints."""

    source: str
    run: str
    iteration: int
    newest_ns: int
    interval_s: float


def stalled_runs(
    checkpoints: Iterable[Checkpoint],
    settings: FreshnessCheck,
    now_ns: int,
    planned: Callable[[Checkpoint], int | None],
) -> list[StalledRun]:
    """The runs that have stalled, by source and run.

    A run has a pace once it has three checkpoints: the median time between two. `planned` tells, of a run's newest
    checkpoint, with how many iterations its training is through, if that is known; it is asked for silent runs alone.
    A run is through once no further checkpoint is due up to there: 900 of 1000 is the last of those at every 300th.
    """
    runs: dict[tuple[str, str], list[Checkpoint]] = defaultdict(list)
    for checkpoint in checkpoints:
        if not checkpoint.is_base:
            runs[checkpoint.source, checkpoint.run].append(checkpoint)
    stalled = []
    for (source, run), found in sorted(runs.items()):
        newest = max(found, key=lambda checkpoint: (checkpoint.mtime_ns, checkpoint.iteration))
        interval_s, silent_s = _interval_s(found), (now_ns - newest.mtime_ns) / _S
        if interval_s is None or silent_s > settings.forget_after_s:
            continue
        if silent_s <= max(settings.intervals * interval_s, settings.at_least_s):
            continue
        last = planned(newest)
        if last is None or newest.iteration + _iterations_between(found) <= last:
            stalled.append(StalledRun(source, run, newest.iteration, newest.mtime_ns, interval_s))
    return stalled


def planned_iterations(source: Source, checkpoint: Checkpoint) -> int | None:
    """With how many iterations the checkpoint's training is through; None where nothing says so.

    As the trainer wrote it down: mlx-lm in adapter_config.json, Hugging Face's Trainer in trainer_state.json. Where
    Trainer's last weights lie in the run's own folder, newer than the checkpoint, it has ended, perhaps early.
    """
    folder, _, _ = checkpoint.file.rpartition("/")
    run, _, name = folder.rpartition("/")
    if numbered_folder_iteration(name) is not None:
        finals = source.stats([f"{run}/{weights}" for weights in FOLDER_WEIGHTS]).values()
        if any(isinstance(final, Entry) and final.mtime_ns >= checkpoint.mtime_ns for final in finals):
            return checkpoint.iteration
    places = {f"{folder}/{CONFIG_FILE}": "iters", f"{folder}/{STATE_FILE}": "max_steps"}
    for path, content in source.read_starts(dict.fromkeys(places, _MOST_STATE_BYTES)).items():
        if isinstance(content, bytes):
            try:
                value = json.loads(content)[places[path]]
            except (ValueError, KeyError, TypeError, RecursionError):
                continue
            if isinstance(value, int) and value > 0:
                return value
    return None


def _iterations_between(checkpoints: Iterable[Checkpoint]) -> int:
    """The usual number of iterations between two checkpoints; at least 1."""
    iterations = sorted({checkpoint.iteration for checkpoint in checkpoints})
    gaps = [later - earlier for earlier, later in pairwise(iterations)]
    return int(statistics.median_low(gaps)) if gaps else 1


def _interval_s(checkpoints: Iterable[Checkpoint]) -> float | None:
    times = sorted(checkpoint.mtime_ns for checkpoint in checkpoints)
    gaps = [(later - earlier) / _S for earlier, later in pairwise(times)]
    interval_s = statistics.median(gaps) if len(gaps) >= _FEWEST_INTERVALS else 0.0
    return interval_s if interval_s >= _LEAST_INTERVAL_S else None
