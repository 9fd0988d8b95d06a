"""How long work tells that it goes on: one small interface, log lines for Dagster, bars for a terminal.

What is told may hold names and words of other machines: it is text here, never markup, and moves no cursor.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from ml_pipeline.printable import printable, without_controls

_SECONDS_BETWEEN_LINES = 10.0


class ProgressListener(Protocol):
    """Hears of work as it goes on."""

    def step(self, title: str, done: int, total: int) -> None:
        """`done` of `total` units of the step called `title` are finished; the last call has done == total."""

    def note(self, text: str) -> None:
        """Something worth a line happened."""


class LogProgress:
    """Writes lines to a log: at the start and the end of every step, and every ten seconds between."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._title = ""
        self._last = 0.0

    def step(self, title: str, done: int, total: int) -> None:
        """Write a line when it is time for one."""
        now = time.monotonic()
        if title != self._title or done == total or now - self._last >= _SECONDS_BETWEEN_LINES:
            self._title, self._last = title, now
            self._write(f"{printable(title)}: {done} of {total}")

    def note(self, text: str) -> None:
        """Write the line."""
        self._write(without_controls(text))


class RichProgress:
    """Bars on a terminal; on anything else the lines of LogProgress."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._lines = None if console.is_terminal else LogProgress(self._print)
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )
        self._task: TaskID | None = None
        self._title = ""

    def step(self, title: str, done: int, total: int) -> None:
        """Move the bar of this step."""
        title = printable(title)
        if self._lines is not None:
            self._lines.step(title, done, total)
            return
        if title != self._title:
            if self._task is not None:
                self._bars.remove_task(self._task)
            self._title, self._task = title, self._bars.add_task(title, total=total)
        assert self._task is not None
        self._bars.update(self._task, completed=done, total=total)

    def note(self, text: str) -> None:
        """Print the line above the bar."""
        self._print(without_controls(text))

    def _print(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False)

    def __enter__(self) -> RichProgress:
        if self._lines is None:
            self._bars.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._lines is None:
            self._bars.stop()


_listener: ContextVar[ProgressListener | None] = ContextVar("progress_listener", default=None)


@contextmanager
def listening(listener: ProgressListener) -> Iterator[None]:
    """Let `listener` hear of the work done inside, in place of Dagster's log."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def current_listener(log: Callable[[str], None]) -> ProgressListener:
    """The listener of this context, or lines to `log` when there is none."""
    return _listener.get() or LogProgress(log)
