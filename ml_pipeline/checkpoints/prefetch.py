"""Fetches the next checkpoint while the model works on this one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from itertools import pairwise
from threading import Event, Thread

from ml_pipeline.checkpoints.checkpoint import Checkpoint
from ml_pipeline.checkpoints.fetch import FetchedFiles
from ml_pipeline.checkpoints.transfer import Progress

Fetch = Callable[[Checkpoint, Progress, Event], FetchedFiles]

_LONGEST_GOODBYE_S = 5.0
_SHOW_EVERY_S = 0.2


class Prefetcher:
    """Hands out checkpoints one after another, with one more on its way in a thread of its own.

    `order` is the order in which they will be taken; any other works too, but gains nothing. Not for several callers
    at once. `close` it at the end.
    """

    def __init__(self, fetch: Fetch, order: Sequence[Checkpoint]) -> None:
        self._fetch = fetch
        self._next = {this.key: following for this, following in pairwise(order)}
        self._ahead: _Fetching | None = None
        if order:
            self._start(order[0])

    def take(self, checkpoint: Checkpoint, progress: Progress) -> FetchedFiles:
        """The files of this checkpoint; afterwards the one that follows it is on its way.

        `progress` is called in this thread for as long as it has to wait.

        Raises:
            What fetching this checkpoint raised, if need be in the other thread a while ago.
        """
        if self._ahead is None or self._ahead.checkpoint != checkpoint:
            self._start(checkpoint)
        assert self._ahead is not None
        try:
            return self._ahead.wait(progress)
        finally:
            following = self._next.get(checkpoint.key)
            if self._ahead.is_over and following is not None:
                self._start(following)

    def close(self) -> None:
        """Stop what is on its way; what came of it is kept for the next time."""
        if self._ahead is not None:
            self._ahead.stop()
            self._ahead = None

    def _start(self, checkpoint: Checkpoint) -> None:
        self.close()
        self._ahead = _Fetching(self._fetch, checkpoint)


class _Fetching:
    """One fetch in a thread, which does not keep the program alive: a source may hang for a while.

    Files that nobody takes are let go with the object.
    """

    def __init__(self, fetch: Fetch, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self._seen = (0, checkpoint.size_bytes)
        self._stop = Event()
        self._result: Future[FetchedFiles] = Future()
        self._thread = Thread(target=self._run, args=(fetch,), name=f"fetch {checkpoint.key}", daemon=True)
        self._thread.start()

    @property
    def is_over(self) -> bool:
        return self._result.done()

    def wait(self, progress: Progress) -> FetchedFiles:
        while not self._result.done():
            wait([self._result], _SHOW_EVERY_S)
            progress(*self._seen)
        return self._result.result()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(_LONGEST_GOODBYE_S)

    def _run(self, fetch: Fetch) -> None:
        try:
            files = fetch(self.checkpoint, self._note, self._stop)
        except BaseException as error:
            self._result.set_exception(error)
        else:
            self._result.set_result(files)

    def _note(self, here: int, total: int) -> None:
        self._seen = (here, total)
