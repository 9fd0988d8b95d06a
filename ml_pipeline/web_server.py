"""Dagster's web server, which answers only its own pages: `python -m ml_pipeline.web_server`, as `dagster_webserver`.

It has no login, and whoever reaches it may start runs. It listens on the loopback interface, but every web page that
is open in a browser on the same machine can send requests there. Two kinds of them are refused here:

- requests by a name that is not this server's (the header `Host`): a page of a stranger whose name suddenly means
  127.0.0.1 would else be taken for one of ours and could read everything (DNS rebinding). Numbers cannot be rebound.
- requests that a page from elsewhere makes (the headers `Sec-Fetch-Site` and `Origin`): Dagster carries out what
  `/graphql?query=...` asks for, and its web sockets take anybody. Links to pages of ours still work.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import sys
from collections.abc import Collection
from itertools import pairwise
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from ml_pipeline.dagster_dev import ADDRESS_ENV

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_POLICY_VIOLATION = 1008


class OwnPagesOnly:
    """ASGI middleware that refuses requests by other names and from other pages; see the module."""

    def __init__(self, app: ASGIApp, address: str | None = None, listens_at: str | None = None) -> None:
        self._app = app
        self._names = own_names(address, listens_at)
        self._origin = origin(address) if address else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it with status 403; a web socket is closed before it is open."""
        if scope["type"] in ("http", "websocket") and (why := self._why_not(scope)):
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": _POLICY_VIOLATION, "reason": why[:100]})
            else:
                await PlainTextResponse(f"{why}\n", status_code=403)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _why_not(self, scope: Scope) -> str | None:
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        host = hosts[0] if len(hosts) == 1 else ""
        if not is_own_host(host, self._names):
            return (
                "This is no name of this server. Open it by http://127.0.0.1 and its port, or set links.dagster in "
                "pipeline.yaml to the address under which it is reached, and start it again."
            )
        # A page that somebody opens, by a link or by hand, reads nothing for whoever made the link; one within a
        # stranger's page could be clicked unseen.
        opened = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
        opened = opened and scope.get("method") == "GET"
        if opened and not scope["path"].rstrip("/").endswith("/graphql"):
            return None
        came_from = headers.get("origin")
        if came_from is not None:
            own = {origin(f"{scheme}://{host}") for scheme in ("http", "https")} | {self._origin}
            return None if origin(came_from) in own - {None} else _FOREIGN
        if headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
            return _FOREIGN
        return None


_FOREIGN = "This request comes from a page of another server, and only pages of this one may make it."


def own_names(address: str | None, listens_at: str | None = None) -> frozenset[str]:
    """The names of this machine, that of the address under which people reach the server, and where it listens."""
    here = socket.gethostname().lower()
    named = urlsplit(address).hostname if address else None
    names = {*_LOOPBACK, here, f"{here.partition('.')[0]}.local", socket.getfqdn().lower()}
    names |= {(named or "").lower(), (listens_at or "").lower()}
    return frozenset(names - {""})


def is_own_host(host: str, names: Collection[str]) -> bool:
    """Whether a header `Host` names this server: by one of the names, or by a number."""
    try:
        parts = urlsplit(f"//{host}")
        name = (parts.hostname or "").rstrip(".")
        _ = parts.port  # raises ValueError where it is none
    except ValueError:
        return False
    if parts.username is not None or parts.path or parts.query or parts.fragment:
        return False
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return name in names
    return True


def origin(address: str) -> tuple[str, str, int | None] | None:
    """Scheme, host and port of an address, these two in full; None for one that has none, such as `null`."""
    try:
        parts = urlsplit(address)
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        return None
    return (parts.scheme, parts.hostname, port) if parts.hostname else None


def main() -> None:
    """Run `dagster-webserver` with its own arguments, behind the middleware."""
    from dagster_webserver import app, cli
    from dagster_webserver.webserver import DagsterWebserver

    listens_at = dict(pairwise(sys.argv)).get("--host")

    class Guarded(DagsterWebserver[Any, Any]):
        def build_middleware(self) -> list[Middleware]:
            guard = Middleware(OwnPagesOnly, os.environ.get(ADDRESS_ENV), listens_at)
            return [guard, *super().build_middleware()]

    vars(app)[DagsterWebserver.__name__] = Guarded
    cli.cli(auto_envvar_prefix="DAGSTER_WEBSERVER")


if __name__ == "__main__":
    main()
