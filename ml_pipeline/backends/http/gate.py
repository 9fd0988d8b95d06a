"""How many requests may be under way at once: as many as the server takes well, never more than the setting."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

_CUT = 0.5
_ROUNDS = 8


class Gate:
    """Additive increase, multiplicative decrease (Chiu and Jain, 1989), as TCP does.

    The limit starts at `most`, grows by one for every eight full rounds that went well, and is halved by an overload:
    once for all requests that were already under way, because they tell of the same one. For use in one event loop.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._limit = float(most)
        self._running = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._cut_at = float("-inf")
        self._opens_at = float("-inf")

    @property
    def limit(self) -> int:
        """How many may be under way now."""
        return int(self._limit)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[Turn]:
        """Wait for a place, first come first served, and hold it."""
        await self._enter()
        try:
            yield Turn(self)
        finally:
            self._leave()

    def grow(self) -> None:
        """One request went well."""
        self._limit = min(self._most, self._limit + 1 / (_ROUNDS * self._limit))
        self._admit()

    def shrink(self, began_at: float) -> None:
        """A request that began then met an overload."""
        if began_at >= self._cut_at:
            self._limit = max(1.0, self._limit * _CUT)
            self._cut_at = asyncio.get_running_loop().time()

    def pause(self, wait_s: float) -> None:
        """Let nobody begin for so long."""
        loop = asyncio.get_running_loop()
        self._opens_at = max(self._opens_at, loop.time() + wait_s)
        loop.call_at(self._opens_at, self._admit)

    async def _enter(self) -> None:
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        self._admit()
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self._leave()
            raise

    def _leave(self) -> None:
        self._running -= 1
        self._admit()

    def _admit(self) -> None:
        if asyncio.get_running_loop().time() < self._opens_at:
            return
        while self._waiting and self._running < self.limit:
            place = self._waiting.popleft()
            if not place.done():
                self._running += 1
                place.set_result(None)


class Turn:
    """One request's time under way, and what it tells the gate."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._began_at = asyncio.get_running_loop().time()
        self._begun = False
        self._slow = False

    def first_piece(self, slow_s: float) -> None:
        """The answer begins or goes on; if it began later than `slow_s` after its request, that is an overload."""
        if not self._begun and asyncio.get_running_loop().time() - self._began_at > slow_s:
            self.overloaded()
        self._begun = True

    def overloaded(self, pause_s: float = 0.0) -> None:
        """The server has too much to do, and asks for a pause."""
        self._slow = True
        self._gate.shrink(self._began_at)
        if pause_s > 0:
            self._gate.pause(pause_s)

    def went_well(self) -> None:
        """The answer is whole."""
        if not self._slow:
            self._gate.grow()
