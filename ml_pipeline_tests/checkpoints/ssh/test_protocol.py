"""SFTP packets, worked out by hand from the draft, and what a hostile peer may send."""

from __future__ import annotations

import struct
from collections.abc import Generator, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_pipeline.checkpoints.ssh import listing, protocol
from ml_pipeline.checkpoints.ssh.protocol import (
    Attributes,
    Data,
    Handle,
    Names,
    Reply,
    Request,
    SftpProtocolError,
    SftpRefusalError,
    Status,
)

REGULAR = Attributes(0o100644, 5, 7)
FOLDER = Attributes(0o040755, 0, 7)
LINK = Attributes(0o120777, 3, 7)


def text(value: bytes) -> bytes:
    return struct.pack(">I", len(value)) + value


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (protocol.open_folder("/r\xfc"), "0b 00000001 00000004 2f72c3bc"),
        (protocol.realpath("."), "10 00000001 00000001 2e"),
        (protocol.read_folder(b"\x09"), "0c 00000001 00000001 09"),
        (protocol.close(b"h"), "04 00000001 00000001 68"),
        (protocol.read(b"h", 258, 3), "05 00000001 00000001 68 0000000000000102 00000003"),
        (protocol.open_file("f"), "03 00000001 00000001 66 00000001 00000000"),
    ],
)
def test_requests_are_those_of_the_draft(request_: Request, expected: str) -> None:
    packet = request_.packet(1)
    assert struct.unpack_from(">I", packet) == (len(packet) - 4,)
    assert packet[4:].hex() == expected.replace(" ", "")


@pytest.mark.parametrize(
    ("packet", "reply"),
    [
        (b"\x65" + struct.pack(">II", 1, 2) + text(b"no") + text(b""), Status(2)),
        (b"\x66" + struct.pack(">I", 1) + text(b"h"), Handle(b"h")),
        (b"\x67" + struct.pack(">I", 1) + text(b"abc"), Data(b"abc")),
        (b"\x69" + struct.pack(">IIQIIIII", 1, 15, 5, 0, 0, 0o100644, 9, 7), REGULAR),
        (b"\x69" + struct.pack(">IIQ", 1, 1, 5), Attributes(None, 5, 0)),
        (b"\x69" + struct.pack(">IIII", 1, 8, 9, 7), Attributes(None, 0, 7)),
        (
            b"\x69" + struct.pack(">IIII", 1, 0x80000004, 0o100644, 1) + text(b"key") + text(b"value"),
            Attributes(0o100644, 0, 0),
        ),
        (
            b"\x68" + struct.pack(">II", 1, 1) + text(b"\xff") + text(b"-rw") + struct.pack(">II", 4, 0o040755),
            Names([(b"\xff", Attributes(0o040755, 0, 0))]),
        ),
    ],
)
def test_replies_are_those_of_the_draft_and_cut_ones_are_refused(packet: bytes, reply: Reply) -> None:
    assert protocol.decode(packet) == (1, reply)
    for length in range(len(packet) - (len(text(b"no")) + 4 if isinstance(reply, Status) else 0)):
        with pytest.raises(SftpProtocolError):
            protocol.decode(packet[:length])


@given(st.binary(max_size=200))
def test_no_packet_does_more_than_raise_a_protocol_error(packet: bytes) -> None:
    for kind in (b"", b"\x65\0\0\0\1", b"\x68\0\0\0\1", b"\x69\0\0\0\1", b"\xc9\0\0\0\1"):
        try:
            protocol.decode(kind + packet)
        except SftpProtocolError:
            continue


def play(task: Generator[Sequence[Request], list[Reply], Any], *rounds: list[Reply]) -> Any:
    """The result of a task whose requests get these replies; closing gets none."""
    replies = iter(rounds)
    requests = next(task)
    try:
        while True:
            requests = task.send([] if all(r.unawaited for r in requests) else next(replies))
    except StopIteration as stop:
        return stop.value


def names(*entries: tuple[bytes, Attributes]) -> Names:
    return Names(list(entries))


ROOT = names((b"/base", FOLDER))
END: Reply = Status(protocol.STATUS_EOF)


def test_names_that_cannot_be_are_dropped() -> None:
    hostile = [(name, REGULAR) for name in (b".", b"..", b"", b"../up", b"a/b", b"a\0b", b"good")]
    entries, links = play(
        listing.list_folder("/base", ""), [ROOT, Handle(b"h")], [names(*hostile, (b"link", LINK)), END]
    )
    assert [entry.name for entry in entries] == ["good"]
    assert links == ["link"]


def test_a_folder_without_end_is_given_up() -> None:
    many = names(*((f"{number}".encode(), REGULAR) for number in range(50_001)))
    with pytest.raises(SftpRefusalError, match="more than 200000 entries"):
        play(listing.list_folder("/base", ""), [ROOT, Handle(b"h")], [many, many], [many, many])


@pytest.mark.parametrize(
    ("real", "inside"),
    [(b"/base/x", True), (b"/base", True), (b"/based", False), (b"/", False), (b"base/x", False), (b"/bas", False)],
)
def test_only_what_lies_in_the_base_folder_is_used(real: bytes, inside: bool) -> None:
    task = listing.look_at("/base", "x")
    if inside:
        assert play(task, [names((real, FOLDER)), REGULAR]).size_bytes == 5
    else:
        with pytest.raises(SftpRefusalError, match="leads out of /base"):
            play(task, [names((real, FOLDER)), REGULAR])


@pytest.mark.parametrize("replies", [[Data(b"x"), REGULAR], [ROOT, Handle(b"h")], [names(), REGULAR], [REGULAR, ROOT]])
def test_an_answer_that_does_not_fit_is_a_broken_peer(replies: list[Reply]) -> None:
    with pytest.raises(SftpProtocolError, match="does not fit"):
        play(listing.look_at("/base", ""), replies)


@pytest.mark.parametrize("content", [b"", b"toolong"])
def test_a_piece_of_another_length_is_a_broken_peer(content: bytes) -> None:
    with pytest.raises(SftpProtocolError, match="another length"):
        listing.data_of(Data(content), 3)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (struct.pack(">QQQQ", 262144, 261120, 261120, 0), 261120),
        (struct.pack(">QQQQ", 0, 2**63, 0, 0), protocol.LARGEST_READ_BYTES),
        (struct.pack(">QQQQ", 0, 0, 0, 0), protocol.SAFE_READ_BYTES),
        (b"short", protocol.SAFE_READ_BYTES),
    ],
)
def test_the_limit_of_a_read_is_what_the_peer_says_within_reason(content: bytes, expected: int) -> None:
    assert protocol.read_limit(protocol.ExtendedReply(content)) == expected
