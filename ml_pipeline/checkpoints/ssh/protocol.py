"""The part of the SFTP protocol, version 3, that reading needs: requests to bytes, and bytes of a peer to replies.

Source: draft-ietf-secsh-filexfer-02, and PROTOCOL of OpenSSH for `limits@openssh.com`. Everything that comes from the
peer is checked; what does not fit raises `SftpProtocolError`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

VERSION = 3
LARGEST_PACKET_BYTES = 2**20
"""Longer packets than any server sends (OpenSSH: 256 KiB) are refused instead of being kept in memory."""
SAFE_READ_BYTES = 2**15
"""Every server answers reads of this size in one piece."""
LARGEST_READ_BYTES = 2**18 - 1024
LIMITS_EXTENSION = b"limits@openssh.com"

_INIT, _VERSION, _OPEN, _CLOSE, _READ, _OPENDIR, _READDIR, _REALPATH, _STAT, _FSTAT = 1, 2, 3, 4, 5, 11, 12, 16, 17, 8
_STATUS, _HANDLE, _DATA, _NAME, _ATTRS, _EXTENDED, _EXTENDED_REPLY = 101, 102, 103, 104, 105, 200, 201
_HAS_SIZE, _HAS_OWNER, _HAS_MODE, _HAS_TIMES, _HAS_MORE = 1, 2, 4, 8, 0x80000000
_FOR_READING = 1
_LONGEST_HANDLE_BYTES = 256

STATUS_EOF = 1
_STATUS_WORDS = {
    2: "no such file or folder",
    3: "permission denied",
    4: "failure",
    5: "bad message",
    8: "not supported",
}


class SftpProtocolError(Exception):
    """The peer sent what is no SFTP, or no answer to what was asked."""


class SftpRefusalError(Exception):
    """The peer could not do one request; the others are not touched."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request without its id. Of an `unawaited` one (closing a handle) the answer is dropped."""

    kind: int
    payload: bytes
    unawaited: bool = False

    def packet(self, request_id: int) -> bytes:
        """The bytes to send."""
        return struct.pack(">IBI", 5 + len(self.payload), self.kind, request_id) + self.payload


@dataclass(frozen=True, slots=True)
class Attributes:
    """What the peer says of a file: POSIX mode or None, size in bytes, modification time in s since 1970."""

    mode: int | None
    size_bytes: int
    mtime_s: int


@dataclass(frozen=True, slots=True)
class Status:
    """An answer that holds no data: done, the end of a file or folder, or a refusal."""

    code: int

    @property
    def reason(self) -> str:
        """The refusal in our own words, since the peer's are not trusted."""
        return _STATUS_WORDS.get(self.code, f"SFTP status {self.code}")


@dataclass(frozen=True, slots=True)
class Handle:
    """An open file or folder."""

    value: bytes


@dataclass(frozen=True, slots=True)
class Data:
    """A piece of a file."""

    content: bytes


@dataclass(frozen=True, slots=True)
class Names:
    """Some entries of a folder, or one resolved path."""

    entries: list[tuple[bytes, Attributes]]


@dataclass(frozen=True, slots=True)
class ExtendedReply:
    """The answer to an extension's request."""

    content: bytes


Reply = Status | Handle | Data | Names | Attributes | ExtendedReply


def encode_path(path: str) -> bytes:
    """A path as the peer has it: names that are no UTF-8 come and go unharmed."""
    return path.encode("utf-8", "surrogateescape")


def decode_path(path: bytes) -> str:
    """The reverse of `encode_path`."""
    return path.decode("utf-8", "surrogateescape")


def init_packet() -> bytes:
    """The first packet."""
    return struct.pack(">IBI", 5, _INIT, VERSION)


def extensions(packet: bytes) -> set[bytes]:
    """The names of the extensions in the answer to `init_packet`."""
    if len(packet) < 5 or packet[0] != _VERSION or struct.unpack_from(">I", packet, 1)[0] < VERSION:
        raise SftpProtocolError("the peer does not speak SFTP version 3")
    names, offset = set(), 5
    while offset < len(packet):
        name, offset = _string(packet, offset)
        _, offset = _string(packet, offset)
        names.add(name)
    return names


def realpath(path: str) -> Request:
    """Ask for the path without links and `..`; answered by `Names` of one."""
    return _request(_REALPATH, encode_path(path))


def stat(path: str) -> Request:
    """Ask for attributes, links followed; answered by `Attributes`."""
    return _request(_STAT, encode_path(path))


def open_folder(path: str) -> Request:
    """Answered by `Handle`."""
    return _request(_OPENDIR, encode_path(path))


def read_folder(handle: bytes) -> Request:
    """Ask for the next entries; answered by `Names`, and `Status` of STATUS_EOF after the last."""
    return _request(_READDIR, handle)


