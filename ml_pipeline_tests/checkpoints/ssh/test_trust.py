"""Which lines of known_hosts vouch for a machine, after OpenSSH's sshd(8), and with its own hashing."""

from __future__ import annotations

import base64
import subprocess
from pathlib import Path

import pytest

from ml_pipeline.checkpoints.ssh.trust import HostKey, check_host_key, known_types
from ml_pipeline.errors import SourceUnreachableError
from ml_pipeline_tests.servers import require_binary

KEY = HostKey("ssh-ed25519", b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + bytes(32))
OTHER = HostKey("ssh-ed25519", b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + b"\1" * 32)
BLOB = base64.b64encode(KEY.blob).decode()
OTHER_BLOB = base64.b64encode(OTHER.blob).decode()
GOOD, UNKNOWN, CHANGED, REVOKED = "", "is not known", "CHANGED", "is revoked"


def check(file: Path, host: str = "Mac.example", port: int = 22, *, accept_new: bool = False) -> str:
    """The text of the refusal, or nothing."""
    try:
        check_host_key("source mac", KEY, [file], host, port, accept_new=accept_new)
    except SourceUnreachableError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("lines", "port", "expected"),
    [
        ("mac.example ssh-ed25519 {key}", 22, GOOD),
        ("MAC.example ssh-ed25519 {key}", 22, GOOD),
        ("other,mac.example ssh-ed25519 {key} a comment", 22, GOOD),
        ("*.example ssh-ed25519 {key}", 22, GOOD),
        ("ma?.example\tssh-ed25519  {key}", 22, GOOD),
        ("*,!mac.example ssh-ed25519 {key}", 22, UNKNOWN),
        ("mac.example ssh-ed25519 {key}", 2200, UNKNOWN),
        ("[mac.example]:2200 ssh-ed25519 {key}", 2200, GOOD),
        ("[mac.example]:2200 ssh-ed25519 {key}", 2201, UNKNOWN),
        ("macXexample ssh-ed25519 {key}", 22, UNKNOWN),
        ("mac.example ssh-ed25519 {other}", 22, CHANGED),
        ("mac.example ssh-rsa {other}", 22, CHANGED),
        ("mac.example ssh-ed25519 {other}\nmac.example ssh-ed25519 {key}", 22, GOOD),
        ("mac.example ssh-ed25519 {key}\n@revoked * ssh-ed25519 {key}", 22, REVOKED),
        ("@cert-authority mac.example ssh-ed25519 {key}", 22, UNKNOWN),
        ("#mac.example ssh-ed25519 {key}", 22, UNKNOWN),
        ("mac.example ssh-ed25519 {key}!", 22, UNKNOWN),
        ("mac.example ssh-ed25519", 22, UNKNOWN),
        ("|1|bad|hash ssh-ed25519 {key}\n|1|short ssh-ed25519 {key}\n\xff", 22, UNKNOWN),
        ("", 22, UNKNOWN),
    ],
)
def test_which_lines_vouch_for_a_machine(tmp_path: Path, lines: str, port: int, expected: str) -> None:
    file = tmp_path / "known_hosts"
    file.write_text(lines.format(key=BLOB, other=OTHER_BLOB), encoding="latin-1")
    refusal = check(file, port=port)
    assert refusal == expected or (expected and expected in refusal)


def test_names_hashed_by_openssh_are_known(tmp_path: Path) -> None:
    file = tmp_path / "known_hosts"
    file.write_text(f"[mac.example]:2200 ssh-ed25519 {BLOB}\nmac.example ssh-ed25519 {OTHER_BLOB}\n")
    subprocess.run([require_binary("ssh-keygen", "openssh-client"), "-H", "-f", file], check=True, capture_output=True)
    assert "mac.example" not in file.read_text()
    assert check(file, port=2200) == GOOD
    assert CHANGED in check(file, port=22)
    assert known_types([file], "mac.example", 2200) == ["ssh-ed25519"]


def test_a_file_that_is_not_there_or_cannot_be_read_is_said(tmp_path: Path) -> None:
    assert UNKNOWN in check(tmp_path / "nowhere")
    assert "cannot be used" in check(tmp_path)


def test_a_new_key_is_added_on_a_line_of_its_own_and_a_changed_one_is_not(tmp_path: Path) -> None:
    file = tmp_path / "known_hosts"
    file.write_text(f"other ssh-ed25519 {OTHER_BLOB}")  # the last line is not ended
    assert check(file, accept_new=True) == GOOD
    expected = f"other ssh-ed25519 {OTHER_BLOB}\nmac.example ssh-ed25519 {BLOB}\n"
    assert file.read_text() == expected
    assert check(file) == GOOD
    assert CHANGED in check(file, host="other", accept_new=True)
    assert file.read_text() == expected


def test_a_command_never_holds_an_unquoted_name(tmp_path: Path) -> None:
    message = check(tmp_path / "it's here", host="a;b$(c)", port=2200)
    assert "'a;b$(c)'" in message
    assert """'"'"'s here/""" in message or """'"'"'s here'""" in message
