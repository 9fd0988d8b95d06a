"""What is asked of llama-server, and what it answers: its own API, not the one that looks like OpenAI's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ml_pipeline.backends.generation_options import PENALTY_WINDOW, check_options
from ml_pipeline.backends.http_answer import HttpError, error_text
from ml_pipeline.backends.interface import CompletionRequest, FinishReason
from ml_pipeline.backends.json_grammar import schema_to_grammar
from ml_pipeline.backends.likeliest import Position
from ml_pipeline.backends.seeds import request_seed
from ml_pipeline.backends.served import ServedAnswer
from ml_pipeline.errors import BackendError
from ml_pipeline.printable import printable

COMPLETION = "/completion"
# In the order in which the llama_cpp backend applies them; what is not named here does not take part.
_SAMPLERS = ("penalties", "top_k", "top_p", "temperature")
# More than any logits are apart.
_FORCE = 1e4
_LONGEST_CHARACTER = 4
# The logarithm of the smallest number in single precision. Probabilities below are 0 to the server, whose logarithm it
# writes as -3.4e38.
_LEAST = -103.3

Lora = list[dict[str, float]]
"""The `id` of each adapter that the server has loaded, and the `scale` at which the request wants it."""


def next_token_body(prompt: str | list[int], lora: Lora, top: int, forced: int) -> dict[str, Any]:
    """Ask for the log-probabilities of the `top` likeliest next tokens and of `forced`, which is then taken.

    Probabilities are those of the model as it is: the server takes them before any sampler, the force included.
    """
    return _common_body(prompt, lora) | {
        "n_predict": 1,
        "n_probs": top,
        "temperature": 0.0,
        "logit_bias": [[forced, _FORCE]],
    }


def completion_body(request: CompletionRequest, prompt: str | list[int], lora: Lora) -> dict[str, Any]:
    """The JSON of a request. Stop strings are found on our side, as in every backend.

    Raises:
        BackendError: the options make no sense, or the schema cannot be a grammar.
    """
    options = request.options
    check_options(options)
    body = _common_body(prompt, lora) | {
        "n_predict": options.max_tokens,
        "temperature": options.temperature,
        "top_k": options.top_k,
        "top_p": options.top_p,
        "repeat_penalty": options.repeat_penalty,
        "repeat_last_n": PENALTY_WINDOW,
        "seed": request_seed(options.seed, request.id),
        "stream": True,
    }
    if request.json_schema is not None:
        body["grammar"] = schema_to_grammar(request.json_schema)
    if request.log_probabilities:
        body["n_probs"] = 1
    return body


def _common_body(prompt: str | list[int], lora: Lora) -> dict[str, Any]:
    return {
        "prompt": prompt,
        "samplers": _SAMPLERS,
        "cache_prompt": False,
        "lora": lora,
    }


def likeliest(answer: dict[str, Any]) -> Position:
    """Log-probabilities by token in the answer to a `next_token_body`; raises HttpError when it is none.

    The server tells nothing when the token that was taken is only a part of a character.
    """
    entries = answer.get("completion_probabilities", [])
    try:
        return {
            int(token["id"]): _number(token["logprob"])
            for entry in entries
            for token in (*entry["top_logprobs"], entry)
        }
    except (LookupError, TypeError, ValueError) as error:
        raise HttpError("the server's log-probabilities make no sense; is it too old?", again=False) from error


def _number(value: Any) -> float:
    # JSON has no NaN: the server writes null.
    return math.nan if value is None else max(float(value), _LEAST)


class Answer(ServedAnswer):
    """Puts an answer together from the events of its stream.

    The server sends whole characters. Of a character that took several tokens it tells only the last one's
    log-probability, so an answer with such a character has none.
    """

    def __init__(self, stop: Sequence[str], max_tokens: int, *, log_probabilities: bool) -> None:
        super().__init__(stop)
        self._max_tokens = max_tokens
        self._wants_log_probabilities = log_probabilities
        self._told: list[float] = []
        self._tokens_sent = 0

    @property
    def lost_text(self) -> bool:
        """Whether the server kept more to itself than the beginning of a character.

        After bytes that are no UTF-8 it streams nothing any more.
        """
        return not self.text.stopped and self.completion_tokens - self._tokens_sent >= _LONGEST_CHARACTER

    def add_lost(self, whole: dict[str, Any]) -> None:
        """Take what is missing out of the same answer in one piece, unless it came out differently this time."""
        content = whole.get("content")
        if not isinstance(content, str) or not content.startswith(self.text.text):
            raise HttpError(
                "the answer holds bytes that are no text, and the server sends nothing after them", again=False
            )
        if self.text.add(content[len(self.text.text) :].encode("utf-8", "replace")):
            self.finish = "stop"

    def add(self, event: dict[str, Any]) -> None:
        """Take one event; raises HttpError when it is not what the server sends, BackendError when it is no answer."""
        if "error" in event:
            raise HttpError(printable(error_text(event)) or "the server gives no reason", again=False)
        content, produced, evaluated = (event.get(name) for name in ("content", "tokens_predicted", "tokens_evaluated"))
        if not isinstance(content, str) or not isinstance(produced, int) or not isinstance(evaluated, int):
            raise HttpError("the server sent an event without content or counts of tokens", again=False)
        self.prompt_tokens, self.completion_tokens = evaluated, produced
        self._take_log_probabilities(event.get("completion_probabilities"))
        self.text.add(content.encode("utf-8", "replace"))
        if self.text.stopped:
            self.finish = "stop"
        elif event.get("stop") is True:
            self.finish = self._end(event.get("stop_type"))
        else:
            self._tokens_sent = produced
        if self._wants_log_probabilities and len(self._told) >= self.completion_tokens:
            self.log_probabilities = tuple(self._told[: self.completion_tokens])
        else:
            self.log_probabilities = None

    def _end(self, stop_type: Any) -> FinishReason:
        if stop_type == "eos":
            # The token that ends an answer is counted by the server, but is not part of the answer.
            self.completion_tokens -= 1
            return "stop"
        if stop_type != "limit":
            raise HttpError(f"the server ended the answer for an unknown reason: {printable(stop_type)}", again=False)
        if self.completion_tokens < self._max_tokens:
            raise BackendError(
                f"the context is full after a prompt of {self.prompt_tokens} and {self.completion_tokens} answer "
                "tokens. Raise context_tokens or lower max_tokens."
            )
        return "length"

    def _take_log_probabilities(self, entries: Any) -> None:
        if not self._wants_log_probabilities or not isinstance(entries, list):
            return
        try:
            self._told += [_number(entry["logprob"]) for entry in entries]
        except (LookupError, TypeError, ValueError) as error:
            raise HttpError("the server sent a token without its log-probability", again=False) from error
        if any(math.isnan(value) for value in self._told[-len(entries) :]):
            raise BackendError("the model's logits are NaN: its weights or the adapter's are damaged")
