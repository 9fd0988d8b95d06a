"""An event loop in a thread of its own: what runs there can be ended at any time, also while it waits for a server."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Coroutine, Generator
from typing import Any, TypeVar

from ml_pipeline.errors import BackendError

Result = TypeVar("Result")

_LOOK_EVERY_S = 0.1
_END = object()


class LoopThread:
    """Runs coroutines for a caller that knows none."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="http-backend", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Wait for what it returns or raises; Ctrl-C ends it."""
        if self._loop.is_closed():
            work.close()
            raise BackendError("this http backend is closed. Make a new one.")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        finally:
            future.cancel()

    def iterate(
        self, work: Callable[[Callable[[Result], None]], Coroutine[Any, Any, None]], look: Callable[[], None]
    ) -> Generator[Result, None, None]:
        """Yield what `work` gives to the function it is called with, until it returns, and raise what it raises.

        `look` is called again and again meanwhile. Closing the iterator cancels the work and waits for its end.
        """
        found: queue.SimpleQueue[Any] = queue.SimpleQueue()
        task = self.run(self._begin(work, found))
        ended = False
        try:
            while not ended:
                look()
                try:
                    item = found.get(timeout=_LOOK_EVERY_S)
                except queue.Empty:
                    continue
                ended = item is _END
                if not ended:
                    yield item
        finally:
            if not self._loop.is_closed():
                self._loop.call_soon_threadsafe(task.cancel)
            while not ended:
                ended = found.get() is _END
        task.result()

    def call(self, action: Callable[[], object]) -> None:
        """Have the loop call a function soon."""
        self._loop.call_soon_threadsafe(action)

    def close(self) -> None:
        """End all that runs, and the loop. Safe to call twice."""
        if self._loop.is_closed():
            return
        self.run(_end_the_others())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @staticmethod
    async def _begin(
        work: Callable[[Callable[[Result], None]], Coroutine[Any, Any, None]], found: queue.SimpleQueue[Any]
    ) -> asyncio.Task[None]:
        task = asyncio.create_task(work(found.put))
        task.add_done_callback(lambda _: found.put(_END))
        return task


async def _end_the_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
