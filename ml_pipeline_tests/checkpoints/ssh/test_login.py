"""Ways in: the agent, an encrypted key that the agent holds, jumps, and ~/.ssh/config."""

from __future__ import annotations

import getpass
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ml_pipeline.checkpoints.ssh import SshFolder
from ml_pipeline.checkpoints.ssh.connection import ConnectionPool
from ml_pipeline.checkpoints.ssh.route import Hop, plan_route
from ml_pipeline.errors import SettingsError, SourceUnreachableError
from ml_pipeline.source_settings import SshSource
from ml_pipeline_tests.servers import require_binary
from ml_pipeline_tests.sshd import Sshd, make_key, running_sshd

ME = getpass.getuser()


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A running agent without keys."""
    address = tmp_path / "agent"
    command = [require_binary("ssh-agent", "openssh-client"), "-D", "-a", str(address)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while not address.exists():
            assert process.poll() is None
        monkeypatch.setenv("SSH_AUTH_SOCK", str(address))
        yield address
        process.terminate()


def add(key: Path) -> None:
    subprocess.run(["ssh-add", "-q", str(key)], check=True, stdin=subprocess.DEVNULL)


def test_a_key_of_the_agent_lets_in(
    sshd: Sshd, root: Path, pool: ConnectionPool, agent: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(root))  # no keys of the user who runs the tests
    add(sshd.client_key)
    assert SshFolder("mac", sshd.settings(root, key_file=None), pool).list_folder("") == []
    pool.close()
    subprocess.run(["ssh-add", "-q", "-D"], check=True)
    with pytest.raises(SourceUnreachableError, match="there is no key"):
        SshFolder("mac", sshd.settings(root, key_file=None), pool).list_folder("")


def test_the_agent_that_the_config_names_is_asked_and_a_public_key_chooses_in_it(
    sshd: Sshd, root: Path, pool: ConnectionPool, agent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """IdentityAgent, a key of which only the .pub is here, IdentitiesOnly, HostKeyAlias and UserKnownHostsFile."""
    monkeypatch.setenv("HOME", str(root))
    others = [make_key(tmp_path / f"other{number}") for number in range(6)]
    for key in (*others, sshd.client_key):
        add(key)
    monkeypatch.delenv("SSH_AUTH_SOCK")
    public = root / "work.pub"
    public.write_bytes(sshd.client_key.with_suffix(".pub").read_bytes())
    hosts = root / "hosts of mine"
    hosts.write_text(f"trainer-key {' '.join(sshd.known_hosts.read_text().split()[1:3])}\n")

    def listing(*lines: str) -> list[object]:
        (root / "config").write_text(
            f"Host trainer\n HostName 127.0.0.1\n Port {sshd.port}\n HostKeyAlias trainer-key\n"
            f' UserKnownHostsFile "{hosts}"\n' + "".join(f" {line}\n" for line in lines)
        )
        settings = SshSource.model_validate(
            {"type": "ssh", "host": "trainer", "path": str(root), "use_ssh_config": True}
        )
        route = plan_route(settings, root / "config")
        monkeypatch.setattr("ml_pipeline.checkpoints.ssh.folder.plan_route", lambda _: route)
        pool.close()
        return list(SshFolder("mac", settings, pool).list_folder("adapters-x"))

    (root / "adapters-x").mkdir()
    asked = f'IdentityAgent "{agent}"'
    # The server hangs up at the sixth key: only one that is chosen gets in.
    with pytest.raises(SourceUnreachableError, match="cannot log in"):
        listing(asked)
    assert listing(asked, f"IdentityFile {public}") == []
    assert listing(asked, f"IdentityFile {public.with_suffix('')}", "IdentitiesOnly yes") == []
    with pytest.raises(SourceUnreachableError, match="is a public key, and the agent does not hold"):
        listing("IdentityAgent none", f"IdentityFile {public}")
    with pytest.raises(SourceUnreachableError, match="only the public key is here"):
        listing(f"IdentityFile {public.with_suffix('')}", "CertificateFile ~/x-cert.pub")
    with pytest.raises(SourceUnreachableError, match=r"the certificatefile of ~/\.ssh/config is not used here"):
        listing(f"IdentityFile {public.with_suffix('')}", "CertificateFile ~/x-cert.pub")
    # Only the file without its .pub, encrypted: the open part of the key tells which of the agent's it is.
    locked = root / "locked"
    locked.write_bytes(sshd.client_key.read_bytes())
    locked.chmod(0o600)
    subprocess.run(["ssh-keygen", "-q", "-p", "-P", "", "-N", "sesame", "-f", str(locked)], check=True)
    assert listing(asked, f"IdentityFile {locked}", "IdentitiesOnly yes") == []
    hosts.write_text(hosts.read_text().replace("trainer-key", "127.0.0.1"))
    with pytest.raises(SourceUnreachableError, match=r"host key of trainer-key is not known.*run: echo 'trainer-key "):
        listing(asked, f"IdentityFile {public}")


def test_an_encrypted_key_file_stands_for_the_key_that_the_agent_holds(
    root: Path, pool: ConnectionPool, agent: Path, tmp_path: Path
) -> None:
    with running_sshd(tmp_path / "sshd") as server:
        add(server.client_key)
        encrypt = ["ssh-keygen", "-q", "-p", "-P", "", "-N", "sesame", "-f", str(server.client_key)]
        subprocess.run(encrypt, check=True)
        assert SshFolder("mac", server.settings(root), pool).list_folder("") == []
        pool.close()


def test_other_kinds_of_keys_let_in(sshd: Sshd, root: Path, pool: ConnectionPool, tmp_path: Path) -> None:
    for kind in ("rsa", "ecdsa"):
        key = make_key(tmp_path / kind, kind=kind)
        with (sshd.folder / "authorized_keys").open("ab") as file:
            file.write(key.with_suffix(".pub").read_bytes())
        assert SshFolder(kind, sshd.settings(root, key_file=key), pool).list_folder("") == []


def test_a_jump_reaches_a_machine_through_another(sshd: Sshd, root: Path, pool: ConnectionPool, tmp_path: Path) -> None:
    (root / "adapters-x").mkdir()
    with running_sshd(tmp_path / "inner") as inner:
        known_hosts = tmp_path / "both"
        known_hosts.write_text(sshd.known_hosts.read_text() + inner.known_hosts.read_text())
        (sshd.folder / "authorized_keys").open("ab").write(inner.client_key.with_suffix(".pub").read_bytes())
        jump = f"{ME}@127.0.0.1:{sshd.port}"
        folder = SshFolder("mac", inner.settings(root, proxy_jump=jump, known_hosts=known_hosts), pool)
        assert [entry.name for entry in folder.list_folder("")] == ["adapters-x"]
        pool.close()
        untrusting = inner.settings(root, proxy_jump=jump, known_hosts=sshd.known_hosts)
        with pytest.raises(SourceUnreachableError, match=r"is not known.*run: echo ") as caught:
            SshFolder("mac", untrusting, pool).list_folder("")
        assert inner.known_hosts.read_text().strip() in str(caught.value)


CONFIG = """
Host mac
  HostName mac.example
  Port 2200
  User trainer
  IdentityFile /keys/a
  ProxyJump gate,other@second:2222
