"""Addresses: what may be shown of them, and secrets that must not be there.

Whatever shows an address, be it a table, a message, a report or a log, shows it by `shown_url`; a text that may hold
addresses, such as the words of a library, by `shown_text`.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, urlsplit

_SECRET_NAME = re.compile(r"secret|token|passw|credential|sas|(^|_)key$", re.IGNORECASE)
_SECRET_IN_QUERY = re.compile(rf"{_SECRET_NAME.pattern}|signature|^(sig|auth|p|pw|pwd)$", re.IGNORECASE)
_NO_SECRETS = ("", "anon", "google_default", "cloud")
# Lengths are bounded: a server's words may be long, and every place in them a beginning.
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]{0,30}://", re.IGNORECASE)
_IN_TEXT = re.compile(rf"{_SCHEME.pattern}[^\s\"'<>]+", re.IGNORECASE)
_NAME_IS_NO_SECRET = ("abfs", "abfss", "wasb", "wasbs", "ssh", "sftp", "ftp", "smb", "hdfs", "webhdfs")
"""`abfss://container@account...`, `sftp://user@host`: what stands before the `@` is a name, unless it has a `:`."""
_HAVE_NO_PORT = ("s3", "s3a", "gs", "gcs", "az", "hf", "oss")
_BARE_LOGIN = re.compile(r"[^\s:/@'\"]{1,256}:(?!//)[^\s@'\"]{1,1024}@(?=\S)")
_LONGEST_REASON = 300


def shown_url(url: str) -> str:
    """The address as messages show it: without name and password, and without what stands behind `?` and `#`."""
    start, login, rest = _parts(url)
    place, mark, _ = _split_first(rest, "?#")
    return f"{start}{'...@' if login else ''}{place}{f'{mark}...' if mark else ''}"


def shown_origin(url: str) -> str:
    """Of an address that is a secret as a whole, as webhooks' are: its scheme, host and port.

    Raises:
        ValueError: it is no address.
    """
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}://{host}{f':{parts.port}' if parts.port else ''}"


def shown_text(text: str) -> str:
    """The text with every address in it as `shown_url` has it."""
    return _IN_TEXT.sub(lambda found: shown_url(found.group()), text)


def shown_value(value: Any) -> Any:
    """A value of pipeline.yaml as messages show it: without logins, and without what a name says is a secret."""
    if isinstance(value, Mapping):
        return {name: "..." if _is_secret(str(name), inner) else shown_value(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [shown_value(inner) for inner in value]
    return _BARE_LOGIN.sub("...@", shown_text(value)) if isinstance(value, str) else value


def holds_login(text: str) -> bool:
    """Whether an address, or `user:password@host` without a scheme, holds a login."""
    return bool(_parts(text)[1] if _SCHEME.search(text) else _BARE_LOGIN.search(text))


def secrets_in(url: str, options: Mapping[str, Any]) -> list[str]:
    """Where an address and its options hold what looks like a secret; the values themselves are never told."""
    query = _split_first(_parts(url)[2], "?")[2].partition("#")[0]
    return [
        *(["a password in url"] if holds_login(url) else []),
        *(f"{name} in url" for name, _ in parse_qsl(query) if _SECRET_IN_QUERY.search(name)),
        *(place for name, value in options.items() for place in _secrets_of(str(name), value)),
    ]


def reason(error: Exception) -> str:
    """What happened, in one line, without what a signed address carries."""
    text = " ".join(re.sub(r"\?\S+", "?...", shown_text(str(error))).split())
    return f"{type(error).__name__}: {text[:_LONGEST_REASON]}."


class _NoLogins(logging.Filter):
    """Shows the addresses of a record by `shown_url`; httpx logs that of every request."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(_shown_argument(one) for one in record.args)
        record.msg = shown_text(record.msg) if isinstance(record.msg, str) else record.msg
        return True


# Here, and not where a client is made: whichever is the first to speak, its words have no login.
logging.getLogger("httpx").addFilter(_NoLogins())


def _shown_argument(value: object) -> object:
    return value if isinstance(value, int | float) or "://" not in str(value) else shown_text(str(value))


def _parts(url: str) -> tuple[str, str, str]:
    """The scheme with its `://`, the login before an `@`, and the rest.

    A secret key of S3 may hold a `/`, which ends the host in any other address: where what would be the port is no
    number, or there are no ports, everything up to the last `@` is the login.
    """
    found = _SCHEME.search(url)
    if found is None:
        return "", "", url
    start, after = url[: found.end()], url[found.end() :]
    scheme = found.group()[:-3].lower().rpartition("+")[2]
    authority, _, _ = _split_first(after, "/?#")
    login, at, _ = authority.rpartition("@")
    if at:
        secret = ":" in login or scheme not in _NAME_IS_NO_SECRET
        return (start, login, after[len(login) + 1 :]) if secret else (start, "", after)
    login, at, rest = after.rpartition("@")
    name, colon, port = authority.rpartition(":")
    if at and colon and name and not name.startswith("[") and (scheme in _HAVE_NO_PORT or not port.isdecimal()):
        return start, login, rest
    return start, "", after


def _split_first(text: str, signs: str) -> tuple[str, str, str]:
    """The text before the first of these signs, the sign, and what follows."""
    found = re.search(f"[{re.escape(signs)}]", text)
    return (text, "", "") if found is None else (text[: found.start()], found.group(), text[found.end() :])


def _secrets_of(name: str, value: Any) -> list[str]:
    if isinstance(value, Mapping):
        return [place for inner, one in value.items() for place in _secrets_of(str(inner), one)]
    if _is_secret(name, value) or (isinstance(value, str) and _SCHEME.search(value) and secrets_in(value, {})):
        return [f"options: {name}"]
    return []


def _is_secret(name: str, value: object) -> bool:
    return isinstance(value, str) and value not in _NO_SECRETS and bool(_SECRET_NAME.search(name))
