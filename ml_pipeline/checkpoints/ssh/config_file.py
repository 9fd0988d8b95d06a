"""What `~/.ssh/config` says of a machine, read as OpenSSH reads it: `ssh -G` prints the same.

paramiko's reader knows no Include, matches some words otherwise and takes what it does not know for nothing. Here what
OpenSSH would do and this program does not is refused by its name (`Match exec`, CanonicalizeHostname, a ProxyCommand),
never passed over. After ssh_config(5) and readconf.c of OpenSSH 9.
"""

from __future__ import annotations

import fnmatch
import getpass
import glob
import os
import re
import socket
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ml_pipeline.errors import SettingsError

USER_CONFIG = Path("~/.ssh/config")
SYSTEM_CONFIG = Path("/etc/ssh/ssh_config")
_MOST_INCLUDES = 16
_MOST_BYTES = 4 * 2**20
_MANY = frozenset({"identityfile", "certificatefile"})
_LISTS = frozenset({"userknownhostsfile", "globalknownhostsfile"})
_ONE_WORD = """hostname port user identityfile identitiesonly identityagent hostkeyalias addressfamily certificatefile
canonicalizehostname pubkeyauthentication revokedhostkeys bindaddress bindinterface"""
_SINGLE = frozenset(_ONE_WORD.split())
# Rest of the line, as it stands.
_RAW = frozenset({"proxycommand", "proxyjump", "localcommand", "remotecommand", "knownhostscommand"})
# What OpenSSH would do and is not done here, where it is not one of these values.
_REFUSED = {
    "canonicalizehostname": ("no", "none", "false"),
    "pubkeyauthentication": ("yes", "true", "unbound", "host-bound"),
    "revokedhostkeys": ("none",),
    "bindaddress": ("none",),
    "bindinterface": ("none",),
}
_NOT_USED = ("certificatefile", "pkcs11provider", "securitykeyprovider")
_KEYWORDS = """addkeystoagent addressfamily batchmode bindaddress bindinterface canonicaldomains
canonicalizefallbacklocal canonicalizehostname canonicalizemaxdots canonicalizepermittedcnames casignaturealgorithms
certificatefile challengeresponseauthentication channeltimeout checkhostip cipher ciphers clearallforwardings
compression compressionlevel connectionattempts connecttimeout controlmaster controlpath controlpersist dynamicforward
enableescapecommandline enablesshkeysign escapechar exitonforwardfailure fallbacktorsh fingerprinthash
forkafterauthentication forwardagent forwardx11 forwardx11timeout forwardx11trusted gatewayports globalknownhostsfile
gssapiauthentication gssapiclientidentity gssapidelegatecredentials gssapikexalgorithms gssapikeyexchange
gssapirenewalforcesrekey gssapiserveridentity gssapitrustdns hashknownhosts host hostbasedacceptedalgorithms
hostbasedauthentication hostbasedkeytypes hostkeyalgorithms hostkeyalias hostname identitiesonly identityagent
identityfile identityfile2 ignoreunknown include ipqos kbdinteractiveauthentication kbdinteractivedevices keepalive
kexalgorithms knownhostscommand localcommand localforward loglevel logverbose macs match
nohostauthenticationforlocalhost numberofpasswordprompts obscurekeystroketiming passwordauthentication
permitlocalcommand permitremoteopen pkcs11provider port preferredauthentications protocol proxycommand proxyjump
proxyusefdpass pubkeyacceptedalgorithms pubkeyacceptedkeytypes pubkeyauthentication refuseconnection rekeylimit
remotecommand remoteforward requesttty requiredrsasize revokedhostkeys rhostsauthentication rhostsrsaauthentication
rsaauthentication securitykeyprovider sendenv serveralivecountmax serveraliveinterval sessiontype setenv
skeyauthentication smartcarddevice stdinnull streamlocalbindmask streamlocalbindunlink stricthostkeychecking
syslogfacility tag tcpkeepalive tisauthentication tunnel tunneldevice updatehostkeys useblacklistedkeys usekeychain
useprivilegedport user userknownhostsfile userknownhostsfile2 useroaming usersh verifyhostkeydns versionaddendum
visualhostkey warnweakcrypto xauthlocation"""
_KNOWN = frozenset(_KEYWORDS.split())
_SAME = {"identityfile2": "identityfile", "userknownhostsfile2": "userknownhostsfile"}
_TOKEN = re.compile(r"%(.?)")
_VARIABLE = re.compile(r"\$\{([^}]*)\}")
_WORD = re.compile(r'"((?:[^"\\]|\\.)*)"|\'((?:[^\'\\]|\\.)*)\'|\\(.)|([^\s"\'\\]+)')


