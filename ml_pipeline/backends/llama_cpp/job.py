"""One request on its way through the scheduler."""

from __future__ import annotations

import time

import numpy as np
import numpy.typing as npt

from ml_pipeline.backends.batched import BatchedJob
from ml_pipeline.backends.interface import Completion, CompletionRequest, FinishReason
from ml_pipeline.backends.llama_cpp.log_softmax import log_softmax
from ml_pipeline.backends.llama_cpp.model import LoadedModel
from ml_pipeline.backends.llama_cpp.samplers import Sampler
from ml_pipeline.backends.token_prefixes import Tokens


class Job(BatchedJob):
    """A request with its tokens, its sampler and the answer so far."""

    def __init__(self, request: CompletionRequest, prompt: str, tokens: Tokens, sampler: Sampler) -> None:
        super().__init__(request, prompt, len(tokens))
        self.tokens = tokens
        self.sampler = sampler
        self.next_token: int | None = None

    @property
    def generating(self) -> bool:
        """Whether the prompt is decoded and a token of the answer waits to be."""
        return self.next_token is not None

    def waiting_tokens(self, decoded: int, room: int) -> Tokens:
        """What to decode next, `decoded` tokens being in memory: a piece of the prompt, or the last chosen token."""
        if self._started is None:
            self._started = time.perf_counter()
        if self.next_token is not None:
            return np.array([self.next_token], dtype=np.int32)
        return self.tokens[decoded : decoded + room]

    def choose(self, logits: npt.NDArray[np.float32], index: int, model: LoadedModel) -> FinishReason | None:
        """Choose the next token and take it into the answer.

        `logits` over the vocabulary lie at output `index` of the batch. Returns why the answer ends here, or None when
        it goes on. Raises BackendError when the sampler has nothing to choose from.
        """
        log_probabilities = log_softmax(logits) if self.request.log_probabilities else None  # a sampler may change them
        token = self.sampler.choose(logits, index)
        if model.ends_answer(token):
            return "stop"
        self.answer_tokens += 1
        if log_probabilities is not None:
            self._log_probabilities.append(float(log_probabilities[token]))
        self.next_token = token
        if self.answer.add(model.piece(token)):
            return "stop"
        return "length" if self.answer_tokens >= self.request.options.max_tokens else None

    def completion(self, reason: FinishReason, error: str | None = None) -> Completion:
        """Close the job with what it has, and free its sampler."""
        self.sampler.close()
        return super().completion(reason, error)
