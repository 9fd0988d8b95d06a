"""Many requests at once over threads: bounded, each result as it comes, all ended when nobody wants more."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import Empty, SimpleQueue
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_LOOK_EVERY_S = 0.1


def fan_out(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    at_once: int,
    cancelled: Callable[[], bool],
    stop: Callable[[], None],
) -> Generator[tuple[Item, Result], None, None]:
    """Yield each item with what `work` returns for it, in the order in which they end.

    `stop` must make every present and later call of `work` return soon. It is called once `cancelled` is true, when the
    iterator is closed, and when an exception goes through it.
    """
    pool = ThreadPoolExecutor(at_once, thread_name_prefix="model-request")
    # A queue of what has ended: waiting for a set of futures costs a step for each of them, every time.
    ended: SimpleQueue[Future[Result]] = SimpleQueue()
    stopped = False
    try:
        waiting = {pool.submit(work, item): item for item in items}
        for future in waiting:
            future.add_done_callback(ended.put)
        while waiting:
            if not stopped and cancelled():
                stopped = True
                stop()
            try:
                future = ended.get(timeout=_LOOK_EVERY_S)
            except Empty:
                continue
            yield waiting.pop(future), future.result()
    except BaseException:
        stop()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
