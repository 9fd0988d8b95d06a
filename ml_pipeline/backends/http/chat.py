"""One request in the words of OpenAI's chat API, and its answer out of what comes back."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any, TypeGuard

from ml_pipeline.backends.answer_text import AnswerText
from ml_pipeline.backends.control_tokens import KNOWN_SHAPES, spaced_messages
from ml_pipeline.backends.delta_text import DeltaText
from ml_pipeline.backends.http.client import error_words
from ml_pipeline.backends.http_answer import HttpError
from ml_pipeline.backends.interface import CompletionRequest, FinishReason
from ml_pipeline.backends.seeds import request_seed
from ml_pipeline.errors import BackendError
from ml_pipeline.printable import printable

PATH = "/v1/chat/completions"
_ENDS: dict[str, FinishReason] = {"stop": "stop", "length": "length", "tool_calls": "stop"}
_MOST_TOKENS = 1 << 31


def request_body(request: CompletionRequest, model: str, samplers: str) -> dict[str, Any]:
    """The JSON of a request, without what receives it (`streamed`) and what constrains it.

    Stop strings are found on our side, which ends the stream: mlx_lm.server cuts them out of the text and goes on.
    A seed goes only with a temperature: some servers do not batch seeded requests. Where the server's own names of
    samplers are known, they are always sent, because its defaults (top_k 40, min_p 0.05) are not neutral.

    Raises:
        BackendError: it needs a sampler that the server is not known to have.
    """
    options = request.options
    body: dict[str, Any] = {
        "model": model,
        "messages": [asdict(message) for message in spaced_messages(request.messages, KNOWN_SHAPES)],
        "max_tokens": options.max_tokens,
        "temperature": options.temperature,
        "top_p": options.top_p,
    }
    if options.temperature > 0:
        body["seed"] = request_seed(options.seed, request.id)
    if request.log_probabilities:
        # llama_cpp.server gives none without a number of alternatives.
        body |= {"logprobs": True, "top_logprobs": 1}
    if samplers != "openai":
        body |= {"top_k": options.top_k, "min_p": 0.0, samplers: options.repeat_penalty}
    elif options.top_k != 0 or options.repeat_penalty != 1.0:
        raise BackendError(
            f"top_k {options.top_k} and repeat_penalty {options.repeat_penalty:g} are not part of OpenAI's API. Set "
            "`samplers` of the http backend to what this server calls them, or leave them at 0 and 1."
        )
    return body


def streamed(body: dict[str, Any]) -> dict[str, Any]:
    """The same request with its answer as a stream."""
    return body | {"stream": True, "stream_options": {"include_usage": True}}


class HttpAnswer:
    """Puts an answer together from the events of a stream, or from one object that is the whole answer."""

    def __init__(self, request: CompletionRequest) -> None:
        self.text = AnswerText(request.options.stop)
        self.finish: FinishReason | None = None
        self.prompt_tokens = 0
        self.completion_tokens = 0
        self._wanted = request.log_probabilities
        self._greedy = request.options.temperature == 0 and request.options.repeat_penalty == 1.0
        self._delta = DeltaText()
        self._tokens: list[tuple[bytes, float]] = []
        self._raw = b""
        self._counted = False

    def add(self, event: dict[str, Any]) -> None:
        """Take one event; raises HttpError when it tells of an error, or is not what a server sends."""
        if (words := error_words(event)) is not None:
            raise HttpError(f"the server ended the answer: {printable(words)}", again=False)
        self._take_usage(event.get("usage"))
        choices = event.get("choices")
        if not isinstance(choices, list):
            raise HttpError("the server sent an event without choices", again=False)
        choice = choices[0] if choices and isinstance(choices[0], dict) else {}
        self._take_tokens(choice.get("logprobs"))
        piece = self._delta.text_of(choice.get("delta", choice.get("message")))
        if piece:
            # At least one token each, until the server tells its own count.
            self.completion_tokens += not self._counted
            raw = piece.encode("utf-8", "replace")
            self.text.add(raw)
            if self._wanted:
                self._raw += raw
        if self.text.stopped:
            self.finish = "stop"
        elif (reason := choice.get("finish_reason")) is not None:
            self.finish = _ENDS.get(str(reason))
            if self.finish is None:
                raise HttpError(f"the server ended the answer: {printable(reason, 80)}", again=False)

    @property
    def content(self) -> str:
        """The text without the thoughts that the server parted from it: what a schema holds for."""
        return self._delta.content

    def log_probabilities(self) -> tuple[float, ...] | None:
        """Of the text's tokens; None unless they were asked for and came.

        The tokens that are told must be those of the text: mlx_lm.server tells the likeliest one in place of the one
        that was drawn. Where the likeliest is always taken, the two are the same.
        """
        said = b"".join(token for token, _ in self._tokens)
        if not self._wanted or not self._tokens or not (self._greedy or said == self._raw):
            return None
        kept, place = [], 0
        for token, value in self._tokens:
            if self.text.stopped and place >= len(self.text.text.encode()):
                break
            kept.append(value)
            place += len(token)
        return tuple(kept)

    def _take_usage(self, usage: Any) -> None:
        counts = usage if isinstance(usage, dict) else {}
        prompt, answer = counts.get("prompt_tokens"), counts.get("completion_tokens")
        if _is_count(prompt) and _is_count(answer):
            self.prompt_tokens, self.completion_tokens, self._counted = prompt, answer, True

    def _take_tokens(self, found: Any) -> None:
        content = found.get("content") if isinstance(found, dict) else None
        for entry in content if isinstance(content, list) else ():
            value = log_probability(entry.get("logprob")) if isinstance(entry, dict) else None
            if value is None:
                raise HttpError("the server sent a log-probability that is none", again=False)
            self._tokens.append((token_bytes(entry), value))


def log_probability(value: Any) -> float | None:
    """A number that can be one; None for anything else. A rounding error above zero counts as zero."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value > 1e-3:
        return None
    return min(float(value), 0.0)


def token_bytes(entry: dict[str, Any]) -> bytes:
    """The bytes of a token that a server tells: half a character has no text of its own."""
    raw = entry.get("bytes")
    if isinstance(raw, list) and all(isinstance(byte, int) and 0 <= byte < 256 for byte in raw):
        return bytes(raw)
    return str(entry.get("token", "")).encode("utf-8", "replace")


def _is_count(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _MOST_TOKENS
