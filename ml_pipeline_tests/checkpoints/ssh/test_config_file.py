"""What ~/.ssh/config says, beside the real `ssh -G`."""

from __future__ import annotations

import getpass
import os
import subprocess
from pathlib import Path

import pytest

from ml_pipeline.checkpoints.ssh import config_file
from ml_pipeline.checkpoints.ssh.config_file import Said, look_up
from ml_pipeline.errors import SettingsError
from ml_pipeline_tests.servers import require_binary

ME = getpass.getuser()
HOME = Path.home()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "more").write_text("Host mac\n HostName 192.0.2.7\n Port 2222\n")
    (tmp_path / "open").write_text("User a\nHost other\n User b\n")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "1.conf").write_text("User first\n")
    (tmp_path / "d" / "2.conf").write_text("User second\nPort 77\n")
    (tmp_path / "d" / ".hidden.conf").write_text("HostName hidden\n")
    for path in tmp_path.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o600)
    return tmp_path


def openssh(config: Path, host: str) -> dict[str, list[str]] | None:
    """What `ssh -G` prints, by word; None where it refuses the file."""
    ssh = require_binary("ssh", "openssh-client")
    done = subprocess.run([ssh, "-G", "-F", str(config), host], capture_output=True, text=True, timeout=20)
    if done.returncode:
        return None
    said: dict[str, list[str]] = {}
    for line in done.stdout.splitlines():
        word, _, value = line.partition(" ")
        said.setdefault(word, []).append(value)
    return said


def ours(said: Said) -> dict[str, object]:
    users = (
        said.known_hosts if said.known_hosts is not None else (HOME / ".ssh/known_hosts", HOME / ".ssh/known_hosts2")
    )
    return {
        "hostname": said.host,
        "port": str(said.port or 22),
        "user": said.user or ME,
        "identityfile": [str(file) for file in said.key_files] or "the usual ones",
        "identitiesonly": said.identities_only,
        "identityagent": said.agent,
        "hostkeyalias": said.host_key_alias,
        "userknownhostsfile": " ".join(map(str, users)),
        "addressfamily": said.address_family,
        "proxyjump": jumps(None if (said.jumps or "none").lower() == "none" else said.jumps),
    }


def jumps(written: str | None) -> str | None:
    """`ssh -G` prints the first of several as it is written, and one alone taken apart."""
    return written and written.replace("ssh://", "").replace("[", "").replace("]", "")


def theirs(said: dict[str, list[str]]) -> dict[str, object]:
    files = [str(Path(file).expanduser()) for file in said["identityfile"]]
    agent = said.get("identityagent", ["SSH_AUTH_SOCK"])[0]
    return {
        "hostname": said["hostname"][0],
        "port": said["port"][0],
        "user": said["user"][0],
        "identityfile": files if len(files) < 5 else "the usual ones",
        "identitiesonly": said["identitiesonly"] == ["yes"],
        "identityagent": None if agent == "SSH_AUTH_SOCK" else "" if agent == "none" else agent,
        "hostkeyalias": said.get("hostkeyalias", [None])[0],
        "userknownhostsfile": said["userknownhostsfile"][0],
        "addressfamily": said["addressfamily"][0],
        "proxyjump": jumps(said.get("proxyjump", [None])[0]),
    }


