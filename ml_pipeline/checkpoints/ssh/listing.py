"""What is done in a remote folder tree, as tasks of a session: list folders, look at files, read their starts.

Every path is resolved by the peer first, and refused when it leads out of the base folder. Links are followed only
inside it. Names are data: they are never part of a command, and those that cannot be a name are dropped.
"""

from __future__ import annotations

import stat

from ml_pipeline.checkpoints.source import Entry, bad_link
from ml_pipeline.checkpoints.ssh import protocol
from ml_pipeline.checkpoints.ssh.protocol import (
    Attributes,
    Data,
    Handle,
    Names,
    Reply,
    SftpProtocolError,
    SftpRefusalError,
    Status,
)
from ml_pipeline.checkpoints.ssh.session import Task

MOST_ENTRIES = 200_000
LONGEST_PATH_BYTES = 4096
ROUND_TRIPS_TO_OPEN = 3
_SECOND_NS = 10**9
_READS_AT_ONCE = 2
"""A folder's entries and the sign of its end come with one round trip where OpenSSH sends up to 100 at a time."""


def resolve(path: str) -> Task[str]:
    """The path without links and `..`, absolute."""
    (reply,) = yield [protocol.realpath(path)]
    return _resolved(reply)


def list_folder(root: str, path: str) -> Task[tuple[list[Entry], list[str]]]:
    """The files and folders in `path`, and the names of its links, which `follow_link` looks at.

    `root` is the resolved base folder.
    """
    full = _join(root, path)
    where, opened = yield [protocol.realpath(full), protocol.open_folder(full)]
    handle = _handle(opened)
    try:
        _check_inside(root, where)
    except SftpRefusalError:
        yield [protocol.close(handle)]
        raise
    entries: list[Entry] = []
    links: list[str] = []
    at_end = False
    while not at_end:
        for reply in (yield [protocol.read_folder(handle)] * _READS_AT_ONCE):
            if isinstance(reply, Names) and reply.entries:
                _sort_in(reply, entries, links)
            elif isinstance(reply, Status) and reply.code == protocol.STATUS_EOF:
                at_end = True
            else:
                yield [protocol.close(handle)]
                raise _refusal(reply)
        if len(entries) + len(links) > MOST_ENTRIES:
            yield [protocol.close(handle)]
            raise SftpRefusalError(f"more than {MOST_ENTRIES} entries. Move what is no checkpoint elsewhere")
    yield [protocol.close(handle)]
    return entries, links


def follow_link(root: str, folder: str, name: str) -> Task[Entry | None]:
    """What a link in a folder leads to; an entry with trouble when that is nothing, or lies outside `root`."""
    full = _join(root, f"{folder}/{name}" if folder else name)
    where, what = yield [protocol.realpath(full), protocol.stat(full)]
    try:
        _check_inside(root, where)
        return _entry(name, _attributes(what))
    except SftpRefusalError as refusal:
        return bad_link(name, str(refusal))


def look_at(root: str, path: str) -> Task[Entry]:
    """Size and time of one file or folder."""
    full = _join(root, path)
    where, what = yield [protocol.realpath(full), protocol.stat(full)]
    _check_inside(root, where)
    entry = _entry(path.rpartition("/")[2], _attributes(what))
    if entry is None:
        raise SftpRefusalError("neither a file nor a folder")
    return entry


def open_regular(root: str, path: str) -> Task[tuple[bytes, int]]:
    """Open a file; its handle, and its size in bytes.

    What it is gets checked before it is opened, since opening a pipe would hang the server's whole session.
    """
    full = _join(root, path)
    where, what = yield [protocol.realpath(full), protocol.stat(full)]
    real = _check_inside(root, where)
    if not stat.S_ISREG(_attributes(what).mode or 0):
        raise SftpRefusalError("not a regular file")
    (opened,) = yield [protocol.open_file(real)]
    handle = _handle(opened)
    (now,) = yield [protocol.handle_stat(handle)]
    return handle, _attributes(now).size_bytes


def read_start(root: str, path: str, length: int) -> Task[bytes]:
    """The first `length` bytes of a file, or all of a shorter one."""
    handle, size_bytes = yield from open_regular(root, path)
    parts: list[bytes] = []
    done, end = 0, min(length, size_bytes)
    while done < end:
        (reply,) = yield [protocol.read(handle, done, min(protocol.SAFE_READ_BYTES, end - done))]
        part = data_of(reply, min(protocol.SAFE_READ_BYTES, end - done))
        if not part:
            break
        parts.append(part)
        done += len(part)
    yield [protocol.close(handle)]
    return b"".join(parts)


def data_of(reply: Reply, asked_bytes: int) -> bytes:
    """The content of a reply to a read; empty at the end of the file.

    Raises:
        SftpRefusalError: the peer could not read.
        SftpProtocolError: it sent more than was asked for, or nothing.
    """
    if isinstance(reply, Data):
        if not 0 < len(reply.content) <= asked_bytes:
            raise SftpProtocolError("the peer sent another length than was asked for")
        return reply.content
    if isinstance(reply, Status) and reply.code == protocol.STATUS_EOF:
        return b""
    raise _refusal(reply)


def _sort_in(reply: Names, entries: list[Entry], links: list[str]) -> None:
    for raw, attributes in reply.entries:
        if raw in (b".", b"..") or not raw or b"/" in raw or b"\0" in raw:
            continue
        name = protocol.decode_path(raw)
        if attributes.mode is None or stat.S_ISLNK(attributes.mode):
            links.append(name)
        elif entry := _entry(name, attributes):
            entries.append(entry)


def _entry(name: str, attributes: Attributes) -> Entry | None:
    mode = attributes.mode or 0
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        return None
    return Entry(name, stat.S_ISDIR(mode), attributes.size_bytes, attributes.mtime_s * _SECOND_NS)


def _join(root: str, path: str) -> str:
    full = f"{root.rstrip('/')}/{path}" if path else root
    if "\0" in path or len(protocol.encode_path(full)) > LONGEST_PATH_BYTES:
        raise SftpRefusalError("no possible path")
    return full


def _resolved(reply: Reply) -> str:
    if isinstance(reply, Names) and len(reply.entries) == 1:
        return protocol.decode_path(reply.entries[0][0])
    raise _refusal(reply)


def _check_inside(root: str, where: Reply) -> str:
    real = _resolved(where)
    if real != root and not real.startswith(f"{root.rstrip('/')}/"):
        raise SftpRefusalError(f"it leads out of {root}. Copy the files inside")
    return real


def _handle(reply: Reply) -> bytes:
    if isinstance(reply, Handle):
        return reply.value
    raise _refusal(reply)


def _attributes(reply: Reply) -> Attributes:
    if isinstance(reply, Attributes):
        return reply
    raise _refusal(reply)


def _refusal(reply: Reply) -> SftpRefusalError | SftpProtocolError:
    if isinstance(reply, Status) and reply.code > 0:
        return SftpRefusalError(reply.reason)
    return SftpProtocolError("the peer gave an answer that does not fit the question")
