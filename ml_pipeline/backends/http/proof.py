"""Proof that an adapter changed the model, as far as a server lets one see: log-probabilities, else the greedy text."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

from ml_pipeline.backends.delta_text import DeltaText
from ml_pipeline.backends.http.chat import PATH, log_probability
from ml_pipeline.backends.http.requester import Requester
from ml_pipeline.backends.http_answer import HttpError
from ml_pipeline.backends.interface import PROBE_TEXT
from ml_pipeline.backends.likeliest import largest_difference
from ml_pipeline.errors import AdapterError, AdapterNotAppliedError

# An adapter may leave the first token as it is, to the last digit of a half-precision number.
_POSITIONS = 8
# The most that mlx_lm.server tells; others tell more.
_TOP = 10
_LEAST = 1e-6
# How much further than the base from itself an adapter must be.
_ABOVE_NOISE = 3.0
# All that is known of two greedy texts that differ: the difference is above zero.
_ABOVE_ZERO = sys.float_info.min


@dataclass(frozen=True, slots=True)
class Probe:
    """A greedy answer to the probe text; `positions` are its likeliest tokens, None where the server tells none."""

    text: str
    positions: list[dict[str, float]] | None


class Prover:
    """Compares models of one server with the base, which is asked twice: what differs then is noise."""

    def __init__(self, requester: Requester, base: str) -> None:
        self._requester = requester
        self._base = base
        self._known: tuple[Probe, Probe] | None = None

    async def difference(self, model: str) -> float:
        """How far `model` is from the base at least, in log-probabilities; see `AppliedProof`.

        Raises:
            AdapterError: nothing shows that they differ.
            HttpError: the server does not answer.
        """
        if self._known is None:
            self._known = await self._probe(self._base), await self._probe(self._base)
        first, second = self._known
        found = await self._probe(model)
        if first.positions and second.positions and found.positions:
            noise = largest_difference(first.positions, second.positions)
            difference = largest_difference(first.positions, found.positions)
            if difference > max(_LEAST, _ABOVE_NOISE * noise):
                return difference
        elif first.text == second.text != found.text:
            return _ABOVE_ZERO
        raise AdapterNotAppliedError(
            f"{self._requester.client.where}: not applied: the model answers as without the adapter. Its weights are "
            "zero (a checkpoint from before the first step?), its scale is, or it belongs to another base model."
        )

    async def _probe(self, model: str) -> Probe:
        body = {
            "model": model,
            "messages": [{"role": "user", "content": PROBE_TEXT}],
            "max_tokens": _POSITIONS,
            "temperature": 0.0,
        }
        told = body | {"logprobs": True, "top_logprobs": _TOP}
        _, answer = await self._requester.post_as_it_can(PATH, [told, body])
        try:
            choice = answer["choices"][0]
            text = DeltaText().text_of(choice["message"])
        except (LookupError, TypeError) as error:
            raise HttpError("the server's answer holds no text", again=False) from error
        return Probe(text, _positions(choice.get("logprobs")))


def _positions(found: Any) -> list[dict[str, float]] | None:
    try:
        positions = [
            {str(entry["token"]): log_probability(entry["logprob"]) for entry in position["top_logprobs"]}
            for position in found["content"]
        ]
    except (LookupError, TypeError):
        return None
    known = [{token: value for token, value in position.items() if value is not None} for position in positions]
    if any(None in position.values() for position in positions):
        raise AdapterError(
            "the model computes NaN or infinite values under this adapter. Training diverged, or the scale is wrong."
        )
    return known if known and all(known) else None
