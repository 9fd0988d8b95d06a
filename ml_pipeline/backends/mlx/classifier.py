"""Scores labels as continuations of texts: every text is read once, whatever the number of labels."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
from mlx_lm.generate import PromptProcessingBatch

from ml_pipeline.backends.mlx.model import LoadedModel, shared_prefix
from ml_pipeline.backends.mlx.prefix import Prefix, read_prefix
from ml_pipeline.errors import BackendError


@dataclass(slots=True)
class _Text:
    """A text with its labels: all (text + label) begin with `prompt`, and `tails` are what follows."""

    prompt: list[int]
    tails: list[list[int]]


class Classifier:
    """Log-probabilities of labels, the sum over each label's tokens, in batches of the model's sequences."""

    def __init__(self, model: LoadedModel) -> None:
        self._model = model

    def scores(self, texts: Sequence[str], labels: Sequence[str]) -> list[list[float]]:
        """Return one row a text and one number a label, each log P(label | text) by the model as it stands.

        Text and label are tokenised together, so that a label reads as it would in a document; where a label changes
        how the end of its text is cut into tokens, all labels of that text are scored from the last common token.

        Raises:
            BackendError: a text with its longest label is longer than the context, or there is nothing to score.
        """
        items = [self._split(index, text, labels) for index, text in enumerate(texts)]
        prefix = read_prefix(self._model, [item.prompt for item in items])
        width = self._model.settings.sequences
        try:
            return [
                row for start in range(0, len(items), width) for row in self._read(items[start : start + width], prefix)
            ]
        finally:
            mx.clear_cache()

    def _split(self, index: int, text: str, labels: Sequence[str]) -> _Text:
        alone = self._model.encode(text)
        whole = [self._model.encode(text + label) for label in labels]
        common = shared_prefix([alone, *whole])
        longest = max((len(tokens) for tokens in whole), default=0)
        if common == 0 or any(len(tokens) == common for tokens in whole):
            raise BackendError(f"text {index}: neither texts nor labels may be empty")
        if longest > self._model.context_tokens:
            raise BackendError(
                f"text {index}: {longest} tokens with its longest label, but the context holds "
                f"{self._model.context_tokens}. Raise context_tokens, if the model allows it, or shorten the text."
            )
        return _Text(alone[:common], [tokens[common:] for tokens in whole])

    def _read(self, group: Sequence[_Text], prefix: Prefix) -> list[list[float]]:
        prompts = [item.prompt[len(prefix.tokens) :] for item in group]
        batch = PromptProcessingBatch(
            self._model,
            list(range(len(group))),
            [prefix.cache_for(self._model) for _ in group],
            prefill_step_size=self._model.settings.prefill_tokens,
        )
        if any(len(prompt) > 1 for prompt in prompts):
            batch.prompt([prompt[:-1] for prompt in prompts])
        logits = self._model(mx.array([prompt[-1:] for prompt in prompts]), batch.prompt_cache)
        first = _chosen(logits, mx.array([[[tail[0] for tail in item.tails]] for item in group]))
        scores: Any = first[:, 0].tolist()
        # Each place is a text's row in the batch, and a label of several tokens.
        places = [
            (row, label) for row, item in enumerate(group) for label, tail in enumerate(item.tails) if len(tail) > 1
        ]
        width = self._model.settings.sequences
        for start in range(0, len(places), width):
            part = places[start : start + width]
            tails = [group[row].tails[label] for row, label in part]
            rest = self._rest([row for row, _ in part], tails, batch.prompt_cache)
            for (row, label), score in zip(part, rest, strict=True):
                scores[row][label] += score
        return scores  # type: ignore[no-any-return]

    def _rest(self, rows: list[int], tails: Sequence[list[int]], cache: list[Any]) -> list[float]:
        """What the second and later tokens of each tail score after that row of the cache, which stays as it is."""
        size = max(len(tail) for tail in tails) - 1
        padding = [[0] * (size + 1 - len(tail)) for tail in tails]
        own = copy.deepcopy(cache)
        for layer in own:
            layer.filter(rows)
        # What stands behind a tail does not change it: attention looks back only.
        logits = self._model(mx.array([tail[:-1] + more for tail, more in zip(tails, padding, strict=True)]), own)
        targets = mx.array([tail[1:] + more for tail, more in zip(tails, padding, strict=True)])
        inside = mx.arange(size) < mx.array([[len(tail) - 1] for tail in tails])
        found: Any = mx.where(inside, _chosen(logits, targets[..., None])[..., 0], 0.0).sum(axis=-1).tolist()
        return found  # type: ignore[no-any-return]


def _chosen(logits: mx.array, tokens: mx.array) -> mx.array:
    """Log-probabilities (batch, length, n) of `tokens` (batch, length, n), given logits (batch, length, vocabulary)."""
    return mx.take_along_axis(logits, tokens, axis=-1) - mx.logsumexp(logits, axis=-1, keepdims=True)
