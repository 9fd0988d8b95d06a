"""A real sshd on loopback that lets the present user run commands and tunnel, and a wire to it that can be cut."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import paramiko

from ml_pipeline_tests.servers import free_port, require_binary, running

_PRIVILEGE_FOLDER = Path("/run/sshd")
_PIECE_BYTES = 1 << 16
_CONFIG = """
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
AllowTcpForwarding {forwarding}
"""


@dataclass(frozen=True)
class Sshd:
    """A running sshd and what is needed to get in."""

    port: int
    host_key: paramiko.PKey
    user_key: paramiko.PKey

    def transport(self, port: int | None = None) -> paramiko.Transport:
        """A new connection, host key checked; `port` is that of a wire to it."""
        transport = paramiko.Transport(("127.0.0.1", port or self.port))
        transport.connect(hostkey=self.host_key, username=getpass.getuser(), pkey=self.user_key)
        return transport


@contextmanager
def running_sshd(folder: Path, *, forwarding: str = "yes") -> Iterator[Sshd]:
    """Run sshd with keys of its own until the end of the body."""
    # sshd starts itself again for each connection and insists on its full path.
    binary = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    binary = binary or require_binary("sshd", "openssh-server")
    if os.geteuid() == 0:
        _PRIVILEGE_FOLDER.mkdir(mode=0o755, exist_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    host_key, user_key = paramiko.ECDSAKey.generate(), paramiko.ECDSAKey.generate()
    host_key.write_private_key_file(str(folder / "host_key"))
    (folder / "authorized_keys").write_text(f"{user_key.get_name()} {user_key.get_base64()}\n")
    port = free_port()
    config = folder / "sshd_config"
    config.write_text(_CONFIG.format(port=port, folder=folder, forwarding=forwarding))

    def listens() -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as probe:
            return probe.recv(4) == b"SSH-"
        return False

    with running([binary, "-D", "-e", "-f", str(config)], folder / "sshd.log", listens):
        yield Sshd(port, host_key, user_key)


class Wire:
    """Forwards a loopback port to another; it can be cut, or fall silent with every connection still open."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []
        self._flows = threading.Event()
        self._flows.set()
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def cut(self) -> None:
        """Break every connection; new ones can be made."""
        for end in self._sockets:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self._sockets.clear()

    def fall_silent(self) -> None:
        """Let nothing through any more."""
        self._flows.clear()

    def close(self) -> None:
        self._listener.close()
        self._flows.set()
        self.cut()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
                self._sockets += [near, far]
                for ends in ((near, far), (far, near)):
                    threading.Thread(target=self._pump, args=ends, daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(_PIECE_BYTES):
                self._flows.wait()
                sink.sendall(piece)
            sink.shutdown(socket.SHUT_WR)
