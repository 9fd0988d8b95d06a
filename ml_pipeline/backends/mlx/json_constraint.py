"""An answer held to a JSON schema: tokens that the schema does not allow next are not chosen."""

from __future__ import annotations

import json
from typing import Any

import mlx.core as mx
import numpy as np
from llguidance import LLMatcher
from llguidance.hf import from_tokenizer

from ml_pipeline.errors import BackendError

# No white space but what JSON needs: a small model otherwise likes to go on with it for ever.
_STYLE: Any = {"whitespace_flexible": False}


class SchemaConstraints:
    """Makes constraints for one model's tokenizer, which is taken apart for the first of them (about a second)."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._vocabulary: Any = None

    def make(self, schema: dict[str, Any]) -> SchemaConstraint:
        """A fresh constraint for one answer.

        Raises:
            BackendError: the schema asks for something that cannot be held to, or the tokenizer is not a fast one.
        """
        try:
            if self._vocabulary is None:
                ends = sorted(self._tokenizer.eos_token_ids)
                self._vocabulary = from_tokenizer(self._tokenizer._tokenizer, eos_token=ends)
            grammar = LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides=_STYLE)
        except ValueError as error:
            raise BackendError(f"json_schema cannot be turned into a grammar: {error}") from error
        matcher = LLMatcher(self._vocabulary, grammar, log_level=0)
        problems = [matcher.get_error()] if matcher.is_error() else matcher.get_grammar_warnings()
        if problems:
            raise BackendError.from_problems(
                "json_schema", problems, "Leave it out and check the parsed answer instead."
            )
        return SchemaConstraint(matcher, self._vocabulary.vocab_size)


class SchemaConstraint:
    """Called once for every token of one answer. `problem` says what went wrong, when the logits come back as NaN."""

    def __init__(self, matcher: LLMatcher, vocabulary_size: int) -> None:
        self.problem: str | None = None
        self._matcher = matcher
        self._bits = np.zeros((vocabulary_size + 31) // 32, dtype="<u4")
        self._started = False

    def __call__(self, tokens: mx.array, logits: mx.array) -> mx.array:
        """Set the logits (1, vocabulary) of what may not follow to minus infinity; the answer's tokens end `tokens`."""
        if self._started and not self._matcher.is_stopped():
            # Asking for the token waits for it; without a constraint the next step is made ready meanwhile.
            chosen: Any = tokens[-1].item()
            if not self._matcher.consume_token(chosen):
                return logits * mx.nan  # it was not allowed, so the logits were NaN already
        self._started = True
        self._matcher.unsafe_compute_mask_ptr(self._bits.ctypes.data, self._bits.nbytes)
        if self._matcher.is_error():
            self.problem = f"json_schema: {self._matcher.get_error()}"
            return logits * mx.nan
        allowed = np.unpackbits(self._bits.view(np.uint8), bitorder="little").astype(bool)
        whole = np.zeros(logits.shape[-1], dtype=bool)  # a model may have room for more tokens than the tokenizer has
        size = min(len(whole), len(allowed))
        whole[:size] = allowed[:size]
        return mx.where(mx.array(whole), logits, -mx.inf)