ALIKE = {
    "nothing": "",
    "plain": "Host mac\n HostName 192.0.2.7\n User trainer\n Port 2222\n",
    "the first value counts": "Host m*\n User a\nHost mac\n User b\n Port 7\nHost *\n Port 8\n IdentityFile ~/x\n",
    "large and small letters": "host MAC\n user a\nHOST mac\n uSeR b\n hostname Box.Example.COM\n",
    "negation": "Host m* !mac\n User a\nHost !box *\n User b\n",
    "only a negation": "Host !box\n User a\n",
    "one letter": "Host m?c\n User a\nHost ma?c\n Port 9\n",
    "equals signs": "Host=mac\nUser=a\nPort = 7\n HostName= b\n",
    "quotes": 'Host "mac" "x y"\n IdentityFile "~/my keys/a"\n User \'trainer\'\n',
    "a quote within a word": 'Host mac\n IdentityFile /a" b"/c\n',
    "backslashes": 'Host mac\n IdentityFile /a\\ b\n IdentityFile "/c\\"d"\n',
    "comments": "# Host mac\nHost mac # mine\n  # User b\n User a # first\n",
    "tabs and returns": "Host\tmac\r\n\tUser\ta\r\n",
    "the name in the name": "Host mac\n HostName %h.example.com\nHost %h\n",
    "Include": "Include {here}/more\nHost *\n ServerAliveInterval 30\n",
    "Include in a block": "Host *\n Include {here}/more\n",
    "Include in a block that does not match": "Host box\n Include {here}/open\n Include {here}/more\n",
    "Include of loose lines": "Host mac\n Include {here}/open\n Port 5\n",
    "after an Include the block goes on": "Host box\n Include {here}/open\n User c\nHost mac\n Port 5\n",
    "Include of several": "Include {here}/d/*.conf {here}/none/*\n",
    "Match host": "Match host mac\n User a\nMatch host box\n Port 7\n",
    "Match host goes by HostName": "Host mac\n HostName box\nMatch host box\n User a\n",
    "Match originalhost": "Host mac\n HostName box\nMatch originalhost mac\n Port 7\n",
    "Match a list": "Match host box,m*,!x\n User a\nMatch host *,!mac\n Port 7\n",
    "Match negated": "Match !host box\n User a\nMatch host mac !originalhost mac\n Port 7\n",
    "Match user": "Host mac\n User a\nMatch user a\n Port 7\nMatch user b\n HostName x\n",
    "Match localuser": f"Match localuser {ME}\n Port 7\nMatch localuser nobody-at-all\n User x\n",
    "Match all": "Match all\n User a\n",
    "Match final": "Match final host box\n User a\nHost mac\n HostName box\n Port 7\n",
    "Match final all": "Match final all\n User a\nHost mac\n User b\n",
    "Host in the final pass": "Host box\n User a\nHost mac\n HostName box\nMatch final\n Port 7\n",
    "Match canonical": "Match canonical all\n User a\n",
    "Match with equals": "Match host=mac user=*\n Port 7\n",
    "exec after what fails": "Match host nobody exec false\n User a\n",
    "ProxyJump": "Host mac\n ProxyJump guest@192.0.2.9:2200,inner\n",
    "ProxyJump as URIs": "Host mac\n ProxyJump ssh://guest@192.0.2.9:2200\n",
    "ProxyJump none": "Host mac\n ProxyJump none\nHost *\n ProxyJump gate\n",
    "ProxyCommand none goes first": "Host mac\n ProxyCommand none\nHost *\n ProxyJump gate\n",
    "ProxyJump goes first": "Host mac\n ProxyJump gate\nHost *\n ProxyCommand nc %h %p\n",
    "HostKeyAlias": "Host mac\n HostKeyAlias Box\n",
    "UserKnownHostsFile": 'Host mac\n UserKnownHostsFile /a "/b c"\n',
    "IdentityAgent": 'Host mac\n IdentityAgent "/x y/agent.sock"\n',
    "IdentityAgent in the home": "Host mac\n IdentityAgent ~/agent.sock\n",
    "IdentityAgent none": "IdentityAgent none\n",
    "IdentityAgent of the environment": "IdentityAgent SSH_AUTH_SOCK\n",
    "identities": "IdentityFile /a\nHost mac\n IdentityFile ~/b.pub\n IdentityFile /a\n IdentitiesOnly yes\n",
    "AddressFamily": "AddressFamily inet6\n",
    "IgnoreUnknown": "IgnoreUnknown Use*,Nix\nHost mac\n UseNothing yes\n Nix 1\n User a\n",
    "what does not matter": "Host *\n ForwardAgent yes\n ControlMaster auto\n ControlPath ~/%C\n SendEnv A B\n",
}  # fmt: skip


@pytest.mark.parametrize("name", ALIKE)
@pytest.mark.parametrize("host", ["mac", "box"])
def test_it_says_what_openssh_says(name: str, host: str, folder: Path) -> None:
    config = folder / "config"
    config.write_text(ALIKE[name].replace("{here}", str(folder)))
    expected = openssh(config, host)
    assert expected is not None
    assert ours(look_up(config, host)) == theirs(expected)