@dataclass(frozen=True, slots=True)
class Said:
    """What the files say of one machine; None and empty where they say nothing.

    `jumps` is ProxyJump as written, `command_at` where a ProxyCommand stands that takes its place. `agent` is the
    address of the agent's socket: empty for none, None for the usual one. `not_used` are the words that OpenSSH would
    follow besides, by name.
    """

    host: str
    port: int | None = None
    user: str | None = None
    key_files: tuple[Path, ...] = ()
    identities_only: bool = False
    agent: str | None = None
    jumps: str | None = None
    command_at: str = ""
    host_key_alias: str | None = None
    known_hosts: tuple[Path, ...] | None = None
    global_known_hosts: tuple[Path, ...] | None = None
    address_family: str = "any"
    not_used: tuple[str, ...] = ()


def look_up(file: Path, host: str, user: str | None = None, port: int | None = None) -> Said:
    """What `file` says of the machine that a user calls `host`; with USER_CONFIG also what the system's file says.

    `user` and `port` are those given beside the name, which `Match user` and the tokens go by.

    Raises:
        SettingsError: a file cannot be read, has a mistake, or wants what is not done here; with file and line.
    """
    reader = _Reader(host, user)
    files = [(file.expanduser(), file != USER_CONFIG)]
    if file == USER_CONFIG:
        files.append((SYSTEM_CONFIG, True))
    for final in (False, True):
        reader.final = final
        for path, trusted in files:
            if path.exists():
                reader.read(path, "/etc/ssh" if path == SYSTEM_CONFIG else "~/.ssh", trusted=trusted)
        if not reader.wants_final:
            break
        reader.host = reader.host_name()
    return _said(reader, host, user, port)


