"""The private keys that log in: from files or the agent, never a password or a passphrase."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import paramiko
from cryptography.exceptions import UnsupportedAlgorithm

from ml_pipeline.checkpoints.ssh.route import Hop
from ml_pipeline.errors import SourceRefusesError

USUAL_FILES = ("~/.ssh/id_ed25519", "~/.ssh/id_ecdsa", "~/.ssh/id_rsa")
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
    with _agent() as agent_keys:
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
    raise SourceRefusesError(
        f"{where}: cannot log in as {hop}: {'; '.join(problems) or 'there is no key'}. Put the public key into "
        "~/.ssh/authorized_keys there, and name its private key as key_file or load it with ssh-add."
    )


def _candidates(hop: Hop, agent_keys: Sequence[Any], problems: list[str]) -> Iterator[tuple[str, Any]]:
    if hop.key_files:
        for file in hop.key_files:
            if key := _from_file(file, agent_keys, problems, needed=True):
                yield str(file), key
        return
    for key in agent_keys:
        yield f"{key.fingerprint} of the agent", key
    for name in USUAL_FILES:
        if key := _from_file(Path(name).expanduser(), (), problems, needed=False):
            yield name, key


def _from_file(file: Path, agent_keys: Sequence[Any], problems: list[str], *, needed: bool) -> Any | None:
    """The key of a file, or the agent's where the file is encrypted and the agent holds it."""
    try:
        return paramiko.PKey.from_path(file)
    except FileNotFoundError:
        if needed:
            problems.append(f"there is no key file {file}")
    except OSError as error:
        problems.append(f"{file} cannot be read: {error.strerror or error}")
    except (paramiko.PasswordRequiredException, TypeError):
        if held := _held_by_agent(file, agent_keys):
            return held
        problems.append(f"{file} has a passphrase: load it into the agent with ssh-add {file}")
    except (paramiko.SSHException, paramiko.UnknownKeyType, ValueError, UnsupportedAlgorithm):
        problems.append(f"{file} holds no private key that can be used (ed25519, ecdsa or rsa)")
    return None


def _held_by_agent(file: Path, agent_keys: Sequence[Any]) -> Any | None:
    with contextlib.suppress(OSError, ValueError, IndexError, paramiko.SSHException):
        public = paramiko.pkey.PublicBlob.from_file(f"{file}.pub").key_blob
        return next((key for key in agent_keys if key.asbytes() == public), None)
    return None


@contextlib.contextmanager
def _agent() -> Iterator[Sequence[Any]]:
    """The keys of the agent, if one runs."""
    agent = None
    with contextlib.suppress(paramiko.SSHException, OSError):
        agent = paramiko.Agent()
    try:
        yield agent.get_keys() if agent else ()
    finally:
        if agent:
            agent.close()
