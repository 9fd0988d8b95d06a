"""Reads single values out of what others wrote, whether JSON, CSV or a database gave them; ValueError says why not."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from ml_pipeline.json_lines import json_kind
from ml_pipeline.stores.points import ORIGINAL_EPOCH_S

_MAX_NAME_CHARS = 150
_MAX_WHOLE = 2**53
_MADE_UP_SPAN_S = 1000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
Fields = Mapping[str, Any]


def name(fields: Fields, key: str) -> str:
    """A short printable text that must be there."""
    value = fields.get(key)
    if value is None or value == "":
        raise ValueError(f"{key!r} is missing or empty")
    if not isinstance(value, str):
        raise ValueError(f"{key!r} must be a text, not {json_kind(value)}")
    value = value.strip()
    if not value or len(value) > _MAX_NAME_CHARS or not value.isprintable():
        raise ValueError(f"{key!r} must be 1 to {_MAX_NAME_CHARS} printable characters, not {value!a:.40}")
    return value


def number(fields: Fields, key: str) -> float:
    """A finite number."""
    value = fields.get(key)
    if value is None or value == "":
        raise ValueError(f"{key!r} is missing or empty")
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"{key!r} must be a number, not {json_kind(value)}")
    try:
        found = float(value)
    except (ValueError, OverflowError):
        raise ValueError(f"{key!r} must be a number, not {value!a:.40}") from None
    if not math.isfinite(found):
        raise ValueError(f"{key!r} must be a finite number, not {found}")
    return found


def whole(fields: Fields, key: str) -> int:
    """A whole number from 0; `7i`, as line protocol writes it, is one."""
    value = fields.get(key)
    found = number({key: value.removesuffix("i")} if isinstance(value, str) else fields, key)
    if found != int(found) or not 0 <= found <= _MAX_WHOLE:
        raise ValueError(f"{key!r} must be a whole number from 0, not {value!a:.40}")
    return int(found)


def truth(fields: Fields, key: str) -> bool:
    """True or false, also as 1 or 0."""
    value = fields.get(key)
    known = {"true": True, "1": True, "1i": True, "false": False, "0": False, "0i": False}
    found = known.get(str(value).lower()) if isinstance(value, bool | int | str) else None
    if found is None:
        raise ValueError(f"{key!r} must be true or false, not {value!a:.40}")
    return found


def figure(fields: Fields, key: str, highest: float = 10) -> float:
    """A judge's figure, 0..10."""
    found = number(fields, key)
    if not 0 <= found <= highest:
        raise ValueError(f"{key!r} must be within 0..{highest:g}, not {found:g}")
    return found


def table(fields: Fields, key: str) -> dict[str, Any]:
    """An object; none where it is missing."""
    value = fields.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ValueError(f"{key!r} must be an object, not {json_kind(value)}")
    return value


def moment(fields: Fields, key: str) -> datetime | None:
    """A time in UTC, None where there is none: ISO 8601 (UTC where it has no zone) or ns since 1970."""
    value = fields.get(key)
    if value is None or value == "":
        return None
    try:
        if isinstance(value, datetime):
            found = value
        elif isinstance(value, str) and not value.strip().isdecimal():
            found = datetime.fromisoformat(value.strip())
        elif isinstance(value, int | str) and not isinstance(value, bool):
            found = _EPOCH + timedelta(microseconds=int(value) // 1000)
        else:
            raise ValueError
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError(f"{key!r} must be a time, not {value!a:.40}") from None


def made_up_ordinal(at: datetime | None, iteration: int) -> int | None:
    """Which point of its checkpoint one of this time is, where the time is one that the original made up; else None.

    The original's times are its epoch, 1000 s for each iteration, and the point's ordinal in s: they say nothing of
    when a score was made.
    """
    if at is None:
        return None
    ordinal = (at - _EPOCH).total_seconds() - ORIGINAL_EPOCH_S - iteration * 1000
    return int(ordinal) if 0 <= ordinal < _MADE_UP_SPAN_S and ordinal == int(ordinal) else None