@dataclass
class _Reader:
    """Reads files line by line; the first value of a word counts, of a few all do."""

    original: str
    user: str | None
    final: bool = False
    wants_final: bool = False
    host: str = ""
    found: dict[str, list[str]] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)
    ignored: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.host = self.original

    def host_name(self) -> str:
        """HostName as far as it is known, the name itself without one."""
        written = self.found.get("hostname", ["%h"])[0]
        return _expand_tokens(written, {"h": self.original}, "HostName", self.places.get("hostname", ""))

    def read(
        self, path: Path, folder: str, *, trusted: bool, active: bool = True, never: bool = False, depth: int = 0
    ) -> None:
        """Take what a file says. `never` is for one that a block includes which does not match."""
        if depth > _MOST_INCLUDES:
            raise SettingsError(f"{path}: more than {_MOST_INCLUDES} files that include each other. Mend Include.")
        for number, line in enumerate(_lines(path, trusted=trusted), start=1):
            place = f"{path}:{number}"
            word, rest = _split_word(line)
            if not word or word.startswith("#"):
                continue
            name = _SAME.get(word.lower(), word.lower())
            if name in ("host", "match"):
                matches = self._host(_words(rest, place)) if name == "host" else self._match(_words(rest, place), place)
                active = matches and not never
            elif name == "include":
                for included in self._included(_words(rest, place), folder, place):
                    beneath = never or not active
                    self.read(included, folder, trusted=False, active=active, never=beneath, depth=depth + 1)
            elif name not in _KNOWN and not any(fnmatch.fnmatchcase(name, pattern) for pattern in self.ignored):
                raise SettingsError(f"{place}: OpenSSH knows no {word!r:.80}. Mend it, or name it in IgnoreUnknown.")
            elif active:
                self._take(name, rest, place)

    def _take(self, name: str, rest: str, place: str) -> None:
        values = [rest.lstrip("= \t")] if name in _RAW else _words(rest, place)
        if not values or not values[0]:
            raise SettingsError(f"{place}: {name} has no value. Mend it.")
        if name == "ignoreunknown":
            self.ignored += values[0].lower().split(",")
            return
        if name in ("proxyjump", "proxycommand"):
            # Whichever of the two stands first counts.
            if not {"proxyjump", "proxycommand"} & self.found.keys():
                self.found[name], self.places[name] = values, place
            return
        if name in _SINGLE and len(values) > 1:
            raise SettingsError(f"{place}: {name} has more than one value. Put quotation marks around it.")
        kept = values if name in _LISTS else values[:1]
        if name in _MANY:
            self.found.setdefault(name, []).extend(one for one in kept if one not in self.found.get(name, ()))
        else:
            self.found.setdefault(name, kept)
        self.places.setdefault(name, place)

    def _host(self, patterns: list[str]) -> bool:
        matched = False
        for pattern in patterns:
            if pattern.startswith("!"):
                if _fits(pattern[1:], self.host):
                    return False
            elif _fits(pattern, self.host):
                matched = True
        return matched

    def _match(self, words: list[str], place: str) -> bool:
        if not words:
            raise SettingsError(f"{place}: Match has no condition. Mend it.")
        matched, rest = True, list(words)
        while rest:
            attribute, _, value = rest.pop(0).partition("=")
            negated, name = attribute.startswith("!"), attribute.lstrip("!").lower()
            if name == "all":
                if len(words) > 1 and not (len(words) == 2 and words[0].lower().lstrip("!") in ("canonical", "final")):
                    raise SettingsError(f"{place}: Match all cannot stand beside other conditions. Mend it.")
                holds = True
            elif name in ("canonical", "final"):
                self.wants_final |= name == "final" and not self.final
                holds = self.final
            else:
                if not value:
                    if not rest:
                        raise SettingsError(f"{place}: Match {name} lacks its value. Mend it.")
                    value = rest.pop(0)
                known = {
                    "host": self.host_name,
                    "originalhost": lambda: self.original,
                    "user": lambda: self.user or self.found.get("user", [getpass.getuser()])[0],
                    "localuser": getpass.getuser,
                }
                if name not in known:
                    if not matched:
                        continue  # OpenSSH does not look either: nothing after a condition that fails counts
                    why = "no commands are run here" if name == "exec" else "it is not read here"
                    raise SettingsError(
                        f"{place}: Match {name:.40}: {why}. Set host, port, user and key_file in pipeline.yaml and "
                        "use_ssh_config: false."
                    )
                text = known[name]()
                patterns = value.split(",")
                holds = any(_fits(one, text) for one in patterns if not one.startswith("!"))
                holds = holds and not any(_fits(one[1:], text) for one in patterns if one.startswith("!"))
            matched = matched and holds is not negated
        return matched

    def _included(self, patterns: list[str], folder: str, place: str) -> Iterator[Path]:
        for pattern in patterns:
            if "%" in pattern or "$" in pattern:
                raise SettingsError(f"{place}: Include {pattern!r:.80}: tokens and variables are not read there.")
            path = Path(folder).expanduser() / Path(pattern).expanduser()
            yield from map(Path, sorted(glob.glob(str(path))))  # noqa: PTH207  as glob(3), which skips hidden files


def _lines(path: Path, *, trusted: bool) -> list[str]:
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            if not trusted and (status.st_uid not in (0, os.getuid()) or stat.S_IMODE(status.st_mode) & 0o022):
                raise SettingsError(
                    f"{path}: others may write to it, so that OpenSSH does not read it. Run: chmod go-w {path}"
                )
            raw = file.read(_MOST_BYTES + 1)
        if len(raw) > _MOST_BYTES:
            raise SettingsError(f"{path} cannot be read: it is larger than {_MOST_BYTES} bytes.")
        return raw.decode("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} cannot be read: {error}. Mend it, or set use_ssh_config: false.") from error


def _split_word(line: str) -> tuple[str, str]:
    """The word that a line begins with, and what follows it and its one "="."""
    line = line.strip(" \t\r\f")
    match = re.match(r'"([^"]*)"|([^\s=]+)', line)
    if match is None:
        return "", ""
    rest = line[match.end() :].lstrip(" \t")
    return match[1] or match[2] or "", rest[1:].lstrip(" \t") if rest.startswith("=") else rest


