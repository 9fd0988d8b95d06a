"""Addresses of folders on other file systems: what may be shown of them, and secrets that must not be there."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_SECRET_NAME = re.compile(r"secret|token|passw|credential|sas|(^|_)key$", re.IGNORECASE)
_NO_SECRETS = ("", "anon", "google_default", "cloud")
_PASSWORD_IN_URL = re.compile(r"^([^/]*://)[^/]*:[^/]*@")
_LONGEST_REASON = 300


def shown_url(url: str) -> str:
    """The address as messages show it: without a name and password."""
    return _PASSWORD_IN_URL.sub(r"\1...@", url)


def secrets_in(url: str, options: Mapping[str, Any]) -> list[str]:
    """Where an address and its options hold what looks like a secret; the values themselves are never told."""
    inner = [secrets_in("", value) for value in options.values() if isinstance(value, Mapping)]
    return [
        *(["a password in url"] if _PASSWORD_IN_URL.match(url) else []),
        *(f"options: {name}" for name, value in options.items() if _is_secret(str(name), value)),
        *(place for places in inner for place in places),
    ]


def reason(error: Exception) -> str:
    """What happened, in one line, without what a signed address carries."""
    text = " ".join(re.sub(r"\?\S+", "?...", str(error)).split())
    return f"{type(error).__name__}: {text[:_LONGEST_REASON]}."


def _is_secret(name: str, value: object) -> bool:
    return isinstance(value, str) and value not in _NO_SECRETS and bool(_SECRET_NAME.search(name))