def open_file(path: str) -> Request:
    """Open for reading; answered by `Handle`."""
    return Request(_OPEN, _packed(encode_path(path)) + struct.pack(">II", _FOR_READING, 0))


def handle_stat(handle: bytes) -> Request:
    """Ask for the attributes of an open file; answered by `Attributes`."""
    return _request(_FSTAT, handle)


def read(handle: bytes, offset: int, length: int) -> Request:
    """Ask for a piece of an open file; answered by `Data`, perhaps shorter, or `Status` of STATUS_EOF."""
    return Request(_READ, _packed(handle) + struct.pack(">QI", offset, length))


def close(handle: bytes) -> Request:
    """Close a file or folder; nobody waits for the answer."""
    return Request(_CLOSE, _packed(handle), unawaited=True)


def ask_limits() -> Request:
    """Ask how long packets may be; answered by `ExtendedReply`, see `read_limit`."""
    return _request(_EXTENDED, LIMITS_EXTENSION)


def read_limit(reply: Reply) -> int:
    """The longest read that is answered in one piece, in bytes."""
    if isinstance(reply, ExtendedReply) and len(reply.content) >= 16:
        (_, longest) = struct.unpack_from(">QQ", reply.content)
        return min(longest, LARGEST_READ_BYTES) if longest >= SAFE_READ_BYTES else SAFE_READ_BYTES
    return SAFE_READ_BYTES


def decode(packet: bytes) -> tuple[int, Reply]:
    """The request id and the reply of one packet (without its length).

    Raises:
        SftpProtocolError: it is no reply.
    """
    try:
        kind, request_id = struct.unpack_from(">BI", packet)
        return request_id, _reply(kind, packet)
    except (struct.error, IndexError) as error:
        raise SftpProtocolError("the peer sent a damaged SFTP packet") from error


def _reply(kind: int, packet: bytes) -> Reply:
    if kind == _DATA:
        return Data(_string(packet, 5)[0])
    if kind == _NAME:
        return _names(packet)
    if kind == _STATUS:
        return Status(struct.unpack_from(">I", packet, 5)[0])
    if kind == _HANDLE:
        handle, _ = _string(packet, 5)
        if len(handle) > _LONGEST_HANDLE_BYTES:
            raise SftpProtocolError("the peer sent an SFTP handle that is too long")
        return Handle(handle)
    if kind == _ATTRS:
        return _attributes(packet, 5)[0]
    if kind == _EXTENDED_REPLY:
        return ExtendedReply(packet[5:])
    raise SftpProtocolError(f"the peer sent an SFTP packet of unknown kind {kind}")


def _names(packet: bytes) -> Names:
    (count,) = struct.unpack_from(">I", packet, 5)
    entries, offset = [], 9
    for _ in range(count):
        name, offset = _string(packet, offset)
        (skipped,) = struct.unpack_from(">I", packet, offset)  # the line for people, as `ls -l` has it
        attributes, offset = _attributes(packet, offset + 4 + skipped)
        entries.append((name, attributes))
    return Names(entries)


_USUAL = struct.Struct(">IQIIIII")
_USUAL_FLAGS = _HAS_SIZE | _HAS_OWNER | _HAS_MODE | _HAS_TIMES


def _attributes(packet: bytes, offset: int) -> tuple[Attributes, int]:
    (flags,) = struct.unpack_from(">I", packet, offset)
    if flags == _USUAL_FLAGS:  # what OpenSSH always sends, in one step
        _, size_bytes, _, _, mode, _, mtime_s = _USUAL.unpack_from(packet, offset)
        return Attributes(mode, size_bytes, mtime_s), offset + _USUAL.size
    offset += 4
    size_bytes, mode, mtime_s = 0, None, 0
    if flags & _HAS_SIZE:
        (size_bytes,) = struct.unpack_from(">Q", packet, offset)
        offset += 8
    if flags & _HAS_OWNER:
        offset += 8
    if flags & _HAS_MODE:
        (mode,) = struct.unpack_from(">I", packet, offset)
        offset += 4
    if flags & _HAS_TIMES:
        _, mtime_s = struct.unpack_from(">II", packet, offset)
        offset += 8
    if flags & _HAS_MORE:
        (count,) = struct.unpack_from(">I", packet, offset)
        offset += 4
        for _ in range(count):
            _, offset = _string(packet, offset)
            _, offset = _string(packet, offset)
    return Attributes(mode, size_bytes, mtime_s), offset


def _string(packet: bytes, offset: int) -> tuple[bytes, int]:
    (length,) = struct.unpack_from(">I", packet, offset)
    end = offset + 4 + length
    if end > len(packet):
        raise SftpProtocolError("the peer sent an SFTP packet that is cut short")
    return packet[offset + 4 : end], end


def _packed(text: bytes) -> bytes:
    return struct.pack(">I", len(text)) + text


def _request(kind: int, text: bytes) -> Request:
    return Request(kind, _packed(text))
