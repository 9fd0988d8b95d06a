"""What all prompts of a call begin with is read once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx

from ml_pipeline.backends.mlx.model import LoadedModel, shared_prefix

# Copying keys and values costs about as much as reading so few tokens.
_SHORTEST = 16


@dataclass(frozen=True, slots=True)
class Prefix:
    """Tokens, and the key-value cache after them; None where there are none."""

    tokens: list[int]
    cache: list[Any] | None

    def cache_for(self, model: LoadedModel) -> list[Any]:
        """A cache for a sequence that goes on from here. mlx-lm's batches copy it and leave it as it is."""
        return model.new_cache() if self.cache is None else self.cache


def read_prefix(model: LoadedModel, prompts: Sequence[list[int]]) -> Prefix:
    """Read the beginning that several prompts share, all but the last token of each at most."""
    size = shared_prefix([prompt[:-1] for prompt in prompts])
    if len(prompts) < 2 or size < _SHORTEST:
        return Prefix([], None)
    tokens, cache = prompts[0][:size], model.new_cache()
    step = model.settings.prefill_tokens
    for start in range(0, size, step):
        model.module(mx.array([tokens[start : start + step]]), cache=cache)
        mx.eval([layer.state for layer in cache])
    return Prefix(tokens, cache)
