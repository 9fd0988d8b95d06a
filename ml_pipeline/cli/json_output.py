"""JSON for other programs: one object on standard output, whatever the values were made of."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import click


def print_json(value: Mapping[str, Any], *, indent: int | None = 2) -> None:
    """Write one object; with `indent` None on one line."""
    click.echo(json.dumps(plain(value), indent=indent, allow_nan=False))


def plain(value: Any) -> Any:
    """What JSON can say of a value: NaN, infinity and pandas' NA become null, times ISO 8601, dataclasses objects."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, Mapping):
        return {str(name): plain(inner) for name, inner in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, list | tuple | set):
        return [plain(inner) for inner in value]
    if isinstance(value, datetime):
        return value.isoformat() if value == value else None  # pandas' NaT is a datetime that equals nothing
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Fraction):
        return float(value)
    if hasattr(value, "item"):  # numpy's numbers
        return plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if type(value).__name__ == "NAType":
        return None
    raise TypeError(f"{type(value).__name__} cannot be said in JSON")
