"""One SFTP session over a channel, with many requests under way at once.

Work is written as tasks: generators that yield the requests to send together and are resumed with their replies. The
session keeps many tasks going over the one channel, so that a round trip is paid once for all of them. A session
belongs to one thread at a time.
"""

from __future__ import annotations

import struct
import time
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from ml_pipeline.checkpoints.ssh import protocol
from ml_pipeline.checkpoints.ssh.protocol import Reply, Request, SftpProtocolError, SftpRefusalError

Key = TypeVar("Key")
Result = TypeVar("Result")
Task = Generator[Sequence[Request], list[Reply], Result]

# A server stops reading requests while nobody takes its replies, so what is under way must fit its input buffers.
_TASKS_AT_ONCE = 256
_RECEIVE_BYTES = 2**17


class SftpSession:
    """Sends requests and hands replies to whoever waits for them."""

    def __init__(self, channel: Any, timeout_s: float) -> None:
        """Greet the peer.

        `channel` is a paramiko channel whose subsystem `sftp` was started.

        Raises:
            SftpProtocolError: the peer does not speak SFTP.
            EOFError, OSError: the connection is gone, or nothing came for `timeout_s` seconds.
        """
        self.channel = channel
        self.read_bytes = protocol.SAFE_READ_BYTES
        """The longest piece of a file that one request may ask for."""
        self._timeout_s = timeout_s
        self._received = bytearray()
        self._waiting: dict[int, Callable[[Reply], None]] = {}
        self._next_id = 0
        self._outgoing: list[bytes] = []
        channel.settimeout(timeout_s)
        channel.sendall(protocol.init_packet())
        if protocol.LIMITS_EXTENSION in protocol.extensions(self._packet()):
            self.send(protocol.ask_limits(), self._set_limits)

    def close(self) -> None:
        """Close the channel; handles that are open there are closed by the peer."""
        self.channel.close()

    def send(self, request: Request, on_reply: Callable[[Reply], None]) -> None:
        """Queue a request; `flush` sends it, and `receive` calls `on_reply`."""
        self._next_id = (self._next_id + 1) & 0xFFFFFFFF
        self._waiting[self._next_id] = on_reply
        self._outgoing.append(request.packet(self._next_id))

    def flush(self) -> None:
        """Send what is queued, in as few packets as the channel allows."""
        if self._outgoing:
            self.channel.settimeout(self._timeout_s)
            self.channel.sendall(b"".join(self._outgoing))
            self._outgoing.clear()

    def receive(self) -> None:
        """Wait for at least one reply, and hand over it and those that came with it.

        Raises:
            SftpProtocolError: the peer sent nonsense.
            EOFError, OSError: the connection is gone, or nothing came in time.
        """
        self.flush()
        packet: bytes | None = self._packet()
        while packet is not None:
            request_id, reply = protocol.decode(packet)
            on_reply = self._waiting.pop(request_id, None)
            if on_reply is None:
                raise SftpProtocolError("the peer answered what was not asked")
            on_reply(reply)
            packet = self._buffered_packet()

    def run(self, tasks: Mapping[Key, Task[Result]]) -> dict[Key, Result | SftpRefusalError]:
        """Bring all tasks to their end, many at a time; a task that is refused gives its refusal as result.

        Raises as `receive` does; then none of the results is known.
        """
        results: dict[Key, Result | SftpRefusalError] = {}
        todo = deque(tasks.items())
        running = 0

        def ended(key: Key, result: Result | SftpRefusalError) -> None:
            nonlocal running
            running -= 1
            results[key] = result

        while todo or running:
            while todo and running < _TASKS_AT_ONCE:
                key, task = todo.popleft()
                running += 1
                self._advance(key, task, None, ended)
            if running:
                self.receive()
        self.flush()
        return results

    def run_one(self, task: Task[Result]) -> Result:
        """Bring one task to its end.

        Raises:
            SftpRefusalError: the peer could not do it.
            SftpProtocolError, EOFError, OSError: as `receive`.
        """
        result = self.run({"": task})[""]
        if isinstance(result, SftpRefusalError):
            raise result
        return result

    def _advance(
        self,
        key: Key,
        task: Task[Result],
        replies: list[Reply] | None,
        ended: Callable[[Key, Result | SftpRefusalError], None],
    ) -> None:
        """Resume a task until it waits for replies again, or ends."""
        while True:
            try:
                requests = next(task) if replies is None else task.send(replies)
            except StopIteration as stop:
                ended(key, stop.value)
                return
            except SftpRefusalError as refusal:
                ended(key, refusal)
                return
            awaited = [request for request in requests if not request.unawaited]
            for request in requests:
                if request.unawaited:
                    self.send(request, _ignore)
            if awaited:
                self._send_together(awaited, lambda got: self._advance(key, task, got, ended))
                return
            replies = []

    def _send_together(self, requests: Sequence[Request], on_replies: Callable[[list[Reply]], None]) -> None:
        replies: dict[int, Reply] = {}

        def took(index: int, reply: Reply) -> None:
            replies[index] = reply
            if len(replies) == len(requests):
                on_replies([replies[position] for position in range(len(requests))])

        for index, request in enumerate(requests):
            self.send(request, partial(took, index))

    def _set_limits(self, reply: Reply) -> None:
        self.read_bytes = protocol.read_limit(reply)

    def _packet(self) -> bytes:
        """The next whole packet; a peer that sends it byte by byte gets no more time than one that sends nothing."""
        deadline = time.monotonic() + self._timeout_s
        while (packet := self._buffered_packet()) is None:
            self.channel.settimeout(max(0.001, deadline - time.monotonic()))
            chunk = self.channel.recv(_RECEIVE_BYTES)
            if not chunk:
                raise EOFError("the peer closed the connection")
            self._received += chunk
        return packet

    def _buffered_packet(self) -> bytes | None:
        buffer = self._received
        if len(buffer) < 4:
            return None
        (length,) = struct.unpack_from(">I", buffer)
        if not 5 <= length <= protocol.LARGEST_PACKET_BYTES:
            raise SftpProtocolError("the peer sent an SFTP packet of a length that cannot be")
        if len(buffer) < 4 + length:
            return None
        packet = bytes(memoryview(buffer)[4 : 4 + length])
        del buffer[: 4 + length]
        return packet


def _ignore(reply: Reply) -> None:
    """Take the reply to an unawaited request."""
