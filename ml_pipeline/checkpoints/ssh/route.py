"""Where a source's machine is and through which others it is reached: settings and, if wanted, ~/.ssh/config."""

from __future__ import annotations

import getpass
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paramiko

from ml_pipeline.errors import SettingsError
from ml_pipeline.source_settings import SshSource

USER_CONFIG = Path("~/.ssh/config")
DEFAULT_PORT = 22
_MOST_HOPS = 8
_HOP = re.compile(r"(?:(?P<user>[^@\s]+)@)?(?P<host>\[[^\]\s]+\]|[^:@\s/-][^:@\s/]*)(?::(?P<port>\d{1,5}))?")


@dataclass(frozen=True, slots=True)
class Hop:
    """One machine and how to log in there; without key files the agent and the usual files are tried."""

    host: str
    port: int
    user: str
    key_files: tuple[Path, ...] = ()

    def __str__(self) -> str:
        return f"{self.user}@{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Route:
    """The machines to go through, the wanted one last, and what holds for each of them. Times in s."""

    hops: tuple[Hop, ...]
    known_hosts: Path
    accept_new_host_key: bool
    connect_timeout_s: float
    timeout_s: float

    def __str__(self) -> str:
        return str(self.hops[-1])


def plan_route(settings: SshSource, config_file: Path = USER_CONFIG) -> Route:
    """The route to a source's machine. What the settings say goes before what `config_file` says.

    Raises:
        SettingsError: proxy_jump or the file is wrong, or the file wants a command to be run.
    """
    config = _read_config(config_file.expanduser()) if settings.use_ssh_config else None
    key_files = (settings.key_file.expanduser(),) if settings.key_file else ()
    target = _Wish(settings.host, settings.port, settings.user, key_files, settings.proxy_jump)
    hops = _hops(target, config, depth=0)
    return Route(
        tuple(hops),
        settings.known_hosts.expanduser(),
        settings.accept_new_host_key,
        settings.connect_timeout_s,
        settings.timeout_s,
    )


@dataclass(frozen=True, slots=True)
class _Wish:
    host: str
    port: int | None = None
    user: str | None = None
    key_files: tuple[Path, ...] = ()
    jump: str | None = None


def _hops(wish: _Wish, config: paramiko.SSHConfig | None, depth: int) -> list[Hop]:
    if depth >= _MOST_HOPS:
        raise SettingsError(f"{wish.host}: more than {_MOST_HOPS} jumps, or jumps in a circle. Mend proxy_jump.")
    said = _look_up(config, wish.host)
    jump = wish.jump if wish.jump is not None else said.get("proxyjump", "")
    if said.get("proxycommand") and not jump:
        raise SettingsError(
            f"{wish.host}: ~/.ssh/config has a ProxyCommand for it, and no commands are run here. "
            "Use ProxyJump there, or proxy_jump in pipeline.yaml."
        )
    hops: list[Hop] = []
    if jump and jump.lower() != "none":
        first, *others = [_parse_hop(part.strip(), wish.key_files) for part in jump.split(",")]
        hops += _hops(first, config, depth + 1)
        for other in others:  # each is reached through the one before, whatever the file says of it
            hops += _hops(_Wish(other.host, other.port, other.user, other.key_files, "none"), config, depth + 1)
    try:
        port = wish.port or int(said.get("port", DEFAULT_PORT))
    except ValueError:
        raise SettingsError(f"{wish.host}: ~/.ssh/config has a Port that is no number. Mend it.") from None
    key_files = wish.key_files or tuple(Path(file).expanduser() for file in said.get("identityfile", ()))
    user = wish.user or said.get("user") or getpass.getuser()
    hops.append(Hop(str(said.get("hostname", wish.host)), port, user, key_files))
    return hops


def _parse_hop(text: str, key_files: tuple[Path, ...]) -> _Wish:
    match = _HOP.fullmatch(text)
    if match is None or int(match["port"] or DEFAULT_PORT) not in range(1, 65536):
        raise SettingsError(f"{text!r:.80}: no machine to jump through. The form is [user@]host[:port].")
    port = int(match["port"]) if match["port"] else None
    return _Wish(match["host"].strip("[]"), port, match["user"], key_files)


def _read_config(file: Path) -> paramiko.SSHConfig | None:
    try:
        return paramiko.SSHConfig.from_path(str(file))
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError, paramiko.ConfigParseError) as error:
        raise SettingsError(f"{file} cannot be read: {error}. Mend it, or set use_ssh_config: false.") from error


def _look_up(config: paramiko.SSHConfig | None, host: str) -> dict[str, Any]:
    if config is None:
        return {}
    try:
        return dict(config.lookup(host))
    except (paramiko.SSHException, ImportError, ValueError, KeyError, OSError) as error:
        raise SettingsError(
            f"~/.ssh/config cannot be used for {host}: {error}. Set host, port, user and key_file in pipeline.yaml "
            "and use_ssh_config: false."
        ) from error
