"""Posts JSON to a webhook, within a time that holds whatever the server does; its address is never shown in full."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx

from ml_pipeline.addresses import shown_origin
from ml_pipeline.errors import AlertError
from ml_pipeline.http_bodies import ask


def post(address: str, content: Mapping[str, Any], timeout_s: float) -> None:
    """Post `content` once; nothing of the answer but its status is read, and no redirect is followed.

    Raises:
        AlertError: the server was not reached, did not answer in time, or refused. The message names its host alone.
    """
    try:
        where = shown_origin(address)
        with _unlogged():
            status = ask("POST", address, timeout_s=timeout_s, limit_bytes=0, error_bytes=0, json=content).status
    except (TimeoutError, httpx.TimeoutException):
        raise AlertError(f"alerts.webhook: {where} did not answer within {timeout_s:g} s.") from None
    except (httpx.InvalidURL, ValueError):
        raise AlertError("alerts.webhook: not a valid address. Mend it in pipeline.yaml or the environment.") from None
    except (httpx.HTTPError, OSError) as error:
        raise AlertError(f"alerts.webhook: {where} cannot be reached: {type(error).__name__}.") from None
    if not 200 <= status < 300:
        raise AlertError(
            f"alerts.webhook: {where} answered with status {status}. Below 500 the address is wrong or revoked, or the "
            "service wants other fields: see alerts.fields."
        )


@contextmanager
def _unlogged() -> Iterator[None]:
    """Keep httpx from writing the whole address into the log, as it does for every request."""
    log = logging.getLogger("httpx")

    def drop(record: logging.LogRecord) -> bool:
        return False

    log.addFilter(drop)
    try:
        yield
    finally:
        log.removeFilter(drop)