Host gate
  HostName gate.example
Host commanded
  ProxyCommand nc %h %p
Host spaced
  ProxyJump a, b
Host uri
  ProxyJump ssh://guest%%40corp@192.0.2.9:2200,last
Host circle
  ProxyJump circle
"""


@pytest.mark.parametrize(
    ("changes", "hops"),
    [
        ({"host": "plain", "user": "me"}, [Hop("plain", 22, "me")]),
        ({"host": "mac", "user": "me"}, [Hop("mac", 22, "me")]),
        (
            {"host": "mac", "use_ssh_config": True},
            [
                Hop("gate.example", 22, ME),
                Hop("second", 2222, "other"),
                Hop("mac.example", 2200, "trainer", (Path("/keys/a"),)),
            ],
        ),
        (
            {"host": "mac", "use_ssh_config": True, "user": "me", "port": 23, "key_file": "/k", "proxy_jump": "none"},
            [Hop("mac.example", 23, "me", (Path("/k"),), identities_only=True)],
        ),
        (
            {"host": "uri", "use_ssh_config": True, "user": "me"},
            [Hop("192.0.2.9", 2200, "guest@corp"), Hop("last", 22, ME), Hop("uri", 22, "me")],
        ),
        (
            {"host": "plain", "user": "me", "proxy_jump": "a@[::1]:5, b"},
            [Hop("::1", 5, "a"), Hop("b", 22, ME), Hop("plain", 22, "me")],
        ),
    ],
)
def test_the_route_follows_settings_and_then_the_config(
    tmp_path: Path, changes: dict[str, object], hops: list[Hop]
) -> None:
    (tmp_path / "config").write_text(CONFIG)
    settings = SshSource.model_validate({"type": "ssh", "path": "/runs"} | changes)
    assert list(plan_route(settings, tmp_path / "config").hops) == hops


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"host": "h", "proxy_jump": "a b"}, r"'a b': no machine to jump through"),
        ({"host": "h", "proxy_jump": "-oProxyCommand=x"}, "no machine to jump through"),
        ({"host": "h", "proxy_jump": "a:99999"}, "no machine to jump through"),
        ({"host": "commanded", "use_ssh_config": True}, "ProxyCommand.*no commands are run"),
        ({"host": "circle", "use_ssh_config": True}, "jumps in a circle"),
        ({"host": "spaced", "use_ssh_config": True}, "' b': no machine to jump through"),
    ],
)
def test_a_wrong_route_is_named(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    (tmp_path / "config").write_text(CONFIG)
    settings = SshSource.model_validate({"type": "ssh", "path": "/runs"} | changes)
    with pytest.raises(SettingsError, match=message):
        plan_route(settings, tmp_path / "config")


def test_files_of_known_hosts_are_those_of_the_config_unless_the_settings_name_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "known_hosts2").touch()
    everyone = tmp_path / "everyone"
    everyone.touch()
    ours = tmp_path / ".ssh" / "known_hosts"
    (tmp_path / "config").write_text(
        f"GlobalKnownHostsFile {everyone} /none/here\nHost a\n UserKnownHostsFile /mine /none\n"
        "Host b\n UserKnownHostsFile /dev/null\n"
    )
    given = {"type": "ssh", "path": "/runs", "use_ssh_config": True, "user": "me"}

    def files(host: str, **more: str) -> tuple[Path, ...]:
        (hop,) = plan_route(SshSource.model_validate(given | {"host": host} | more), tmp_path / "config").hops
        return hop.known_hosts

    assert files("a") == (Path("/mine"), everyone)
    assert files("b") == (ours, everyone)  # no machine is trusted unseen
    assert files("c") == (ours, ours.with_name("known_hosts2"), everyone)
    assert files("a", known_hosts="/chosen") == ()


def test_a_jump_in_the_settings_goes_before_a_command_of_the_config(tmp_path: Path) -> None:
    (tmp_path / "config").write_text(CONFIG)
    given = {"type": "ssh", "path": "/runs", "host": "commanded", "use_ssh_config": True, "user": "me"}
    for jump, hosts in (("none", ["commanded"]), ("gate", ["gate.example", "commanded"])):
        settings = SshSource.model_validate(given | {"proxy_jump": jump})
        assert [hop.host for hop in plan_route(settings, tmp_path / "config").hops] == hosts


def test_a_config_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "config").write_bytes(os.urandom(200) + b"\xff")
    settings = SshSource.model_validate({"type": "ssh", "path": "/runs", "host": "h", "use_ssh_config": True})
    with pytest.raises(SettingsError, match="config cannot be read"):
        plan_route(settings, tmp_path / "config")
