"""How much work one suite may cost to load: whatever a stranger's suite asks for, reading it ends soon.

Counted in steps and not in seconds, so that a suite that loads on one machine loads on every one. A step is about a
microsecond.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

MOST_STEPS = 10_000_000
_spent: ContextVar[list[int] | None] = ContextVar("spent", default=None)


class WorkError(ValueError):
    """A suite that costs too much."""


@contextmanager
def bounded_work() -> Iterator[None]:
    """Until the end of the body `MOST_STEPS` may be spent, in all; one inside another counts with it."""
    if _spent.get() is not None:
        yield
        return
    token = _spent.set([0])
    try:
        yield
    finally:
        _spent.reset(token)


def spend(steps: int) -> None:
    """Count some steps; raises WorkError when they are too many. Outside of `bounded_work` nothing is counted."""
    if (spent := _spent.get()) is not None:
        spent[0] += steps
        if spent[0] > MOST_STEPS:
            raise WorkError(
                f"reading this suite takes more than {MOST_STEPS:,} steps of work; make fewer probes, of shorter texts "
                "and simpler expressions and patterns, or cut the suite in two"
            )
