"""Seconds for a run of checkpoints when the next is fetched while one is worked on, against one after the other.

    python -m ml_pipeline_tests.benchmarks.prefetch [--json] [--repeats N]

The source gives 40 MB/s and the work on a checkpoint takes as long as a fetch, which is where most can be gained; both
are waits, so that only the overlap is measured. The copying itself is the pipeline's own, into a real cache.

- ours: Prefetcher.
- one_after_the_other: the same fetches and the same work in one thread.
- limit: one fetch and all the work, what a perfect overlap would take.
"""

from __future__ import annotations

import argparse
import io
import tempfile
import time
from pathlib import Path
from threading import Event
from typing import Any, BinaryIO, cast

from ml_pipeline.checkpoints.cache_room import CacheRoom
from ml_pipeline.checkpoints.checkpoint import Checkpoint
from ml_pipeline.checkpoints.fetch import FetchCache, FetchedFiles
from ml_pipeline.checkpoints.prefetch import Prefetcher
from ml_pipeline.checkpoints.source import LocalFolder
from ml_pipeline.checkpoints.transfer import Progress
from ml_pipeline_tests.benchmarks.result import compare, interleaved, medians, print_result
from ml_pipeline_tests.checkpoints.sources import add_weights, checkpoints_of

CHECKPOINTS = 6
SIZE_BYTES = 8_000_000
BYTES_PER_S = 40e6
WORK_S = SIZE_BYTES / BYTES_PER_S


class SlowFolder(LocalFolder):
    """A local folder behind a slow line."""

    def open(self, path: str, offset: int = 0) -> BinaryIO:
        return cast(BinaryIO, _SlowFile(super().open(path, offset)))


class _SlowFile(io.RawIOBase):
    def __init__(self, inner: BinaryIO) -> None:
        self._inner = inner

    def read(self, size: int = -1) -> Any:
        chunk = self._inner.read(size)
        time.sleep(len(chunk) / BYTES_PER_S)
        return chunk

    def close(self) -> None:
        self._inner.close()
        super().close()


def silent(here: int, total: int) -> None:
    """Nobody looks."""


def prefetched(root: Path) -> float:
    """Seconds with the next checkpoint on its way during the work."""
    source, cache, checkpoints = _fresh(root)

    def fetch(checkpoint: Checkpoint, progress: Progress, stop: Event) -> FetchedFiles:
        return cache.fetch(source, checkpoint, progress, stop)

    start = time.perf_counter()
    prefetcher = Prefetcher(fetch, checkpoints)
    for checkpoint in checkpoints:
        prefetcher.take(checkpoint, silent)
        time.sleep(WORK_S)
    prefetcher.close()
    return time.perf_counter() - start


def one_after_the_other(root: Path) -> float:
    """Seconds when nothing overlaps."""
    source, cache, checkpoints = _fresh(root)
    start = time.perf_counter()
    for checkpoint in checkpoints:
        cache.fetch(source, checkpoint)
        time.sleep(WORK_S)
    return time.perf_counter() - start


def _fresh(root: Path) -> tuple[SlowFolder, FetchCache, list[Checkpoint]]:
    source = SlowFolder("slow", root / "runs")
    cache = FetchCache(CacheRoom(Path(tempfile.mkdtemp(dir=root)), 10**12), 10**12)
    return source, cache, checkpoints_of(source)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for iteration in range(1, CHECKPOINTS + 1):
            add_weights(root / "runs", SIZE_BYTES, iteration=iteration)
        figures = medians(
            interleaved(
                {"ours": lambda: prefetched(root), "one_after_the_other": lambda: one_after_the_other(root)},
                arguments.repeats,
            )
        )
    figures["limit"] = SIZE_BYTES / BYTES_PER_S + CHECKPOINTS * WORK_S
    context = {"checkpoints": CHECKPOINTS, "megabytes_each": SIZE_BYTES / 1e6, "work_s_each": WORK_S}
    print_result(compare("prefetch", "s", figures, more_is_better=False, context=context), as_json=arguments.json)


if __name__ == "__main__":
    main()