WRONG = {
    "an unknown word": "Host mac\n HostNme box\n",
    "a port that is none": "Port 70000\n",
    "a word too much": "Host mac\n User a b\n",
    "an open quote": 'Host mac\n IdentityFile "/a\n',
    "no value": "Host mac\n User\n",
    "Match without a value": "Match host\n",
    "Match all and more": "Match all host mac\n User a\n",
    "an unknown condition": "Match weather sunny\n User a\n",
}


@pytest.mark.parametrize("name", WRONG)
def test_what_openssh_refuses_is_refused_with_its_line(name: str, folder: Path) -> None:
    config = folder / "config"
    config.write_text(WRONG[name])
    assert openssh(config, "mac") is None
    with pytest.raises(SettingsError, match=r"config:\d"):
        look_up(config, "mac")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("Match exec true\n User a\n", "config:1: Match exec: no commands are run here"),
        ("Match host mac exec true\n User a\n", "Match exec"),
        ("Match localnetwork 10.0.0.0/8\n User a\n", "Match localnetwork: it is not read here"),
        ("Host mac\n CanonicalizeHostname yes\n", "config:2: canonicalizehostname yes is not done here"),
        ("RevokedHostKeys /etc/revoked\n", "revokedhostkeys /etc/revoked is not done here"),
        ("PubkeyAuthentication no\n", "pubkeyauthentication no"),
        ("BindAddress 10.0.0.1\n", "bindaddress 10.0.0.1"),
        ("IdentityFile ~/keys/%C\n", "identityfile: the token %C is not read here"),
        ("IdentityFile ~/keys/${NO_SUCH_THING_HERE}\n", "there is no environment variable 'NO_SUCH_THING_HERE'"),
        ("Include ~/%h/config\n", "Include '~/%h/config'"),
    ],
)
def test_what_is_not_done_here_is_refused_by_its_name(text: str, named: str, folder: Path) -> None:
    (folder / "config").write_text(text)
    with pytest.raises(SettingsError) as caught:
        look_up(folder / "config", "mac")
    assert named in str(caught.value)


def test_tokens_and_variables_are_written_out(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYS", "/vault")
    (folder / "config").write_text(
        "Host mac\n HostName box.example\n User trainer\n HostKeyAlias alias\n"
        " IdentityFile %d/%n/%h/%r/%u/%p/%i/%%/%k\n IdentityFile ${KEYS}/a\n IdentityAgent $KEYS\n"
        " UserKnownHostsFile /hosts/%h\n ProxyJump %r@gate-%n\n"
    )
    said = look_up(folder / "config", "mac", port=44)
    assert said.key_files == (
        HOME / f"mac/box.example/trainer/{ME}/44/{os.getuid()}/%/alias",
        Path("/vault/a"),
    )
    assert (said.agent, said.known_hosts, said.jumps) == ("/vault", (Path("/hosts/box.example"),), "trainer@gate-mac")
    assert look_up(folder / "config", "mac", user="me").key_files[0].parts[-6] == "me"


def test_a_file_that_others_may_write_to_is_refused(folder: Path) -> None:
    (folder / "more").chmod(0o622)
    (folder / "config").write_text(f"Include {folder}/more\n")
    assert openssh(folder / "config", "mac") is None
    with pytest.raises(SettingsError, match=r"others may write to it.*chmod go-w"):
        look_up(folder / "config", "mac")


def test_includes_in_a_circle_end(folder: Path) -> None:
    (folder / "config").write_text(f"Include {folder}/config\n")
    (folder / "config").chmod(0o600)
    assert openssh(folder / "config", "mac") is None
    with pytest.raises(SettingsError, match="include each other"):
        look_up(folder / "config", "mac")


def test_the_systems_file_comes_after_the_users(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    user, system = folder / "user", folder / "system"
    user.write_text("Host mac\n User mine\n")
    system.write_text("Host mac\n User theirs\n Port 99\n")
    user.chmod(0o600)
    monkeypatch.setattr(config_file, "USER_CONFIG", user)
    monkeypatch.setattr(config_file, "SYSTEM_CONFIG", system)
    said = look_up(user, "mac")
    assert (said.user, said.port) == ("mine", 99)
