"""A backend does one thing at a time, and nothing once it is closed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ml_pipeline.errors import BackendError


class OneAtATime:
    """Refuses a call while another of the same backend is under way, such as an answer iterator nobody used up."""

    def __init__(self) -> None:
        self._busy_with: str | None = None
        self._closed = False

    @contextmanager
    def during(self, what: str) -> Iterator[None]:
        """Be busy with `what` for as long as the context lasts; raises BackendError when that cannot be."""
        if self._closed:
            raise BackendError(f"{what}: this backend is closed. Make a new one.")
        if self._busy_with is not None:
            raise BackendError(f"{what}: {self._busy_with} is still under way. Use up or close its iterator first.")
        self._busy_with = what
        try:
            yield
        finally:
            self._busy_with = None

    def close(self) -> bool:
        """Allow nothing more; returns whether it was open until now."""
        was_open, self._closed = not self._closed, True
        return was_open
