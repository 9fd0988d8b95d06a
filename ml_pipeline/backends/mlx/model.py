"""The base model in memory: loaded once, computed with float32 logits, and given back."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import mlx_lm
from mlx_lm.models.cache import make_prompt_cache

from ml_pipeline.backend_settings import MlxSettings
from ml_pipeline.backends.guarded.guard import model_folder, read_json
from ml_pipeline.errors import BackendError


class LoadedModel:
    """A model of mlx-lm with its tokenizer. `module` is the network, which an adapter changes in place.

    `model` is a folder, or a hub id that the hub's cache on this machine holds: nothing is downloaded. `context_tokens`
    is that of the settings, or the longest that the model was made for.

    Raises:
        BackendError: it cannot be loaded; the message says why.
    """

    def __init__(self, model: str, settings: MlxSettings) -> None:
        self._memory_limit = _set(mx.set_memory_limit, settings.memory_limit_bytes)
        self._cache_limit = _set(mx.set_cache_limit, settings.cache_limit_bytes)
        try:
            self.folder = model_folder(model)
            loaded: Any = mlx_lm.load(str(self.folder))
        # mlx-lm lets out whatever its many loaders raise.
        except Exception as error:
            self._give_back()
            raise BackendError(
                f"{model}: mlx-lm cannot load this model: {type(error).__name__}: {error}. Give a folder that mlx-lm "
                "made, or the hub id of a model that was downloaded to this machine."
            ) from error
        self.module, self.tokenizer = loaded
        self.settings = settings
        self.context_tokens = min(settings.context_tokens, _longest_context(read_json(self.folder, "config.json")))

    def __call__(self, tokens: mx.array, cache: list[Any] | None = None) -> mx.array:
        """Logits (batch, length, vocabulary) for `tokens` (batch, length), in float32.

        mlx-lm normalises logits in the model's own precision, in which neighbours among them become the same.
        """
        logits: mx.array = self.module(tokens, cache=cache)
        return logits.astype(mx.float32)

    def new_cache(self) -> list[Any]:
        """An empty key-value cache for one sequence."""
        cache: list[Any] = make_prompt_cache(self.module)
        return cache

    def encode(self, text: str, *, templated: bool = False) -> list[int]:
        """The tokens of a text; the special ones at its start are put there unless a chat template has done so.

        Raises:
            BackendError: the text has no tokens, as one with half a character in it.
        """
        try:
            tokens: list[int] = self.tokenizer.encode(text, add_special_tokens=not templated)
        # Tokenizers raise TypeError, UnicodeEncodeError and others, some of them out of Rust.
        except Exception as error:
            raise BackendError(f"the text cannot be cut into tokens: {type(error).__name__}: {error}") from error
        return tokens

    def close(self) -> None:
        """Give the memory back, and mlx its own limits. Whoever holds `module` otherwise keeps the memory."""
        self.module = self.tokenizer = None
        self._give_back()

    def _give_back(self) -> None:
        gc.collect()
        mx.clear_cache()
        _set(mx.set_memory_limit, self._memory_limit)
        _set(mx.set_cache_limit, self._cache_limit)


def shared_prefix(sequences: Sequence[list[int]]) -> int:
    """With how many tokens all of these sequences begin."""
    if not sequences:
        return 0
    # What the smallest and the largest in order of their tokens share, all in between share.
    first, last = min(sequences), max(sequences)
    size = min(len(first), len(last))
    return next((place for place in range(size) if first[place] != last[place]), size)


def _longest_context(config: dict[str, Any]) -> int:
    inner = config.get("text_config")
    sections = [config, inner if isinstance(inner, dict) else {}]
    found = [section.get("max_position_embeddings") for section in sections]
    return min((size for size in found if isinstance(size, int)), default=2**31)


def _set(limit: Any, size_bytes: int | None) -> int | None:
    """Set one of mlx's limits and return what it was; None changes nothing."""
    return None if size_bytes is None else int(limit(size_bytes))
