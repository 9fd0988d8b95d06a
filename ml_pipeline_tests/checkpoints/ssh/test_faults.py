"""A bad network, a bad machine, a wrong key: each is an error that says how to mend it, in bounded time."""

from __future__ import annotations

import shlex
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from ml_pipeline.checkpoints.discovery import discover
from ml_pipeline.checkpoints.ssh import SshFolder
from ml_pipeline.checkpoints.ssh.connection import ConnectionPool
from ml_pipeline.errors import SourceUnreachableError
from ml_pipeline_tests.servers import require_binary
from ml_pipeline_tests.sshd import Sshd, make_key, running_sshd, trust
from ml_pipeline_tests.tcp_proxy import TcpProxy, running_proxy

RUNS = 300


@pytest.fixture
def runs(root: Path) -> Path:
    """Many run folders with long names, so that a listing is more than one packet."""
    for number in range(RUNS):
        folder = root / f"adapters-{'x' * 80}-{number}"
        folder.mkdir()
        (folder / "1_adapters.safetensors").touch()
    return root


@contextmanager
def behind_proxy(sshd: Sshd, root: Path, pool: ConnectionPool, **changes: Any) -> Iterator[tuple[SshFolder, TcpProxy]]:
    with running_proxy(sshd.port) as proxy:
        trust(sshd.known_hosts, proxy.port, sshd.folder / "host_ed25519")
        yield SshFolder("mac", sshd.settings(root, port=proxy.port, **changes), pool), proxy
        pool.close()


def reached(proxy: TcpProxy, seconds: float = 0.3) -> int:
    """How many bytes have come, once no more come."""
    time.sleep(seconds)
    return proxy.to_client_bytes


def read_into(came: bytearray, file: BinaryIO) -> None:
    """Keep what comes, whatever happens then."""
    while piece := file.read(100_000):
        came += piece


def test_a_connection_that_died_while_idle_is_made_again(sshd: Sshd, runs: Path, pool: ConnectionPool) -> None:
    with behind_proxy(sshd, runs, pool) as (folder, proxy):
        for expected in (1, 2, 3):
            assert len(folder.list_folder("")) == RUNS
            assert proxy.connections == expected
            proxy.cut()


@pytest.mark.parametrize("cuts", [1, 2])
def test_a_cut_in_the_middle_of_a_listing_is_made_good_once_and_then_a_problem_of_this_source(
    sshd: Sshd, runs: Path, pool: ConnectionPool, cuts: int
) -> None:
    with behind_proxy(sshd, runs, pool) as (folder, proxy):
        folder.list_folder("")
        pool.close()
        proxy.cut_after_bytes, proxy.cuts_left = reached(proxy) + 10_000, cuts
        found = discover(folder, (), now_ns=time.time_ns(), settle_s=0)
        assert proxy.cuts_left == 0
        if cuts == 1:
            assert (len(found.checkpoints), found.problems) == (RUNS, [])
        else:
            assert (found.checkpoints, len(found.problems)) == ([], 1)
            assert "the connection to" in found.problems[0]
            assert len(discover(folder, (), now_ns=time.time_ns(), settle_s=0).checkpoints) == RUNS


def test_a_cut_in_the_middle_of_a_file_leaves_what_came_and_an_offset_goes_on_from_there(
    sshd: Sshd, root: Path, pool: ConnectionPool
) -> None:
    content = bytes(range(256)) * 80_000
    (root / "file").write_bytes(content)
    with behind_proxy(sshd, root, pool) as (folder, proxy):
        proxy.cut_after_bytes, proxy.cuts_left = 6_000_000, 1
        came = bytearray()
        with folder.open("file") as file, pytest.raises(SourceUnreachableError, match="the connection to"):
            read_into(came, file)
        assert 100_000 < len(came) < len(content)
        with folder.open("file", len(came)) as file:
            assert bytes(came) + file.read() == content


