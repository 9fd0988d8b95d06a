"""Proof that an adapter changed the model: its likeliest next tokens after a fixed text, with it and without."""

from __future__ import annotations

from typing import Any

from ml_pipeline.backends.http_answer import HttpError
from ml_pipeline.backends.interface import PROBE_TEXT
from ml_pipeline.backends.likeliest import Position
from ml_pipeline.backends.loopback_http import HttpClient

_PATH = "/v1/completions"
# An adapter may leave the first token as it is, to the last digit of a half-precision number.
_POSITIONS = 8
# The most that the server tells.
_TOP = 11


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


def _position(entries: Any) -> Position:
    return {int(entry["id"]): float(entry["logprob"]) for entry in entries}
