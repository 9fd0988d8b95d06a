"""Makes requests as often as it takes, within bounds, and no more at once than the server takes well."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Any, TypeVar

from ml_pipeline.backend_settings import HttpSettings
from ml_pipeline.backends.http.client import ApiClient, ServerError
from ml_pipeline.backends.http.gate import Gate, Turn
from ml_pipeline.backends.http.waits import back_off
from ml_pipeline.backends.http_answer import HttpError

Result = TypeVar("Result")


class Requester:
    """One server, asked patiently."""

    def __init__(self, client: ApiClient, settings: HttpSettings) -> None:
        self.client = client
        self.gate = Gate(settings.concurrency)
        self._attempts = settings.attempts
        self._longest_wait_s = settings.longest_wait_s

    async def insist(self, ask: Callable[[Turn], Awaitable[Result]]) -> Result:
        """Return what `ask` returns, which is called again while that may help; raises its last HttpError."""
        for attempt in count():
            try:
                async with self.gate.turn() as turn:
                    return await self._once(ask, turn)
            except HttpError as error:
                wait_s = self._wait_s(attempt, error)
            await asyncio.sleep(wait_s)
        raise AssertionError("count() does not end")

    async def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Insist on one JSON object; raises HttpError."""
        return await self.insist(lambda _: self.client.post(path, body))

    async def post_unless_refused(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """As `post`, for what the server may not know: an error of its own is not asked again.

        llama_cpp.server answers 500 to fields that it does not know, where others answer 400.
        """

        async def ask(_: Turn) -> dict[str, Any]:
            try:
                return await self.client.post(path, body)
            except ServerError as error:
                error.again = error.again and not error.is_refusal
                raise

        return await self.insist(ask)

    async def post_as_it_can(self, path: str, bodies: list[dict[str, Any]]) -> tuple[int, dict[str, Any]]:
        """The answer to the first of these bodies that is not refused, and its place among them; raises HttpError."""
        for place, body in enumerate(bodies[:-1]):
            try:
                return place, await self.post_unless_refused(path, body)
            except ServerError as error:
                if not error.is_refusal:
                    raise
        return len(bodies) - 1, await self.post(path, bodies[-1])

    async def _once(self, ask: Callable[[Turn], Awaitable[Result]], turn: Turn) -> Result:
        try:
            result = await ask(turn)
        except ServerError as error:
            if error.busy:
                asked_s = error.retry_after_s or 0.0
                # Longer waits are errors, see `_wait_s`: nobody waits for them.
                turn.overloaded(asked_s if asked_s <= self._longest_wait_s else 0.0)
            raise
        turn.went_well()
        return result

    def _wait_s(self, attempt: int, error: HttpError) -> float:
        if not error.again or attempt + 1 >= self._attempts:
            raise error
        asked_s = error.retry_after_s if isinstance(error, ServerError) else None
        if asked_s is None:
            return back_off(attempt, self._longest_wait_s)
        if asked_s > self._longest_wait_s:
            raise ServerError(
                f"{error}. It asks to wait {asked_s:.0f} s, more than longest_wait_s ({self._longest_wait_s:g}).",
                again=False,
            ) from error
        # Whoever was told the same time does not come back at the same moment.
        return asked_s + back_off(0, self._longest_wait_s)
