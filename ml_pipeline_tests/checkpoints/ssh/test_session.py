"""A session with a peer that answers late, in pieces, in another order, too much, or nonsense."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any

import pytest

from ml_pipeline.checkpoints.ssh import protocol
from ml_pipeline.checkpoints.ssh.protocol import Data, Reply, Request, SftpProtocolError, SftpRefusalError, Status
from ml_pipeline.checkpoints.ssh.reader import RemoteFile, bytes_ahead
from ml_pipeline.checkpoints.ssh.session import SftpSession

GREETING = struct.pack(">IBI", 5, 2, 3)
CONTENT = bytes(range(256)) * 3000


def data(request_id: int, content: bytes) -> bytes:
    return struct.pack(">IBII", 9 + len(content), 103, request_id, len(content)) + content


def status(request_id: int, code: int) -> bytes:
    return struct.pack(">IBII", 9, 101, request_id, code)


def reads(stream: socket.socket) -> Iterator[tuple[int, bytes]]:
    """Id and the rest of each request to read that comes."""
    with stream.makefile("rb") as file:
        while len(head := file.read(4)) == 4:
            packet = file.read(struct.unpack(">I", head)[0])
            kind, request_id = struct.unpack_from(">BI", packet)
            if kind == 5:
                yield request_id, packet[5:]


@pytest.fixture
def start() -> Iterator[Callable[..., SftpSession]]:
    """Start a session whose peer does what it is told."""
    ours, theirs = socket.socketpair()
    threads: list[threading.Thread] = []

    def begin(peer: Callable[[socket.socket], None], timeout_s: float = 5) -> SftpSession:
        def serve() -> None:
            try:
                peer(theirs)
            except OSError:
                return

        threads.append(threading.Thread(target=serve))
        threads[0].start()
        return SftpSession(ours, timeout_s)

    yield begin
    ours.close()
    theirs.close()
    for thread in threads:
        thread.join(5)
        assert not thread.is_alive()


def one_read() -> Generator[list[Request], list[Reply], Reply]:
    (reply,) = yield [protocol.read(b"h", 0, 3)]
    return reply


def answering(answer: Callable[[socket.socket, int], object]) -> Callable[[socket.socket], None]:
    def peer(stream: socket.socket) -> None:
        stream.sendall(GREETING)
        for request_id, _ in reads(stream):
            answer(stream, request_id)

    return peer


def test_tasks_get_their_own_replies_in_whatever_order_they_come(start: Callable[..., SftpSession]) -> None:
    def peer(stream: socket.socket) -> None:
        stream.sendall(GREETING)
        waiting = []
        for request_id, rest in reads(stream):
            waiting.append((request_id, rest))
            if len(waiting) == 10:
                for later_id, asked in reversed(waiting):
                    stream.sendall(data(later_id, asked[5:13]))
                waiting = []

    def two_reads(number: int) -> Generator[list[Request], list[Reply], list[int]]:
        replies = yield [protocol.read(b"h", number, 8), protocol.read(b"h", number + 1000, 8)]
        return [struct.unpack(">Q", reply.content)[0] for reply in replies if isinstance(reply, Data)]

    session = start(peer)
    assert session.run({number: two_reads(number) for number in range(50)}) == {
        number: [number, number + 1000] for number in range(50)
    }


def test_a_task_that_is_refused_leaves_the_others(start: Callable[..., SftpSession]) -> None:
    def refused() -> Generator[list[Request], list[Reply], Reply]:
        yield [protocol.read(b"h", 0, 3)]
        raise SftpRefusalError("no")

    session = start(answering(lambda stream, request_id: stream.sendall(data(request_id, b"abc"))))
    results = session.run({"good": one_read(), "bad": refused()})
    assert results["good"] == Data(b"abc")
    assert str(results["bad"]) == "no"


def trickle(stream: socket.socket, request_id: int) -> None:
    for byte in data(request_id, bytes(100)):
        stream.sendall(bytes([byte]))
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (lambda stream, request_id: stream.sendall(data(request_id + 7, b"abc")), SftpProtocolError),
        (lambda stream, request_id: stream.sendall(struct.pack(">I", 2**31) + bytes(100)), SftpProtocolError),
        (lambda stream, request_id: stream.sendall(struct.pack(">I", 0)), SftpProtocolError),
        (
            lambda stream, request_id: stream.sendall(b"\0\0\0\x05\x07" + struct.pack(">I", request_id)),
            SftpProtocolError,
        ),
        (lambda stream, request_id: stream.shutdown(socket.SHUT_RDWR), EOFError),
        (lambda stream, request_id: None, TimeoutError),
        (trickle, TimeoutError),
    ],
)
def test_a_bad_answer_is_an_error_in_bounded_time(
    start: Callable[..., SftpSession], answer: Callable[[socket.socket, int], object], error: type[Exception]
) -> None:
    session = start(answering(answer), timeout_s=0.5)
    started = time.monotonic()
    with pytest.raises(error):
        session.run_one(one_read())
    assert time.monotonic() - started < 2


@pytest.mark.parametrize("greeting", [b"\0\0\0\5\2\0\0\0\2", b"\0\0\0\5\x65\0\0\0\3", b"Welcome to this machine!\n"])
def test_what_does_not_greet_as_sftp_is_refused(start: Callable[..., SftpSession], greeting: bytes) -> None:
    with pytest.raises(SftpProtocolError):
        start(lambda stream: stream.sendall(greeting))


class Peer:
    """Serves one file, in answers of at most so many bytes, and counts what is asked for."""

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes, self.asked_bytes = most_bytes, 0

    def __call__(self, stream: socket.socket) -> None:
        stream.sendall(GREETING)
        for request_id, rest in reads(stream):
            offset, length = struct.unpack_from(">QI", rest, 5)
            self.asked_bytes += length
            part = CONTENT[offset : offset + min(length, self.most_bytes)]
            stream.sendall(data(request_id, part) if part else status(request_id, 1))


class Guard:
    def __enter__(self) -> None:
        return

    def __exit__(self, *error: object) -> None:
        return


def remote_file(session: SftpSession, closed: list[bool], **changes: Any) -> RemoteFile:
    given = {"size_bytes": len(CONTENT), "offset": 0, "ahead_bytes": 2**20} | changes
    return RemoteFile(session, b"h", guard=Guard, on_close=closed.append, **given)


@pytest.mark.parametrize("most_bytes", [2**15, 20_000, 32_767])
@pytest.mark.parametrize("offset", [0, 12_345])
def test_short_answers_are_made_whole(start: Callable[..., SftpSession], most_bytes: int, offset: int) -> None:
    file = remote_file(start(Peer(most_bytes)), [], offset=offset)
    assert file.read(100_000) + file.read() == CONTENT[offset:]
    assert file.tell() == len(CONTENT)


def test_a_short_look_asks_for_little_and_its_session_can_be_used_again(start: Callable[..., SftpSession]) -> None:
    peer, closed = Peer(2**15), list[bool]()
    file = remote_file(start(peer), closed)
    assert file.read(8) == CONTENT[:8]
    assert peer.asked_bytes == protocol.SAFE_READ_BYTES
    file.close()
    file.close()
    assert closed == [True]
    with pytest.raises(ValueError, match="closed"):
        file.read(1)


def test_a_file_closed_with_answers_under_way_gives_its_session_up(start: Callable[..., SftpSession]) -> None:
    closed: list[bool] = []
    file = remote_file(start(Peer(2**15)), closed)
    file.read(200_000)
    file.close()
    assert closed == [False]


def test_a_refusal_in_the_middle_is_raised(start: Callable[..., SftpSession]) -> None:
    session = start(answering(lambda stream, request_id: stream.sendall(status(request_id, 4))))
    with pytest.raises(SftpRefusalError, match="failure"):
        remote_file(session, []).read(1)
    assert Status(99).reason == "SFTP status 99"


@pytest.mark.parametrize(("round_trip_s", "expected"), [(0, 2**20), (0.001, 2**20), (0.03, 7_500_000), (9, 2**24)])
def test_how_much_is_asked_ahead_follows_the_round_trip(round_trip_s: float, expected: int) -> None:
    assert bytes_ahead(round_trip_s) == expected
