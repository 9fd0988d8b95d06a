"""Proof that an adapter changed the model: its likeliest next tokens after a fixed text, with it and without."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ml_pipeline.backends.interface import PROBE_TEXT
from ml_pipeline.backends.loopback_http import HttpClient, HttpError

_PATH = "/v1/completions"
# An adapter may leave the first token as it is, to the last digit of a half-precision number.
_POSITIONS = 8
# The most that the server tells.
_TOP = 11

Position = dict[int, float]
"""Log-probabilities of the likeliest tokens, by token."""


def probe(client: HttpClient, model: str, adapter_folder: str | None, timeout_s: float) -> list[Position]:
    """Greedy continuation of the probe text, position by position. Raises HttpError."""
    body = {
        "model": model,
        "prompt": PROBE_TEXT,
        "max_tokens": _POSITIONS,
        "temperature": 0.0,
        "logprobs": True,
        "top_logprobs": _TOP,
    }
    if adapter_folder is not None:
        body["adapters"] = adapter_folder
    answer = client.post(_PATH, body, timeout_s)
    try:
        positions = [_position(entry["top_logprobs"]) for entry in answer["choices"][0]["logprobs"]["content"]]
    except (LookupError, TypeError, ValueError) as error:
        raise HttpError("the server gives no log-probabilities; mlx-lm 0.28 or newer does", again=False) from error
    if not positions or not all(positions):
        raise HttpError("the server gives no log-probabilities at all", again=False)
    return positions


def is_finite(positions: Sequence[Position]) -> bool:
    """Whether the model computed numbers."""
    return all(math.isfinite(value) for position in positions for value in position.values())


def largest_difference(base: Sequence[Position], other: Sequence[Position]) -> float:
    """How far log-probabilities are apart at least, over the positions where both had the same text before them."""
    largest = 0.0
    for first, second in zip(base, other, strict=False):
        largest = max(largest, _difference(first, second))
        if _likeliest(first) != _likeliest(second):
            break
    return largest


def _difference(first: Position, second: Position) -> float:
    differences = [abs(first[token] - second[token]) for token in first.keys() & second.keys()]
    # A token missing from one list has at most that list's smallest log-probability there.
    for there, elsewhere in ((first, second), (second, first)):
        floor = min(elsewhere.values())
        differences += [there[token] - floor for token in there.keys() - elsewhere.keys()]
    return max(differences)


def _likeliest(position: Position) -> int:
    return max(position, key=position.__getitem__)


def _position(entries: Any) -> Position:
    return {int(entry["id"]): float(entry["logprob"]) for entry in entries}
