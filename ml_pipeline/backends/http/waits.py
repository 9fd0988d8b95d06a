"""How long to wait before a request is made again."""

from __future__ import annotations

import math
import random
import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

_FIRST_S = 0.5
_SECONDS = re.compile(r"\d{1,9}(\.\d{1,9})?")


def back_off(attempt: int, longest_s: float) -> float:
    """Full jitter: anything up to a bound that doubles with each attempt, counted from 0. In s.

    Source: "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
    """
    return random.uniform(0, min(longest_s, math.ldexp(_FIRST_S, min(attempt, 60))))


def retry_after(value: str | None, now: datetime) -> float | None:
    """Seconds that a Retry-After header (RFC 9110, 10.2.3) asks for: a number, or a date. None without a sound one."""
    value = (value or "").strip()
    if _SECONDS.fullmatch(value):
        return float(value)
    try:
        at = parsedate_to_datetime(value)
    except (ValueError, IndexError, OverflowError):
        return None
    # A date without a zone is of "-0000", which is UTC.
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return max(0.0, (at - now).total_seconds())
