"""The private keys that log in: from files or the agent, never a password or a passphrase."""

from __future__ import annotations

import base64
import contextlib
import socket
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import paramiko
from cryptography.exceptions import UnsupportedAlgorithm

from ml_pipeline.checkpoints.ssh.route import Hop
from ml_pipeline.errors import SourceRefusesError

USUAL_FILES = ("~/.ssh/id_ed25519", "~/.ssh/id_ecdsa", "~/.ssh/id_rsa")
_OPENSSH_BEGIN, _OPENSSH_MAGIC = b"-----BEGIN OPENSSH PRIVATE KEY-----", b"openssh-key-v1\0"
_PUBLIC_TYPES = (b"ssh-", b"ecdsa-", b"sk-")
_MOST_KEY_BYTES = 2**16
_AGENT_TIMEOUT_S = 10.0
_MOST_TRIES = 5
"""OpenSSH hangs up at the sixth."""


def log_in(where: str, transport: Any, hop: Hop) -> None:
    """Log in with the first key that the machine takes.

    Raises:
        SourceRefusesError: none is taken, none is there, or one can only be used through the agent.
        paramiko.SSHException, OSError, EOFError: the connection broke.
    """
    tried: list[str] = []
    problems: list[str] = []
    with _agent(hop.agent) as agent_keys:
        for name, key in _candidates(hop, agent_keys, problems):
            tried.append(name)
            try:
                missing = transport.auth_publickey(hop.user, key)
            except paramiko.BadAuthenticationType as error:
                raise SourceRefusesError(
                    f"{where}: {hop} takes no keys, only {', '.join(map(str, error.allowed_types))[:200]}. "
                    "Allow PubkeyAuthentication there."
                ) from error
            except paramiko.AuthenticationException:
                if len(tried) == _MOST_TRIES:
                    problems.append("there are more keys, which were not tried: name the right one as key_file")
                    break
                continue
            if not missing:
                return
            raise SourceRefusesError(
                f"{where}: {hop} wants more than a key ({', '.join(map(str, missing))[:200]}), which cannot be given "
                "here. Let this user in with a key alone."
            )
    if tried:
        problems.insert(0, f"it took none of the keys {', '.join(tried)}")
    problems += [f"the {word} of ~/.ssh/config is not used here" for word in hop.not_used]
    raise SourceRefusesError(
        f"{where}: cannot log in as {hop}: {'; '.join(problems) or 'there is no key'}. Put the public key into "
        "~/.ssh/authorized_keys there, and name its private key as key_file or load it with ssh-add."
    )


def _candidates(hop: Hop, agent_keys: Sequence[Any], problems: list[str]) -> Iterator[tuple[str, Any]]:
    """The keys to try in OpenSSH's order: those of files that the agent holds, its others, then the files' own."""
    files = [(str(file), file) for file in hop.key_files]
    if not files:
        files = [(name, Path(name).expanduser()) for name in USUAL_FILES]
    held = {name: key for name, file in files if (key := _held_by_agent(file, agent_keys))}
    if not hop.identities_only:
        if hop.key_files:
            yield from held.items()
        chosen = [key.asbytes() for key in held.values()] if hop.key_files else []
        for key in agent_keys:
            if key.asbytes() not in chosen:
                yield f"{key.fingerprint} of the agent", key
    for name, file in files:
        if name in held and (hop.identities_only or not hop.key_files):
            # Without the files being named, the agent's keys have all been tried.
            if hop.identities_only:
                yield name, held[name]
        elif name not in held and (key := _from_file(file, problems, needed=bool(hop.key_files))):
            yield name, key


def _from_file(file: Path, problems: list[str], *, needed: bool) -> Any | None:
    """The key of a file that the agent does not hold."""
    try:
        return paramiko.PKey.from_path(file)
    except FileNotFoundError:
        if needed and Path(f"{file}.pub").exists():
            problems.append(f"of {file} only the public key is here, and the agent does not hold it: ssh-add it there")
        elif needed:
            problems.append(f"there is no key file {file}")
    except OSError as error:
        problems.append(f"{file} cannot be read: {error.strerror or error}")
    except (paramiko.PasswordRequiredException, TypeError):
        problems.append(f"{file} has a passphrase: load it into the agent with ssh-add {file}")
    except (paramiko.SSHException, paramiko.UnknownKeyType, ValueError, UnsupportedAlgorithm):
        if _public_key(file) is not None:
            problems.append(f"{file} is a public key, and the agent does not hold the private one: ssh-add it")
        else:
            problems.append(f"{file} holds no private key that can be used (ed25519, ecdsa or rsa)")
    return None


def _held_by_agent(file: Path, agent_keys: Sequence[Any]) -> Any | None:
    """The agent's key whose public half is in this file, beside it, or in the open part of the private key."""
    if not agent_keys:
        return None
    publics = [_public_key(file), _public_key(Path(f"{file}.pub")), _public_part(file)]
    return next((key for key in agent_keys if key.asbytes() in publics), None)


def _public_key(file: Path) -> bytes | None:
    """The key in a file as ssh-keygen writes public ones."""
    try:
        with file.open("rb") as opened:
            words = opened.read(_MOST_KEY_BYTES).split()
        return base64.b64decode(words[1], validate=True) if words[0].startswith(_PUBLIC_TYPES) else None
    except (OSError, ValueError, IndexError):
        return None


def _public_part(file: Path) -> bytes | None:
    """The public key in a private one of OpenSSH's format, which is not encrypted there (PROTOCOL.key)."""
    try:
        with file.open("rb") as opened:
            text = opened.read(_MOST_KEY_BYTES)
        body = text.partition(_OPENSSH_BEGIN)[2].partition(b"-----")[0]
        content = paramiko.Message(base64.b64decode(b"".join(body.split()), validate=True).removeprefix(_OPENSSH_MAGIC))
        for _ in range(3):  # cipher, key derivation and its options
            content.get_binary()
        return bytes(content.get_binary()) if content.get_int() == 1 else None
    except (OSError, ValueError, IndexError, struct.error):
        return None


@contextlib.contextmanager
def _agent(address: str | None) -> Iterator[Sequence[Any]]:
    """The keys of the agent at this socket, of the usual one for None, of none for an empty text."""
    agent: Any = None
    if address != "":
        with contextlib.suppress(paramiko.SSHException, OSError):
            agent = paramiko.Agent() if address is None else _AgentAt(address)
    try:
        yield agent.get_keys() if agent else ()
    finally:
        if agent:
            agent.close()


class _AgentAt(paramiko.agent.AgentSSH):  # type: ignore[misc]  # paramiko has no types
    """The agent that listens at an address, whatever the environment says; raises OSError, SSHException."""

    def __init__(self, address: str) -> None:
        super().__init__()
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(_AGENT_TIMEOUT_S)
            connection.connect(address)
            self._connect(connection)
        except BaseException:
            connection.close()
            raise
        connection.settimeout(None)

    def close(self) -> None:
        """Leave the agent."""
        self._close()
