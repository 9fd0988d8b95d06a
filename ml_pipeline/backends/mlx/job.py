"""One request on its way through a batch."""

from __future__ import annotations

import math
import time

from ml_pipeline.backends.batched import BatchedJob
from ml_pipeline.backends.interface import Completion, CompletionRequest, FinishReason
from ml_pipeline.backends.mlx.model import LoadedModel
from ml_pipeline.backends.mlx.token_choice import TokenChoice
from ml_pipeline.errors import BackendError


class Job(BatchedJob):
    """A request with its tokens, the way its tokens are chosen, and the answer so far.

    `most_tokens` is the longest answer that the request and the context allow.
    """

    def __init__(
        self, model: LoadedModel, request: CompletionRequest, prompt: str, tokens: list[int], choice: TokenChoice
    ) -> None:
        super().__init__(request, prompt, len(tokens))
        self.tokens = tokens
        self.choice = choice
        self.most_tokens = min(request.options.max_tokens, model.context_tokens - len(tokens))
        self._context_tokens = model.context_tokens
        self._detokenizer = model.tokenizer.detokenizer

    def start(self) -> None:
        """Begin to take the time."""
        self._started = time.perf_counter()

    def add(self, token: int, log_probability: float, finish: str | None) -> FinishReason | None:
        """Take the batch's next token into the answer; `finish` is why mlx-lm ends here.

        Returns why the answer ends, None when it goes on. Raises BackendError when it cannot.
        """
        if math.isnan(log_probability):
            raise BackendError(self.choice.problem)
        if finish == "stop":
            return "stop"
        self.answer_tokens += 1
        if self.request.log_probabilities:
            self._log_probabilities.append(log_probability)
        self._detokenizer.add_token(token)
        if self._add_text():
            return "stop"
        if finish is None:
            return None
        if self.answer_tokens < self.request.options.max_tokens:
            raise BackendError(
                f"the context of {self._context_tokens} tokens is full after a prompt of {len(self.tokens)} and "
                f"{self.answer_tokens} answer tokens. Lower max_tokens, or raise context_tokens if the model allows it."
            )
        return "length"

    def completion(self, reason: FinishReason, error: str | None = None) -> Completion:
        """Close the job with what it has."""
        if not self.answer.stopped:
            self._detokenizer.finalize()
            self._add_text()
        return super().completion(reason, error)

    def _add_text(self) -> bool:
        """Take over what the tokens so far spell; True when a stop string is complete."""
        return self.answer.add(self._detokenizer.last_segment.encode("utf-8", "replace"))