@pytest.mark.parametrize("at", ["connecting", "listing", "reading"])
def test_a_machine_that_stalls_is_given_up_in_time(sshd: Sshd, runs: Path, pool: ConnectionPool, at: str) -> None:
    (runs / "file").write_bytes(bytes(30_000_000))
    with behind_proxy(sshd, runs, pool, timeout_s=1, connect_timeout_s=1) as (folder, proxy):
        if at == "connecting":
            proxy.stall_after_bytes = 0
            start = time.monotonic()
            with pytest.raises(SourceUnreachableError, match="within 1 s: no answer in time"):
                folder.list_folder("")
        elif at == "listing":
            folder.list_folder("")
            proxy.stall_after_bytes = reached(proxy)
            start = time.monotonic()
            with pytest.raises(SourceUnreachableError, match=r"no answer in time.*timeout_s"):
                folder.list_folders(["adapters"])
        else:
            with folder.open("file") as file:
                file.read(1)
                proxy.stall_after_bytes = reached(proxy)
                start = time.monotonic()
                with pytest.raises(SourceUnreachableError, match="no answer in time"):
                    file.read()
        assert 0.5 < time.monotonic() - start < 4
        proxy.stall_after_bytes = None
        assert len(folder.list_folder("")) == RUNS + 1


@pytest.mark.parametrize("greeting", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-x\r\n" + b"\xff" * 5000])
def test_what_is_no_ssh_server_is_an_error(root: Path, pool: ConnectionPool, sshd: Sshd, greeting: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            client, _ = listener.accept()
            with client:
                client.sendall(greeting)
                time.sleep(2)

        thread = threading.Thread(target=serve)
        thread.start()
        port = listener.getsockname()[1]
        folder = SshFolder("mac", sshd.settings(root, port=port, connect_timeout_s=1), pool)
        with pytest.raises(SourceUnreachableError, match=rf"source mac: cannot connect to .*:{port} within 1 s"):
            folder.list_folder("")
        thread.join()


def test_nobody_at_the_port_is_an_error(root: Path, pool: ConnectionPool, sshd: Sshd) -> None:
    folder = SshFolder("mac", sshd.settings(root, port=1), pool)
    with pytest.raises(SourceUnreachableError, match="Connection refused"):
        folder.list_folder("")


def test_an_unknown_host_key_is_refused_and_the_command_shown_mends_it(
    sshd: Sshd, root: Path, pool: ConnectionPool, tmp_path: Path
) -> None:
    known_hosts = tmp_path / "its own" / "known_hosts"
    known_hosts.parent.mkdir()
    folder = SshFolder("mac", sshd.settings(root, known_hosts=known_hosts), pool)
    with pytest.raises(SourceUnreachableError, match="is not known") as caught:
        folder.list_folder("")
    message = str(caught.value)
    shown = subprocess.run(
        ["ssh-keygen", "-lf", sshd.folder / "host_ed25519.pub"], capture_output=True, text=True, check=True
    )
    assert shown.stdout.split()[1] in message
    subprocess.run(message.partition("run: ")[2], shell=True, check=True, capture_output=True)
    assert folder.list_folder("") == []


def test_a_changed_host_key_is_refused_even_when_new_ones_are_accepted(
    sshd: Sshd, root: Path, pool: ConnectionPool, tmp_path: Path
) -> None:
    known_hosts = tmp_path / "known_hosts"
    trust(known_hosts, sshd.port, make_key(tmp_path / "other"))
    before = known_hosts.read_bytes()
    folder = SshFolder("mac", sshd.settings(root, known_hosts=known_hosts, accept_new_host_key=True), pool)
    with pytest.raises(SourceUnreachableError, match=r"CHANGED.*in line 1") as caught:
        folder.list_folder("")
    assert known_hosts.read_bytes() == before
    command = shlex.split(str(caught.value).partition("run: ")[2])
    assert command == ["ssh-keygen", "-R", f"[127.0.0.1]:{sshd.port}", "-f", str(known_hosts)]
    subprocess.run(command, check=True, capture_output=True)
    assert folder.list_folder("") == []


def test_a_new_host_key_is_recorded_when_that_is_allowed(
    sshd: Sshd, root: Path, pool: ConnectionPool, tmp_path: Path
) -> None:
    known_hosts = tmp_path / "new" / "known_hosts"
    settings = sshd.settings(root, known_hosts=known_hosts, accept_new_host_key=True)
    assert SshFolder("mac", settings, pool).list_folder("") == []
    assert known_hosts.read_text() == sshd.known_hosts.read_text().splitlines(keepends=True)[0]
    assert known_hosts.stat().st_mode & 0o777 == 0o600
    pool.close()
    strict = sshd.settings(root, known_hosts=known_hosts)
    assert SshFolder("mac", strict, pool).list_folder("") == []


@pytest.mark.parametrize("kind", ["rsa", "ecdsa"])
def test_host_keys_of_other_kinds_are_verified(root: Path, pool: ConnectionPool, tmp_path: Path, kind: str) -> None:
    both = f"HostKey {make_key(tmp_path / 'unlisted')}"  # the server prefers this one, which is not the known one
    with running_sshd(tmp_path / "sshd", host_key_kind=kind, options=both) as server:
        assert SshFolder("mac", server.settings(root), pool).list_folder("") == []
        pool.close()


def test_a_wrong_key_is_refused_with_the_remedy(sshd: Sshd, root: Path, pool: ConnectionPool, tmp_path: Path) -> None:
    wrong = make_key(tmp_path / "wrong")
    folder = SshFolder("mac", sshd.settings(root, key_file=wrong), pool)
    with pytest.raises(SourceUnreachableError, match=r"took none of the keys .*wrong.*authorized_keys"):
        folder.list_folder("")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: make_key(path, passphrase="sesame"), "has a passphrase: load it into the agent with ssh-add"),
        (lambda path: path.write_text("no key"), "holds no private key"),
        (lambda path: path.mkdir(), "cannot be read"),
        (lambda path: None, "there is no key file"),
    ],
)
def test_a_key_that_cannot_be_used_says_why_and_shows_no_secret(
    sshd: Sshd,
    root: Path,
    pool: ConnectionPool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make: Any,
    message: str,
) -> None:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    key = tmp_path / "key"
    make(key)
    with pytest.raises(SourceUnreachableError, match=message) as caught:
        SshFolder("mac", sshd.settings(root, key_file=key), pool).list_folder("")
    assert "sesame" not in str(caught.value)
    assert "PRIVATE" not in str(caught.value)


