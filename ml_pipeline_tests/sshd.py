"""A real OpenSSH server on a loopback port, with keys and a configuration of its own, for the user of the tests."""

from __future__ import annotations

import base64
import getpass
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paramiko

from ml_pipeline.source_settings import SshSource
from ml_pipeline_tests.servers import free_port, require_binary, running

_PACKAGE = "openssh-server openssh-client"
_PRIVILEGE_SEPARATION = Path("/run/sshd")


@dataclass(frozen=True)
class Sshd:
    """A running server. `client_key` logs in; `known_hosts` holds the server's key."""

    folder: Path
    port: int
    client_key: Path
    known_hosts: Path

    def settings(self, path: Path, **changes: Any) -> SshSource:
        """A source of this server's machine."""
        given: dict[str, Any] = {
            "type": "ssh",
            "host": "127.0.0.1",
            "port": self.port,
            "user": getpass.getuser(),
            "key_file": self.client_key,
            "known_hosts": self.known_hosts,
            "path": str(path),
            "connect_timeout_s": 10,
            "timeout_s": 10,
        }
        return SshSource.model_validate(given | changes)

    def transport(self, port: int | None = None) -> paramiko.Transport:
        """A plain connection, logged in; `port` is that of a proxy before the server."""
        kind, blob = self.known_hosts.read_text().split()[1:3]
        transport = paramiko.Transport(("127.0.0.1", port or self.port))
        transport.connect(
            hostkey=paramiko.PKey.from_type_string(kind, base64.b64decode(blob)),
            username=getpass.getuser(),
            pkey=paramiko.PKey.from_path(self.client_key),
        )
        return transport

    def log(self) -> str:
        """What the server wrote."""
        return (self.folder / "sshd.log").read_text(errors="replace")


def make_key(path: Path, *, kind: str = "ed25519", passphrase: str = "") -> Path:
    """A private key, and its public one beside it."""
    keygen = require_binary("ssh-keygen", "openssh-client")
    subprocess.run([keygen, "-q", "-t", kind, "-N", passphrase, "-f", str(path)], check=True)
    return path


def trust(known_hosts: Path, port: int, host_key: Path) -> None:
    """Add a server's key to a file of known hosts."""
    kind, blob, *_ = host_key.with_suffix(".pub").read_text().split()
    with known_hosts.open("a") as file:
        file.write(f"[127.0.0.1]:{port} {kind} {blob}\n")


@contextmanager
def running_sshd(
    folder: Path,
    *,
    port: int | None = None,
    host_key_kind: str = "ed25519",
    options: str = "",
    sftp: str = "internal-sftp",
) -> Iterator[Sshd]:
    """Run a server until the end of the body; `folder` keeps its keys, so that a second run there has the same."""
    program = require_binary("/usr/sbin/sshd", _PACKAGE)
    folder.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    host_key, client_key = folder / f"host_{host_key_kind}", folder / "client_ed25519"
    for key, kind in ((host_key, host_key_kind), (client_key, "ed25519")):
        if not key.exists():
            make_key(key, kind=kind)
    (folder / "authorized_keys").write_bytes(client_key.with_suffix(".pub").read_bytes())
    known_hosts = folder / "known_hosts"
    known_hosts.unlink(missing_ok=True)
    trust(known_hosts, port, host_key)
    config = folder / "sshd_config"
    config.write_text(_config(folder, port, host_key, options, sftp))
    if os.geteuid() == 0:  # a server of root needs it, and Debian makes it only when it starts its own
        _PRIVILEGE_SEPARATION.mkdir(mode=0o755, exist_ok=True)
    with running([program, "-D", "-e", "-f", str(config)], folder / "sshd.log", lambda: _answers(port)):
        yield Sshd(folder, port, client_key, known_hosts)


def _config(folder: Path, port: int, host_key: Path, options: str, sftp: str) -> str:
    return f"""{options}
Port {port}
ListenAddress 127.0.0.1
HostKey {host_key}
AuthorizedKeysFile {folder}/authorized_keys
PidFile none
StrictModes no
UsePAM no
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
MaxStartups 100
LogLevel VERBOSE
Subsystem sftp {sftp}
"""


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        try:
            probe.connect(("127.0.0.1", port))
            return probe.recv(4) == b"SSH-"
        except OSError:
            return False
