"""Asking a backend for many completions such that whatever ends the asking leaves nothing under way."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from contextlib import contextmanager

from ml_pipeline.backends.interface import Backend, Completion, CompletionRequest
from ml_pipeline.errors import RunCancelledError


@contextmanager
def answering(
    backend: Backend, requests: Sequence[CompletionRequest], cancelled: Callable[[], bool]
) -> Iterator[Iterator[Completion]]:
    """The completions of `requests` as they end. Leaving the context, by Ctrl-C too, ends what still runs."""
    completions = backend.complete(requests, cancelled=cancelled)
    try:
        yield completions
    finally:
        # An exception's traceback would keep the iterator alive, and the backend busy.
        if isinstance(completions, Generator):
            completions.close()


def demand_all(completions: Collection[Completion], what: str) -> None:
    """Raise RunCancelledError if some of these were cancelled: half of an evaluation is never stored as a whole one."""
    if lost := sum(completion.finish_reason == "cancelled" for completion in completions):
        raise RunCancelledError(
            f"cancelled: {lost} of {len(completions)} {what} were not finished. Run again to go on from there: the "
            "others are in the completion cache."
        )