@pytest.mark.parametrize("sftp", ["/nowhere/sftp-server", "/bin/echo Welcome to this machine", "/bin/false"])
def test_a_machine_without_sftp_is_told_apart_from_one_that_is_down(
    root: Path, pool: ConnectionPool, tmp_path: Path, sftp: str
) -> None:
    with running_sshd(tmp_path / "sshd", sftp=sftp) as server:
        folder = SshFolder("mac", server.settings(root), pool)
        for _ in range(2):
            with pytest.raises(SourceUnreachableError, match=r"offers no SFTP: .*Subsystem sftp"):
                folder.list_folder("")
        pool.close()


def test_a_machine_that_allows_one_session_is_used_with_one(root: Path, pool: ConnectionPool, tmp_path: Path) -> None:
    (root / "file").write_bytes(b"content")
    with running_sshd(tmp_path / "sshd", options="MaxSessions 1") as server:
        folder = SshFolder("mac", server.settings(root), pool)
        with folder.open("file") as file:
            with pytest.raises(SourceUnreachableError, match="MaxSessions"):
                folder.stat("file")
            assert file.read() == b"content"
        assert folder.stat("file").size_bytes == 7
        pool.close()


def test_a_program_for_sftp_instead_of_the_servers_own_works_too(
    root: Path, pool: ConnectionPool, tmp_path: Path
) -> None:
    program = require_binary("/usr/lib/openssh/sftp-server", "openssh-sftp-server")
    (root / "file").write_bytes(b"content")
    with running_sshd(tmp_path / "sshd", sftp=program) as server:
        folder = SshFolder("mac", server.settings(root), pool)
        with folder.open("file") as file:
            assert file.read() == b"content"
        pool.close()
