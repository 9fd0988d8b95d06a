"""How one request's next token is chosen: greedy, or drawn with the request's own random numbers."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import mlx.core as mx
from mlx_lm.sample_utils import apply_top_k, apply_top_p, greedy_sampler, make_repetition_penalty

from ml_pipeline.backends.generation_options import check_options
from ml_pipeline.backends.interface import CompletionRequest
from ml_pipeline.backends.mlx.json_constraint import SchemaConstraint
from ml_pipeline.backends.seeds import request_seed

PENALTY_WINDOW = 64
# Below this temperature the second likeliest token never comes, and dividing by it overflows.
_COLDEST = 1e-6

LogitsProcessor = Callable[[mx.array, mx.array], mx.array]


class TokenChoice:
    """What mlx-lm's batch calls for one sequence: `processors` on the logits, then `sampler`.

    The order is llama.cpp's: penalty on the answer's last tokens, JSON schema, top-k, top-p, temperature, draw.
    Everything is computed lazily, one token ahead of the one that the batch tells.

    Raises:
        BackendError: the options make no sense.
    """

    def __init__(self, request: CompletionRequest, constraint: SchemaConstraint | None) -> None:
        check_options(request.options)
        self._options = request.options
        self._key = mx.random.key(request_seed(request.options.seed, request.id))
        self._unchanged: deque[mx.array] = deque()
        self._prompt_tokens: int | None = None
        self._constraint = constraint
        self._changes: list[LogitsProcessor] = []
        if request.options.repeat_penalty != 1.0:
            self._changes.append(self._penalise)
            self._penalty = make_repetition_penalty(request.options.repeat_penalty, PENALTY_WINDOW)
        if constraint is not None:
            self._changes.append(constraint)
        self.processors: list[LogitsProcessor] = [self._change] if self._changes else []
        # One and the same function for all greedy requests: mlx-lm calls it once for the whole batch.
        self.sampler: Any = greedy_sampler if request.options.temperature < _COLDEST else self._draw

    @property
    def problem(self) -> str:
        """Why there is nothing to choose from, when the log-probabilities are NaN."""
        told = self._constraint.problem if self._constraint else None
        return told or "the model's logits are NaN: its weights or the adapter's are damaged"

    def log_probability(self, token: int, log_probabilities: mx.array) -> mx.array:
        """That of the chosen token before any change, given the batch's own (vocabulary,) after it, or NaN."""
        if not self._changes:
            return log_probabilities[token]
        return mx.where(mx.isnan(log_probabilities[token]), mx.nan, self._unchanged.popleft()[token])

    def _change(self, tokens: mx.array, logits: mx.array) -> mx.array:
        self._unchanged.append((logits - mx.logsumexp(logits, axis=-1, keepdims=True))[0])
        logits = mx.array(logits)  # the penalty writes into what it is given
        for change in self._changes:
            logits = change(tokens, logits)
        return logits

    def _penalise(self, tokens: mx.array, logits: mx.array) -> mx.array:
        if self._prompt_tokens is None:
            self._prompt_tokens = tokens.size
        penalised: mx.array = self._penalty(tokens[self._prompt_tokens :], logits)
        return penalised

    def _draw(self, log_probabilities: mx.array) -> mx.array:
        options = self._options
        if 0 < options.top_k < log_probabilities.shape[-1]:
            log_probabilities = apply_top_k(log_probabilities, options.top_k)
        if options.top_p < 1.0:
            log_probabilities = apply_top_p(log_probabilities, options.top_p)
        self._key, key = mx.random.split(self._key)
        return mx.random.categorical(log_probabilities / options.temperature, key=key)
