"""Sending line protocol: what a server answers, and how one bad line is found among good ones."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of sending lines: written; rejected (they never will be); unavailable (try again later); and why."""

    kind: Literal["written", "rejected", "unavailable"]
    reason: str = ""


class LineSender(Protocol):
    """Sends line protocol to a server."""

    def send(self, lines: Sequence[str]) -> Answer:
        """Send the lines in one request, within a time-out, and say what came of it; never raises for the network."""


@dataclass(frozen=True, slots=True)
class Sent:
    """What came of `send_lines`: of the first `decided` lines the server took all but those in `bad`.

    `bad` has the server's reason by line. `stopped_because` is empty when every line was decided.
    """

    decided: int
    bad: Mapping[str, str]
    stopped_because: str = ""


class BoundedSender:
    """Sends through another sender until its time is over, and then says that the server is not available."""

    def __init__(self, sender: LineSender, seconds: float) -> None:
        self._sender = sender
        self._seconds = seconds
        self._ends_at = time.monotonic() + seconds

    def send(self, lines: Sequence[str]) -> Answer:
        """Send the lines, unless the time is over."""
        if time.monotonic() >= self._ends_at:
            return Answer("unavailable", f"the {self._seconds:g} s for one look are over; the rest goes next time")
        return self._sender.send(lines)


def send_lines(sender: LineSender, lines: Sequence[str]) -> Sent:
    """Send lines in order, halving what is rejected until the bad lines stand alone."""
    if not lines:
        return Sent(0, {})
    answer = sender.send(lines)
    if answer.kind == "unavailable":
        return Sent(0, {}, answer.reason or "the server is not available")
    if answer.kind == "written":
        return Sent(len(lines), {})
    if len(lines) == 1:
        return Sent(1, {lines[0]: answer.reason})
    middle = len(lines) // 2
    first = send_lines(sender, lines[:middle])
    if first.stopped_because:
        return first
    rest = send_lines(sender, lines[middle:])
    return Sent(middle + rest.decided, {**first.bad, **rest.bad}, rest.stopped_because)