def _words(text: str, place: str) -> list[str]:
    """Arguments as OpenSSH splits them: quotes hold blanks, a backslash holds the next, "#" begins a comment."""
    words: list[str] = []
    at = 0
    while at < len(text):
        if text[at].isspace():
            at += 1
            continue
        if text[at] == "#":
            break
        word = ""
        while at < len(text) and not text[at].isspace():
            match = _WORD.match(text, at)
            if match is None:
                raise SettingsError(f"{place}: a quotation mark is not closed. Mend it.")
            quoted = match[1] if match[1] is not None else match[2]
            if quoted is not None:
                word += re.sub(r"\\([\"'\\])", r"\1", quoted)
            elif match[3] is not None:
                word += match[3] if match[3] in "\"'\\ " else f"\\{match[3]}"
            else:
                word += match[4]
            at = match.end()
        words.append(word)
    return words


def _fits(pattern: str, text: str) -> bool:
    """A pattern of "*" and "?" over the whole text; large and small letters differ, as OpenSSH has it."""
    wild = re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".")
    return re.fullmatch(wild, text, re.DOTALL) is not None


def _said(reader: _Reader, host: str, user: str | None, port: int | None) -> Said:
    found, places = reader.found, reader.places

    def one(name: str) -> str | None:
        return found[name][0] if name in found else None

    for name, harmless in _REFUSED.items():
        if (value := one(name)) is not None and value.lower() not in harmless:
            raise SettingsError(
                f"{places[name]}: {name} {value:.80} is not done here. Set host, port, user and key_file in "
                "pipeline.yaml and use_ssh_config: false."
            )
    written_port = one("port")
    if written_port is not None and not (written_port.isdecimal() and 0 < int(written_port) < 65536):
        raise SettingsError(f"{host}: {places['port']} has a Port that is no number from 1 to 65535. Mend it.")
    host_name = reader.host_name().lower()
    said_port = int(written_port) if written_port else None
    said_user = one("user")
    me = getpass.getuser()
    tokens = {
        "%": "%",
        "d": str(Path.home()),
        "h": host_name,
        "i": str(os.getuid()),
        "k": one("hostkeyalias") or host,
        "L": socket.gethostname().partition(".")[0],
        "l": socket.gethostname(),
        "n": host,
        "p": str(port or said_port or 22),
        "r": user or said_user or me,
        "u": me,
    }

    def path(name: str, value: str) -> Path:
        return Path(_expanded(value, tokens, name, places[name])).expanduser()

    def paths(name: str) -> tuple[Path, ...] | None:
        return tuple(path(name, value) for value in found[name] if value.lower() != "none") if name in found else None

    jumps, command = one("proxyjump"), one("proxycommand") or "none"
    return Said(
        host=host_name,
        port=said_port,
        user=said_user,
        key_files=paths("identityfile") or (),
        identities_only=(one("identitiesonly") or "no").lower() in ("yes", "true"),
        agent=_agent(one("identityagent"), path),
        jumps=_expand_tokens(jumps, tokens, "proxyjump", places["proxyjump"]) if jumps else None,
        command_at=places["proxycommand"] if command.lower() != "none" else "",
        host_key_alias=alias.lower() if (alias := one("hostkeyalias")) else None,
        known_hosts=paths("userknownhostsfile"),
        global_known_hosts=paths("globalknownhostsfile"),
        address_family=(one("addressfamily") or "any").lower(),
        not_used=tuple(
            name for name in _NOT_USED if (value := one(name)) is not None and value not in ("none", "internal")
        ),
    )


def _agent(value: str | None, path: Callable[[str, str], Path]) -> str | None:
    if value is None or value == "SSH_AUTH_SOCK":
        return None
    if value.lower() == "none":
        return ""
    if value.startswith("$") and not value.startswith("${"):
        return os.environ.get(value[1:], "")
    return str(path("identityagent", value))


def _expanded(text: str, tokens: Mapping[str, str], name: str, place: str) -> str:
    def variable(match: re.Match[str]) -> str:
        value = os.environ.get(match[1])
        if value is None:
            raise SettingsError(f"{place}: {name}: there is no environment variable {match[1]!r:.80}. Set it.")
        return value

    return _expand_tokens(_VARIABLE.sub(variable, text), tokens, name, place)


def _expand_tokens(text: str, tokens: Mapping[str, str], name: str, place: str) -> str:
    def value(match: re.Match[str]) -> str:
        if match[1] == "%":
            return "%"
        if match[1] not in tokens:
            raise SettingsError(f"{place}: {name}: the token %{match[1]} is not read here. Write out what it means.")
        return tokens[match[1]]

    return _TOKEN.sub(value, text)
