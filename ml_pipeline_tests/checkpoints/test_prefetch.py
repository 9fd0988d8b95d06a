"""The next checkpoint comes while this one is worked on; its errors come in its own turn."""

from __future__ import annotations

import errno
import threading
from pathlib import Path
from threading import Event

import pytest

from ml_pipeline.checkpoints.cache_room import CacheRoom
from ml_pipeline.checkpoints.checkpoint import Checkpoint
from ml_pipeline.checkpoints.fetch import FetchCache, FetchedFiles
from ml_pipeline.checkpoints.prefetch import Prefetcher
from ml_pipeline.checkpoints.transfer import Progress
from ml_pipeline.errors import CheckpointError
from ml_pipeline_tests.checkpoints.sources import FaultySource, add_weights, checkpoints_of

SIZE = 200_000
PATIENCE_S = 20.0


def silent(here: int, total: int) -> None:
    """Nobody looks."""


class Fetches:
    """A real cache on a local folder that notes which fetches began and ended, and in which thread."""

    def __init__(self, folder: Path, count: int) -> None:
        for iteration in range(1, count + 1):
            add_weights(folder / "mac", SIZE, iteration=iteration)
        self.source = FaultySource("mac", folder / "mac")
        self.cache = FetchCache(CacheRoom(folder / "cache", 10**9), 10**7, waits_s=())
        self.checkpoints = checkpoints_of(self.source)
        self.began = {c.iteration: Event() for c in self.checkpoints}
        self.ended = {c.iteration: Event() for c in self.checkpoints}
        self.order: list[int] = []

    def __call__(self, checkpoint: Checkpoint, progress: Progress, stop: Event) -> FetchedFiles:
        assert threading.current_thread() is not threading.main_thread()
        self.order.append(checkpoint.iteration)
        self.began[checkpoint.iteration].set()
        try:
            return self.cache.fetch(self.source, checkpoint, progress, stop)
        finally:
            self.ended[checkpoint.iteration].set()


def test_the_next_one_is_fetched_while_this_one_is_worked_on(tmp_path: Path) -> None:
    fetches = Fetches(tmp_path, 3)
    one, two, three = fetches.checkpoints
    prefetcher = Prefetcher(fetches, fetches.checkpoints)
    assert fetches.ended[1].wait(PATIENCE_S), "the first is on its way before anybody asks"
    assert not fetches.began[2].is_set(), "one ahead, no more"
    prefetcher.take(one, silent)
    assert fetches.ended[2].wait(PATIENCE_S), "the second came while the first was worked on"
    assert not fetches.began[3].is_set()
    files = prefetcher.take(two, silent)
    assert files.weights.stat().st_size == SIZE
    prefetcher.take(three, silent)
    prefetcher.close()
    assert fetches.order == [1, 2, 3]
    assert fetches.source.read_bytes == 3 * SIZE


def test_an_error_waits_for_its_own_turn_and_stops_nobody_else(tmp_path: Path) -> None:
    fetches = Fetches(tmp_path, 3)
    one, two, three = fetches.checkpoints
    (fetches.source.root / two.file).unlink()
    prefetcher = Prefetcher(fetches, fetches.checkpoints)
    prefetcher.take(one, silent)
    assert fetches.ended[2].wait(PATIENCE_S)
    with pytest.raises(CheckpointError, match="0000002_adapters"):
        prefetcher.take(two, silent)
    assert fetches.began[3].wait(PATIENCE_S)
    assert prefetcher.take(three, silent).weights.exists()
    prefetcher.close()


def test_any_other_order_works_too(tmp_path: Path) -> None:
    fetches = Fetches(tmp_path, 3)
    one, two, three = fetches.checkpoints
    prefetcher = Prefetcher(fetches, [one, two])
    for checkpoint in (three, two, two, one):
        assert prefetcher.take(checkpoint, silent).weights.exists()
    prefetcher.close()


def test_closing_stops_the_transfer_and_keeps_what_came(tmp_path: Path) -> None:
    fetches = Fetches(tmp_path, 1)
    half, go_on = Event(), Event()

    def hang() -> None:
        half.set()
        go_on.wait(PATIENCE_S)

    fetches.source.breaks = [(50_000, OSError(errno.EIO, "broken")), (50_000, OSError(errno.EIO, "broken"))]
    fetches.source.at_byte = {50_000: hang}
    prefetcher = Prefetcher(fetches, fetches.checkpoints)
    assert half.wait(PATIENCE_S)
    closing = threading.Thread(target=prefetcher.close)
    closing.start()
    go_on.set()
    closing.join(PATIENCE_S)
    assert fetches.ended[1].is_set()
    (part,) = (fetches.cache.folder / "parts").iterdir()
    assert part.stat().st_size == 50_000


def test_it_shows_how_far_it_is_in_the_thread_that_waits(tmp_path: Path) -> None:
    fetches = Fetches(tmp_path, 1)
    shown: list[tuple[int, int]] = []
    go_on = Event()

    def show(here: int, total: int) -> None:
        assert threading.current_thread() is threading.main_thread()
        shown.append((here, total))
        go_on.set()

    fetches.source.at_byte = {1: lambda: go_on.wait(PATIENCE_S)}
    prefetcher = Prefetcher(fetches, fetches.checkpoints)
    prefetcher.take(fetches.checkpoints[0], show)
    prefetcher.close()
    assert shown[-1] == (SIZE, SIZE)


def test_an_interrupt_while_waiting_goes_through(tmp_path: Path) -> None:
    fetches = Fetches(tmp_path, 2)
    go_on = Event()

    def interrupt(here: int, total: int) -> None:
        raise KeyboardInterrupt

    fetches.source.at_byte = {1: lambda: go_on.wait(PATIENCE_S)}
    prefetcher = Prefetcher(fetches, fetches.checkpoints)
    with pytest.raises(KeyboardInterrupt):
        prefetcher.take(fetches.checkpoints[0], interrupt)
    go_on.set()
    prefetcher.close()
    assert fetches.ended[1].is_set()
    assert fetches.order == [1]


def test_without_an_order_nothing_is_fetched_ahead(tmp_path: Path) -> None:
    fetches = Fetches(tmp_path, 2)
    prefetcher = Prefetcher(fetches, [])
    assert fetches.order == []
    prefetcher.take(fetches.checkpoints[1], silent)
    prefetcher.close()
    assert fetches.order == [2]
