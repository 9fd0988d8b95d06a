"""Where a source's machine is and through which others it is reached: settings and, if wanted, ~/.ssh/config."""

from __future__ import annotations

import getpass
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from ml_pipeline.addresses import shown_value
from ml_pipeline.checkpoints.ssh.config_file import USER_CONFIG, Said, look_up
from ml_pipeline.errors import SettingsError
from ml_pipeline.source_settings import SshSource

DEFAULT_PORT = 22
_MOST_HOPS = 8
_NO_FILE = Path("/dev/null")
_SECOND_KNOWN_HOSTS = Path("~/.ssh/known_hosts2")
_GLOBAL_KNOWN_HOSTS = (Path("/etc/ssh/ssh_known_hosts"), Path("/etc/ssh/ssh_known_hosts2"))
_URI = re.compile(r"ssh://(?:(?P<user>[^@:\s/]+)@)?(?P<host>[^:@\s/-][^:@\s/]*)(?::(?P<port>\d{1,5})?)?/?")
_HOP = re.compile(r"(?:(?P<user>[^@:\s]+)@)?(?P<host>\[[^\]\s]+\]|[^:@\s/-][^:@\s/]*)(?::(?P<port>\d{1,5}))?")


@dataclass(frozen=True, slots=True)
class Hop:
    """One machine and how to log in there; without key files the agent and the usual files are tried.

    With `identities_only` no other keys than those of the files are, though the agent may hold them. `agent` is the
    address of the agent's socket: None for the usual one, empty for none. `host_key_alias` is the name under which its
    host key is known, empty for its own; `known_hosts` the files that are looked into, the route's one without any.
    `not_used` is what OpenSSH would use besides and this program does not, for messages.
    """

    host: str
    port: int
    user: str
    key_files: tuple[Path, ...] = ()
    identities_only: bool = False
    agent: str | None = None
    host_key_alias: str = ""
    known_hosts: tuple[Path, ...] = ()
    address_family: str = "any"
    not_used: tuple[str, ...] = ()

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
        SettingsError: proxy_jump or the file is wrong, or the file wants what is not done here, such as a command.
    """
    config = _Config(config_file, settings) if settings.use_ssh_config else None
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


@dataclass(frozen=True, slots=True)
class _Config:
    """OpenSSH's configuration, and what in pipeline.yaml goes before it."""

    file: Path
    settings: SshSource

    def of(self, wish: _Wish) -> Said:
        return look_up(self.file, wish.host, wish.user, wish.port)

    def known_hosts(self, said: Said) -> tuple[Path, ...]:
        """The files that OpenSSH looks into, its own first; empty where it is the settings' file alone."""
        ours = self.settings.known_hosts.expanduser()
        if "known_hosts" in self.settings.model_fields_set:
            return ()
        usual = (ours, _SECOND_KNOWN_HOSTS.expanduser())
        users = [file for file in said.known_hosts or usual if file != _NO_FILE]
        everyone = _GLOBAL_KNOWN_HOSTS if said.global_known_hosts is None else said.global_known_hosts
        # Where the user has no file of known hosts, ours is the one: no machine is trusted unseen.
        found = tuple(dict.fromkeys([*(users or [ours]), *(file for file in everyone if file != _NO_FILE)]))
        kept = (found[0], *(file for file in found[1:] if file.exists()))
        return () if kept == (ours,) else kept


def _hops(wish: _Wish, config: _Config | None, depth: int) -> list[Hop]:
    if depth >= _MOST_HOPS:
        raise SettingsError(f"{wish.host}: more than {_MOST_HOPS} jumps, or jumps in a circle. Mend proxy_jump.")
    said = config.of(wish) if config else Said(wish.host)
    if said.command_at and wish.jump is None:
        raise SettingsError(
            f"{wish.host}: {said.command_at} has a ProxyCommand for it, and no commands are run here. "
            "Use ProxyJump there, or proxy_jump in pipeline.yaml."
        )
    written = [part.strip() for part in wish.jump.split(",")] if wish.jump is not None else None
    jumps = written if written is not None else (said.jumps or "").split(",")
    hops: list[Hop] = []
    if jumps[0] and jumps[0].lower() != "none":
        first, *others = [_parse_hop(part, wish.key_files) for part in jumps]
        hops += _hops(first, config, depth + 1)
        for other in others:  # each is reached through the one before, whatever the file says of it
            hops += _hops(_Wish(other.host, other.port, other.user, other.key_files, "none"), config, depth + 1)
    hops.append(
        Hop(
            said.host,
            wish.port or said.port or DEFAULT_PORT,
            wish.user or said.user or getpass.getuser(),
            wish.key_files or said.key_files,
            bool(wish.key_files) or said.identities_only,
            said.agent,
            said.host_key_alias or "",
            config.known_hosts(said) if config else (),
            said.address_family,
            said.not_used,
        )
    )
    return hops


def _parse_hop(text: str, key_files: tuple[Path, ...]) -> _Wish:
    """A machine to jump through, `[user@]host[:port]` or `ssh://[user@]host[:port]`."""
    is_uri = text.startswith("ssh://")
    match = (_URI if is_uri else _HOP).fullmatch(text)
    if match is None or int(match["port"] or DEFAULT_PORT) not in range(1, 65536):
        raise SettingsError(f"{shown_value(text)!r:.80}: no machine to jump through. The form is [user@]host[:port].")
    port = int(match["port"]) if match["port"] else None
    user = unquote(match["user"]) if is_uri and match["user"] else match["user"]
    return _Wish(match["host"].strip("[]"), port, user, key_files)
