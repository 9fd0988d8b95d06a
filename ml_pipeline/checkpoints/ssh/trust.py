"""Whether a machine is the one we know: its host key against known_hosts, in OpenSSH's format.

Read here and not by paramiko, which overlooks `@revoked` lines and patterns. An unknown or changed key is refused with
the command that mends it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ml_pipeline.errors import SourceRefusesError


@dataclass(frozen=True, slots=True)
class HostKey:
    """A machine's public key: its type and the key itself, as the wire has it."""

    type: str
    blob: bytes

    @property
    def fingerprint(self) -> str:
        """As `ssh-keygen -l` shows it."""
        return "SHA256:" + base64.b64encode(hashlib.sha256(self.blob).digest()).decode().rstrip("=")


@dataclass(frozen=True, slots=True)
class _Line:
    file: Path
    number: int
    marker: str
    patterns: tuple[str, ...]
    key: HostKey


def known_types(known_hosts: Sequence[Path], host: str, port: int, alias: str = "") -> list[str]:
    """The types of the keys that are known for a machine, so that it can be asked for one of them."""
    name = alias.lower() or _name(host, port)
    lines = [line for line in _lines(known_hosts) if not line.marker and _matches(line, name)]
    return list(dict.fromkeys(line.key.type for line in lines))


def check_host_key(
    where: str,
    key: HostKey,
    known_hosts: Sequence[Path],
    host: str,
    port: int,
    *,
    accept_new: bool,
    direct: bool = True,
    alias: str = "",
) -> None:
    """Refuse a machine whose key is not the known one. `direct` says that this machine reaches it without a jump.

    `alias` is the name under which it is known in the files, empty for its own. With `accept_new` the key of a machine
    of which none is known is recorded in the first file; a changed one never is.

    Raises:
        SourceRefusesError: the key is unknown, changed or revoked, or known_hosts cannot be read or written.
    """
    name, first = alias.lower() or _name(host, port), known_hosts[0]
    try:
        lines = [line for line in _lines(known_hosts) if _matches(line, name)]
        revoked = [line.file for line in lines if line.marker == "@revoked" and line.key.blob == key.blob]
        if revoked:
            raise SourceRefusesError(
                f"{where}: the host key {key.fingerprint} of {name} is revoked in {revoked[0]}. "
                "Ask whoever runs the machine for its new key."
            )
        known = [line for line in lines if not line.marker]
        if any(line.key.blob == key.blob for line in known):
            return
        if not known and accept_new:
            _record(first, name, key)
            return
    except OSError as error:
        raise SourceRefusesError(
            f"{where}: {error.filename or first} cannot be used: {error.strerror or error}. Mend the file or its "
            "permissions."
        ) from error
    if known:
        raise SourceRefusesError(_changed(where, key, known, name))
    raise SourceRefusesError(_unknown(where, key, first, name, host, port, direct and not alias))


def _unknown(where: str, key: HostKey, known_hosts: Path, name: str, host: str, port: int, direct: bool) -> str:
    file = shlex.quote(str(known_hosts))
    if direct:
        kind = "ecdsa" if key.type.startswith("ecdsa-") else key.type.removeprefix("ssh-")
        command = f"ssh-keyscan -t {kind} -p {port} {shlex.quote(host)} >> {file}"
    else:  # ssh-keyscan knows no jumps
        command = f"echo {shlex.quote(_entry(name, key))} >> {file}"
    return (
        f"{where}: the host key of {name} is not known. The machine shows {key.type} {key.fingerprint}. "
        "Compare that with what `ssh-keygen -lf` says there of its /etc/ssh/ssh_host_*_key.pub; if it is the same, "
        f"run: {command}"
    )


def _changed(where: str, key: HostKey, known: list[_Line], name: str) -> str:
    files = list(dict.fromkeys(line.file for line in known))
    before = "; ".join(
        f"{file} has "
        + ", ".join(f"{one.key.type} {one.key.fingerprint} in line {one.number}" for one in known if one.file == file)
        for file in files
    )
    commands = " && ".join(f"ssh-keygen -R {shlex.quote(name)} -f {shlex.quote(str(file))}" for file in files)
    return (
        f"{where}: the host key of {name} CHANGED: the machine shows {key.type} {key.fingerprint}, {before}. Somebody "
        "may be listening in between. If whoever runs the machine says that its key was changed, "
        f"run: {commands}"
    )


def _record(known_hosts: Path, name: str, key: HostKey) -> None:
    known_hosts.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(known_hosts, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
    with os.fdopen(descriptor, "rb+") as file:
        cut_short = file.seek(0, os.SEEK_END) > 0 and (file.seek(-1, os.SEEK_END), file.read(1))[1] != b"\n"
        file.write(("\n" if cut_short else "").encode() + f"{_entry(name, key)}\n".encode())


def _entry(name: str, key: HostKey) -> str:
    return f"{name} {key.type} {base64.b64encode(key.blob).decode()}"


def _name(host: str, port: int) -> str:
    return host.lower() if port == 22 else f"[{host.lower()}]:{port}"


def _lines(known_hosts: Sequence[Path]) -> Iterator[_Line]:
    for file in known_hosts:
        yield from _lines_of(file)


def _lines_of(file: Path) -> Iterator[_Line]:
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        marker = words.pop(0) if words and words[0].startswith("@") else ""
        if len(words) < 3 or words[0].startswith("#"):
            continue
        try:
            blob = base64.b64decode(words[2], validate=True)
        except (binascii.Error, ValueError):
            continue
        yield _Line(file, number, marker, tuple(words[0].split(",")), HostKey(words[1], blob))


def _matches(line: _Line, name: str) -> bool:
    matched = False
    for pattern in line.patterns:
        if pattern.startswith("!"):
            if _fits(pattern[1:], name):
                return False
        elif _fits(pattern, name):
            matched = True
    return matched


def _fits(pattern: str, name: str) -> bool:
    if pattern.startswith("|1|"):
        try:
            _, _, salt, digest = pattern.split("|")
            expected = base64.b64decode(digest, validate=True)
            return hmac.compare_digest(
                hmac.digest(base64.b64decode(salt, validate=True), name.encode(), "sha1"), expected
            )
        except ValueError:
            return False
    wild = re.escape(pattern.lower()).replace(r"\*", ".*").replace(r"\?", ".")
    return re.fullmatch(wild, name) is not None
